package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A worker is a process that counts with one vocabulary of one peer. It writes
//
//	ready
//
// when the vocabulary is loaded, and then reads commands: a line with the
// nanoseconds of CPU time to measure for and the bytes of a text, and the text. It
// answers when the text was counted once, and when it was counted for that time:
//
//	pass TOKENS NANOSECONDS
//	done PASSES NANOSECONDS [ALLOCATIONS]
//
// or, in place of either, what is wrong:
//
//	fail MESSAGE
//
// The first pass is not among the passes.
const (
	lineReady = "ready"
	lineFail  = "fail "
	linePass  = "pass %d %d"
	lineDone  = "done %d %d"
)

func runWorker(peer, vocabulary string) error {
	newCounter, ok := counters[peer]
	if !ok {
		return fmt.Errorf("no such peer: %q", peer)
	}
	c, err := newCounter(vocabulary)
	if err != nil {
		return err
	}
	return serve(os.Stdin, os.Stdout, c)
}

// serve answers commands until they end.
func serve(in io.Reader, out io.Writer, c counter) error {
	fmt.Fprintln(out, lineReady)
	commands := bufio.NewReaderSize(in, 1<<16)
	for {
		line, err := commands.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return nil
		}
		if err != nil {
			return err
		}
		var window time.Duration
		var size int
		if _, err := fmt.Sscanf(line, "%d %d\n", &window, &size); err != nil || size < 0 {
			return fmt.Errorf("not a command: %q", line)
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(commands, text); err != nil {
			return err
		}
		if err := measure(out, c, text, window); err != nil {
			fmt.Fprintf(out, lineFail+"%v\n", err)
		}
	}
}

// measure counts text once, and then again and again for so much CPU time.
func measure(out io.Writer, c counter, text []byte, window time.Duration) error {
	pass, err := c(text)
	if err != nil {
		return err
	}
	runtime.GC()
	begin := cpuNow()
	count, err := pass()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, linePass+"\n", count, cpuNow()-begin)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	passes, spent := 0, time.Duration(0)
	begin = cpuNow()
	for batch := 1; spent < window; batch = nextBatch(passes, spent, window) {
		for range batch {
			switch n, err := pass(); {
			case err != nil:
				return err
			case n != count:
				return fmt.Errorf("%d tokens, and %d before", n, count)
			}
		}
		passes += batch
		spent = cpuNow() - begin
	}
	runtime.ReadMemStats(&after)
	fmt.Fprintf(out, lineDone+" %d\n", passes, spent, after.Mallocs-before.Mallocs)
	return nil
}

// nextBatch is how many passes to make before the clock is read again: all that
// are left, but no more than were made.
func nextBatch(passes int, spent, window time.Duration) int {
	left := float64(window-spent) * float64(passes) / float64(max(spent, 1))
	return min(passes, max(1, int(left)))
}

// cpuNow is the CPU time of this process, garbage collection included.
func cpuNow() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(ts.Nano())
}
