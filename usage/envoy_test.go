package usage

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/weirproxy/weir/internal/ai"
)

// envoyBinary is WEIR_ENVOY, or the one that `make setup` installs.
func envoyBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("WEIR_ENVOY"); path != "" {
		return path
	}
	path, err := filepath.Abs("../.tools/envoy-1.40.0/envoy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no Envoy at %s: run make setup, or set WEIR_ENVOY", path)
	}
	return path
}

// eventually waits for what another process does.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

type object = map[string]any

func typed(name, kind string, fields object) object {
	fields["@type"] = "type.googleapis.com/" + kind
	return object{"name": name, "typed_config": fields}
}

func cluster(name, address string, more object) object {
	host, port, _ := net.SplitHostPort(address)
	var number int
	fmt.Sscan(port, &number)
	c := object{"name": name, "connect_timeout": "2s", "load_assignment": object{"cluster_name": name, "endpoints": []object{{
		"lb_endpoints": []object{{"endpoint": object{"address": object{"socket_address": object{"address": host, "port_value": number}}}}}}}}}
	for k, v := range more {
		c[k] = v
	}
	return c
}

// logFormat is the line that weir asks Envoy for.
var logFormat = object{
	"id": "%DYNAMIC_METADATA(weir:id)%", "rid": "%RESP(x-weir-decision)%", "start": "%START_TIME(%s.%6f)%",
	"dur_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "dur_ms": "%DURATION%", "status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%",
	"details": "%RESPONSE_CODE_DETAILS%", "bytes": "%BYTES_SENT%", "att": "%FILTER_STATE(wasm.weir_attempts:PLAIN)%",
	"use": "%FILTER_STATE(wasm.weir_usage:PLAIN)%", "n": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "cluster": "%UPSTREAM_CLUSTER_RAW%",
	"method": "%REQ(:METHOD)%", "path": "%PATH(NQ)%",
}

// envoyConfig lets request headers stand in for what ext_proc and the adapter
// set: x-id, x-att and x-use.
func envoyConfig(logPath, backend, nobody, als string) object {
	state := func(key, header string) object {
		return object{"object_key": key, "factory_key": "envoy.string", "format_string": object{
			"omit_empty_values": true, "text_format_source": object{"inline_string": "%REQ(" + header + ")%"}}}
	}
	route := func(prefix, cluster string, more object) object {
		r := object{"cluster": cluster, "timeout": "30s"}
		for k, v := range more {
			r[k] = v
		}
		return object{"match": object{"prefix": prefix}, "route": r}
	}
	hcm := typed("hcm", "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", object{
		"stat_prefix": "test",
		"access_log": []object{
			typed("file", "envoy.extensions.access_loggers.file.v3.FileAccessLog", object{"path": logPath, "log_format": object{"json_format": logFormat}}),
			typed("grpc", "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig", object{
				"additional_response_headers_to_log": []string{"x-weir-decision"},
				"common_config": object{"log_name": "weir", "transport_api_version": "V3", "buffer_flush_interval": "0.05s",
					"grpc_service":                object{"envoy_grpc": object{"cluster_name": "als"}},
					"filter_state_objects_to_log": []string{"wasm.weir_attempts", "wasm.weir_usage"}}}),
		},
		"http_filters": []object{
			typed("id", "envoy.extensions.filters.http.header_to_metadata.v3.Config", object{"request_rules": []object{{
				"header": "x-id", "on_header_present": object{"metadata_namespace": "weir", "key": "id", "type": "STRING"}}}}),
			typed("state", "envoy.extensions.filters.http.set_filter_state.v3.Config", object{"on_request_headers": []object{
				state("wasm.weir_attempts", "x-att"), state("wasm.weir_usage", "x-use")}}),
			typed("router", "envoy.extensions.filters.http.router.v3.Router", object{}),
		},
		"route_config": object{"virtual_hosts": []object{{"name": "all", "domains": []string{"*"}, "routes": []object{
			route("/v1", "pool/local-vllm", nil), route("/short", "pool/local-vllm", object{"timeout": "0.2s"}), route("/nobody", "pool/nobody", nil),
			route("/nowhere", "weir/none", nil)}}}},
	})
	h2 := object{"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
		"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": object{"http2_protocol_options": object{}}}}}
	loopback := object{"socket_address": object{"address": "127.0.0.1", "port_value": 0}}
	return object{
		"admin": object{"address": loopback},
		"static_resources": object{
			"listeners": []object{{"name": "in", "address": loopback, "filter_chains": []object{{"filters": []object{hcm}}}}},
			"clusters":  []object{cluster("pool/local-vllm", backend, nil), cluster("pool/nobody", nobody, nil), {"name": "weir/none", "connect_timeout": "1s"}, cluster("als", als, h2)},
		},
	}
}

