package xds_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// TestFailover: each way in which a target fails moves to the next one, which
// gets its own credential and nothing of the first one's or the client's.
func TestFailover(t *testing.T) {
	t.Parallel()
	first := map[string]http.HandlerFunc{
		"500": answering(500, "no"), "503": answering(503, "no"), "429": answering(429, "no"),
		"reset": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"stall": stalling,
	}
	good := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set(ai.DecisionHeader, "a fake one")
		w.Header().Set("server", "leaky/1.0")
		fmt.Fprint(w, len(b))
	})
	last := pool("last", good.endpoint(t))
	last.Credential = &plan.Credential{Header: "x-goog-api-key", Value: "last-secret"}
	bare := pool("bare", good.endpoint(t))
	pools := []*plan.Pool{last, bare, pool("refused", refusedEndpoint(t)), pool("no-name", plan.Endpoint{Host: "nowhere.invalid", Port: 80})}
	bad := make(map[string]*backend)
	for name, h := range first {
		bad[name] = startBackend(t, h)
		p := pool("p"+name, bad[name].endpoint(t))
		p.Credential = &plan.Credential{Header: "authorization", Value: "Bearer first-secret"}
		pools = append(pools, p)
	}
	r := startRig(t, planOf(pools...), true)

	check := func(t *testing.T, target, next, want string) {
		t.Helper()
		r.ext.set(func(map[string]string, []byte) decision {
			return decision{id: "d1", targets: []string{target, next}, retries: 1, perTry: 300 * time.Millisecond}
		})
		before := len(good.requests())
		a := r.post(`{"model":"m"}`, "authorization", "Bearer client-key", "cookie", "c=1", "x-api-key", "k", "x-request-id", "r")
		if a.status != 200 || a.body != "13" {
			t.Fatalf("%+v", a)
		}
		if got := a.header.Values(ai.DecisionHeader); len(got) != 1 || got[0] != "d1" {
			t.Errorf("decision header %q", got)
		}
		if got := a.header.Get("server"); got != "weir" {
			t.Errorf("server header %q", got)
		}
		seen := good.requests()[before:]
		if len(seen) != 1 {
			t.Fatalf("%d requests reached the last target", len(seen))
		}
		if got := seen[0].Get("x-goog-api-key"); got != want {
			t.Errorf("credential %q, want %q", got, want)
		}
		if got := seen[0].Values("accept-encoding"); len(got) != 1 || got[0] != "identity" {
			t.Errorf("accept-encoding %q", got)
		}
		for name, values := range seen[0] {
			if text := strings.Join(values, " "); strings.Contains(text, "first-secret") || strings.Contains(text, "client-key") ||
				strings.HasPrefix(name, "X-Envoy") || strings.HasPrefix(name, "X-Forwarded") || name == "Cookie" || name == "X-Api-Key" ||
				name == "X-Request-Id" || name == "Authorization" {
				t.Errorf("the last target saw %s: %s", name, text)
			}
		}
	}
	for name := range first {
		t.Run(name, func(t *testing.T) {
			check(t, "p"+name, "last", "last-secret")
			if got := bad[name].requests()[0].Get("authorization"); got != "Bearer first-secret" {
				t.Errorf("the first target's credential is %q", got)
			}
		})
	}
	t.Run("refused connection", func(t *testing.T) { check(t, "refused", "last", "last-secret") })
	t.Run("name does not resolve", func(t *testing.T) { check(t, "no-name", "last", "last-secret") })
	t.Run("next has no credential", func(t *testing.T) { check(t, "p503", "bare", "") })

	t.Run("one target is tried once", func(t *testing.T) {
		r.ext.to("p503")
		before := len(bad["503"].requests())
		if a := r.post("{}"); a.status != 503 || a.body != "no" {
			t.Errorf("%+v", a)
		}
		if n := len(bad["503"].requests()) - before; n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
	t.Run("more retries than targets repeat the last", func(t *testing.T) {
		r.ext.set(func(map[string]string, []byte) decision {
			return decision{id: "d1", targets: []string{"p500", "p503"}, retries: 3}
		})
		before := len(bad["503"].requests())
		if a := r.post("{}"); a.status != 503 {
			t.Errorf("%+v", a)
		}
		if n := len(bad["503"].requests()) - before; n != 3 {
			t.Errorf("%d attempts at the last target, want 3", n)
		}
	})
}

// stalling takes the request and never answers.
func stalling(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body) // only then does the server see the client go
	<-r.Context().Done()
}

