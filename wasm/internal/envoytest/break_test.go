package envoytest_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/wasm/internal/envoytest"
)

// raw answers with these bytes, and closes the connection or resets it.
func raw(reset bool, pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, strings.Join(pieces, ""))
		if reset {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
	}
}

func framed(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

const (
	streamHead = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
	chunked    = streamHead + "transfer-encoding: chunked\r\n\r\n"
	lastChunk  = "0\r\n\r\n"
	closing    = "connection: close\r\n\r\n"
)

// A stream that breaks off never looks whole: an event says so where the backend's
// connection ended well, and the client's connection breaks where the backend's did.
func TestStreamsThatBreak(t *testing.T) {
	const broke = `data: {"error":{"message":"The backend's answer broke off: what came before is not all of it.",` +
		`"type":"server_error","param":null,"code":"stream_interrupted"}}` + "\n\n"
	for _, strip := range []bool{false, true} {
		body, req := request(`,"stream":true}`, true, strip)
		e, b := start(t, req, nil)
		entries := 0
		for _, tc := range []struct {
			name   string
			answer http.HandlerFunc
			want   string
			broken bool
		}{
			{"no end", stream(hello, world), hello + world + "\n\n" + broke, false},
			{"the role waits", raw(false, chunked, framed(role), framed(hello)+lastChunk), role + hello + "\n\n" + broke, false},
			{"the end of the connection", raw(false, streamHead, closing, hello), hello + "\n\n" + broke, false},
			{"a length", raw(false, streamHead, fmt.Sprintf("content-length: %d\r\n\r\n", len(hello)), hello), hello + "\n\n" + broke, false},
			{"trailers", raw(false, chunked, framed(hello), "0\r\nx: y\r\n\r\n"), hello + "\n\n" + broke, false},
			{"within an event", raw(false, chunked, framed(hello+world[:60]), lastChunk), hello + world[:60] + "\n\n" + broke, false},
			{"no [DONE]", stream(hello, finish), hello + finish, false},
			{"closed", raw(false, chunked, framed(hello)), hello, true},
			{"reset", raw(true, chunked, framed(hello), framed(world)[:20]), "", true},
			{"short of its length", raw(false, streamHead, "content-length: 1000\r\n\r\n", hello), hello, true},
		} {
			t.Run(fmt.Sprintf("%s, strip %v", tc.name, strip), func(t *testing.T) {
				b.answers(tc.answer)
				got := post(t, e.URL+"/v1/chat/completions", body)
				entries++
				entry := e.Entries(entries)[entries-1]
				if tc.name == "reset" { // it overtakes what was sent before
					if got.Err == nil && got.Status == 200 {
						t.Errorf("the client got %d %q", got.Status, got.Body)
					}
					return
				}
				if got.Status != 200 || got.Body != tc.want || (got.Err != nil) != tc.broken {
					t.Errorf("%d, %v, the client got %q", got.Status, got.Err, got.Body)
				}
				if broken := strings.HasPrefix(entry.Details, "upstream_reset_after_response_started"); broken != tc.broken {
					t.Errorf("entry %+v", entry)
				}
			})
		}
	}
}

// A stream that ends before its first content is a failed attempt like others.
func TestEmptyStreamFailsOver(t *testing.T) {
	empty, good := newBackend(t, stream(comment, role)), newBackend(t, stream(role, hello, finish, done))
	body, req := request(`,"stream":true}`, true, true)
	cfg := adapterConfig(req, target(t, empty.Addr, ai.AdapterTarget{Pool: "empty", Model: "e", BasePath: "/v1"}),
		target(t, good.Addr, ai.AdapterTarget{Pool: "good", Model: "g", BasePath: "/v1"}))
	e := envoytest.Start(t, cfg)
	if got := post(t, e.URL+"/v1/chat/completions", body); got.Status != 200 || got.Body != role+hello+finish+done {
		t.Errorf("the client got %d %q", got.Status, got.Body)
	}
	if got := e.Entries(1)[0].Attempts; got != "empty:502;good:200" {
		t.Errorf("attempts %q", got)
	}
	good.answers(stream(comment))
	if got := post(t, e.URL+"/v1/chat/completions", body); got.Status != 502 || !strings.Contains(got.Body, `"code":"stream_interrupted"`) {
		t.Errorf("the client got %d %q", got.Status, got.Body)
	}
}

// A whole answer that ends in its middle breaks the client's connection, also where
// the end of the backend's connection is the end of the answer.
func TestAnswersThatBreak(t *testing.T) {
	const head, half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n", `{"choices":[{"message":{"content":"Hel`
	body, req := request(`,"n":1}`, false, false)
	e, b := start(t, req, nil)
	for i, tc := range []struct {
		name, text, details string
	}{
		{"the end of the connection", head + closing + half, ai.DetailsInterrupted},
		{"chunks", head + "transfer-encoding: chunked\r\n\r\n" + framed(half) + lastChunk, ai.DetailsInterrupted},
		{"no last chunk", head + "transfer-encoding: chunked\r\n\r\n" + framed(half), "upstream_reset_after_response_started{protocol_error}"},
		{"short of its length", head + "content-length: 100\r\n\r\n" + half, "upstream_reset_after_response_started{protocol_error}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b.answers(raw(false, tc.text))
			got := post(t, e.URL+"/v1/chat/completions", body)
			if got.Err == nil {
				t.Errorf("the client got %d %q", got.Status, got.Body)
			}
			if entry := e.Entries(i + 1)[i]; entry.Details != tc.details {
				t.Errorf("entry %+v", entry)
			}
		})
	}
}

// A stream that falls silent is cut when its pool's time is up, and no other.
func TestSilentStreams(t *testing.T) {
	body, req := request(`,"stream":true}`, true, false)
	silent, lively := newBackend(t, stream(role, hello, stall)), newBackend(t, nil)
	lively.answers(func(w http.ResponseWriter, _ *http.Request) {
		out := http.NewResponseController(w)
		w.Header().Set("Content-Type", "text/event-stream")
		for _, piece := range []string{hello, comment, comment, comment, world, finish + done} {
			_, _ = io.WriteString(w, piece)
			_ = out.Flush()
			time.Sleep(600 * time.Millisecond)
		}
	})
	for name, tc := range map[string]struct {
		backend       *backend
		want, details string
	}{
		"silent": {silent, role + hello, ai.DetailsIdle},
		"lively": {lively, hello + comment + comment + comment + world + finish + done, "via_upstream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limited := pool
			limited.StreamIdleMillis = 1000
			e := envoytest.Start(t, adapterConfig(req, target(t, tc.backend.Addr, limited)))
			begun := time.Now()
			got := post(t, e.URL+"/v1/chat/completions", body)
			took := time.Since(begun)
			if cut := name == "silent"; got.Status != 200 || got.Body != tc.want || (got.Err != nil) != cut || cut && (took < time.Second || took > 4*time.Second) {
				t.Errorf("after %v: %d, %v, the client got %q", took, got.Status, got.Err, got.Body)
			}
			t.Logf("ended after %v", took)
			if entry := e.Entries(1)[0]; entry.Details != tc.details || entry.Attempts != "p:200" || entry.Usage == "" {
				t.Errorf("entry %+v", entry)
			}
			again := post(t, e.URL+"/v1/chat/completions", body)
			if again.Body != tc.want {
				t.Errorf("the next one got %q", again.Body)
			}
		})
	}
}
