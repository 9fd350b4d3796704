package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// loadSpec is what a load generator, a process of its own, is to do.
type loadSpec struct {
	Addr        string        `json:"addr"`
	Model       string        `json:"model"`
	Key         string        `json:"key"`
	Connections int           `json:"connections"`
	BodyBytes   int           `json:"body_bytes"`
	Same        bool          `json:"same"` // the same body each time
	Stream      bool          `json:"stream"`
	MaxTokens   int           `json:"max_tokens"`
	Rate        int           `json:"rate"` // requests a second, all connections together; 0: one after the other
	Warm        time.Duration `json:"warm"`
	Window      time.Duration `json:"window"`
}

// loadResult is what it saw within the window; times are in microseconds.
type loadResult struct {
	Seconds  float64 `json:"seconds"`
	Requests int64   `json:"requests"`
	Events   int64   `json:"events"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
	First50  float64 `json:"first50"`
	First99  float64 `json:"first99"`
}

// The lines that it prints: begin and end at the window's edges, so that the
// parent reads the CPU clocks there, then the result.
const (
	lineBegin = "begin"
	lineEnd   = "end"
)

// The phases of a run.
const (
	warming int32 = iota
	measuring
	over
)

// generator drives all connections.
type generator struct {
	spec   loadSpec
	expect expectation
	phase  atomic.Int32
	start  time.Time
	out    io.Writer
}

// worker drives one connection.
type worker struct {
	*generator
	conn     *connection
	request  request
	requests atomic.Int64
	events   atomic.Int64
	times    []time.Duration // of requests within the window
	firsts   []time.Duration
	err      error
	_        [64]byte // the counters of two workers are not to share a cache line
}

func runLoad(args []string) error {
	var spec loadSpec
	if err := json.Unmarshal([]byte(args[0]), &spec); err != nil {
		return err
	}
	runtime.GOMAXPROCS(spec.Connections + 2) // each connection blocks a thread
	debug.SetGCPercent(-1)                   // nothing is allocated on the way but the lists of times
	debug.SetMemoryLimit(2 << 30)
	return generate(spec, os.Stdout)
}

// generate drives the load and prints its lines to out.
func generate(spec loadSpec, out io.Writer) error {
	g := &generator{spec: spec, start: time.Now(), out: out}
	g.expect.contains = fmt.Sprintf(`"completion_tokens":%d`, spec.MaxTokens)
	if spec.Stream {
		g.expect = expectation{contains: `"finish_reason":"length"`, events: spec.MaxTokens + 3} // role, finish, [DONE]
	}
	workers := make([]*worker, spec.Connections)
	for i := range workers {
		conn, err := dial(spec.Addr)
		if err != nil {
			return err
		}
		defer func() { _ = conn.close() }()
		workers[i] = &worker{
			generator: g, conn: conn, request: newRequest(&spec, i),
			times: make([]time.Duration, 0, 1<<16), firsts: make([]time.Duration, 0, 1<<12),
		}
	}
	result, err := g.run(workers)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

func (g *generator) run(workers []*worker) (loadResult, error) {
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { w.err = w.run(i) })
	}
	time.Sleep(g.spec.Warm)
	requests, events := totals(workers)
	begin := time.Now()
	g.phase.Store(measuring)
	fmt.Fprintln(g.out, lineBegin)
	time.Sleep(g.spec.Window)
	g.phase.Store(over)
	r := loadResult{Seconds: time.Since(begin).Seconds()}
	r.Requests, r.Events = totals(workers)
	fmt.Fprintln(g.out, lineEnd)
	r.Requests, r.Events = r.Requests-requests, r.Events-events
	wg.Wait()
	var times, firsts []time.Duration
	for _, w := range workers {
		if w.err != nil {
			return r, w.err
		}
		times, firsts = append(times, w.times...), append(firsts, w.firsts...)
	}
	r.P50, r.P99 = quantiles(times)
	r.First50, r.First99 = quantiles(firsts)
	return r, nil
}

func totals(workers []*worker) (requests, events int64) {
	for _, w := range workers {
		requests += w.requests.Load()
		events += w.events.Load()
	}
	return requests, events
}

// quantiles are the median and the 99th percentile in microseconds.
func quantiles(list []time.Duration) (p50, p99 float64) {
	if len(list) == 0 {
		return 0, 0
	}
	slices.SortFunc(list, cmp.Compare[time.Duration])
	at := func(q float64) float64 { return float64(list[int(q*float64(len(list)-1))].Nanoseconds()) / 1e3 }
	return at(0.50), at(0.99)
}

func (w *worker) run(i int) error {
	if w.spec.Stream {
		// Streams that begin at once would go on in step, each chunk in a burst.
		time.Sleep(w.spec.Warm * time.Duration(i) / time.Duration(w.spec.Connections))
	}
	var gap time.Duration // between two requests of this connection
	if w.spec.Rate > 0 {
		gap = time.Second * time.Duration(w.spec.Connections) / time.Duration(w.spec.Rate)
	}
	due := w.start.Add(gap * time.Duration(i) / time.Duration(w.spec.Connections))
	for n := 0; w.phase.Load() != over; n++ {
		begin := time.Now()
		if gap > 0 {
			due = due.Add(gap)
			begin = waitUntil(due)
		}
		if err := w.once(begin); err != nil {
			return fmt.Errorf("connection %d, request %d: %w", i, n, err)
		}
	}
	return nil
}

// waitUntil sleeps until due and returns when the request is to be counted
// from: now when it slept, and due when it came too late because the answer
// before was slow, so that waiting behind a slow answer counts too.
func waitUntil(due time.Time) time.Time {
	left := time.Until(due)
	if left <= 0 {
		return due
	}
	for left > 0 {
		ts := syscall.NsecToTimespec(int64(left))
		_ = syscall.Nanosleep(&ts, nil) // finer than Go's timers; when interrupted it is called again
		left = time.Until(due)
	}
	return time.Now()
}

// once sends one request, and notes it when it ends within the window.
func (w *worker) once(begin time.Time) error {
	a, err := w.conn.roundTrip(w.request.next(), w.spec.Stream, func(n int) { w.events.Add(int64(n)) })
	took := time.Since(begin)
	if err == nil {
		err = w.expect.check(&a)
	}
	if err != nil {
		return err
	}
	w.requests.Add(1)
	if w.phase.Load() != measuring {
		return nil
	}
	w.times = append(w.times, took)
	if w.spec.Stream {
		w.firsts = append(w.firsts, a.first.Sub(begin))
	}
	return nil
}
