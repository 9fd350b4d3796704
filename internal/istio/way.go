// Package istio writes the objects that lead from an Istio ingress gateway to weir's
// own Envoy. It is pure: it asks no cluster, and it knows Istio's objects by their
// published form alone, so that weir links nothing of Istio. It never changes what
// happens at weir's Envoy: that is xds/build's.
package istio

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/internal/plan"
)

// Way is what leads from clients through an ingress gateway to a listener of weir's.
// Its faults are told in the words of the flags of 'weir envoy render'.
type Way struct {
	Name      string   // of the objects
	Namespace string   // of the objects and their secrets: the ingress gateway's own
	Hosts     []string // that clients ask for
	Gateway   Gateway
	Upstream  Upstream
	// Listener is the one of weir's that the way leads to, and Trust whom weir
	// believes about a client's address.
	Listener plan.Listener
	Trust    *plan.ProxyTrust
}

// Gateway is the side of the clients.
type Gateway struct {
	Selector map[string]string // labels of the ingress gateway's pods
	Port     uint32            // of its service; 0: 443, or 80 in the clear
	Secret   string            // with the certificate for the hosts
	Plain    bool              // no TLS: something before the gateway ends it
	// ClientCertificate is required, optional, or "": none is asked for. The secret
	// then holds their authorities too.
	ClientCertificate string
}

// Upstream is where weir's Envoy is, as the ingress gateway sees it: one service, or
// addresses.
type Upstream struct {
	Service   string   // name.namespace.svc.cluster.local:port
	Addresses []string // host:port each
	// What follows is for a listener that serves TLS. One of Secret and CAFile is given.
	Secret     string // with the authority, and a client certificate where one is required
	CAFile     string // PEM file in the ingress gateway's pods, or "system"
	ServerName string // in weir's certificate. Default: the host, if it is one name
}

const (
	required = "required"
	optional = "optional"
)

var (
	label    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	labelKey = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	labelOf  = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)
)

// isName tells whether s is a DNS name in lower case, as Kubernetes writes it.
func isName(s string) bool {
	return len(s) <= 253 && !slices.ContainsFunc(strings.Split(s, "."), func(l string) bool { return !label.MatchString(l) })
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// endpoint is one address of weir's Envoy.
type endpoint struct {
	host string
	port uint32
}

func parseEndpoint(s string) (endpoint, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return endpoint{}, errors.New("want host:port")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return endpoint{}, errors.New("the port is not in 1 to 65535")
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsUnspecified() || a.Zone() != "" {
			return endpoint{}, errors.New("nobody can connect to this address")
		}
		return endpoint{host, uint32(n)}, nil
	}
	// A name whose last part is a number is an address that is spelt wrong.
	last := host[strings.LastIndexByte(host, '.')+1:]
	if _, err := strconv.Atoi(last); err == nil || !isName(host) {
		return endpoint{}, errors.New("neither an address nor a name in lower case")
	}
	return endpoint{host, uint32(n)}, nil
}

// endpoints are where weir's Envoy is, without faults after check.
func (u Upstream) endpoints() []endpoint {
	list := u.Addresses
	if u.Service != "" {
		list = []string{u.Service}
	}
	var out []endpoint
	for _, s := range list {
		if e, err := parseEndpoint(s); err == nil {
			out = append(out, e)
		}
	}
	return out
}

// serverName is what weir's certificate is asked and verified for; "" when nothing
// tells it.
func (u Upstream) serverName() string {
	if u.ServerName != "" {
		return u.ServerName
	}
	hosts := map[string]bool{}
	for _, e := range u.endpoints() {
		hosts[e.host] = true
	}
	if len(hosts) != 1 {
		return ""
	}
	for host := range hosts {
		if !isAddress(host) {
			return host
		}
	}
	return ""
}

// faults gathers what is wrong, in the order of the flags.
type faults []error

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Errorf(format, args...)) }

// check names every fault.
func (w *Way) check() error {
	var f faults
	w.checkNames(&f)
	w.checkGateway(&f)
	w.checkUpstream(&f)
	w.checkTLS(&f)
	return errors.Join(f...)
}

