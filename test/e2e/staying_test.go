package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// upgrade asks weir to restart in place, and waits until the next one is ready.
func (g *gateway) upgrade() {
	g.t.Helper()
	const took = "took over the Envoy that was running"
	before := strings.Count(g.log.String(), took)
	if err := g.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		g.t.Fatal(err)
	}
	eventually(g.t, 60*time.Second, func() string {
		if strings.Count(g.log.String(), took) == before {
			return "the next weir has not taken Envoy over"
		}
		resp, err := http.Get(g.admin + "/readyz")
		if err != nil {
			return err.Error()
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			return "readyz: " + resp.Status
		}
		return ""
	})
}

// weir is restarted in place under load, once as another file of the same name: no
// request fails, an open stream ends whole, the process stays the same, and in the end
// there is one event for each request that a backend served.
func TestUpgradeUnderLoad(t *testing.T) {
	program := filepath.Join(t.TempDir(), "weir")
	copyProgram(t, program)
	old := weirBinary
	weirBinary = program // not parallel: others start after
	t.Cleanup(func() { weirBinary = old })
	w := newWorld(t)
	slow := w.openStream(t, 240, 25*time.Millisecond)
	l := w.startLoad(4)
	for i := range 3 {
		before := l.ok.Load()
		if i == 1 {
			copyProgram(t, program)
		}
		w.upgrade()
		eventually(t, 20*time.Second, func() string {
			if n := l.ok.Load() - before; n < 700 {
				return fmt.Sprintf("%d requests were answered since the upgrade", n)
			}
			return ""
		})
	}
	l.end()
	t.Logf("%d requests were answered", l.ok.Load())
	if refused, strange := l.refused.Load(), l.strange.Load(); refused+strange != 0 {
		t.Errorf("%d requests were refused and %d failed: %v", refused, strange, l.note.Load())
	}
	if got := <-slow; got != "" {
		t.Errorf("the stream that was open: %s", got)
	}
	w.wantEvents(t, w.a.Served()+w.b.Served())
}

// copyProgram puts weir at path, by rename: a program that runs cannot be overwritten.
func copyProgram(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile("../../bin/weir")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", b, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// An upgrade that could not start is not begun: weir says why and goes on.
func TestUpgradeRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("models: [")
	if err := w.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() string {
		if !strings.Contains(w.log.String(), "not upgraded; what runs goes on") {
			return "weir has not said that it is not upgraded"
		}
		return ""
	})
	if got := w.chat("chat"); got.status != 200 {
		t.Errorf("a request after it: %d %s", got.status, got.body)
	}
	// With a version pinned beside that file, the next weir starts with the version.
	if out, errs, code := weir(t, "", "rollback", "1", "--data", w.dir); code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	w.upgrade()
	if got := w.chat("chat"); got.status != 200 {
		t.Errorf("a request after the upgrade: %d %s", got.status, got.body)
	}
}

// wantEvents waits until there is one usage event for each of n requests that a
// backend served.
func (w *world) wantEvents(t *testing.T, n int64) {
	t.Helper()
	eventually(t, 30*time.Second, func() string {
		var events int64
		for _, row := range w.usage(t) {
			if row.Pool != "" {
				events += row.Requests
			}
		}
		if events != n {
			return fmt.Sprintf("%d events for %d requests that the backends served", events, n)
		}
		return ""
	})
}

// weir serve keeps its address: the operator's Envoy, which finds weir over TCP, has
// no request refused while weir restarts in place.
func TestServeUpgradeUnderLoad(t *testing.T) {
	o := newServe(t, "--listen", "127.0.0.1:0")
	o.startEnvoy(o.ready.GRPCAddress)
	o.a.fault(t)
	l := o.startLoad(4)
	answered := func(n int64) {
		t.Helper()
		before := l.ok.Load()
		eventually(t, 20*time.Second, func() string {
			if got := l.ok.Load() - before; got < n {
				return fmt.Sprintf("%d requests were answered", got)
			}
			return ""
		})
	}
	answered(100)
	if err := o.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", o.cmd.Process.Pid))
		if err != nil || !strings.Contains(string(b), "WEIR_INHERITED_SOCKETS=") {
			return fmt.Sprintf("the next weir does not run: %v", err)
		}
		return ""
	})
	if code, body := o.adminGet(t, "/readyz"); code != 200 {
		eventually(t, 30*time.Second, func() string {
			if code, body = o.adminGet(t, "/readyz"); code != 200 {
				return body
			}
			return ""
		})
	}
	answered(500)
	l.end()
	t.Logf("%d requests were answered", l.ok.Load())
	if refused, strange := l.refused.Load(), l.strange.Load(); refused+strange != 0 {
		t.Errorf("%d requests were refused and %d failed: %v", refused, strange, l.note.Load())
	}
	o.wantEvents(t, o.a.Served()+o.b.Served())
}
