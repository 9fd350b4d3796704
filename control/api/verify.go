package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
)

// algorithms are those that are accepted: asymmetric ones, and never none.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

const (
	maxTokenBytes = 16 << 10
	fetchTimeout  = 10 * time.Second // of a provider's keys
)

// TLSServer serves the API over TLS to callers that prove who they are. The
// configuration can be changed while it serves.
type TLSServer struct {
	*http.Server
	now   atomic.Pointer[verifier]
	log   *slog.Logger
	fetch http.RoundTripper
}

// NewTLSServer makes the server; ServeTLS takes a listener.
func (s *Server) NewTLSServer(p *plan.AdminAPI) (*TLSServer, error) {
	t := &TLSServer{log: s.o.Log, fetch: s.o.Fetch}
	if err := t.Use(p); err != nil {
		return nil, err
	}
	t.Server = s.bounded(t.identify(s.mux))
	t.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return t.now.Load().tls, nil
		},
	}
	return t, nil
}

// Use takes another configuration over for the requests that follow. Nil refuses
// everybody, until the listener is closed at the next start.
func (t *TLSServer) Use(p *plan.AdminAPI) error {
	if p == nil {
		was := t.now.Load()
		t.now.Store(&verifier{tls: was.tls})
		return nil
	}
	v, err := newVerifier(p, t.fetch)
	if err == nil {
		t.now.Store(v)
	}
	return err
}

// verifier finds out who calls, under one configuration.
type verifier struct {
	tls     *tls.Config
	clients []plan.AdminClient
	oidc    *plan.AdminOIDC
	tokens  *oidc.IDTokenVerifier
}

func newVerifier(p *plan.AdminAPI, fetch http.RoundTripper) (*verifier, error) {
	certificate, err := tls.X509KeyPair(p.TLS.CertificateChain, p.TLS.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("admin.api.tls: %w", err)
	}
	v := &verifier{clients: p.Clients, oidc: p.OIDC, tls: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2", "http/1.1"},
		// A ticket would carry a certificate past a change of the authorities.
		SessionTicketsDisabled: true,
	}}
	if p.ClientCAs != nil {
		v.tls.ClientCAs, v.tls.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !v.tls.ClientCAs.AppendCertsFromPEM(p.ClientCAs) {
			return nil, errors.New("admin.api.client_ca_file: it holds no certificate")
		}
	}
	if p.OIDC != nil {
		if p.ClientCAs != nil {
			v.tls.ClientAuth = tls.VerifyClientCertIfGiven
		}
		v.tokens = oidc.NewVerifier(p.OIDC.Issuer, keySet(p.OIDC, fetch), &oidc.Config{ClientID: p.OIDC.Audience, SupportedSigningAlgs: algorithms})
	}
	return v, nil
}

func keySet(o *plan.AdminOIDC, fetch http.RoundTripper) oidc.KeySet {
	if o.JWKSURL == "" {
		return &oidc.StaticKeySet{PublicKeys: o.Keys}
	}
	client := &http.Client{Timeout: fetchTimeout, Transport: &paced{next: fetch}, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if r.URL.Scheme != "https" || len(via) > 3 {
			return errors.New("the keys are not where they should be: a redirect away from https")
		}
		return nil
	}}
	return oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), client), o.JWKSURL)
}

// paced lets a provider be asked once in a while: a token with a key that is not
// known, which anybody can send, leads to a question.
type paced struct {
	next http.RoundTripper
	mu   sync.Mutex
	last time.Time
}

const fetchPause = 5 * time.Second

func (p *paced) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	since := time.Since(p.last)
	if p.last.IsZero() || since > fetchPause || r.Response != nil { // a redirect belongs to its question
		p.last = time.Now()
		p.mu.Unlock()
		return p.next.RoundTrip(r) //nolint:wrapcheck // a transport
	}
	p.mu.Unlock()
	return nil, errors.New("the provider was asked for its keys a moment ago")
}

