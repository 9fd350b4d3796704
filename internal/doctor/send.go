package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
)

// Target is one listener of one proxy, and the way there.
type Target struct {
	Proxy, Listener string
	URL             string      // scheme://host:port
	TLS             *tls.Config // for https
}

const (
	probeTimeout = 5 * time.Second
	maxHeaders   = 64 << 10 // of a response, in bytes
	maxBody      = 64 << 10
)

// client sends probes to one target. It follows no redirection and no proxy of the
// environment: a token is for the target alone.
type client struct {
	target    Target
	key       probe.Key
	now       func() time.Time
	transport *http.Transport
}

func newClient(t Target, key probe.Key, now func() time.Time) *client {
	return &client{target: t, key: key, now: now, transport: &http.Transport{
		// A refusal may end its connection, so that each probe has its own.
		DisableKeepAlives: true,
		TLSClientConfig:   t.TLS, MaxResponseHeaderBytes: maxHeaders, DisableCompression: true,
	}}
}

// request is one probe.
type request struct {
	as            string // see probe.Token
	method, path  string
	key           string // API key; "" for none
	body          string
	contentLength int64 // announced, and never sent, when it is not 0
	spoof         bool  // send the headers that no client may send
}

// response is what came back: what weir signed, or why nothing did.
type response struct {
	status   int
	answer   *probe.Answer // nil when weir did not sign
	decision string        // x-weir-decision
}

// spoofed are headers of weir's, of Envoy's and of an inference server's.
var spoofed = []string{ai.DecisionHeader, ai.AttemptHeader, "x-envoy-max-retries", "x-gateway-destination-endpoint", "x-vllm-priority"}

// send sends one probe. Its error says that the target could not be asked.
func (c *client) send(ctx context.Context, r request) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	token := probe.Token{Nonce: probe.NewNonce(), At: c.now(), As: r.as}
	req, err := c.newRequest(ctx, r, token)
	if err != nil {
		return response{}, err
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return response{}, unwrapped(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody))
	out := response{status: resp.StatusCode, decision: resp.Header.Get(ai.DecisionHeader)}
	if signed := resp.Header.Values(probe.Header); len(signed) == 1 {
		if a, err := c.key.Open(token.Nonce, signed[0]); err == nil && a.ID == out.decision {
			out.answer = a
		}
	}
	return out, nil
}

func (c *client) newRequest(ctx context.Context, r request, token probe.Token) (*http.Request, error) {
	var body io.Reader
	switch {
	case r.contentLength > 0:
		body = withheld{ctx}
	case r.body != "":
		body = strings.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.target.URL+r.path, body)
	if err != nil {
		return nil, err
	}
	if r.contentLength > 0 {
		req.ContentLength = r.contentLength
	}
	req.Header.Set("user-agent", "weir-doctor")
	req.Header.Set("content-type", "application/json")
	req.Header.Set(probe.Header, c.key.Mint(token))
	if r.key != "" {
		req.Header.Set("authorization", "Bearer "+r.key)
	}
	if r.spoof {
		for _, name := range spoofed {
			req.Header.Set(name, token.Nonce.String())
		}
	}
	return req, nil
}

// withheld is a body of which nothing comes: it is to be refused on its headers.
type withheld struct{ ctx context.Context }

func (w withheld) Read([]byte) (int, error) {
	<-w.ctx.Done()
	return 0, w.ctx.Err()
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// refusedByTLS tells whether the other side ended the handshake.
func refusedByTLS(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// unwrapped leaves the URL out, which the report has already.
func unwrapped(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", probeTimeout)
	}
	return err
}

// Show makes probes show the certificate where they are asked for one.
func Show(c *tls.Config, certificate *plan.ServerTLS) error {
	if certificate == nil {
		return nil
	}
	pair, err := tls.X509KeyPair(certificate.CertificateChain, certificate.PrivateKey)
	if err != nil {
		return fmt.Errorf("doctor.certificate: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}
	return nil
}

// OwnTLS is for a listener of our own: what it presents must be the certificate of
// the plan. Its name is for clients and not for the loopback address.
func OwnTLS(t *plan.ServerTLS) (*tls.Config, error) {
	own, err := tls.X509KeyPair(t.CertificateChain, t.PrivateKey)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // the certificate itself is compared
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || string(s.PeerCertificates[0].Raw) != string(own.Certificate[0]) {
				return errors.New("the listener presents another certificate than the configuration's")
			}
			return nil
		},
	}, nil
}
