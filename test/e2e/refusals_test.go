package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// usageRow is a row of `weir usage --by outcome,pool,reason --format json`.
type usageRow struct {
	Outcome  string `json:"outcome"`
	Pool     string `json:"pool"`
	Reason   string `json:"reason"`
	Requests int64  `json:"requests"`
	Input    int64  `json:"input_tokens"`
	Cached   int64  `json:"cached_input_tokens"`
	Output   int64  `json:"output_tokens"`
}

// usage asks the command line what was used, beside the running gateway.
func (g *gateway) usage(t *testing.T) []usageRow {
	t.Helper()
	out, errs, code := weir(t, "", "usage", "--data", g.dir, "--since", "1h", "--by", "outcome,pool,reason", "--format", "json")
	if code != 0 {
		t.Fatalf("weir usage: exit %d: %s", code, errs)
	}
	var rows []usageRow
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("weir usage: %q: %v", out, err)
	}
	return rows
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := []string{"authorization", "Bearer " + testKey}
	insider := []string{"authorization", "Bearer " + otherKey}
	good := chatBody("chat", false)
	deep := `{"model":"chat","messages":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`
	for _, tc := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		code                     string
	}{
		{"no key", "POST", "/v1/chat/completions", good, nil, 401, "invalid_api_key"},
		{"wrong key", "POST", "/v1/chat/completions", good, []string{"authorization", "Bearer nope"}, 401, "invalid_api_key"},
		{"two keys", "POST", "/v1/chat/completions", good, append([]string{"authorization", "Bearer nope"}, key...), 401, "invalid_api_key"},
		{"key in another scheme", "POST", "/v1/chat/completions", good, []string{"authorization", "Basic " + testKey}, 401, "invalid_api_key"},
		{"no key, listing", "GET", "/v1/models", "", nil, 401, "invalid_api_key"},
		{"unknown model", "POST", "/v1/chat/completions", chatBody("nope", false), key, 404, "model_not_found"},
		{"model that is not allowed", "POST", "/v1/chat/completions", chatBody("restricted", false), key, 404, "model_not_found"},
		{"egress that is not allowed", "POST", "/v1/chat/completions", chatBody("cloud", false), insider, 403, "egress_not_allowed"},
		{"real model name", "POST", "/v1/chat/completions", chatBody(realModelA, false), key, 404, "model_not_found"},
		{"duplicate model", "POST", "/v1/chat/completions", `{"model":"chat","model":"restricted","messages":[]}`, key, 400, "duplicate_key"},
		{"duplicate model, escaped", "POST", "/v1/chat/completions", `{"model":"chat","mod\u0065l":"restricted","messages":[]}`, key, 400, "duplicate_key"},
		{"two values", "POST", "/v1/chat/completions", good + good, key, 400, "invalid_json"},
		{"not JSON", "POST", "/v1/chat/completions", "model=chat", key, 400, "invalid_json"},
		{"bad UTF-8", "POST", "/v1/chat/completions", "{\"model\":\"chat\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", key, 400, "invalid_utf8"},
		{"deep", "POST", "/v1/chat/completions", deep, key, 400, "too_deep"},
		{"no model", "POST", "/v1/chat/completions", `{"messages":[]}`, key, 400, "invalid_value"},
		{"model of another case", "POST", "/v1/chat/completions", `{"Model":"chat","messages":[]}`, key, 400, "invalid_value"},
		{"stream that is no boolean", "POST", "/v1/chat/completions", `{"model":"chat","messages":[],"stream":"true"}`, key, 400, "invalid_value"},
		{"no body", "POST", "/v1/chat/completions", "", key, 400, "empty_body"},
		{"compressed body", "POST", "/v1/chat/completions", good, append([]string{"content-encoding", "gzip"}, key...), 415, "unsupported_content_encoding"},
		{"unknown path", "POST", "/v1/fine_tuning/jobs", good, key, 404, "unknown_url"},
		{"root", "GET", "/", "", key, 404, "unknown_url"},
		{"wrong method", "GET", "/v1/chat/completions", "", key, 405, "method_not_supported"},
		{"model that is not there", "GET", "/v1/models/restricted", "", key, 404, "model_not_found"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := w.send(tc.method, tc.path, tc.body, tc.headers...)
			if err != nil {
				t.Fatal(err)
			}
			if got.status != tc.status || got.code() != tc.code {
				t.Errorf("status %d, code %q, want %d, %q: %s", got.status, got.code(), tc.status, tc.code, got.body)
			}
			if ct := got.header.Get("content-type"); !strings.HasPrefix(ct, "application/json") {
				t.Errorf("content type %q", ct)
			}
			if strings.Contains(got.body, testKey) || strings.Contains(got.body, "nope-") {
				t.Errorf("the answer repeats a secret: %s", got.body)
			}
		})
	}
	if n := len(w.a.Requests()) + len(w.b.Requests()); n != 0 {
		t.Errorf("%d refused requests reached a backend", n)
	}
}