func (w *Way) checkNames(f *faults) {
	if len(w.Hosts) == 0 {
		f.add("--host is missing: which names do clients ask for?")
	}
	seen := map[string]bool{}
	for _, h := range w.Hosts {
		switch name := strings.TrimPrefix(h, "*."); {
		case seen[h]:
			f.add("--host %q: given twice", h)
		case h == "*":
		case isAddress(h):
			f.add("--host %q: Istio chooses by name, and this is an address", h)
		case !isName(name):
			f.add("--host %q: not a host name in lower case, *.example.org, or *", h)
		case !strings.Contains(name, "."):
			f.add("--host %q: not a full name: Istio would complete it with the namespace", h)
		}
		seen[h] = true
	}
	if !isName(w.Name) {
		f.add("--name %q: not a name for a Kubernetes object", w.Name)
	}
	if !label.MatchString(w.Namespace) {
		f.add("--namespace %q: not a name for a namespace", w.Namespace)
	}
}

func (w *Way) checkGateway(f *faults) {
	g := w.Gateway
	if len(g.Selector) == 0 {
		f.add("--gateway-selector is empty: the objects would be for every gateway")
	}
	for _, key := range slices.Sorted(maps.Keys(g.Selector)) {
		if !labelKey.MatchString(key) || !labelOf.MatchString(g.Selector[key]) {
			f.add("--gateway-selector %s=%s: not a label", key, g.Selector[key])
		}
	}
	if g.Port > 65535 {
		f.add("--gateway-port %d: not in 1 to 65535", g.Port)
	}
	switch {
	case g.Secret == "" && !g.Plain:
		f.add("--gateway-secret is missing: which secret holds the certificate for the hosts? (--gateway-plain serves them without TLS)")
	case g.Secret != "" && g.Plain:
		f.add("--gateway-secret and --gateway-plain exclude each other")
	case g.Secret != "" && !isName(g.Secret):
		f.add("--gateway-secret %q: not a name for a secret", g.Secret)
	}
	switch g.ClientCertificate {
	case "":
	case required, optional:
		if g.Plain {
			f.add("--gateway-client-certificate: without TLS there are none")
		}
	default:
		f.add("--gateway-client-certificate %q: want required or optional", g.ClientCertificate)
	}
}

func (w *Way) checkUpstream(f *faults) {
	u := w.Upstream
	if (u.Service == "") == (len(u.Addresses) == 0) {
		f.add("want one of --service and --address: where does the gateway find weir's Envoy?")
	}
	if u.Service != "" {
		if e, err := parseEndpoint(u.Service); err != nil {
			f.add("--service %q: %w", u.Service, err)
		} else if !slices.Contains(strings.Split(e.host, "."), "svc") {
			f.add("--service %q: want its full name, name.namespace.svc.cluster.local:port", u.Service)
		}
	}
	seen := map[endpoint]bool{}
	for _, a := range u.Addresses {
		e, err := parseEndpoint(a)
		switch {
		case err != nil:
			f.add("--address %q: %w", a, err)
		case seen[e]:
			f.add("--address %q: given twice", a)
		}
		seen[e] = true
	}
}

// checkTLS holds the flags against what the listener of weir does.
func (w *Way) checkTLS(f *faults) {
	u, l := w.Upstream, w.Listener
	if l.TLS == nil {
		if u.Secret != "" || u.CAFile != "" || u.ServerName != "" {
			f.add("--upstream-…: listener %q serves no TLS", l.Name)
		}
		return
	}
	switch {
	case u.Secret == "" && u.CAFile == "":
		f.add("--upstream-secret or --upstream-ca is missing: listener %q serves TLS, and the gateway has to know whom to believe", l.Name)
	case u.Secret != "" && u.CAFile != "":
		f.add("--upstream-secret and --upstream-ca exclude each other")
	case u.Secret != "" && !isName(u.Secret):
		f.add("--upstream-secret %q: not a name for a secret", u.Secret)
	}
	switch name := u.serverName(); {
	case name == "":
		f.add("--upstream-server-name is missing: which name is in the certificate of listener %q?", l.Name)
	case isAddress(name) || !isName(name):
		f.add("--upstream-server-name %q: not a name in lower case", name)
	}
	if w.showsCertificate() {
		if u.CAFile != "" {
			f.add("--upstream-ca: listener %q requires client certificates, and --upstream-secret holds the gateway's", l.Name)
		}
		if w.Trust == nil {
			f.add("proxy_trust.trusted_proxies is missing in the configuration: listener %q would take the gateway's certificate for that of every client", l.Name)
		}
	}
}

// showsCertificate tells whether the gateway has to prove to weir's Envoy who it is.
func (w *Way) showsCertificate() bool {
	return w.Listener.TLS != nil && w.Listener.TLS.ClientCA != nil && !w.Listener.TLS.ClientOptional
}
