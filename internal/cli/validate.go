package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/config"
)

func newValidate() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a configuration and name every fault",
		Long: `Check a configuration file as 'weir up' would, without starting or writing anything.
Every fault is named, one a line on stderr, as file:line:col: path: what is wrong; what is
allowed and probably not meant stands there as a warning.
Exits with 0 when the file is good, with 2 when it is not.`,
		Example: "  weir validate examples/bank/weir.yaml",
		Args:    oneArg("one configuration file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := config.Load(args[0], config.Options{DataDir: data, ReadOnly: true, Warn: func(f config.Fault) {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", f)
			}})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok (%d listeners, %d pools, %d models, %d keys, %d limits)\n",
				args[0], len(p.Listeners), len(p.Pools), len(p.ModelList), len(p.KeyList), len(p.Limits))
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory with generated secrets")
	return cmd
}
