package xds_test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds"
	"github.com/weirproxy/weir/xds/build"
)

var scaleOptions = build.Options{ExtProc: build.Service{Address: "unix:/e"}, AccessLogFile: "/l", WasmFile: "/w"}

// BenchmarkRoutes compiles a file of so many models, of one rule and one fallback
// each, and builds what Envoy is told.
func BenchmarkRoutes(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		p, err := config.Parse("weir.yaml", []byte(manyModels(n)), config.Options{DataDir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("compile/models=%d", n), func(b *testing.B) { benchmarkCompile(b, manyModels(n)) })
		b.Run(fmt.Sprintf("build/models=%d", n), func(b *testing.B) { benchmarkBuild(b, p) })
	}
}

func benchmarkCompile(b *testing.B, text string) {
	o := config.Options{DataDir: b.TempDir()}
	for b.Loop() {
		if _, err := config.Parse("weir.yaml", []byte(text), o); err != nil {
			b.Fatal(err)
		}
	}
}

func manyModels(n int) string {
	var s strings.Builder
	s.WriteString("listeners: [{name: main, address: \"127.0.0.1:0\"}]\npools:\n")
	for i := range 10 {
		fmt.Fprintf(&s, "  - {name: pool-%d, adapter: vllm, placement: private, model: m, endpoints: [{url: \"http://10.0.0.%d:8000\"}]}\n", i, i+1)
	}
	s.WriteString("models:\n")
	for i := range n {
		fmt.Fprintf(&s, "  - {name: model-%d, rules: [{when: \"stream\", targets: [{pool: pool-%d}, {pool: pool-%d}]}, {when: \"true\", targets: [{pool: pool-%d}]}]}\n", i, i%10, (i+1)%10, (i+2)%10)
	}
	return s.String()
}

// manyPoolsFile is a file of n pools of 10 endpoints each, and a model for each.
func manyPoolsFile(n int) string {
	var s strings.Builder
	s.WriteString("listeners: [{name: main, address: \"127.0.0.1:0\"}]\npools:\n")
	for i := range n {
		fmt.Fprintf(&s, "  - {name: pool-%d, adapter: vllm, placement: private, model: m, endpoints: [", i)
		for e := range 10 {
			fmt.Fprintf(&s, "{url: \"http://10.%d.%d.%d:8000\"}, ", i>>8, i&255, e+1)
		}
		s.WriteString("]}\n")
	}
	s.WriteString("models:\n")
	for i := range n {
		fmt.Fprintf(&s, "  - {name: model-%d, targets: [{pool: pool-%d}, {pool: pool-%d}]}\n", i, i, (i+1)%n)
	}
	return s.String()
}

// manyPools is a plan of n pools of 10 endpoints each.
func manyPools(n int) *plan.Plan {
	p := planOf()
	for i := range n {
		one := pool(fmt.Sprintf("pool-%04d", i), plan.Endpoint{Host: "10.255.0.1", Port: 8000, Weight: 1})
		for e := range 9 {
			one.Endpoints = append(one.Endpoints, plan.Endpoint{Host: fmt.Sprintf("10.%d.%d.%d", i>>8, i&255, e+1), Port: 8000, Weight: 1})
		}
		p.Pools = append(p.Pools, one)
	}
	return p
}

func benchmarkBuild(b *testing.B, p *plan.Plan) {
	var size int
	for b.Loop() {
		r, err := build.Build(p, scaleOptions)
		if err != nil {
			b.Fatal(err)
		}
		size = 0
		for _, c := range r.Clusters {
			size += proto.Size(c)
		}
		for _, e := range r.Endpoints {
			size += proto.Size(e)
		}
		for _, x := range r.Routes {
			size += proto.Size(x)
		}
		for _, l := range r.Listeners {
			size += proto.Size(l)
		}
	}
	b.ReportMetric(float64(size), "bytes/snapshot")
}

// BenchmarkPools builds so many pools and publishes the change of one endpoint of
// one of them to so many Envoys by delta, until the last has accepted it.
func BenchmarkPools(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("compile/pools=%d", n), func(b *testing.B) { benchmarkCompile(b, manyPoolsFile(n)) })
		b.Run(fmt.Sprintf("build/pools=%d", n), func(b *testing.B) { benchmarkBuild(b, manyPools(n)) })
	}
	for _, c := range []struct{ pools, envoys int }{{10, 1}, {1000, 1}, {1000, 100}, {10, 1000}, {100, 1000}} {
		b.Run(fmt.Sprintf("change/pools=%d/envoys=%d", c.pools, c.envoys), func(b *testing.B) {
			benchmarkChange(b, c.pools, c.envoys)
		})
	}
}

