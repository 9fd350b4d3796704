package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// routingWorld is a gateway before four backends that tells who answered.
type routingWorld struct {
	*gateway
	at map[string]*backend
}

func newRoutingWorld(t *testing.T, models string, pools map[string]string, limits, calendars string) *routingWorld {
	t.Helper()
	w := &routingWorld{at: map[string]*backend{}}
	var list, names strings.Builder
	for _, name := range []string{"small", "strong", "night", "cloud"} {
		w.at[name] = newBackend(t, simulate.Options{Name: name})
		placement := "private"
		if name == "cloud" {
			placement = "public"
		}
		fmt.Fprintf(&list, "  - {name: %s, adapter: vllm, placement: %s, model: m, endpoints: [{url: %q}]%s}\n", name, placement, w.at[name].url, pools[name])
	}
	for line := range strings.Lines(models) {
		if _, name, ok := strings.Cut(line, "- name: "); ok && strings.HasPrefix(line, "  - name: ") {
			names.WriteString(strings.TrimSpace(name) + ", ")
		}
	}
	_, _, text := newBackends(t, "models:\n", list.String()+"models:\n"+models, "models: [chat, cloud", "models: ["+names.String()+"chat, cloud", "limits:\n", calendars+"limits:\n"+limits)
	w.gateway = up(t, text)
	return w
}

// goes asks and tells which pool answered.
func (w *routingWorld) goes(t *testing.T, body string, headers ...string) string {
	t.Helper()
	got := w.post("/v1/chat/completions", body, append(headers, "authorization", "Bearer "+testKey)...)
	if got.status != 200 {
		return fmt.Sprintf("%d %s", got.status, got.body)
	}
	return got.header.Get("x-simulator")
}

func request(model, rest string) string {
	return `{"model":"` + model + `","messages":[{"role":"user","content":"hello"}]` + rest + `}`
}

// Where requests go by what they ask for, the time, what they cost and what is left.
func TestRouting(t *testing.T) {
	t.Parallel()
	hour := time.Now().UTC()
	calendars := fmt.Sprintf(`calendars:
  - {name: now, hours: {time_zone: UTC, windows: [{from: "%s", to: "%s"}]}}
  - {name: later, hours: {time_zone: UTC, windows: [{from: "%s", to: "%s"}]}}
`, hour.Add(-time.Hour).Format("15:04"), hour.Add(2*time.Hour).Format("15:04"), hour.Add(6*time.Hour).Format("15:04"), hour.Add(7*time.Hour).Format("15:04"))
	models := `
  - name: tiered
    tiers: {strong: [{pool: strong}], long: [{pool: night}], long_from: 400, light: [{pool: small}], light_output_tokens: 100}
    targets: [{pool: cloud}]
  - name: by-time
    tiers: {off_peak: [{pool: night}], off_peak_calendar: now}
    targets: [{pool: small}]
  - name: not-yet
    tiers: {off_peak: [{pool: night}], off_peak_calendar: later}
    targets: [{pool: small}]
  - name: cheapest
    targets: [{any: [cloud, strong, small], by: price}]
  - name: thrifty
    rules:
      - {name: nearly-spent, when: 'limits["purse"].left < 0.5', targets: [{pool: small}]}
    targets: [{pool: strong}]
`
	w := newRoutingWorld(t, strings.TrimPrefix(models, "\n"), map[string]string{
		"cloud": ", price: {input: 1, output: 100}", "strong": ", price: {input: 30, output: 1}", "small": ", price: {input: 50, output: 50}",
	}, "  - {name: purse, unit: requests, amount: 4, window: 3600s, models: [thrifty]}\n", calendars)
	for _, tc := range []struct{ name, body, want string }{
		{"light", request("tiered", `,"max_tokens":50`), "small"},
		{"more output", request("tiered", `,"max_tokens":500`), "cloud"},
		{"tools", request("tiered", `,"max_tokens":50,"tools":[{"type":"function","function":{"name":"f"}}]`), "cloud"},
		{"much thinking", request("tiered", `,"max_tokens":50,"reasoning_effort":"high"`), "strong"},
		{"a large budget", request("tiered", `,"max_tokens":50000,"thinking":{"type":"enabled","budget_tokens":10000}`), "strong"},
		{"little thinking", request("tiered", `,"max_tokens":50,"reasoning_effort":"low"`), "small"},
		{"long", `{"model":"tiered","messages":[{"role":"user","content":"` + strings.Repeat("many words ", 400) + `"}]}`, "night"},
		{"in the calendar", request("by-time", ""), "night"},
		{"out of the calendar", request("not-yet", ""), "small"},
		{"cheapest for much input", `{"model":"cheapest","max_tokens":1,"messages":[{"role":"user","content":"` + strings.Repeat("many words ", 400) + `"}]}`, "cloud"},
		{"cheapest for much output", request("cheapest", `,"max_tokens":4000`), "strong"},
	} {
		if got := w.goes(t, tc.body); got != tc.want {
			t.Errorf("%s: goes to %s, want %s", tc.name, got, tc.want)
		}
	}
	for i, want := range []string{"strong", "strong", "strong", "small"} {
		if got := w.goes(t, request("thrifty", "")); got != want {
			t.Errorf("request %d of a purse of four goes to %s, want %s", i+1, got, want)
		}
	}
}

