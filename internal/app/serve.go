package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/extproc"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/wasm"
	"github.com/weirproxy/weir/xds"
	"github.com/weirproxy/weir/xds/build"
)

// Serve runs the roles for an Envoy that somebody else runs, until ctx ends. The
// options must have passed CheckServe.
func Serve(ctx context.Context, o Options) error {
	a, p, err := newApp(o)
	if err != nil {
		return err
	}
	defer a.stop()
	s := &serve{app: a}
	if err := s.start(ctx, p); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			a.log.Info("stopping: open decisions finish")
			return nil
		case err := <-a.failed:
			return err
		case <-a.o.Upgrade:
			stopped, err := a.upgrade(ctx)
			if stopped {
				return err
			}
			a.log.Error("not upgraded; what runs goes on", "err", err)
		}
	}
}

// CheckServe tells what contradicts itself in the options of Serve, or would
// work and not be what was meant. It creates nothing.
func (o *Options) CheckServe() error {
	if o.has(RoleExtProc) != o.has(RoleUsage) {
		return errors.New("--roles: extproc and usage need each other in one process: the one reserves what the other settles")
	}
	set := 0
	for _, f := range []string{o.TLS.CertFile, o.TLS.KeyFile, o.TLS.ClientCAFile} {
		if f != "" {
			set++
		}
	}
	if set != 0 && set != 3 {
		return errors.New("--tls-cert, --tls-key and --tls-client-ca belong together")
	}
	if err := o.checkListen(); err != nil {
		return err
	}
	if !o.has(RoleXDS) {
		if o.EnvoyTLS != nil || o.AdvertiseAddress != "" || o.WasmPath != "" {
			return errors.New("--advertise, --wasm-path and --envoy-tls-… are what the xds role tells Envoy; --roles does not name it")
		}
		return nil
	}
	if o.WasmPath != "" && !filepath.IsAbs(o.WasmPath) {
		return fmt.Errorf("--wasm-path %s: want an absolute path on Envoy's machine", o.WasmPath)
	}
	return o.checkAdvertise()
}

// checkListen keeps everything in the clear on this machine.
func (o *Options) checkListen() error {
	if path, ok := strings.CutPrefix(o.GRPCAddress, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("--listen %s: want an absolute path", o.GRPCAddress)
		}
		return nil
	}
	host, _, err := net.SplitHostPort(o.GRPCAddress)
	if err != nil {
		return fmt.Errorf("--listen %s: want host:port or unix:/path", o.GRPCAddress)
	}
	if ip := net.ParseIP(host); o.TLS.CertFile == "" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--listen %s: beyond loopback mutual TLS is required: --tls-cert, --tls-key and --tls-client-ca", o.GRPCAddress)
	}
	return nil
}

// checkAdvertise checks what Envoy will be told about the external processor
// and the usage receiver.
func (o *Options) checkAdvertise() error {
	if o.AdvertiseAddress != "" {
		service := o.service(o.AdvertiseAddress)
		if _, err := service.Cluster(build.ExtProcCluster); err != nil {
			return fmt.Errorf("--advertise: %w (--envoy-tls-… name its files)", err)
		}
		return nil
	}
	if !o.has(RoleExtProc) {
		return errors.New("--roles xds without extproc: --advertise must say where the external processor and the usage receiver are")
	}
	if (o.TLS.CertFile == "") != (o.EnvoyTLS == nil) {
		return errors.New("--tls-… are weir's side and --envoy-tls-… Envoy's side of the same connection: both or neither")
	}
	if host, _, err := net.SplitHostPort(o.GRPCAddress); err == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			return fmt.Errorf("--listen %s is every address: --advertise must say which one Envoy is to use", o.GRPCAddress)
		}
	}
	return nil
}

// service is where Envoy finds weir: at one address, or at several, separated by commas.
func (o *Options) service(addresses string) build.Service {
	list := strings.Split(addresses, ",")
	for i, a := range list {
		list[i] = strings.TrimSpace(a)
	}
	return build.Service{Address: list[0], Others: list[1:], TLS: o.EnvoyTLS}
}

type serve struct{ *app }

func (s *serve) start(ctx context.Context, p *plan.Plan) error {
	if len(p.Simulators) > 0 {
		s.log.Warn("the configuration names simulators: only weir up starts them")
	}
	open := &openStreams{}
	options, err := s.serverOptions(open)
	if err != nil {
		return err
	}
	g := grpc.NewServer(options...)
	live := health.NewServer()
	healthv1.RegisterHealthServer(g, live)
	if s.o.has(RoleExtProc) {
		if err := s.startControl(ctx, p); err != nil {
			return err
		}
	}
	if s.o.has(RoleUsage) {
		if err := s.startUsage(ctx, p, nil); err != nil {
			return err
		}
		s.usage.RegisterALS(g)
	}
	if s.o.has(RoleExtProc) {
		s.newExtProc().Register(g)
	}
	// Bound before anything is published: the port may be a free one.
	l, err := s.listen()
	if err != nil {
		return err
	}
	s.onStop(func() { _ = l.Close() })
	if s.o.has(RoleXDS) {
		if err := s.prepareXDS(ctx, g, l.Addr()); err != nil {
			return err
		}
	}
	s.apart[policiesCheck] = s.dog.check
	if err := s.startAdmin(p.Admin, nil); err != nil {
		return err
	}
	err = s.apply(ctx, p)
	s.started(p, err)
	if err != nil {
		return err
	}
	if err := s.serveControl(p); err != nil {
		return err
	}
	for _, r := range s.o.Roles {
		live.SetServingStatus(string(r), healthv1.HealthCheckResponse_SERVING)
	}
	if s.shared != nil {
		s.shared.OnShut(func(shut bool) { // the other replicas can decide
			status := healthv1.HealthCheckResponse_SERVING
			if shut {
				status = healthv1.HealthCheckResponse_NOT_SERVING
			}
			live.SetServingStatus(string(RoleExtProc), status)
		})
	}
	s.onStop(func() { open.end(g, stopBound) })
	go func() {
		if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			s.failed <- fmt.Errorf("gRPC: %w", err)
		}
	}()
	s.onStop(s.drain)
	s.onStop(live.Shutdown)
	s.background("configuration watch", s.watch)
	s.sockets.closeUntaken()
	s.startDoctor()
	runtime, err := envoy.RuntimeDir(s.dir)
	if err != nil {
		return err
	}
	if err := s.startOperator(runtime); err != nil {
		return err
	}
	return s.announce(l.Addr())
}

