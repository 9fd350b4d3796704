package build

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

const (
	// clockSkew is how far the clocks of issuer and Envoy may differ.
	clockSkew = 60 // seconds

	keySetTimeout = 5 * time.Second
	keySetConnect = 2 * time.Second
)

// tokenFilter is the filter's name, and that of its configuration.
const tokenFilter = "weir.jwt"

// tokenFilters verify tokens before weir is asked; none without issuers. How is
// delivered apart, so that a change of an issuer or of its keys drains no listener.
func (b *builder) tokenFilters() []*hcmv3.HttpFilter {
	if len(b.plan.TokenIssuers) == 0 {
		return nil
	}
	return []*hcmv3.HttpFilter{{Name: tokenFilter, ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{
		ConfigDiscovery: &corev3.ExtensionConfigSource{
			ConfigSource: ads(),
			TypeUrls:     []string{typeURL(&jwtv3.JwtAuthentication{})},
		},
	}}}
}

// verifyTokens adds how tokens are verified. A request without a token, or with one
// that is no good, passes: it may have a key, and weir refuses what Envoy has not
// verified.
func (b *builder) verifyTokens() {
	if len(b.plan.TokenIssuers) == 0 {
		return
	}
	providers := map[string]*jwtv3.JwtProvider{}
	either := &jwtv3.JwtRequirementOrList{}
	for _, t := range b.plan.TokenIssuers {
		providers[t.Name] = provider(t)
		either.Requirements = append(either.Requirements, &jwtv3.JwtRequirement{
			RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: t.Name},
		})
	}
	either.Requirements = append(either.Requirements, &jwtv3.JwtRequirement{
		RequiresType: &jwtv3.JwtRequirement_AllowMissingOrFailed{AllowMissingOrFailed: &emptypb.Empty{}},
	})
	b.res.Extensions = append(b.res.Extensions, &corev3.TypedExtensionConfig{Name: tokenFilter, TypedConfig: pack(&jwtv3.JwtAuthentication{
		Providers: providers,
		Rules: []*jwtv3.RequirementRule{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			RequirementType: &jwtv3.RequirementRule_Requires{Requires: &jwtv3.JwtRequirement{
				RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: either},
			}},
		}},
	})})
}

// provider looks in Authorization and nowhere else: by default Envoy takes tokens
// from the query too. The token stays in the request until weir has compared it
// with what was verified. Verified tokens are not cached: a key that the issuer
// withdraws would go on opening.
func provider(t *plan.TokenIssuer) *jwtv3.JwtProvider {
	p := &jwtv3.JwtProvider{
		Issuer:    t.Issuer,
		Audiences: t.Audiences,
		FromHeaders: []*jwtv3.JwtHeader{
			{Name: "authorization", ValuePrefix: "Bearer "},
			{Name: "authorization", ValuePrefix: "bearer "},
		},
		Forward:              true,
		ForwardPayloadHeader: ai.ClaimsHeader,
		ClockSkewSeconds:     clockSkew,
		RequireExpiration:    true,
	}
	if t.Remote == nil {
		p.JwksSourceSpecifier = &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: string(t.KeySet)},
		}}
		return p
	}
	p.JwksSourceSpecifier = &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: &jwtv3.RemoteJwks{
		HttpUri: &corev3.HttpUri{
			Uri:              t.Remote.URL,
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: keySetName(t)},
			Timeout:          durationpb.New(keySetTimeout),
		},
		CacheDuration: durationpb.New(t.Remote.Refresh),
		// A listener does not wait for an issuer: tokens are refused until the keys
		// are there, and API keys work.
		AsyncFetch:  &jwtv3.JwksAsyncFetch{FastListener: true},
		RetryPolicy: &corev3.RetryPolicy{NumRetries: wrapperspb.UInt32(2)},
	}}
	return p
}

func keySetName(t *plan.TokenIssuer) string { return "jwks/" + t.Name }

// keySetCluster adds the cluster from which an issuer's keys are fetched.
func (b *builder) keySetCluster(t *plan.TokenIssuer) error {
	if t.Remote == nil {
		return nil
	}
	socket, err := b.keySetTLS(t.Remote)
	if err != nil {
		return fmt.Errorf("jwks: %w", err)
	}
	at := t.Remote.Endpoint
	c := &clusterv3.Cluster{
		Name:            keySetName(t),
		AltStatName:     strings.ReplaceAll(keySetName(t), ".", "_"),
		ConnectTimeout:  durationpb.New(keySetConnect),
		TransportSocket: socket,
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: keySetName(t), Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(at.Host, at.Port)}},
			}},
		}}},
	}
	if _, err := netip.ParseAddr(at.Host); err != nil {
		c.ClusterDiscoveryType = byName() // an address is static, the default
	}
	b.res.Clusters = append(b.res.Clusters, c)
	return nil
}

// keySetTLS verifies whom the keys come from: whoever can change them can make tokens.
func (b *builder) keySetTLS(r *plan.RemoteKeySet) (*corev3.TransportSocket, error) {
	if r.Scheme != "https" {
		return nil, nil
	}
	ca := r.CAFile
	if ca == "" {
		ca = b.opts.SystemCAFile
	}
	if ca == "" {
		return nil, errors.New("https, but neither ca_file nor a system CA bundle is known")
	}
	trust := &tlsv3.CertificateValidationContext{
		TrustedCa:                 fileSource(ca),
		MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{altName(r.Endpoint.Host)},
	}
	c := &tlsv3.UpstreamTlsContext{CommonTlsContext: commonTLS([]string{"http/1.1"}, trust)}
	if trust.MatchTypedSubjectAltNames[0].SanType == tlsv3.SubjectAltNameMatcher_DNS { // there is no SNI for an address
		c.Sni = r.Endpoint.Host
	}
	return transportSocket(c), nil
}
