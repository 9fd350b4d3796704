// Package envoytest runs Wasm filters in a real Envoy for tests. It is imported
// by tests only.
package envoytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Wait bounds every wait for Envoy. A Wasm filter of Go takes seconds of CPU to
// compile, and the machine may be busy.
const Wait = 60 * time.Second

// Binary is the Envoy that tests use: WEIR_ENVOY, or the one that `make setup`
// installs.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("WEIR_ENVOY"); path != "" {
		return path
	}
	path := filepath.Join(Root(t), ".tools", "envoy-1.40.0", "envoy")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no Envoy at %s: run make setup, or set WEIR_ENVOY", path)
	}
	return path
}

// Root is the repository's root.
func Root(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env GOMOD: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// Build builds a filter's main package into dir and returns the file. Go's build
// cache makes every build but the first cheap.
func Build(dir, pkg string) (string, error) {
	out := filepath.Join(dir, filepath.Base(pkg)+".wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=wasip1", "GOARCH=wasm")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, msg)
	}
	return out, nil
}

// Envoy is a running Envoy.
type Envoy struct {
	URL   string // of the listener
	Admin string // URL of the admin interface

	t         testing.TB
	cmd       *exec.Cmd
	accessLog string
	stderr    *syncBuffer
}

// Start runs Envoy with the configuration until the test ends.
func Start(t testing.TB, cfg Config) *Envoy {
	t.Helper()
	dir := t.TempDir()
	e := &Envoy{t: t, accessLog: filepath.Join(dir, "access.log"), stderr: &syncBuffer{}}
	bootstrap, err := json.Marshal(cfg.bootstrap(e.accessLog))
	if err != nil {
		t.Fatal(err)
	}
	file, adminFile := filepath.Join(dir, "envoy.json"), filepath.Join(dir, "admin")
	if err := os.WriteFile(file, bootstrap, 0o600); err != nil {
		t.Fatal(err)
	}
	e.cmd = exec.Command(Binary(t), "-c", file, "--concurrency", "1", "--use-dynamic-base-id",
		"--admin-address-path", adminFile, "--file-flush-interval-msec", "20", "-l", "warning")
	e.cmd.Stderr = e.stderr
	if err := e.cmd.Start(); err != nil {
		t.Fatalf("start Envoy: %v", err)
	}
	exited := make(chan struct{})
	go func() { _ = e.cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = e.cmd.Process.Signal(syscall.SIGKILL)
		<-exited
		if t.Failed() {
			t.Logf("Envoy's log:\n%s", tail(e.stderr.String(), 8000))
		}
	})
	e.waitReady(adminFile, exited)
	return e
}

func (e *Envoy) waitReady(adminFile string, exited <-chan struct{}) {
	e.t.Helper()
	Eventually(e.t, "Envoy is ready", func() bool {
		select {
		case <-exited:
			e.t.Fatalf("Envoy exited:\n%s", tail(e.stderr.String(), 8000))
		default:
		}
		addr, err := os.ReadFile(adminFile)
		if err != nil || len(addr) == 0 {
			return false
		}
		e.Admin = "http://" + string(addr)
		body, status := e.admin("/ready")
		return status == http.StatusOK && strings.TrimSpace(body) == "LIVE"
	})
	body, _ := e.admin("/listeners?format=json")
	var listeners struct {
		Statuses []struct {
			Local struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal([]byte(body), &listeners); err != nil || len(listeners.Statuses) != 1 {
		e.t.Fatalf("listeners: %v: %s", err, body)
	}
	e.URL = fmt.Sprintf("http://127.0.0.1:%d", listeners.Statuses[0].Local.Socket.Port)
}

func (e *Envoy) admin(path string) (string, int) {
	resp, err := http.Get(e.Admin + path)
	if err != nil {
		return err.Error(), 0
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body), resp.StatusCode
}

// Log is what Envoy wrote to stderr, the filter's own log lines included.
func (e *Envoy) Log() string { return e.stderr.String() }

// PID is Envoy's process id.
func (e *Envoy) PID() int { return e.cmd.Process.Pid }

// Entry is an entry of the access log.
type Entry struct {
	Status   int    `json:"status"`
	Flags    string `json:"flags"`
	Details  string `json:"details"`
	Attempts string `json:"att"`
	Usage    string `json:"use"`
	Count    int    `json:"n"`
	Cluster  string `json:"cluster"`
}

// Entries waits for n entries of the access log and returns them all.
func (e *Envoy) Entries(n int) []Entry {
	e.t.Helper()
	var entries []Entry
	Eventually(e.t, fmt.Sprintf("%d entries in the access log", n), func() bool {
		entries = entries[:0]
		data, err := os.ReadFile(e.accessLog)
		if err != nil {
			return false
		}
		for line := range bytes.Lines(data) {
			var entry Entry
			if json.Unmarshal(line, &entry) == nil {
				entries = append(entries, entry)
			}
		}
		return len(entries) >= n
	})
	return entries
}

// Eventually waits until cond holds.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Wait); ; time.Sleep(10 * time.Millisecond) {
		if cond() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", Wait, what)
		}
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// syncBuffer is a buffer that one goroutine may write and others read.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
