package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What roles permit, through a real Envoy: each refusal by its name, before any
// backend hears of the request, and a role's bound on output in what one hears.
func TestRoles(t *testing.T) {
	t.Parallel()
	day := strings.ToLower(time.Now().UTC().Add(72 * time.Hour).Weekday().String()[:3])
	w := newWorld(t,
		"  - name: private-only\n    models: [\"*\"]\n", fmt.Sprintf(`  - name: bounded
    models: [chat, embed]
    endpoints: [chat, models]
    deny_features: [tools, streaming]
    max_context_tokens: 100
    max_output_tokens: 7
  - name: closed
    models: ["*"]
    egress: true
    hours: {time_zone: UTC, windows: [{days: [%s], from: "08:00", to: "18:00"}]}
  - name: strict
    models: [gated]
    endpoints: [completion]
`, day),
		"    roles: [private-only]\n", "    roles: [bounded, closed, strict]\n",
		"  - name: embed\n    targets: [{pool: a}]\n", "  - name: embed\n    targets: [{pool: a}]\n  - name: gated\n    targets: [{pool: b}, {pool: a}]\n    egress_refused: refuse\n",
	)
	key := []string{"authorization", "Bearer " + otherKey}
	plain := strings.Replace(chatBody("chat", false), `"max_tokens":12,`, "", 1)
	if strings.Contains(plain, "max_tokens") {
		t.Fatal("the body still has a ceiling:", plain)
	}
	for _, tc := range []struct {
		name, path, body string
		status           int
		code             string
	}{
		{"endpoint of no role now", "/v1/embeddings", `{"model":"embed","input":"x"}`, 403, "outside_hours"},
		{"a model of a role that is closed", "/v1/chat/completions", chatBody("cloud", false), 404, "model_not_found"},
		{"a stream", "/v1/chat/completions", chatBody("chat", true), 403, "feature_not_allowed"},
		{"more output", "/v1/chat/completions", chatBody("chat", false), 403, "output_not_allowed"},
		{"more input", "/v1/chat/completions", strings.Replace(plain, "Say something", strings.Repeat("rivers run ", 200), 1), 403, "context_not_allowed"},
		{"egress before a private target", "/v1/completions", `{"model":"gated","prompt":"x"}`, 403, "egress_not_allowed"},
	} {
		got := w.post(tc.path, tc.body, key...)
		if got.status != tc.status || !strings.Contains(got.body, `"`+tc.code+`"`) {
			t.Errorf("%s: status %d: %s; want %d, %s", tc.name, got.status, got.body, tc.status, tc.code)
		}
	}
	if got := w.post("/v1/chat/completions", plain, key...); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	sent := w.a.received(t, 1)[0] // none of those refused
	var body struct {
		MaxTokens int64 `json:"max_tokens"`
	}
	if err := json.Unmarshal([]byte(sent.Body), &body); err != nil || body.MaxTokens != 7 {
		t.Errorf("max_tokens %d, %v in %s", body.MaxTokens, err, sent.Body)
	}
}