// startEnvoy returns the listener's and the admin interface's base URLs.
func startEnvoy(t *testing.T, config object) (base, admin string) {
	dir := t.TempDir()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file, adminFile := filepath.Join(dir, "envoy.json"), filepath.Join(dir, "admin")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(envoyBinary(t), "-c", file, "--concurrency", "1", "--use-dynamic-base-id",
		"--admin-address-path", adminFile, "--file-flush-interval-msec", "20", "-l", "error")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var status struct {
		Listeners []struct {
			Address struct {
				Socket struct {
					Port int `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	eventually(t, "Envoy listens", func() bool {
		address, err := os.ReadFile(adminFile)
		if err != nil || len(address) == 0 {
			return false
		}
		admin = "http://" + string(address)
		resp, err := http.Get(admin + "/listeners?format=json")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return json.NewDecoder(resp.Body).Decode(&status) == nil && len(status.Listeners) == 1
	})
	return fmt.Sprintf("http://127.0.0.1:%d", status.Listeners[0].Address.Socket.Port), admin
}

// backend does what x-do says.
func backend(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body) // or the server does not notice that the client goes
	switch r.Header.Get("x-do") {
	case "hang":
		<-r.Context().Done()
	case "stream and hang":
		io.WriteString(w, "data: x\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case "cut":
		w.Header().Set("content-length", "100")
		io.WriteString(w, "half")
	case "503":
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		io.WriteString(w, "answer")
	}
}

// call makes one request; the client leaves after leave, when that is not zero.
func call(t *testing.T, base, path string, headers map[string]string, leave time.Duration) {
	ctx := context.Background()
	if leave > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, leave)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// What a real Envoy logs about each end that a request can have makes the same
// event, by its file log and by its gRPC log.
func TestEntriesOfARealEnvoy(t *testing.T) {
	files, streams := newWorld(t), newWorld(t)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	streams.RegisterALS(srv)
	go srv.Serve(lis)
	t.Cleanup(srv.Stop)
	up := httptest.NewServer(http.HandlerFunc(backend))
	t.Cleanup(up.Close)
	closedPort, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closedPort.Close()
	logPath := filepath.Join(t.TempDir(), "access.log")
	base, admin := startEnvoy(t, envoyConfig(logPath, up.Listener.Addr().String(), closedPort.Addr().String(), lis.Addr().String()))
	files.Recorder.opt.MaxLogBytes = 500 // so that it rotates
	tl := files.newTailer(logPath, func() error {
		resp, err := http.Post(admin+"/reopen_logs", "", nil)
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	defer tl.closeFile()

	const reported = "in=700 out=9 reported"
	for i, tc := range []struct {
		name, path, do, att, use string
		noID                     bool
		leave                    time.Duration
		want                     string // outcome status pool in/out certainty; attempts
	}{
		{name: "answered", path: "/v1/x?key=secret", att: "local-vllm:200", use: reported, want: "completed 200 local-vllm 700/9 reported; local-vllm 200"},
		{name: "without a filter", path: "/v1/x", want: "completed 200 local-vllm 800/2 estimated;"},
		{name: "backend says 503", path: "/v1/x", do: "503", att: "local-vllm:503", want: "failed 503 local-vllm 0/0 unspecified; local-vllm 503 status"},
		{name: "refused connection", path: "/nobody", att: "nobody:0", want: "failed 503  0/0 unspecified; nobody 0 connect_failure"},
		{name: "timeout", path: "/short", do: "hang", att: "local-vllm:0", want: "failed 504  0/0 unspecified; local-vllm 0 timeout"},
		{name: "reset midway", path: "/v1/x", do: "cut", att: "local-vllm:200", use: "chunks=1 text=4", want: "failed 200 local-vllm 800/1 estimated; local-vllm 200 reset"},
		{name: "client gone midway", path: "/v1/x", do: "stream and hang", att: "local-vllm:200", use: "chunks=3 text=4", leave: 300 * time.Millisecond, want: "client_gone 200 local-vllm 800/3 estimated; local-vllm 200"},
		{name: "client gone before", path: "/v1/x", do: "hang", att: "local-vllm:0", leave: 300 * time.Millisecond, want: "client_gone 0  800/0 estimated; local-vllm 0 client_gone"},
		{name: "no route", path: "/none", noID: true, want: "refused 404  0/0 unspecified;"},
		{name: "past weir", path: "/v1/x", noID: true, want: "completed 200 local-vllm 0/2 estimated; bypass"},
		{name: "past weir, to nobody", path: "/nowhere", noID: true, want: "refused 503  0/0 unspecified; bypass"},
		{name: "past weir, to a pool that is down", path: "/nobody", noID: true, want: "failed 503  0/0 unspecified; bypass"},
		{name: "past weir, and the client left", path: "/v1/x", do: "stream and hang", noID: true, leave: 300 * time.Millisecond, want: "client_gone 200  0/3 estimated; bypass"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			headers := map[string]string{"x-do": tc.do, "x-att": tc.att, "x-use": tc.use}
			if !tc.noID {
				headers["x-id"] = testID(i + 1)
				files.decide(admitted(i + 1))
				streams.decide(admitted(i + 1))
			}
			for k, v := range headers {
				if v == "" {
					delete(headers, k)
				}
			}
			call(t, base, tc.path, headers, tc.leave)
			eventually(t, "both logs tell of it", func() bool {
				files.read(tl)
				return len(files.events()) == i+1 && len(streams.events()) == i+1
			})
			for how, w := range map[string]*world{"file": files, "grpc": streams} {
				if e := w.events()[i]; e.DurationUs > 60e6 || e.DurationUs < tc.leave.Microseconds()*9/10 || time.Since(e.End.AsTime()) > time.Minute {
					t.Errorf("%s: duration %d µs, end %v", how, e.DurationUs, e.End.AsTime())
				}
				if got := told(w, i); got != tc.want {
					t.Errorf("%s: %s, want\n%s", how, got, tc.want)
				}
			}
		})
	}
	for how, w := range map[string]*world{"file": files, "grpc": streams} {
		if n := w.metric("weir_bypass_total", ""); n != 4 {
			t.Errorf("%s: %v bypasses were counted, want 4", how, n)
		}
	}
	if n := files.metric("weir_usage_dropped_total", dropGarbled) + files.metric("weir_usage_dropped_total", dropLogLost); n != 0 {
		t.Errorf("%v lines were not understood", n)
	}
	eventually(t, "the rotated log is gone", func() bool {
		files.read(tl)
		_, err := os.Stat(logPath + rotatedSuffix)
		return err != nil
	})
}

// told is the n-th event in short.
func told(w *world, n int) string {
	e := w.events()[n]
	var attempts []string
	for _, a := range e.Attempts {
		attempts = append(attempts, strings.TrimSpace(fmt.Sprint(" ", a.Pool, " ", a.Status, " ", a.Failure)))
	}
	text := strings.TrimSpace(fmt.Sprintf("%s %d %s %d/%d %s; %s", e.Outcome, e.Status, e.Pool, e.Tokens.Input, e.Tokens.Output,
		certainty(e.OutputCertainty), strings.Join(attempts, ", ")))
	if e.Decision.Reason == string(ai.ReasonBypass) {
		text += " bypass"
	}
	return text
}
