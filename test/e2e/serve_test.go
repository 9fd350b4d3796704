package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weirproxy/weir/envoy"
)

// operated is `weir serve`, and an Envoy that the test runs as an operator would.
type operated struct {
	*world
	flags     []string // of weir serve, beside --config and --data
	ready     readyLine
	bootstrap []string // flags of weir envoy bootstrap, beside --xds
	pid       int      // of Envoy
	envoyLog  *tail
}

// newServe writes the configuration and starts weir serve; Envoy is started by
// startEnvoy.
func newServe(t *testing.T, flags ...string) *operated {
	t.Helper()
	listener := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	a, b, yaml := newBackends(t, "address: 127.0.0.1:0", "address: "+listener, "settle_deadline: 5s", "settle_deadline: 3s")
	g := &gateway{t: t, dir: t.TempDir(), base: "http://" + listener + "/v1"}
	g.config = filepath.Join(t.TempDir(), "weir.yaml")
	g.write(yaml)
	o := &operated{world: &world{g, a, b, yaml}, flags: flags}
	o.serve()
	t.Cleanup(func() {
		g.stop()
		if t.Failed() {
			t.Logf("log of weir:\n%s", last(g.log.String(), 4000))
		}
	})
	return o
}

// serve starts weir serve; a second start follows a kill.
func (o *operated) serve() {
	o.t.Helper()
	base := o.base
	o.ready = o.launch(append([]string{"serve", "--config", o.config, "--data", o.dir}, o.flags...)...)
	o.base = base
}

// startEnvoy starts Envoy with what `weir envoy bootstrap` prints and waits until
// weir answers through it.
func (o *operated) startEnvoy(xds string) {
	o.t.Helper()
	admin := fmt.Sprintf("127.0.0.1:%d", freePort(o.t))
	boot, errs, code := weir(o.t, "", append([]string{"envoy", "bootstrap", "--xds", xds, "--node", "operated", "--envoy-admin", admin}, o.bootstrap...)...)
	if code != 0 {
		o.t.Fatalf("weir envoy bootstrap: exit %d: %s", code, errs)
	}
	o.runEnvoy(boot)
	o.waitEnvoy()
}

func (o *operated) runEnvoy(bootstrap string) {
	t := o.t
	t.Helper()
	binary, err := envoy.Locate(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	o.envoyLog = &tail{}
	cmd := exec.Command(binary.Path, "-c", file, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning")
	cmd.Stdout, cmd.Stderr = o.envoyLog, o.envoyLog
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	o.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of Envoy:\n%s", last(o.envoyLog.String(), 3000))
		}
	})
}

// waitEnvoy waits for weir's own refusal of a request without a key.
func (o *operated) waitEnvoy() {
	o.t.Helper()
	eventually(o.t, 30*time.Second, func() string {
		a, err := o.send("GET", "/v1/models", "")
		if err != nil || a.status != 401 || a.code() != "invalid_api_key" {
			return fmt.Sprintf("%v, status %d: %s", err, a.status, a.body)
		}
		return ""
	})
}

// served waits until weir usage shows n requests that a backend was asked, and
// returns their rows.
func (o *operated) served(t *testing.T, n int64) []usageRow {
	t.Helper()
	var rows []usageRow
	eventually(t, 10*time.Second, func() string {
		rows = slices.DeleteFunc(o.usage(t), func(r usageRow) bool { return r.Pool == "" })
		if got := requests(rows); got != n {
			return fmt.Sprintf("%d events, want %d: %+v", got, n, rows)
		}
		return ""
	})
	return rows
}

func requests(rows []usageRow) (n int64) {
	for _, r := range rows {
		n += r.Requests
	}
	return n
}

// oneOfEach sends one request with a JSON answer and one with a stream.
func (o *operated) oneOfEach(t *testing.T) {
	t.Helper()
	if got := o.chat("chat"); got.status != 200 || !strings.Contains(got.body, `"usage"`) {
		t.Errorf("JSON: status %d: %s", got.status, got.body)
	}
	got := o.post("/v1/chat/completions", chatBody("chat", true), "authorization", "Bearer "+testKey)
	if got.status != 200 || !strings.Contains(got.body, "data: [DONE]") {
		t.Errorf("stream: status %d: %s", got.status, got.body)
	}
}

