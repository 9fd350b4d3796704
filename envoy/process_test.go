package envoy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/xds"
	"github.com/weirproxy/weir/xds/build"
)

// starter makes the test binary start an Envoy and wait to be killed, as a weir
// that dies: the directory is its value.
const starter = "WEIR_TEST_START_ENVOY"

func TestMain(m *testing.M) {
	dir := os.Getenv(starter)
	if dir == "" {
		os.Exit(m.Run())
	}
	binary, err := envoy.Locate(context.Background(), "")
	if err == nil {
		var p *envoy.Process
		if p, err = envoy.Start(context.Background(), options(dir, binary)); err == nil {
			if err = p.Ready(context.Background()); err == nil {
				fmt.Println("ready", p.PID())
				select {}
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func options(dir string, binary envoy.Binary) envoy.Options {
	return envoy.Options{
		Binary: binary, Dir: filepath.Join(dir, "envoy"), RuntimeDir: dir, Concurrency: 1, DrainTime: 20 * time.Second,
		Bootstrap: envoy.BootstrapOptions{NodeID: "test", XDS: build.Service{Address: "unix:" + filepath.Join(dir, "xds.sock")}},
	}
}

// stage is an xDS server with one listener that leads to a backend that streams
// until it is told to stop.
type stage struct {
	dir     string
	address string
	stop    chan struct{}
}

func startStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{dir: shortDir(t), stop: make(chan struct{})}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			fmt.Fprintln(w, "x")
			w.(http.Flusher).Flush()
			select {
			case <-s.stop:
				return
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}))
	t.Cleanup(func() {
		backend.CloseClientConnections()
		backend.Close()
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	l.Close()
	server := xds.NewServer(xds.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if _, err := server.Publish(forward(t, s.address, backend.Listener.Addr().String())); err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	server.Register(t.Context(), g)
	socket, err := net.Listen("unix", filepath.Join(s.dir, "xds.sock"))
	if err != nil {
		t.Fatal(err)
	}
	go g.Serve(socket)
	t.Cleanup(g.Stop)
	return s
}

// forward is one listener and one cluster.
func forward(t *testing.T, listen, backend string) *build.Resources {
	t.Helper()
	address := func(a string) string {
		host, port, _ := strings.Cut(a, ":")
		return fmt.Sprintf(`{"socket_address":{"address":%q,"port_value":%s}}`, host, port)
	}
	const hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	router := "type.googleapis.com/" + string((&routerv3.Router{}).ProtoReflect().Descriptor().FullName())
	r := &build.Resources{Listeners: []*listenerv3.Listener{{}}, Clusters: []*clusterv3.Cluster{{}}}
	decode(t, r.Listeners[0], `{"name":"l","address":`+address(listen)+`,"filter_chains":[{"filters":[{"name":"h","typed_config":{"@type":"`+hcm+`",
		"stat_prefix":"l","http_filters":[{"name":"r","typed_config":{"@type":"`+router+`"}}],"route_config":{"virtual_hosts":[{"name":"v","domains":["*"],
		"routes":[{"match":{"prefix":"/"},"route":{"cluster":"b","timeout":"0s"}}]}]}}}]}]}`)
	decode(t, r.Clusters[0], `{"name":"b","type":"STATIC","load_assignment":{"cluster_name":"b","endpoints":[{"lb_endpoints":[{"endpoint":{"address":`+address(backend)+`}}]}]}}`)
	return r
}

func decode(t *testing.T, m proto.Message, text string) {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, o envoy.Options) *envoy.Process {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	p, err := envoy.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// stream opens a response and returns a function that reads it to its end.
func (s *stage) stream(t *testing.T) (wait func() error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	resp, err := client.Get("http://" + s.address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return func() error {
		defer resp.Body.Close()
		_, err := io.Copy(io.Discard, resp.Body)
		return err
	}
}

// TestStopDrains: no new connections, the open stream ends by itself, then
// Envoy is gone.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	s := startStage(t)
	p := start(t, options(s.dir, locate(t)))
	if got, err := p.Admin.Listeners(t.Context()); err != nil || got["l"] != s.address {
		t.Errorf("listeners %v %v", got, err)
	}
	if err := p.Admin.ReopenLogs(t.Context()); err != nil {
		t.Error(err)
	}
	wait := s.stream(t)
	if n, err := p.Admin.ActiveRequests(t.Context()); err != nil || n != 1 {
		t.Errorf("%d active requests, %v", n, err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- p.Stop(context.Background()) }()
	until(t, func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-stopped:
		t.Fatalf("stopped while a stream was open: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	close(s.stop)
	if err := wait(); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	select {
	case <-p.Done():
	default:
		t.Error("still there")
	}
}

// TestStopIsBounded: what does not end is cut, and said.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	s := startStage(t)
	p := start(t, options(s.dir, locate(t)))
	wait := s.stream(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx); err == nil || !strings.Contains(err.Error(), "1 requests were cut") {
		t.Errorf("%v", err)
	}
	if err := wait(); err == nil {
		t.Error("the stream was not cut")
	}
}

// TestSurvivesAKilledWeir: the Envoy of a process that is killed goes on, its
// streams too, and the next Start takes it over.
func TestSurvivesAKilledWeir(t *testing.T) {
	t.Parallel()
	s := startStage(t)
	weir := exec.Command(os.Args[0])
	weir.Env = append(os.Environ(), starter+"="+s.dir)
	weir.Stderr = os.Stderr
	out, err := weir.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := weir.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "ready %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	wait := s.stream(t)
	if err := weir.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	weir.Wait()

	o := options(s.dir, locate(t))
	o.Listen = []string{s.address} // its own Envoy has it: no stranger
	p := start(t, o)
	if !p.Adopted || p.PID() != pid {
		t.Errorf("adopted %t, pid %d, want %d", p.Adopted, p.PID(), pid)
	}
	close(s.stop)
	if err := wait(); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); err == nil {
		if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); !strings.Contains(string(stat), ") Z ") {
			t.Error("still there")
		}
	}
	fresh := start(t, options(s.dir, locate(t)))
	if fresh.Adopted {
		t.Error("took over an Envoy that had ended")
	}
}

// TestReplaces: an Envoy that was started in another way is replaced without a
// cut: the new one serves first, then the old one's streams end.
func TestReplaces(t *testing.T) {
	t.Parallel()
	s := startStage(t)
	old := start(t, options(s.dir, locate(t)))
	wait := s.stream(t)
	o := options(s.dir, locate(t))
	o.Concurrency = 2
	next := start(t, o)
	if next.Adopted || next.PID() == old.PID() || next.AdminAddress == old.AdminAddress {
		t.Errorf("%d at %s after %d at %s", next.PID(), next.AdminAddress, old.PID(), old.AdminAddress)
	}
	s.stream(t) // served all the time
	select {
	case <-old.Done():
		t.Error("the old one is gone while its stream is open")
	case <-time.After(200 * time.Millisecond):
	}
	close(s.stop)
	if err := wait(); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
	select {
	case <-old.Done():
	case <-time.After(10 * time.Second):
		t.Error("the old one is still there")
	}
}

// TestStrangersPort: Envoys share ports silently, so a port in use is refused
// before.
func TestStrangersPort(t *testing.T) {
	t.Parallel()
	s := startStage(t)
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := options(s.dir, locate(t))
	o.Listen = []string{s.address}
	if p, err := envoy.Start(t.Context(), o); err == nil {
		p.Kill()
		t.Error("started")
	} else if !strings.Contains(err.Error(), s.address) {
		t.Error(err)
	}
}

// TestDiesAtOnce: the reason is in the error.
func TestDiesAtOnce(t *testing.T) {
	t.Parallel()
	o := options(shortDir(t), locate(t))
	o.LogLevel = "no-such-level"
	p, err := envoy.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "its log ends") {
		t.Errorf("%v", err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come about")
		}
	}
}
