// Command tokens measures weir's token counter beside its peers, in one run: the
// same texts, real and hostile ones, are counted by weir, by two Go libraries and
// by a Rust crate. Each counts in a process of its own, on one core, one at a time,
// and they take turns within each round.
//
//	go run -C benchmarks/tokens . [--rounds N] [--window TIME] [--only REGEXP] [--out FILE.md]
//
// Needs the corpora that make setup fetches, and cargo. Linux only: CPU clocks are
// read, so that other work on the machine does not show as much.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// options is how to measure.
type options struct {
	rounds int
	window time.Duration // CPU time of each cell
	only   *regexp.Regexp
	out    string
}

func init() {
	// Workers die with the thread that started them (Pdeathsig): that is to be
	// the main one, which lives as long as the process.
	runtime.LockOSThread()
	runtime.GOMAXPROCS(1)
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "--worker" {
		runtime.UnlockOSThread()
		if err := runWorker(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "tokens:", err)
		os.Exit(1)
	}
}

const example = `
A cell is named VOCABULARY/TEXT/PEER, an agent's context MODEL/context/TURN.
English and code by o200k, for a moment:

  go run -C benchmarks/tokens . --rounds 1 --window 100ms --only '^o200k/(english|code)/'
`

func parseFlags(args []string) (options, error) {
	o := options{rounds: 3, window: 200 * time.Millisecond}
	fs := flag.NewFlagSet("tokens", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "Measures weir's token counter beside its peers.\n\nFlags:")
		fs.PrintDefaults()
		fmt.Fprint(fs.Output(), example)
	}
	only := fs.String("only", "", "measure the cells whose name matches this regular expression")
	fs.StringVar(&o.out, "out", "", "write the tables to this file too, by its path from the root of the source tree")
	fs.IntVar(&o.rounds, "rounds", o.rounds, "rounds")
	fs.DurationVar(&o.window, "window", o.window, "CPU time that a cell is measured for, after a pass to warm up")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.rounds < 1 || o.window <= 0 {
		return o, errors.New("--rounds and --window must be above 0")
	}
	var err error
	o.only, err = regexp.Compile(*only)
	return o, err
}

func run(ctx context.Context, args []string) error {
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	root, err := findRoot()
	if err != nil {
		return err
	}
	plan, err := newPlan(root, o.only)
	if err != nil {
		return err
	}
	lab, err := newLab(ctx, o, root, plan)
	if err != nil {
		return err
	}
	defer lab.close()
	results, err := lab.measure(ctx, plan)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	text := report(o, about(ctx, root, plan), plan, results)
	if _, err := io.WriteString(os.Stdout, text); err != nil || o.out == "" {
		return err
	}
	if !filepath.IsAbs(o.out) {
		o.out = filepath.Join(root, o.out)
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
}

// findRoot is the root of the source tree that the working directory is in.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, rustFolder, "Cargo.toml")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("start this from within weir's source tree")
		}
	}
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
