package cli

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/dialect/profile"
	"github.com/weirproxy/weir/internal/simulate"
)

func newSimulate() *cobra.Command {
	var listen string
	var o simulate.Options
	cmd := &cobra.Command{
		Use:   "simulate --listen ADDR",
		Short: "Run a stand-in model server, with faults on demand",
		Long: `Run a fast, deterministic stand-in for a model server: chat and text completions (JSON
and streams), embeddings, /v1/models, /health, /metrics, /tokenize.

POST /_control orders faults (status, delay, stall before the first token, a cut after so
many chunks, wrong or missing usage); GET /_requests tells what was received.`,
		Example: `  weir simulate --listen 127.0.0.1:18001 --model deepseek-ai/DeepSeek-V3
  curl -X POST 127.0.0.1:18001/_control -d '{"faults":[{"status":503,"match":{"times":3}}]}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "listen"); err != nil {
				return err
			}
			if err := o.Validate(); err != nil {
				return misuse(cmd, err)
			}
			var lc net.ListenConfig
			l, err := lc.Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "simulating %s on http://%s\n", o.Model, l.Addr())
			return simulate.New(o).Serve(cmd.Context(), l)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "host:port; port 0 picks a free one")
	cmd.Flags().StringVar(&o.Profile, "profile", "vllm", "whose behaviour: an adapter profile, as vllm, sglang, mindie or openai")
	cmd.Flags().StringVar(&o.Model, "model", "deepseek-ai/DeepSeek-V3", "name of the model that is served")
	cmd.Flags().StringVar(&o.APIKey, "api-key", "", "refuse requests without this key")
	cmd.Flags().DurationVar(&o.FirstToken, "first-token", 0, "time until the first token")
	cmd.Flags().DurationVar(&o.PerToken, "per-token", 0, "time between tokens")
	cmd.Flags().IntVar(&o.PrefixCache, "prefix-cache", 0, "bytes of prompts that its prefix cache holds; 0 is no cache")
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions(profile.Names(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
