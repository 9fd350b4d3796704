package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// tokensServed is what the backend has counted of the requests that it answered.
func (b *backend) tokensServed() (n int64) {
	for _, r := range b.Requests() {
		n += int64(r.PromptTokens + r.CompletionTokens)
	}
	return n
}

// Of 500 streams at once only some fit into a limit: what the backend has served is
// never more than it, and nearly all of it.
func TestLimitIsNotPassedByConcurrentStreams(t *testing.T) {
	const amount = 20_000
	w := newWorld(t, "limits:\n", fmt.Sprintf("limits:\n  - {name: tokens, unit: tokens, amount: %d, window: 1h, models: [chat]}\n", amount),
		"settle_deadline: 5s", "settle_deadline: 60s", exactB, exactB+exactly)
	w.a.fault(t, simulate.Fault{ChunkDelayMS: 3, Chunks: 40})
	var group sync.WaitGroup
	var ok, refused, other atomic.Int64
	for range 500 {
		group.Go(func() {
			body := `{"model":"chat","messages":[{"role":"user","content":"Say something about rivers."}],"max_tokens":60,"stream":true}`
			switch a, err := w.send("POST", "/v1/chat/completions", body, "authorization", "Bearer "+testKey); {
			case err == nil && a.status == 200 && strings.Contains(a.body, "[DONE]"):
				ok.Add(1)
			case err == nil && a.status == 429 && a.code() == "rate_limit_exceeded" && a.header.Get("retry-after") != "":
				refused.Add(1)
			default:
				other.Add(1)
				t.Logf("%v %d %.200s", err, a.status, a.body)
			}
		})
	}
	group.Wait()
	if other.Load() != 0 || refused.Load() == 0 || ok.Load() == 0 {
		t.Errorf("%d answered, %d refused, %d others", ok.Load(), refused.Load(), other.Load())
	}
	// What was given back is used by those who come later, to the last of it.
	before := w.a.tokensServed()
	w.a.fault(t)
	w.exhaust(t, "chat")
	if served := before + w.a.tokensServed(); served > amount || served < amount*99/100 {
		t.Errorf("%d tokens served of %d", served, amount)
	}
}

// exactB and what makes pool b's input counted and not estimated: an estimate is
// reserved with its bound, which leaves more of a limit unused.
const (
	exactB  = "    model: " + realModelB + "\n"
	exactly = "    tokenizer: {vocabulary: qwen, template: qwen3}\n"
)

// exhaust sends chats, one after the other, until a limit has no room for one more
// though nothing is reserved. It returns how many were answered, and the refusal.
func (w *world) exhaust(t *testing.T, model string) (answered int, last answer) {
	t.Helper()
	eventually(t, 60*time.Second, func() string {
		for {
			settled := w.metric(t, "weir_limit_reservations") == 0
			if last = w.chat(model); last.status == 200 {
				answered++
				continue
			}
			if !settled {
				return "something is reserved"
			}
			return ""
		}
	})
	return answered, last
}

