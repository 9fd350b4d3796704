package cli

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
)

func newHistory() *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List the configurations that were in force",
		Long: `Ask the weir that runs on the data directory which configurations were in force, the newest
last, how each came, and which one is pinned. The last hundred are kept, as they were written.`,
		Example: "  weir history --data /var/lib/weir\n  weir history --config weir.yaml --format json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			dir, err := f.dir()
			if err != nil {
				return err
			}
			var r app.VersionsReport
			if err := ask(cmd.Context(), dir, app.HistoryPath, struct{}{}, &r); err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return writeVersions(w, &r) })
		},
	}
	f.add(cmd)
	return cmd
}

func writeVersions(w io.Writer, r *app.VersionsReport) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NUMBER\tVERSION\tTIME\tBY\tSTATE")
	for _, e := range r.Entries {
		state := "-"
		switch {
		case e.Refused != "":
			state = "refused: " + e.Refused
		case e.Number == r.Number && r.Pin != nil:
			state = "in force, pinned"
		case e.Number == r.Number:
			state = "in force"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", e.Number, e.Version, e.Time.Local().Format(time.DateTime), e.By, state)
	}
	return t.Flush()
}

func newRollback() *cobra.Command {
	var f operatorFlags
	var in app.RollbackRequest
	cmd := &cobra.Command{
		Use:   "rollback [VERSION]",
		Short: "Bring an earlier configuration into force again, and pin it",
		Long: `Bring a configuration into force that was before: the one before the current one, or that of
a number or a version (its first six characters are enough) that weir history lists. It returns
when every connected Envoy has accepted it and requests are decided by it.

It stays pinned, over restarts too, until the configuration file changes or --release brings
the file into force as it is. Keys, certificates and other files that it names are read as they are now.
Of several replicas with data directories of their own each is asked for itself.`,
		Example: "  weir rollback --data /var/lib/weir\n  weir rollback 12 --config weir.yaml\n  weir rollback --release --config weir.yaml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if in.Version = args[0]; in.Release {
					return misuse(cmd, errors.New("--release brings the file into force: name no version"))
				}
			}
			dir, err := f.dir()
			if err != nil {
				return err
			}
			var r app.RollbackReport
			if err := ask(cmd.Context(), dir, app.RollbackPath, in, &r); err != nil {
				return err
			}
			what := fmt.Sprintf("version %d (%s) is in force and pinned until the file changes", r.Number, r.Is)
			if in.Release {
				what = fmt.Sprintf("the file (%s) is in force", r.Is)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s; it took %d ms\n", what, r.Millis)
			for _, field := range r.NotChanged {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s takes effect when weir is started again\n", field)
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&in.Release, "release", false, "bring the configuration file into force as it is, and take the pin away")
	return cmd
}
