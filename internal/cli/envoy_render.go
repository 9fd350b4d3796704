package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/istio"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds/build"
)

// What configurations are rendered for.
const (
	forEnvoy = "envoy"
	forIstio = "istio"
)

// errInPlace is docs/adr/0024-istio.md in a sentence.
var errInPlace = errors.New(`--in-place: weir does not run inside an ingress gateway. By the priority_group cluster specifier weir orders the targets
of a request; Envoy has it from 1.40 on, Istio's proxy and istiod do not, and a proxy that refuses it refuses all routes
of the port with it, those of other hosts too. And what istiod serves is past weir's checks, history and rollback.
Without --in-place, the gateway leads to an Envoy of weir's own`)

func newEnvoyRender() *cobra.Command {
	var r render
	cmd := &cobra.Command{
		Use:   "render --config FILE",
		Short: "Print a configuration for an Envoy whose listeners stay yours, or for an Istio gateway",
		Long: `Print a configuration (JSON) for an Envoy whose listeners are yours: those of the
configuration file as a start, written out. Change them, or copy what they ask of weir into
listeners that you have: the early header mutations, the filters before the router, the
access log with its options, the local replies, and the routes by RDS. weir then serves this
Envoy its routes, clusters, endpoints and secrets, and never a listener. The node metadata
weir.own_listeners tells it so.

With --for istio, print the objects (YAML) that lead from an Istio ingress gateway to an
Envoy of weir's own: a Gateway, a VirtualService, a DestinationRule and, for addresses, a
ServiceEntry. The gateway keeps its certificates; weir's Envoy decides.`,
		Example: `  weir envoy render --config weir.yaml --xds 127.0.0.1:10090 > envoy.json && envoy -c envoy.json
  weir envoy render --config weir.yaml --for istio --host ai.example.org --gateway-secret ai-cert \
    --service weir-envoy.weir.svc.cluster.local:10080 | kubectl apply -f -`,
		Args: noArgs,
		RunE: r.run,
	}
	cmd.Flags().StringVar(&r.file, "config", "", "configuration file (YAML)")
	cmd.Flags().StringVar(&r.data, "data", "", "data directory with generated secrets")
	cmd.Flags().StringVar(&r.target, "for", forEnvoy, "what the configuration is for: envoy, or istio")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	r.common = flagNames(cmd.Flags())
	r.bootstrapFlags.add(cmd)
	r.istioFlags.add(cmd)
	return cmd
}

// render holds the flags for every target. A flag that another target would read is
// refused, as it would have no effect.
type render struct {
	bootstrapFlags
	istioFlags
	file, data, target string
	common             map[string]bool
}

func flagNames(flags *pflag.FlagSet) map[string]bool {
	list := map[string]bool{}
	flags.VisitAll(func(f *pflag.Flag) { list[f.Name] = true })
	return list
}

func (r *render) run(cmd *cobra.Command, _ []string) error {
	if r.inPlace {
		return misuse(cmd, errInPlace)
	}
	if err := r.belong(cmd); err != nil {
		return misuse(cmd, err)
	}
	if err := required(cmd, "config"); err != nil {
		return err
	}
	p, err := config.Load(r.file, config.Options{DataDir: r.data, ReadOnly: true})
	if err != nil {
		return err
	}
	if r.target == forIstio {
		return r.istioFlags.print(cmd, r.file, p)
	}
	if r.Listeners, err = build.Listeners(p); err != nil {
		return err
	}
	return r.bootstrapFlags.print(cmd)
}

// belong tells that each flag given is one of the target's.
func (r *render) belong(cmd *cobra.Command) error {
	if r.target != forEnvoy && r.target != forIstio {
		return fmt.Errorf("--for %q: want envoy or istio", r.target)
	}
	ofIstio := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(istioFlags).addTo(ofIstio)
	var errs []error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch istio := ofIstio.Lookup(f.Name) != nil; {
		case r.common[f.Name]:
		case istio && r.target == forEnvoy:
			errs = append(errs, fmt.Errorf("--%s belongs to --for istio", f.Name))
		case !istio && r.target == forIstio:
			errs = append(errs, fmt.Errorf("--%s belongs to --for envoy", f.Name))
		}
	})
	return errors.Join(errs...)
}