// A budget in money holds over a kill -9 and a restart, is told of at its
// percentages, and stays closed when it is used up.
func TestBudgetSurvives(t *testing.T) {
	t.Parallel()
	alerts := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		alerts <- string(b)
	}))
	defer hook.Close()
	// Pool b costs 1 dollar a million tokens of input, and 4 of output: a request with
	// 7 and 12 some 55 millionths.
	w := newWorld(t, "limits:\n", `limits:
  - {name: research-month, unit: usd, usd: 0.0005, period: month, teams: [research], breaker: true}
`, exactB, exactB+exactly, "request_bounds:", `alerts: {webhooks: [{url: "`+hook.URL+`"}]}
request_bounds:`)
	spend := func() answer { return w.chat("cloud") }
	answered := 4
	for range answered {
		if a := spend(); a.status != 200 {
			t.Fatalf("status %d: %s", a.status, a.body)
		}
	}
	w.kill()
	w.start()
	n, last := w.exhaust(t, "cloud")
	if answered += n; last.status != 429 || last.code() != "insufficient_quota" || last.header.Get("x-should-retry") != "false" || !strings.Contains(last.body, "research-month") {
		t.Fatalf("after %d: status %d: %s", answered, last.status, last.body)
	}
	eventually(t, 10*time.Second, func() string { // what was used is stored in a moment
		if spent := w.spent(t); spent > 500_000 || spent < 400_000 {
			return fmt.Sprintf("%d nano-dollars spent of 500,000", spent)
		}
		return ""
	})
	told := map[float64]bool{}
	for range 2 {
		select {
		case body := <-alerts:
			var a struct {
				Limit   string
				Percent float64
				Unit    string
			}
			if err := json.Unmarshal([]byte(body), &a); err != nil || a.Limit != "research-month" || a.Unit != "usd" {
				t.Errorf("%v: %s", err, body)
			}
			told[a.Percent] = true
		case <-time.After(10 * time.Second):
			t.Error("an alert is missing")
		}
	}
	if !told[50] || !told[80] {
		t.Errorf("alerts at %v per cent, want 50 and 80", told)
	}
	w.stop()
	w.start()
	if a := spend(); a.status != 429 {
		t.Errorf("after the restart: status %d", a.status)
	}
	w.resetBudget(t)
	if a := spend(); a.status != 200 {
		t.Errorf("after the reset: status %d: %s", a.status, a.body)
	}
}

// resetBudget gives the budget back by the command line, which is audited.
func (w *world) resetBudget(t *testing.T) {
	t.Helper()
	run := func(want string, args ...string) {
		t.Helper()
		out, errs, code := weir(t, "", append(args, "--data", w.dir)...)
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("weir %s: exit %d: %s%s, want %q", strings.Join(args, " "), code, out, errs, want)
		}
	}
	run("$0.0005", "budget", "list", "research-month")
	run("given back", "budget", "reset", "research-month", "--all", "--note", "agreed")
	run("budget.reset", "audit", "list", "--object", "budget/research-month")
	if _, errs, code := weir(t, "", "budget", "reset", "research-month", "--data", w.dir); code != 2 || !strings.Contains(errs, "--scope, or --all") {
		t.Errorf("a reset of no scope: exit %d: %s", code, errs)
	}
	if _, errs, code := weir(t, "", "budget", "reset", "research-mont", "--all", "--data", w.dir); code == 0 || !strings.Contains(errs, "not found") {
		t.Errorf("a reset of no limit: exit %d: %s", code, errs)
	}
}

// spent is the cost of all requests, in nano-dollars.
func (g *gateway) spent(t *testing.T) (n int64) {
	t.Helper()
	out, errs, code := weir(t, "", "usage", "--data", g.dir, "--since", "1h", "--by", "team", "--format", "json")
	if code != 0 {
		t.Fatalf("weir usage: exit %d: %s", code, errs)
	}
	var rows []struct {
		Cost json.Number `json:"cost_usd"`
	}
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	for _, r := range rows {
		usd, err := r.Cost.Float64()
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		n += int64(usd*1e9 + 0.5)
	}
	return n
}

