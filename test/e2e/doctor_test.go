package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// found is one row of the doctor's report.
type found struct {
	Proxy    string `json:"proxy"`
	Listener string `json:"listener"`
	Policy   string `json:"policy"`
	InForce  string `json:"in_force"`
	Evidence string `json:"evidence"`
	Chosen   bool   `json:"chosen"`
}

// doctor asks the running weir to examine, and returns the report and the exit code.
func (g *gateway) doctor(t *testing.T, flags ...string) ([]found, int) {
	t.Helper()
	out, errs, code := weir(t, "", append([]string{"doctor", "--data", g.dir, "--format", "json"}, flags...)...)
	var report struct{ Findings []found }
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("weir doctor: exit %d: %v: %s%s", code, err, out, errs)
	}
	return report.Findings, code
}

// row is the finding about a policy, which there must be.
func row(t *testing.T, rows []found, policy string) found {
	t.Helper()
	i := slices.IndexFunc(rows, func(f found) bool { return f.Policy == policy })
	if i < 0 {
		t.Fatalf("nothing is said of %q: %+v", policy, rows)
	}
	return rows[i]
}

// everyPolicy are those that are proved on a listener of baseConfig.
var everyPolicy = []string{
	"decisions", "plan", "authentication", "api keys", "headers", "paths", "strict reading", "body size",
	"stage auth", "stage network", "stage access", "stage models", "stage decode", "stage tokens", "stage quota", "stage route", "limit two-a-minute",
}

// The doctor proves every policy on the Envoy of weir up, takes nothing from the
// limits, and leaves no usage; what is not in force it names.
func TestDoctor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rows, code := w.doctor(t)
	for _, policy := range append(slices.Clone(everyPolicy), "xds Cluster", "xds Listener", "xds RouteConfiguration", "configuration") {
		if f := row(t, rows, policy); f.InForce != "yes" {
			t.Errorf("%+v", f)
		}
	}
	if code != 0 {
		t.Errorf("exit %d: %+v", code, rows)
	}
	text, _, code := weir(t, "", "doctor", "--data", w.dir)
	if code != 0 || !strings.Contains(text, "limit two-a-minute") || !strings.Contains(text, "policies are in force") {
		t.Errorf("exit %d:\n%s", code, text)
	}
	w.a.fault(t)
	for range 2 { // as many as the limit allows
		if got := w.chat("limited"); got.status != 200 {
			t.Errorf("the probes used the limit up: status %d: %s", got.status, got.body)
		}
	}
	// Over the limit the probe is refused as the client would be, and that is proof.
	rows, code = w.doctor(t)
	if f := row(t, rows, "limit two-a-minute"); f.InForce != "yes" || code == 4 {
		t.Errorf("exit %d: %+v", code, f)
	}
	t.Run("explain", func(t *testing.T) { testExplainLive(t, w) })
	eventually(t, 10*time.Second, func() string {
		if usage := w.usage(t); requests(usage) != 2 {
			return fmt.Sprintf("%d requests in usage, want the 2 of the client: %+v", requests(usage), usage)
		}
		return ""
	})
	if _, ready := w.adminGet(t, "/readyz"); !strings.Contains(ready, `"policies":"ready"`) {
		t.Errorf("readiness: %s", ready)
	}

	t.Run("shadow", func(t *testing.T) {
		w.write(w.yaml + "stages: [{stage: quota, mode: shadow}]\n")
		eventually(t, 15*time.Second, func() string {
			rows, code = w.doctor(t)
			if f := row(t, rows, "stage quota"); f.InForce != "NO" || !f.Chosen || code != 4 || !strings.Contains(f.Evidence, "shadow") {
				return fmt.Sprintf("exit %d: %+v", code, f)
			}
			return ""
		})
		if f := row(t, rows, "limit two-a-minute"); f.InForce != "NO" || !f.Chosen {
			t.Errorf("%+v", f)
		}
	})
	t.Run("refused by Envoy", func(t *testing.T) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		w.write(edited(t, w.yaml, "listeners:\n", fmt.Sprintf("listeners:\n  - {name: taken, address: %q}\n", taken.Addr())))
		eventually(t, 20*time.Second, func() string {
			rows, code = w.doctor(t)
			if f := row(t, rows, "configuration"); f.InForce != "NO" || code != 4 || !strings.Contains(f.Evidence, `envoy "weir-up" refused its Listener`) {
				return fmt.Sprintf("exit %d: %+v", code, f)
			}
			return ""
		})
		if f := row(t, rows, "xds Listener"); f.Proxy != "weir-up" || f.InForce != "warning" || !strings.Contains(f.Evidence, "refused version") {
			t.Errorf("%+v", f)
		}
		if f := row(t, rows, "decisions"); f.InForce != "yes" {
			t.Errorf("%+v", f)
		}
	})
}