func benchmarkChange(b *testing.B, pools, envoys int) {
	p := manyPools(pools)
	f := startFleet(b, p, envoys)
	var building, publishing time.Duration
	f.received.Store(0)
	f.resources.Store(0)
	for b.Loop() {
		changed := &p.Pools[pools/2].Endpoints[3].Port
		*changed++
		start := time.Now()
		r, err := build.Build(p, scaleOptions)
		if err != nil {
			b.Fatal(err)
		}
		built := time.Now()
		version, err := f.server.Publish(r)
		if err != nil {
			b.Fatal(err)
		}
		building, publishing = building+built.Sub(start), publishing+time.Since(built)
		if err := f.server.WaitACK(b.Context(), version); err != nil {
			b.Fatal(err)
		}
	}
	per := float64(b.N) * float64(envoys)
	b.ReportMetric(float64(building.Microseconds())/1e3/float64(b.N), "build-ms/op")
	b.ReportMetric(float64(publishing.Microseconds())/1e3/float64(b.N), "publish-ms/op")
	b.ReportMetric(float64(f.received.Load())/per, "sent-B/envoy")
	b.ReportMetric(float64(f.resources.Load())/per, "resources/envoy")
	b.ReportMetric(f.heapKB, "heap-KB/envoy")
}

// fleet is many Envoys as the server sees them, each with a connection of its own.
type fleet struct {
	server              *xds.Server
	received, resources atomic.Int64 // bytes and resources that were sent to all
	heapKB              float64      // of the whole process, the fleet's own side too
}

func startFleet(b *testing.B, p *plan.Plan, envoys int) *fleet {
	b.Helper()
	f := &fleet{server: xds.NewServer(xds.Options{Grace: time.Second})}
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	g := grpc.NewServer(xds.GRPCOptions()...)
	f.server.Register(ctx, g)
	address := filepath.Join(b.TempDir(), "s")
	l, err := net.Listen("unix", address)
	if err != nil {
		b.Fatal(err)
	}
	go g.Serve(l)
	b.Cleanup(g.Stop)
	r, err := build.Build(p, scaleOptions)
	if err != nil {
		b.Fatal(err)
	}
	version, err := f.server.Publish(r)
	if err != nil {
		b.Fatal(err)
	}
	before := heap()
	for i := range envoys {
		f.join(ctx, b, address, fmt.Sprintf("envoy-%d", i))
	}
	for len(f.server.Status().Nodes) < envoys {
		time.Sleep(10 * time.Millisecond)
	}
	if err := f.server.WaitACK(ctx, version); err != nil {
		b.Fatal(err)
	}
	f.heapKB = float64(heap()-before) / 1024 / float64(envoys)
	return f
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// join connects an Envoy that accepts everything.
func (f *fleet) join(ctx context.Context, b *testing.B, address, id string) {
	b.Helper()
	conn, err := grpc.NewClient("unix:"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		b.Fatal(err)
	}
	ask := func(r *discoveryv3.DeltaDiscoveryRequest) {
		if err := st.Send(r); err != nil && ctx.Err() == nil {
			b.Error(err)
		}
	}
	ask(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: id}, TypeUrl: resourcev3.ClusterType})
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ListenerType})
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.RouteType, ResourceNamesSubscribe: []string{build.RouteConfig}})
	go func() {
		for {
			r, err := st.Recv()
			if err != nil {
				return
			}
			f.received.Add(int64(proto.Size(r)))
			f.resources.Add(int64(len(r.GetResources())))
			if names := endpointsOf(r); len(names) > 0 {
				ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: names})
			}
			ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
		}
	}()
}

// endpointsOf are the endpoint lists that the clusters of a response ask for.
func endpointsOf(r *discoveryv3.DeltaDiscoveryResponse) (names []string) {
	for _, res := range r.GetResources() {
		var c clusterv3.Cluster
		if res.GetResource().UnmarshalTo(&c) == nil && c.GetEdsClusterConfig() != nil {
			names = append(names, cmp.Or(c.GetEdsClusterConfig().GetServiceName(), c.GetName()))
		}
	}
	return names
}
