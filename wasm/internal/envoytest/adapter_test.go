package envoytest_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/wasm/internal/envoytest"
)

// request is a body and what the adapter is told of it.
func request(rest string, stream, strip bool) (body []byte, req ai.AdapterRequest) {
	const before, model = `{"model": `, `"virtual"`
	return []byte(before + model + rest),
		ai.AdapterRequest{ModelOffset: len(before), ModelLength: len(model), Stream: stream, StripUsage: strip}
}

func target(t testing.TB, addr string, params ai.AdapterTarget) envoytest.Target {
	t.Helper()
	text, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	return envoytest.Target{Name: ai.ClusterName(params.Pool), Addr: addr,
		Metadata: map[string]map[string]string{ai.TargetMetadata: {ai.TargetKey: string(text)}}}
}

func adapterConfig(req ai.AdapterRequest, targets ...envoytest.Target) envoytest.Config {
	return envoytest.Config{
		Wasm: adapterWasm, RootID: "weir.adapter", Upstream: true, Targets: targets,
		Metadata: map[string]map[string]string{ai.MetadataNamespace: {ai.MetaRequest: req.String()}},
	}
}

const (
	role    = `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}` + "\n\n"
	hello   = `data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}` + "\n\n"
	world   = `data: {"choices":[{"index":0,"delta":{"content":" world"}}]}` + "\n\n"
	finish  = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	usage   = `data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}` + "\n\n"
	done    = "data: [DONE]\n\n"
	comment = ": ping\n\n"
)

// Each attempt gets its own model, path, host and length; the attempts and the
// usage are in the access log; a target whose first token stalls is replaced.
func TestFailover(t *testing.T) {
	busy := newBackend(t, status(http.StatusServiceUnavailable))
	slow := newBackend(t, stream(comment, role, stall))
	good := newBackend(t, stream(comment, role, hello, world, finish, usage, done))
	body, req := request(`,"stream":true,"messages":[]}`, true, true)
	cfg := adapterConfig(req,
		target(t, envoytest.RefusedAddr(t), ai.AdapterTarget{Pool: "refused", Model: "r", BasePath: "/r/v1", Host: "r"}),
		target(t, busy.Addr, ai.AdapterTarget{Pool: "busy", Model: "a/much-longer \"name\"", BasePath: "/api/v3", Host: "busy.example"}),
		target(t, slow.Addr, ai.AdapterTarget{Pool: "slow", Model: "s", BasePath: "/v1", Host: "slow.example:8000"}),
		target(t, good.Addr, ai.AdapterTarget{Pool: "good", Model: "the-real-one", BasePath: "", Host: "good.example"}))
	cfg.PerTryTimeout = "0.5s"
	e := envoytest.Start(t, cfg)

	got := post(t, e.URL+"/v1/chat/completions?x=1", body)
	if want := comment + role + hello + world + finish + done; got.Status != 200 || got.Body != want {
		t.Errorf("the client got %d %q, want %q", got.Status, got.Body, want)
	}
	for name, tc := range map[string]struct {
		from              *backend
		path, host, model string
	}{
		"busy": {busy, "/api/v3/chat/completions?x=1", "busy.example", `"a/much-longer \"name\""`},
		"slow": {slow, "/v1/chat/completions?x=1", "slow.example:8000", `"s"`},
		"good": {good, "/chat/completions?x=1", "good.example", `"the-real-one"`},
	} {
		r := tc.from.requests()
		if len(r) != 1 {
			t.Fatalf("%s received %d requests", name, len(r))
		}
		want := strings.Replace(string(body), `"virtual"`, tc.model, 1)
		if r[0].Path != tc.path || r[0].Host != tc.host || string(r[0].Body) != want || r[0].Length != int64(len(want)) {
			t.Errorf("%s received %s %s, %d bytes: %s", name, r[0].Host, r[0].Path, r[0].Length, r[0].Body)
		}
		if n := r[0].Header["Content-Length"]; len(n) != 1 || n[0] != strconv.Itoa(len(want)) {
			t.Errorf("%s received content-length %v", name, n)
		}
	}
	entry := e.Entries(1)[0]
	if want := "refused:0;busy:503;slow:200;good:200"; entry.Attempts != want {
		t.Errorf("attempts %q, want %q", entry.Attempts, want)
	}
	u, err := ai.ParseAdapterUsage(entry.Usage)
	want := ai.AdapterUsage{Usage: ai.Usage{Input: 5, CachedInput: 4, Output: 2}, Reported: true,
		Chunks: 2, TextBytes: 11, FirstToken: u.FirstToken, Finish: "stop", Done: true}
	if err != nil || u != want || u.FirstToken == 0 {
		t.Errorf("usage %q: %+v, %v", entry.Usage, u, err)
	}
}
