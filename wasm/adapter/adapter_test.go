package adapter

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/proxytest"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/weirproxy/weir/internal/ai"
)

// now is when everything happens, in microseconds since the epoch.
const now = 1_700_000_000_000_000

// world is the filter in the SDK's emulator of a host.
type world struct {
	proxytest.HostEmulator
	t           testing.TB
	target, req string // what Envoy knows of the attempt
}

func newWorld(t testing.TB, clock func() time.Time) *world {
	t.Helper()
	host, reset := proxytest.NewHostEmulator(proxytest.NewEmulatorOption().WithVMContext(&vm{now: clock}))
	t.Cleanup(reset)
	return &world{HostEmulator: host, t: t}
}

func standing() time.Time { return time.UnixMicro(now) }

func (w *world) state(name string) string {
	value, err := w.GetProperty([]string{name})
	if err != nil {
		return ""
	}
	return string(value)
}

// give sets what the host knows of an attempt.
func (w *world) give(target ai.AdapterTarget, req ai.AdapterRequest) {
	w.t.Helper()
	params, err := json.Marshal(target)
	if err != nil {
		w.t.Fatal(err)
	}
	w.target, w.req = string(params), req.String()
}

func (w *world) header(id uint32, name string) string {
	for _, h := range w.GetCurrentRequestHeaders(id) {
		if h[0] == name {
			return h[1]
		}
	}
	return ""
}

// refused tells whether the adapter answered in the place of the target, since it
// could not adapt the request.
func (w *world) refused(id uint32) bool {
	w.t.Helper()
	return w.refusedAs(id, "server_error", 500)
}

func (w *world) refusedAs(id uint32, kind string, status uint32) bool {
	w.t.Helper()
	r := w.GetSentLocalResponse(id)
	if r == nil {
		return false
	}
	var body struct {
		Error struct{ Message, Type, Code string }
	}
	if err := json.Unmarshal(r.Data, &body); err != nil || body.Error.Type != kind || body.Error.Message == "" {
		w.t.Errorf("the refusal is not in OpenAI's shape: %s", r.Data)
	}
	if r.StatusCode != status {
		w.t.Errorf("the refusal has status %d", r.StatusCode)
	}
	return true
}

var (
	poolA = ai.AdapterTarget{Pool: "a", Model: "real/a", BasePath: "/api/v3", Host: "a.example"}
	poolB = ai.AdapterTarget{Pool: "b", Model: "b", BasePath: "/v1", Host: "b.example:8000"}
)

const requestText = `{"stream":true,"model":"virtual","messages":[{"role":"user","content":"hi"}]}`

func requestOf(stream, strip bool) ai.AdapterRequest {
	return ai.AdapterRequest{ModelOffset: strings.Index(requestText, `"virtual"`), ModelLength: len(`"virtual"`),
		Stream: stream, StripUsage: strip}
}

// attemptHeaders are those of the request as an attempt finds them.
func (w *world) attemptHeaders(path string) [][2]string {
	return [][2]string{{":path", path}, {":authority", "client"}, {"content-length", "7"},
		{ai.AttemptHeader, strings.Join([]string{w.target, w.req, w.state(ai.StateAttempts), path}, "\t")}}
}

// send sends the request in pieces of n bytes and returns the attempt.
func (w *world) send(path string, n int) uint32 {
	w.t.Helper()
	id := w.InitializeHttpContext()
	if w.CallOnRequestHeaders(id, w.attemptHeaders(path), false) != types.ActionPause {
		w.t.Error("the request's headers went on before its length was known")
	}
	if w.GetSentLocalResponse(id) != nil {
		return id
	}
	for rest := requestText; rest != ""; {
		piece := rest[:min(n, len(rest))]
		rest = rest[len(piece):]
		action := w.CallOnRequestBody(id, []byte(piece), rest == "")
		if (action == types.ActionPause) != (rest != "" || w.GetSentLocalResponse(id) != nil) {
			w.t.Errorf("action %v with %d bytes to come", action, len(rest))
		}
	}
	return id
}

