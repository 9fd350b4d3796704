package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/xds/build"
)

// What a change of the file would do is seen before it is made, by the requests that
// there were, and nothing of it comes into force.
func TestDryRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 3 {
		if got := w.chat("chat"); got.status != 200 {
			t.Fatal(got.status, got.body)
		}
	}
	if got := w.chat("embed"); got.status == 0 {
		t.Fatal(got.body)
	}
	next := edited(t, w.yaml, "    attempt_timeout: 3s\n    targets: [{pool: a}, {pool: b}]", "    attempt_timeout: 3s\n    rules: [{name: light, when: 'input_tokens < 1000', targets: [{pool: b}]}]\n    targets: [{pool: a}, {pool: b}]",
		w.b.url, "http://127.0.0.1:9")
	file := filepath.Join(t.TempDir(), "weir.new.yaml")
	if err := os.WriteFile(file, []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, app.DryRunReport) {
		t.Helper()
		var r app.DryRunReport
		out, errs, code := weir(t, "", append([]string{"apply", "--dry-run", "--data", w.dir, "--format", "json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
			t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
		}
		return out, r
	}
	var out string
	var r app.DryRunReport
	eventually(t, 10*time.Second, func() string { // usage is stored a moment after a request has ended
		if out, r = run(file); r.Replay.Replayed < 4 {
			return out
		}
		return ""
	})
	if c := r.Replay.Changes; len(c) != 1 || c[0].Model != "chat" || c[0].Was != "default: a, b" || c[0].Is != "light: b" || c[0].Count != 3 || len(c[0].Examples) != 3 || c[0].Team == "" {
		t.Error(out)
	}
	if !slices.ContainsFunc(r.Resources, func(d build.Difference) bool { return d.Is == "changed" }) || slices.ContainsFunc(r.Resources, func(d build.Difference) bool { return d.Type == "listener" }) {
		t.Error("resources:", out)
	}
	if out, r := run(w.config, "--last", "2"); r.Replay.Replayed != 2 || r.Replay.Changed != 0 || len(r.Resources) != 0 || r.New != r.Version {
		t.Error("the file itself:", out)
	}
	w.answers(t, "a", "after the dry run")
	if text, errs, code := weir(t, "", "apply", file, "--dry-run", "--data", w.dir); code != 0 || !strings.Contains(text, "light: b") {
		t.Errorf("exit code %d: %s%s", code, text, errs)
	}
	// What would be refused for what the control store has is refused here, too.
	if _, errs, code := weir(t, "", "key", "create", "taken", "--application", "assistant", "--roles", "user", "--data", w.dir); code != 0 {
		t.Fatal(errs)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	taken := edited(t, next, "keys:\n", fmt.Sprintf("keys:\n  - name: taken\n    secret: {file: %q}\n    application: assistant\n    roles: [user]\n", secret))
	if err := errors.Join(os.WriteFile(secret, []byte("sk-weir-0123456789abcdef0123456789"), 0o600), os.WriteFile(file, []byte(taken), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := weir(t, "", "apply", file, "--dry-run", "--data", w.dir); code != 1 || !strings.Contains(errs, `has a key "taken"`) {
		t.Errorf("a key that there is already: exit code %d: %s", code, errs)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(next, "input_tokens", "imput_tokens", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := weir(t, "", "apply", file, "--dry-run", "--data", w.dir); code != 2 || !strings.Contains(errs, "imput_tokens") {
		t.Errorf("a file with a fault: exit code %d: %s", code, errs)
	}
	if _, errs, code := weir(t, "", "apply", file, "--data", w.dir); code != 2 || !strings.Contains(errs, "--dry-run") {
		t.Errorf("without --dry-run: exit code %d: %s", code, errs)
	}
}
