package envoytest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

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

var pool = ai.AdapterTarget{Pool: "p", Model: "real", BasePath: "/v1", Host: "p.example"}

// start runs Envoy with the adapter before one backend.
func start(t testing.TB, req ai.AdapterRequest, answer http.HandlerFunc) (*envoytest.Envoy, *backend) {
	t.Helper()
	b := newBackend(t, answer)
	cfg := adapterConfig(req, target(t, b.Addr, pool))
	cfg.BodyLimit = 64 << 20
	return envoytest.Start(t, cfg), b
}

// What the client gets of a stream, over HTTP/1.1 and HTTP/2 to the backend and
// however the backend cuts it.
func TestStreams(t *testing.T) {
	whole := comment + role + hello + world + finish + usage + done
	want := comment + role + hello + world + finish + done
	var bytewise []string
	for i := range len(whole) {
		bytewise = append(bytewise, whole[i:i+1])
	}
	body, req := request(`,"stream":true}`, true, true)
	for _, http2 := range []bool{false, true} {
		b := newBackend(t, nil)
		to := target(t, b.Addr, pool)
		to.HTTP2 = http2
		e := envoytest.Start(t, adapterConfig(req, to))
		entries := 0
		for name, pieces := range map[string][]string{
			"one piece":             {whole},
			"usage with the finish": {comment, role, hello, world + finish + usage[:9], usage[9:] + done},
			"byte by byte":          bytewise,
			"nothing but usage":     {role, usage + done},
		} {
			t.Run(name+map[bool]string{true: ", HTTP/2"}[http2], func(t *testing.T) {
				b.answers(stream(pieces...))
				want := want
				if name == "nothing but usage" {
					want = role + done
				}
				got := post(t, e.URL+"/v1/chat/completions", body)
				if got.Status != 200 || got.Err != nil || got.Body != want {
					t.Errorf("status %d, %v, the client got %q", got.Status, got.Err, got.Body)
				}
				entries++
				u, err := ai.ParseAdapterUsage(e.Entries(entries)[entries-1].Usage)
				if err != nil || u.Input != 5 || u.CachedInput != 4 || u.Output != 2 || !u.Reported || !u.Done {
					t.Errorf("usage %+v, %v", u, err)
				}
			})
		}
	}
}

// A response with a length loses it when an event is removed.
func TestStreamWithLength(t *testing.T) {
	body, req := request(`,"stream":true}`, true, true)
	e, _ := start(t, req, func(w http.ResponseWriter, _ *http.Request) {
		text := hello + usage + done
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = io.WriteString(w, text)
	})
	if got := post(t, e.URL+"/v1/completions", body); got.Err != nil || got.Body != hello+done {
		t.Errorf("%v, the client got %q", got.Err, got.Body)
	}
}

func TestJSONAndErrors(t *testing.T) {
	const whole = `{"choices":[{"message":{"content":"Hello"},"finish_reason":"length"}],"usage":{"prompt_tokens":9,"completion_tokens":2}}`
	const complaint = `{"error":{"message":"no"},"usage":{"prompt_tokens":9}}`
	body, req := request(`,"n":1}`, false, false)
	e, b := start(t, req, jsonAnswer(whole))
	if got := post(t, e.URL+"/v1/chat/completions", body); got.Status != 200 || got.Body != whole {
		t.Errorf("the client got %d %s", got.Status, got.Body)
	}
	b.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, complaint)
	})
	if got := post(t, e.URL+"/v1/chat/completions", body); got.Status != 400 || got.Body != complaint {
		t.Errorf("the client got %d %s", got.Status, got.Body)
	}
	entries := e.Entries(2)
	u, err := ai.ParseAdapterUsage(entries[0].Usage)
	if err != nil || u.Input != 9 || u.Output != 2 || u.TextBytes != 5 || !u.Done || u.Finish != "length" || entries[0].Attempts != "p:200" {
		t.Errorf("entry %+v, %v", entries[0], err)
	}
	if entries[1].Attempts != "p:400" || entries[1].Usage != "" {
		t.Errorf("entry %+v", entries[1])
	}
}

