package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// A case is a file: the arguments after 'weir envoy render', the configuration, and
// what comes out. A certificate and its key are beside it, as tls.pem and tls-key.pem.
func TestRenderForIstio(t *testing.T) {
	files, err := filepath.Glob("testdata/istio/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	dir, err := os.Getwd() // cases run in directories of their own
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file := filepath.Join(dir, name)
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			isWant := func(f txtar.File) bool { return strings.HasPrefix(f.Name, "want/") }
			want := slices.DeleteFunc(slices.Clone(archive.Files), func(f txtar.File) bool { return !isWant(f) })
			archive.Files = slices.DeleteFunc(archive.Files, isWant)
			got := renderCase(t, archive.Files)
			if *update {
				archive.Files = append(archive.Files, got...)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(text(want), text(got)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func text(files []txtar.File) string { return string(txtar.Format(&txtar.Archive{Files: files})) }

// renderCase runs the command in a directory of its own, and gives what it says where.
func renderCase(t *testing.T, files []txtar.File) (out []txtar.File) {
	t.Helper()
	dir := t.TempDir()
	certificate(t, dir)
	args := []string{"envoy", "render"}
	for _, f := range files {
		if f.Name == "args" {
			args = append(args, strings.Fields(string(f.Data))...)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	var stdout, stderr bytes.Buffer
	code := Main(args, strings.NewReader(""), &stdout, &stderr)
	for _, s := range []struct {
		name string
		text []byte
	}{{"want/stdout", stdout.Bytes()}, {"want/stderr", stderr.Bytes()}} {
		if len(s.text) > 0 {
			out = append(out, txtar.File{Name: s.name, Data: s.text})
		}
	}
	return append(out, txtar.File{Name: "want/exit", Data: fmt.Appendln(nil, code)})
}

// certificate writes one that signs itself.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weir"}, DNSNames: []string{"weir.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.pem": {Type: "CERTIFICATE", Bytes: der}, "tls-key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
