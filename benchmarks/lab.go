package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/weirproxy/weir/benchmarks/internal/bench"
	"github.com/weirproxy/weir/internal/simulate"
)

const (
	plainModel = "bench"
	keyEnv     = "BENCHMARK_KEY"
	poolKeyEnv = "BENCHMARK_POOL_KEY"
	readyTime  = 60 * time.Second
)

// target is one way to the backend.
type target struct {
	name  string
	about string
	addr  string
	model string
	envoy int // pid; 0 for none
	serve int // pid of the Go process beside it; 0 for none
}

// lab is everything that runs for the measurement.
type lab struct {
	options
	dir        string
	self       string // this program
	key        string
	simulator  string // port
	processes  []*process
	weirEnvoys []int // pids; children of weir
}

func newLab(o options) (*lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if o.weir, err = filepath.Abs(o.weir); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench")
	return &lab{options: o, dir: dir, self: self, key: "sk-benchmark-" + filepath.Base(dir)}, err
}

// close ends all processes, the newest first.
func (l *lab) close() error {
	var errs []error
	for i := len(l.processes) - 1; i >= 0; i-- {
		errs = append(errs, l.processes[i].stop())
	}
	for _, pid := range l.weirEnvoys {
		_ = syscall.Kill(pid, syscall.SIGKILL) // weir ended it, unless weir was killed
	}
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

func (l *lab) spawn(name string, end syscall.Signal, cmd *exec.Cmd) (*process, error) {
	p, err := start(l.dir, name, end, cmd)
	if err == nil {
		l.processes = append(l.processes, p)
	}
	return p, err
}

// start starts the simulator and all targets.
func (l *lab) start(ctx context.Context) ([]target, error) {
	var err error
	if l.simulator, err = freePort(); err != nil {
		return nil, err
	}
	p, err := l.spawn("simulator", syscall.SIGKILL, exec.Command(l.self, "--role", "simulator", "127.0.0.1:"+l.simulator))
	if err != nil {
		return nil, err
	}
	list := []target{{name: "direct", about: "straight to the simulated backend", addr: "127.0.0.1:" + l.simulator, model: plainModel}}
	if err := l.ready(ctx, p, list[0]); err != nil {
		return nil, err
	}
	for _, add := range []func(context.Context) ([]target, error){l.startBare, l.startNoop, l.startPlain} {
		more, err := add(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

func (l *lab) startBare(ctx context.Context) ([]target, error) {
	if !l.targets.MatchString("bare") {
		return nil, nil
	}
	t, err := l.startEnvoy(ctx, "bare", "")
	t.about = "Envoy with one route, nothing else"
	return []target{t}, err
}

func (l *lab) startNoop(ctx context.Context) ([]target, error) {
	if !l.targets.MatchString("noop") {
		return nil, nil
	}
	socket := filepath.Join(l.dir, "noop.sock")
	cmd := exec.Command(l.self, "--role", "noop", socket)
	cmd.Env = append(os.Environ(), "GOGC="+l.gogc)
	p, err := l.spawn("noop", syscall.SIGKILL, cmd)
	if err != nil {
		return nil, err
	}
	t, err := l.startEnvoy(ctx, "noop", socket)
	t.about, t.serve = "Envoy with an ext_proc server (Go) that gets headers and the BUFFERED body and does nothing", p.pid()
	return []target{t}, err
}

// startEnvoy starts an Envoy of our own configuration.
func (l *lab) startEnvoy(ctx context.Context, name, extProc string) (target, error) {
	port, err := freePort()
	if err != nil {
		return target{}, err
	}
	text, err := envoyConfig{Listen: port, Backend: l.simulator, ExtProc: extProc}.render()
	if err != nil {
		return target{}, err
	}
	file := filepath.Join(l.dir, name+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return target{}, err
	}
	p, err := l.spawn(name+"-envoy", syscall.SIGKILL, exec.Command(l.envoy, "-c", file, "--concurrency", "1",
		"--use-dynamic-base-id", "--log-level", "warning"))
	if err != nil {
		return target{}, err
	}
	t := target{name: name, addr: "127.0.0.1:" + port, model: plainModel, envoy: p.pid()}
	return t, l.ready(ctx, p, t)
}

func (l *lab) startPlain(ctx context.Context) ([]target, error) {
	return l.startWeir(ctx, target{
		name: "weir", model: plainModel,
		about: "`weir up` with all stages, limits in requests and tokens, two targets of two vocabularies whose tokens are both counted for each request, the request log off",
	})
}

// startWeir starts weir as an operator does.
func (l *lab) startWeir(ctx context.Context, t target) ([]target, error) {
	if !l.targets.MatchString(t.name) {
		return nil, nil
	}
	text, err := weirConfig{
		Backend: l.simulator, Model: plainModel, KeyEnv: keyEnv, PoolKeyEnv: poolKeyEnv,
	}.render()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(l.dir, t.name+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(l.weir, "up", "--config", file, "--data", filepath.Join(l.dir, t.name), "--envoy", l.envoy,
		"--envoy-concurrency", "1", "--quiet", "--log-level", "warn")
	cmd.Env = append(os.Environ(), "GOGC="+l.gogc, keyEnv+"="+l.key, poolKeyEnv+"=pool-"+l.key)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := l.spawn(t.name, syscall.SIGTERM, cmd)
	if err != nil {
		return nil, err
	}
	t.addr, err = l.weirAddress(ctx, p, bufio.NewReader(out))
	child, errChild := childNamed(p.pid(), filepath.Base(l.envoy))
	if errChild == nil {
		l.weirEnvoys = append(l.weirEnvoys, child)
	}
	if err = errors.Join(err, errChild); err != nil {
		return nil, err
	}
	t.envoy, t.serve = child, p.pid()
	return []target{t}, l.ready(ctx, p, t)
}

// weirAddress waits for the line that says where weir serves.
func (l *lab) weirAddress(ctx context.Context, p *process, out *bufio.Reader) (string, error) {
	lines := make(chan string, 1)
	go func() {
		line, _ := out.ReadString('\n')
		lines <- line
		_, _ = out.WriteTo(p.log) // what else it prints
	}()
	var ready struct {
		Ready   bool   `json:"ready"`
		BaseURL string `json:"base_url"`
	}
	select {
	case line := <-lines:
		if err := json.Unmarshal([]byte(line), &ready); err != nil || !ready.Ready {
			<-time.After(100 * time.Millisecond) // for what it says on standard error
			return "", fmt.Errorf("weir is not ready: %q: %s", line, p.tail())
		}
	case <-time.After(readyTime):
		return "", fmt.Errorf("weir is not ready after %v: %s", readyTime, p.tail())
	case <-ctx.Done():
		return "", ctx.Err()
	}
	base, err := url.Parse(ready.BaseURL)
	if err != nil {
		return "", fmt.Errorf("weir's base_url: %w", err)
	}
	return base.Host, nil
}

// ready waits until the target answers.
func (l *lab) ready(ctx context.Context, p *process, t target) error {
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hello"}]}`, t.model)
	var last error
	for deadline := time.Now().Add(readyTime); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if err := p.ended(); err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+t.addr+"/v1/chat/completions", strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+l.key)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			progress("%s is ready at %s", t.name, t.addr)
			return nil
		}
		last = fmt.Errorf("status %d", res.StatusCode)
	}
	return errors.Join(fmt.Errorf("%s does not answer: %w; %s", t.name, last, p.tail()), ctx.Err())
}

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, err
}

// runSimulator serves on args[0], recording nothing.
func runSimulator(args []string) error {
	return simulate.New(simulate.Options{Record: -1, MaxModelLen: 1 << 22}).ListenAndServe(context.Background(), args[0])
}

// about describes the machine and the programs.
func (l *lab) about(ctx context.Context) []string {
	version, _ := exec.CommandContext(ctx, l.envoy, "--version").Output()
	return []string{
		fmt.Sprintf("%s, GOGC=%s", bench.Machine(), l.gogc),
		strings.TrimSpace(string(version)),
	}
}
