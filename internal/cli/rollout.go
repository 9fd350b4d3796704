package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/internal/rollout"
)

func newRollout() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Move a model's requests to another pool in steps, and back at once",
		Long: `Ask the weir that runs on the data directory to move requests of a model from one pool to
another, as models[].rollout of the configuration says. A step is taken by itself when its
pause is over and the new pool does as well as the old one. Where it surely does worse, all
requests go back at once. All replicas that share the control store go along.`,
		Example: `  weir rollout start chat --config weir.yaml
  weir rollout status --config weir.yaml
  weir rollout abort chat --why "wrong tokenizer" --config weir.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misuse(cmd, errors.New("want start, status, promote or abort"))
		},
	}
	start, status := app.RolloutRequest{Do: app.RolloutStart}, app.RolloutRequest{Do: app.RolloutStatus}
	full, back := app.RolloutRequest{Do: app.RolloutPromote}, app.RolloutRequest{Do: app.RolloutAbort}
	promote := newRolloutVerb(&full, "promote MODEL", "Take the next step now, whatever was counted")
	promote.Flags().BoolVar(&full.Full, "full", false, "take all steps: all requests move")
	abort := newRolloutVerb(&back, "abort MODEL", "Send all requests back to the old pool, promoted or not")
	abort.Flags().StringVar(&back.Why, "why", "", "what the audit and the status say of it")
	cmd.AddCommand(
		newRolloutVerb(&start, "start MODEL", "Begin at the first step"),
		newRolloutVerb(&status, "status [MODEL]", "Show how far rollouts are, what was counted and what the next step waits for"),
		promote, abort,
	)
	return cmd
}

// newRolloutVerb makes the command that asks so; flags of its own fill the request in.
func newRolloutVerb(in *app.RolloutRequest, use, short string) *cobra.Command {
	var f reportFlags
	args := cobra.ExactArgs(1)
	example := "  weir rollout " + in.Do + " chat --config weir.yaml\n  weir rollout " + in.Do + " chat --data /var/lib/weir --format json"
	if in.Do == app.RolloutStatus {
		args = cobra.MaximumNArgs(1)
	}
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			if in.By = fmt.Sprintf("operator:uid=%d", os.Getuid()); len(args) > 0 {
				in.Model = args[0]
			}
			dir, err := f.dir()
			if err != nil {
				return err
			}
			var r app.RolloutReport
			if err := ask(cmd.Context(), dir, app.RolloutPath, in, &r); err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return writeRollouts(w, r.Rollouts) })
		},
	}
	f.add(cmd)
	return cmd
}

func writeRollouts(w io.Writer, list []rollout.Status) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "the configuration has no rollout (models[].rollout)")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MODEL\tFROM\tTO\tSTATE\tMOVED\tSINCE\tBY\tWHY")
	for _, s := range list {
		state, since := string(s.Phase), "-"
		switch s.Phase {
		case "":
			state = "not started"
		case rollout.Running:
			state = fmt.Sprintf("step %d of %d", s.Step, s.Steps)
		}
		if !s.Since.IsZero() {
			since = s.Since.Local().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.4g %%\t%s\t%s\t%s\n", s.Model, s.From, s.To, state, s.Percent, since, dash(s.By), dash(s.Why))
	}
	for _, s := range list {
		if s.Counts != nil {
			writeRolloutCounts(t, s)
		}
	}
	return t.Flush()
}

func writeRolloutCounts(t io.Writer, s rollout.Status) {
	fmt.Fprintf(t, "\n%s waits for %s\nPOOL\tREQUESTS\tERRORS\tREFUSALS\tFIRST TOKEN\n", s.Model, orNothing(s.Waits))
	for _, c := range []struct {
		pool string
		of   rollout.Count
	}{{s.From, s.Counts.From}, {s.To, s.Counts.To}} {
		first := "-"
		if c.of.FirstTokenMS > 0 {
			first = fmt.Sprintf("%.0f ms", c.of.FirstTokenMS)
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\n", c.pool, c.of.Requests, c.of.Errors, c.of.Refusals, first)
	}
}

func orNothing(text string) string {
	if text == "" {
		return "nothing: it is about to be taken"
	}
	return text
}
