// Package istio drives clients through a real ingress gateway, an Envoy that a real
// istiod configures, to weir. istiod runs in the test's process, with what Istio's own
// tests give in place of a Kubernetes API server; all else are processes.
package istio

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ingress is the Envoy that plays the ingress gateway; weir's own is always the pinned one.
var ingress = flag.String("ingress", "", "Envoy binary of the ingress gateway (default: the pinned one)")

var weirBinary, pinnedEnvoy string

func TestMain(m *testing.M) {
	flag.Parse()
	root, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	weirBinary = filepath.Join(root, "bin", "weir")
	found, _ := filepath.Glob(filepath.Join(root, ".tools", "envoy-*", "envoy"))
	if _, err := os.Stat(weirBinary); err != nil || len(found) != 1 {
		fmt.Fprintf(os.Stderr, "weir (%v) or Envoy (%q) is missing: run these tests by 'make istio'\n", err, found)
		os.Exit(1)
	}
	pinnedEnvoy = found[0]
	if *ingress == "" {
		*ingress = pinnedEnvoy
	}
	os.Exit(m.Run())
}

// tail keeps what a process says.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a process until the test ends.
func start(t *testing.T, stdout *tail, binary string, args ...string) *tail {
	t.Helper()
	cmd, log := exec.Command(binary, args...), &tail{}
	cmd.Stderr = log
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(15 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
		if t.Failed() {
			s := log.String()
			t.Logf("log of %s:\n%s", filepath.Base(binary), s[max(0, len(s)-6000):])
		}
	})
	return log
}

// weir runs a command that ends.
func weir(t *testing.T, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(weirBinary, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("weir %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// ownAddress is one of this machine's that others see.
func ownAddress(t *testing.T) string {
	t.Helper()
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has a loopback address only")
	return ""
}

// eventually tries until the complaint is "".
func eventually(t *testing.T, wait time.Duration, try func() string) {
	t.Helper()
	for end := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		complaint := try()
		if complaint == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v: %s", wait, complaint)
		}
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startWeir runs 'weir up' on a configuration and gives its data directory.
func startWeir(t *testing.T, file string) (data string) {
	t.Helper()
	data = t.TempDir()
	out := &tail{}
	log := start(t, out, weirBinary, "up", "--config", file, "--data", data, "--envoy", pinnedEnvoy, "--envoy-concurrency", "1", "--quiet")
	eventually(t, 60*time.Second, func() string {
		var ready struct{ Ready bool }
		if json.Unmarshal([]byte(out.String()), &ready) != nil || !ready.Ready {
			return "weir is not ready:\n" + log.String()
		}
		return ""
	})
	return data
}
