package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/internal/config"
)

func newApply() *cobra.Command {
	var f reportFlags
	var dry bool
	in := app.DryRunRequest{}
	cmd := &cobra.Command{
		Use:   "apply FILE --dry-run",
		Short: "Show what a configuration would change for the requests that there were",
		Long: `Ask the weir that runs on the data directory what would become of its last requests under
another configuration: it decides them again by the one in force and by the other, with what
is known of the pools now, and shows which go elsewhere, are refused or are let through then.
It also lists the xDS resources that Envoys would be sent. Nothing of it comes into force.

Keys, networks, bodies and what is left of limits are not judged again. Of stored keys, tokens
and workloads the roles count that the caller had, and those that its application and team have.

weir applies nothing by command: it watches its configuration file. To apply the other one, put it in that place.
Exits with 0, whether or not something changes, and with 2 when the file is not good.`,
		Example: "  weir apply weir.new.yaml --dry-run --data /var/lib/weir\n  weir apply weir.new.yaml --dry-run --last 50000 --config weir.yaml --format json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !dry {
				return misuse(cmd, errors.New("want --dry-run: to bring a configuration into force, put it in the place of the file that weir watches"))
			}
			if err := f.check(cmd); err != nil {
				return err
			}
			dir, err := f.dir()
			if err != nil {
				return err
			}
			if in.Text, err = config.Text(args[0]); err != nil {
				return err
			}
			if in.Path, err = filepath.Abs(args[0]); err != nil {
				return err
			}
			var r app.DryRunReport
			if err := ask(cmd.Context(), dir, app.DryRunPath, in, &r); err != nil {
				return err
			}
			for i := range r.Faults {
				if r.Faults[i].File == in.Path {
					r.Faults[i].File = args[0]
				}
			}
			if len(r.Faults) > 0 {
				return config.Faults(r.Faults)
			}
			return f.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return writeDryRun(w, &r) })
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "bring nothing into force")
	cmd.Flags().IntVar(&in.Last, "last", 1000, "how many of the last requests are decided again")
	f.add(cmd)
	return cmd
}

func writeDryRun(w io.Writer, r *app.DryRunReport) error {
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	fmt.Fprintf(w, "%s in force, %s in the file: of %d requests %d would be decided otherwise\n", r.Version, r.New, r.Replay.Replayed, r.Replay.Changed)
	for _, why := range slices.Sorted(maps.Keys(r.Replay.Passed)) {
		fmt.Fprintf(w, "%d not decided again: %s\n", r.Replay.Passed[why], why)
	}
	if r.Replay.Headers {
		fmt.Fprintln(w, "rules read headers, which are not recorded: they were decided as if none had been sent")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Replay.Changes) > 0 {
		fmt.Fprintln(t, "\nREQUESTS\tMODEL\tTEAM\tNOW\tTHEN\tAS")
		for _, c := range r.Replay.Changes {
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", c.Count, c.Model, c.Team, c.Was, c.Is, strings.Join(c.Examples, " "))
		}
	}
	if len(r.Resources) > 0 {
		fmt.Fprintln(t, "\nXDS RESOURCE\tNAME\tWOULD BE")
		for _, d := range r.Resources {
			fmt.Fprintf(t, "%s\t%s\t%s\n", d.Type, d.Name, d.Is)
		}
	}
	return t.Flush()
}
