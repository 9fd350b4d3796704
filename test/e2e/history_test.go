package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// versions is what `weir history` says.
func (g *gateway) versions(t *testing.T) (r struct {
	Versions []struct {
		Number      int
		Version, By string
		Refused     string
	}
	Current string
	Number  int
	Pin     *struct{ Number int }
}) {
	t.Helper()
	out, errs, code := weir(t, "", "history", "--data", g.dir, "--format", "json")
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("weir history: exit code %d, %v: %s%s", code, err, out, errs)
	}
	return r
}

// answers waits until the model is answered by this backend.
func (w *world) answers(t *testing.T, by, when string) {
	t.Helper()
	eventually(t, 10*time.Second, func() string {
		if got := w.chat("chat"); got.status != 200 || got.header.Get("x-simulator") != by {
			return fmt.Sprintf("%s: status %d from %q", when, got.status, got.header.Get("x-simulator"))
		}
		return ""
	})
}

// A change is undone by one command, while requests go on; it stays undone over a
// restart, until the file changes again.
func TestRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.answers(t, "a", "at first")
	to := func(targets string) string {
		return edited(t, w.yaml, "    attempt_timeout: 3s\n    targets: [{pool: a}, {pool: b}]", "    attempt_timeout: 3s\n    targets: "+targets)
	}
	w.write(to("[{pool: b}]"))
	w.answers(t, "b", "after the change")
	if r := w.versions(t); len(r.Versions) != 2 || r.Versions[0].By != "start" || r.Versions[1].By != "file" || r.Number != 2 || r.Current != r.Versions[1].Version || r.Pin != nil {
		t.Errorf("%+v", r)
	}

	if out, errs, code := weir(t, "", "diff", "1", "2", "--config", w.config, "--data", w.dir); code != 0 || strings.TrimSpace(out) != "models[chat].targets[0].pool: \"a\" → \"b\"\nmodels[chat].targets[1]: removed" {
		t.Errorf("weir diff of versions: exit code %d: %s%s", code, out, errs)
	}
	if _, errs, code := weir(t, "", "diff", "1", "9", "--config", w.config, "--data", w.dir); code == 0 || !strings.Contains(errs, "9: neither a file nor a version") {
		t.Errorf("weir diff of no version: exit code %d: %s", code, errs)
	}

	// Requests all the while: none fails, and none goes to b after the command has ended.
	var last sync.Map // backend → when it answered last
	load := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-load:
					return
				default:
				}
				sent := time.Now()
				got, err := w.send("POST", "/v1/chat/completions", chatBody("chat", false), "authorization", "Bearer "+testKey)
				if err != nil || got.status != 200 {
					t.Errorf("status %d, %v: %s", got.status, err, got.body)
					return
				}
				last.Store(got.header.Get("x-simulator"), sent)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	start := time.Now()
	out, errs, code := weir(t, "", "rollback", "--data", w.dir)
	end := time.Now()
	if code != 0 || !strings.Contains(out, "version 1 (") {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	time.Sleep(300 * time.Millisecond)
	close(load)
	clients.Wait()
	if at, ok := last.Load("b"); ok && at.(time.Time).After(end) {
		t.Errorf("a request that was sent %v after the rollback went to b", at.(time.Time).Sub(end))
	} else if ok {
		t.Logf("the last request by the old configuration was sent %v after the command began: %s", at.(time.Time).Sub(start), out)
	}
	pinned := func(when string) {
		t.Helper()
		w.answers(t, "a", when)
		if r := w.versions(t); r.Pin == nil || r.Pin.Number != 1 || r.Current != r.Versions[0].Version {
			t.Errorf("%s: %+v", when, r)
		}
	}
	pinned("after the rollback")
	w.write(to("[{pool: b}]")) // the same text again
	time.Sleep(300 * time.Millisecond)
	pinned("after the file was written as it was")
	w.stop()
	w.start()
	pinned("after a restart")

	w.write(to("[{pool: b}, {pool: a}]"))
	w.answers(t, "b", "after another change of the file")
	if r := w.versions(t); r.Pin != nil || r.Current != r.Versions[len(r.Versions)-1].Version {
		t.Errorf("the pin outlives the file: %+v", r)
	}

	number := fmt.Sprint(1)
	if out, errs, code := weir(t, "", "rollback", number, "--data", w.dir); code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	w.answers(t, "a", "after a rollback by number")
	if out, errs, code := weir(t, "", "rollback", "--release", "--data", w.dir); code != 0 || !strings.Contains(out, "the file") {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	w.answers(t, "b", "after the release")
	for _, args := range [][]string{{"rollback", "999"}, {"rollback", "zzzzzz"}} {
		if out, errs, code := weir(t, "", append(args, "--data", w.dir)...); code != 1 || !strings.Contains(errs, "no version") {
			t.Errorf("%v: exit code %d: %s%s", args, code, out, errs)
		}
	}
	if out, _, _ := weir(t, "", "audit", "list", "--data", w.dir, "--action", "config.rollback"); strings.Count(out, "config.rollback") != 2 {
		t.Errorf("the audit:\n%s", out)
	}
	if out, _, code := weir(t, "", "history", "--data", w.dir); code != 0 || !strings.Contains(out, "rollback to 1") || !strings.Contains(out, "in force") {
		t.Errorf("exit code %d: %s", code, out)
	}

	// A file that is no good: the pinned version starts all the same.
	if err := os.WriteFile(w.config, []byte("nonsense: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if out, errs, code := weir(t, "", "rollback", number, "--data", w.dir); code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	w.stop()
	w.start()
	w.answers(t, "a", "started beside a file that is no good")
}
