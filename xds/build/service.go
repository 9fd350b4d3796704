package build

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
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

// check tells what is wrong with an address.
func (s Service) check() error {
	if path, ok := strings.CutPrefix(s.Address, "unix:"); ok {
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
	host, _, err := s.hostPort()
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddr(host); s.TLS == nil && (err != nil || !a.IsLoopback()) {
		return fmt.Errorf("address %q: mutual TLS is required beyond loopback", s.Address)
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

func (s Service) hostPort() (string, uint32, error) {
	if s.Address == "" {
		return "", 0, errors.New("no address")
	}
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: want unix:/path or host:port", s.Address)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("address %q: port is not in 1 to 65535", s.Address)
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
	address := &corev3.Address{}
	if path, ok := strings.CutPrefix(s.Address, "unix:"); ok {
		address.Address = &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}
	} else {
		host, port, err := s.hostPort()
		if err != nil {
			return nil, err
		}
		if _, err := netip.ParseAddr(host); err != nil {
			c.ClusterDiscoveryType = byName()
		}
		address = socketAddress(host, port)
	}
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}},
		}},
	}}}
	return c, nil
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

func percent(v float64) *typev3.Percent { return &typev3.Percent{Value: v} }
