package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
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
	var data, file, by, format, sinceText string
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Show who used what, and what it cost",
		Long: `Sum up requests, tokens and cost from the usage store. It reads the store of a running
weir too, which is at most about a second behind.`,
		Example: "  weir usage --since 1h --by team,model,key\n  weir usage --since 30d --by team --format csv > month.csv",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(usageFormats, format) {
				return misuse(cmd, fmt.Errorf("--format: want %s, got %q", strings.Join(usageFormats, ", "), format))
			}
			dims, err := query.ParseBy(by)
			if err != nil {
				return misuse(cmd, fmt.Errorf("--by: %w", err))
			}
			since, err := parseSince(sinceText)
			if err != nil {
				return misuse(cmd, fmt.Errorf("--since: %w", err))
			}
			dir, err := dataDir(data, file)
			if err != nil {
				return err
			}
			return printUsage(cmd, dir, since, dims, format)
		},
	}
	cmd.Flags().StringVar(&sinceText, "since", "1h", "how far back: 90m, 24h, 7d")
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

// parseSince reads a time such as 90m or 24h, or days, as 7d.
func parseSince(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		if n, err = strconv.Atoi(days); err == nil && n < 100_000 {
			d = time.Duration(n) * 24 * time.Hour
		}
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("want a time such as 90m, 24h or 7d, got %q", text)
	}
	return d, nil
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
	text, err := config.Text(file)
	if err != nil {
		return "", err
	}
	// Not compiled: what it names (secrets in weir's environment, say) need not be here.
	c, err := config.Read(file, text)
	if err != nil {
		return "", err
	}
	if c.GetDataDir() == "" {
		return app.DefaultDataDir, nil
	}
	return c.GetDataDir(), nil
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
