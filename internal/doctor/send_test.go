package doctor

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// certificate is a server's, as a plan holds it.
func certificate(t *testing.T, c tls.Certificate) *plan.ServerTLS {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &plan.ServerTLS{
		CertificateChain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		PrivateKey:       pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}
}

// On our own listener the plan's certificate is believed and no other, whatever
// authority signed it.
func TestOwnTLS(t *testing.T) {
	server := httptest.NewTLSServer(&gateway{t: t, key: testKey, plan: testPlan()})
	defer server.Close()
	own, err := OwnTLS(certificate(t, server.TLS.Certificates[0]))
	if err != nil {
		t.Fatal(err)
	}
	target := Target{Proxy: "p", Listener: "l", URL: server.URL, TLS: own}
	if f := new(Examiner).Examine(t.Context(), testPlan(), target); f[0].State != InForce {
		t.Errorf("%+v", f[0])
	}
	target.TLS.VerifyConnection = other(t)
	if f := new(Examiner).Examine(t.Context(), testPlan(), target); f[0].State != Unknown || !strings.Contains(f[0].Evidence, "another certificate") {
		t.Errorf("%+v", f[0])
	}
	if _, err := OwnTLS(&plan.ServerTLS{}); err == nil {
		t.Error("nothing is taken for a certificate")
	}
}

// A listener that wants a certificate is shown the doctor's; without one nobody gets
// in, and that is told apart from one that is away.
func TestClientCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(&gateway{t: t, key: testKey, plan: testPlan()})
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	own, err := OwnTLS(certificate(t, server.TLS.Certificates[0]))
	if err != nil {
		t.Fatal(err)
	}
	target := Target{URL: server.URL, TLS: own}
	if f := new(Examiner).Examine(t.Context(), testPlan(), target); len(f) != 1 || f[0].State != Unknown || !f[0].Closed {
		t.Errorf("%+v", f)
	}
	if err := Show(own, selfSigned(t)); err != nil {
		t.Fatal(err)
	}
	if f := new(Examiner).Examine(t.Context(), testPlan(), target); f[0].State != InForce || f[0].Closed {
		t.Errorf("%+v", f[0])
	}
	if err := Show(own, &plan.ServerTLS{}); err == nil {
		t.Error("nothing is taken for a certificate")
	}
}

// other believes another certificate.
func other(t *testing.T) func(tls.ConnectionState) error {
	t.Helper()
	own, err := OwnTLS(selfSigned(t))
	if err != nil {
		t.Fatal(err)
	}
	return own.VerifyConnection
}

// The environment's proxy is for other traffic: a token goes to its target.
func TestNoProxyOfTheEnvironment(t *testing.T) {
	c := newClient(Target{}, testKey, nil)
	if c.transport.Proxy != nil {
		t.Error("probes go through a proxy of the environment")
	}
}

func selfSigned(t *testing.T) *plan.ServerTLS {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return certificate(t, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private})
}
