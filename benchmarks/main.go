// Command benchmarks measures what weir costs beside what an operator has
// already: the same requests go straight to a simulated backend, through a bare
// Envoy, through an Envoy with an ext_proc server that does nothing, and through
// weir with all its stages on. All targets run at the same time, each idle while
// another is measured, and take turns within each round, so that a slow minute
// of the machine hits all of them.
//
//	go run ./benchmarks [--short | --full] [--only REGEXP] [--out FILE.md]
//
// Every answer is checked; one wrong answer fails the run. Linux only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"

	"github.com/weirproxy/weir/envoy"
)

// options is how to measure.
type options struct {
	rounds       int
	warm, window time.Duration // of each cell
	only         *regexp.Regexp
	targets      *regexp.Regexp
	out          string
	envoy, weir  string // binaries
	gogc         string
}

func init() {
	// Children die with the thread that started them (Pdeathsig): that is to be
	// the main one, which lives as long as the process.
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "--role" {
		if err := roles[os.Args[2]](os.Args[3:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[2], err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

// roles are what this program starts itself as.
var roles = map[string]func(args []string) error{
	"simulator": runSimulator,
	"noop":      runNoop,
	"load":      runLoad,
}

func parseFlags(args []string) (options, error) {
	o := options{rounds: 3, warm: 300 * time.Millisecond, window: 2 * time.Second}
	fs := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	short := fs.Bool("short", false, "one round, one second a cell: about a minute")
	full := fs.Bool("full", false, "five rounds, four seconds a cell: about a quarter of an hour")
	only := fs.String("only", "", "measure the scenarios whose name matches this regular expression")
	targets := fs.String("targets", "", "measure the targets whose name matches this regular expression")
	fs.StringVar(&o.out, "out", "", "write the tables to this file too")
	fs.StringVar(&o.envoy, "envoy", "", "Envoy binary (default: the one that weir finds)")
	fs.StringVar(&o.weir, "weir", "bin/weir", "weir binary")
	fs.StringVar(&o.gogc, "gogc", "100", "GOGC of weir and of the no-op server")
	fs.IntVar(&o.rounds, "rounds", o.rounds, "rounds")
	fs.DurationVar(&o.window, "window", o.window, "how long a cell is measured")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if *short {
		o.rounds, o.warm, o.window = 1, 150*time.Millisecond, time.Second
	}
	if *full {
		o.rounds, o.warm, o.window = 5, 500*time.Millisecond, 4*time.Second
	}
	var err1, err2 error
	o.only, err1 = regexp.Compile(*only)
	o.targets, err2 = regexp.Compile(*targets)
	return o, errors.Join(err1, err2)
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	binary, err := envoy.Locate(ctx, o.envoy)
	if err != nil {
		return err
	}
	o.envoy = binary.Path
	lab, err := newLab(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.close()) }()
	targets, err := lab.start(ctx)
	if err != nil {
		return err
	}
	results, err := lab.measure(ctx, targets)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	text := report(o, lab.about(ctx), results)
	if _, err := io.WriteString(os.Stdout, text); err != nil {
		return err
	}
	if o.out == "" {
		return nil
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
