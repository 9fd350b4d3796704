// Package e2e drives real clients through a real Envoy to simulated backends,
// and looks at both ends: what the backend received and what the client got.
package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
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

// weirBinary is built once for all tests.
var weirBinary string

func TestMain(m *testing.M) {
	root, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	build := exec.Command("make", "-s", "setup", "build")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "make setup build: %v\n%s", err, out)
		os.Exit(1)
	}
	weirBinary = filepath.Join(root, "bin", "weir")
	os.Exit(m.Run())
}

// gateway is one running `weir up`.
type gateway struct {
	t       *testing.T
	base    string // base URL, with /v1
	admin   string
	dir     string // data directory
	config  string // path of the configuration file
	cmd     *exec.Cmd
	exited  chan struct{}
	exitErr error
	log     *tail
}

// tail keeps what a process wrote to stderr.
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

// up writes the configuration, starts `weir up` on free ports, and waits until
// it is ready.
func up(t *testing.T, config string) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: t.TempDir()}
	g.config = filepath.Join(t.TempDir(), "weir.yaml")
	g.write(config)
	g.start()
	t.Cleanup(func() {
		g.stop()
		if t.Failed() {
			t.Logf("log of weir:\n%s", last(g.log.String(), 6000))
		}
	})
	return g
}

func last(s string, n int) string { return s[max(0, len(s)-n):] }

// write replaces the configuration file by rename, as editors and Kubernetes do.
func (g *gateway) write(config string) {
	g.t.Helper()
	tmp := g.config + ".new"
	if err := os.WriteFile(tmp, []byte(config), 0o600); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Rename(tmp, g.config); err != nil {
		g.t.Fatal(err)
	}
}

// start starts weir on the gateway's files; a second start follows a kill.
func (g *gateway) start() {
	g.t.Helper()
	g.launch("up", "--config", g.config, "--data", g.dir, "--envoy-concurrency", "1")
}

// readyLine is what weir says on stdout when it serves.
type readyLine struct {
	Ready       bool     `json:"ready"`
	BaseURL     string   `json:"base_url"`
	AdminURL    string   `json:"admin_url"`
	GRPCAddress string   `json:"grpc_address"`
	Roles       []string `json:"roles"`
}

// launch runs a command of weir that stays, and waits until it is ready.
func (g *gateway) launch(args ...string) (ready readyLine) {
	g.t.Helper()
	g.cmd = exec.Command(weirBinary, args...)
	g.log = &tail{}
	g.cmd.Stderr = g.log
	stdout, err := g.cmd.StdoutPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.exited = make(chan struct{})
	lines := make(chan string, 16)
	go func() {
		defer close(g.exited)
		in := bufio.NewScanner(stdout)
		for in.Scan() {
			lines <- in.Text()
		}
		close(lines)
		g.exitErr = g.cmd.Wait()
	}()
	select {
	case line, ok := <-lines:
		if !ok {
			<-g.exited
			g.t.Fatalf("weir exited before it was ready: %v\n%s", g.exitErr, g.log)
		}
		if err := json.Unmarshal([]byte(line), &ready); err != nil || !ready.Ready {
			g.t.Fatalf("first line on stdout: %q: %v", line, err)
		}
		g.base, g.admin = ready.BaseURL, ready.AdminURL
	case <-time.After(60 * time.Second):
		_ = g.cmd.Process.Signal(syscall.SIGTERM) // it ends its Envoy too
		<-g.exited
		g.t.Fatalf("weir was not ready within 60 s\n%s", g.log)
	}
	return ready
}

// stop ends weir as an operator would, and expects a clean exit.
func (g *gateway) stop() {
	g.t.Helper()
	select {
	case <-g.exited:
		return
	default:
	}
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.exited:
		if g.exitErr != nil {
			g.t.Errorf("weir did not exit cleanly: %v", g.exitErr)
		}
	case <-time.After(30 * time.Second):
		_ = g.cmd.Process.Kill()
		<-g.exited
		g.t.Errorf("weir did not exit within 30 s of SIGTERM")
	}
}

// kill ends weir, and weir alone, with SIGKILL.
func (g *gateway) kill() {
	g.t.Helper()
	_ = g.cmd.Process.Kill()
	<-g.exited
}

// answer is what a plain HTTP client got.
type answer struct {
	status int
	header http.Header
	body   string
}

// code is error.code of an OpenAI error body; empty when the body has another shape.
func (a answer) code() string {
	var e struct {
		Error *struct {
			Message string
			Type    string
			Code    string
		}
	}
	if json.Unmarshal([]byte(a.body), &e) != nil || e.Error == nil || e.Error.Message == "" || e.Error.Type == "" {
		return ""
	}
	return e.Error.Code
}

// send sends one request; headers are name, value pairs.
func (g *gateway) send(method, path, body string, headers ...string) (answer, error) {
	req, err := http.NewRequest(method, strings.TrimSuffix(g.base, "/v1")+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		req.Header.Set("content-type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if strings.EqualFold(headers[i], "host") {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

// chat sends a chat completion with the key that key() gives, and must get an answer.
func (g *gateway) chat(model string, headers ...string) answer {
	g.t.Helper()
	return g.post("/v1/chat/completions", chatBody(model, false), append([]string{"authorization", "Bearer " + testKey}, headers...)...)
}

func (g *gateway) post(path, body string, headers ...string) answer {
	g.t.Helper()
	a, err := g.send("POST", path, body, headers...)
	if err != nil {
		g.t.Fatalf("POST %s: %v", path, err)
	}
	return a
}

func chatBody(model string, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Say something about rivers."}],"max_tokens":12,"stream":%v}`, model, stream)
}

// eventually waits until ok returns "", and fails with what it said last.
func eventually(t *testing.T, within time.Duration, ok func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		why := ok()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, why)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// givenPorts are those that freePort has given: most are bound only later.
var givenPorts sync.Map

// freePort is a loopback port that nothing listens on, and another one each time.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if _, given := givenPorts.LoadOrStore(port, true); !given {
			return port
		}
	}
}

// weir runs another command of weir and returns its output and exit code.
func weir(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(weirBinary, args...)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("weir %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
