package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
)

func newKeyImport() *cobra.Command {
	var config, data string
	cmd := &cobra.Command{
		Use:   "import --config FILE",
		Short: "Take the keys of this machine to the limit store that several replicas share",
		Long: `Take the keys that were made while weir ran alone, and what was decided about keys of the
configuration, from the data directory to the limit store, where all replicas have them. No weir
may run on the data directory. What is revoked in either place is revoked in the end; the file is
put aside as control.db.imported, with the audit until now. Where other keys have one of the names
there already, nothing is imported. It can be repeated when it was interrupted.`,
		Example: "  weir key import --config weir.yaml --data /var/lib/weir",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "config"); err != nil {
				return err
			}
			n, aside, err := app.ImportKeys(cmd.Context(), config, data)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "keys: %d; decisions about keys of the configuration: %d; the file is %s now\n", n.Keys, n.Overrides, aside)
			return err
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "configuration file (YAML)")
	cmd.Flags().StringVar(&data, "data", "", "data directory (default: the configuration's)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}
