package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A bad configuration exits with 2 and names every fault with its place.
func TestUpWithBadConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.yaml")
	bad := `listeners: [{name: main, address: "127.0.0.1:0"}]
pools:
  - name: a
    placement: private
    endpoints: [{url: "http://127.0.0.1:1"}]
    model: m
models:
  - name: chat
    targets: [{pool: nowhere}]
    rules:
      - when: input_tokns > 5
        targets: [{pool: a}]
`
	if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"up", "--config", file, "--data", t.TempDir()}, {"validate", file}} {
		_, errs, code := weir(t, "", args...)
		if code != 2 {
			t.Errorf("weir %s: exit %d", args[0], code)
		}
		for _, want := range []string{`bad\.yaml:9:\d+: models\[0\]\.targets\[0\]\.pool: .*nowhere`, `bad\.yaml:11:\d+: models\[0\]\.rules\[0\]\.when: .*input_tokns`} {
			if !regexp.MustCompile(want).MatchString(errs) {
				t.Errorf("weir %s: no line like %s in\n%s", args[0], want, errs)
			}
		}
	}
}

// explain uses the evaluator that decides: exit code 0 is allowed, 3 is refused.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := filepath.Join(t.TempDir(), "body.json")
	explain := func(text, key string) (map[string]any, int) {
		t.Helper()
		if err := os.WriteFile(body, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errs, code := weir(t, "", "explain", "--config", w.config, "--key", key, "--path", "/v1/chat/completions", "--body", body, "--format", "json")
		var got map[string]any
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("explain: exit %d: %q: %v: %s", code, out, err, errs)
		}
		return got, code
	}
	got, code := explain(chatBody("gpt-4o", false), testKey)
	if code != 0 || got["verdict"] != "allowed" || got["route"] != "default" {
		t.Errorf("exit %d: %v", code, got)
	}
	if request, _ := got["request"].(map[string]any); request["model"] != "chat" || request["requested_model"] != "gpt-4o" {
		t.Errorf("exit %d: %v", code, got)
	}
	if got, code = explain(chatBody("chat", false), "tester"); code != 0 {
		t.Errorf("by the key's name: exit %d: %v", code, got)
	}
	if got, code = explain(chatBody("restricted", false), testKey); code != 3 || got["reason"] != "model_not_allowed" {
		t.Errorf("exit %d: %v", code, got)
	}
	if got, code = explain(chatBody("chat", false), "no-such-key"); code != 3 || got["reason"] != "invalid_key" {
		t.Errorf("exit %d: %v", code, got)
	}
	long := strings.Replace(chatBody("by-rule", false), "Say something", strings.Repeat("rivers run ", 2000), 1)
	if got, code = explain(long, testKey); code != 0 || got["route"] != "long" {
		t.Errorf("exit %d: %v", code, got)
	}
	out, _, code := weir(t, "", "explain", "--config", w.config, "--key", testKey, "--path", "/v1/chat/completions", "--body", body)
	if code != 0 || !strings.Contains(out, "allowed") || !strings.Contains(out, "long") {
		t.Errorf("as text: exit %d: %s", code, out)
	}
}

// A hash that the command line prints is one that the gateway accepts.
func TestKeysHash(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "hash-secret")
	if err := os.WriteFile(secret, []byte("the-secret-of-the-hash"), 0o600); err != nil {
		t.Fatal(err)
	}
	const key = "weir-hashed-key-0123456789"
	config, dir := filepath.Join(t.TempDir(), "weir.yaml"), t.TempDir()
	if err := os.WriteFile(config, []byte("listeners: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first, errs, _ := weir(t, key, "key", "hash", "--config", config, "--data", dir)
	if !strings.Contains(errs, "a new secret for key hashes was made") {
		t.Errorf("weir made a secret and said %q", errs)
	}
	if again, errs, _ := weir(t, key, "key", "hash", "--config", config, "--data", dir); again != first || errs != "" {
		t.Errorf("the second hash is %q after %q; on stderr %q", again, first, errs)
	}
	out, errs, code := weir(t, key, "key", "hash", "--secret-file", secret)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	hash := strings.TrimSpace(out)
	w := newWorld(t, "keys:\n", "key_hash_secret: {file: "+secret+"}\nkeys:\n  - name: hashed\n    hash: "+hash+"\n    application: assistant\n    roles: [user]\n")
	if got := w.post("/v1/chat/completions", chatBody("chat", false), "authorization", "Bearer "+key); got.status != 200 {
		t.Errorf("status %d: %s", got.status, got.body)
	}
}

func TestHelpAndMisuse(t *testing.T) {
	out, _, code := weir(t, "", "help")
	for _, command := range []string{"up", "serve", "validate", "explain", "rollout", "usage", "tokenizers", "key", "audit", "envoy", "simulate", "completion"} {
		if !regexp.MustCompile(`(?m)^  ` + command + ` `).MatchString(out) {
			t.Errorf("help does not name %s", command)
		}
	}
	if code != 0 {
		t.Errorf("help: exit %d", code)
	}
	for _, args := range [][]string{{"up"}, {"no-such-command"}, {"validate"}, {"usage", "--format", "xml"}, {"usage", "--by", "colour"}, {"usage", "--since", "yesterday"}, {"usage", "--since", "-1h"}, {"serve", "--config", "x", "--roles", "cook"}} {
		if _, errs, code := weir(t, "", args...); code != 2 || !strings.Contains(errs, "--help") {
			t.Errorf("weir %v: exit %d: %s", args, code, errs)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, _, code := weir(t, "", "completion", shell); code != 0 || len(out) < 500 {
			t.Errorf("completion for %s: exit %d, %d bytes", shell, code, len(out))
		}
	}
}
