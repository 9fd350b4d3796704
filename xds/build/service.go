package build

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// serviceWindow is the HTTP/2 window to weir: the largest body in one message.
const serviceWindow = 16 << 20

// maxSocketPath is what fits into sockaddr_un on Linux, the final zero left out.
const maxSocketPath = 107

// addresses are all of the service's.
func (s Service) addresses() []string { return append([]string{s.Address}, s.Others...) }

// check tells what is wrong with the addresses.
func (s Service) check() error {
	for i, a := range s.addresses() {
		if err := s.checkOne(a); err != nil {
			return err
		}
		if slices.Contains(s.addresses()[:i], a) {
			return fmt.Errorf("address %q: named twice", a)
		}
	}
	if len(s.Others) > 0 && s.TLS != nil && s.TLS.ServerName == "" {
		return errors.New("several addresses: TLS needs a server name that all of them prove")
	}
	return nil
}

func (s Service) checkOne(address string) error {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("socket %q: not absolute", path)
		}
		if len(path) > maxSocketPath {
			return fmt.Errorf("socket %q: longer than %d bytes", path, maxSocketPath)
		}
		if s.TLS != nil && s.TLS.ServerName == "" {
			return fmt.Errorf("socket %q: TLS needs a server name, a path has none", path)
		}
		return nil
	}
	host, _, err := hostPort(address)
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddr(host); s.TLS == nil && (err != nil || !a.IsLoopback()) {
		return fmt.Errorf("address %q: mutual TLS is required beyond loopback", address)
	}
	return nil
}

// namedTLS verifies the address's host when no server name is given, as every
// TLS client does.
func (s Service) namedTLS() *ClientTLS {
	if s.TLS == nil || s.TLS.ServerName != "" {
		return s.TLS
	}
	t := *s.TLS
	t.ServerName, _, _ = net.SplitHostPort(s.Address) // checked by check
	return &t
}

func hostPort(address string) (string, uint32, error) {
	if address == "" {
		return "", 0, errors.New("no address")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: want unix:/path or host:port", address)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("address %q: port is not in 1 to 65535", address)
	}
	return host, uint32(n), nil
}

// Cluster is the HTTP/2 cluster of a service. The bootstrap's xDS cluster is
// built from it too.
func (s Service) Cluster(name string) (*clusterv3.Cluster, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	c := &clusterv3.Cluster{
		Name:                          name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                durationpb.New(2 * time.Second),
		CircuitBreakers:               openBreakers(),
		TransportSocket:               clientTLS(s.namedTLS()),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpOptions: pack(s.http2())},
	}
	locality := &endpointv3.LocalityLbEndpoints{}
	for _, a := range s.addresses() {
		address, named, err := endpointAddress(a)
		if err != nil {
			return nil, err
		}
		if named {
			c.ClusterDiscoveryType = byName()
		}
		locality.LbEndpoints = append(locality.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}},
		})
	}
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{locality}}
	if len(s.Others) > 0 {
		c.HealthChecks = []*corev3.HealthCheck{replicaCheck(name)}
		// Where none is healthy, all are asked: one that was started again a moment ago is
		// there before the next check says so, and what is not ready refuses by itself.
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: percent(1)}
	}
	return c, nil
}

// endpointAddress is an address in Envoy's form, and whether it has to be looked up.
func endpointAddress(address string) (a *corev3.Address, named bool, err error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}, false, nil
	}
	host, port, err := hostPort(address)
	if err != nil {
		return nil, false, err
	}
	_, err = netip.ParseAddr(host)
	return socketAddress(host, port), err != nil, nil
}

// replicaCheck asks a replica of weir by gRPC whether it serves a role.
func replicaCheck(cluster string) *corev3.HealthCheck {
	const again = 250 * time.Millisecond // until one is well again, another bears it alone
	role := "xds"
	switch cluster {
	case ExtProcCluster:
		role = "extproc"
	case AccessLogCluster:
		role = "usage"
	}
	return &corev3.HealthCheck{
		// Envoy hears no answer while it compiles the adapter, which takes a second and more
		// of the thread that checks: by a shorter bound all replicas would be ill then.
		Timeout: durationpb.New(3 * time.Second), Interval: durationpb.New(time.Second),
		NoTrafficInterval:        durationpb.New(again),
		NoTrafficHealthyInterval: durationpb.New(time.Second),
		UnhealthyInterval:        durationpb.New(again),
		UnhealthyThreshold:       wrapperspb.UInt32(1), HealthyThreshold: wrapperspb.UInt32(1),
		HealthChecker: &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{ServiceName: role}},
	}
}

// http2 pings where a network can lose a connection silently.
func (s Service) http2() *upstreamv3.HttpProtocolOptions {
	o := &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize:     wrapperspb.UInt32(serviceWindow),
		InitialConnectionWindowSize: wrapperspb.UInt32(4 * serviceWindow),
	}
	if !strings.HasPrefix(s.Address, "unix:") {
		o.ConnectionKeepalive = keepalive()
	}
	return &upstreamv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: o},
			},
		},
	}
}

// internalClusters adds the clusters that are not pools.
func (b *builder) internalClusters() {
	b.res.Clusters = append(b.res.Clusters, &clusterv3.Cluster{
		Name:                 NoTargetCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
	})
	b.service(ExtProcCluster, b.opts.ExtProc)
	if b.opts.AccessLogFile == "" {
		b.service(AccessLogCluster, b.opts.AccessLog)
	}
}

func (b *builder) service(name string, s Service) {
	c, err := s.Cluster(name)
	if err != nil {
		b.at(name, err)
		return
	}
	b.res.Clusters = append(b.res.Clusters, c)
}

// grpcService is how a filter calls a service; a zero timeout is none.
func grpcService(cluster string, timeout time.Duration) *corev3.GrpcService {
	g := &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster},
	}}
	if timeout > 0 {
		g.Timeout = durationpb.New(timeout)
	}
	return g
}

// asked is how weir is asked: where one replica takes no connection, or is gone before it
// has said anything, another one is asked at once.
func asked() *corev3.GrpcService {
	g := grpcService(ExtProcCluster, 0)
	g.RetryPolicy = &corev3.RetryPolicy{
		RetryOn:    "connect-failure,refused-stream,reset",
		NumRetries: wrapperspb.UInt32(2),
		RetryBackOff: &corev3.BackoffStrategy{
			BaseInterval: durationpb.New(time.Millisecond),
			MaxInterval:  durationpb.New(25 * time.Millisecond),
		},
		RetryHostPredicate: []*corev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &corev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: pack(&previousv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: 10,
	}
	return g
}

func percent(v float64) *typev3.Percent { return &typev3.Percent{Value: v} }
