package build

import (
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	groupv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/router/cluster_specifiers/priority_group/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// bodyPaths are the JSON endpoints: POST, body buffered and judged by weir.
// weir itself answers every other path and method from the headers alone.
var bodyPaths = []string{"/v1/chat/completions", "/v1/completions", "/v1/embeddings"}

const (
	extProcFilter = "weir.extproc"

	// retryOn: the next target is tried for these. per_try_timeout counts as 5xx.
	retryOn = "5xx,reset,connect-failure,refused-stream,retriable-status-codes"
	// defaultAttempt bounds silence within an attempt when the plan has no model.
	defaultAttempt = 600 * time.Second
)

// retriable are the statuses with which a backend speaks of itself or of weir and
// not of the client's request: another target may do better. 401, 402 and 403
// are about weir's credential, its balance and its rights there, 404 about the
// real model's name, 429 about the backend's own limit.
var retriable = []uint32{401, 402, 403, 404, 408, 429}

// ofBackends are response headers that speak to the backend's own clients, of
// which weir is one, or about its own limits and address.
var ofBackends = []string{
	"set-cookie", "alt-svc", "location", "www-authenticate", "proxy-authenticate", "strict-transport-security", "via", "x-powered-by",
	"access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods",
	"access-control-expose-headers", "access-control-max-age",
	"openai-organization", "openai-project", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
	"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
}

// routes is the one route configuration that all listeners share.
func (b *builder) routes() *routev3.RouteConfiguration {
	host := &routev3.VirtualHost{
		Name:    RouteConfig,
		Domains: []string{"*"},
		// The id of the decision, whatever a backend says it is.
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{
			setHeader(ai.DecisionHeader, "%DYNAMIC_METADATA("+ai.MetadataNamespace+":"+ai.MetaID+")%"),
		},
		ResponseHeadersToRemove: ofBackends,
	}
	for _, path := range bodyPaths {
		host.Routes = append(host.Routes, b.bodyRoute(path))
	}
	host.Routes = append(host.Routes, otherRoute())
	return &routev3.RouteConfiguration{Name: RouteConfig, VirtualHosts: []*routev3.VirtualHost{host}}
}

func (b *builder) bodyRoute(path string) *routev3.Route {
	return &routev3.Route{
		Name: path,
		Match: &routev3.RouteMatch{
			PathSpecifier: &routev3.RouteMatch_Path{Path: path},
			Headers: []*routev3.HeaderMatcher{{
				Name: ":method",
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
					MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "POST"},
				}},
			}},
		},
		RequestBodyBufferLimit: wrapperspb.UInt64(uint64(b.plan.Bounds.MaxBodyBytes)),
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_InlineClusterSpecifierPlugin{
				InlineClusterSpecifierPlugin: &routev3.ClusterSpecifierPlugin{Extension: byPriorityGroup()},
			},
			// A stream may be longer than any sum of timeouts: attempts are bounded
			// until they answer, and by silence from then on.
			Timeout:     durationpb.New(0),
			IdleTimeout: durationpb.New(b.longestSilence()),
			RetryPolicy: b.retryPolicy(),
			HashPolicy:  b.hashPolicy(),
		}},
	}
}

// hashPolicy is what pools with prefix affinity choose their endpoint by. Without the
// header the choice is random: also for what follows a first attempt, since the chain of
// that one removes the header.
func (b *builder) hashPolicy() []*routev3.RouteAction_HashPolicy {
	if !slices.ContainsFunc(b.plan.Pools, func(p *plan.Pool) bool { return p.PrefixLoad > 0 }) {
		return nil
	}
	return []*routev3.RouteAction_HashPolicy{{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
		Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: ai.AffinityHeader},
	}}}
}

// byPriorityGroup takes the clusters of the attempts, in order, from the
// dynamic metadata that ext_proc sets. Without it the request ends at a cluster
// that has no endpoint.
func byPriorityGroup() *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name: "envoy.router.cluster_specifier_plugin.priority_group",
		TypedConfig: pack(&groupv3.PriorityGroupClusterSpecifier{
			OverrideMetadataNamespace: ai.PriorityNamespace,
			PriorityGroups: []*groupv3.PriorityGroup{{
				Name: "none",
				Clusters: []*groupv3.ClusterWeight{{
					ClusterName: NoTargetCluster, Weight: wrapperspb.UInt32(1),
				}},
			}},
		}),
	}
}

// retryPolicy retries as often as ext_proc says in x-envoy-max-retries, each
// time at the next target.
func (b *builder) retryPolicy() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:               retryOn,
		RetriableStatusCodes:  retriable,
		NumRetries:            wrapperspb.UInt32(0),
		RefreshClusterOnRetry: true,
		PerTryIdleTimeout:     durationpb.New(b.longestAttempt()),
		// A pool that is tried again is tried at another endpoint, if it has one.
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: pack(&previousv3.PreviousHostsPredicate{}),
			},
		}},
		// Each draw is random: with two endpoints every second one falls on the
		// one that was tried. Thirty leave no chance worth the name.
		HostSelectionRetryMaxAttempts: 30,
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: durationpb.New(time.Millisecond), // another backend need not be spared
			MaxInterval:  durationpb.New(25 * time.Millisecond),
		},
	}
}

// longestAttempt is the longest time that any model gives one attempt.
func (b *builder) longestAttempt() time.Duration {
	var longest time.Duration
	for _, m := range b.plan.ModelList {
		longest = max(longest, m.AttemptTimeout, m.FirstTokenTimeout)
	}
	if longest == 0 {
		return defaultAttempt
	}
	return longest
}

// longestSilence is how long a client may hear nothing while the targets of the
// longest route are tried one after the other.
func (b *builder) longestSilence() time.Duration {
	longest := b.longestAttempt()
	for _, m := range b.plan.ModelList {
		attempt := max(m.AttemptTimeout, m.FirstTokenTimeout)
		longest = max(longest, time.Duration(longestRoute(m))*attempt)
	}
	return longest + 10*time.Second
}

func otherRoute() *routev3.Route {
	headersOnly := &extprocv3.ExtProcPerRoute{Override: &extprocv3.ExtProcPerRoute_Overrides{
		Overrides: &extprocv3.ExtProcOverrides{ProcessingMode: processingMode(extprocv3.ProcessingMode_NONE)},
	}}
	return &routev3.Route{
		Name:  "other",
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		// weir answers; what it lets pass by mistake ends here.
		Action:               &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 404}},
		TypedPerFilterConfig: map[string]*anypb.Any{extProcFilter: pack(headersOnly)},
	}
}

// longestRoute is the most attempts that a route of the model can make.
func longestRoute(m *plan.Model) int {
	longest := attempts(m.Targets)
	for _, r := range m.Rules {
		longest = max(longest, attempts(r.Targets))
	}
	if m.MaxAttempts > 0 {
		longest = min(longest, m.MaxAttempts)
	}
	return longest
}

// attempts counts every choice of a split: those not drawn follow as fallbacks.
func attempts(steps []plan.Step) int {
	n := 0
	for _, s := range steps {
		n += len(s.Choices)
	}
	return n
}
