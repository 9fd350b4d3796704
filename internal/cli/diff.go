package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/history"
	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
	"github.com/weirproxy/weir/xds/build"
)

func newDiff() *cobra.Command {
	var file, data string
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say what differs between two configurations",
		Long: `Check two configurations and say what the second changes, one difference a line, and which xDS
resources Envoys would be sent for it. A and B are files, or versions that weir history lists,
by their number or the first six characters; those are in the data directory.

What has a name is compared by name; rules go by their place. What files that they name contain
(keys, certificates) is not compared. Where a running weir has seen requests, weir apply --dry-run
shows which of them would be decided otherwise.
Exits with 0 when both are good, with 2 when one is not.`,
		Example: "  weir diff weir.yaml weir.new.yaml\n  weir diff 12 14 --config weir.yaml\n  weir diff 12 weir.new.yaml --data /var/lib/weir",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := diffData(data, file)
			if err != nil {
				return err
			}
			var sides [2]side
			for i, what := range args {
				if sides[i], err = readSide(what, file, dir); err != nil {
					return err
				}
			}
			return writeDiff(cmd.OutOrStdout(), &sides[0], &sides[1])
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration that versions are of: it names the data directory, and what it names lies beside it")
	cmd.Flags().StringVar(&data, "data", "", "data directory with versions and generated secrets (default: ./"+app.DefaultDataDir+")")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}

// diffData is the data directory; "" leaves it to each file.
func diffData(data, file string) (string, error) {
	if data == "" && file == "" {
		return "", nil
	}
	return dataDir(data, file)
}

// side is one of the two that are compared.
type side struct {
	text *configv1.Config
	plan *plan.Plan
}

// readSide reads a file, or a version of the data directory.
func readSide(what, file, dir string) (s side, err error) {
	text, err := config.Text(what)
	path := what
	if _, missing := os.Stat(what); errors.Is(missing, os.ErrNotExist) {
		if dir == "" {
			dir = app.DefaultDataDir
		}
		versions := history.Open(filepath.Join(dir, app.VersionsDir))
		entries, listed := versions.Entries()
		if listed != nil {
			return s, listed
		}
		entry, found := history.Find(entries, what, "")
		if found != nil && entry.Number == 0 { // one that was refused may be looked at
			return s, fmt.Errorf("%s: neither a file nor a version of data directory %s, which keeps %d (name it with --data or --config)", what, dir, len(entries))
		}
		if path = file; path == "" {
			path = "weir.yaml" // what it names lies beside it
		}
		if text, err = versions.Text(entry.Number); err != nil {
			return s, err
		}
	}
	if err != nil {
		return s, err
	}
	if s.plan, err = config.Parse(path, text, config.Options{DataDir: dir, ReadOnly: true}); err != nil {
		return s, err
	}
	s.text, err = config.Read(path, text)
	return s, err
}

func writeDiff(w io.Writer, from, to *side) error {
	lines := config.Changes(from.text, to.text)
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
	was, err := build.Build(from.plan, comparing)
	if err != nil {
		return err
	}
	is, err := build.Build(to.plan, comparing)
	if err != nil {
		return err
	}
	resources := build.Differences(was, is)
	for _, d := range resources {
		fmt.Fprintf(w, "xds %s %s: %s\n", d.Type, d.Name, d.Is)
	}
	if len(lines)+len(resources) == 0 {
		fmt.Fprintln(w, "no difference")
	}
	return nil
}

// comparing is where weir would be: the same for both sides, so that it is no difference.
var comparing = build.Options{
	ExtProc: build.Service{Address: "127.0.0.1:1"}, AccessLog: build.Service{Address: "127.0.0.1:1"},
	WasmFile: "/weir/adapter.wasm", SystemCAFile: "/weir/ca.pem",
}
