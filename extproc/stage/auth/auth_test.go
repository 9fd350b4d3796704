package auth

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// bound binds every token to one caller, but for those whose claim "to" is nobody.
type bound struct{}

func (bound) Bind(claims map[string]any) (*plan.Key, string, error) {
	if claims["to"] == "nobody" {
		return nil, "", errors.New("nobody")
	}
	user, _ := claims["sub"].(string)
	return &plan.Key{Name: "issuer:idp", Principal: ai.Principal{Key: "issuer:idp", Team: "core"}}, user, nil
}

func testPlan() *plan.Plan {
	secret := []byte("secret")
	key := &plan.Key{Name: "ci", Principal: ai.Principal{Key: "ci", Team: "core"}, Network: plan.NewNetwork(nil, nil)}
	off := &plan.Key{Name: "off", Principal: ai.Principal{Key: "off"}, Disabled: true}
	p := &plan.Plan{
		Keys: map[plan.KeyHash]*plan.Key{
			plan.HashKey(secret, "sk-ci"): key, plan.HashKey(secret, "a.b.c"): key, plan.HashKey(secret, "sk-off"): off,
		},
		TokenIssuers: []*plan.TokenIssuer{{Name: "idp", Issuer: "https://idp", Binding: bound{}}},
		Proxies:      &plan.ProxyTrust{Hops: 1, Proxies: plan.NewNetwork([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, nil)},
	}
	p.SetHashSecret(secret)
	p.Workloads.Add("spiffe://x/a", &plan.Key{Name: "workload:a", Principal: ai.Principal{Key: "workload:a", Team: "core"}})
	return p
}

func encode(claims string) string { return base64.RawURLEncoding.EncodeToString([]byte(claims)) }

func TestHeaders(t *testing.T) {
	good := encode(`{"iss":"https://idp","sub":"alice"}`)
	token := "e30." + good + ".sig"
	for _, tc := range []struct {
		name    string
		peer    string
		headers []string // name, value
		who     string   // key/identity/user; "" is refused
		reason  ai.Reason
	}{
		{"nothing", "", nil, "", ai.ReasonMissingKey},
		{"a key", "", []string{"authorization", "Bearer sk-ci"}, "ci/key/", ""},
		{"scheme in another case", "", []string{"authorization", "BEARER sk-ci"}, "ci/key/", ""},
		{"x-api-key", "", []string{"x-api-key", "sk-ci"}, "ci/key/", ""},
		{"api-key", "", []string{"api-key", "sk-ci"}, "ci/key/", ""},
		{"the same everywhere, twice", "", []string{"api-key", "sk-ci", "authorization", "Bearer sk-ci", "x-api-key", "sk-ci", "authorization", "bearer sk-ci"}, "ci/key/", ""},
		{"a disabled key", "", []string{"api-key", "sk-off"}, "", ai.ReasonKeyDisabled},
		{"another case", "", []string{"authorization", "Bearer SK-CI"}, "", ai.ReasonInvalidKey},
		{"a space", "", []string{"x-api-key", "sk ci"}, "", ai.ReasonInvalidKey},
		{"a space behind", "", []string{"x-api-key", "sk-ci "}, "", ai.ReasonInvalidKey},
		{"a tab", "", []string{"authorization", "Bearer\tsk-ci"}, "", ai.ReasonInvalidKey},
		{"a comma", "", []string{"authorization", "Bearer sk-ci,Bearer sk-ci"}, "", ai.ReasonInvalidKey},
		{"a line break", "", []string{"x-api-key", "sk-ci\r\n"}, "", ai.ReasonInvalidKey},
		{"empty", "", []string{"x-api-key", ""}, "", ai.ReasonInvalidKey},
		{"empty beside a key", "", []string{"authorization", "Bearer sk-ci", "x-api-key", ""}, "", ai.ReasonInvalidKey},
		{"two keys", "", []string{"authorization", "Bearer sk-ci", "authorization", "Bearer sk-off"}, "", ai.ReasonAmbiguousCredential},
		{"two headers", "", []string{"x-api-key", "sk-off", "api-key", "sk-ci"}, "", ai.ReasonAmbiguousCredential},
		{"another scheme beside a key", "", []string{"authorization", "Basic sk-ci", "x-api-key", "sk-ci"}, "", ai.ReasonInvalidKey},

		{"a token", "", []string{"authorization", "Bearer " + token, ai.ClaimsHeader, good}, "issuer:idp/jwt/alice", ""},
		{"a token that was not verified", "", []string{"authorization", "Bearer " + token}, "", ai.ReasonInvalidToken},
		{"a key that looks like a token", "", []string{"authorization", "Bearer a.b.c"}, "ci/key/", ""},
		{"another token than was verified", "", []string{"authorization", "Bearer e30." + encode(`{"iss":"https://idp","sub":"bob"}`) + ".sig", ai.ClaimsHeader, good}, "", ai.ReasonInvalidToken},
		{"two were verified", "", []string{"authorization", "Bearer " + token, ai.ClaimsHeader, good, ai.ClaimsHeader, good}, "", ai.ReasonInvalidToken},
		{"a token in x-api-key", "", []string{"x-api-key", token, ai.ClaimsHeader, good}, "", ai.ReasonInvalidKey},
		{"claims without a token", "", []string{ai.ClaimsHeader, good}, "", ai.ReasonMissingKey},
		{"claims beside a key", "", []string{"authorization", "Bearer sk-ci", ai.ClaimsHeader, good}, "ci/key/", ""},
		{"an issuer that is not there", "", []string{"authorization", "Bearer e30." + encode(`{"iss":"https://else"}`) + ".s", ai.ClaimsHeader, encode(`{"iss":"https://else"}`)}, "", ai.ReasonInvalidToken},
		{"no issuer", "", []string{"authorization", "Bearer e30." + encode(`{}`) + ".s", ai.ClaimsHeader, encode(`{}`)}, "", ai.ReasonInvalidToken},
		{"an issuer twice", "", []string{"authorization", "Bearer e30." + encode(`{"iss":"https://else","iss":"https://idp"}`) + ".s", ai.ClaimsHeader, encode(`{"iss":"https://else","iss":"https://idp"}`)}, "", ai.ReasonInvalidToken},
		{"claims that bind nobody", "", []string{"authorization", "Bearer e30." + encode(`{"iss":"https://idp","to":"nobody"}`) + ".s", ai.ClaimsHeader, encode(`{"iss":"https://idp","to":"nobody"}`)}, "", ai.ReasonClaimsNotBound},

		{"a workload", "192.0.2.1", []string{ai.PeerURIHeader, "spiffe://x/a"}, "workload:a/workload/", ""},
		{"a workload and a key", "192.0.2.1", []string{ai.PeerURIHeader, "spiffe://x/a", "api-key", "sk-ci"}, "ci/key/", ""},
		{"a workload and a wrong key", "192.0.2.1", []string{ai.PeerURIHeader, "spiffe://x/a", "api-key", "sk-no"}, "", ai.ReasonInvalidKey},
		{"another workload", "192.0.2.1", []string{ai.PeerURIHeader, "spiffe://x/b"}, "", ai.ReasonUnknownWorkload},
		{"two URIs", "192.0.2.1", []string{ai.PeerURIHeader, "spiffe://x/a,spiffe://x/b"}, "", ai.ReasonInvalidIdentity},
		{"two lines", "192.0.2.1", []string{ai.PeerURIHeader, "spiffe://x/a", ai.PeerURIHeader, "spiffe://x/a"}, "", ai.ReasonInvalidIdentity},
		{"a forwarded workload, from a stranger", "192.0.2.1", []string{"x-forwarded-client-cert", "URI=spiffe://x/a"}, "", ai.ReasonMissingKey},
		{"a forwarded workload, from nobody", "", []string{"x-forwarded-client-cert", "URI=spiffe://x/a"}, "", ai.ReasonMissingKey},
		{"a forwarded workload", "10.0.0.1", []string{"x-forwarded-client-cert", "URI=spiffe://x/a"}, "workload:a/workload/", ""},
		{"a proxy's own certificate", "10.0.0.1", []string{ai.PeerURIHeader, "spiffe://x/a"}, "", ai.ReasonMissingKey},
		{"a proxy's own certificate beside a forwarded one", "10.0.0.1", []string{ai.PeerURIHeader, "spiffe://x/a", "x-forwarded-client-cert", "Hash=0"}, "", ai.ReasonMissingKey},
		{"a forwarded header that cannot be read", "10.0.0.1", []string{"x-forwarded-client-cert", "URI"}, "", ai.ReasonInvalidIdentity},
	} {
		ex := &pipeline.Exchange{Plan: testPlan()}
		if tc.peer != "" {
			ex.In.Peer = netip.MustParseAddr(tc.peer)
		}
		for i := 0; i+1 < len(tc.headers); i += 2 {
			ex.In.Headers = append(ex.In.Headers, pipeline.Header{Name: tc.headers[i], Value: tc.headers[i+1]})
		}
		v, err := Stage{}.Headers(t.Context(), ex)
		who := ""
		if ex.Grants.Known() {
			who = ex.Principal.Key + "/" + string(ex.Identity) + "/" + ex.Principal.User
		}
		if err != nil || v.Reason != tc.reason || who != tc.who {
			t.Errorf("%s: %q, %q, %v; want %q, %q", tc.name, who, v.Reason, err, tc.who, tc.reason)
		}
		if (ex.Network != nil) != (who == "ci/key/") {
			t.Errorf("%s: network %v", tc.name, ex.Network)
		}
		if tc.reason != "" && v.Reason.Answer().Status == 500 {
			t.Errorf("%s: %s has no answer", tc.name, v.Reason)
		}
		if _, err := (Stage{}).Request(t.Context(), ex); (err == nil) != (who != "") {
			t.Errorf("%s: the body: %v", tc.name, err)
		}
	}
}

// Without issuers nothing is a token, whatever the headers say.
func TestNoIssuers(t *testing.T) {
	ex := &pipeline.Exchange{Plan: testPlan()}
	ex.Plan.TokenIssuers = nil
	payload := encode(`{"iss":"https://idp"}`)
	ex.In.Headers = []pipeline.Header{{Name: "authorization", Value: "Bearer e30." + payload + ".s"}, {Name: ai.ClaimsHeader, Value: payload}}
	if v, _ := (Stage{}).Headers(t.Context(), ex); v.Reason != ai.ReasonInvalidKey {
		t.Errorf("%q", v.Reason)
	}
}

func TestIsToken(t *testing.T) {
	for s, want := range map[string]bool{
		"a.b.c": true, "a.b.": true, "a-_Z9.b.c": true, "a.b": false, "a.b.c.d": false, "a..c": false, ".b.c": false, "": false, "a.b.c=": false, "a.b.c~": false, "..": false,
	} {
		if isToken(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
	if payloadOf("a.b.c") != "b" || payloadOf("a") != "" {
		t.Error("payload")
	}
}

func TestForwardedURI(t *testing.T) {
	for header, want := range map[string]string{
		"URI=spiffe://x/a": "spiffe://x/a", "uri=spiffe://x/a": "spiffe://x/a", "By=b;URI=spiffe://x/a;Hash=0": "spiffe://x/a",
		`Subject="";URI=spiffe://x/a`: "spiffe://x/a", `Subject="CN=a,URI=spiffe://x/evil";URI=spiffe://x/a`: "spiffe://x/a",
		`Subject="a\";URI=spiffe://x/evil";URI=spiffe://x/a`: "spiffe://x/a", `URI="spiffe://x/a"`: "spiffe://x/a",
		"URI=spiffe://x/a,By=b": "", "URI=spiffe://x/a,URI=spiffe://x/b": "spiffe://x/b", "URI=": "", "URI=;URI=spiffe://x/a": "spiffe://x/a",
		"By=a=b;URI=spiffe://x/a": "spiffe://x/a", "By=b, URI=spiffe://x/a": "spiffe://x/a",
	} {
		if got, err := forwardedURI(header); err != nil || got != want {
			t.Errorf("%s: %q, %v", header, got, err)
		}
	}
	for _, header := range []string{
		"", "URI", "=x", "URI=a;URI=b", `URI="a`, `URI="a"b`, `URI=a"b"`, "URI=a b", "URI=a,", "URI=a;", ",URI=a", "URI=a;;Hash=0", `URI="a\"`, "U RI=a", `Sub"=a;URI=b`, `URI=a\`,
	} {
		if got, err := forwardedURI(header); err == nil {
			t.Errorf("%s: %q", header, got)
		}
	}
}

// Whatever a client makes a proxy put before its own element, the element that
// counts is the proxy's.
func FuzzForwardedURI(f *testing.F) {
	elements := []string{
		`By=spiffe://x/gw;Hash=00;Subject="";URI=spiffe://x/a`, `Hash=00;Cert="-----BEGIN%20";Subject="CN=\"a\",O=;URI=spiffe://x/evil";URI=spiffe://x/a;DNS=a`,
	}
	for _, client := range []string{"URI=spiffe://x/evil", `Subject="`, `Hash="a\`, `A="";B="`, `Subject="x";URI="`, `"`, `\`, ``} {
		f.Add(client)
	}
	f.Fuzz(func(t *testing.T, client string) {
		for _, proxy := range elements {
			if uri, err := forwardedURI(client + "," + proxy); err == nil && uri != "spiffe://x/a" {
				t.Errorf("%q: %q", client, uri)
			}
		}
	})
}

func FuzzCredential(f *testing.F) {
	f.Add("Bearer a", "a", "a")
	f.Add("bearer a,b", "b", "")
	f.Fuzz(func(t *testing.T, authorization, first, second string) {
		in := &pipeline.Inbound{Headers: []pipeline.Header{{Name: "authorization", Value: authorization}, {Name: "x-api-key", Value: first}, {Name: "api-key", Value: second}}}
		c, reason := credentialOf(in)
		if reason != ai.ReasonNone {
			return
		}
		if c.token != first || c.token != second || !strings.EqualFold(authorization, "bearer "+c.token) || !strings.HasSuffix(authorization, c.token) {
			t.Errorf("%q from %q, %q, %q", c.token, authorization, first, second)
		}
		if strings.ContainsFunc(c.token, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }) || c.token == "" {
			t.Errorf("%q", c.token)
		}
	})
}
