package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// One gateway serves the official clients; none of these tests disturbs it.
func TestOfficialClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("Go", func(t *testing.T) { testGoClient(t, w) })
	t.Run("Python", func(t *testing.T) { testPythonClient(t, w) })
}

func goClient(w *world, key string) openai.Client {
	return openai.NewClient(option.WithBaseURL(w.base), option.WithAPIKey(key), option.WithMaxRetries(0))
}

func testGoClient(t *testing.T, w *world) {
	ctx := context.Background()
	client := goClient(w, testKey)
	ask := openai.ChatCompletionNewParams{
		Model:     "gpt-4o", // an alias
		Messages:  []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Say something about rivers.")},
		MaxTokens: openai.Int(20),
	}
	w.a.fault(t)
	answer, err := client.Chat.Completions.New(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.Choices) != 1 || answer.Choices[0].Message.Content == "" || answer.Usage.CompletionTokens == 0 {
		t.Errorf("answer: %s", answer.RawJSON())
	}
	stream := client.Chat.Completions.NewStreaming(ctx, ask)
	var text strings.Builder
	for stream.Next() {
		for _, c := range stream.Current().Choices {
			text.WriteString(c.Delta.Content)
		}
		if u := stream.Current().Usage; u.TotalTokens != 0 {
			t.Errorf("the client did not ask for usage and was sent %s", u.RawJSON())
		}
	}
	if stream.Err() != nil || text.String() != answer.Choices[0].Message.Content {
		t.Errorf("stream: %q, %v; not streamed: %q", text.String(), stream.Err(), answer.Choices[0].Message.Content)
	}
	for _, r := range w.a.received(t, 2) {
		var body struct {
			Model         string
			Stream        bool
			StreamOptions struct {
				IncludeUsage bool `json:"include_usage"`
			} `json:"stream_options"`
		}
		if err := json.Unmarshal([]byte(r.Body), &body); err != nil {
			t.Fatal(err)
		}
		if body.Model != realModelA || body.Stream != body.StreamOptions.IncludeUsage {
			t.Errorf("the backend received %s", r.Body)
		}
	}
	stranger := goClient(w, "weir-no-such-key")
	_, err = stranger.Models.List(ctx)
	var apiErr *openai.Error
	if !errors.As(err, &apiErr) || apiErr.StatusCode != http.StatusUnauthorized || apiErr.Code != "invalid_api_key" {
		t.Errorf("unknown key: %v", err)
	}
}

func testPythonClient(t *testing.T, w *world) {
	got := python(t, w, "chat")
	if got["content"] == "" || got["completion_tokens"].(float64) == 0 || got["prompt_tokens"].(float64) == 0 {
		t.Errorf("chat: %v", got)
	}
	content := got["content"]
	got = python(t, w, "stream")
	if got["content"] != content || got["usages"] != 0.0 || got["chunks"].(float64) < 3 {
		t.Errorf("stream: %v; not streamed: %v", got, content)
	}
	if got = python(t, w, "stream_usage"); got["choices"] != 0.0 || got["completion_tokens"].(float64) == 0 {
		t.Errorf("stream with usage: %v", got)
	}
	if got = python(t, w, "tools"); got["name"] != "depth" || got["arguments_are_json"] != true {
		t.Errorf("tools: %v", got)
	}
	if got = python(t, w, "embeddings"); got["vectors"] != 2.0 || got["dimensions"].(float64) == 0 || got["prompt_tokens"].(float64) == 0 {
		t.Errorf("embeddings: %v", got)
	}
	if got = python(t, w, "completion"); got["text"] == "" || got["completion_tokens"].(float64) == 0 {
		t.Errorf("completion: %v", got)
	}
	got = python(t, w, "models")
	if diff := cmp.Diff([]any{"anonymous-second", "by-rule", "chat", "cloud", "embed", "gpt-4o", "limited"}, got["models"]); diff != "" {
		t.Errorf("models that the key may call (-want +got):\n%s", diff)
	}
	testPythonErrors(t, python(t, w, "errors"))
}

func testPythonErrors(t *testing.T, got map[string]any) {
	want := map[string]map[string]any{
		"unknown_key":   {"class": "AuthenticationError", "status": 401.0, "code": "invalid_api_key"},
		"not_allowed":   {"class": "NotFoundError", "status": 404.0, "code": "model_not_found"},
		"unknown_model": {"class": "NotFoundError", "status": 404.0, "code": "model_not_found"},
		"limited":       {"class": "RateLimitError", "status": 429.0, "code": "rate_limit_exceeded", "limit_requests": "2", "remaining_requests": "0"},
	}
	for name, fields := range want {
		g := got[name].(map[string]any)
		for field, value := range fields {
			if g[field] != value {
				t.Errorf("%s: %s is %v, want %v (%v)", name, field, g[field], value, g)
			}
		}
		if id, _ := g["decision"].(string); len(id) != 32 {
			t.Errorf("%s: decision id %v", name, g["decision"])
		}
	}
	limited := got["limited"].(map[string]any)
	if s, _ := limited["retry_after"].(string); s == "" || atoi(t, s) < 1 || atoi(t, s) > 70 {
		t.Errorf("retry-after %v", limited["retry_after"])
	}
}

// python runs one case of openai_client.py with the packages that setup fetched.
func python(t *testing.T, w *world, name string) map[string]any {
	t.Helper()
	site, err := filepath.Abs("../../.tools/python")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "openai_client.py", name)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+site, "OPENAI_BASE_URL="+w.base, "OPENAI_API_KEY="+testKey)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, stderr.String())
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%s: %q: %v", name, out, err)
	}
	return got
}
