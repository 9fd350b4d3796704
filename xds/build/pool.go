package build

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	dnscommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

const (
	httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

	// noBreaker is every circuit breaker's size: ceilings are weir's limits, and
	// Envoy's defaults (1024 requests, 3 retries at a time) would be another one
	// that nobody sees. A whole fleet stays far below it.
	noBreaker = 1 << 24

	// Idle upstream connections are closed before the backend closes them, or a
	// request is lost to the race: uvicorn, under vLLM and SGLang, keeps them for
	// 5 s, providers behind load balancers for at least a minute.
	idlePlain = 4 * time.Second
	idleTLS   = 50 * time.Second

	// A backend that reads slowly holds at most this much of a body in a
	// connection's buffer; Envoy's default.
	connectionBuffer = 1 << 20
)

// pool adds a pool's cluster, its endpoints and its secret.
func (b *builder) pool(p *plan.Pool) error {
	if len(p.Endpoints) == 0 {
		return fmt.Errorf("no endpoints")
	}
	cluster, err := b.cluster(p)
	if err != nil {
		return err
	}
	load := loadAssignment(p)
	if static(p) {
		if err := byEDS(cluster, load); err != nil {
			return err
		}
		b.res.Endpoints = append(b.res.Endpoints, load)
	} else {
		cluster.ClusterDiscoveryType = byName()
		cluster.LoadAssignment = load
	}
	b.res.Clusters = append(b.res.Clusters, cluster)
	if p.Credential != nil {
		b.res.Secrets = append(b.res.Secrets, credentialSecret(p))
	}
	return nil
}

// byEDS delivers the endpoints under a name that changes with the cluster. Envoy
// makes a changed cluster anew and waits for its endpoints, and while it waits it
// takes no other cluster; but endpoints that did not change are not sent again
// under a name that it already has. A change of the endpoints alone keeps the name.
func byEDS(c *clusterv3.Cluster, load *endpointv3.ClusterLoadAssignment) error {
	revision, err := Hash([]*clusterv3.Cluster{c})
	if err != nil {
		return err
	}
	load.ClusterName = c.Name + "@" + revision
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: load.ClusterName}
	return nil
}

// byName resolves names. With both families each address would be an endpoint,
// and half of them out of reach where IPv6 leads nowhere.
func byName() *clusterv3.Cluster_ClusterType {
	return &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
		Name: "envoy.clusters.dns",
		TypedConfig: pack(&dnsv3.DnsCluster{
			DnsLookupFamily: dnscommonv3.DnsLookupFamily_V4_PREFERRED,
			RespectDnsTtl:   true,
		}),
	}}
}

func (b *builder) cluster(p *plan.Pool) (*clusterv3.Cluster, error) {
	socket, err := b.upstreamTLS(p)
	if err != nil {
		return nil, err
	}
	metadata, err := targetMetadata(p)
	if err != nil {
		return nil, err
	}
	c := &clusterv3.Cluster{
		Name:                          ai.ClusterName(p.Name),
		AltStatName:                   strings.ReplaceAll(ai.ClusterName(p.Name), ".", "_"), // a dot ends a part of a statistic's name
		ConnectTimeout:                durationpb.New(p.ConnectTimeout),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(connectionBuffer),
		CircuitBreakers:               openBreakers(),
		OutlierDetection:              outlierDetection(p),
		HealthChecks:                  healthCheck(p),
		IgnoreHealthOnHostRemoval:     p.HealthCheck.Path != "", // what the plan no longer names gets nothing more
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			HealthyPanicThreshold: percent(0), // a sick pool is left to the next target
			// Envoy would let up to a second pass before it goes by what changed.
			UpdateMergeWindow: durationpb.New(0),
		},
		LbPolicy:                      clusterv3.Cluster_LEAST_REQUEST,
		TransportSocket:               socket,
		Metadata:                      metadata,
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpOptions: pack(b.upstreamOptions(p))},
	}
	if slow := slowStart(p); slow != nil {
		c.LbConfig = slow
	}
	if p.PrefixLoad > 0 {
		c.LbPolicy = clusterv3.Cluster_MAGLEV
		c.CommonLbConfig.ConsistentHashingLbConfig = &clusterv3.Cluster_CommonLbConfig_ConsistentHashingLbConfig{
			HashBalanceFactor: wrapperspb.UInt32(p.PrefixLoad),
		}
	}
	return c, nil
}

