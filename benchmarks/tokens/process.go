package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/weirproxy/weir/benchmarks/internal/bench"
)

// errSlow says that a worker took longer than it may, and was ended.
var errSlow = errors.New("too slow")

// lostTime is how long a worker may be silent without using its CPU time.
const lostTime = 5 * time.Minute

// process is a running worker.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string // what it answers; closed when it ends
	stderr bytes.Buffer
}

// answer is what a worker measured.
type answer struct {
	tokens      int
	first       time.Duration // CPU time of the first pass
	passes      int
	spent       time.Duration // CPU time of all passes but the first
	allocations uint64        // of those passes; 0 where it is not told
}

// perPass is the CPU time of a pass, in nanoseconds.
func (a *answer) perPass() float64 { return float64(a.spent) / float64(a.passes) }

// start starts a worker and waits until its vocabulary is loaded. It ends with ctx,
// and with the thread that calls.
func start(ctx context.Context, cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, lines: make(chan string, 1)}
	cmd.Stderr = &p.stderr
	// A group of its own: ctrl-C reaches this process alone, which ends the others.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in = in
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
	}()
	line, err := p.await(ctx, lostTime)
	if err == nil && line != lineReady {
		err = fmt.Errorf("a worker that says %q at first", line)
	}
	if err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// ask measures a text. It is errSlow when the first pass takes more CPU time than
// limit; the worker is then of no use any more, nor is it after any error but those
// that it tells of itself.
func (p *process) ask(ctx context.Context, text []byte, window, limit time.Duration) (a answer, err error) {
	if _, err := fmt.Fprintf(p.in, "%d %d\n", window.Nanoseconds(), len(text)); err != nil {
		return a, p.ended(err)
	}
	if _, err := p.in.Write(text); err != nil {
		return a, p.ended(err)
	}
	line, err := p.await(ctx, limit)
	if err != nil {
		return a, err
	}
	if err := a.readPass(line); err != nil {
		return a, err
	}
	if line, err = p.await(ctx, window+2*limit); err != nil {
		return a, err
	}
	return a, a.readDone(line)
}

// await waits for a line while the worker uses no more CPU time than limit.
func (p *process) await(ctx context.Context, limit time.Duration) (string, error) {
	before, err := bench.CPUTime(p.cmd.Process.Pid)
	if err != nil {
		return "", p.ended(err)
	}
	lost := time.Now().Add(lostTime)
	for wait := limit; ; {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return "", p.ended(io.ErrUnexpectedEOF)
			}
			return line, nil
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(wait):
		}
		used, err := bench.CPUTime(p.cmd.Process.Pid)
		if err != nil {
			return "", p.ended(err)
		}
		if wait = limit - (used - before); wait <= 0 || time.Now().After(lost) {
			return "", errSlow
		}
		wait = max(wait, time.Millisecond)
	}
}

// ended is the error of a worker that ended by itself: what it said last.
func (p *process) ended(err error) error {
	_ = p.cmd.Process.Kill() // so that Wait returns, whatever is the matter
	for range p.lines {      // Wait closes the pipe
	}
	err = errors.Join(err, p.cmd.Wait())
	if said := strings.TrimSpace(p.stderr.String()); said != "" {
		first, _, _ := strings.Cut(said, "\n")
		return fmt.Errorf("%w: %s", err, first)
	}
	return err
}

// kill ends the worker, by its pid, at once.
func (p *process) kill() {
	_ = p.in.Close()
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill() // it may have ended
		for range p.lines {      // Wait closes the pipe
		}
		_ = p.cmd.Wait() // says that it was killed
	}
}

// failure is what a worker tells of a text that it cannot count.
type failure string

func (f failure) Error() string { return string(f) }

func (a *answer) readPass(line string) error {
	return readLine(line, linePass, &a.tokens, &a.first)
}

func (a *answer) readDone(line string) error {
	if err := readLine(line, lineDone, &a.passes, &a.spent); err != nil {
		return err
	}
	if a.passes < 1 || a.spent <= 0 {
		return fmt.Errorf("a worker that made no pass: %q", line)
	}
	// The third figure may be missing: not every peer tells.
	if fields := strings.Fields(line); len(fields) > 3 {
		if _, err := fmt.Sscan(fields[3], &a.allocations); err != nil {
			return fmt.Errorf("an answer of a worker: %q", line)
		}
	}
	return nil
}

func readLine(line, format string, values ...any) error {
	if message, failed := strings.CutPrefix(line, lineFail); failed {
		return failure(message)
	}
	if _, err := fmt.Sscanf(line, format, values...); err != nil {
		return fmt.Errorf("an answer of a worker: %q", line)
	}
	return nil
}