// drainFor is how long a replica that stops goes on answering: Envoys ask each second
// whether it is well, and need an answer.
const drainFor = 2500 * time.Millisecond

// drain lets Envoys go to the other replicas, where there are some: it goes on answering
// and says that it will not for long.
func (s *serve) drain() {
	if s.shared == nil || s.upgrading {
		return
	}
	s.draining.Store(true)
	s.log.Info("draining: Envoys go to the other replicas", "for", drainFor)
	time.Sleep(drainFor)
}

// announce is one line of JSON on stdout.
func (s *serve) announce(addr net.Addr) error {
	line, err := json.Marshal(struct {
		Ready       bool   `json:"ready"`
		GRPCAddress string `json:"grpc_address"`
		AdminURL    string `json:"admin_url"`
		Roles       []Role `json:"roles"`
	}{true, target(addr), s.admin.url(), s.o.Roles})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.o.Stdout, "%s\n", line)
	return err
}

// target is an address in the form of --listen.
func target(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return a.String()
}

// listen binds the gRPC address. Unlike the sockets in the data directory, a
// socket that the operator named may be in use by another weir.
func (s *serve) listen() (net.Listener, error) {
	if path, ok := strings.CutPrefix(s.o.GRPCAddress, "unix:"); ok && !s.sockets.has("grpc", s.o.GRPCAddress) {
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil { //nolint:noctx // bounded already
			_ = c.Close()
			return nil, fmt.Errorf("--listen: %s is in use", s.o.GRPCAddress)
		}
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("--listen: %s is there and is no socket", path)
		}
	}
	l, err := s.sockets.listen("grpc", s.o.GRPCAddress)
	if err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	return l, nil
}

// stopBound is how long the end of weir waits for decisions under way, as of
// requests whose body is still coming.
const stopBound = 5 * time.Second

// lastEntries is how long weir takes access log entries after the last decision:
// Envoy sends them every 100 ms.
const lastEntries = 200 * time.Millisecond

// openStreams counts the decisions under way. The other services' streams last
// as long as Envoy does and must not hold weir's end up, for which every new
// request is refused.
type openStreams struct{ decisions atomic.Int64 }

func (o *openStreams) intercept(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if strings.HasPrefix(info.FullMethod, "/"+extproc.ServiceName+"/") {
		o.decisions.Add(1)
		defer o.decisions.Add(-1)
	}
	return handle(srv, stream)
}

// end stops the server once the decisions under way are made, and at the bound.
func (o *openStreams) end(g *grpc.Server, bound time.Duration) {
	done := make(chan struct{})
	go func() { g.GracefulStop(); close(done) }()
	deadline := time.Now().Add(bound)
	for o.decisions.Load() > 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	select {
	case <-done:
	case <-time.After(lastEntries):
		g.Stop()
		<-done
	}
}

// prepareXDS says in the resources where this process is, as Envoy sees it.
func (s *serve) prepareXDS(ctx context.Context, g *grpc.Server, own net.Addr) error {
	address := s.o.AdvertiseAddress
	if address == "" {
		address = target(own)
	}
	service := s.o.service(address)
	filter := s.o.WasmPath
	if filter == "" {
		var err error
		if filter, err = s.writeFilter(); err != nil {
			return err
		}
	}
	s.options = build.Options{
		ExtProc: service, AccessLog: service, WasmFile: filter, WasmEnvironment: wasm.Environment(), SystemCAFile: envoy.SystemCAFile(),
	}
	s.registerXDS(ctx, g)
	return nil
}

// serverOptions serve all roles on one address: those of ext_proc, which moves
// the bulk, and mutual TLS where it is asked for.
func (s *serve) serverOptions(open *openStreams) ([]grpc.ServerOption, error) {
	options := append(extproc.ServerOptions(), xds.GRPCOptions()...)
	options = append(options, grpc.ChainStreamInterceptor(open.intercept))
	if s.o.TLS.CertFile == "" {
		return options, nil
	}
	certificate, err := tls.LoadX509KeyPair(s.o.TLS.CertFile, s.o.TLS.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert: %w", err)
	}
	pem, err := os.ReadFile(s.o.TLS.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-client-ca: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--tls-client-ca: %s holds no certificate", filepath.Base(s.o.TLS.ClientCAFile))
	}
	return append(options, grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
		ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
	}))), nil
}
