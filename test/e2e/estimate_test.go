package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// tokenRow is a row of `weir usage --by model,outcome --format json`.
type tokenRow struct {
	Model     string `json:"model"`
	Outcome   string `json:"outcome"`
	Requests  int64  `json:"requests"`
	Input     int64  `json:"input_tokens"`
	Cached    int64  `json:"cached_input_tokens"`
	Output    int64  `json:"output_tokens"`
	Reasoning int64  `json:"reasoning_tokens"`
	Estimated int64  `json:"estimated_tokens"`
}

// tokens sums up what `weir usage` says of a model.
func (g *gateway) tokens(t *testing.T, model, outcome string) tokenRow {
	t.Helper()
	out, errs, code := weir(t, "", "usage", "--data", g.dir, "--by", "model,outcome", "--format", "json")
	var rows []tokenRow
	if err := json.Unmarshal([]byte(out), &rows); err != nil || code != 0 {
		t.Fatalf("weir usage: exit %d: %v: %s%s", code, err, out, errs)
	}
	for _, r := range rows {
		if r.Model == model && r.Outcome == outcome {
			return r
		}
	}
	return tokenRow{Model: model, Outcome: outcome}
}

// waitTokens waits until n requests of a model are accounted for.
func (g *gateway) waitTokens(t *testing.T, model, outcome string, n int64) (row tokenRow) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		if row = g.tokens(t, model, outcome); row.Requests != n {
			return fmt.Sprintf("%d events of %s that are %s, want %d", row.Requests, model, outcome, n)
		}
		return ""
	})
	return row
}

// What a backend says about usage is taken as it is; where it says nothing the
// figures are estimated from what was streamed, and marked.
func TestReportedAndEstimatedUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tc := range []struct {
		model, usage string
		want         func(r simulate.Request) tokenRow
	}{
		{"chat", "", func(r simulate.Request) tokenRow {
			return tokenRow{Input: int64(r.PromptTokens), Output: int64(r.CompletionTokens)}
		}},
		{"by-rule", "wrong", func(r simulate.Request) tokenRow {
			return tokenRow{Input: int64(2*r.PromptTokens + 1000), Output: int64(2*r.CompletionTokens + 1000)}
		}},
		// Half of the prompt was cached; the classes are disjoint.
		{"anonymous-second", "cached", func(r simulate.Request) tokenRow {
			return tokenRow{Input: int64(r.PromptTokens - r.PromptTokens/2), Cached: int64(r.PromptTokens / 2), Output: int64(r.CompletionTokens)}
		}},
		// Reasoning is a part of the output.
		{"limited", "reasoning", func(r simulate.Request) tokenRow {
			return tokenRow{Input: int64(r.PromptTokens), Output: int64(r.CompletionTokens), Reasoning: int64(r.CompletionTokens / 2)}
		}},
	} {
		w.a.fault(t, simulate.Fault{Usage: tc.usage})
		want := tokenRow{Model: tc.model, Outcome: "completed", Requests: 2}
		for _, r := range w.both(t, tc.model) {
			one := tc.want(r)
			want.Input, want.Cached = want.Input+one.Input, want.Cached+one.Cached
			want.Output, want.Reasoning = want.Output+one.Output, want.Reasoning+one.Reasoning
		}
		if got := w.waitTokens(t, tc.model, "completed", 2); got != want {
			t.Errorf("usage %q:\n got %+v\nwant %+v", tc.usage, got, want)
		}
	}
	w.write(edited(t, w.yaml, "  - name: embed\n", "  - name: silent\n    targets: [{pool: a}]\n  - name: embed\n", "models: [chat,", "models: [silent, chat,"))
	w.a.fault(t, simulate.Fault{Usage: "missing"})
	eventually(t, 10*time.Second, func() string {
		if got := w.chat("silent"); got.status != 200 || strings.Contains(got.body, "prompt_tokens") {
			return fmt.Sprintf("status %d: %s", got.status, got.body)
		}
		return ""
	})
	w.a.ClearRequests()
	before := w.waitTokens(t, "silent", "completed", 1)
	sent := w.both(t, "silent")
	got := w.waitTokens(t, "silent", "completed", 3)
	if got.Estimated == 0 || got.Estimated < got.Output {
		t.Errorf("usage that nobody reported is not marked as estimated: %+v", got)
	}
	streamed := int64(sent[0].CompletionTokens + sent[1].CompletionTokens)
	if out := got.Output - before.Output; out < streamed || out > 3*streamed {
		t.Errorf("estimated %d output tokens, %d were sent", out, streamed)
	}
	if in, prompt := got.Input-before.Input, int64(sent[0].PromptTokens+sent[1].PromptTokens); in == 0 || in > 5*prompt {
		t.Errorf("estimated %d input tokens, the prompts had %d", in, prompt)
	}
}

