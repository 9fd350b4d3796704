package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// The admin API over TLS, from the command line: by certificate, by token, and who
// may do what follows the configuration file.
func TestAdminAPIOverTLS(t *testing.T) {
	t.Parallel()
	o := newServe(t, "--listen", "127.0.0.1:0", "--roles", "extproc,usage")
	ca := newAuthority(t)
	cert, key := ca.issue("weir", x509.ExtKeyUsageServerAuth)
	mine, mineKey := ca.issue("ops", x509.ExtKeyUsageClientAuth)
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	config := fmt.Sprintf(`
  api:
    address: %q
    tls: {certificate_file: %q, private_key_file: %q}
    client_ca_file: %q
    clients: [{common_name: %q, roles: [operator]}]
    oidc:
      issuer: https://id.example.org
      audience: weir
      jwks_file: %q
      grants: [{claim: groups, value: auditors, roles: [viewer]}]
`, address, cert, key, ca.file, commonName(t, mine), file("jwks", string(jwks)))
	yaml := edited(t, o.yaml, "admin:\n  address: 127.0.0.1:0\n", "admin:\n  address: 127.0.0.1:0"+config)
	o.stop()
	o.write(yaml)
	o.serve()

	api := func(args ...string) (string, string, int) {
		t.Helper()
		return weir(t, "", append(args, "--api", "https://"+address, "--tls-ca", ca.file)...)
	}
	byCertificate := []string{"--tls-cert", mine, "--tls-key", mineKey}
	token := func(groups string) []string {
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: private}, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := jwt.Signed(s).Claims(map[string]any{
			"iss": "https://id.example.org", "aud": "weir", "sub": "alice", "groups": groups, "exp": time.Now().Add(time.Hour).Unix(),
		}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return []string{"--token-file", file("token", text+"\n")}
	}
	create := []string{"key", "create", "far", "--application", "assistant", "--roles", "user"}
	if out, errs, code := api(append(create, byCertificate...)...); code != 0 || !strings.HasPrefix(out, "weir_") {
		t.Errorf("create by certificate: exit %d: %s%s", code, out, errs)
	}
	if out, errs, code := api(append([]string{"key", "list", "--format", "json"}, token("auditors")...)...); code != 0 || !strings.Contains(out, `"far"`) {
		t.Errorf("list by token: exit %d: %s%s", code, out, errs)
	}
	if _, errs, code := api(append([]string{"key", "revoke", "far"}, token("auditors")...)...); code != 1 || !strings.Contains(errs, "denied: key.revoke needs the role operator; oidc:https://id.example.org#alice has viewer") {
		t.Errorf("revoke by token: exit %d: %s", code, errs)
	}
	if _, errs, code := api("key", "list"); code != 1 || !strings.Contains(errs, "not authenticated") {
		t.Errorf("list by nobody: exit %d: %s", code, errs)
	}
	if _, errs, code := weir(t, "", "key", "list", "--api", "https://"+address); code != 1 || !strings.Contains(errs, "certificate") {
		t.Errorf("an API that is not verified: exit %d: %s", code, errs)
	}
	for _, args := range [][]string{{"--api", "http://" + address}, {"--token-file", "x"}, {"--api", "https://" + address, "--data", o.dir}, {"--api", "https://" + address, "--tls-key", mineKey}, {"--format", "xml"}} {
		if _, errs, code := weir(t, "", append([]string{"key", "list"}, args...)...); code != 2 || !strings.Contains(errs, "--help") {
			t.Errorf("weir key list %v: exit %d: %s", args, code, errs)
		}
	}
	// Taken from the file, the role is gone, and what was denied is on record.
	o.write(edited(t, yaml, "roles: [operator]", "roles: [viewer]"))
	eventually(t, 10*time.Second, func() string {
		if _, errs, code := api(append([]string{"key", "disable", "far"}, byCertificate...)...); code != 1 || !strings.Contains(errs, "denied: key.state needs the role operator") {
			return fmt.Sprintf("exit %d: %s", code, errs)
		}
		return ""
	})
	out, errs, code := weir(t, "", "audit", "list", "--data", o.dir, "--outcome", "denied")
	if code != 0 || !strings.Contains(out, "oidc:https://id.example.org#alice") || !strings.Contains(out, "cert:"+commonName(t, mine)) {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

func commonName(t *testing.T, file string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(readFile(t, file)))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c.Subject.CommonName
}
