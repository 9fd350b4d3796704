package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/tokens"
	"github.com/weirproxy/weir/tokens/vocab"
)

func newTokenizers() *cobra.Command {
	var file, data string
	cmd := &cobra.Command{
		Use:   "tokenizers",
		Short: "Show how the input tokens of each pool are counted",
		Long: `Without --config, list the vocabularies and chat templates that weir has: what
pools[].tokenizer may name. With --config, say for each pool which of them it counts by,
and whether its counts are exact: for the others weir reserves by the length of the text
and corrects its estimates by what the backend reports. Where the vocabulary is only a near
one, name the model's own with pools[].tokenizer.file.`,
		Example: `  weir tokenizers
  weir tokenizers --config weir.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return listTokenizers(cmd.OutOrStdout())
			}
			p, err := config.Load(file, config.Options{DataDir: data, ReadOnly: true})
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "POOL\tMODEL\tVOCABULARY\tTEMPLATE\tA CHAT OF TEXT IS")
			for _, pool := range p.Pools {
				t := pool.Tokenizer
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", pool.Name, pool.Model, t.Vocabulary(), t.Template(), exactness(t))
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	cmd.Flags().StringVar(&data, "data", "", "data directory with generated secrets")
	return cmd
}

func exactness(t *tokens.Tokenizer) string {
	switch {
	case t.Estimates():
		return "estimated: the vocabulary is a near one"
	case t.Approximate():
		return "estimated: the template is not verified"
	}
	return "counted exactly"
}

func listTokenizers(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VOCABULARY\tFOR\tFROM\tLICENCE")
	for _, k := range vocab.All {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.Name, k.For, k.From, k.Licence)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nTEMPLATES\n%s\n", strings.Join(tokens.Templates(), "\n"))
	return err
}
