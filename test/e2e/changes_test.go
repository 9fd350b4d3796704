package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// A changed file is in force without a restart; a bad one leaves the last good
// one in force.
func TestConfigurationChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const late = "weir-e2e-late-key-0123456789"
	lateKey := []string{"authorization", "Bearer " + late}
	if got := w.post("/v1/chat/completions", chatBody("chat", false), lateKey...); got.status != 401 {
		t.Fatalf("before the change: status %d", got.status)
	}
	secret := filepath.Join(t.TempDir(), "late")
	if err := os.WriteFile(secret, []byte(late), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := edited(t, w.yaml, "keys:\n", fmt.Sprintf("keys:\n  - name: late\n    secret: {file: %q}\n    application: assistant\n    roles: [user]\n", secret))
	w.write(changed)
	eventually(t, 10*time.Second, func() string {
		if got := w.post("/v1/chat/completions", chatBody("chat", false), lateKey...); got.status != 200 {
			return fmt.Sprintf("after the change: status %d: %s", got.status, got.body)
		}
		return ""
	})

	w.write(edited(t, changed, "targets: [{pool: a}, {pool: b}]", "targets: [{pool: a}, {pool: nowhere}]"))
	eventually(t, 10*time.Second, func() string {
		if lineWith(w.log.String(), "weir.yaml:", "nowhere") == "" {
			return "the log does not name the fault:\n" + last(w.log.String(), 1500)
		}
		return ""
	})
	if got := w.post("/v1/chat/completions", chatBody("chat", false), lateKey...); got.status != 200 {
		t.Errorf("after a bad change: status %d: %s", got.status, got.body)
	}
	if a, err := http.Get(w.admin + "/readyz"); err != nil || a.StatusCode != 200 {
		t.Errorf("after a bad change weir is not ready: %v, %v", a, err)
	}

	w.write(edited(t, changed, "name: late\n", "name: late\n    disabled: true\n"))
	eventually(t, 10*time.Second, func() string {
		if got := w.post("/v1/chat/completions", chatBody("chat", false), lateKey...); got.status != 401 {
			return fmt.Sprintf("after the key was disabled: status %d", got.status)
		}
		return ""
	})
}

// Open streams live through a hundred changes of the configuration, and no
// listener is drained.
func TestStreamsSurviveChanges(t *testing.T) {
	w := newWorld(t)
	w.a.fault(t, simulate.Fault{ChunkDelayMS: 50, Chunks: 250})
	const streams, changes = 50, 100
	var done sync.WaitGroup
	var complete, begun atomic.Int32
	body := strings.Replace(chatBody("chat", true), `"max_tokens":12`, `"max_tokens":400`, 1)
	for range streams {
		done.Go(func() {
			req, _ := http.NewRequest("POST", w.base+"/chat/completions", strings.NewReader(body))
			req.Header.Set("authorization", "Bearer "+testKey)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			begun.Add(1)
			events, ended := 0, false
			for in := bufio.NewScanner(resp.Body); in.Scan(); {
				if strings.HasPrefix(in.Text(), "data: ") {
					events++
				}
				ended = ended || in.Text() == "data: [DONE]"
			}
			if ended && events > 250 {
				complete.Add(1)
			}
		})
	}
	eventually(t, 10*time.Second, func() string {
		if n := begun.Load(); n != streams {
			return fmt.Sprintf("%d streams have begun", n)
		}
		return ""
	})
	for i := range changes {
		w.write(edited(t, w.yaml, "price: {input: 1, output: 4}", fmt.Sprintf("price: {input: 1, output: %d}", i+5),
			"first_token_timeout: 2s", fmt.Sprintf("first_token_timeout: %ds", i+3),
			"  - name: embed\n", fmt.Sprintf("  - name: extra-%d\n    targets: [{pool: b}, {pool: a}]\n  - name: embed\n", i)))
		time.Sleep(100 * time.Millisecond)
	}
	done.Wait()
	if n := complete.Load(); n != streams {
		t.Errorf("%d of %d streams were complete", n, streams)
	}
	resp, err := http.Get(w.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n := strings.Count(w.log.String(), "configuration applied"); n < changes/4 {
		t.Errorf("only %d of %d changes were applied while the streams were open", n, changes)
	}
	if drained := w.envoyStat(t, "listener_manager.total_listeners_draining"); drained != 0 {
		t.Errorf("%d listeners are draining", drained)
	}
	if modified := w.envoyStat(t, "listener_manager.listener_modified"); modified != 0 {
		t.Errorf("%d listeners were modified", modified)
	}
}

// A configuration that Envoy refuses leaves the one before in force, and weir says so.
func TestEnvoyRefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.write(edited(t, w.yaml, `endpoints: [{url: "`+w.b.url+`"}]`, fmt.Sprintf("endpoints: [{url: \"https://127.0.0.1:1\"}]\n    tls: {ca_file: %q}", ca)))
	eventually(t, 15*time.Second, func() string {
		if lineWith(w.log.String(), "refused", "ca") == "" {
			return "the log says nothing of the refusal:\n" + last(w.log.String(), 1500)
		}
		return ""
	})
	for range 5 {
		if got := w.chat("chat"); got.status != 200 {
			t.Fatalf("status %d: %s", got.status, got.body)
		}
	}
	if got := w.chat("cloud"); got.status != 200 {
		t.Errorf("the pool that the refused configuration changed: status %d: %s", got.status, got.body)
	}
}