// adminGet asks weir's admin address for a path.
func (g *gateway) adminGet(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := http.Get(g.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestServe(t *testing.T) {
	t.Parallel()
	o := newServe(t, "--listen", "127.0.0.1:0")
	if diff := slices.Compare(o.ready.Roles, []string{"extproc", "xds", "usage"}); diff != 0 || o.ready.GRPCAddress == "" {
		t.Errorf("ready line: %+v", o.ready)
	}
	o.startEnvoy(o.ready.GRPCAddress)
	t.Run("usage comes by the gRPC access log", func(t *testing.T) { testServeUsage(t, o) })
	t.Run("health", func(t *testing.T) { testServeHealth(t, o) })
	t.Run("changes", func(t *testing.T) { testServeChanges(t, o) })
	t.Run("metrics are documented", func(t *testing.T) { testMetricsDocumented(t, o) })
	t.Run("killed", func(t *testing.T) { testServeKilled(t, o) })
	t.Run("stops", func(t *testing.T) { testServeStops(t, o) })
}

// Each request is one event with the tokens that the backend counted.
func testServeUsage(t *testing.T, o *operated) {
	o.a.fault(t)
	o.oneOfEach(t)
	var input, output int64
	for _, r := range o.a.received(t, 2) {
		checkAttempt(t, "only", r, realModelA, credentialA)
		input, output = input+int64(r.PromptTokens), output+int64(r.CompletionTokens)
	}
	rows := o.served(t, 2)
	if len(rows) != 1 || rows[0].Outcome != "completed" || rows[0].Pool != "a" || rows[0].Input != input || rows[0].Output != output {
		t.Errorf("usage %+v, want 2 requests with %d and %d tokens", rows, input, output)
	}
}

func testServeHealth(t *testing.T, o *operated) {
	conn, err := grpc.NewClient(o.ready.GRPCAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	health := healthv1.NewHealthClient(conn)
	for _, role := range o.ready.Roles {
		if code, body := o.adminGet(t, "/readyz/"+role); code != 200 || !strings.Contains(body, role) {
			t.Errorf("readiness of %s: status %d: %s", role, code, body)
		}
		got, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: role})
		if err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("gRPC health of %s: %v, %v", role, got, err)
		}
	}
	if _, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "cook"}); err == nil {
		t.Error("gRPC health of a role that does not exist: no error")
	}
	if code, _ := o.adminGet(t, "/readyz/cook"); code != 404 {
		t.Errorf("readiness of a role that does not exist: status %d", code)
	}
	if code, body := o.adminGet(t, "/status"); code != 200 || !strings.Contains(body, `"operated"`) {
		t.Errorf("status does not name the Envoy: %d: %s", code, body)
	}
}

// A good change reaches the operator's Envoy, a bad one changes nothing, and one
// that Envoy refuses is taken back.
func testServeChanges(t *testing.T, o *operated) {
	renamed := edited(t, o.yaml, "model: "+realModelA, "model: another-model", "name: cloud\n", "name: cloud2\n", "cloud,", "cloud2,")
	o.a.fault(t)
	o.write(renamed)
	eventually(t, 10*time.Second, func() string {
		if got := o.chat("cloud2"); got.status != 200 {
			return fmt.Sprintf("the new model: status %d: %s", got.status, got.body)
		}
		return ""
	})
	o.a.ClearRequests()
	if got := o.chat("chat"); got.status != 200 && got.status != 404 {
		t.Errorf("status %d: %s", got.status, got.body)
	}
	if body := o.a.received(t, 1)[0].Body; !strings.Contains(body, "another-model") {
		t.Errorf("the pool's new model did not reach the backend: %s", body)
	}
	o.write(edited(t, renamed, "targets: [{pool: a}, {pool: b}]", "targets: [{pool: nowhere}]"))
	o.refusedWith(t, "nowhere")

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	o.write(edited(t, renamed, "listeners:\n", fmt.Sprintf("listeners:\n  - {name: taken, address: %q}\n", taken.Addr())))
	o.refusedWith(t, `envoy \"operated\" refused`)
	if got := o.chat("cloud2"); got.status != 200 {
		t.Errorf("after a refused change: status %d: %s", got.status, got.body)
	}
	_, metrics := o.adminGet(t, "/metrics")
	for _, want := range []string{"weir_config_last_reload_successful 0", `weir_xds_rejections_total{type="Listener"} 1`, "weir_xds_envoys 1"} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("metrics: no line %s", want)
		}
	}
	o.write(o.yaml)
	eventually(t, 10*time.Second, func() string {
		if got := o.chat("cloud"); got.status != 200 {
			return fmt.Sprintf("the first configuration again: status %d: %s", got.status, got.body)
		}
		return ""
	})
}

