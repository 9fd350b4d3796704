package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/weirproxy/weir/benchmarks/internal/bench"
)

// passLimit is how much CPU time one pass may take.
const passLimit = 3 * time.Second

// lab is what measures.
type lab struct {
	options
	limit   time.Duration
	self    string // this program
	rust    string // the worker in Rust
	workers map[contender]*process
}

// cell is what was measured in all rounds.
type cell struct {
	tokens      int
	nanos       bench.Spread // of a pass
	first       bench.Spread // nanoseconds of the first pass
	allocations uint64       // of a pass, the most of all rounds
	fault       string       // why there is no figure
	failure     string       // what the peer said of it, if it failed
}

// results are the cells by their names.
type results map[cellName]*cell

func newLab(ctx context.Context, o options, root string, p *plan) (*lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l := &lab{options: o, limit: passLimit, self: self, workers: map[contender]*process{}}
	if p.has(bpeOpenAI) {
		l.rust, err = buildRust(ctx, root)
	}
	return l, err
}

// close ends all workers.
func (l *lab) close() {
	for _, p := range l.workers {
		p.kill()
	}
}

// measure runs all rounds.
func (l *lab) measure(ctx context.Context, p *plan) (results, error) {
	r := results{}
	for round := range l.rounds {
		for _, g := range p.groups() {
			for _, t := range g.texts {
				for i := range g.contenders {
					c := g.contenders[(i+round)%len(g.contenders)] // nobody is always the first
					name := cellName{c, t.name}
					if !p.wants(name) {
						continue
					}
					if err := l.cell(ctx, r, name, t.bytes); err != nil {
						return nil, fmt.Errorf("round %d, %v: %w", round+1, name, err)
					}
					progress("round %d/%d  %-45v %s", round+1, l.rounds, name, r[name].brief(len(t.bytes)))
				}
			}
		}
	}
	return r, nil
}

// cell measures once. A peer may fail, and may be too slow, for which it is not
// asked again; weir may not fail.
func (l *lab) cell(ctx context.Context, r results, name cellName, text []byte) error {
	c := r[name]
	if c == nil {
		c = &cell{}
		r[name] = c
	}
	if c.fault != "" {
		return nil
	}
	w, err := l.worker(ctx, name.contender)
	if err != nil {
		return err
	}
	a, err := w.ask(ctx, text, l.window, l.limit)
	if err == nil {
		return c.add(&a)
	}
	if told := failure(""); !errors.As(err, &told) {
		w.kill()
		delete(l.workers, name.contender)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errSlow):
		c.fault = fmt.Sprintf("> %v s", l.limit.Seconds())
		return nil
	case name.peer == weir || name.peer == coldTurn || name.peer == nextTurn:
		return err
	}
	c.fault, c.failure = "failed", err.Error()
	return nil
}

func (c *cell) add(a *answer) error {
	if len(c.nanos) > 0 && a.tokens != c.tokens {
		return fmt.Errorf("%d tokens, and %d in the round before", a.tokens, c.tokens)
	}
	c.tokens = a.tokens
	c.nanos = append(c.nanos, a.perPass())
	c.first = append(c.first, float64(a.first))
	c.allocations = max(c.allocations, a.allocations/uint64(a.passes))
	return nil
}

// worker is the running worker of a contender.
func (l *lab) worker(ctx context.Context, c contender) (*process, error) {
	if p := l.workers[c]; p != nil {
		return p, nil
	}
	cmd := exec.Command(l.self, "--worker", c.peer, c.vocabulary)
	if c.peer == bpeOpenAI {
		cmd = exec.Command(l.rust, c.vocabulary)
	}
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=100")
	p, err := start(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("the worker of %s: %w", c.peer, err)
	}
	l.workers[c] = p
	return p, nil
}

// brief says what a cell has so far.
func (c *cell) brief(size int) string {
	if c.fault != "" {
		return c.fault + " " + c.failure
	}
	last := c.nanos[len(c.nanos)-1:]
	return fmt.Sprintf("%8v MB/s  %10.1f µs  %8d tokens", rate(last, size), last.Median()/1e3, c.tokens)
}