func TestRequest(t *testing.T) {
	for _, n := range []int{1, 5, len(requestText)} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			w := newWorld(t, standing)
			w.give(poolA, requestOf(true, true))
			id := w.send("/v1/chat/completions?q=/v1/x", n)
			want := strings.Replace(requestText, "virtual", "real/a", 1)
			if got := string(w.GetCurrentRequestBody(id)); got != want {
				t.Errorf("the target got %s", got)
			}
			for name, want := range map[string]string{
				":path": "/api/v3/chat/completions?q=/v1/x", ":authority": "a.example", "content-length": strconv.Itoa(len(want)),
			} {
				if got := w.header(id, name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if got := w.state(ai.StateAttempts); got != "a:0" {
				t.Errorf("attempts %q", got)
			}
			w.CompleteHttpContext(id)
		})
	}
}

// A later attempt finds the headers as the one before left them.
func TestRetry(t *testing.T) {
	w := newWorld(t, standing)
	w.give(poolA, requestOf(true, true))
	first := w.send("/v1/chat/completions", 1000)
	w.CallOnResponseHeaders(first, [][2]string{{":status", "503"}, {"content-type", "application/json"}}, false)
	w.CompleteHttpContext(first)

	w.give(poolB, requestOf(true, true))
	second := w.send(w.header(first, ":path"), 1000)
	if got := w.header(second, ":path"); got != "/v1/chat/completions" {
		t.Errorf(":path is %q", got)
	}
	if got := w.header(second, ":authority"); got != "b.example:8000" {
		t.Errorf(":authority is %q", got)
	}
	w.CompleteHttpContext(second)

	w.give(ai.AdapterTarget{Pool: "c", Model: "c"}, requestOf(true, true))
	third := w.send(w.header(second, ":path"), 1000)
	w.CallOnResponseHeaders(third, [][2]string{{":status", "200"}}, false)
	if got := w.header(third, ":path"); got != "/chat/completions" {
		t.Errorf(":path is %q", got)
	}
	if got := w.header(third, ":authority"); got != "client" {
		t.Errorf(":authority without a host is %q", got)
	}
	if got := w.state(ai.StateAttempts); got != "a:503;b:0;c:200" {
		t.Errorf("attempts %q", got)
	}
}

// The first attempt that rewrites the path need not be the first one.
func TestPathRewrittenLate(t *testing.T) {
	w := newWorld(t, standing)
	path := "/v1/chat/completions"
	for _, tc := range []struct {
		target ai.AdapterTarget
		want   string
	}{
		{poolB, "/v1/chat/completions"}, {poolA, "/api/v3/chat/completions"},
		{poolA, "/api/v3/chat/completions"}, {poolB, "/v1/chat/completions"},
	} {
		w.give(tc.target, requestOf(true, true))
		id := w.send(path, 1000)
		if path = w.header(id, ":path"); path != tc.want {
			t.Errorf("pool %s: :path is %q, want %q", tc.target.Pool, path, tc.want)
		}
		w.CompleteHttpContext(id)
	}
}

// An answer to a request that asked for no stream is metered by how it begins.
func TestUnaskedForms(t *testing.T) {
	const whole = `{"choices":[{"message":{"content":"Hello"}}],"usage":{"prompt_tokens":9,"completion_tokens":2}}`
	for name, tc := range map[string]struct {
		contentType, body string
		metered           bool
	}{
		"JSON":          {"application/json", whole, true},
		"blanks first":  {"application/json", "\n " + whole, true},
		"event stream":  {"text/event-stream", evHello + evUsage + evDone, true},
		"another":       {"text/plain", "usage", false},
		"nothing":       {"application/json", "", false},
		"JSON, unnamed": {"", whole, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, standing)
			w.give(poolB, requestOf(false, false))
			id := w.send("/v1/chat/completions", 1000)
			got, released := w.respond(id, [][2]string{{":status", "200"}, {"content-type", tc.contentType}}, tc.body, 9)
			if got != tc.body || released != 0 {
				t.Errorf("released after %d, the client got %q", released, got)
			}
			u, err := ai.ParseAdapterUsage(w.state(ai.StateUsage))
			if err != nil || tc.metered != (u.Usage == nine2) {
				t.Errorf("usage %+v, %v", u, err)
			}
		})
	}
}

