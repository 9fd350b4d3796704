package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// selfSigned makes a certificate that ends at the given time, and its key, as PEM.
func selfSigned(t *testing.T, end time.Time) (certificate, key string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weir.example.com"},
		NotBefore: end.AddDate(-1, 0, 0), NotAfter: end, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	good, goodKey := selfSigned(t, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	old, oldKey := selfSigned(t, time.Date(2025, 12, 31, 0, 0, 0, 0, time.UTC))
	for name, text := range map[string]string{"good.crt": good, "good.key": goodKey, "old.crt": old, "old.key": oldKey} {
		write(t, filepath.Join(dir, name), text)
	}
	with := func(certificate, key string) string {
		text := strings.Replace(small, `10080"}`, `10080", tls: {certificate_file: `+certificate+`, private_key_file: `+key+`}}`, 1)
		return strings.Replace(text, `"http://a:1"}]`, `"https://a:1"}], tls: {ca_file: good.crt}`, 1)
	}
	for _, tt := range []struct{ certificate, key, want string }{
		{"good.crt", "good.key", ""},
		{"old.crt", "old.key", "warning: weir.yaml:2:78: listeners[0].tls.certificate_file: the certificate expired on 2025-12-31"},
		{"good.crt", "old.key", "weir.yaml:2:59: listeners[0].tls: the certificate and its key cannot be used: private key does not match public key"},
		{"good.key", "good.crt", "weir.yaml:2:59: listeners[0].tls: the certificate and its key cannot be used: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched"},
	} {
		var said []string
		o := options(dir, smallEnv)
		o.Warn = func(f Fault) { said = append(said, "warning: "+f.String()) }
		p, err := Parse(filepath.Join(dir, "weir.yaml"), []byte(with(tt.certificate, tt.key)), o)
		if err != nil {
			said = append(said, err.Error())
		} else if p.Listeners[0].TLS == nil || p.Pools[0].CAFile != filepath.Join(dir, "good.crt") {
			t.Errorf("%+v %+v", p.Listeners[0], p.Pools[0])
		}
		if diff := cmp.Diff(tt.want, strings.ReplaceAll(strings.Join(said, "\n"), dir+"/", "")); diff != "" {
			t.Errorf("%s %s: (-want +got)\n%s", tt.certificate, tt.key, diff)
		}
	}
}

// A renewed certificate is a new plan: it has to reach Envoy.
func TestVersionCoversCertificates(t *testing.T) {
	dir := t.TempDir()
	text := strings.Replace(small, `10080"}`, `10080", tls: {certificate_file: c, private_key_file: k}}`, 1)
	var versions [2]string
	for i := range versions {
		certificate, key := selfSigned(t, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
		write(t, filepath.Join(dir, "c"), certificate)
		write(t, filepath.Join(dir, "k"), key)
		versions[i] = mustParse(t, dir, text, smallEnv).Version
	}
	if versions[0] == versions[1] {
		t.Error("the version did not change")
	}
}
