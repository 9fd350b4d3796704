package build

import (
	"errors"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/plan"
)

// upstreamTLS verifies a pool's certificates; nil for a pool without TLS.
func (b *builder) upstreamTLS(p *plan.Pool) (*corev3.TransportSocket, error) {
	if p.Scheme != "https" {
		return nil, nil
	}
	ca := p.CAFile
	if ca == "" {
		ca = b.opts.SystemCAFile
	}
	if ca == "" {
		return nil, errors.New("https endpoint, but neither tls.ca_file nor a system CA bundle is known")
	}
	trust := &tlsv3.CertificateValidationContext{TrustedCa: fileSource(ca)}
	c := &tlsv3.UpstreamTlsContext{CommonTlsContext: commonTLS([]string{"h2", "http/1.1"}, trust)}
	switch {
	case p.ServerName != "":
		c.Sni = p.ServerName
		trust.MatchTypedSubjectAltNames = []*tlsv3.SubjectAltNameMatcher{altName(p.ServerName)}
	case static(p): // there is no SNI for an address
		for _, e := range p.Endpoints {
			trust.MatchTypedSubjectAltNames = append(trust.MatchTypedSubjectAltNames, altName(e.Host))
		}
	default:
		c.AutoHostSni, c.AutoSniSanValidation = true, true
	}
	return transportSocket(c), nil
}

// altName matches a name or an address exactly.
func altName(host string) *tlsv3.SubjectAltNameMatcher {
	m := &tlsv3.SubjectAltNameMatcher{
		SanType: tlsv3.SubjectAltNameMatcher_DNS,
		Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: host}},
	}
	if _, err := netip.ParseAddr(host); err == nil {
		m.SanType = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
	}
	return m
}

// clientTLS is mutual TLS to one of weir's services.
func clientTLS(t *ClientTLS) *corev3.TransportSocket {
	if t == nil {
		return nil
	}
	common := commonTLS([]string{"h2"}, &tlsv3.CertificateValidationContext{
		TrustedCa:                 fileSource(t.CAFile),
		MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{altName(t.ServerName)},
	})
	common.TlsCertificates = []*tlsv3.TlsCertificate{{
		CertificateChain: fileSource(t.CertificateFile), PrivateKey: fileSource(t.PrivateKeyFile),
	}}
	c := &tlsv3.UpstreamTlsContext{CommonTlsContext: common}
	if _, err := netip.ParseAddr(t.ServerName); err != nil { // there is no SNI for an address
		c.Sni = t.ServerName
	}
	return transportSocket(c)
}

// What the names of a listener's secrets begin with.
const (
	listenerSecret = "listener/"
	clientsSecret  = "clients/"
)

// listenerTLS asks for the certificate by SDS under a name that does not change
// with it, so that a new certificate drains no listener. So it does for the
// authorities of clients; a certificate that is shown is verified by them, also
// where none is required.
func (b *builder) listenerTLS(l *plan.Listener) *corev3.TransportSocket {
	if l.TLS == nil {
		return nil
	}
	name := listenerSecret + l.Name
	b.res.Secrets = append(b.res.Secrets, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inlineSource(l.TLS.CertificateChain),
			PrivateKey:       inlineSource(l.TLS.PrivateKey),
		},
	}})
	common := commonTLS([]string{"h2", "http/1.1"}, nil)
	common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{{Name: name, SdsConfig: ads()}}
	context := &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
	if l.TLS.ClientCA != nil {
		clients := clientsSecret + l.Name
		b.res.Secrets = append(b.res.Secrets, &tlsv3.Secret{Name: clients, Type: &tlsv3.Secret_ValidationContext{
			ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inlineSource(l.TLS.ClientCA)},
		}})
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: clients, SdsConfig: ads()},
		}
		context.RequireClientCertificate = wrapperspb.Bool(!l.TLS.ClientOptional)
	}
	return transportSocket(context)
}

// commonTLS names the highest version, which for Envoy as a client is 1.2 by default.
func commonTLS(alpn []string, trust *tlsv3.CertificateValidationContext) *tlsv3.CommonTlsContext {
	c := &tlsv3.CommonTlsContext{
		AlpnProtocols: alpn,
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
			TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		},
	}
	if trust != nil {
		c.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: trust}
	}
	return c
}

func transportSocket(context proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(context)},
	}
}