// identify puts the caller into the context, or refuses. The client is told nothing
// about why a token is not good; the log is.
func (t *TLSServer) identify(next http.Handler) http.Handler {
	refuse := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		actor, err := t.now.Load().actor(r)
		if err != nil {
			t.log.Warn("admin API: a caller was refused", "remote", r.RemoteAddr, "err", err)
			_ = refuse.Write(w, r, connect.NewError(connect.CodeUnauthenticated, errors.New("the caller did not prove who it is"))) // it may be gone
			return
		}
		next.ServeHTTP(w, r.WithContext(withActor(r.Context(), actor)))
	})
}

// actor is who sends the request: by its token, if it brings one, else by its
// certificate. Who is known and has no role is an actor: what it may not do is
// audited.
func (v *verifier) actor(r *http.Request) (control.Actor, error) {
	values := r.Header.Values("Authorization")
	switch {
	case len(values) > 1:
		return control.Actor{}, errors.New("several Authorization headers")
	case len(values) == 1:
		return v.byToken(r.Context(), values[0])
	}
	return v.byCertificate(r.TLS)
}

func (v *verifier) byToken(ctx context.Context, value string) (control.Actor, error) {
	scheme, token, _ := strings.Cut(value, " ")
	switch {
	case v.tokens == nil:
		return control.Actor{}, errors.New("a token, and none are accepted")
	case !strings.EqualFold(scheme, "bearer") || token == "":
		return control.Actor{}, errors.New("an Authorization header that is no bearer token")
	case len(token) > maxTokenBytes:
		return control.Actor{}, errors.New("a token that is too long")
	}
	id, err := v.tokens.Verify(ctx, token)
	if err != nil {
		return control.Actor{}, fmt.Errorf("a token that does not hold: %w", err)
	}
	if id.Subject == "" {
		return control.Actor{}, errors.New("a token without a subject")
	}
	claims := map[string]json.RawMessage{}
	if err := id.Claims(&claims); err != nil {
		return control.Actor{}, fmt.Errorf("a token whose claims cannot be read: %w", err)
	}
	actor := control.Actor{Name: printable("oidc:" + v.oidc.Issuer + "#" + id.Subject)}
	for _, g := range v.oidc.Grants {
		if claimHas(claims[g.Claim], g.Value) {
			actor.Roles = append(actor.Roles, g.Roles...)
		}
	}
	slices.Sort(actor.Roles)
	actor.Roles = slices.Compact(actor.Roles)
	return actor, nil
}

// claimHas tells whether a claim is the text, or a list with it. Anything else has
// nothing.
func claimHas(claim json.RawMessage, want string) bool {
	var one string
	if json.Unmarshal(claim, &one) == nil {
		return one == want
	}
	var list []string
	return json.Unmarshal(claim, &list) == nil && slices.Contains(list, want)
}

// byCertificate is the caller of a certificate that TLS has verified.
func (v *verifier) byCertificate(state *tls.ConnectionState) (control.Actor, error) {
	if len(v.clients) == 0 || state == nil || len(state.VerifiedChains) == 0 {
		return control.Actor{}, errors.New("neither a token nor a client certificate that is accepted")
	}
	leaf := state.VerifiedChains[0][0]
	// The connection may be older than the authorities that are accepted now.
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.tls.ClientCAs, Intermediates: intermediates(state), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return control.Actor{}, fmt.Errorf("a client certificate that is not accepted any more: %w", err)
	}
	var spiffe string
	if len(leaf.URIs) == 1 && leaf.URIs[0].Scheme == "spiffe" {
		spiffe = leaf.URIs[0].String()
	}
	actor := control.Actor{Name: spiffe}
	if spiffe == "" {
		actor.Name = printable("cert:" + leaf.Subject.CommonName)
	}
	for _, c := range v.clients {
		if c.SPIFFEID != "" && c.SPIFFEID == spiffe || c.CommonName != "" && c.CommonName == leaf.Subject.CommonName {
			actor.Roles = append(actor.Roles, c.Roles...)
		}
	}
	slices.Sort(actor.Roles)
	actor.Roles = slices.Compact(actor.Roles)
	return actor, nil
}

func intermediates(state *tls.ConnectionState) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		pool.AddCert(c)
	}
	return pool
}
