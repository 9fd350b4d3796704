package build

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matchv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/plan"
)

// healthCheck asks the endpoints of a pool whether they are well; nil for none. An
// answer below 500 is one: a backend that knows no such path, or wants a credential for
// it, is there.
func healthCheck(p *plan.Pool) []*corev3.HealthCheck {
	h := p.HealthCheck
	if h.Path == "" {
		return nil
	}
	check := &corev3.HealthCheck{
		Timeout:  durationpb.New(h.Timeout),
		Interval: durationpb.New(h.Interval),
		// Envoy asks once a minute where there was no traffic yet, and then the first
		// requests meet what is down.
		NoTrafficInterval:     durationpb.New(h.Interval),
		IntervalJitterPercent: 10,
		UnhealthyThreshold:    wrapperspb.UInt32(h.UnhealthyAfter),
		HealthyThreshold:      wrapperspb.UInt32(h.HealthyAfter),
		// Backends close connections that idle about as long as the interval is.
		ReuseConnection: wrapperspb.Bool(false),
		HealthChecker: &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{
			Host: authority(p), Path: h.Path,
			ExpectedStatuses: []*typev3.Int64Range{{Start: 200, End: 500}},
		}},
	}
	if p.Scheme == "https" {
		// The pool's connections may be HTTP/2; the checker speaks HTTP/1.1.
		check.TlsOptions = &corev3.HealthCheck_TlsOptions{AlpnProtocols: []string{"http/1.1"}}
	}
	return []*corev3.HealthCheck{check}
}

// outlierDetection leaves an endpoint alone that fails again and again, in a pool that
// has others. Envoy's split of errors is off, so that timeouts count: with it, each
// connection that is made begins the count anew. One endpoint stays: what the last one
// answers is worth more to the client than that nobody is left, and when it fails the
// next target is tried as well.
func outlierDetection(p *plan.Pool) *clusterv3.OutlierDetection {
	if !ejects(p) {
		return nil
	}
	n, all := len(p.Endpoints), len(p.Endpoints)+refusing(p)
	return &clusterv3.OutlierDetection{
		Consecutive_5Xx:                    wrapperspb.UInt32(p.Ejection.After),
		EnforcingConsecutiveGatewayFailure: wrapperspb.UInt32(0),
		EnforcingSuccessRate:               wrapperspb.UInt32(0),
		Interval:                           durationpb.New(min(p.Ejection.For, 2*time.Second)), // how often it looks who may come back
		BaseEjectionTime:                   durationpb.New(p.Ejection.For),
		MaxEjectionTime:                    durationpb.New(p.Ejection.AtMost),
		MaxEjectionPercent:                 wrapperspb.UInt32(mostEjected(n, all)),
		// It says that it is well and fails: that is no reason to come back early.
		SuccessfulActiveHealthCheckUnejectHost: wrapperspb.Bool(false),
	}
}

// mostEjected is which percent of all endpoints, the refusing ones among them, may be
// ejected so that one of n stays. Envoy ejects what comes to no more: it is rounded up, but
// where a whole percent is more than an endpoint, to less than all n.
func mostEjected(n, all int) uint32 {
	return uint32(min((100*(n-1)+all-1)/all, (100*n-1)/all))
}

func ejects(p *plan.Pool) bool { return p.Ejection.After > 0 && len(p.Endpoints) > 1 && static(p) }

// countedErrors are the answers that count against an endpoint: 5xx and 429.
func countedErrors(p *plan.Pool) *upstreamv3.HttpProtocolOptions_OutlierDetection {
	if !ejects(p) {
		return nil
	}
	return &upstreamv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: &matchv3.MatchPredicate{
		Rule: &matchv3.MatchPredicate_HttpResponseHeadersMatch{HttpResponseHeadersMatch: &matchv3.HttpHeadersMatch{
			Headers: []*routev3.HeaderMatcher{{
				Name: ":status",
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
					MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "5..|429"}},
				}},
			}},
		}},
	}}
}

// slowStart gives an endpoint that comes back a growing part of its share.
func slowStart(p *plan.Pool) *clusterv3.Cluster_LeastRequestLbConfig_ {
	if p.SlowStart == 0 {
		return nil
	}
	return &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{
		SlowStartConfig: &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: durationpb.New(p.SlowStart)},
	}}
}
