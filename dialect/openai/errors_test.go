package openai

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
)

func TestErrorBody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, message, param, want string
		reason                     ai.Reason
	}{
		{"param", "bad \"n\"\n", "n", `{"error":{"message":"bad \"n\"\n","type":"invalid_request_error","param":"n","code":"invalid_value"}}`, ai.ReasonInvalidField},
		{"no param", "slow down", "", `{"error":{"message":"slow down","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`, ai.ReasonLimitExceeded},
		{"control characters", "a\x00\u2028é\\", "", `{"error":{"message":"a\u0000\u2028é\\","type":"server_error","param":null,"code":"internal_error"}}`, ai.ReasonInternal},
	} {
		if got := string(ErrorBody(tt.reason, tt.message, tt.param)); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestModelsBody(t *testing.T) {
	t.Parallel()
	want := `{"object":"list","data":[{"id":"a","object":"model","created":0,"owned_by":"weir"},{"id":"b\"","object":"model","created":0,"owned_by":"weir"}]}`
	if got := string(ModelsBody([]string{"a", `b"`})); got != want {
		t.Errorf("got %s", got)
	}
	if got := string(ModelsBody(nil)); got != `{"object":"list","data":[]}` {
		t.Errorf("got %s", got)
	}
	if got := string(ModelBody("a")); got != `{"id":"a","object":"model","created":0,"owned_by":"weir"}` {
		t.Errorf("got %s", got)
	}
}

func FuzzErrorBody(f *testing.F) {
	f.Add("message \"\u2029\x7f\xff", "param")
	f.Fuzz(func(t *testing.T, message, param string) {
		var got map[string]map[string]any
		if err := json.Unmarshal(ErrorBody(ai.ReasonInvalidField, message, param), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"message": valid(message), "type": "invalid_request_error", "param": any(valid(param)), "code": "invalid_value"}
		if param == "" {
			want["param"] = nil
		}
		if d := cmp.Diff(want, got["error"]); d != "" {
			t.Fatal(d)
		}
	})
}

// valid replaces each byte that is not UTF-8 by U+FFFD.
func valid(s string) string { return string([]rune(s)) }
