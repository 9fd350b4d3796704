package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// withCallers is a configuration with callers of every kind.
const withCallers = `
listeners: [{name: main, address: "127.0.0.1:10080", trust_client_cert_header: true}]
pools: [{name: a, placement: private, endpoints: [{url: "http://a:1"}], model: m}]
models: [{name: chat, targets: [{pool: a}]}, {name: more, targets: [{pool: a}]}]
teams: [{name: core, organisation: acme, roles: [r], network: {allow: [10.0.0.0/8], deny: [10.1.0.0/16]}}, {name: bare}]
applications: [{name: app, team: bare, roles: [r]}]
roles: [{name: r, models: [chat]}, {name: s, models: [more], network: {allow: [10.5.0.0/16]}}]
keys: [{name: k, secret: {env: KEY}, team: core, network: {allow: [10.2.0.0/16, 192.0.2.1]}}]
workloads:
- {name: w, spiffe_id: "spiffe://example.org/w", team: core, roles: [s]}
- {name: below, spiffe_id: "spiffe://example.org/*", application: app}
- {name: deeper, spiffe_id: "spiffe://example.org/ns/a/*", application: app}
proxy_trust: {trusted_proxies: [10.9.0.0/16]}
token_issuers:
- name: idp
  issuer: https://idp
  audiences: [weir]
  jwks: {url: "https://idp.example.com:8443/keys?x=1"}
  bindings:
  - {when: claims.kind == "app", application: claims.app, user: '"app-" + claims.sub'}
  - {when: claims.kind > 3, team: '"core"'}
  - {team: claims.team, roles: 'claims.groups'}
limits: [{name: l, unit: requests, amount: 1, keys: ["workload:w", "issuer:idp"]}]
`