// What /metrics has, docs/operating.md explains.
func testMetricsDocumented(t *testing.T, o *operated) {
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, metrics := o.adminGet(t, "/metrics")
	known := 0
	for line := range strings.Lines(metrics) {
		name, isHelp := strings.CutPrefix(line, "# HELP ")
		name, _, _ = strings.Cut(name, " ")
		if !isHelp || strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		known++
		if !bytes.Contains(page, []byte("`"+name+"`")) {
			t.Errorf("docs/operating.md does not name %s", name)
		}
	}
	if known < 15 {
		t.Errorf("only %d metrics", known)
	}
}

// refusedWith waits until /status says why the file is not in force.
func (o *operated) refusedWith(t *testing.T, why string) {
	t.Helper()
	eventually(t, 15*time.Second, func() string {
		_, body := o.adminGet(t, "/status")
		var status struct{ Refused string }
		if err := json.Unmarshal([]byte(body), &status); err != nil || !strings.Contains(fmt.Sprintf("%q", status.Refused), why) {
			return fmt.Sprintf("%v: refused: %q, want %q", err, status.Refused, why)
		}
		return ""
	})
}

// Without weir Envoy keeps its configuration and what it streams; it lets no new
// request through. With weir all is back.
func testServeKilled(t *testing.T, o *operated) {
	o.a.fault(t)
	rows := o.usage(t)
	before, output := requests(rows), int64(0)
	for _, r := range rows {
		output += r.Output
	}
	open := o.openStream(t, 60, 25*time.Millisecond)
	eventually(t, 5*time.Second, func() string { // Envoy sends its entries every 100 ms
		if _, metrics := o.adminGet(t, "/metrics"); !strings.Contains(metrics, "\nweir_usage_pending 1\n") {
			return lineWith(metrics, "weir_usage_pending ")
		}
		return ""
	})
	grpcAddress := o.ready.GRPCAddress
	o.kill()
	for range 5 {
		if got := o.chat("chat"); got.status != 503 || got.code() != "service_unavailable" {
			t.Errorf("without weir: status %d: %s", got.status, got.body)
		}
	}
	if got := <-open; got != "" {
		t.Errorf("the stream that was open: %s", got)
	}
	if n := len(o.a.received(t, 1)); n != 1 {
		t.Errorf("the backend was asked %d times", n)
	}
	o.flags = []string{"--listen", grpcAddress}
	o.serve()
	o.waitEnvoy()
	o.oneOfEach(t)
	// The stream ended while nobody took its entry. Envoy loses it, and the deadline
	// closes the event, or Envoy still has it when weir is back.
	eventually(t, 15*time.Second, func() string {
		rows := o.usage(t)
		var unknown, streamed int64
		for _, r := range rows {
			if r.Outcome == "unknown" {
				unknown += r.Requests
			} else {
				streamed += r.Output
			}
		}
		if n := requests(rows) - before; unknown+min(1, (streamed-output)/60) != 1 || n < 3 {
			return fmt.Sprintf("%d new events, %d closed by their deadline: %+v", n, unknown, rows)
		}
		return ""
	})
}

// SIGTERM ends weir serve at once though Envoy's streams to it have no end.
func testServeStops(t *testing.T, o *operated) {
	start := time.Now()
	o.stop()
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("weir took %s to stop", d)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", o.pid)); err != nil {
		t.Errorf("the operator's Envoy: %v", err)
	}
}

