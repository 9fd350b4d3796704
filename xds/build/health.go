package build

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matcherv3c "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/plan"
)

// healthChecks ask each endpoint whether it is well. Any answer below 500 is: only a
// backend that says so, or that does not answer, is ill.
func healthChecks(p *plan.Pool) []*corev3.HealthCheck {
	h := p.HealthCheck
	if h == nil {
		return nil
	}
	return []*corev3.HealthCheck{{
		Interval: durationpb.New(h.Interval),
		// Envoy's default, a minute, would leave the first request to an endpoint that is dead.
		NoTrafficInterval:     durationpb.New(h.Interval),
		Timeout:               durationpb.New(h.Timeout),
		IntervalJitterPercent: 10, // many Envoys do not ask at the same time
		UnhealthyThreshold:    wrapperspb.UInt32(h.UnhealthyAfter),
		HealthyThreshold:      wrapperspb.UInt32(h.HealthyAfter),
		HealthChecker: &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{
			Host: authority(p), Path: h.Path, ExpectedStatuses: []*typev3.Int64Range{{Start: 200, End: 500}},
		}},
	}}
}

// ejects tells whether endpoints of the pool are ejected: those that have others beside
// them. Where names are resolved, who they are is not known here.
func ejects(p *plan.Pool) bool { return p.Ejection != nil && len(p.Endpoints) > 1 && static(p) }

// outlierDetection leaves an endpoint that fails to the pool's others. What cannot
// connect, is reset or has no answer in time counts with what it answers: told apart,
// as Envoy can, each connection that is made would clear the count of those that are
// reset after it. All endpoints may be ejected, but never the refusing one behind them:
// see loadAssignment.
func outlierDetection(p *plan.Pool) *clusterv3.OutlierDetection {
	if !ejects(p) {
		return nil
	}
	n := len(p.Endpoints)
	return &clusterv3.OutlierDetection{
		Consecutive_5Xx:                    wrapperspb.UInt32(p.Ejection.Errors),
		EnforcingConsecutiveGatewayFailure: wrapperspb.UInt32(0),
		EnforcingSuccessRate:               wrapperspb.UInt32(0),
		BaseEjectionTime:                   durationpb.New(p.Ejection.Time),
		MaxEjectionPercent:                 wrapperspb.UInt32(uint32(100 * n / (n + refusing(p)))),
	}
}

// errorAnswers are what ejects: 5xx and 429. Envoy leaves 429 out by itself, and an
// endpoint that has no room is better left to the others for a while.
func errorAnswers() *matcherv3c.MatchPredicate {
	return &matcherv3c.MatchPredicate{Rule: &matcherv3c.MatchPredicate_HttpResponseHeadersMatch{
		HttpResponseHeadersMatch: &matcherv3c.HttpHeadersMatch{Headers: []*routev3.HeaderMatcher{{
			Name: ":status",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "5..|429"}},
			}},
		}}},
	}}
}

// slowStart gives an endpoint that is new, or back, less than its share at first.
func slowStart(c *clusterv3.Cluster, p *plan.Pool) {
	if p.SlowStart == 0 || len(p.Endpoints) < 2 {
		return
	}
	c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{
		SlowStartConfig: &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: durationpb.New(p.SlowStart)},
	}}
}
