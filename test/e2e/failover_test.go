package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// A failure of the first target moves the request to the second, which gets its
// own model name, path and credential; the client sees an ordinary answer.
func TestFailover(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tried := int64(0)
	for _, tc := range []struct {
		name   string
		stream bool
		fault  simulate.Fault
	}{
		{"503", false, simulate.Fault{Status: 503}},
		{"503 to a stream", true, simulate.Fault{Status: 503}},
		{"weir's credential is refused", false, simulate.Fault{Status: 401}},
		{"the balance is used up", true, simulate.Fault{Status: 402}},
		{"reset", false, simulate.Fault{Reset: true}},
		{"headers that do not come", false, simulate.Fault{StallBeforeHeadersMS: -1}},
		{"first token that does not come", true, simulate.Fault{StallFirstTokenMS: -1}},
		// The last one: the pool is then left alone for as long as it asks.
		{"429", false, simulate.Fault{Status: 429, Headers: map[string]string{"retry-after": "7"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.a.fault(t, tc.fault)
			w.b.fault(t)
			got := w.post("/v1/chat/completions", chatBody("chat", tc.stream), "authorization", "Bearer "+testKey)
			if got.status != 200 || got.header.Get("x-simulator") != "b" {
				t.Fatalf("status %d from %q: %s", got.status, got.header.Get("x-simulator"), got.body)
			}
			if tc.stream && !strings.Contains(got.body, "data: [DONE]") {
				t.Errorf("the stream is not complete: %s", got.body)
			}
			first, second := w.a.received(t, 1)[0], w.b.received(t, 1)[0]
			checkAttempt(t, "first", first, realModelA, credentialA)
			checkAttempt(t, "second", second, realModelB, credentialB)
		})
		if tc.fault.Status == 429 { // the pool rests
			break
		}
		// Between two failures the pool answers, or it would be behind the other one.
		w.a.fault(t)
		w.chat("embed")
		eventually(t, 10*time.Second, func() string {
			if n := w.pools(t)["a"].Attempts; n < tried+2 {
				return fmt.Sprintf("%d attempts at a, want %d", n, tried+2)
			}
			return ""
		})
		tried = w.pools(t)["a"].Attempts
	}
	eventually(t, 10*time.Second, func() string {
		line := lineWith(w.log.String(), "chat → b", "tried a 503, b 200")
		if line == "" {
			return "no request line names both attempts:\n" + last(w.log.String(), 2000)
		}
		return ""
	})
}

// lineWith is the last line of the log that holds all of the words.
func lineWith(log string, words ...string) string {
	found := ""
	for line := range strings.Lines(log) {
		ok := true
		for _, word := range words {
			ok = ok && strings.Contains(line, word)
		}
		if ok {
			found = line
		}
	}
	return found
}

// checkAttempt looks at what a backend received, bytes and headers.
func checkAttempt(t *testing.T, which string, r simulate.Request, model, credential string) {
	t.Helper()
	var body struct{ Model string }
	if err := json.Unmarshal([]byte(r.Body), &body); err != nil || body.Model != model {
		t.Errorf("%s attempt: model %q, want %q (%v)", which, body.Model, model, err)
	}
	if got := r.Headers.Values("authorization"); len(got) != 1 && credential != "" || credential != "" && got[0] != "Bearer "+credential {
		t.Errorf("%s attempt: authorization %q", which, got)
	}
	if r.Path != "/v1/chat/completions" {
		t.Errorf("%s attempt: path %s", which, r.Path)
	}
	all := fmt.Sprint(r.Headers) + r.Body
	for _, secret := range []string{testKey, credentialA, credentialB} {
		if secret != credential && strings.Contains(all, secret) {
			t.Errorf("%s attempt: received a secret that is not its own (%.12s…)", which, secret)
		}
	}
	for name := range r.Headers {
		if strings.HasPrefix(strings.ToLower(name), "x-weir-") {
			t.Errorf("%s attempt: received %s", which, name)
		}
	}
}

func TestRefusedConnectionFailsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(edited(t, w.yaml, w.a.url, fmt.Sprintf("http://127.0.0.1:%d", freePort(t))))
	w.b.fault(t)
	eventually(t, 10*time.Second, func() string {
		if got := w.chat("chat"); got.status != 200 || got.header.Get("x-simulator") != "b" {
			return fmt.Sprintf("status %d from %q", got.status, got.header.Get("x-simulator"))
		}
		return ""
	})
}

// Nothing of the first target's credential reaches a second target that has none.
func TestCredentialOfFirstTargetIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.fault(t, simulate.Fault{Status: 503})
	w.b.fault(t)
	if got := w.chat("anonymous-second"); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	r := w.b.received(t, 1)[0]
	checkAttempt(t, "second", r, realModelB, "")
	if got := r.Headers.Values("authorization"); len(got) != 0 {
		t.Errorf("authorization %q", got)
	}
}

