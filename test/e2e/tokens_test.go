package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// A limit in tokens is reserved by an exact count: what fits to the token passes, one
// token less is refused, and the backend counts the same.
func TestReservedToTheToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const maxTokens = 12
	if got := w.chat("chat"); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	prompt := w.a.received(t, 1)[0].PromptTokens
	limit := func(amount int) string {
		return fmt.Sprintf("limits:\n  - {name: %s, unit: tokens, amount: %d, models: [exact], per: [key]}\n", fmt.Sprint("t", amount), amount)
	}
	base := edited(t, w.yaml, "  - name: embed\n", "  - name: exact\n    targets: [{pool: a}]\n  - name: embed\n", "models: [chat,", "models: [exact, chat,")
	for _, tc := range []struct{ amount, status int }{{prompt + maxTokens, 200}, {prompt, 429}} {
		w.write(edited(t, base, "limits:\n", limit(tc.amount)))
		eventually(t, 10*time.Second, func() string {
			got := w.post("/v1/chat/completions", chatBody("exact", false), "authorization", "Bearer "+testKey)
			if got.status != tc.status {
				return fmt.Sprintf("a limit of %d tokens, %d in the prompt: status %d: %s", tc.amount, prompt, got.status, got.body)
			}
			return ""
		})
	}
	if _, metrics := w.adminGet(t, "/metrics"); strings.Contains(metrics, "weir_tokens_doubted{") {
		t.Errorf("counts are doubted: %s", lineWith(metrics, "weir_tokens_doubted{"))
	}
}

// A backend that reports more than was counted exactly is believed: the pool is
// doubted, aloud, and its requests are reserved by their length.
func TestBackendThatCountsMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "limits:\n", "limits:\n  - {name: small, unit: tokens, amount: 50, models: [by-rule], per: [key]}\n")
	if got := w.chat("by-rule"); got.status != 200 {
		t.Fatalf("counted exactly: status %d: %s", got.status, got.body)
	}
	w.a.fault(t, simulate.Fault{Usage: "wrong"})
	if got := w.chat("chat"); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	eventually(t, 10*time.Second, func() string {
		_, metrics := w.adminGet(t, "/metrics")
		if !strings.Contains(metrics, `weir_tokens_doubted{pool="a"} 1`) {
			return "not doubted: " + lineWith(metrics, "weir_tokens_")
		}
		return ""
	})
	if lineWith(w.log.String(), "a backend counts more input tokens", "pool=a") == "" {
		t.Errorf("nothing was said:\n%s", last(w.log.String(), 1500))
	}
	// 26 bytes of text and what a template may add are more than 50, the tokens are not.
	if got := w.chat("by-rule"); got.status != 429 || !strings.Contains(got.body, "larger than limit") {
		t.Errorf("reserved by its length: status %d: %s", got.status, got.body)
	}
}
