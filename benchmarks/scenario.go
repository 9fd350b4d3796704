package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/weirproxy/weir/benchmarks/internal/bench"
)

// scenario is one kind of load.
type scenario struct {
	name        string
	connections int // 0: no load
	bodyBytes   int
	stream      bool
	tokens      int // of the answer: 150 make a JSON body of about 1 KB
	chunkDelay  time.Duration
	rate        int
	same        bool // the same body each time, as an agent repeats its context
	leastWindow time.Duration
}

const answerTokens = 150

var scenarios = []scenario{
	{name: "rest", leastWindow: 2 * time.Second},
	{name: "json-1", connections: 1, bodyBytes: 2 << 10},
	{name: "json-32", connections: 32, bodyBytes: 2 << 10},
	{name: "json-128", connections: 128, bodyBytes: 2 << 10},
	{name: "stream-unpaced", connections: 16, bodyBytes: 2 << 10, stream: true, tokens: 100},
	{name: "stream-10ms", connections: 16, bodyBytes: 2 << 10, stream: true, tokens: 100, chunkDelay: 10 * time.Millisecond, leastWindow: 2 * time.Second},
	{name: "paced-1000", connections: 16, bodyBytes: 2 << 10, rate: 1000},
	{name: "body-2k", connections: 4, bodyBytes: 2 << 10},
	{name: "body-20k", connections: 4, bodyBytes: 20 << 10},
	{name: "body-200k", connections: 4, bodyBytes: 200 << 10},
	{name: "same-2k", connections: 32, bodyBytes: 2 << 10, same: true},
	{name: "same-200k", connections: 4, bodyBytes: 200 << 10, same: true},
	{name: "body-2m", connections: 4, bodyBytes: 2 << 20},
}

// cell is one measurement of one target in one scenario. Times are in
// microseconds, memory in bytes.
type cell struct {
	loadResult
	envoyCPU, serveCPU time.Duration // within the window
	envoyRSS, serveRSS int64         // the most that was seen
}

// results are the cells of all rounds by scenario and target.
type results struct {
	scenarios []scenario
	targets   []target
	cells     map[string][]cell // by scenario + " " + target
}

// measure runs all rounds.
func (l *lab) measure(ctx context.Context, targets []target) (*results, error) {
	r := &results{targets: targets, cells: map[string][]cell{}}
	for _, s := range scenarios {
		if l.only.MatchString(s.name) {
			r.scenarios = append(r.scenarios, s)
		}
	}
	for round := range l.rounds {
		for _, s := range r.scenarios {
			for i := range targets {
				t := targets[(i+round)%len(targets)] // nobody is always the first
				if !l.targets.MatchString(t.name) {
					continue
				}
				c, err := l.cell(ctx, s, t)
				if err != nil {
					return nil, fmt.Errorf("round %d, %s, %s: %w", round+1, s.name, t.name, err)
				}
				progress("round %d/%d  %-15s %-8s %9.0f/s  p50 %8.0f µs  p99 %8.0f µs  CPU %6.0f + %6.0f ms", round+1, l.rounds, s.name, t.name,
					float64(c.Requests)/c.Seconds, c.P50, c.P99, envoyMicros(c)/1e3, serveMicros(c)/1e3)
				r.cells[s.name+" "+t.name] = append(r.cells[s.name+" "+t.name], c)
			}
		}
	}
	return r, nil
}

// cell measures once.
func (l *lab) cell(ctx context.Context, s scenario, t target) (cell, error) {
	for _, p := range l.processes {
		if err := p.ended(); err != nil {
			return cell{}, err
		}
	}
	if s.connections == 0 {
		return t.rest(ctx, max(l.window, s.leastWindow))
	}
	if err := l.setPace(ctx, s.chunkDelay); err != nil {
		return cell{}, err
	}
	return l.load(ctx, s, t)
}