func TestCallers(t *testing.T) {
	p := mustParse(t, t.TempDir(), withCallers, smallEnv)
	for id, want := range map[string]string{
		"spiffe://example.org/w": "workload:w", "spiffe://example.org/x": "workload:below", "spiffe://example.org/w/x": "workload:below",
		"spiffe://example.org/ns/a/b": "workload:deeper", "spiffe://example.org/ns/a/b/c": "workload:deeper", "spiffe://example.org/ns/a": "workload:below",
		"spiffe://example.org/ns/ab/c": "workload:below", "spiffe://example.org": "", "spiffe://example.org/": "", "spiffe://example.com/w": "", "spiffe://": "", "": "", "/": "",
	} {
		got := ""
		if caller, ok := p.Workloads.Find(id); ok {
			got = caller.Name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
	w, _ := p.Workloads.Find("spiffe://example.org/w")
	want := ai.Principal{Key: "workload:w", Team: "core", Organisation: "acme", Roles: []string{"r", "s"}}
	if diff := cmp.Diff(want, w.Principal); diff != "" || !mayCall(w, p.Models["more"]) {
		t.Errorf("%+v\n%s", w, diff)
	}
	for address, want := range map[string][2]bool{"10.2.0.1": {true, true}, "10.3.0.1": {false, true}, "10.1.0.1": {false, false}, "192.0.2.1": {true, false}} {
		a := netip.MustParseAddr(address)
		if got := [2]bool{p.KeyList[0].Network.Admits(a), p.TeamNetworks["core"].Admits(a)}; got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
	if n := p.Roles["s"].Network; !n.Admits(netip.MustParseAddr("10.5.1.1")) || n.Admits(netip.MustParseAddr("10.6.1.1")) || p.Roles["r"].Network != nil {
		t.Errorf("the role's network: %+v", n)
	}
	if !p.Proxies.Trusts(netip.MustParseAddr("10.9.1.1")) || p.Proxies.Trusts(netip.MustParseAddr("10.8.1.1")) || p.Proxies.Hops != 1 {
		t.Errorf("%+v", p.Proxies)
	}
	remote := &plan.RemoteKeySet{URL: "https://idp.example.com:8443/keys?x=1", Scheme: "https", Endpoint: plan.Endpoint{Host: "idp.example.com", Port: 8443, Weight: 1}, Refresh: 300e9}
	if diff := cmp.Diff(remote, p.TokenIssuers[0].Remote); diff != "" {
		t.Error(diff)
	}
	if _, ok := p.IssuerOf("https://idp/"); ok {
		t.Error("an issuer of another name is found")
	}
}

func TestBindings(t *testing.T) {
	p := mustParse(t, t.TempDir(), withCallers, smallEnv)
	issuer, ok := p.IssuerOf("https://idp")
	if !ok {
		t.Fatal("no issuer")
	}
	type claims = map[string]any
	for name, tc := range map[string]struct {
		claims claims
		want   string // application/team/roles/user, or the error
	}{
		"the team's roles":                       {claims{"team": "core", "groups": []any{}, "sub": "u"}, "/core/r/u"},
		"roles twice":                            {claims{"team": "core", "groups": []any{"s", "r", "s"}}, "/core/r,s/"},
		"an application":                         {claims{"kind": "app", "app": "app", "sub": "u"}, "app/bare/r/app-u"},
		"no such application":                    {claims{"kind": "app", "app": "ap", "sub": "u"}, errNoApp.Error()},
		"no application":                         {claims{"kind": "app", "sub": "u"}, "a claim is missing"},
		"no user":                                {claims{"kind": "app", "app": "app"}, "a claim is missing"},
		"no such team":                           {claims{"team": "cores", "groups": []any{}}, errNoTeam.Error()},
		"an empty team":                          {claims{"team": "", "groups": []any{}}, errNoTeam.Error()},
		"no groups":                              {claims{"team": "core"}, "a claim is missing"},
		"no such role":                           {claims{"team": "core", "groups": []any{"r", "x"}}, errNoRole.Error()},
		"a role of another type":                 {claims{"team": "core", "groups": []any{"r", int64(1)}}, "another type"},
		"no role":                                {claims{"team": "bare", "groups": []any{}}, errWithoutRole.Error()},
		"a condition of another type is no miss": {claims{"kind": "x", "team": "core", "groups": []any{}}, "no value"},
		"a subject that is long":                 {claims{"team": "core", "groups": []any{}, "sub": strings.Repeat("u", 257)}, errUser.Error()},
		"a subject with a NUL":                   {claims{"team": "core", "groups": []any{}, "sub": "a\x00"}, errUser.Error()},
		"a subject that is empty":                {claims{"team": "core", "groups": []any{}, "sub": ""}, errUser.Error()},
	} {
		for range 2 { // made, and known
			caller, user, err := issuer.Binding.Bind(tc.claims)
			got := fmt.Sprint(err)
			if err == nil {
				got = fmt.Sprintf("%s/%s/%s/%s", caller.Principal.Application, caller.Principal.Team, strings.Join(caller.Principal.Roles, ","), user)
				if caller.Name != "issuer:idp" || caller.Principal.Key != caller.Name || caller.Principal.User != "" || !mayCall(caller, p.Models["chat"]) {
					t.Errorf("%s: %+v", name, caller)
				}
			}
			if got != tc.want && (err == nil || !strings.Contains(got, tc.want)) {
				t.Errorf("%s: %s, want %s", name, got, tc.want)
			}
		}
	}
	one, _, _ := issuer.Binding.Bind(claims{"team": "core", "groups": []any{"s", "r"}})
	two, _, _ := issuer.Binding.Bind(claims{"team": "core", "groups": []any{"r", "s", "s"}})
	if one == nil || one.Principal.Organisation != "acme" {
		t.Errorf("%+v", one)
	}
	if one != two {
		t.Error("the same team and roles are two callers")
	}
}

// A token that binds nobody, last of three bindings' when it comes to it.
func TestNoBindingHolds(t *testing.T) {
	text := strings.Replace(withCallers, "  - {team: claims.team, roles: 'claims.groups'}\n", "", 1)
	p := mustParse(t, t.TempDir(), text, smallEnv)
	if _, _, err := p.TokenIssuers[0].Binding.Bind(map[string]any{"team": "core"}); err != errNoBinding {
		t.Error(err)
	}
}

// What callers are known by is watched, and part of the version.
func TestCallerFiles(t *testing.T) {
	dir := t.TempDir()
	key := `{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "%s"}]}`
	write(t, filepath.Join(dir, "jwks.json"), fmt.Sprintf(key, strings.Repeat("A", 43)))
	text := strings.Replace(withCallers, `jwks: {url: "https://idp.example.com:8443/keys?x=1"}`, "jwks_file: jwks.json", 1)
	write(t, filepath.Join(dir, "weir.yaml"), text)
	want := []string{filepath.Join(dir, "weir.yaml"), filepath.Join(dir, "jwks.json")}
	if diff := cmp.Diff(want, Files(filepath.Join(dir, "weir.yaml"))); diff != "" {
		t.Error(diff)
	}
	before := mustParse(t, dir, text, smallEnv)
	write(t, filepath.Join(dir, "jwks.json"), fmt.Sprintf(key, strings.Repeat("A", 42)+"E"))
	after := mustParse(t, dir, text, smallEnv)
	content, _ := os.ReadFile(filepath.Join(dir, "jwks.json"))
	if before.Version == after.Version || string(after.TokenIssuers[0].KeySet) != string(content) {
		t.Errorf("versions %s, %s; keys %s", before.Version, after.Version, after.TokenIssuers[0].KeySet)
	}
}

// Key sets that Envoy can verify with are taken, others are told apart.
func TestKeySets(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	point, err := key.PublicKey.Bytes()
	must(t, err)
	x, y := encode(point[1:49]), encode(point[49:])
	n := encode(append([]byte{0x80}, make([]byte, 255)...))
	for name, tc := range map[string]struct {
		key  jwk
		want string
	}{
		"EC":                       {jwk{Kty: "EC", Crv: "P-384", X: x, Y: y}, ""},
		"a point beside the curve": {jwk{Kty: "EC", Crv: "P-384", X: x, Y: x}, "on P-384"},
		"another curve":            {jwk{Kty: "EC", Crv: "P-256", X: x, Y: y}, "on P-256"},
		"no point":                 {jwk{Kty: "EC", Crv: "P-384"}, "on P-384"},
		"RSA":                      {jwk{Kty: "RSA", N: n, E: "AQAB"}, ""},
		"RSA without e":            {jwk{Kty: "RSA", N: n}, "n and e"},
		"RSA, padded":              {jwk{Kty: "RSA", N: n + "==", E: "AQAB"}, "n and e"},
		"RSA, zeros before":        {jwk{Kty: "RSA", N: encode(append(make([]byte, 256), 1)), E: "AQAB"}, "less than 2048"},
		"Ed25519":                  {jwk{Kty: "OKP", Crv: "Ed25519", X: strings.Repeat("A", 43)}, ""},
		"Ed25519, short":           {jwk{Kty: "OKP", Crv: "Ed25519", X: "AA"}, "32 bytes"},
		"X25519":                   {jwk{Kty: "OKP", Crv: "X25519", X: strings.Repeat("A", 43)}, "want a key of"},
		"nothing":                  {jwk{}, "want a key of"},
	} {
		if got := tc.key.wrong(); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