// The model's name is spliced into 20 MB, at the front and at the back, sent in
// one piece or in many.
func TestLargeRequest(t *testing.T) {
	pad := strings.Repeat("x", 20<<20)
	for name, tc := range map[string]struct{ before, after string }{
		"model first": {`{"model":`, `,"x":"` + pad + `"}`},
		"model last":  {`{"x":"` + pad + `","model":`, `}`},
	} {
		t.Run(name, func(t *testing.T) {
			req := ai.AdapterRequest{ModelOffset: len(tc.before), ModelLength: len(`"virtual"`)}
			e, b := start(t, req, jsonAnswer(`{}`))
			got := post(t, e.URL+"/v1/chat/completions", []byte(tc.before+`"virtual"`+tc.after))
			want := tc.before + `"real"` + tc.after
			r := b.requests()
			if got.Status != 200 || len(r) != 1 || string(r[0].Body) != want || r[0].Length != int64(len(want)) {
				t.Fatalf("status %d, the backend got %d requests", got.Status, len(r))
			}
		})
	}
}

// A request whose body Envoy did not buffer before, and whose end comes with
// trailers, is adapted as a whole.
func TestChunkedRequestWithTrailers(t *testing.T) {
	body, req := request(`,"messages":[]}`, false, false)
	e, b := start(t, req, jsonAnswer(`{}`))
	r, w := io.Pipe()
	hr, err := http.NewRequest("POST", e.URL+"/v1/chat/completions", r)
	if err != nil {
		t.Fatal(err)
	}
	hr.Trailer = http.Header{"X-Trailer": {"t"}}
	go func() {
		for part := range bytes.SplitAfterSeq(body, []byte(":")) {
			_, _ = w.Write(part)
			time.Sleep(5 * time.Millisecond)
		}
		_ = w.Close()
	}()
	resp, err := http.DefaultClient.Do(hr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	want := strings.Replace(string(body), "virtual", "real", 1)
	if got := b.requests(); resp.StatusCode != 200 || len(got) != 1 || string(got[0].Body) != want {
		t.Errorf("status %d, the backend got %+v", resp.StatusCode, got)
	}
}

// What cannot be adapted is answered by the adapter, in OpenAI's shape, and goes
// to no target. Without a decision, by a route that leads past weir, it is a
// bypass, whatever the client sends.
func TestRefused(t *testing.T) {
	body, req := request(`}`, false, false)
	b := newBackend(t, jsonAnswer(`{}`))
	good := target(t, b.Addr, pool)
	bare := good
	bare.Metadata = nil
	undecided := envoytest.Config{Wasm: adapterWasm, RootID: "weir.adapter", Upstream: true, Targets: []envoytest.Target{good}}
	for name, tc := range map[string]struct {
		cfg           envoytest.Config
		status        int
		code, details string
	}{
		"cluster without metadata": {adapterConfig(req, bare), 500, "internal_error", ai.DetailsAdapter},
		"no decision":              {undecided, 403, "bypass", ai.DetailsBypass},
	} {
		t.Run(name, func(t *testing.T) {
			e := envoytest.Start(t, tc.cfg)
			got := post(t, e.URL+"/v1/chat/completions", body, ai.AttemptHeader, "{}\t"+req.String()+"\t-\t/v1/chat/completions")
			var shape struct {
				Error struct{ Message, Type, Code string }
			}
			if err := json.Unmarshal([]byte(got.Body), &shape); err != nil || got.Status != tc.status || shape.Error.Code != tc.code ||
				got.Header.Get("Content-Type") != "application/json" {
				t.Errorf("the client got %d %v %s", got.Status, got.Header, got.Body)
			}
			if n := len(b.requests()); n != 0 {
				t.Errorf("the backend got %d requests", n)
			}
			if entry := e.Entries(1)[0]; entry.Details != tc.details || entry.Attempts != "" || entry.Cluster != ai.ClusterName("p") {
				t.Errorf("entry %+v", entry)
			}
		})
	}
}

// A client that goes midway leaves in the access log what was used so far.
func TestClientGone(t *testing.T) {
	body, req := request(`,"stream":true}`, true, true)
	e, _ := start(t, req, stream(role, hello, world, stall))
	ctx, cancel := context.WithCancel(t.Context())
	hr, err := http.NewRequestWithContext(ctx, "POST", e.URL+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(hr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if strings.Contains(lines.Text(), "world") {
			break
		}
	}
	cancel()
	entry := e.Entries(1)[0]
	u, err := ai.ParseAdapterUsage(entry.Usage)
	if err != nil || u.Chunks != 2 || u.TextBytes != 11 || u.FirstToken == 0 || u.Reported || u.Done || !strings.Contains(entry.Flags, "DC") {
		t.Errorf("entry %+v: %+v, %v", entry, u, err)
	}
}