// What a client sends under names that are weir's or Envoy's has no effect.
func TestSpoofedHeadersHaveNoEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.fault(t)
	w.b.fault(t)
	spoofed := []string{
		"x-weir-decision", "00000000000000000000000000000000", "x-weir-target", "b", "x-weir-team", "other",
		"x-envoy-max-retries", "50", "x-envoy-upstream-rq-per-try-timeout-ms", "1", "x-envoy-retry-on", "5xx",
		"x-envoy-upstream-alt-stat-name", "zzz", "x-envoy-original-path", "/v1/models", "x-envoy-upstream-rq-timeout-ms", "1",
		"x-forwarded-for", "10.0.0.1", "x-forwarded-host", "evil.example", "x-original-url", "/admin", "host", "evil.example",
		"x-goog-api-key", "sk-client-secret", "anthropic-api-key", "sk-client-secret", "cookie", "session=client-secret", "x-gateway-destination-endpoint", "127.0.0.1:1",
		"x-vllm-priority", "-100", "x-data-parallel-rank", "3",
	}
	got := w.chat("chat", spoofed...)
	if got.status != 200 || got.header.Get("x-simulator") != "a" {
		t.Fatalf("status %d from %q: %s", got.status, got.header.Get("x-simulator"), got.body)
	}
	if id := got.header.Values("x-weir-decision"); len(id) != 1 || len(id[0]) != 32 || strings.Trim(id[0], "0") == "" {
		t.Errorf("decision id %q", id)
	}
	r := w.a.received(t, 1)[0]
	checkAttempt(t, "only", r, realModelA, credentialA)
	if strings.Contains(fmt.Sprint(r.Headers), "client-secret") || r.Host == "evil.example" {
		t.Errorf("the backend received host %q, headers %v", r.Host, r.Headers)
	}
	for _, name := range []string{"x-vllm-priority", "x-data-parallel-rank", "x-gateway-destination-endpoint"} {
		if v := r.Headers.Get(name); v != "" {
			t.Errorf("the backend received %s: %s", name, v)
		}
	}
	if len(w.b.Requests()) != 0 {
		t.Error("the second target was asked")
	}
}

// A body of 20 MB passes; one over the bound is refused in the client's dialect.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.fault(t)
	body := func(n int) string {
		return `{"model":"chat","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` +
			strings.Repeat("A", n) + `"}}]}],"max_tokens":5}`
	}
	key := []string{"authorization", "Bearer " + testKey}
	large := body(20 << 20)
	if got := w.post("/v1/chat/completions", large, key...); got.status != 200 {
		t.Errorf("20 MB: status %d: %.300s", got.status, got.body)
	}
	if r := w.a.received(t, 1)[0]; r.BodyBytes < len(large) || !strings.Contains(r.Body[:200], realModelA) {
		t.Errorf("20 MB: the backend received %d bytes, sent were %d", r.BodyBytes, len(large))
	}
	got, err := w.send("POST", "/v1/chat/completions", body(40<<20), key...)
	if err == nil && (got.status != 413 || got.code() != "request_too_large") {
		t.Errorf("40 MB: status %d: %.300s", got.status, got.body)
	}
	if err != nil {
		t.Errorf("40 MB: %v", err)
	}
}

func TestLimitsPerKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 3 {
		got := w.chat("limited")
		want := 200
		if i == 2 {
			want = 429
		}
		if got.status != want {
			t.Fatalf("request %d: status %d: %s", i, got.status, got.body)
		}
		if want == 429 && (got.header.Get("retry-after") == "" || got.header.Get("x-ratelimit-reset-requests") == "") {
			t.Errorf("headers of the refusal: %v", got.header)
		}
	}
	got := w.post("/v1/chat/completions", chatBody("limited", false), "authorization", "Bearer "+otherKey)
	if got.status != 200 {
		t.Errorf("another key shares the count: status %d: %s", got.status, got.body)
	}
}

// Every request, refused or not, is one usage event.
func TestOneEventARequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.fault(t)
	const n = 40
	for i := range n {
		switch i % 4 {
		case 0, 1:
			w.chat("chat")
		case 2:
			w.post("/v1/chat/completions", chatBody("chat", true), "authorization", "Bearer "+testKey)
		case 3:
			w.post("/v1/chat/completions", "{", "authorization", "Bearer "+testKey)
		}
	}
	var prompt, completion int64
	for _, r := range w.a.received(t, n*3/4) {
		prompt += int64(r.PromptTokens)
		completion += int64(r.CompletionTokens)
	}
	eventually(t, 10*time.Second, func() string {
		var got usageRow
		refused := int64(0)
		for _, row := range w.usage(t) {
			switch {
			case row.Outcome == "completed":
				got = row
			case row.Reason == "invalid_json":
				refused = row.Requests
			}
		}
		if got.Requests != n*3/4 || refused != n/4 || got.Input+got.Cached != prompt || got.Output != completion {
			return fmt.Sprintf("completed %+v, refused %d; the backend served %d requests, %d and %d tokens", got, refused, n*3/4, prompt, completion)
		}
		return ""
	})
}