// istioFlags are the way to weir's Envoy.
type istioFlags struct {
	way      istio.Way
	listener string
	inPlace  bool
}

func (f *istioFlags) add(cmd *cobra.Command) { f.addTo(cmd.Flags()) }

func (f *istioFlags) addTo(flags *pflag.FlagSet) {
	w := &f.way
	flags.StringSliceVar(&w.Hosts, "host", nil, "istio: name that clients ask for, or *.example.org; may be repeated")
	flags.StringVar(&w.Upstream.Service, "service", "", "istio: the service of weir's Envoy, name.namespace.svc.cluster.local:port")
	flags.StringSliceVar(&w.Upstream.Addresses, "address", nil, "istio: where weir's Envoy is when it is no service, host:port; may be repeated")
	flags.StringVar(&f.listener, "listener", "", "istio: weir's listener there (default: the only one of the file)")
	flags.StringVar(&w.Name, "name", "weir", "istio: name of the objects")
	flags.StringVar(&w.Namespace, "namespace", "istio-system", "istio: namespace of the ingress gateway, its secrets and the objects")
	flags.StringToStringVar(&w.Gateway.Selector, "gateway-selector", map[string]string{"istio": "ingressgateway"}, "istio: labels of the ingress gateway's pods")
	flags.Uint32Var(&w.Gateway.Port, "gateway-port", 0, "istio: port of the ingress gateway's service (default: 443, or 80 with --gateway-plain)")
	flags.StringVar(&w.Gateway.Secret, "gateway-secret", "", "istio: secret with the certificate for the hosts")
	flags.BoolVar(&w.Gateway.Plain, "gateway-plain", false, "istio: no TLS at the gateway; keys are then readable on the way to it")
	flags.StringVar(&w.Gateway.ClientCertificate, "gateway-client-certificate", "", "istio: ask clients for certificates: required, or optional; the secret holds their authorities too")
	flags.StringVar(&w.Upstream.Secret, "upstream-secret", "", "istio: secret with the authority of weir's listener, and a client certificate where it requires one")
	flags.StringVar(&w.Upstream.CAFile, "upstream-ca", "", "istio: file in the gateway's pods with the authority of weir's listener, or system")
	flags.StringVar(&w.Upstream.ServerName, "upstream-server-name", "", "istio: name in the certificate of weir's listener (default: the host of its address)")
	flags.BoolVar(&f.inPlace, "in-place", false, "istio: refused: weir's filters in the gateway itself (docs/adr/0024-istio.md says why)")
}

// print writes the objects to stdout.
func (f *istioFlags) print(cmd *cobra.Command, file string, p *plan.Plan) error {
	l, err := chosen(p.Listeners, f.listener)
	if err != nil {
		return misuse(cmd, fmt.Errorf("%s: %w", file, err))
	}
	f.way.Listener, f.way.Trust = *l, p.Proxies
	b, err := istio.Render(f.way)
	if err != nil {
		return misuse(cmd, err)
	}
	_, err = cmd.OutOrStdout().Write(b)
	return err
}

// chosen is the listener of the name, or the only one.
func chosen(list []plan.Listener, name string) (*plan.Listener, error) {
	var have []string
	for i := range list {
		if list[i].Name == name || (name == "" && len(list) == 1) {
			return &list[i], nil
		}
		have = append(have, list[i].Name)
	}
	if name == "" {
		return nil, fmt.Errorf("listeners %s: choose one by --listener", strings.Join(have, ", "))
	}
	return nil, fmt.Errorf("--listener %q: there is none of that name among %s", name, strings.Join(have, ", "))
}
