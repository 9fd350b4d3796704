package e2e

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// signer is an issuer of tokens.
type signer struct {
	iss string
	kid string
	key crypto.Signer // *rsa.PrivateKey or *ecdsa.PrivateKey
}

func newRSA(t *testing.T, iss string) *signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{iss, "rsa-1", key}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwks is the issuer's key set.
func (s *signer) jwks() string {
	switch k := s.key.(type) {
	case *rsa.PrivateKey:
		return fmt.Sprintf(`{"keys":[{"kty":"RSA","kid":%q,"alg":"RS256","use":"sig","e":"AQAB","n":%q}]}`, s.kid, b64(k.N.Bytes()))
	case *ecdsa.PrivateKey:
		point, _ := k.PublicKey.Bytes()
		return fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"alg":"ES256","x":%q,"y":%q}]}`, s.kid, b64(point[1:33]), b64(point[33:]))
	}
	panic("no such key")
}

// claims of a good token, changed by pairs of name and value; a nil value removes.
func (s *signer) claims(changes ...any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{"iss": s.iss, "aud": "weir", "sub": "alice", "iat": now, "exp": now + 600, "department": "research", "groups": []string{"user", "staff"}}
	for i := 0; i+1 < len(changes); i += 2 {
		if changes[i+1] == nil {
			delete(c, changes[i].(string))
			continue
		}
		c[changes[i].(string)] = changes[i+1]
	}
	return c
}

func (s *signer) token(changes ...any) string { return s.sign(s.claims(changes...)) }

func (s *signer) sign(claims map[string]any) string {
	payload, _ := json.Marshal(claims)
	return s.signRaw(string(payload))
}

// signRaw signs any payload with the issuer's algorithm.
func (s *signer) signRaw(payload string) string {
	alg := map[bool]string{true: "RS256", false: "ES256"}[strings.HasPrefix(s.kid, "rsa")]
	signed := b64([]byte(fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, alg, s.kid))) + "." + b64([]byte(payload))
	sum := sha256.Sum256([]byte(signed))
	switch k := s.key.(type) {
	case *rsa.PrivateKey:
		signature, _ := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
		return signed + "." + b64(signature)
	case *ecdsa.PrivateKey:
		r, v, _ := ecdsa.Sign(rand.Reader, k, sum[:])
		var signature [64]byte
		r.FillBytes(signature[:32])
		v.FillBytes(signature[32:])
		return signed + "." + b64(signature[:])
	}
	panic("no such key")
}

// asHS256 is the attack on verifiers that take the algorithm from the token: signed with
// the public key as the secret.
func (s *signer) asHS256(secret []byte) string {
	payload, _ := json.Marshal(s.claims())
	signed := b64([]byte(fmt.Sprintf(`{"alg":"HS256","kid":%q,"typ":"JWT"}`, s.kid))) + "." + b64(payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

func (s *signer) publicPEM() []byte {
	der, _ := x509.MarshalPKIXPublicKey(s.key.Public())
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// withoutSignature is a token of alg none.
func (s *signer) withoutSignature(alg string) string {
	payload, _ := json.Marshal(s.claims())
	return b64([]byte(fmt.Sprintf(`{"alg":%q,"typ":"JWT"}`, alg))) + "." + b64(payload) + "."
}

const issuersConfig = `
token_issuers:
  - name: filed
    issuer: https://filed.example.com
    audiences: [weir, weir-2]
    jwks_file: %FILED%
    bindings:
      - when: claims.contractor == true
        team: '"research"'
        roles: '["user"]'
        user: '"contractor-" + claims.sub'
      - team: claims.department
        roles: claims.groups.filter(g, g in ["user", "nobody"])
  - name: fetched
    issuer: https://fetched.example.com
    audiences: [weir]
    jwks: {url: "%FETCHED%", refresh: 10s}
    bindings: [{application: claims.app, roles: '["user"]'}]
