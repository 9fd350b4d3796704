// Package build turns a plan into Envoy's configuration: listeners, routes,
// clusters, endpoints, secrets and filters. It is pure: no clock, no randomness, no
// files, no logger; equal plans and options give equal bytes. It knows nothing
// of gRPC or of who asks for the resources.
package build

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// Names of the resources that are not named after something in the plan.
const (
	RouteConfig      = "weir"           // the one route configuration
	ExtProcCluster   = "weir/extproc"   // weir's ext_proc server
	AccessLogCluster = "weir/accesslog" // weir's gRPC access log receiver
	NoTargetCluster  = ai.NoTargetCluster

	// OwnListeners is the field of a node's metadata that says, when true, that the
	// Envoy's listeners are its operator's and weir serves it all the rest.
	OwnListeners = "weir.own_listeners"
)

// Service is how Envoy reaches one of weir's gRPC services.
type Service struct {
	// Address is unix:/path/to.sock or host:port.
	Address string
	// Others are where the other replicas are. With them, requests go around those
	// that are healthy; over TLS a server name must be given, which all prove.
	Others []string
	// TLS is required for a host:port that is not loopback.
	TLS *ClientTLS
}

// ClientTLS names PEM files on Envoy's machine: mutual TLS.
type ClientTLS struct {
	CertificateFile, PrivateKeyFile, CAFile string
	// ServerName is asked for and verified. Default: the host of the address
	ServerName string
}

// Options is what the plan does not know: where weir itself is, and files on
// Envoy's machine.
type Options struct {
	ExtProc Service
	// AccessLogFile is the JSON access log that weir tails; absolute.
	AccessLogFile string
	// AccessLog is the gRPC access log receiver, used when AccessLogFile is "".
	AccessLog Service
	// WasmFile is the adapter on Envoy's machine; absolute.
	WasmFile string
	// WasmEnvironment is the environment of the adapter's VM.
	WasmEnvironment map[string]string
	// SystemCAFile is the PEM bundle of the system's authorities on Envoy's
	// machine, for pools over TLS without a CA of their own.
	SystemCAFile string
}

// Resources is everything that Envoy is told, sorted by name.
type Resources struct {
	Listeners []*listenerv3.Listener
	Routes    []*routev3.RouteConfiguration
	Clusters  []*clusterv3.Cluster
	Endpoints []*endpointv3.ClusterLoadAssignment
	Secrets   []*tlsv3.Secret
	// Extensions are the configurations of filters that change apart from their
	// listeners.
	Extensions []*corev3.TypedExtensionConfig
}

// Build translates the plan. Its errors name the pool or listener at fault.
func Build(p *plan.Plan, o Options) (*Resources, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	b := &builder{plan: p, opts: o, res: &Resources{}}
	b.internalClusters()
	for _, pool := range p.Pools {
		b.at(fmt.Sprintf("pool %q", pool.Name), b.pool(pool))
	}
	b.verifyTokens()
	for _, t := range p.TokenIssuers {
		b.at(fmt.Sprintf("token issuer %q", t.Name), b.keySetCluster(t))
	}
	b.res.Routes = append(b.res.Routes, b.routes())
	for i := range p.Listeners {
		l := &p.Listeners[i]
		b.at(fmt.Sprintf("listener %q", l.Name), b.listener(l))
	}
	if err := errors.Join(b.errs...); err != nil {
		return nil, err
	}
	b.res.sort()
	return b.res, nil
}

// Listeners are those of the plan alone, as an Envoy needs them whose listeners are
// its operator's: what they ask of weir does not depend on where weir is.
func Listeners(p *plan.Plan) ([]*listenerv3.Listener, error) {
	b := &builder{plan: p, res: &Resources{}}
	for i := range p.Listeners {
		l := &p.Listeners[i]
		b.at(fmt.Sprintf("listener %q", l.Name), b.listener(l))
	}
	if err := errors.Join(b.errs...); err != nil {
		return nil, err
	}
	b.res.sort()
	return b.res.Listeners, nil
}

// ForListener tells that a secret serves a listener of the plan and nothing else.
func ForListener(secret string) bool {
	return strings.HasPrefix(secret, listenerSecret) || strings.HasPrefix(secret, clientsSecret)
}

func (o *Options) check() error {
	var errs []error
	if err := o.ExtProc.check(); err != nil {
		errs = append(errs, fmt.Errorf("ext_proc service: %w", err))
	}
	switch {
	case o.AccessLogFile == "":
		if err := o.AccessLog.check(); err != nil {
			errs = append(errs, fmt.Errorf("access log service: %w", err))
		}
	case !filepath.IsAbs(o.AccessLogFile):
		errs = append(errs, fmt.Errorf("access log file %q: not absolute", o.AccessLogFile))
	}
	if !filepath.IsAbs(o.WasmFile) {
		errs = append(errs, fmt.Errorf("wasm file %q: not absolute", o.WasmFile))
	}
	return errors.Join(errs...)
}

// builder gathers resources and faults of one Build.
type builder struct {
	plan *plan.Plan
	opts Options
	res  *Resources
	errs []error
}

func (b *builder) at(place string, err error) {
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("%s: %w", place, err))
	}
}

func (r *Resources) sort() {
	slices.SortFunc(r.Listeners, func(a, b *listenerv3.Listener) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.Routes, func(a, b *routev3.RouteConfiguration) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.Clusters, func(a, b *clusterv3.Cluster) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.Endpoints, func(a, b *endpointv3.ClusterLoadAssignment) int {
		return strings.Compare(a.ClusterName, b.ClusterName)
	})
	slices.SortFunc(r.Secrets, func(a, b *tlsv3.Secret) int { return strings.Compare(a.Name, b.Name) })
}

// deterministic makes equal messages marshal to equal bytes within one build of
// weir, which is what versions by content rest on.
var deterministic = proto.MarshalOptions{Deterministic: true}

// Hash is the version of a list of resources: 16 hex digits of the SHA-256 of
// their deterministic encoding. Order counts.
func Hash[M proto.Message](list []M) (string, error) {
	h := sha256.New()
	for _, m := range list {
		b, err := deterministic.Marshal(m)
		if err != nil {
			return "", fmt.Errorf("marshal %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
		}
		fmt.Fprintf(h, "%d:", len(b))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// pack wraps a message for a typed_config. Marshalling a message that was built
// in this package fails only for a string that is not UTF-8, which configuration
// cannot hold; such a message is left empty and Envoy refuses it by name.
func pack(m proto.Message) *anypb.Any {
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, deterministic); err != nil {
		return &anypb.Any{TypeUrl: typeURL(m)}
	}
	return a
}

func typeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}