// metric is the value of a metric of weir, with its labels in their order.
func (g *gateway) metric(t *testing.T, name string) float64 {
	t.Helper()
	resp, err := http.Get(g.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// What a breach does besides refusing.
func TestBreaches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "limits:\n", `limits:
  - {name: pool-a, unit: requests, amount: 1, window: 1h, pools: [a], models: [chat]}
  - {name: dear, unit: requests, amount: 1, window: 1h, pools: [b], models: [cloud], on_breach: downgrade, downgrade_to: [a]}
  - {name: one-at-a-time, unit: concurrency, amount: 1, models: [embed], on_breach: queue, queue_wait: 5s}
  - {name: look, unit: requests, amount: 1, window: 1h, models: [by-rule], on_breach: report}
`)
	pools := func(model string, want ...string) {
		t.Helper()
		for i, pool := range want {
			if a := w.chat(model); a.status != 200 || !strings.Contains(a.body, map[string]string{"a": realModelA, "b": realModelB}[pool]) {
				t.Errorf("%s, request %d: status %d: %s, want pool %s", model, i, a.status, a.body, pool)
			}
		}
	}
	pools("chat", "a", "b", "b")
	pools("cloud", "b", "a", "a")
	pools("by-rule", "a", "a")

	w.a.fault(t, simulate.Fault{StallBeforeHeadersMS: 300})
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			if a := w.chat("embed"); a.status != 200 {
				t.Errorf("status %d: %s", a.status, a.body)
			}
		})
	}
	group.Wait()
	got := w.a.received(t, 3)
	for i := 1; i < len(got); i++ {
		if gap := got[i].Time.Sub(got[i-1].Time); gap < 300*time.Millisecond {
			t.Errorf("two at a time: %v apart", gap)
		}
	}
	if n := w.metric(t, `weir_limit_breaches_total{action="report",limit="look"}`); n != 1 {
		t.Errorf("%v reported", n)
	}
}

// A pool that works on as much as it can is left out; who could go nowhere else waits,
// and is then told that it is not the client's fault.
func TestPoolCapacity(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "limits:\n", `limits:
  - {name: capacity, unit: concurrency, amount: 1, pools: [a], on_breach: queue, queue_wait: 300ms}
`)
	w.a.fault(t, simulate.Fault{StallBeforeHeadersMS: 2000, Match: simulate.Match{Times: 1}})
	first := make(chan answer, 1)
	go func() { first <- w.chat("embed") }()
	eventually(t, 10*time.Second, func() string {
		if len(w.a.Requests()) == 0 {
			return "the first request is not there"
		}
		return ""
	})
	if a := w.chat("embed"); a.status != 503 || a.code() != "pool_busy" || a.header.Get("retry-after") == "" {
		t.Errorf("status %d, retry-after %q: %s", a.status, a.header.Get("retry-after"), a.body)
	}
	if a := w.chat("chat"); a.status != 200 || a.header.Get("x-simulator") != "b" {
		t.Errorf("status %d from %q: %s", a.status, a.header.Get("x-simulator"), a.body)
	}
	if a := <-first; a.status != 200 {
		t.Errorf("the first: status %d: %s", a.status, a.body)
	}
	eventually(t, 10*time.Second, func() string {
		if a := w.chat("embed"); a.status != 200 {
			return a.body
		}
		return ""
	})
}

// A backend that asks to be left alone is not called for as long as it asks; a client
// is told when all of them do.
func TestPoolsRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.fault(t, simulate.Fault{Status: 429, Headers: map[string]string{"retry-after": "2"}, Match: simulate.Match{Times: 1}})
	w.b.fault(t, simulate.Fault{})
	if a := w.chat("chat"); a.status != 200 {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	eventually(t, 2*time.Second, func() string { // weir learns of it from the access log
		if a := w.chat("by-rule"); a.status != 429 || a.code() != "rate_limit_exceeded" || a.header.Get("retry-after") == "" {
			return fmt.Sprintf("status %d: %s", a.status, a.body)
		}
		return ""
	})
	for range 3 {
		if a := w.chat("chat"); a.status != 200 || !strings.Contains(a.body, realModelB) {
			t.Errorf("status %d: %s", a.status, a.body)
		}
	}
	eventually(t, 10*time.Second, func() string {
		if a := w.chat("by-rule"); a.status != 200 {
			return fmt.Sprintf("status %d: %s", a.status, a.body)
		}
		return ""
	})
}