// Nothing goes to a target that was not adapted for it.
func TestRefusals(t *testing.T) {
	good := requestOf(true, true).String()
	for name, tc := range map[string]struct{ target, req, path string }{
		"no target":            {"", good, "/v1/chat/completions"},
		"target is not JSON":   {"{", good, "/v1/chat/completions"},
		"target without model": {`{"pool":"p"}`, good, "/v1/chat/completions"},
		"target without pool":  {`{"model":"m"}`, good, "/v1/chat/completions"},
		"request unreadable":   {`{"pool":"p","model":"m"}`, "1 x -", "/v1/chat/completions"},
		"beyond the body":      {`{"pool":"p","model":"m"}`, "60 90 -", "/v1/chat/completions"},
		"not on a string":      {`{"pool":"p","model":"m"}`, "3 9 -", "/v1/chat/completions"},
		"another path":         {`{"pool":"p","model":"m"}`, good, "/v2/chat/completions"},
		"no path below":        {`{"pool":"p","model":"m"}`, good, "/v1x"},
		"overflow":             {`{"pool":"p","model":"m"}`, "9223372036854775807 9 -", "/v1/chat/completions"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, standing)
			w.target, w.req = tc.target, tc.req
			id := w.send(tc.path, 1000)
			if !w.refused(id) {
				t.Error("the request was passed on")
			}
			if w.CallOnRequestBody(id, []byte("x"), true) != types.ActionPause {
				t.Error("a refused request's body was passed on")
			}
			if len(w.GetErrorLogs()) == 0 {
				t.Error("the log does not say why")
			}
		})
	}
}

// A request of which weir was not asked goes to no target, whatever else is known.
func TestBypass(t *testing.T) {
	for name, tc := range map[string]struct {
		decision string
		end      bool
	}{
		"nothing": {"", false}, "absent": {"-", false}, "without a body": {"-", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, standing)
			w.give(poolA, requestOf(false, false))
			w.req = tc.decision
			id := w.InitializeHttpContext()
			if w.CallOnRequestHeaders(id, w.attemptHeaders("/v1/chat/completions"), tc.end) != types.ActionPause || !w.refusedAs(id, "permission_error", 403) {
				t.Error("the request was passed on")
			}
			if got := w.state(ai.StateAttempts); got != "" {
				t.Errorf("the attempts are %q", got)
			}
		})
	}
}

func TestRequestWithoutBody(t *testing.T) {
	w := newWorld(t, standing)
	w.give(poolA, requestOf(false, false))
	id := w.InitializeHttpContext()
	if w.CallOnRequestHeaders(id, [][2]string{{":path", "/v1/models"}}, true) != types.ActionPause || !w.refused(id) {
		t.Error("a request without a body was passed on")
	}
}

// respond gives the attempt a response in pieces of n bytes and returns what
// the client gets, and after how many bytes of it the headers went on.
func (w *world) respond(id uint32, headers [][2]string, body string, n int) (got string, released int) {
	w.t.Helper()
	released = -1
	if w.CallOnResponseHeaders(id, headers, false) == types.ActionContinue {
		released = 0
	}
	sent := 0
	for rest := body; ; {
		piece := rest[:min(n, len(rest))]
		rest = rest[len(piece):]
		sent += len(piece)
		if w.CallOnResponseBody(id, []byte(piece), rest == "") == types.ActionContinue {
			if released < 0 {
				released = sent
			}
			got += string(w.GetCurrentResponseBody(id))
		} else if released >= 0 {
			w.t.Errorf("a response that had begun stopped after %d bytes", sent)
		}
		if rest == "" {
			return got, released
		}
	}
}

func events(status string) [][2]string {
	return [][2]string{{":status", status}, {"content-type", "text/event-stream; charset=utf-8"}, {"content-length", "9"}}
}

