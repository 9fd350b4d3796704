package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// envoyStat reads one of Envoy's statistics through weir's admin address.
func (g *gateway) envoyStat(t *testing.T, name string) int64 {
	t.Helper()
	resp, err := http.Get(g.admin + "/envoy/stats?filter=" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		if value, ok := strings.CutPrefix(in.Text(), name+": "); ok {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("Envoy has no statistic %s", name)
	return 0
}

// load sends requests until it is stopped, and counts what came back.
type load struct {
	stop                 chan struct{}
	done                 sync.WaitGroup
	ok, refused, strange atomic.Int64
	note                 atomic.Value
}

func (w *world) startLoad(clients int) *load {
	l := &load{stop: make(chan struct{})}
	for i := range clients {
		l.done.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				got, err := w.send("POST", "/v1/chat/completions", chatBody("chat", i%2 == 0), "authorization", "Bearer "+testKey)
				switch {
				case err != nil:
					l.strange.Add(1)
					l.note.Store(err.Error())
				case got.status == 200 && (i%2 == 1 || strings.Contains(got.body, "data: [DONE]")):
					l.ok.Add(1)
				case got.status == 503 && got.code() != "":
					l.refused.Add(1)
					time.Sleep(5 * time.Millisecond)
				default:
					l.strange.Add(1)
					l.note.Store(fmt.Sprintf("status %d: %.200s", got.status, got.body))
				}
			}
		})
	}
	return l
}

func (l *load) end() { close(l.stop); l.done.Wait() }

// weir is killed under load: admitted requests finish, new ones get a 503 in
// OpenAI's shape, service is back with weir, and in the end there is one event
// for each request that a backend served.
func TestWeirKilledUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.a.fault(t)
	slow := w.openStream(t, 120, 25*time.Millisecond)
	l := w.startLoad(4)
	eventually(t, 10*time.Second, func() string {
		if n := l.ok.Load(); n < 100 {
			return fmt.Sprintf("%d requests were answered", n)
		}
		return ""
	})
	w.kill()
	eventually(t, 10*time.Second, func() string {
		if n := l.refused.Load(); n < 20 {
			return fmt.Sprintf("%d requests were refused while weir was down", n)
		}
		return ""
	})
	before := l.ok.Load()
	oldBase := w.base
	w.start()
	if w.base != oldBase {
		t.Fatalf("the base URL moved from %s to %s", oldBase, w.base)
	}
	eventually(t, 10*time.Second, func() string {
		if n := l.ok.Load(); n < before+50 {
			return fmt.Sprintf("%d requests were answered after the restart", n-before)
		}
		return ""
	})
	l.end()
	if n := l.strange.Load(); n != 0 {
		t.Errorf("%d answers were neither an answer nor a 503 in OpenAI's shape: %v", n, l.note.Load())
	}
	if got := <-slow; got != "" {
		t.Errorf("the stream that was open: %s", got)
	}
	served := w.a.Served() + w.b.Served()
	eventually(t, 20*time.Second, func() string {
		var n int64
		rows := w.usage(t)
		for _, row := range rows {
			if row.Pool != "" {
				n += row.Requests
			}
		}
		if n != served {
			return fmt.Sprintf("%d events for %d requests that the backends served: %+v", n, served, rows)
		}
		return ""
	})
}

// openStream opens a slow stream of n chunks and tells, when it has ended, what
// was wrong with it.
func (w *world) openStream(t *testing.T, n int, every time.Duration) <-chan string {
	t.Helper()
	if err := w.a.SetFaults(simulate.Fault{Match: simulate.Match{Times: 1}, Chunks: n, ChunkDelayMS: int(every.Milliseconds())}); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("POST", w.base+"/chat/completions",
		strings.NewReader(strings.Replace(chatBody("chat", true), `"max_tokens":12`, `"max_tokens":1000`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("authorization", "Bearer "+testKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("open stream: %v, %+v", err, resp)
	}
	ended := make(chan string, 1)
	go func() {
		defer resp.Body.Close()
		events, done := 0, false
		in := bufio.NewScanner(resp.Body)
		for in.Scan() {
			if strings.HasPrefix(in.Text(), "data: ") {
				events++
			}
			done = done || in.Text() == "data: [DONE]"
		}
		if !done || events < n {
			ended <- fmt.Sprintf("%d of %d events, [DONE] %v, %v", events, n, done, in.Err())
			return
		}
		ended <- ""
	}()
	return ended
}

// SIGTERM lets open streams finish.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	slow := w.openStream(t, 60, 25*time.Millisecond)
	w.stop()
	if got := <-slow; got != "" {
		t.Errorf("the stream that was open: %s", got)
	}
	if _, err := w.send("GET", "/v1/models", ""); err == nil {
		t.Error("the gateway still answers")
	}
}

// Asked to stop before it is ready, weir exits cleanly and leaves no Envoy behind.
func TestStopBeforeReady(t *testing.T) {
	w := &world{}
	w.gateway = &gateway{t: t, dir: t.TempDir(), config: filepath.Join(t.TempDir(), "weir.yaml")}
	text, err := os.ReadFile("../../examples/quickstart/weir.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w.write(regexp.MustCompile(`127\.0\.0\.1:1[08]0\d\d`).ReplaceAllStringFunc(string(text), portMover(t)))
	cmd := exec.Command(weirBinary, "up", "--config", w.config, "--data", w.dir)
	var log tail
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	running := filepath.Join(w.dir, "running.json")
	var record []struct{ PID int }
	eventually(t, 20*time.Second, func() string {
		b, err := os.ReadFile(running)
		if err != nil || json.Unmarshal(b, &record) != nil || len(record) == 0 {
			return "no Envoy is recorded"
		}
		return ""
	})
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("weir: %v\n%s", err, log.String())
	}
	if err := syscall.Kill(record[0].PID, 0); err == nil {
		t.Errorf("Envoy %d still runs", record[0].PID)
		_ = syscall.Kill(record[0].PID, syscall.SIGKILL)
	}
}

// A second signal does not wait for open streams, and says that they were cut.
func TestSecondSignal(t *testing.T) {
	w := newWorld(t)
	slow := w.openStream(t, 2000, 25*time.Millisecond)
	_ = w.cmd.Process.Signal(syscall.SIGINT)
	eventually(t, 5*time.Second, func() string {
		if lineWith(w.log.String(), "draining") == "" {
			return "weir does not drain"
		}
		return ""
	})
	_ = w.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-w.exited:
	case <-time.After(15 * time.Second):
		t.Fatal("weir waited for the stream")
	}
	if got := <-slow; got == "" {
		t.Error("the stream was complete")
	}
	if w.cmd.ProcessState.ExitCode() != 1 || lineWith(w.log.String(), "cut") == "" {
		t.Errorf("exit %d", w.cmd.ProcessState.ExitCode())
	}
}

// Two instances run side by side, and one data directory is one instance's.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	one, two := newWorld(t), newWorld(t)
	for _, w := range []*world{one, two} {
		if got := w.chat("chat"); got.status != 200 {
			t.Errorf("status %d: %s", got.status, got.body)
		}
	}
	_, errs, code := weir(t, "", "up", "--config", one.config, "--data", two.dir)
	if code != 1 || !strings.Contains(errs, "another weir uses it") {
		t.Errorf("on a data directory that is in use: exit %d: %s", code, errs)
	}
}
