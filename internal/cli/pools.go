package cli

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
)

func newPools() *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "pools [POOL]",
		Short: "Show what is known of the pools now: load, errors, first-token time",
		Long: `Ask the weir that runs on the data directory what it knows of the pools: what the backends
say of their load, how this replica's attempts of the last minute went, and which requests
are open. A dash is what is not known; what is stale is too old to go by.

With a pool's name, its endpoints are listed too, and why one was not heard of.`,
		Example: `  weir pools --data /var/lib/weir
  weir pools local --config weir.yaml
  weir pools --format json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			var in app.PoolsRequest
			if len(args) > 0 {
				in.Pool = args[0]
			}
			dir, err := f.dir()
			if err != nil {
				return err
			}
			var r app.PoolsReport
			if err := ask(cmd.Context(), dir, app.PoolsPath, in, &r); err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return writePools(w, &r, in.Pool != "") })
		},
	}
	f.add(cmd)
	return cmd
}

func writePools(w io.Writer, r *app.PoolsReport, each bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POOL\tADAPTER\tHEALTHY\tOPEN\tRUNNING\tWAITING\tKV CACHE\tAGE\tATTEMPTS\tERRORS\tREFUSED\tFIRST TOKEN\tRESTS")
	for _, p := range r.Pools {
		fmt.Fprintf(t, "%s\t%s\t%d/%d\t%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", p.Pool, p.Adapter, p.Healthy, p.Endpoints, p.Open,
			known(p.Running, 1, ""), known(p.Waiting, 1, ""), known(p.KVUse, 100, " %"), age(p.AgeSeconds, p.Stale),
			p.Attempts, known(p.ErrorRate, 100, " %"), known(p.RefusedRate, 100, " %"), known(p.FirstTokenMS, 1, " ms"), known(p.RestsSeconds, 1, " s"))
	}
	if each {
		for _, p := range r.Pools {
			writeEndpoints(t, p.Each)
		}
	}
	return t.Flush()
}

func writeEndpoints(t io.Writer, list []app.EndpointReport) {
	fmt.Fprintln(t, "\nENDPOINT\tSTATE\tRUNNING\tWAITING\tKV CACHE\tAGE\tERROR")
	for _, e := range list {
		state := "up"
		if e.Down {
			state = "down"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Endpoint, state, known(e.Running, 1, ""), known(e.Waiting, 1, ""),
			known(e.KVUse, 100, " %"), age(e.AgeSeconds, e.Stale), e.Error)
	}
}

// known writes a figure times a factor, with its unit; a dash when it is not known.
func known(v *float64, times float64, unit string) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v*times, 'f', 0, 64) + unit
}

func age(seconds *float64, stale bool) string {
	if seconds == nil {
		return "-"
	}
	text := strconv.FormatFloat(*seconds, 'f', 1, 64) + " s"
	if stale {
		text += ", stale"
	}
	return text
}
