package istio

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// apiVersion is served by Istio 1.22 and later.
	apiVersion = "networking.istio.io/v1"

	// weir's Envoy closes connections that were idle for 15 minutes. The gateway, which
	// tries nothing twice, has to do so first, or a request is lost to the race.
	idleTimeout = "840s"

	// The name of a port says its protocol.
	plainPort = "http"
	tlsPort   = "https"
)

// ownNamespace keeps the objects to the namespace of the gateway: no sidecar and no
// other gateway learns of them.
var ownNamespace = []string{"."}

// Render writes the objects as YAML documents, with comments on what they rest on.
// An error names every fault of the way.
func Render(w Way) ([]byte, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(w.comment())
	for i, o := range w.objects() {
		if i > 0 {
			out.WriteString("---\n")
		}
		enc := yaml.NewEncoder(&out)
		enc.SetIndent(2)
		if err := enc.Encode(o); err != nil {
			return nil, fmt.Errorf("%s %q: %w", o.Kind, o.Metadata.Name, err)
		}
	}
	return out.Bytes(), nil
}

func (w *Way) objects() []object {
	list := []object{w.object("Gateway", w.gateway()), w.object("VirtualService", w.virtualService())}
	if w.Upstream.Service == "" {
		list = append(list, w.object("ServiceEntry", w.serviceEntry()))
	}
	return append(list, w.object("DestinationRule", w.destinationRule()))
}

func (w *Way) object(kind string, spec any) object {
	return object{APIVersion: apiVersion, Kind: kind, Metadata: metadata{w.Name, w.Namespace}, Spec: spec}
}

// comment tells what the objects cannot say themselves: what must be true for weir to
// know its clients.
func (w *Way) comment() string {
	lines := []string{
		fmt.Sprintf("From an Istio ingress gateway (pods %s in namespace %s) to weir's Envoy, listener %q.", selector(w.Gateway.Selector), w.Namespace, w.Listener.Name),
	}
	if w.Trust == nil {
		lines = append(lines, "weir trusts no proxy (proxy_trust.trusted_proxies): each client's address is the gateway's to it. Name the",
			"addresses of the gateway's pods there before a rule speaks of networks.")
	} else {
		lines = append(lines, fmt.Sprintf("A client's address is in x-forwarded-for, of which weir believes %s, from", entries(w.Trust.Hops)),
			"proxy_trust.trusted_proxies: the addresses of the gateway's pods have to be among them.")
	}
	if w.Gateway.ClientCertificate != "" && !w.Listener.TrustClientCertHeader {
		lines = append(lines, fmt.Sprintf("weir learns nothing from the clients' certificates: listener %q has no trust_client_cert_header.", w.Listener.Name))
	}
	return "# " + strings.Join(lines, "\n# ") + "\n"
}

func entries(n int) string {
	if n == 1 {
		return "the last entry"
	}
	return fmt.Sprintf("the last %d entries", n)
}

func selector(labels map[string]string) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, key+"="+labels[key])
	}
	return strings.Join(list, ",")
}

func (w *Way) gateway() gatewaySpec {
	g := w.Gateway
	s := server{Port: port{Number: 443, Name: tlsPort, Protocol: "HTTPS"}, Hosts: w.Hosts}
	if g.Plain {
		s.Port = port{Number: 80, Name: plainPort, Protocol: "HTTP"}
	} else {
		s.TLS = &serverTLS{Mode: clientMode(g.ClientCertificate), CredentialName: g.Secret, MinProtocolVersion: "TLSV1_2"}
	}
	if g.Port != 0 {
		s.Port.Number = g.Port
	}
	s.Port.Name += "-" + w.Name // unique among the servers of a gateway
	return gatewaySpec{Selector: g.Selector, Servers: []server{s}}
}

func clientMode(certificate string) string {
	switch certificate {
	case required:
		return "MUTUAL"
	case optional:
		return "OPTIONAL_MUTUAL"
	}
	return "SIMPLE"
}

// virtualService sends everything of the hosts to weir, which answers also what it
// does not serve. It sets no timeout, which is none: a stream may take as long as it
// likes, and Istio refuses to be told so (0s). Nothing is tried twice: each try would
// be a request of its own to weir, decided and charged.
func (w *Way) virtualService() virtualServiceSpec {
	return virtualServiceSpec{
		ExportTo: ownNamespace,
		Gateways: []string{w.Name},
		Hosts:    w.Hosts,
		HTTP: []httpRoute{{
			Name:    w.Name,
			Route:   []routeDestination{{destination{w.upstreamHost(), portSelector{w.Upstream.endpoints()[0].port}}}},
			Retries: retries{Attempts: 0},
		}},
	}
}

// upstreamHost is the service, or a name that only these objects know: a name that is
// resolved may belong to other objects too.
func (w *Way) upstreamHost() string {
	if w.Upstream.Service != "" {
		return w.Upstream.endpoints()[0].host
	}
	return w.Name + "-envoy.internal"
}

func (w *Way) serviceEntry() serviceEntrySpec {
	list := w.Upstream.endpoints()
	s := serviceEntrySpec{
		ExportTo:   ownNamespace,
		Hosts:      []string{w.upstreamHost()},
		Location:   "MESH_EXTERNAL",
		Ports:      []port{{Number: list[0].port, Name: plainPort, Protocol: "HTTP"}},
		Resolution: "STATIC",
	}
	for _, e := range list {
		if !isAddress(e.host) {
			s.Resolution = "DNS"
		}
		s.Endpoints = append(s.Endpoints, entryEndpoint{e.host, map[string]uint32{plainPort: e.port}})
	}
	return s
}

// destinationRule leaves out an Envoy that does not take connections. What it answers
// says nothing about it: a 503 may be a model's. It is for the gateway's pods alone,
// which are those that can read a secret that it names.
func (w *Way) destinationRule() destinationRuleSpec {
	return destinationRuleSpec{
		ExportTo:         ownNamespace,
		WorkloadSelector: workloadSelector{w.Gateway.Selector},
		Host:             w.upstreamHost(),
		TrafficPolicy: trafficPolicy{
			// One connection for each open stream: one that breaks takes no other with it.
			ConnectionPool: connectionPool{httpPool{H2UpgradePolicy: "DO_NOT_UPGRADE", IdleTimeout: idleTimeout}},
			OutlierDetection: outlierDetection{
				SplitLocalOrigin: true, ConsecutiveLocal: 2,
				Interval: "1s", BaseEjectionTime: "5s", MaxEjectionPercentage: 50,
			},
			TLS: w.upstreamTLS(),
		},
	}
}

func (w *Way) upstreamTLS() *clientTLS {
	if w.Listener.TLS == nil {
		return nil
	}
	name := w.Upstream.serverName()
	t := &clientTLS{
		Mode: "SIMPLE", CredentialName: w.Upstream.Secret, CACertificates: w.Upstream.CAFile,
		SNI: name, SubjectAltNames: []string{name},
	}
	if w.showsCertificate() {
		t.Mode = "MUTUAL"
	}
	return t
}
