package xds_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/wasm"
	"github.com/weirproxy/weir/xds"
	"github.com/weirproxy/weir/xds/build"
)

// BenchmarkEnvoyOfPools starts a real Envoy with so many pools of ten endpoints, each
// with the Wasm adapter, and then adds one pool after the other.
func BenchmarkEnvoyOfPools(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("pools=%d", n), func(b *testing.B) {
			p := manyPools(n)
			for _, one := range p.Pools {
				checked(one)
			}
			e := startScale(b, p)
			before := e.cpu(b)
			for i := 0; b.Loop(); i++ {
				p.Pools = append(p.Pools, checked(pool(fmt.Sprintf("added-%d", i), plan.Endpoint{Host: "127.0.0.1", Port: 9, Weight: 1})))
				e.publish(b, p)
			}
			b.ReportMetric(float64((e.cpu(b)-before).Milliseconds())/float64(b.N), "cpu-ms/added")
			b.ReportMetric(e.took.Seconds(), "start-s")
			b.ReportMetric(e.startCPU.Seconds(), "start-cpu-s")
			b.ReportMetric(e.rssMB, "rss-MB")
		})
	}
}

// checked gives a pool the health check that private pools have.
func checked(p *plan.Pool) *plan.Pool {
	p.HealthCheck = plan.HealthCheck{Path: "/health", Interval: 5 * time.Second, Timeout: 2 * time.Second, UnhealthyAfter: 2, HealthyAfter: 1}
	return p
}

// scaleEnvoy is a real Envoy that an xDS server configures; what it decides by is not
// there, since nobody sends it requests.
type scaleEnvoy struct {
	server         *xds.Server
	opts           build.Options
	proc           *envoy.Process
	took, startCPU time.Duration
	rssMB          float64 // when it was ready
}

func startScale(b *testing.B, p *plan.Plan) *scaleEnvoy {
	b.Helper()
	dir, err := os.MkdirTemp("", "scale") // b.TempDir's names are too long for sockets
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	code, err := wasm.Adapter()
	if err != nil {
		b.Fatal(err)
	}
	filter := filepath.Join(dir, "adapter.wasm")
	if err := os.WriteFile(filter, code, 0o600); err != nil {
		b.Fatal(err)
	}
	e := &scaleEnvoy{server: xds.NewServer(xds.Options{}), opts: build.Options{
		ExtProc: build.Service{Address: "unix:" + filepath.Join(dir, "ext.sock")}, AccessLogFile: filepath.Join(dir, "access.log"),
		WasmFile: filter, WasmEnvironment: wasm.Environment(), SystemCAFile: envoy.SystemCAFile(),
	}}
	g := grpc.NewServer(xds.GRPCOptions()...)
	e.server.Register(b.Context(), g)
	control := filepath.Join(dir, "xds.sock")
	serve(b, g, control)
	if _, err := e.server.Publish(e.build(b, p)); err != nil {
		b.Fatal(err)
	}
	binary, err := envoy.Locate(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	e.proc, err = envoy.Start(b.Context(), envoy.Options{
		Binary: binary, Dir: filepath.Join(dir, "envoy"), RuntimeDir: dir, Concurrency: 1, Log: slog.New(slog.DiscardHandler),
		Bootstrap: envoy.BootstrapOptions{NodeID: "scale", XDS: build.Service{Address: "unix:" + control}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.proc.Kill)
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	if err := e.proc.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	e.settle(b, ctx, e.server.Status().Version)
	e.took, e.startCPU, e.rssMB = time.Since(begun), e.cpu(b), e.rss(b)
	return e
}

func (e *scaleEnvoy) build(b *testing.B, p *plan.Plan) *build.Resources {
	b.Helper()
	r, err := build.Build(p, e.opts)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// publish returns when Envoy can use what is published.
func (e *scaleEnvoy) publish(b *testing.B, p *plan.Plan) {
	b.Helper()
	version, err := e.server.Publish(e.build(b, p))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	e.settle(b, ctx, version)
}

// settle waits until Envoy has accepted a version and no cluster is warming.
func (e *scaleEnvoy) settle(b *testing.B, ctx context.Context, version string) {
	b.Helper()
	if err := e.server.WaitACK(ctx, version); err != nil {
		b.Fatal(err)
	}
	for {
		warm, err := e.proc.Admin.Warm(ctx)
		switch {
		case err == nil && warm:
			return
		case ctx.Err() != nil:
			b.Fatal(err, ctx.Err())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// cpu is what Envoy's process has used.
func (e *scaleEnvoy) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", e.proc.PID()))
	if err != nil {
		b.Skip(err) // no Linux
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime: proc(5)
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// rss is Envoy's resident memory, in MB.
func (e *scaleEnvoy) rss(b *testing.B) float64 {
	b.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", e.proc.PID()))
	if err != nil {
		b.Skip(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages) * float64(os.Getpagesize()) / 1e6
}
