package cli

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/internal/doctor"
)

func newDoctor() *cobra.Command {
	var f reportFlags
	var ca string
	var proxy app.DoctorProxy
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Prove on each proxy that every policy is in force",
		Long: `Ask the weir that runs on the data directory to send probes through every proxy that it
knows a way to, and tell of each policy whether it is in force there, and by what that is
known. A probe is judged by every stage as a client's request is, takes nothing from any
limit, is nobody's request in usage, and never leaves for a backend.

Exits with 0 when all is in force, with 4 when something is not, and with 1 when nothing
is known to be out of force and something could not be told.`,
		Example: `  weir doctor --data /var/lib/weir
  weir doctor --config weir.yaml --format json
  weir doctor --url https://edge-1:10443 --ca ca.pem --server-name gateway.example`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			var in app.DoctorRequest
			if proxy.URL != "" {
				in.Proxy = &proxy
				if err := readCA(&proxy, ca); err != nil {
					return err
				}
			} else if ca != "" || proxy.ServerName != "" {
				return misuse(cmd, fmt.Errorf("--ca and --server-name are for --url"))
			}
			dir, err := f.dir()
			if err != nil {
				return err
			}
			var r doctor.Report
			if err := ask(cmd.Context(), dir, app.DoctorPath, in, &r); err != nil {
				return err
			}
			if err := writeReport(cmd, &r, f.format); err != nil {
				return err
			}
			return verdict(r.State())
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&proxy.URL, "url", "", "probe only this listener: http(s)://host:port, as the running weir reaches it")
	cmd.Flags().StringVar(&proxy.Name, "name", "", "what to call the proxy of --url in the report")
	cmd.Flags().StringVar(&ca, "ca", "", "authorities to trust at --url (PEM; default: the system's)")
	cmd.Flags().StringVar(&proxy.ServerName, "server-name", "", "name to ask for and to verify at --url (default: its host)")
	_ = cmd.MarkFlagFilename("ca")
	return cmd
}

func readCA(p *app.DoctorProxy, ca string) (err error) {
	if p.Name == "" {
		p.Name = p.URL
	}
	if ca != "" {
		p.CA, err = os.ReadFile(ca)
	}
	return err
}

func writeReport(cmd *cobra.Command, r *doctor.Report, format string) error {
	if format == "text" {
		return r.WriteText(cmd.OutOrStdout())
	}
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// verdict is the exit code of what was found.
func verdict(s doctor.State) error {
	switch s {
	case doctor.InForce:
		return nil
	case doctor.NotInForce:
		return exit{exitNotInForce}
	}
	return exit{exitFailure}
}
