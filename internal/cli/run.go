package cli

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/xds/build"
)

// runFlags are what `up` and `serve` share.
type runFlags struct {
	config, data, replica, logLevel string
	logJSON                         bool
}

func (f *runFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.config, "config", "", "configuration file (YAML)")
	cmd.Flags().StringVar(&f.data, "data", "", "data directory (default: data_dir of the configuration, or ./weir-data)")
	cmd.Flags().StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().BoolVar(&f.logJSON, "log-json", false, "log in JSON")
	cmd.Flags().StringVar(&f.replica, "replica", "", "the name of this replica, one of several that share a limit_store; the same after a restart (default: the host's name)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagDirname("data")
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
}

func (f *runFlags) logger(cmd *cobra.Command) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, misuse(cmd, fmt.Errorf("--log-level: unknown level %q", f.logLevel))
	}
	o := &slog.HandlerOptions{Level: level}
	if f.logJSON {
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), o)), nil
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), o)), nil
}

func newUp(hurry <-chan struct{}) *cobra.Command {
	var f runFlags
	var envoyPath string
	var concurrency int
	var quiet bool
	cmd := &cobra.Command{
		Use:   "up --config FILE",
		Short: "Run Envoy and all of weir on this machine",
		Long: `Run Envoy, the external processor, the xDS server, the usage receiver and the SQLite
store in one command, in the foreground.

When Envoy serves and every policy is live, one line of JSON goes to stdout:
  {"ready":true,"base_url":"http://127.0.0.1:10080/v1","admin_url":"http://127.0.0.1:10081"}
Logs, and a line for each request, go to stderr. The configuration file is watched: a good
change is applied without touching a connection, a bad one is reported and the last good
one stays. SIGTERM and SIGINT let open streams finish, then weir exits with 0; a second
one cuts them. SIGUSR2 restarts weir in place, as the program that then lies where it was
started from: Envoy stays, and no request fails.
A bad configuration exits with 2 and names every fault by file, line, column and path.`,
		Example: "  weir up --config examples/quickstart/weir.yaml\n  weir up --config weir.yaml --data /var/lib/weir --envoy /usr/bin/envoy",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "config"); err != nil {
				return err
			}
			log, err := f.logger(cmd)
			if err != nil {
				return err
			}
			return app.Up(cmd.Context(), app.Options{
				ConfigPath: f.config, DataDir: f.data, Replica: f.replica, EnvoyPath: envoyPath, EnvoyConcurrency: concurrency,
				RequestLines: !quiet, Hurry: hurry, Upgrade: upgrades(), Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(), Log: log,
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&envoyPath, "envoy", "", "Envoy binary (default: $WEIR_ENVOY, or the one that make setup fetched)")
	cmd.Flags().IntVar(&concurrency, "envoy-concurrency", 0, "Envoy worker threads (default: one for each core)")
	cmd.Flags().BoolVar(&quiet, "quiet", false, "print no line for each request")
	_ = cmd.MarkFlagFilename("envoy")
	return cmd
}

func newServe() *cobra.Command {
	var f runFlags
	var o app.Options
	var roles string
	var envoyTLS build.ClientTLS
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run weir's roles for an Envoy that you run",
		Long: `Run the external processor, the xDS server and the usage receiver (or some of them) for
an Envoy that you run yourself. 'weir envoy bootstrap' prints what that Envoy needs.
extproc and usage run in one process; xds may run apart. Beyond loopback mutual TLS is
required: --tls-… for weir, --envoy-tls-… for what Envoy uses, on its machine.

When weir serves, one line of JSON goes to stdout:
  {"ready":true,"grpc_address":"127.0.0.1:10090","admin_url":"http://127.0.0.1:10081","roles":["extproc","xds","usage"]}

SIGUSR2 restarts weir in place, as the program that then lies where it was started from:
its address stays bound, and what Envoys ask meanwhile waits.

Each role has a health and a readiness check on the admin address:
  /healthz, /readyz and /readyz/ROLE, beside /metrics and /status.`,
		Example: "  weir serve --config weir.yaml\n  weir serve --config weir.yaml --listen unix:/run/weir/grpc.sock\n  weir serve --roles extproc,usage --config weir.yaml --listen 127.0.0.1:10091\n  weir serve --roles xds --config weir.yaml --advertise 127.0.0.1:10091 --data xds-data",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "config"); err != nil {
				return err
			}
			log, err := f.logger(cmd)
			if err != nil {
				return err
			}
			o.ConfigPath, o.DataDir, o.Replica, o.Log = f.config, f.data, f.replica, log
			o.Upgrade = upgrades()
			o.Stdout, o.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if o.Roles, err = app.ParseRoles(strings.Split(roles, ",")); err != nil {
				return misuse(cmd, fmt.Errorf("--roles: %w", err))
			}
			if o.EnvoyTLS, err = clientTLS(envoyTLS); err != nil {
				return misuse(cmd, fmt.Errorf("--envoy-tls-…: %w", err))
			}
			if err := o.CheckServe(); err != nil {
				return misuse(cmd, err)
			}
			return app.Serve(cmd.Context(), o)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&roles, "roles", "extproc,xds,usage", "roles to run, separated by commas")
	cmd.Flags().StringVar(&o.GRPCAddress, "listen", "127.0.0.1:10090", "gRPC address for Envoy: host:port, or unix:/path")
	cmd.Flags().StringVar(&o.TLS.CertFile, "tls-cert", "", "certificate for the gRPC address (PEM); with --tls-key and --tls-client-ca: mutual TLS")
	cmd.Flags().StringVar(&o.TLS.KeyFile, "tls-key", "", "private key for --tls-cert (PEM)")
	cmd.Flags().StringVar(&o.TLS.ClientCAFile, "tls-client-ca", "", "authorities whose client certificates are accepted (PEM)")
	cmd.Flags().StringVar(&o.AdvertiseAddress, "advertise", "", "the address under which Envoy reaches the external processor and the usage receiver, or those of several replicas, separated by commas (default: --listen)")
	cmd.Flags().StringVar(&o.WasmPath, "wasm-path", "", "where the Wasm filter lies on Envoy's machine (default: in the data directory); 'weir envoy wasm' writes it")
	clientTLSFlags(cmd, &envoyTLS, "envoy-")
	_ = cmd.RegisterFlagCompletionFunc("roles", cobra.FixedCompletions([]string{"extproc", "xds", "usage", "extproc,xds,usage"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
