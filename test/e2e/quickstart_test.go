package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The quickstart as a person runs it: what weir prints is pasted into a shell,
// and the README's commands work. Only the ports are moved to free ones.
func TestQuickstart(t *testing.T) {
	text, err := os.ReadFile("../../examples/quickstart/weir.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := regexp.MustCompile(`127\.0\.0\.1:1[08]0\d\d`).ReplaceAllStringFunc(string(text), portMover(t))
	w := &world{gateway: up(t, config)}
	out := shell(t, w, `eval "$(grep '^export ' "$LOG")" && `+printed(t, w, "curl "))
	if !strings.Contains(out, `"chat.completion"`) {
		t.Errorf("the curl line printed %q", out)
	}
	out = shell(t, w, `eval "$(grep '^export ' "$LOG")" && `+printed(t, w, "python3 -c "))
	if len(strings.TrimSpace(out)) < 10 {
		t.Errorf("the Python line printed %q", out)
	}
	eventually(t, 5*time.Second, func() string {
		if lineWith(w.log.String(), "demo", "chat → ", "(reported)", "$0.0", "200 completed") == "" {
			return "no line for the request"
		}
		return ""
	})
	if _, metrics := w.adminGet(t, "/metrics"); strings.Contains(metrics, "weir_tokens_doubted{") || !strings.Contains(metrics, `weir_tokens_reported_ratio_count{certainty="counted",pool="local-vllm"}`) {
		t.Errorf("the stand-in backend does not count as weir does: %s", lineWith(metrics, "weir_tokens_"))
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^    (bin/weir (?:usage|explain) .*)$`).FindAllStringSubmatch(string(readme), -1)
	if len(commands) < 2 {
		t.Fatal("the README shows no commands")
	}
	for _, c := range commands {
		command := strings.ReplaceAll(c[1], "examples/quickstart/weir.yaml", w.config)
		if out := shell(t, w, "cd ../.. && "+command+" --data "+w.dir); !strings.Contains(out, "demo") {
			t.Errorf("%s printed %q", c[1], out)
		}
	}
}

// portMover gives each address of the example a free port of its own.
func portMover(t *testing.T) func(string) string {
	moved := map[string]string{}
	return func(address string) string {
		if moved[address] == "" {
			moved[address] = fmt.Sprintf("127.0.0.1:%d", freePort(t))
		}
		return moved[address]
	}
}

// printed is the line of the banner that begins so.
func printed(t *testing.T, w *world, prefix string) string {
	t.Helper()
	found := ""
	eventually(t, 5*time.Second, func() string {
		for line := range strings.Lines(w.log.String()) {
			if strings.HasPrefix(line, prefix) && strings.HasSuffix(line, "\n") {
				found = strings.TrimSpace(line)
				return ""
			}
		}
		return "weir printed no line that begins with " + prefix
	})
	return found
}

func shell(t *testing.T, w *world, command string) string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte(w.log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	site, err := filepath.Abs("../../.tools/python")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", command)
	cmd.Env = append(os.Environ(), "LOG="+log, "PYTHONPATH="+site)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}
