package app

import (
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/plan"
)

// What an operator says of an abort is shown in tables: it is a line of plain text.
func TestRolloutWhy(t *testing.T) {
	a := &app{controls: &controls{}}
	a.plan.Store(&plan.Plan{})
	for why, want := range map[string]string{
		"two\nlines":             "control characters",
		"\x1b[31mred":            "control characters",
		strings.Repeat("a", 300): "bytes of text",
	} {
		if _, err := a.rollout(t.Context(), RolloutRequest{Do: RolloutAbort, Model: "chat", Why: why}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", why, err, want)
		}
	}
}
