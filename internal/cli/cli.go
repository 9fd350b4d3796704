// Package cli is the command line: flags in, exit code out. It holds no logic
// of the gateway; each command calls the package that does the work.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/config"
)

// The exit codes of weir.
const (
	exitOK      = 0
	exitFailure = 1 // something went wrong while it ran
	exitConfig  = 2 // a bad configuration or bad usage
	exitRefused = 3 // weir explain: the request would be refused

	exitNotInForce = 4 // weir doctor: some policy is not in force
)

// exit carries an exit code out of a command whose output is already complete.
type exit struct{ code int }

func (e exit) Error() string { return fmt.Sprintf("exit %d", e.code) }

// Main runs the command line and returns the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, hurry, stop := signals()
	defer stop()
	root := newRoot(hurry)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return exitCode(root.ExecuteContext(ctx), stderr)
}

// signals returns a context that ends at the first SIGINT or SIGTERM, and a
// channel that is closed at the second: who asks twice does not want to wait.
func signals() (ctx context.Context, hurry <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	got, second := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(got, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-got
		cancel()
		<-got
		close(second)
	}()
	return ctx, second, func() { signal.Stop(got); cancel() }
}

// upgrades receives SIGUSR2, which asks for a restart in place. One is enough for
// however many come while weir restarts.
func upgrades() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR2)
	return c
}

func exitCode(err error, stderr io.Writer) int {
	var code exit
	var faults config.Faults
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &faults):
		for _, f := range faults {
			fmt.Fprintln(stderr, f)
		}
		return exitConfig
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "weir: %v\n%s", usage.err, usage.hint)
		return exitConfig
	}
	fmt.Fprintf(stderr, "weir: %v\n", plainly(err))
	return exitFailure
}

// usageError is a command line that cannot be understood.
type usageError struct {
	err  error
	hint string
}

func (e usageError) Error() string { return e.err.Error() }

func newRoot(hurry <-chan struct{}) *cobra.Command {
	root := &cobra.Command{
		Use:   "weir",
		Short: "A token gateway for Envoy: who may call which model, at what cost, up to which limit",
		Long: `Weir turns an Envoy into a governed entrance to every model that you use: it decides
who may call what, counts every token, stops at the limit, routes each request to the
right model, moves on when a model breaks, and says afterwards who paid.`,
		Example: `  weir up --config examples/quickstart/weir.yaml     Envoy and everything of weir, on one machine
  weir validate weir.yaml                            every fault of a configuration, with its place
  weir explain --config weir.yaml --key demo --path /v1/chat/completions --body request.json
  weir doctor                                        whether every policy is in force on every proxy
  weir usage --since 24h --by team,model             who used what, and what it cost
  weir key create notebook-ci --application notebook --expires 90d`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(misuse)
	root.AddCommand(newUp(hurry), newServe(), newValidate(), newDiff(), newApply(), newHistory(), newRollback(), newRollout(), newExplain(), newDoctor(), newPools(), newUsage(), newLimits(), newTokenizers(), newKey(), newBudget(), newAudit(), newEnvoy(), newSimulate())
	return root
}

// misuse makes a usage error that points to the command's help.
func misuse(cmd *cobra.Command, err error) error {
	return usageError{err, fmt.Sprintf("See '%s --help'.\n", cmd.CommandPath())}
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misuse(cmd, fmt.Errorf("unexpected argument %q", args[0]))
	}
	return nil
}

func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return misuse(cmd, fmt.Errorf("want %s", what))
		}
		return nil
	}
}

// required marks flags without which a command cannot run; the error is ours,
// so that it has the same form and exit code as every other misuse.
func required(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if !cmd.Flags().Changed(name) {
			return misuse(cmd, fmt.Errorf("--%s is missing", name))
		}
	}
	return nil
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v += " " + s.Value[:12]
		}
	}
	return v
}