func (b *builder) upstreamOptions(p *plan.Pool) *upstreamv3.HttpProtocolOptions {
	o := &upstreamv3.HttpProtocolOptions{HttpFilters: b.attemptFilters(p), OutlierDetection: countedErrors(p)}
	idle := idlePlain
	if p.Scheme == "https" {
		idle = idleTLS
		o.UpstreamProtocolOptions = &upstreamv3.HttpProtocolOptions_AutoConfig{
			AutoConfig: &upstreamv3.HttpProtocolOptions_AutoHttpConfig{
				HttpProtocolOptions:  &corev3.Http1ProtocolOptions{},
				Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: keepalive()},
			},
		}
	} else {
		o.UpstreamProtocolOptions = &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
					HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
				},
			},
		}
	}
	o.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(idle)}
	return o
}

// targetMetadata is how the shared adapter learns which target it works for.
func targetMetadata(p *plan.Pool) (*corev3.Metadata, error) {
	params, err := json.Marshal(ai.AdapterTarget{
		Pool: p.Name, Profile: p.Adapter.Name, TellsLimits: p.Adapter.Provider, Model: p.Model, BasePath: p.BasePath, Host: authority(p),
		StreamIdleMillis: p.StreamIdle.Milliseconds(),
	})
	if err != nil {
		return nil, fmt.Errorf("target parameters: %w", err)
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		ai.TargetMetadata: {Fields: map[string]*structpb.Value{ai.TargetKey: structpb.NewStringValue(string(params))}},
	}}, nil
}

// authority is what the backend sees as Host: the port only when it is not the
// scheme's own.
func authority(p *plan.Pool) string {
	e := p.Endpoints[0]
	host := e.Host
	if p.ServerName != "" {
		host = p.ServerName
	}
	if (p.Scheme == "http" && e.Port == 80) || (p.Scheme == "https" && e.Port == 443) {
		if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
			return "[" + host + "]"
		}
		return host
	}
	return net.JoinHostPort(host, strconv.FormatUint(uint64(e.Port), 10))
}

// static tells that all endpoints are IP addresses, which EDS delivers.
func static(p *plan.Pool) bool {
	return !slices.ContainsFunc(p.Endpoints, func(e plan.Endpoint) bool {
		_, err := netip.ParseAddr(e.Host)
		return err != nil
	})
}

// loadAssignment lists a pool's endpoints, and behind them, at a lower priority,
// some that always refuse. Envoy answers 503 itself, without a retry, when it
// finds no host for a first attempt (a name that does not resolve, every
// endpoint ejected or ill); a refused connection is retried, at the next target.
func loadAssignment(p *plan.Pool) *endpointv3.ClusterLoadAssignment {
	main := &endpointv3.LocalityLbEndpoints{}
	for _, e := range p.Endpoints {
		main.LbEndpoints = append(main.LbEndpoints, lbEndpoint(e))
	}
	refuse := &endpointv3.LocalityLbEndpoints{Priority: 1}
	for i := range refusing(p) {
		e := lbEndpoint(plan.Endpoint{Host: fmt.Sprintf(refusingHosts, i/200, i%200+1), Port: refusingPort, Weight: 1})
		if p.HealthCheck.Path != "" { // they are always there to refuse
			e.GetEndpoint().HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{DisableActiveHealthCheck: true}
		}
		refuse.LbEndpoints = append(refuse.LbEndpoints, e)
	}
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: ai.ClusterName(p.Name),
		// One healthy endpoint takes all the load: nothing spills to the refusing
		// ones, as it would with Envoy's factor of 1.4.
		Policy:    &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(1 << 20)},
		Endpoints: []*endpointv3.LocalityLbEndpoints{main, refuse},
	}
}

// refusing is how many endpoints that refuse stand behind the pool's own: more than
// Envoy may eject, also where the percentage is rounded up. When the pool's own are ill and not ejected, it ejects the refusing
// ones in their place, since they refuse.
func refusing(p *plan.Pool) int {
	if ejects(p) {
		return len(p.Endpoints) + 1
	}
	return 1
}

// refusingHosts and refusingPort: nothing listens on loopback's port 1 (tcpmux),
// and what is there would have to be root's.
const (
	refusingHosts = "127.0.%d.%d"
	refusingPort  = 1
)

func lbEndpoint(e plan.Endpoint) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: socketAddress(e.Host, e.Port), Hostname: e.Host,
		}},
		LoadBalancingWeight: wrapperspb.UInt32(max(e.Weight, 1)),
	}
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func openBreakers() *clusterv3.CircuitBreakers {
	n := wrapperspb.UInt32(noBreaker)
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: n, MaxPendingRequests: n, MaxRequests: n, MaxRetries: n,
	}}}
}

func keepalive() *corev3.KeepaliveSettings {
	return &corev3.KeepaliveSettings{
		Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(10 * time.Second),
	}
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}