// A unix socket needs no TLS; what is there and in use is left alone.
func TestServeOnSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "weir") // short: a socket's path is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := "unix:" + filepath.Join(dir, "grpc.sock")
	o := newServe(t, "--listen", socket)
	if o.ready.GRPCAddress != socket {
		t.Errorf("ready line: %+v", o.ready)
	}
	o.startEnvoy(socket)
	o.a.fault(t)
	o.oneOfEach(t)
	o.served(t, 2)
	other := filepath.Join(dir, "other.yaml")
	if err := os.WriteFile(other, []byte(o.yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := weir(t, "", "serve", "--config", other, "--data", t.TempDir(), "--listen", socket); code != 1 || !strings.Contains(errs, "in use") {
		t.Errorf("a second weir on the socket: exit %d: %s", code, errs)
	}
	if _, errs, code := weir(t, "", "serve", "--config", other, "--data", t.TempDir(), "--listen", "unix:"+other); code != 1 || !strings.Contains(errs, "no socket") {
		t.Errorf("on a file: exit %d: %s", code, errs)
	}
	if b, err := os.ReadFile(other); err != nil || !bytes.Equal(b, []byte(o.yaml)) {
		t.Errorf("the file that is no socket was touched: %v", err)
	}
}

// The xds role may run apart from those that decide.
func TestServeRolesApart(t *testing.T) {
	t.Parallel()
	decide := newServe(t, "--roles", "extproc,usage", "--listen", "127.0.0.1:0")
	// The same file, a process and a data directory of its own.
	control := &gateway{t: t, dir: t.TempDir(), config: decide.config}
	ready := control.launch("serve", "--config", control.config, "--data", control.dir, "--roles", "xds",
		"--listen", "127.0.0.1:0", "--advertise", decide.ready.GRPCAddress)
	t.Cleanup(control.stop)
	decide.startEnvoy(ready.GRPCAddress)
	decide.a.fault(t)
	decide.oneOfEach(t)
	decide.served(t, 2)
	if code, _ := decide.adminGet(t, "/readyz/xds"); code != 404 {
		t.Errorf("readiness of xds where it does not run: status %d", code)
	}
	if code, body := control.adminGet(t, "/readyz"); code != 200 || strings.Contains(body, "extproc") {
		t.Errorf("readiness of xds alone: status %d: %s", code, body)
	}
	// Requests go on without xds.
	control.kill()
	decide.oneOfEach(t)
	decide.served(t, 4)
}

// What would be insecure or could not work is misuse: exit code 2, and why.
func TestServeMisuse(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "weir.yaml")
	_, _, yaml := newBackends(t)
	if err := os.WriteFile(config, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	server := []string{"--tls-cert", "c.pem", "--tls-key", "k.pem", "--tls-client-ca", "ca.pem"}
	client := []string{"--envoy-tls-cert", "/c.pem", "--envoy-tls-key", "/k.pem", "--envoy-tls-ca", "/ca.pem"}
	for name, tc := range map[string]struct {
		flags []string
		want  string
	}{
		"beyond loopback in the clear": {[]string{"--listen", "0.0.0.0:0"}, "mutual TLS is required"},
		"a name in the clear":          {[]string{"--listen", "localhost:0"}, "mutual TLS is required"},
		"half of the TLS files":        {server[:4], "belong together"},
		"half of Envoy's TLS files":    {client[:4], "belong together"},
		"TLS on weir's side alone":     {server, "both or neither"},
		"TLS on Envoy's side alone":    {client, "both or neither"},
		"every address, none advertised": {slices.Concat([]string{"--listen", "0.0.0.0:0"}, server, client),
			"--advertise"},
		"advertised in the clear":   {[]string{"--advertise", "192.0.2.1:10090"}, "mutual TLS is required"},
		"advertised without a port": {[]string{"--advertise", "127.0.0.1"}, "--advertise"},
		"no address":                {[]string{"--listen", "127.0.0.1"}, "host:port"},
		"a relative socket":         {[]string{"--listen", "unix:grpc.sock"}, "absolute"},
		"extproc without usage":     {[]string{"--roles", "extproc"}, "one process"},
		"xds without an address":    {[]string{"--roles", "xds"}, "--advertise"},
		"flags of another role":     {[]string{"--roles", "extproc,usage", "--wasm-path", "/a.wasm"}, "--roles does not name it"},
		"a relative Wasm file":      {[]string{"--wasm-path", "a.wasm"}, "absolute"},
		"no roles":                  {[]string{"--roles", ""}, "--roles"},
	} {
		data := filepath.Join(dir, "data")
		_, errs, code := weir(t, "", append([]string{"serve", "--config", config, "--data", data}, tc.flags...)...)
		if code != 2 || !strings.Contains(errs, tc.want) || !strings.Contains(errs, "--help") {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
		if _, err := os.Stat(data); err == nil {
			t.Fatalf("%s: the data directory was made", name)
		}
	}
}
