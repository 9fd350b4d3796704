package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// The W3C trace context that a client sends reaches the backend and the event.
func TestTraceContextIsPassedOn(t *testing.T) {
	w := newWorld(t)
	w.a.fault(t)
	const trace = "0af7651916cd43dd8448eb211c80319c"
	if got := w.chat("chat", "traceparent", "00-"+trace+"-b7ad6b7169203331-01", "tracestate", "vendor=value"); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	r := w.a.received(t, 1)[0]
	if !strings.Contains(r.Headers.Get("traceparent"), trace) || r.Headers.Get("tracestate") != "vendor=value" {
		t.Errorf("the backend received traceparent %q, tracestate %q", r.Headers.Get("traceparent"), r.Headers.Get("tracestate"))
	}
}

// A listener with a certificate serves TLS; a renewed certificate is served
// without a restart.
func TestListenerTLS(t *testing.T) {
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, certificate, key, "first.example")
	w := newWorld(t, "    address: 127.0.0.1:0\n", fmt.Sprintf("    address: 127.0.0.1:0\n    tls: {certificate_file: %q, private_key_file: %q}\n", certificate, key))
	if !strings.HasPrefix(w.base, "https://") {
		t.Fatalf("base URL %s", w.base)
	}
	if name := peerName(t, w.base); name != "first.example" {
		t.Errorf("certificate of %s", name)
	}
	writeCertificate(t, certificate, key, "second.example")
	eventually(t, 10*time.Second, func() string {
		if name := peerName(t, w.base); name != "second.example" {
			return "certificate of " + name
		}
		return ""
	})
}

func peerName(t *testing.T, base string) string {
	t.Helper()
	address := strings.TrimSuffix(strings.TrimPrefix(base, "https://"), "/v1")
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func writeCertificate(t *testing.T, certificate, key, name string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

// The admin address tells health, readiness, the state, and metrics without a
// client's words in their labels.
func TestAdmin(t *testing.T) {
	w := newWorld(t)
	w.chat("chat")
	w.chat("no-such-model-of-a-client")
	text := func(path string, status int) string {
		t.Helper()
		resp, err := http.Get(w.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%s: status %d, want %d", path, resp.StatusCode, status)
		}
		return readAll(t, resp)
	}
	text("/healthz", 200)
	text("/readyz", 200)
	text("/readyz/extproc", 200)
	text("/readyz/cook", 404)
	var status struct {
		Plan string
		XDS  struct{ Version string }
	}
	if err := json.Unmarshal([]byte(text("/status", 200)), &status); err != nil || status.Plan == "" || status.XDS.Version == "" {
		t.Errorf("status %+v, %v", status, err)
	}
	eventually(t, 5*time.Second, func() string {
		metrics := text("/metrics", 200)
		for _, want := range []string{
			`weir_requests_total{kind="chat",model="chat",reason="",verdict="allowed"} 1`, `reason="unknown_model"`,
			`weir_usage_tokens_total{gen_ai_token_type="output",model="chat",team="research"} 12`,
		} {
			if !strings.Contains(metrics, want) {
				return "no metric " + want
			}
		}
		if strings.Contains(metrics, "no-such-model-of-a-client") {
			t.Error("a client's word is a label")
		}
		return ""
	})
}

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What a backend says about usage in its own way is what is billed.
func TestUsageAsReported(t *testing.T) {
	w := newWorld(t)
	w.a.fault(t, simulate.Fault{Usage: "cached"})
	w.chat("chat")
	r := w.a.received(t, 1)[0]
	eventually(t, 10*time.Second, func() string {
		for _, row := range w.usage(t) {
			cached := int64(r.PromptTokens / 2)
			if row.Outcome == "completed" && row.Cached == cached && row.Input == int64(r.PromptTokens)-cached {
				return ""
			}
		}
		return fmt.Sprintf("usage %+v for a prompt of %d tokens, half of them cached", w.usage(t), r.PromptTokens)
	})
}