// The client gets the same however the response is split; the headers go on
// with the first content; the usage is in the filter state.
func TestStreamedResponse(t *testing.T) {
	const before, after = evPing + evRole, evHello + evTool + evFinish
	const want = before + after + evDone
	for n := 1; n < 400; n += 13 {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			w := newWorld(t, standing)
			w.give(poolA, requestOf(true, true))
			id := w.send("/v1/chat/completions", 1000)
			got, released := w.respond(id, events("200"), before+after+evUsage+evDone, n)
			if got != want {
				t.Errorf("pieces of %d: the client got %q", n, got)
			}
			if first := len(before) + len(evHello); released < first || released >= first+n {
				t.Errorf("pieces of %d: headers went on after %d bytes, the first content ends at %d", n, released, first)
			}
			for _, h := range w.GetCurrentResponseHeaders(id) {
				if h[0] == "content-length" {
					t.Errorf("content-length %s of a response that gets shorter", h[1])
				}
			}
			u, err := ai.ParseAdapterUsage(w.state(ai.StateUsage))
			if wantUsage := (ai.AdapterUsage{Usage: nine2, Reported: true, Chunks: 2, TextBytes: 7, FirstToken: now, Finish: "stop", Done: true}); err != nil || u != wantUsage {
				t.Errorf("pieces of %d: usage %+v, %v", n, u, err)
			}
			if got := w.state(ai.StateAttempts); got != "a:200" {
				t.Errorf("attempts %q", got)
			}
			w.CompleteHttpContext(id)
		})
	}
}

// Usage is noted while the response passes, for a client that goes midway.
func TestUsageMidway(t *testing.T) {
	w := newWorld(t, standing)
	w.give(poolA, requestOf(true, false))
	id := w.send("/v1/chat/completions", 1000)
	w.CallOnResponseHeaders(id, events("200"), false)
	w.CallOnResponseBody(id, []byte(evRole), false)
	if got := w.state(ai.StateUsage); got != "" {
		t.Errorf("usage %q of an attempt that may still be replaced", got)
	}
	for i := range 3 {
		w.CallOnResponseBody(id, []byte(evHello), false)
		u, err := ai.ParseAdapterUsage(w.state(ai.StateUsage))
		if want := (ai.AdapterUsage{Chunks: int64(i + 1), TextBytes: int64(5 * (i + 1)), FirstToken: now}); err != nil || u != want {
			t.Errorf("after %d chunks: %+v, %v", i+1, u, err)
		}
	}
}

// What else ends the wait for the first content.
func TestHoldEnds(t *testing.T) {
	for name, body := range map[string]string{
		"error": evError, "finish": evFinish, "done": evDone,
		"much": strings.Repeat(evPing, maxHeld/len(evPing)+1) + evDone,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, standing)
			w.give(poolA, requestOf(true, true))
			id := w.send("/v1/chat/completions", 1000)
			got, released := w.respond(id, events("200"), body, 1000)
			if got != body || released < 0 {
				t.Errorf("released after %d, the client got %d bytes of %d", released, len(got), len(body))
			}
			if name == "much" && (released <= maxHeld || released > maxHeld+1000) {
				t.Errorf("released after %d bytes", released)
			}
		})
	}
}

// A stream that ends before its first content fails: the next target is tried.
func TestEmptyStream(t *testing.T) {
	for name, body := range map[string]string{"nothing": "", "pings": evPing + evPing, "a role": evRole} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, standing)
			w.give(poolA, requestOf(true, true))
			id := w.send("/v1/chat/completions", 1000)
			got, _ := w.respond(id, events("200"), body, 9)
			if !strings.Contains(got, `"code":"stream_interrupted"`) || !json.Valid([]byte(got)) {
				t.Errorf("the client got %q", got)
			}
			for _, h := range w.GetCurrentResponseHeaders(id) {
				want := map[string]string{":status": "502", "content-type": "application/json", "content-length": strconv.Itoa(len(got))}[h[0]]
				if want != h[1] {
					t.Errorf("%s is %q, want %q", h[0], h[1], want)
				}
			}
			if got := w.state(ai.StateAttempts); got != "a:502" {
				t.Errorf("attempts %q", got)
			}
		})
	}
}

