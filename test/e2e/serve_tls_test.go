package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// authority issues certificates into a directory.
type authority struct {
	t    *testing.T
	dir  string
	file string // its own certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.key = newKey(t)
	a.cert = a.sign(template, template, &a.key.PublicKey, a.key)
	a.file = a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, with *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: fmt.Sprint(template.SerialNumber)}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, with)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// issue makes a certificate for a server on loopback or for a client.
func (a *authority) issue(name string, usage x509.ExtKeyUsage) (cert, key string) {
	a.t.Helper()
	private := newKey(a.t)
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	if usage == x509.ExtKeyUsageServerAuth {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	signed := a.sign(template, a.cert, &private.PublicKey, a.key)
	return a.write(name+".pem", "CERTIFICATE", signed.Raw), a.write(name+"-key.pem", "PRIVATE KEY", der)
}

// Over TCP beyond loopback both sides prove who they are.
func TestServeMutualTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	serverCert, serverKey := ca.issue("weir", x509.ExtKeyUsageServerAuth)
	clientCert, clientKey := ca.issue("envoy", x509.ExtKeyUsageClientAuth)
	port := freePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	o := newServe(t, "--listen", fmt.Sprintf("0.0.0.0:%d", port), "--advertise", address,
		"--tls-cert", serverCert, "--tls-key", serverKey, "--tls-client-ca", ca.file,
		"--envoy-tls-cert", clientCert, "--envoy-tls-key", clientKey, "--envoy-tls-ca", ca.file)
	o.bootstrap = []string{"--tls-cert", clientCert, "--tls-key", clientKey, "--tls-ca", ca.file}
	o.startEnvoy(address)
	o.a.fault(t)
	o.oneOfEach(t)
	o.a.received(t, 2)
	o.served(t, 2)

	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	good, err := tls.LoadX509KeyPair(clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	strangerCert, strangerKey := other.issue("stranger", x509.ExtKeyUsageClientAuth)
	stranger, err := tls.LoadX509KeyPair(strangerCert, strangerKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		with credentials.TransportCredentials
		ok   bool
	}{
		"a known certificate":                {credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{good}}), true},
		"no certificate":                     {credentials.NewTLS(&tls.Config{RootCAs: pool}), false},
		"a certificate of another authority": {credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{stranger}}), false},
		"no TLS":                             {insecure.NewCredentials(), false},
	} {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(tc.with))
		if err != nil {
			t.Fatal(err)
		}
		_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
		_ = conn.Close()
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
