package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/internal/config"
)

func newValidate() *cobra.Command {
	var data string
	var inForce bool
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a configuration and name every fault",
		Long: `Check a configuration file as 'weir up' would, without starting or writing anything.
Every fault is named, one a line on stderr, as file:line:col: path: what is wrong; what is
allowed and probably not meant stands there as a warning.
With --in-force it checks what a start would bring into force: the version that
'weir rollback' pinned, where one is, in the place of the file.
Exits with 0 when the file is good, with 2 when it is not.`,
		Example: "  weir validate examples/bank/weir.yaml",
		Args:    oneArg("one configuration file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, name, err := toValidate(args[0], data, inForce)
			if err != nil {
				return err
			}
			p, err := config.Parse(args[0], text, config.Options{DataDir: data, ReadOnly: true, Warn: func(f config.Fault) {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", f)
			}})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok (%d listeners, %d pools, %d models, %d keys, %d limits)\n",
				name, len(p.Listeners), len(p.Pools), len(p.ModelList), len(p.KeyList), len(p.Limits))
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory with generated secrets")
	cmd.Flags().BoolVar(&inForce, "in-force", false, "check the version that a rollback pinned, where one is")
	return cmd
}

// toValidate is the text to check, and what it is called in the answer.
func toValidate(path, data string, inForce bool) (text []byte, name string, err error) {
	if !inForce {
		text, err = config.Text(path)
		return text, path, err
	}
	text, pinned, err := app.InForce(path, data)
	if pinned > 0 {
		path = fmt.Sprintf("%s: version %d, which is pinned", path, pinned)
	}
	return text, path, err
}
