package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/limit/redis"
)

// operateTimeout is how long a person waits for the limit store.
const operateTimeout = 5 * time.Second

func newLimits() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "Look after the limits that several replicas share",
		Args:  noArgs,
	}
	cmd.AddCommand(newLimitsRecover(), newLimitsForget())
	return cmd
}

// operate connects to the limit store of a configuration.
func operate(cmd *cobra.Command, config string) (*redis.Ledger, error) {
	if err := required(cmd, "config"); err != nil {
		return nil, err
	}
	return app.OperateStore(config, operateTimeout)
}

func newLimitsRecover() *cobra.Command {
	var config string
	var accept bool
	cmd := &cobra.Command{
		Use:   "recover --config FILE [--accept-loss]",
		Short: "Tell how the limit store stands, and open one that waits for replicas that are gone for good",
		Long: `Tell how the limit store stands. After it has lost counts it admits nothing until each of
limit_store.redis.replicas has said what it has reserved and used. --accept-loss says that those
that are missing are gone for good: what they have used is counted no more, so that a limit
may be passed by as much, once. A replica that comes back all the same adds its part then.`,
		Example: "  weir limits recover --config weir.yaml\n  weir limits recover --config weir.yaml --accept-loss",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := operate(cmd, config)
			if err != nil {
				return err
			}
			defer l.Close()
			c, err := l.Condition(cmd.Context())
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if c.Open {
				fmt.Fprintf(out, "open; replicas: %s\n", names(c.Members))
			} else {
				fmt.Fprintf(out, "waiting: %s. Have said what they know: %s\n", c.Why, names(c.Members))
			}
			if len(c.Partly) > 0 {
				fmt.Fprintf(out, "have begun to: %s\n", names(c.Partly))
			}
			if !accept {
				return nil
			}
			missing, err := l.AcceptLoss(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "opened; %d replicas are missing\n", missing)
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "configuration file (YAML)")
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "open it without what the missing replicas have used")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}

func newLimitsForget() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:     "forget-replica NAME --config FILE",
		Short:   "Give the place of a replica away that is gone for good",
		Long:    "Give the place of a replica away that is gone for good: its successor has another name, or there\nare to be fewer. What it used stays counted.",
		Example: "  weir limits forget-replica weir-2 --config weir.yaml",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return misuse(cmd, errors.New("want the name of one replica"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := operate(cmd, config)
			if err != nil {
				return err
			}
			defer l.Close()
			return l.ForgetReplica(cmd.Context(), args[0])
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "configuration file (YAML)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}

func names(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
