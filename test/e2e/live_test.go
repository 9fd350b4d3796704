package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// pools is what `weir pools` says.
func (g *gateway) pools(t *testing.T, args ...string) map[string]poolRow {
	t.Helper()
	out, errs, code := weir(t, "", append([]string{"pools", "--data", g.dir, "--format", "json"}, args...)...)
	var report struct{ Pools []poolRow }
	if err := json.Unmarshal([]byte(out), &report); code != 0 || err != nil {
		t.Fatalf("weir pools: exit code %d, %v: %s%s", code, err, out, errs)
	}
	rows := map[string]poolRow{}
	for _, r := range report.Pools {
		rows[r.Pool] = r
	}
	return rows
}

type poolRow struct {
	Pool               string
	Healthy, Endpoints int
	Open, Attempts     int64
	Running, Waiting   *float64
	KVUse              *float64 `json:"kv_use"`
	ErrorRate          *float64 `json:"error_rate"`
	FirstTokenMS       *float64 `json:"first_token_ms"`
	Stale              bool
	Each               []struct {
		Error string
		Down  bool
	}
}

func is(v *float64, want float64) bool { return v != nil && *v == want }

// What weir knows of its pools is what the backends do, in the words of each.
func TestPools(t *testing.T) {
	t.Parallel()
	adapters := []string{"vllm", "sglang", "mindie", "llama.cpp", "tgi", "ollama"}
	backends := map[string]*backend{}
	var pools, models strings.Builder
	for _, name := range adapters {
		s := newBackend(t, simulate.Options{Name: name, Profile: name})
		backends[name] = s
		fmt.Fprintf(&pools, "  - {name: %s, adapter: %s, placement: private, model: m, endpoints: [{url: %q}]%s}\n", name, name, s.url, metricsOf(name, s.url))
		fmt.Fprintf(&models, "  - {name: on-%s, targets: [{pool: %s}]}\n", name, name)
	}
	_, _, text := newBackends(t, "models:\n", pools.String()+"models:\n", "teams:\n", models.String()+"teams:\n",
		"models: [chat, cloud", "models: [on-vllm, on-sglang, on-mindie, on-llama.cpp, on-tgi, on-ollama, chat, cloud")
	g := up(t, text)

	var open sync.WaitGroup
	for _, name := range adapters {
		backends[name].fault(t, simulate.Fault{StallFirstTokenMS: 6000})
		for range 3 {
			open.Go(func() {
				got, err := g.send("POST", "/v1/chat/completions", chatBody("on-"+name, true), "authorization", "Bearer "+testKey)
				if err != nil || got.status != 200 {
					t.Errorf("%s: status %d, %v", name, got.status, err)
				}
			})
		}
	}
	all := func(n int64) func() string {
		return func() string {
			rows := g.pools(t)
			for _, name := range adapters {
				if r := rows[name]; r.Open != n || r.Healthy != 1 || name != "ollama" && !is(r.Running, float64(n)) {
					return fmt.Sprintf("%s: %+v", name, r)
				}
			}
			if r := rows["ollama"]; r.Running != nil || rows["llama.cpp"].KVUse != nil || rows["b"].Running != nil || rows["sglang"].KVUse == nil {
				return fmt.Sprintf("what nobody told is known: %+v", rows)
			}
			return ""
		}
	}
	eventually(t, 20*time.Second, all(3))
	if got := g.metric(t, `weir_pool_requests_running{pool="sglang"}`); got != 3 {
		t.Errorf("weir_pool_requests_running of sglang is %v", got)
	}
	open.Wait()
	eventually(t, 20*time.Second, all(0))
	if r := g.pools(t, "vllm")["vllm"]; r.Attempts != 3 || !is(r.ErrorRate, 0) || r.FirstTokenMS == nil || *r.FirstTokenMS < 5000 || len(r.Each) != 1 {
		t.Errorf("after three answers: %+v", r)
	}
	if out, errs, code := weir(t, "", "pools", "nowhere", "--data", g.dir); code != 1 || !strings.Contains(errs, `no pool is called "nowhere"`) {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

// metricsOf is how a pool of this kind is asked often, in this test's setting.
func metricsOf(adapter, url string) string {
	switch adapter {
	case "ollama": // it tells nothing
		return ""
	case "mindie": // its metrics have a port of their own, which the simulator's have not
		return ", metrics: {interval: 100ms, port: " + url[strings.LastIndex(url, ":")+1:] + "}"
	}
	return ", metrics: {interval: 100ms}"
}

// A backend that goes is stale and then down, and is back when it is back.
func TestPoolGoes(t *testing.T) {
	t.Parallel()
	_, _, text := newBackends(t, "    connect_timeout: 1s\n  - name: b\n", "    connect_timeout: 1s\n    metrics: {interval: 100ms}\n  - name: b\n")
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	text = edited(t, text, "endpoints: [{url: \""+between(text, "endpoints: [{url: \"", "\""), "endpoints: [{url: \"http://"+address)
	g := up(t, text)
	eventually(t, 10*time.Second, func() string {
		if r := g.pools(t, "a")["a"]; r.Healthy != 0 || !r.Each[0].Down || !strings.Contains(r.Each[0].Error, "refused") {
			return fmt.Sprintf("nothing listens there: %+v", r)
		}
		return ""
	})
	stop := serveAt(t, address)
	eventually(t, 10*time.Second, func() string {
		if r := g.pools(t, "a")["a"]; r.Healthy != 1 || !is(r.Running, 0) || r.Stale {
			return fmt.Sprintf("it answers: %+v", r)
		}
		return ""
	})
	stop()
	eventually(t, 10*time.Second, func() string {
		if r := g.pools(t, "a")["a"]; r.Healthy != 0 || r.Running != nil {
			return fmt.Sprintf("it is gone: %+v", r)
		}
		return ""
	})
}

// serveAt runs a simulator at an address until it is told to stop.
func serveAt(t *testing.T, address string) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = simulate.New(simulate.Options{}).Serve(ctx, l) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// between is the first text between two others.
func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}