// explain --live tells what is left of each limit, and takes nothing.
func testExplainLive(t *testing.T, w *world) {
	for range 2 {
		out, errs, code := weir(t, chatBody("limited", false), "explain", "--live", "--data", w.dir, "--key", "tester", "--path", "/v1/chat/completions", "--body", "-", "--format", "json")
		var got struct {
			Reason   string
			Reserved struct {
				Limits []struct {
					Name string
					Left *struct{ Remaining int64 }
				}
			}
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != 3 || got.Reason != "limit_exceeded" {
			t.Fatalf("exit %d: %v: %s%s", code, err, out, errs)
		}
		if l := got.Reserved.Limits; len(l) != 1 || l[0].Name != "two-a-minute" || l[0].Left == nil || l[0].Left.Remaining != 0 {
			t.Errorf("%+v", l)
		}
	}
	if _, errs, code := weir(t, "", "explain", "--live", "--data", t.TempDir(), "--key", "tester", "--path", "/v1/models"); code != 1 || !strings.Contains(errs, "no weir answers") {
		t.Errorf("where none runs: exit %d: %s", code, errs)
	}
}

// past is a listener of an Envoy that leads to a pool past weir: somebody's own,
// with the access log that weir's listeners have.
func past(t *testing.T, bootstrap string, port int) string {
	t.Helper()
	var b map[string]any
	if err := json.Unmarshal([]byte(bootstrap), &b); err != nil {
		t.Fatal(err)
	}
	listener := fmt.Sprintf(`{"name": "past", "address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}, "filter_chains": [{"filters": [{
		"name": "http", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix": "past", "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
		"access_log": [{"name": "weir.grpc", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
			"additional_response_headers_to_log": ["x-weir-decision"], "common_config": {"log_name": "weir", "transport_api_version": "V3",
			"grpc_service": {"envoy_grpc": {"cluster_name": "weir/accesslog"}}, "buffer_flush_interval": "0.1s",
			"filter_state_objects_to_log": ["wasm.weir_attempts", "wasm.weir_usage"]}}}],
		"route_config": {"validate_clusters": false, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
			{"match": {"path": "/v1/embeddings"}, "route": {"cluster": "weir/none"}}, {"match": {"prefix": "/"}, "route": {"cluster": "pool/a"}}]}]}}}]}]}`, port)
	var l any
	if err := json.Unmarshal([]byte(listener), &l); err != nil {
		t.Fatal(err)
	}
	b["static_resources"].(map[string]any)["listeners"] = []any{l}
	out, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// An Envoy that leads past weir to a pool serves nobody, is told of, and is found.
func TestDoctorFindsABypass(t *testing.T) {
	t.Parallel()
	o := newServe(t, "--listen", "127.0.0.1:0")
	port := freePort(t)
	boot, errs, code := weir(t, "", "envoy", "bootstrap", "--xds", o.ready.GRPCAddress, "--node", "operated", "--envoy-admin", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	if code != 0 {
		t.Fatalf("weir envoy bootstrap: exit %d: %s", code, errs)
	}
	o.runEnvoy(past(t, boot, port))
	o.waitEnvoy()
	good := strings.TrimSuffix(o.base, "/v1")
	aside := fmt.Sprintf("http://127.0.0.1:%d", port)

	t.Run("nobody knows the way", func(t *testing.T) {
		rows, code := o.doctor(t)
		if f := row(t, rows, "every policy"); code != 1 || f.Proxy != "operated" || f.Listener != "main" || !strings.Contains(f.Evidence, "not probed") {
			t.Errorf("exit %d: %+v", code, f)
		}
	})
	t.Run("by its URL", func(t *testing.T) {
		rows, code := o.doctor(t, "--url", good)
		if code != 0 || len(rows) != len(everyPolicy) {
			t.Errorf("exit %d: %+v", code, rows)
		}
		rows, code = o.doctor(t, "--url", aside, "--name", "aside")
		if f := row(t, rows, "decisions"); code != 4 || f.Proxy != "aside" || f.InForce != "NO" || !strings.Contains(f.Evidence, "weir was not asked") {
			t.Errorf("exit %d: %+v", code, rows)
		}
	})
	t.Run("alarm", func(t *testing.T) { testBypass(t, o, aside) })
	t.Run("in the background", func(t *testing.T) {
		named := func(url string) string {
			return o.yaml + "doctor: {interval: 5s, proxies: [{name: operated, url: \"" + url + "\"}]}\n"
		}
		o.write(named(good))
		eventually(t, 40*time.Second, func() string {
			if _, metrics := o.adminGet(t, "/metrics"); !strings.Contains(metrics, `weir_doctor_policy_in_force{listener="main",policy="stage quota",proxy="operated"} 1`) {
				return lineWith(metrics, "weir_doctor")
			}
			return ""
		})
		if rows, code := o.doctor(t); code != 0 {
			t.Errorf("exit %d: %+v", code, rows)
		}
		o.write(named(aside))
		eventually(t, 40*time.Second, func() string {
			if code, body := o.adminGet(t, "/readyz/policies"); code != 503 || !strings.Contains(body, "operated") || !strings.Contains(body, "decisions") {
				return fmt.Sprintf("status %d: %s", code, body)
			}
			return ""
		})
		if code, body := o.adminGet(t, "/readyz"); code != 200 {
			t.Errorf("one Envoy takes weir from all others: status %d: %s", code, body)
		}
		_, metrics := o.adminGet(t, "/metrics")
		if want := `weir_doctor_policy_in_force{listener="main",policy="decisions",proxy="operated"} 0`; !strings.Contains(metrics, want) {
			t.Errorf("no metric %s: %s", want, lineWith(metrics, "weir_doctor"))
		}
	})
}

// What comes past weir gets no answer of the backend's, and somebody is told.
func testBypass(t *testing.T, o *operated, aside string) {
	const before = 1 // the doctor's probe
	eventually(t, 10*time.Second, func() string {
		if n := bypasses(t, o); n != before {
			return fmt.Sprintf("weir_bypass_total is %d after the doctor asked", n)
		}
		return ""
	})
	o.a.fault(t)
	g := &gateway{t: t, base: aside + "/v1"}
	got := g.chat("chat", "x-weir-decision", strings.Repeat("0", 32))
	if got.status != 403 || got.code() != "bypass" {
		t.Errorf("status %d: %s", got.status, got.body)
	}
	eventually(t, 10*time.Second, func() string {
		if n := bypasses(t, o); n != before+1 {
			return fmt.Sprintf("weir_bypass_total is %d, want %d", n, before+1)
		}
		return ""
	})
	// Where weir names no target there is none.
	if got, err := g.send("POST", "/v1/embeddings", "{}"); err != nil || got.status != 503 {
		t.Errorf("%v, status %d: %s", err, got.status, got.body)
	}
	eventually(t, 10*time.Second, func() string {
		if n := bypasses(t, o); n != before+2 {
			return fmt.Sprintf("weir_bypass_total is %d, want %d", n, before+2)
		}
		return ""
	})
	if n := len(o.a.Requests()); n != 0 {
		t.Errorf("the backend was asked %d times", n)
	}
	if !strings.Contains(o.log.String(), "came past weir") {
		t.Error("the log does not tell")
	}
}

func bypasses(t *testing.T, o *operated) (n int64) {
	t.Helper()
	_, metrics := o.adminGet(t, "/metrics")
	if _, err := fmt.Sscanf(lineWith(metrics, "weir_bypass_total "), "weir_bypass_total %d", &n); err != nil {
		t.Fatalf("%v: %s", err, lineWith(metrics, "weir_bypass"))
	}
	return n
}

// The socket is the operator's alone.
func TestOperatorSocketIsPrivate(t *testing.T) {
	o := newServe(t, "--listen", "127.0.0.1:0")
	for name, want := range map[string]os.FileMode{"run": 0o700, "run/operator.sock": 0o600} {
		info, err := os.Stat(o.dir + "/" + name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}