// When every target fails the client gets the last answer, once each was tried.
func TestAllTargetsFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.fault(t, simulate.Fault{Status: 503})
	w.b.fault(t, simulate.Fault{Status: 503})
	got := w.chat("chat")
	if got.status != 503 || !strings.Contains(got.body, `"error"`) {
		t.Errorf("status %d: %s", got.status, got.body)
	}
	w.a.received(t, 1)
	w.b.received(t, 1)
}

// A client that goes in the middle of a stream pays for what was streamed.
func TestClientGoneIsBilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.fault(t, simulate.Fault{ChunkDelayMS: 30, Chunks: 200})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", w.base+"/chat/completions",
		strings.NewReader(strings.Replace(chatBody("chat", true), `"max_tokens":12`, `"max_tokens":500`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("authorization", "Bearer "+testKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := 0
	for in := bufio.NewScanner(resp.Body); events < 12 && in.Scan(); {
		if strings.HasPrefix(in.Text(), "data: ") {
			events++
		}
	}
	cancel()
	r := w.a.received(t, 1)[0]
	if r.Outcome != simulate.Aborted {
		t.Errorf("the backend saw the request end as %s", r.Outcome)
	}
	eventually(t, 10*time.Second, func() string {
		rows := w.usage(t)
		rows = slices.DeleteFunc(rows, func(r usageRow) bool { return r.Outcome != "client_gone" })
		if len(rows) != 1 {
			return fmt.Sprintf("usage %+v", rows)
		}
		// Nobody reported usage: the figures are estimates, from what was streamed.
		if rows[0].Output < 10 || rows[0].Output > 2*int64(r.Chunks) || rows[0].Input == 0 || rows[0].Input > 4*int64(r.PromptTokens) {
			return fmt.Sprintf("billed %d output and %d input tokens; %d were streamed, the prompt had %d", rows[0].Output, rows[0].Input, r.Chunks, r.PromptTokens)
		}
		return ""
	})
}

// A dead endpoint of a pool that is the only target costs a second try at
// another endpoint, and no client notices.
func TestDeadEndpointOfOnlyTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(edited(t, w.yaml, `endpoints: [{url: "`+w.a.url+`"}]`, fmt.Sprintf(`endpoints: [{url: "%s"}, {url: "http://127.0.0.1:%d"}]`, w.a.url, freePort(t))))
	eventually(t, 10*time.Second, func() string {
		if strings.Contains(w.log.String(), "configuration applied") {
			return ""
		}
		return "the change is not in force"
	})
	for i := range 20 {
		if got := w.chat("embed"); got.status != 200 {
			t.Fatalf("request %d: status %d: %s", i, got.status, got.body)
		}
	}
}

// What a backend says to its own client, weir, does not reach weir's clients.
func TestHeadersOfBackends(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.fault(t, simulate.Fault{Headers: map[string]string{
		"set-cookie": "a=b", "openai-organization": "ours", "x-ratelimit-remaining-requests": "3", "x-weir-decision": "forged", "access-control-allow-origin": "*",
	}})
	got := w.chat("chat")
	for _, name := range []string{"set-cookie", "openai-organization", "x-ratelimit-remaining-requests", "access-control-allow-origin"} {
		if v := got.header.Values(name); len(v) != 0 {
			t.Errorf("%s: %q", name, v)
		}
	}
	if v := got.header.Values("x-weir-decision"); len(v) != 1 || v[0] == "forged" {
		t.Errorf("x-weir-decision: %q", v)
	}
}

// A backend that refuses weir is weir's problem: the client is not told that its
// own key is wrong, and sees nothing of what the backend said.
func TestBackendRefusesWeir(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, status := range []int{401, 403, 404} {
		w.a.fault(t, simulate.Fault{Status: status, Body: `{"error":{"message":"backend says ` + realModelA + `"}}`})
		for _, stream := range []bool{false, true} {
			got := w.post("/v1/chat/completions", chatBody("by-rule", stream), "authorization", "Bearer "+testKey)
			if got.status != 502 || got.code() != "backend_refused" || strings.Contains(got.body, realModelA) {
				t.Errorf("status %d for the backend's %d: %s", got.status, status, got.body)
			}
		}
	}
	w.a.fault(t, simulate.Fault{Status: 400, Body: `{"error":{"message":"temperature is too hot","type":"BadRequestError","param":null,"code":400}}`})
	if got := w.chat("by-rule"); got.status != 400 || !strings.Contains(got.body, "too hot") {
		t.Errorf("the client's own fault became status %d: %s", got.status, got.body)
	}
}