// Behind a stream that breaks off stands an event that says so, however it came.
func TestInterruption(t *testing.T) {
	for name, tc := range map[string]struct {
		body  string
		tells bool
	}{
		"content": {evHello, true}, "within an event": {evHello + evHello[:60], true}, "usage": {evHello + evUsage, true},
		"finish": {evHello + evFinish, false}, "done": {evHello + evDone, false}, "error": {evHello + evError, false},
	} {
		for _, n := range []int{1, 50, 10_000} {
			t.Run(name+" "+strconv.Itoa(n), func(t *testing.T) {
				w := newWorld(t, standing)
				w.give(poolA, requestOf(true, false))
				id := w.send("/v1/chat/completions", 1000)
				want := tc.body
				if tc.tells {
					want += string(interruption)
				}
				if got, _ := w.respond(id, events("200"), tc.body, n); got != want {
					t.Errorf("the client got %q", got)
				}
			})
		}
	}
}

// An answer in JSON that ends in its middle is cut.
func TestPartialJSON(t *testing.T) {
	for body, cut := range map[string]bool{
		`{"choices":[`: true, `{`: true, `{"a":"{`: true, `{"a":[[{}]`: true,
		`{"choices":[]}`: false, `[{`: false, `text`: false, `{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`: false,
	} {
		t.Run(body[:min(8, len(body))], func(t *testing.T) { // the emulator is one for all: a second in a test waits for the first forever
			w := newWorld(t, standing)
			w.give(poolA, requestOf(false, false))
			id := w.send("/v1/chat/completions", 1000)
			w.CallOnResponseHeaders(id, [][2]string{{":status", "200"}, {"content-type", "application/json"}}, false)
			for i := range len(body) {
				w.CallOnResponseBody(id, []byte(body[i:i+1]), i == len(body)-1)
			}
			if r := w.GetSentLocalResponse(id); (r != nil) != cut {
				t.Errorf("cut is %v", r != nil)
			}
		})
	}
}

// For how long a backend asks to be left alone stands behind its status.
func TestRestIsNoted(t *testing.T) {
	for _, tt := range []struct {
		limits  bool
		headers [][2]string
		want    string
	}{
		{false, [][2]string{{":status", "429"}, {"retry-after", "20"}}, "a:429:20000"},
		{false, [][2]string{{":status", "429"}, {"x-ratelimit-reset-tokens", "1.5s"}}, "a:429:1500"},
		{false, [][2]string{{":status", "503"}}, "a:503"},
		{false, [][2]string{{":status", "200"}, {"content-type", "application/json"}, {"x-ratelimit-remaining-requests", "0"}, {"x-ratelimit-reset-requests", "9s"}}, "a:200"},
		{true, [][2]string{{":status", "200"}, {"content-type", "application/json"}, {"x-ratelimit-remaining-requests", "0"}, {"x-ratelimit-reset-requests", "9s"}}, "a:200:9000"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			w := newWorld(t, standing)
			target := poolA
			target.TellsLimits = tt.limits
			w.give(target, requestOf(false, false))
			id := w.send("/v1/chat/completions", 1000)
			w.CallOnResponseHeaders(id, tt.headers, false)
			if got := w.state(ai.StateAttempts); got != tt.want {
				t.Errorf("attempts %q, want %q", got, tt.want)
			}
		})
	}
}