// both sends a request with a JSON answer and one with a stream, and returns
// what the backend made of them.
func (w *world) both(t *testing.T, model string) []simulate.Request {
	t.Helper()
	for _, stream := range []bool{false, true} {
		got := w.post("/v1/chat/completions", chatBody(model, stream), "authorization", "Bearer "+testKey)
		if got.status != 200 {
			t.Fatalf("%s: status %d: %s", model, got.status, got.body)
		}
	}
	return w.a.received(t, 2)
}

// Envoy dies in the middle of streams: weir starts it again, and the requests
// whose entries never come are closed at their reservations, once each.
func TestEnvoyKilled(t *testing.T) {
	w := newWorld(t, "settle_deadline: 5s", "settle_deadline: 2s", "limits:\n",
		"limits:\n  - {name: tokens, unit: tokens, amount: 5500, models: [chat], per: [key]}\n",
		"    model: "+realModelB+"\n", "    model: "+realModelB+"\n    abandoned_attempts: free\n")
	w.a.fault(t, simulate.Fault{ChunkDelayMS: 50, Chunks: 400})
	const streams, reserved = 5, 600
	body := strings.Replace(chatBody("chat", true), `"max_tokens":12`, fmt.Sprintf(`"max_tokens":%d`, reserved), 1)
	var done sync.WaitGroup
	for range streams {
		done.Go(func() {
			// The answer is cut off: any error will do.
			_, _ = w.send("POST", "/v1/chat/completions", body, "authorization", "Bearer "+testKey)
		})
	}
	eventually(t, 10*time.Second, func() string {
		if n := len(w.a.Requests()); n != streams || w.held(t) != streams {
			return fmt.Sprintf("%d requests at the backend, %d reservations", n, w.held(t))
		}
		return ""
	})
	// 5 × 600 and the inputs, at the bound of the second target, are reserved of 5500
	// tokens: 1200 more do not fit.
	big := strings.Replace(body, fmt.Sprint(reserved), "1200", 1)
	if got := w.post("/v1/chat/completions", big, "authorization", "Bearer "+testKey); got.status != 429 {
		t.Errorf("over the reserved tokens: status %d: %s", got.status, got.body)
	}
	killed := w.envoyPID(t)
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	done.Wait()
	eventually(t, 2*time.Second, func() string { // weir waits a second before it starts it again
		if code, body := w.adminGet(t, "/readyz/envoy"); code != 503 {
			return fmt.Sprintf("readiness of an Envoy that was killed: status %d: %s", code, body)
		}
		return ""
	})
	w.a.fault(t)
	eventually(t, 20*time.Second, func() string {
		got, err := w.send("POST", "/v1/chat/completions", chatBody("cloud", false), "authorization", "Bearer "+testKey)
		if err != nil || got.status != 200 {
			return fmt.Sprintf("service is not back: %v, status %d: %s", err, got.status, got.body)
		}
		return ""
	})
	if code, body := w.adminGet(t, "/readyz"); code != 200 || !strings.Contains(body, `"envoy":"ready"`) || !strings.Contains(body, `"usage":"ready"`) {
		t.Errorf("readiness: status %d: %s", code, body)
	}
	if pid := w.envoyPID(t); pid == killed {
		t.Errorf("Envoy still has the process id %d", pid)
	}
	got := w.waitTokens(t, "chat", "unknown", streams)
	if got.Output != streams*reserved || got.Input == 0 || got.Estimated != got.Input+got.Output {
		t.Errorf("not closed at their reservations, or not marked: %+v", got)
	}
	eventually(t, 5*time.Second, func() string {
		if n := w.held(t); n != 0 {
			return fmt.Sprintf("%d reservations are still held", n)
		}
		return ""
	})
	if again := w.tokens(t, "chat", "unknown"); again.Requests != streams {
		t.Errorf("%d events, want %d", again.Requests, streams)
	}
}

// held is how many reservations wait to be settled.
func (g *gateway) held(t *testing.T) int {
	t.Helper()
	_, body := g.adminGet(t, "/status")
	var status struct{ Reservations int }
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatalf("status: %v: %s", err, body)
	}
	return status.Reservations
}

// envoyPID is the process id of the Envoy that weir runs.
func (g *gateway) envoyPID(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, "running.json"))
	if err != nil {
		t.Fatal(err)
	}
	var running []struct{ PID int }
	if err := json.Unmarshal(b, &running); err != nil || len(running) != 1 {
		t.Fatalf("running Envoys: %v: %s", err, b)
	}
	return running[0].PID
}