// A pool that is full, slow or failing is behind the others.
func TestRoutingByLiveFacts(t *testing.T) {
	t.Parallel()
	models := `
  - name: overflow
    targets: [{pool: small}, {pool: cloud}]
  - name: by-load
    rules:
      - {name: busy, when: 'pools["small"].running >= 3', targets: [{pool: strong}]}
    targets: [{pool: small}]
  - name: soonest
    targets: [{any: [strong, night], by: first_token}]
  - name: failing
    targets: [{pool: strong}, {pool: night}]
  - name: on-small
    targets: [{pool: small}]
`
	w := newRoutingWorld(t, strings.TrimPrefix(models, "\n"), map[string]string{
		"small": ", metrics: {interval: 100ms}, saturated_at: {open_per_endpoint: 3}", "cloud": ", price: {free: true}",
	}, "", "")
	if got := w.goes(t, request("overflow", "")); got != "small" {
		t.Fatalf("with nothing to do: %s", got)
	}
	w.at["small"].fault(t, simulate.Fault{StallFirstTokenMS: 8000})
	done := make(chan struct{})
	for range 3 {
		go func() {
			_, _ = w.send("POST", "/v1/chat/completions", chatBody("on-small", true), "authorization", "Bearer "+testKey)
			done <- struct{}{}
		}()
	}
	eventually(t, 7*time.Second, func() string {
		if r := w.pools(t)["small"]; r.Open != 3 || !is(r.Running, 3) {
			return fmt.Sprintf("not three at small: %+v", r)
		}
		return ""
	})
	if got := w.goes(t, request("overflow", "")); got != "cloud" {
		t.Errorf("with three at small, the overflow goes to %s", got)
	}
	if got := w.goes(t, request("by-load", "")); got != "strong" {
		t.Errorf("with three at small, the rule goes to %s", got)
	}
	out, _, _ := weir(t, request("overflow", ""), "explain", "--data", w.dir, "--live", "--key", "tester", "--path", "/v1/chat/completions", "--body", "-")
	if !strings.Contains(out, "small (private, m): behind the others, pool_saturated") {
		t.Errorf("explain does not tell why:\n%s", out)
	}
	for range 3 {
		<-done
	}

	w.at["strong"].fault(t, simulate.Fault{StallFirstTokenMS: 400})
	eventually(t, 20*time.Second, func() string {
		n := 0
		for range 10 {
			if w.goes(t, request("soonest", `,"stream":false`)) == "night" {
				n++
			}
		}
		if n < 9 {
			return fmt.Sprintf("%d of 10 go to the one that answers at once", n)
		}
		return ""
	})

	w.at["strong"].fault(t, simulate.Fault{Status: 500})
	for range 8 {
		if got := w.goes(t, request("failing", "")); got != "night" {
			t.Fatalf("a failover ends at %s", got)
		}
	}
	time.Sleep(500 * time.Millisecond) // their entries come
	w.at["strong"].fault(t, simulate.Fault{Status: 500})
	for range 40 {
		if got := w.goes(t, request("failing", "")); got != "night" {
			t.Fatalf("beside a failing pool: %s", got)
		}
	}
	if n := len(w.at["strong"].Requests()); n > 12 {
		t.Errorf("a failing pool was tried by %d of 40 requests", n)
	}
	w.at["strong"].fault(t)
	eventually(t, 40*time.Second, func() string {
		if got := w.goes(t, request("failing", "")); got != "strong" {
			return "a pool that is well again is not used: " + got
		}
		return ""
	})
}