`

// identityWorld is a gateway whose callers have tokens.
type identityWorld struct {
	*world
	filed, fetched *signer
	keysServed     atomic.Bool // whether the fetched issuer's keys can be had
	keys           atomic.Pointer[string]
}

// rotate gives the fetched issuer another key.
func (w *identityWorld) rotate(key *ecdsa.PrivateKey) {
	w.fetched.key = key
	set := w.fetched.jwks()
	w.keys.Store(&set)
}

func newIdentityWorld(t *testing.T, edits ...string) *identityWorld {
	t.Helper()
	w := &identityWorld{filed: newRSA(t, "https://filed.example.com"), fetched: &signer{iss: "https://fetched.example.com", kid: "ec-1"}}
	w.keysServed.Store(true)
	w.rotate(newKey(t))
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, []byte(w.filed.jwks()), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		if !w.keysServed.Load() {
			out.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(out, *w.keys.Load())
	}))
	t.Cleanup(keys.Close)
	issuers := strings.NewReplacer("%FILED%", file, "%FETCHED%", keys.URL+"/keys").Replace(issuersConfig)
	w.world = newWorld(t, append([]string{"request_bounds:\n", issuers + "request_bounds:\n"}, edits...)...)
	return w
}

func TestTokens(t *testing.T) {
	t.Parallel()
	w := newIdentityWorld(t)
	stranger := newRSA(t, w.filed.iss)
	other := &signer{w.filed.iss, "ec-1", w.fetched.key} // the other issuer's key
	good := w.filed.token()
	now := time.Now().Unix()
	bearer := func(token string) []string { return []string{"authorization", "Bearer " + token} }
	parts := strings.Split(good, ".")
	long := map[string]any{}
	for i := range 300 {
		long[fmt.Sprintf("claim-%d", i)] = "0123456789012345678901234567890123456789"
	}
	duplicate := fmt.Sprintf(`{"iss":%q,"aud":"weir","sub":"alice","exp":%d,"department":"nobody","department":"research","groups":["user"]}`, w.filed.iss, now+600)
	for _, tc := range []struct {
		name    string
		headers []string
		status  int
		reason  string // "" is admitted
	}{
		{"good", bearer(good), 200, ""},
		{"another audience of the issuer's", bearer(w.filed.token("aud", "weir-2")), 200, ""},
		{"one audience of several", bearer(w.filed.token("aud", []string{"x", "weir"})), 200, ""},
		{"the first binding that holds", bearer(w.filed.token("contractor", true, "department", nil, "groups", nil)), 200, ""},
		{"fetched keys", bearer(w.fetched.token("app", "assistant")), 200, ""},
		{"scheme in lower case", []string{"authorization", "bearer " + good}, 200, ""},
		{"a key beside issuers", bearer(testKey), 200, ""},
		{"a key in x-api-key", []string{"x-api-key", testKey}, 200, ""},
		{"a key in api-key", []string{"api-key", testKey}, 200, ""},
		{"the same key in three", []string{"api-key", testKey, "x-api-key", testKey, "authorization", "Bearer " + testKey}, 200, ""},

		{"alg none", bearer(w.filed.withoutSignature("none")), 401, "invalid_token"},
		{"alg None", bearer(w.filed.withoutSignature("None")), 401, "invalid_token"},
		{"alg RS256 without a signature", bearer(w.filed.withoutSignature("RS256")), 401, "invalid_token"},
		{"HS256 with the public key in PEM", bearer(w.filed.asHS256(w.filed.publicPEM())), 401, "invalid_token"},
		{"HS256 with the modulus", bearer(w.filed.asHS256(w.filed.key.(*rsa.PrivateKey).N.Bytes())), 401, "invalid_token"},
		{"HS256 with nothing", bearer(w.filed.asHS256(nil)), 401, "invalid_token"},
		{"another audience", bearer(w.filed.token("aud", "other")), 401, "invalid_token"},
		{"an audience of another case", bearer(w.filed.token("aud", "Weir")), 401, "invalid_token"},
		{"no audience", bearer(w.filed.token("aud", nil)), 401, "invalid_token"},
		{"expired", bearer(w.filed.token("exp", now-120)), 401, "invalid_token"},
		{"without an end", bearer(w.filed.token("exp", nil)), 401, "invalid_token"},
		{"not yet", bearer(w.filed.token("nbf", now+120)), 401, "invalid_token"},
		{"a stranger's signature", bearer(stranger.token()), 401, "invalid_token"},
		{"another issuer's key", bearer(other.token()), 401, "invalid_token"},
		{"another issuer", bearer(w.filed.token("iss", "https://evil.example.com")), 401, "invalid_token"},
		{"no issuer", bearer(w.filed.token("iss", nil)), 401, "invalid_token"},
		{"another issuer's name", bearer(w.filed.token("iss", w.fetched.iss)), 401, "invalid_token"},
		{"a changed payload", bearer(parts[0] + "." + b64([]byte(`{"sub":"root"}`)) + "." + parts[2]), 401, "invalid_token"},
		{"a claim twice", bearer(w.filed.signRaw(duplicate)), 401, "invalid_token"},
		{"not an object", bearer(w.filed.signRaw(`[1]`)), 401, "invalid_token"},

		{"a team that is not there", bearer(w.filed.token("department", "sales")), 403, "claims_not_bound"},
		{"a team of another type", bearer(w.filed.token("department", []string{"research"})), 403, "claims_not_bound"},
		{"no team", bearer(w.filed.token("department", nil)), 403, "claims_not_bound"},
		{"a role that is not there", bearer(w.filed.token("groups", []string{"nobody"})), 403, "claims_not_bound"},
		{"no role", bearer(w.filed.token("groups", []string{"staff"})), 403, "claims_not_bound"},
		{"no application", bearer(w.fetched.token()), 403, "claims_not_bound"},
		{"an empty user", bearer(w.filed.token("sub", "")), 403, "claims_not_bound"},
		{"a user with a line break", bearer(w.filed.token("sub", "a\nb")), 403, "claims_not_bound"},

		{"a token in x-api-key", []string{"x-api-key", good}, 401, "invalid_key"},
		{"a token in api-key", []string{"api-key", good}, 401, "invalid_key"},
		{"two tokens", append(bearer(good), bearer(w.filed.token("sub", "bob"))...), 401, "invalid_key"},
		{"a token and a key", append(bearer(good), bearer(testKey)...), 401, "invalid_key"},
		{"a token and a key in two headers", append(bearer(good), "x-api-key", testKey), 401, "ambiguous_credential"},
		{"two keys in two headers", append(bearer(testKey), "x-api-key", otherKey), 401, "ambiguous_credential"},
		{"two keys in two other headers", []string{"api-key", testKey, "x-api-key", otherKey}, 401, "ambiguous_credential"},
		{"another scheme beside a key", []string{"authorization", "Basic " + testKey, "x-api-key", testKey}, 401, "invalid_key"},
		{"a token behind another scheme", []string{"authorization", "Basic Bearer " + good}, 401, "invalid_key"},
		{"a token behind a word", []string{"authorization", "x Bearer " + good}, 401, "invalid_key"},
		{"a token with a tail", bearer(good + "~x"), 401, "invalid_key"},
		{"a token and a comma", bearer(good + ","), 401, "invalid_key"},
		{"two spaces", []string{"authorization", "Bearer  " + good}, 401, "invalid_key"},
		{"a key in another case", bearer(strings.ToUpper(testKey)), 401, "invalid_key"},
		{"a key with a space in it", bearer(testKey[:8] + " " + testKey[8:]), 401, "invalid_key"},
		{"a key with a tab in it", bearer(testKey + "\tx"), 401, "invalid_key"},
		{"a key twice", append(bearer(testKey), bearer(testKey)...), 401, "invalid_key"}, // Envoy makes one line of them
		{"claims from the client", append(bearer("a."+b64([]byte(`{"iss":"`+w.filed.iss+`"}`))+".c"), "x-weir-claims", b64([]byte(`{"iss":"`+w.filed.iss+`"}`))), 401, "invalid_token"},
		{"claims from the client beside a stranger's", append(bearer(stranger.token()), "x-weir-claims", strings.Split(stranger.token(), ".")[1]), 401, "invalid_token"},
		{"claims from the client beside a key", append(bearer(testKey), "x-weir-claims", parts[1]), 200, ""},
		{"many claims", bearer(w.filed.token("more", long)), 401, "invalid_key"}, // longer than any credential
	} {
		t.Run(tc.name, func(t *testing.T) { w.judged(t, tc.status, tc.reason, tc.headers...) })
	}
	t.Run("in the query", func(t *testing.T) {
		for _, query := range []string{"access_token", "token", "jwt"} {
			got := w.post("/v1/chat/completions?"+query+"="+url.QueryEscape(good), chatBody("chat", false))
			if got.status != 401 || got.code() != "invalid_api_key" {
				t.Errorf("%s: status %d: %s", query, got.status, got.body)
			}
		}
	})
	t.Run("nothing of a caller reaches a backend", func(t *testing.T) {
		for _, r := range w.a.Requests() {
			for name, values := range r.Headers {
				name = strings.ToLower(name)
				if strings.HasPrefix(name, "x-weir-") || strings.HasPrefix(name, "x-forwarded-") || name == "api-key" || name == "x-api-key" {
					t.Errorf("a backend received %s", name)
				}
				if name == "authorization" && strings.Join(values, "") != "Bearer "+credentialA {
					t.Errorf("a backend received another credential than its own")
				}
			}
		}
	})
}

// judged sends a request and checks its status, and the reason in the metrics.
func (w *identityWorld) judged(t *testing.T, status int, reason string, headers ...string) {
	t.Helper()
	before := 0.0
	if reason != "" {
		before = w.refusals(t, reason)
	}
	got := w.post("/v1/chat/completions", chatBody("chat", false), headers...)
	if got.status != status {
		t.Fatalf("status %d, want %d: %s", got.status, status, got.body)
	}
	if reason == "" {
		return
	}
	if n := w.refusals(t, reason) - before; n != 1 {
		t.Errorf("%v refusals are counted as %s", n, reason)
	}
	if status == 401 && got.code() != "invalid_api_key" {
		t.Errorf("code %q", got.code())
	}
}

// refusals is how many requests were refused for a reason.
func (g *gateway) refusals(t *testing.T, reason string) (sum float64) {
	t.Helper()
	resp, err := http.Get(g.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		line := in.Text()
		if strings.HasPrefix(line, "weir_requests_total{") && strings.Contains(line, fmt.Sprintf("reason=%q", reason)) {
			var n float64
			_, _ = fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
			sum += n
		}
	}
	return sum
}

// from is an HTTP client that connects from a loopback address of its own.
func from(address string, config *tls.Config) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: config, DisableKeepAlives: true}}
}

// ask posts a chat with a client of one's own.
func ask(t *testing.T, client *http.Client, base string, headers ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", base+"/v1/chat/completions", strings.NewReader(chatBody("chat", false)))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{body: err.Error()} // status 0
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// An issuer whose keys cannot be had stops its own tokens and nothing else, and keys
// that were fetched once go on opening while it is away.
func TestIssuerAway(t *testing.T) {
	t.Parallel()
	w := newIdentityWorld(t, "request_bounds:\n", `
  - name: no-such-host
    issuer: https://gone.example.com
    audiences: [weir]
    jwks: {url: "https://idp.invalid/keys"}
    bindings: [{team: '"research"', roles: '["user"]'}]