// TestClientCannotSteer: headers that steer Envoy, weir or an inference server
// are gone before weir sees a request.
func TestClientCannotSteer(t *testing.T) {
	t.Parallel()
	busy := startBackend(t, answering(503, "no"))
	r := startRig(t, planOf(pool("busy", busy.endpoint(t))), false)
	seen := make(chan map[string]string, 1)
	r.ext.set(func(h map[string]string, _ []byte) decision {
		seen <- h
		return decision{id: "d1", targets: []string{"busy"}}
	})
	spoofed := []string{
		"x-weir-decision", "X-Weir-Team", "x-envoy-max-retries", "X-Envoy-Retry-On", "x-envoy-upstream-rq-timeout-ms",
		"x-envoy-original-path", "x-gateway-destination-endpoint", "X-Override-Rid", "x-override-routed-dp-rank",
		"X-Vllm-Priority", "X-data-parallel-rank", "X-Session-ID", "x-prefiller-host-port", "x-llm-d-anything", "x-ai-eg-model",
	}
	var headers []string
	for _, name := range spoofed {
		headers = append(headers, name, "5")
	}
	if a := r.post("{}", append(headers, "x-kept", "yes", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")...); a.status != 503 {
		t.Errorf("%+v", a)
	}
	got := <-seen
	if got["x-kept"] != "yes" {
		t.Error("a harmless header is gone too")
	}
	for _, name := range spoofed {
		if v, ok := got[strings.ToLower(name)]; ok {
			t.Errorf("weir saw %s: %s", name, v)
		}
		if v := busy.requests()[0].Get(name); v != "" {
			t.Errorf("the backend saw %s: %s", name, v)
		}
	}
	if busy.requests()[0].Get("traceparent") == "" {
		t.Error("the trace context is gone")
	}
	if n := len(busy.requests()); n != 1 {
		t.Errorf("%d attempts", n)
	}
	if a := r.do("GET", "/", "", "x_weir_team", "a"); a.status != 400 {
		t.Errorf("underscore header: %+v", a)
	}
}

// TestBodies: a large body passes and is retried whole; a stream outlives the
// attempt's timeout once it has begun.
func TestBodies(t *testing.T) {
	t.Parallel()
	count := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			fmt.Fprint(w, n)
		}
	}
	bad, good := startBackend(t, count(503)), startBackend(t, count(200))
	long := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 10 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			time.Sleep(60 * time.Millisecond)
		}
	})
	r := startRig(t, planOf(pool("bad", bad.endpoint(t)), pool("good", good.endpoint(t)), pool("long", long.endpoint(t))), false)
	t.Run("20 MB", func(t *testing.T) {
		r.ext.to("bad", "good")
		if a := r.post(strings.Repeat("x", 20_000_000)); a.status != 200 || a.body != "20000000" {
			t.Errorf("%d %.100s", a.status, a.body)
		}
		if n := len(bad.requests()); n != 1 {
			t.Errorf("%d requests at the first target", n)
		}
	})
	t.Run("33 MiB and more", func(t *testing.T) {
		if a := r.post(strings.Repeat("x", 33<<20)); a.status != 413 {
			t.Errorf("%d %.100s", a.status, a.body)
		}
	})
	t.Run("stream", func(t *testing.T) {
		r.ext.set(func(map[string]string, []byte) decision {
			return decision{id: "d1", targets: []string{"long", "good"}, retries: 1, perTry: 200 * time.Millisecond}
		})
		if a := r.post("{}"); strings.Count(a.body, "data:") != 10 {
			t.Errorf("%+v", a)
		}
	})
}

// openStream starts a stream that the backend feeds until stop is closed, and
// returns a function that waits for its end and counts its events.
func (r *rig) openStream() (wait func() int) {
	r.t.Helper()
	resp, err := http.Post(r.url+"/v1/chat/completions", "application/json", strings.NewReader("{}"))
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		r.t.Fatalf("status %d", resp.StatusCode)
	}
	return func() int {
		defer resp.Body.Close()
		n := 0
		s := bufio.NewScanner(resp.Body)
		for s.Scan() {
			if strings.HasPrefix(s.Text(), "data:") {
				n++
			}
		}
		if err := s.Err(); err != nil {
			r.t.Errorf("the stream was cut: %v", err)
		}
		return n
	}
}
