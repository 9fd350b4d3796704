package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/config"
)

func newDiff() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "diff FILE FILE",
		Short: "Say what differs between two configurations",
		Long: `Check two configuration files and say what the second changes, one difference a line. What
has a name is compared by name; rules go by their place. What files that they name contain
(keys, certificates) is not compared.
Exits with 0 when both are good, with 2 when one is not.`,
		Example: "  weir diff weir.yaml weir.new.yaml",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, file := range args {
				if _, err := config.Load(file, config.Options{DataDir: data, ReadOnly: true}); err != nil {
					return err
				}
			}
			from, err := config.Read(args[0])
			if err != nil {
				return err
			}
			to, err := config.Read(args[1])
			if err != nil {
				return err
			}
			list := config.Changes(from, to)
			for _, line := range list {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			if len(list) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "no difference")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory with generated secrets")
	return cmd
}
