package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/usage/query"
	"github.com/weirproxy/weir/usage/store"
	"github.com/weirproxy/weir/usage/store/sqlite"
)

var usageFormats = []string{"table", "json", "csv"}

func newUsage() *cobra.Command {
	var data, file, by, format string
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Show who used what, and what it cost",
		Long: `Sum up requests, tokens and cost from the usage store. It reads the store of a running
weir too, which is at most about a second behind.`,
		Example: "  weir usage --since 1h --by team,model,key\n  weir usage --since 720h --by team --format csv > month.csv",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(usageFormats, format) {
				return misuse(cmd, fmt.Errorf("--format: want %s, got %q", strings.Join(usageFormats, ", "), format))
			}
			dims, err := query.ParseBy(by)
			if err != nil {
				return misuse(cmd, fmt.Errorf("--by: %w", err))
			}
			if since <= 0 {
				return misuse(cmd, fmt.Errorf("--since: want a time such as 1h, got %s", since))
			}
			dir, err := dataDir(data, file)
			if err != nil {
				return err
			}
			return printUsage(cmd, dir, since, dims, format)
		},
	}
	cmd.Flags().DurationVar(&since, "since", time.Hour, "how far back")
	cmd.Flags().StringVar(&by, "by", "team,model", "what to group by: "+strings.Join(dimensionNames(), ", "))
	cmd.Flags().StringVar(&format, "format", "table", strings.Join(usageFormats, ", "))
	cmd.Flags().StringVar(&file, "config", "", "configuration that names the data directory")
	cmd.Flags().StringVar(&data, "data", "", "data directory (default: ./"+app.DefaultDataDir+")")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagDirname("data")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(usageFormats, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions(dimensionNames(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func dimensionNames() []string {
	names := make([]string, len(store.Dimensions))
	for i, d := range store.Dimensions {
		names[i] = string(d)
	}
	return names
}

// dataDir is where the usage store is: the flag, the configuration, the default.
func dataDir(data, file string) (string, error) {
	if data != "" || file == "" {
		if data == "" {
			data = app.DefaultDataDir
		}
		return data, nil
	}
	p, err := config.Load(file, config.Options{ReadOnly: true})
	if err != nil {
		return "", err
	}
	return p.DataDir, nil
}

func printUsage(cmd *cobra.Command, dir string, since time.Duration, by []store.Dimension, format string) error {
	path := filepath.Join(dir, app.StoreFile)
	reader, err := sqlite.OpenReader(cmd.Context(), path)
	if err != nil {
		return fmt.Errorf("usage store %s: %w (name the data directory with --data)", path, err)
	}
	defer func() { _ = reader.Close() }()
	now := time.Now()
	rows, err := query.Usage(cmd.Context(), reader, now.Add(-since), now, by)
	if err != nil {
		return err
	}
	return query.Render(cmd.OutOrStdout(), format, by, rows)
}
