package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/wasm"
	"github.com/weirproxy/weir/xds/build"
)

func newEnvoy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "envoy",
		Short: "What an Envoy that you run yourself needs",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newEnvoyBootstrap(), newEnvoyRender(), newEnvoyWasm())
	return cmd
}

// clientTLSFlags name the files with which Envoy proves who it is.
func clientTLSFlags(cmd *cobra.Command, t *build.ClientTLS, prefix string) {
	cmd.Flags().StringVar(&t.CertificateFile, prefix+"tls-cert", "", "client certificate on Envoy's machine (PEM)")
	cmd.Flags().StringVar(&t.PrivateKeyFile, prefix+"tls-key", "", "private key of the client certificate on Envoy's machine (PEM)")
	cmd.Flags().StringVar(&t.CAFile, prefix+"tls-ca", "", "authority of weir's certificate on Envoy's machine (PEM)")
	cmd.Flags().StringVar(&t.ServerName, prefix+"tls-server-name", "", "name in weir's certificate (default: the host of weir's address)")
}

// clientTLS is nil when no file is named; all of them belong together.
func clientTLS(t build.ClientTLS) (*build.ClientTLS, error) {
	if t == (build.ClientTLS{}) {
		return nil, nil
	}
	if t.CertificateFile == "" || t.PrivateKeyFile == "" || t.CAFile == "" {
		return nil, errors.New("the client certificate, its key and the authority belong together")
	}
	return &t, nil
}

func newEnvoyBootstrap() *cobra.Command {
	var f bootstrapFlags
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Print the bootstrap for an Envoy that joins 'weir serve'",
		Long: `Print the bootstrap (JSON) that an Envoy needs to get its configuration from 'weir serve':
who it is, its admin address, and where weir is. Everything else comes by xDS.`,
		Example: "  weir envoy bootstrap --xds 127.0.0.1:10090 > envoy.json && envoy -c envoy.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.print(cmd)
		},
	}
	f.add(cmd)
	return cmd
}

// bootstrapFlags are what every Envoy must know to join weir.
type bootstrapFlags struct {
	envoy.BootstrapOptions
	tls build.ClientTLS
}

func (f *bootstrapFlags) add(cmd *cobra.Command) {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "envoy"
	}
	cmd.Flags().StringVar(&f.XDS.Address, "xds", "127.0.0.1:10090", "where 'weir serve' listens, as Envoy sees it: host:port, or unix:/path; several replicas are separated by commas")
	cmd.Flags().StringVar(&f.NodeID, "node", host, "this Envoy's name in weir's status")
	cmd.Flags().StringVar(&f.Admin, "envoy-admin", "127.0.0.1:9901", "Envoy's admin address: host:port, or unix:/path; it has no authentication")
	clientTLSFlags(cmd, &f.tls, "")
}

// print writes the bootstrap to stdout.
func (f *bootstrapFlags) print(cmd *cobra.Command) error {
	var err error
	if f.XDS.TLS, err = clientTLS(f.tls); err != nil {
		return misuse(cmd, err)
	}
	list := strings.Split(f.XDS.Address, ",")
	f.XDS.Address, f.XDS.Others = list[0], list[1:]
	b, err := envoy.Bootstrap(f.BootstrapOptions)
	if err != nil {
		return misuse(cmd, err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", b)
	return err
}

func newEnvoyWasm() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "wasm FILE",
		Short:   "Write the Wasm filter to a file, for an Envoy on another machine",
		Long:    "Write the Wasm filter to a file. Put it where 'weir serve --wasm-path' says, on each machine that runs an Envoy.",
		Example: "  weir envoy wasm /etc/weir/adapter.wasm",
		Args:    oneArg("one file"),
		RunE: func(_ *cobra.Command, args []string) error {
			code, err := wasm.Adapter()
			if err != nil {
				return err
			}
			tmp := args[0] + ".new"
			if err := os.WriteFile(tmp, code, 0o644); err != nil { //nolint:gosec // Envoy may run as another user
				return err
			}
			return os.Rename(tmp, args[0])
		},
	}
	return cmd
}
