package route

import (
	"testing"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
)

func TestEffort(t *testing.T) {
	for field, want := range map[string]string{
		``:                                                  "",
		`"reasoning_effort":"high"`:                         "high",
		`"reasoning_effort":"HIGH"`:                         "high",
		`"reasoning_effort":"enormous"`:                     "",
		`"reasoning_effort":null`:                           "",
		`"reasoning_effort":7`:                              "",
		`"reasoning":{"effort":"xhigh"}`:                    "xhigh",
		`"reasoning":{"summary":"auto"}`:                    "",
		`"reasoning":"high"`:                                "",
		`"thinking":{"type":"enabled"}`:                     "medium",
		`"thinking":{"type":"disabled"}`:                    "none",
		`"enable_thinking":true`:                            "medium",
		`"enable_thinking":false`:                           "none",
		`"chat_template_kwargs":{"enable_thinking":false}`:  "none",
		`"chat_template_kwargs":{"reasoning_effort":"low"}`: "low",
		`"enable_thinking":false,"reasoning_effort":"max"`:  "max",
		`"reasoning_effort":"minimal","chat_template_kwargs":{"enable_thinking":true}`: "medium",
	} {
		body := `{"model":"m","messages":[{"role":"user","content":"x"}]`
		if field != "" {
			body += "," + field
		}
		var r openai.Request
		if fault := openai.Parse(ai.KindChat, []byte(body+"}"), 64, &r); fault != nil {
			t.Errorf("%s: %v", field, fault)
			continue
		}
		if got := effort(&r); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
}