request_bounds:
`)
	ask := func(token string) int {
		return w.post("/v1/chat/completions", chatBody("chat", false), "authorization", "Bearer "+token).status
	}
	old := &signer{w.fetched.iss, w.fetched.kid, w.fetched.key}
	eventually(t, 10*time.Second, func() string {
		if got := ask(old.token("app", "assistant")); got != 200 {
			return fmt.Sprintf("keys that can be fetched: status %d", got)
		}
		return ""
	})
	w.keysServed.Store(false)
	w.rotate(newKey(t)) // while nobody can see it
	fetched := func() string { return w.fetched.token("app", "assistant") }
	for name, got := range map[string]int{"a key": ask(testKey), "a filed issuer's": ask(w.filed.token()), "keys that were fetched": ask(old.token("app", "assistant"))} {
		if got != 200 {
			t.Errorf("%s: status %d", name, got)
		}
	}
	gone := &signer{"https://gone.example.com", "ec-1", w.fetched.key}
	if got := ask(gone.token()); got != 401 {
		t.Errorf("an issuer that is not there: status %d", got)
	}
	time.Sleep(12 * time.Second) // longer than a refresh
	if got := ask(old.token("app", "assistant")); got != 200 {
		t.Errorf("keys that were fetched, after the refresh failed: status %d", got)
	}
	if got := ask(fetched()); got != 401 {
		t.Errorf("keys that nobody has seen: status %d", got)
	}
	w.keysServed.Store(true)
	eventually(t, 20*time.Second, func() string {
		if now, before := ask(fetched()), ask(old.token("app", "assistant")); now != 200 || before != 401 {
			return fmt.Sprintf("after the rotation: new key %d, old key %d", now, before)
		}
		return ""
	})
}

// A change of an issuer is in force at once and cuts no answer, however long it takes.
func TestStreamsSurviveIssuers(t *testing.T) {
	t.Parallel()
	w := newIdentityWorld(t)
	w.a.fault(t, simulate.Fault{ChunkDelayMS: 50, Chunks: 250}) // 12.5 s, far longer than Envoy drains
	body := strings.Replace(chatBody("chat", true), `"max_tokens":12`, `"max_tokens":400`, 1)
	req, err := http.NewRequest("POST", w.base+"/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("authorization", "Bearer "+w.filed.token())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	w.write(edited(t, w.yaml, "audiences: [weir, weir-2]", "audiences: [weir-3]"))
	ask := func(audience string) int {
		return w.post("/v1/embeddings", `{"model":"embed","input":"a"}`, "authorization", "Bearer "+w.filed.token("aud", audience)).status
	}
	eventually(t, 5*time.Second, func() string {
		if before, now := ask("weir"), ask("weir-3"); before != 401 || now != 200 {
			return fmt.Sprintf("audience before: %d, now: %d", before, now)
		}
		return ""
	})
	answer, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(answer)), "data: [DONE]") {
		t.Errorf("the answer was cut: %v, %d bytes", err, len(answer))
	}
	if n := w.envoyStat(t, "listener_manager.listener_modified"); n != 0 {
		t.Errorf("%d listeners were modified", n)
	}
}
