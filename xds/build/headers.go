package build

import (
	"slices"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// steeringPrefixes begin headers with which a client could steer Envoy, weir or
// an inference server, and which only the gateway may set: Envoy's router,
// weir's own, the inference extension's endpoint picker, SGLang's overrides.
var steeringPrefixes = []string{
	"x-envoy-", ai.InternalPrefix, "x-gateway-", "x-override-", "x-llm-d-", "x-ai-eg-",
}

// steeringHeaders are those without a prefix of their own: vLLM's priority,
// session and data-parallel rank, llm-d's prefill and encoder hosts.
var steeringHeaders = []string{
	"x-data-parallel-host-port", "x-data-parallel-rank", "x-encoder-hosts-ports",
	"x-prefiller-host-port", "x-session-id", "x-vllm-priority",
}

// credentialHeaders never reach a backend as the client or an earlier attempt
// sent them.
var credentialHeaders = []string{
	"anthropic-api-key", "api-key", "authorization", "cookie", "openai-organization", "openai-project",
	"proxy-authorization", "x-api-key", "x-goog-api-key",
}

// peerFormat is the address of who is connected, and peerURIFormat what the URIs of
// its certificate are, as Envoy verified it.
const (
	peerFormat    = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
	peerURIFormat = "%DOWNSTREAM_PEER_URI_SAN%"
)

// attemptHeaders are dropped before each attempt for another reason: where a
// client is and how Envoy names its request is no business of a provider.
var attemptHeaders = []string{"forwarded", "x-real-ip", "x-request-id"}

// earlyMutations run before anything else sees a request: what only the gateway
// may say is dropped, and then said. All listeners say who the peer is, so that no
// rule about networks changes one.
func earlyMutations(l *plan.Listener) []*mutationv3.HeaderMutation {
	var list []*mutationv3.HeaderMutation
	for _, p := range steeringPrefixes {
		list = append(list, removePrefix(p))
	}
	for _, h := range steeringHeaders {
		list = append(list, remove(h))
	}
	list = append(list, set(ai.PeerHeader, peerFormat))
	if l.TLS != nil && l.TLS.ClientCA != nil {
		list = append(list, set(ai.PeerURIHeader, peerURIFormat))
	}
	return list
}

// attemptMutations begin each attempt. Headers persist from attempt to attempt,
// so that whatever any pool injects is removed too; and a backend learns nothing
// of who called or of the way through the gateway.
func (b *builder) attemptMutations() []*mutationv3.HeaderMutation {
	drop := slices.Concat(credentialHeaders, attemptHeaders, b.plan.CredentialHeaders())
	slices.Sort(drop)
	var list []*mutationv3.HeaderMutation
	for _, h := range slices.Compact(drop) {
		list = append(list, remove(h))
	}
	for _, prefix := range []string{"x-envoy-", "x-forwarded-", ai.InternalPrefix} {
		list = append(list, removePrefix(prefix))
	}
	// A compressed answer cannot be metered.
	return append(list, set("accept-encoding", "identity"), set(ai.AttemptHeader, ai.AttemptFormat))
}

func set(name, value string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: setHeader(name, value)}}
}

func remove(name string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}}
}

func removePrefix(prefix string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}, IgnoreCase: true,
		}},
	}}
}

// setHeader overwrites whatever stands there.
func setHeader(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
