package config

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

const ellipticJWKS = `{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"sig"}]}`

// The admin API is configured with all that it needs, or refused with its place.
func TestAdminAPI(t *testing.T) {
	dir := t.TempDir()
	certificate, key := selfSigned(t, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	weak, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: []byte("a symmetric key of some length"), KeyID: "s"}}})
	must(t, err)
	for name, text := range map[string]string{
		"c.crt": certificate, "c.key": key, "jwks": ellipticJWKS, "symmetric": string(weak), "empty": `{"keys":[]}`, "list": `[1]`,
		"encryption": strings.Replace(ellipticJWKS, `"sig"`, `"enc"`, 1),
	} {
		write(t, filepath.Join(dir, name), text)
	}
	const (
		served  = "tls: {certificate_file: c.crt, private_key_file: c.key}"
		clients = "clients: [{spiffe_id: spiffe://example.org/ops, roles: [operator]}, {common_name: boss, roles: [viewer, finance]}]"
		oidc    = "oidc: {issuer: i, audience: a, jwks_file: jwks, grants: [{claim: groups, value: ops, roles: [operator]}]}"
	)
	for _, tt := range []struct{ api, want string }{
		{served + ", client_ca_file: c.crt, " + clients, ""},
		{served + ", " + oidc, ""},
		{served + ", client_ca_file: c.crt, " + clients + ", " + oidc, ""},
		{served + ", " + strings.Replace(oidc, "jwks_file: jwks", `jwks_url: "https://id.example.org/keys"`, 1), ""},
		{served, "admin.api: client_ca_file or oidc is required"},
		{oidc, "admin.api.tls: is required"},
		{served + ", " + clients + ", " + oidc, "admin.api.clients: grants nothing without client_ca_file"},
		{served + ", client_ca_file: c.crt", "admin.api.clients: is required with client_ca_file"},
		{served + ", client_ca_file: c.key, " + clients, "admin.api.client_ca_file: c.key holds no PEM certificate"},
		{served + ", client_ca_file: c.crt, clients: [{common_name: a, roles: [viewer]}, {common_name: a, roles: [operator]}]", "admin.api.clients[1]: the same caller as admin.api.clients[0]"},
		{served + ", client_ca_file: c.crt, clients: [{common_name: a, roles: [king]}]", "admin.api.clients[0].roles[0]: must be in list"},
		{served + ", client_ca_file: c.crt, clients: [{spiffe_id: \"spiffe://example.org\", roles: [viewer]}]", "admin.api.clients[0].spiffe_id: want a SPIFFE id"},
		{served + ", client_ca_file: c.crt, clients: [{roles: [viewer]}]", "admin.api.clients[0]: one of spiffe_id, common_name is required"},
		{served + ", " + strings.Replace(oidc, "jwks_file: jwks", `jwks_url: "http://id.example.org/keys"`, 1), "admin.api.oidc.jwks_url: want an https URL"},
		{served + ", " + strings.Replace(oidc, "jwks_file: jwks, ", "", 1), "admin.api.oidc: one of jwks_file, jwks_url is required"},
		{served + ", " + strings.Replace(oidc, "audience: a, ", "", 1), "admin.api.oidc.audience: is required"},
		{served + ", " + strings.Replace(oidc, "jwks_file: jwks", "jwks_file: symmetric", 1), "admin.api.oidc.jwks_file: it holds a private or a symmetric key"},
		{served + ", " + strings.Replace(oidc, "jwks_file: jwks", "jwks_file: empty", 1), "admin.api.oidc.jwks_file: it holds no public key"},
		{served + ", " + strings.Replace(oidc, "jwks_file: jwks", "jwks_file: encryption", 1), "admin.api.oidc.jwks_file: it holds no public key"},
		{served + ", " + strings.Replace(oidc, "jwks_file: jwks", "jwks_file: list", 1), "admin.api.oidc.jwks_file: want a JSON Web Key Set"},
	} {
		text := small + "admin: {api: {address: \"127.0.0.1:10443\", " + tt.api + "}}\n"
		p, err := Parse(filepath.Join(dir, "weir.yaml"), []byte(text), options(dir, smallEnv))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.api, err)
		case tt.want == "":
			if a := p.AdminAPI; a == nil || a.Address != "127.0.0.1:10443" || a.TLS == nil || a.ClientCAs == nil && a.OIDC == nil {
				t.Errorf("%s: %+v", tt.api, a)
			}
		case err == nil || !strings.Contains(err.Error(), ": "+tt.want) || len(strings.Split(err.Error(), "\n")) != 1:
			t.Errorf("%s:\n%v\nwant %s alone", tt.api, err, tt.want)
		}
	}
	taken := small + "admin: {address: \"127.0.0.1:10443\", api: {address: \"127.0.0.1:10443\", " + served + ", " + oidc + "}}\n"
	if _, err := Parse(filepath.Join(dir, "weir.yaml"), []byte(taken), options(dir, smallEnv)); err == nil || !strings.Contains(err.Error(), "admin.api.address: admin listens on port 10443 already") {
		t.Errorf("a port that is taken: %v", err)
	}
}

func FuzzParseJWKS(f *testing.F) {
	for _, seed := range []string{ellipticJWKS, `{"keys":[]}`, `{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}`, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":""}]}`, `null`, `{}`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if keys, err := parseJWKS(content); (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys, %v", len(keys), err)
		}
	})
}
