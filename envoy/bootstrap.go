package envoy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	// Extensions that a bootstrap made elsewhere may hold, so that they print.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/weirproxy/weir/xds/build"
)

// XDSCluster is the static cluster that leads to weir's xDS server.
const XDSCluster = "weir/xds"

// BootstrapOptions is what an Envoy must know to join weir.
type BootstrapOptions struct {
	// NodeID tells Envoys apart in weir's status; any text.
	NodeID string
	// XDS is where weir's xDS server is.
	XDS build.Service
	// Admin is unix:/path/to.sock or host:port. It has no authentication.
	Admin string
	// MaxConnections bounds open downstream connections. Default: 20000
	MaxConnections int64
	// Listeners are the Envoy's own: weir is told so and asked for none. With nil
	// they come from weir.
	Listeners []*listenerv3.Listener
	// StateOfTheWorld asks for whole types instead of differences.
	StateOfTheWorld bool
}

// Bootstrap is the JSON that Envoy starts with: who it is, its admin address,
// and weir by ADS for everything else.
func Bootstrap(o BootstrapOptions) ([]byte, error) {
	if o.NodeID == "" {
		return nil, errors.New("bootstrap: no node id")
	}
	xds, err := o.XDS.Cluster(XDSCluster)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: xds: %w", err)
	}
	admin, err := address(o.Admin)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: admin: %w", err)
	}
	overload, err := overloadManager(o.MaxConnections)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	b := &bootstrapv3.Bootstrap{
		Node:  &corev3.Node{Id: o.NodeID, Cluster: "weir"},
		Admin: &bootstrapv3.Admin{Address: admin, IgnoreGlobalConnLimit: true},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters: []*clusterv3.Cluster{xds},
		},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: adsConfig(o.StateOfTheWorld), LdsConfig: fromADS(), CdsConfig: fromADS(),
		},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{
			{Name: "static", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{}}},
			{Name: "admin", LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}}},
		}},
		OverloadManager: overload,
	}
	if o.Listeners != nil {
		b.DynamicResources.LdsConfig = nil
		b.StaticResources.Listeners = o.Listeners
		b.Node.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{
			build.OwnListeners: structpb.NewBoolValue(true),
		}}
	}
	return encode(b)
}

// encode prints a bootstrap as JSON, the same bytes for the same content.
func encode(b *bootstrapv3.Bootstrap) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil { // protojson varies its spaces
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// adsConfig reconnects fast: weir restarts within a second, and Envoy's own
// back-off reaches 30 s.
func adsConfig(sotw bool) *corev3.ApiConfigSource {
	kind := corev3.ApiConfigSource_DELTA_GRPC
	if sotw {
		kind = corev3.ApiConfigSource_GRPC
	}
	return &corev3.ApiConfigSource{
		ApiType:                   kind,
		TransportApiVersion:       corev3.ApiVersion_V3,
		SetNodeOnFirstMessageOnly: true,
		GrpcServices: []*corev3.GrpcService{{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
				ClusterName: XDSCluster,
				RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
					BaseInterval: durationpb.New(100 * time.Millisecond),
					MaxInterval:  durationpb.New(time.Second),
				}},
			}},
		}},
	}
}

func fromADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

const defaultMaxConnections = 20_000

// overloadManager refuses connections over the bound instead of running out of
// file descriptors.
func overloadManager(maxConnections int64) (*overloadv3.OverloadManager, error) {
	if maxConnections <= 0 {
		maxConnections = defaultMaxConnections
	}
	config, err := anypb.New(&connectionsv3.DownstreamConnectionsConfig{
		MaxActiveDownstreamConnections: maxConnections,
	})
	if err != nil {
		return nil, fmt.Errorf("overload manager: %w", err)
	}
	return &overloadv3.OverloadManager{ResourceMonitors: []*overloadv3.ResourceMonitor{{
		Name:       "envoy.resource_monitors.global_downstream_max_connections",
		ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: config},
	}}}, nil
}

// address reads unix:/path or host:port, where port 0 is a free one.
func address(s string) (*corev3.Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if err := checkSocketPath(path); err != nil {
			return nil, err
		}
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: 0o600}}}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return nil, fmt.Errorf("address %q: want unix:/path or host:port", s)
	}
	if net.ParseIP(host) == nil {
		return nil, fmt.Errorf("address %q: want an IP address", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address %q: port is not in 0 to 65535", s)
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)},
	}}}, nil
}