// What is not a successful answer in a form that is known passes untouched.
func TestUntouched(t *testing.T) {
	const text = evRole + evUsage + evDone
	for name, headers := range map[string][][2]string{
		"status":     events("429"),
		"other type": {{":status", "200"}, {"content-type", "text/plain"}},
		"no type":    {{":status", "200"}},
		"compressed": append(events("200"), [2]string{"content-encoding", "gzip"}),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, standing)
			w.give(poolA, requestOf(true, true))
			id := w.send("/v1/chat/completions", 1000)
			got, released := w.respond(id, headers, text, 10)
			if got != text || released != 0 {
				t.Errorf("released after %d, the client got %q", released, got)
			}
			if w.state(ai.StateUsage) != "" {
				t.Errorf("usage %q", w.state(ai.StateUsage))
			}
			if got, want := w.state(ai.StateAttempts), "a:"+headers[0][1]; got != want {
				t.Errorf("attempts %q, want %q", got, want)
			}
		})
	}
}

func TestJSONResponse(t *testing.T) {
	const body = `{"choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2}}`
	for _, n := range []int{1, 7, 1000} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			w := newWorld(t, standing)
			w.give(poolA, requestOf(false, false))
			id := w.send("/v1/chat/completions", 1000)
			got, released := w.respond(id, [][2]string{{":status", "200"}, {"content-type", "Application/JSON"}}, body, n)
			if got != body || released != 0 {
				t.Errorf("released after %d, the client got %s", released, got)
			}
			u, err := ai.ParseAdapterUsage(w.state(ai.StateUsage))
			if want := (ai.AdapterUsage{Usage: nine2, Reported: true, TextBytes: 5, FirstToken: now, Finish: "stop", Done: true}); err != nil || u != want {
				t.Errorf("usage %+v, %v", u, err)
			}
			w.CompleteHttpContext(id)
		})
	}
}

// A response that ends with trailers is metered to its end.
func TestTrailers(t *testing.T) {
	for name, headers := range map[string][][2]string{
		"stream": events("200"), "JSON": {{":status", "200"}, {"content-type", "application/json"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, standing)
			w.give(poolA, requestOf(true, false))
			id := w.send("/v1/chat/completions", 1000)
			w.CallOnResponseHeaders(id, headers, false)
			w.CallOnResponseBody(id, []byte(strings.TrimPrefix(evLast, map[string]string{"JSON": "data: "}[name])), false)
			if w.CallOnResponseTrailers(id, nil) != types.ActionContinue {
				t.Error("the trailers stopped")
			}
			u, err := ai.ParseAdapterUsage(w.state(ai.StateUsage))
			if err != nil || u.Usage != nine2 {
				t.Errorf("usage %+v, %v", u, err)
			}
		})
	}
}

// A panic costs its own stream only: an answer if nothing was sent yet, and the
// rest unmetered if something was.
func TestPanic(t *testing.T) {
	broken := func() time.Time { panic("no clock") }
	plain := [][2]string{{":status", "200"}, {"content-type", "application/json"}}

	w := newWorld(t, broken)
	w.give(poolA, requestOf(true, true))
	id := w.send("/v1/chat/completions", 1000)
	w.CallOnResponseHeaders(id, events("200"), false)
	w.CallOnResponseBody(id, []byte(evRole+evHello), false)
	if !w.refused(id) {
		t.Error("a stream whose bytes may be missing went on")
	}

	id = w.send("/v1/chat/completions", 1000)
	got, _ := w.respond(id, plain, `{"usage":{"prompt_tokens":1}}`, 5)
	if got != `{"usage":{"prompt_tokens":1}}` || w.refused(id) {
		t.Errorf("the client got %q", got)
	}
	if len(w.GetErrorLogs()) != 2 {
		t.Errorf("the log has %q", w.GetErrorLogs())
	}
}

// The cache of targets is bounded, and forgets nothing that is in use.
func TestTargetsBound(t *testing.T) {
	known := targets{}
	for i := range 3 * maxTargets {
		params := `{"pool":"p","model":"m` + strconv.Itoa(i) + `"}`
		for range 2 {
			got, err := known.read(params)
			if err != nil || string(got.model) != `"m`+strconv.Itoa(i)+`"` {
				t.Fatalf("%s: %+v, %v", params, got, err)
			}
		}
		if len(known) > maxTargets {
			t.Fatalf("%d targets are kept", len(known))
		}
	}
}