// A backend counts by another vocabulary and template than weir. Where weir says that
// it only estimates, the limit holds all the same, since the bound is reserved; where
// somebody has told it the wrong tokenizer, what is billed beyond is a debt that is
// shown.
func TestAnotherVocabulary(t *testing.T) {
	t.Parallel()
	const amount = 30_000
	limits := fmt.Sprintf("limits:\n  - {name: tokens, unit: tokens, amount: %d, window: 1h, models: [embed]}\n", amount)
	text := strings.Repeat("河流穿过城市，然后流向大海。Rivers bend where the ground lets them; nobody asked. ", 6)
	body := fmt.Sprintf(`{"model":"embed","messages":[{"role":"system","content":%q},{"role":"user","content":%q}],"max_tokens":40}`, text, text)
	for _, tc := range []struct {
		name      string
		tokenizer string
		over      bool // may pass the limit
	}{
		{name: "estimated", tokenizer: "    model: " + realModelA + "\n    tokenizer: {vocabulary: o200k, template: generic}\n"},
		{name: "told the wrong one", tokenizer: "    model: " + realModelA + "\n    tokenizer: {vocabulary: tekken, template: mistral-v7}\n", over: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, "limits:\n", limits, "    model: "+realModelA+"\n", tc.tokenizer)
			var group sync.WaitGroup
			var answered, refused atomic.Int64
			for range 40 {
				group.Go(func() {
					for range 10 {
						a, err := w.send("POST", "/v1/chat/completions", body, "authorization", "Bearer "+testKey)
						switch {
						case err != nil || a.status != 200 && a.status != 429:
							t.Errorf("%v, status %d: %s", err, a.status, a.body)
						case a.status == 200:
							answered.Add(1)
						default:
							refused.Add(1)
						}
					}
				})
			}
			group.Wait()
			for {
				a := w.post("/v1/chat/completions", body, "authorization", "Bearer "+testKey)
				if a.status == 429 && w.metric(t, "weir_limit_reservations") == 0 {
					break
				}
			}
			billed := w.a.tokensServed()
			debt := w.metric(t, `weir_limit_debt_total{limit="tokens"}`)
			t.Logf("%d answered, %d refused; billed minus limit: %d tokens (%.1f %% used); debt shown: %v",
				answered.Load(), refused.Load(), billed-amount, 100*float64(billed)/amount, debt)
			if answered.Load() == 0 || refused.Load() == 0 {
				t.Error("the limit was not reached")
			}
			if !tc.over && (billed > amount || debt != 0) {
				t.Errorf("%d billed of %d, debt %v", billed, amount, debt)
			}
			if over := billed - amount; tc.over && over > 0 && debt < float64(over) {
				t.Errorf("%d billed beyond the limit, and a debt of %v is shown", over, debt)
			}
		})
	}
}

// An answer that streams for longer than the settle deadline keeps what it holds, to
// its end; when Envoy dies, what its requests held is free soon, and not only at the
// deadline.
func TestLongStreamKeepsItsPlace(t *testing.T) {
	w := newWorld(t, "limits:\n", "limits:\n  - {name: one-at-a-time, unit: concurrency, amount: 1, models: [chat]}\n", "settle_deadline: 5s", "settle_deadline: 3s")
	w.a.fault(t, simulate.Fault{ChunkDelayMS: 100, Chunks: 80})
	stream := func() <-chan answer {
		done := make(chan answer, 1)
		go func() {
			a, _ := w.send("POST", "/v1/chat/completions", strings.Replace(chatBody("chat", true), `"max_tokens":12`, `"max_tokens":100`, 1), "authorization", "Bearer "+testKey)
			done <- a
		}()
		eventually(t, 10*time.Second, func() string {
			if w.held(t) != 1 {
				return "nothing is reserved"
			}
			return ""
		})
		return done
	}
	done := stream()
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if a := w.chat("chat"); a.status != 429 {
			t.Fatalf("another is let in while the first streams: status %d", a.status)
		}
	}
	if a := <-done; a.status != 200 || !strings.Contains(a.body, "[DONE]") {
		t.Errorf("status %d: %.200s", a.status, last(a.body, 200))
	}
	eventually(t, 10*time.Second, func() string {
		if a := w.chat("chat"); a.status != 200 {
			return fmt.Sprintf("status %d", a.status)
		}
		return ""
	})
}
