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

// Serve runs the roles for an Envoy that somebody else runs, until ctx ends.
func Serve(ctx context.Context, o Options) error {
	if err := checkServe(&o); err != nil {
		return err
	}
	a, p, err := newApp(o)
	if err != nil {
		return err
	}
	defer a.stop()
	s := &serve{app: a}
	if err := s.start(ctx, p); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		a.log.Info("stopping: open decisions finish")
		return nil
	case err := <-a.failed:
		return err
	}
}

// checkServe refuses what would work and not be what was meant.
func checkServe(o *Options) error {
	if o.has(RoleExtProc) != o.has(RoleUsage) {
		return errors.New("--roles: extproc and usage need each other in one process: the one reserves what the other settles")
	}
	if !strings.HasPrefix(o.GRPCAddress, "unix:") {
		host, _, err := net.SplitHostPort(o.GRPCAddress)
		if err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		if ip := net.ParseIP(host); o.TLS.CertFile == "" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("--listen %s: beyond loopback mutual TLS is required: --tls-cert, --tls-key and --tls-client-ca", o.GRPCAddress)
		}
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
	return nil
}

type serve struct{ *app }

func (s *serve) start(ctx context.Context, p *plan.Plan) error {
	options, err := s.serverOptions()
	if err != nil {
		return err
	}
	g := grpc.NewServer(options...)
	live := health.NewServer()
	healthv1.RegisterHealthServer(g, live)
	if s.o.has(RoleUsage) {
		if err := s.startUsage(ctx, p, nil); err != nil {
			return err
		}
		s.usage.RegisterALS(g)
		s.checks[string(RoleUsage)] = func() error { return nil }
	}
	if s.o.has(RoleExtProc) {
		s.newExtProc().Register(g)
	}
	if s.o.has(RoleXDS) {
		if err := s.prepareXDS(ctx, g); err != nil {
			return err
		}
	}
	if err := s.startAdmin(p.Admin, nil); err != nil {
		return err
	}
	if err := s.apply(ctx, p); err != nil {
		return err
	}
	addr, err := s.serveGRPC("gRPC", s.o.GRPCAddress, g)
	if err != nil {
		return err
	}
	for _, r := range s.o.Roles {
		live.SetServingStatus(string(r), healthv1.HealthCheckResponse_SERVING)
	}
	s.background("configuration watch", s.watch)
	line, err := json.Marshal(struct {
		Ready       bool   `json:"ready"`
		GRPCAddress string `json:"grpc_address"`
		AdminURL    string `json:"admin_url"`
		Roles       []Role `json:"roles"`
	}{true, addr.String(), s.admin.url(), s.o.Roles})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.o.Stdout, "%s\n", line)
	return err
}

// prepareXDS says in the resources where this process is, as Envoy sees it.
func (s *serve) prepareXDS(ctx context.Context, g *grpc.Server) error {
	address := s.o.AdvertiseAddress
	if address == "" {
		address = s.o.GRPCAddress
	}
	service := build.Service{Address: address, TLS: s.o.EnvoyTLS}
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
	s.xds = xds.NewServer(xds.Options{Log: s.log})
	s.checks[string(RoleXDS)] = func() error {
		if s.xds.Status().Version == "" {
			return errors.New("nothing is published yet")
		}
		return nil
	}
	s.xds.Register(ctx, g)
	return nil
}

// serverOptions serve all roles on one address: those of ext_proc, which moves
// the bulk, and mutual TLS where it is asked for.
func (s *serve) serverOptions() ([]grpc.ServerOption, error) {
	options := append(extproc.ServerOptions(), xds.GRPCOptions()...)
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
