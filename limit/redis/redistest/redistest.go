// Package redistest starts real servers for tests: the Redis and the Valkey that
// `make setup` fetches, on unix sockets, and ends them with the test.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Names of the servers that there are. Redis is the oldest version that weir works
// with; for some machines there is none.
const (
	Redis  = "redis-server"
	Valkey = "valkey-server"
)

// Available are the servers that can be started here: Valkey always.
func Available(t testing.TB) []string {
	if _, err := os.Stat(locate(t, Redis)); err != nil {
		locateValkey(t)
		return []string{Valkey}
	}
	return []string{Redis, Valkey}
}

// Server is one that runs.
type Server struct {
	Socket  string // its unix socket
	t       testing.TB
	binary  string
	args    []string
	listens [2]string // network and address
	cmd     *exec.Cmd
}

// Start starts a server, which keeps nothing on disk, and waits until it answers.
func Start(t testing.TB, name string, args ...string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis") // a test's own folder may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &Server{Socket: filepath.Join(dir, "s"), t: t, binary: locate(t, name)}
	s.listens = [2]string{"unix", s.Socket}
	s.args = append([]string{"--port", "0", "--unixsocket", s.Socket, "--save", "", "--dir", dir, "--bind", "127.0.0.1"}, args...)
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

// StartSentinel starts a sentinel on a loopback port, for a master on another.
func StartSentinel(t testing.TB, port, master, masterPort string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor %s 127.0.0.1 %s 1\n", port, master, masterPort)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, binary: locate(t, Valkey), args: []string{file, "--sentinel"}, listens: [2]string{"tcp", "127.0.0.1:" + port}}
	s.Run()
	t.Cleanup(s.Kill)
}

// Address is where clients find it.
func (s *Server) Address() string { return "unix:" + s.Socket }

// Run starts it, again after Kill: then it knows nothing.
func (s *Server) Run() {
	s.t.Helper()
	if s.Socket != "" {
		_ = os.Remove(s.Socket)
	}
	s.cmd = exec.CommandContext(context.Background(), s.binary, s.args...) // it ends with Kill
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("%s: %v (make setup fetches it)", s.binary, err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, err := (&net.Dialer{}).DialContext(context.Background(), s.listens[0], s.listens[1]); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not listen", s.binary)
		}
	}
}

// Kill ends it at once.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Freeze lets it answer nothing until Thaw; connections stay.
func (s *Server) Freeze() { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw lets it go on.
func (s *Server) Thaw() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

func locateValkey(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(locate(t, Valkey)); err != nil {
		t.Fatalf("no Valkey to test with: make setup fetches it (%v)", err)
	}
}

// locate finds a server in .tools above the working directory.
func locate(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		if path := filepath.Join(at, ".tools", "redis", name); exists(path) || at == filepath.Dir(at) {
			return path
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
