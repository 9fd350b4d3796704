package e2e

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// The key of the tests' application, and the credentials of the two pools.
const (
	testKey     = "weir-e2e-key-0123456789abcdef"
	otherKey    = "weir-e2e-other-0123456789abcdef"
	credentialA = "credential-of-pool-a"
	credentialB = "credential-of-pool-b"
	realModelA  = "deepseek-ai/DeepSeek-V3"
	realModelB  = "qwen-max"
)

// backend is a simulated model server.
type backend struct {
	*simulate.Server
	url string
}

func newBackend(t *testing.T, o simulate.Options) *backend {
	t.Helper()
	s := simulate.New(o)
	h := httptest.NewServer(s)
	t.Cleanup(h.CloseClientConnections)
	t.Cleanup(h.Close)
	return &backend{s, h.URL}
}

// fault orders the faults from now on, until the test ends, and forgets what
// was received before.
func (b *backend) fault(t *testing.T, faults ...simulate.Fault) {
	t.Helper()
	b.ClearRequests()
	if err := b.SetFaults(faults...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.SetFaults() })
}

// received waits until the backend has ended n requests, and returns them.
func (b *backend) received(t *testing.T, n int) []simulate.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got, err := b.Wait(ctx, simulate.Ended(n))
	if err != nil {
		t.Fatalf("backend ended %d requests, want %d: %v", len(got), n, err)
	}
	if len(got) != n {
		t.Fatalf("backend received %d requests, want %d", len(got), n)
	}
	return got
}

// world is a gateway before two backends: pool a (private) and pool b (public).
type world struct {
	*gateway
	a, b *backend
	yaml string
}

// baseConfig has %A% and %B% for the backends' URLs and %KEYS% for the
// directory with the secrets.
const baseConfig = `
listeners:
  - name: main
    address: 127.0.0.1:0
admin:
  address: 127.0.0.1:0
pools:
  - name: a
    adapter: vllm
    placement: private
    endpoints: [{url: "%A%"}]
    model: ` + realModelA + `
    context_window: 32768
    price: {input: 0.5, cached_input: 0.1, output: 2}
    credential: {secret: {file: "%KEYS%/credential-a"}}
    connect_timeout: 1s
  - name: b
    placement: public
    endpoints: [{url: "%B%"}]
    model: ` + realModelB + `
    price: {input: 1, output: 4}
    credential: {secret: {file: "%KEYS%/credential-b"}}
    connect_timeout: 1s
  - name: b-anonymous
    placement: public
    endpoints: [{url: "%B%"}]
    model: ` + realModelB + `
    price: {free: true}
models:
  - name: chat
    aliases: [gpt-4o]
    first_token_timeout: 2s
    attempt_timeout: 3s
    targets: [{pool: a}, {pool: b}]
  - name: cloud
    targets: [{pool: b}]
  - name: anonymous-second
    first_token_timeout: 2s
    targets: [{pool: a}, {pool: b-anonymous}]
  - name: by-rule
    rules:
      - name: long
        when: input_tokens > 1000
        targets: [{pool: b}]
      - name: header
        when: headers["x-tier"] == "cloud"
        targets: [{pool: b}]
    targets: [{pool: a}]
  - name: embed
    targets: [{pool: a}]
  - name: limited
    targets: [{pool: a}]
  - name: restricted
    targets: [{pool: a}]
teams:
  - name: research
applications:
  - name: assistant
    team: research
roles:
  - name: user
    models: [chat, cloud, anonymous-second, by-rule, embed, limited]
    egress: true
  - name: private-only
    models: ["*"]
keys:
  - name: tester
    secret: {file: "%KEYS%/key"}
    application: assistant
    roles: [user]
  - name: insider
    secret: {file: "%KEYS%/other"}
    team: research
    roles: [private-only]
limits:
  - name: two-a-minute
    unit: requests
    amount: 2
    models: [limited]
    per: [key]
request_bounds:
  header_facts: [x-tier]
usage:
  settle_deadline: 5s
`

// newWorld starts two backends and a gateway. edits are old, new pairs applied
// to baseConfig.
func newWorld(t *testing.T, edits ...string) *world {
	t.Helper()
	a, b, yaml := newBackends(t, edits...)
	return &world{up(t, yaml), a, b, yaml}
}

// newBackends starts two backends and gives a configuration that names them.
func newBackends(t *testing.T, edits ...string) (a, b *backend, yaml string) {
	t.Helper()
	a = newBackend(t, simulate.Options{Model: realModelA, Name: "a"})
	b = newBackend(t, simulate.Options{Model: realModelB, Name: "b", Profile: "openai"})
	dir := t.TempDir()
	for name, secret := range map[string]string{
		"key": testKey, "other": otherKey, "credential-a": credentialA, "credential-b": credentialB,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	yaml = strings.NewReplacer("%A%", a.url, "%B%", b.url, "%KEYS%", dir).Replace(baseConfig)
	return a, b, edited(t, yaml, edits...)
}

// edited applies old, new pairs, each of which must apply.
func edited(t *testing.T, text string, edits ...string) string {
	t.Helper()
	for i := 0; i+1 < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			t.Fatalf("the configuration does not contain %q", edits[i])
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	return text
}

func atoi(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
