package xds_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds"
	"github.com/weirproxy/weir/xds/build"
)

// certificate is self-signed for names and addresses; it is its own authority.
func certificate(t *testing.T, names ...string) (chain, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func write(t *testing.T, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pair(t *testing.T, chain, key []byte) tls.Certificate {
	t.Helper()
	p, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestUpstreamTLS: the backend's certificate is verified, authority and name.
func TestUpstreamTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	chain, key := certificate(t, "localhost", "127.0.0.1", "model.internal")
	other, _ := certificate(t, "localhost")
	ca, wrongCA := write(t, dir, "ca.pem", chain), write(t, dir, "other.pem", other)
	asked := make(chan string, 10)
	b := httptest.NewUnstartedServer(answering(200, "over TLS"))
	b.TLS = &tls.Config{
		Certificates: []tls.Certificate{pair(t, chain, key)}, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) { asked <- h.ServerName; return nil, nil },
	}
	b.StartTLS()
	t.Cleanup(b.Close)
	endpoint := (&backend{Server: b}).endpoint(t)

	secure := func(name, host, ca, serverName string) *plan.Pool {
		e := endpoint
		if host != "" {
			e.Host = host
		}
		p := pool(name, e)
		p.Scheme, p.CAFile, p.ServerName = "https", ca, serverName
		return p
	}
	r := startRig(t, planOf(
		secure("address", "", ca, ""), secure("name", "localhost", ca, ""), secure("server-name", "", ca, "model.internal"),
		secure("wrong-name", "", ca, "evil.internal"), secure("wrong-ca", "", wrongCA, ""), secure("system", "localhost", "", ""),
	), false)
	for _, c := range []struct {
		pool, sni string
		status    int
	}{
		{"address", "", 200}, {"name", "localhost", 200}, {"server-name", "model.internal", 200},
		{"wrong-name", "evil.internal", 503}, {"wrong-ca", "", 503}, {"system", "localhost", 503},
	} {
		t.Run(c.pool, func(t *testing.T) {
			r.ext.to(c.pool)
			if a := r.post("{}"); a.status != c.status {
				t.Errorf("%+v", a)
			}
			select {
			case sni := <-asked:
				if sni != c.sni {
					t.Errorf("asked for %q, want %q", sni, c.sni)
				}
			default:
				t.Error("no handshake")
			}
		})
	}
}

// TestListenerCertificateRotates by SDS: a new connection sees the new one, an
// open stream goes on, no listener is touched.
func TestListenerCertificateRotates(t *testing.T) {
	t.Parallel()
	ok := startBackend(t, answering(200, "ok"))
	with := func(name string) *plan.Plan {
		p := planOf(pool("a", ok.endpoint(t)))
		chain, key := certificate(t, name)
		p.Listeners[0].TLS = &plan.ServerTLS{CertificateChain: chain, PrivateKey: key}
		return p
	}
	r := startRig(t, with("first.test"), false)
	r.ext.to("a")
	seen := func(proto string) string {
		t.Helper()
		c, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "http://"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := c.ConnectionState().NegotiatedProtocol; got != proto {
			t.Errorf("protocol %q, want %q", got, proto)
		}
		return c.ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	if got := seen("h2"); got != "first.test" {
		t.Error(got)
	}
	r.accepted(r.publish(with("second.test")))
	wait(t, func() bool { return seen("http/1.1") == "second.test" })
	r.untouched()
}

// TestEndpointsOfAPool: one that is down is tried once, then the other; nothing
// spills to the endpoint that always refuses.
func TestEndpointsOfAPool(t *testing.T) {
	t.Parallel()
	ok := startBackend(t, answering(200, "ok"))
	p := pool("two", ok.endpoint(t))
	p.Ejection = plan.Ejection{After: 3, For: 10 * time.Second, AtMost: time.Minute}
	p.Endpoints = append(p.Endpoints, refusedEndpoint(t))
	r := startRig(t, planOf(p), false)
	r.ext.to("two", "two")
	for range 40 {
		if a := r.post("{}"); a.status != 200 {
			t.Fatalf("%+v", a)
		}
	}
	stats, err := r.proc.Admin.Stats(t.Context(), `^cluster\.pool/two\.(upstream_cx_connect_fail|outlier_detection\.ejections_active)$`)
	if err != nil || stats["cluster.pool/two.upstream_cx_connect_fail"] > 6 || stats["cluster.pool/two.outlier_detection.ejections_active"] != 1 {
		t.Errorf("%v %v", stats, err)
	}
	r.ext.to("two")
	for range 20 {
		if a := r.post("{}"); a.status != 200 {
			t.Fatalf("after the ejection: %+v", a)
		}
	}
}

// entries receives the gRPC access log.
type entries struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	got chan *datav3.HTTPAccessLogEntry
}

func (e *entries) StreamAccessLogs(st accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := st.Recv()
		if err != nil {
			return err
		}
		for _, entry := range m.GetHttpLogs().GetLogEntry() {
			e.got <- entry
		}
	}
}

// TestAnEnvoyElsewhere: xDS, ext_proc and the access log over TCP with mutual
// TLS, as for an Envoy that the operator runs.
func TestAnEnvoyElsewhere(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "rig")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	chain, key := certificate(t, "weir.internal")
	files := &build.ClientTLS{
		CertificateFile: write(t, dir, "c.pem", chain), PrivateKeyFile: write(t, dir, "k.pem", key),
		CAFile: filepath.Join(dir, "c.pem"), ServerName: "weir.internal",
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(chain)
	g := grpc.NewServer(append(xds.GRPCOptions(), grpc.MaxRecvMsgSize(64<<20), grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair(t, chain, key)}, ClientCAs: authorities, ClientAuth: tls.RequireAndVerifyClientCert,
	})))...)
	server, ext, log := xds.NewServer(xds.Options{}), &scripted{}, &entries{got: make(chan *datav3.HTTPAccessLogEntry, 10)}
	server.Register(t.Context(), g)
	extprocv3.RegisterExternalProcessorServer(g, ext)
	accesslogv3.RegisterAccessLogServiceServer(g, log)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go g.Serve(l)
	t.Cleanup(g.Stop)
	service := build.Service{Address: l.Addr().String(), TLS: files}

	ok := startBackend(t, answering(200, "ok"))
	res, err := build.Build(planOf(pool("a", ok.endpoint(t))), build.Options{
		ExtProc: service, AccessLog: service, WasmFile: "/none",
	})
	if err != nil {
		t.Fatal(err)
	}
	withoutAdapter(t, res)
	if _, err := server.Publish(res); err != nil {
		t.Fatal(err)
	}
	binary, err := envoy.Locate(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	proc, err := envoy.Start(t.Context(), envoy.Options{
		Binary: binary, Dir: dir, RuntimeDir: dir, Concurrency: 1,
		Bootstrap: envoy.BootstrapOptions{NodeID: "elsewhere", XDS: service},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proc.Kill)
	if err := proc.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	listeners, err := proc.Admin.Listeners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ext.to("a")
	resp, err := http.Post("http://"+listeners["public"]+"/v1/chat/completions", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(b) != "ok" {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
	entry := <-log.got
	id := entry.GetCommonProperties().GetMetadata().GetFilterMetadata()["weir"].GetFields()["id"].GetStringValue()
	if id != "d1" || entry.GetResponse().GetResponseHeaders()["x-weir-decision"] != "d1" ||
		entry.GetCommonProperties().GetUpstreamCluster() != "pool/a" {
		t.Errorf("%v", entry)
	}
}