// rest looks at a target that has nothing to do.
func (t target) rest(ctx context.Context, window time.Duration) (cell, error) {
	if t.envoy == 0 {
		return cell{loadResult: loadResult{Seconds: window.Seconds()}}, nil
	}
	r, w := io.Pipe()
	go func() {
		fmt.Fprintln(w, lineBegin)
		select {
		case <-time.After(window):
		case <-ctx.Done():
		}
		fmt.Fprintln(w, lineEnd)
		fmt.Fprintf(w, `{"seconds":%v}`, window.Seconds())
		_ = w.Close()
	}()
	c, err := t.watch(bufio.NewScanner(r))
	return c, errors.Join(err, ctx.Err())
}

// load runs a load generator against a target.
func (l *lab) load(ctx context.Context, s scenario, t target) (cell, error) {
	spec := loadSpec{
		Addr: t.addr, Model: t.model, Key: l.key, Connections: s.connections, BodyBytes: s.bodyBytes, Stream: s.stream,
		MaxTokens: s.tokens, Rate: s.rate, Same: s.same, Warm: l.warm, Window: max(l.window, s.leastWindow),
	}
	if spec.MaxTokens == 0 {
		spec.MaxTokens = answerTokens
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return cell{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, spec.Warm+spec.Window+2*ioTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.self, "--role", "load", string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return cell{}, err
	}
	if err := cmd.Start(); err != nil {
		return cell{}, err
	}
	c, err := t.watch(bufio.NewScanner(out))
	if e := cmd.Wait(); e != nil {
		return c, fmt.Errorf("%w: %s", e, bytes.TrimSpace(complaints.Bytes()))
	}
	if err == nil && c.Requests == 0 {
		err = fmt.Errorf("no request ended within %v", spec.Window)
	}
	return c, err
}

// watch reads the target's clocks at the edges of the window, its memory in
// between, and then the result.
func (t target) watch(lines *bufio.Scanner) (cell, error) {
	var c cell
	next := func(want string) error {
		if !lines.Scan() || want != "" && lines.Text() != want {
			return fmt.Errorf("the load generator says %q", lines.Text())
		}
		return nil
	}
	if err := next(lineBegin); err != nil {
		return c, err
	}
	envoy, serve, err := t.clocks()
	if err != nil {
		return c, err
	}
	stop := make(chan struct{})
	watched := make(chan error)
	go func() { watched <- c.watchMemory(t, stop) }()
	err = next(lineEnd)
	envoyEnd, serveEnd, errClock := t.clocks()
	close(stop)
	if e := <-watched; err == nil {
		err = e
	}
	if err == nil {
		err = errClock
	}
	if err != nil {
		return c, err
	}
	c.envoyCPU, c.serveCPU = envoyEnd-envoy, serveEnd-serve
	if err := next(""); err != nil {
		return c, err
	}
	return c, json.Unmarshal(lines.Bytes(), &c.loadResult)
}

func (t target) clocks() (envoy, serve time.Duration, err error) {
	if t.envoy != 0 {
		if envoy, err = bench.CPUTime(t.envoy); err != nil {
			return
		}
	}
	if t.serve != 0 {
		serve, err = bench.CPUTime(t.serve)
	}
	return
}

// watchMemory notes the most memory that is seen until stop is closed.
func (c *cell) watchMemory(t target, stop <-chan struct{}) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, p := range []struct {
			pid int
			rss *int64
		}{{t.envoy, &c.envoyRSS}, {t.serve, &c.serveRSS}} {
			if p.pid == 0 {
				continue
			}
			n, err := residentBytes(p.pid)
			if err != nil {
				return err
			}
			*p.rss = max(*p.rss, n)
		}
		select {
		case <-tick.C:
		case <-stop:
			return nil
		}
	}
}

// setPace tells the simulator how fast to stream.
func (l *lab) setPace(ctx context.Context, chunkDelay time.Duration) error {
	body := fmt.Sprintf(`{"faults":[{"chunk_delay_ms":%d}]}`, chunkDelay.Milliseconds())
	if chunkDelay == 0 {
		body = `{"faults":[]}`
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:"+l.simulator+"/_control", strings.NewReader(body))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the simulator's control endpoint: status %d", res.StatusCode)
	}
	return nil
}
