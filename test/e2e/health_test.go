package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// pairWorld is a gateway before a pool of two endpoints, x and y, and pool b.
type pairWorld struct {
	*gateway
	x, y, b *backend
}

func newPairWorld(t *testing.T, settings string) *pairWorld {
	t.Helper()
	w := &pairWorld{x: newBackend(t, simulate.Options{Name: "x"}), y: newBackend(t, simulate.Options{Name: "y"})}
	pool := fmt.Sprintf("  - {name: pair, adapter: vllm, placement: private, model: m, connect_timeout: 1s, endpoints: [{url: %q}, {url: %q}]%s}\n", w.x.url, w.y.url, settings)
	_, b, text := newBackends(t, "models:\n", pool+"models:\n  - {name: paired, first_token_timeout: 1s, attempt_timeout: 1s, targets: [{pool: pair}]}\n  - {name: paired-first, targets: [{pool: pair}, {pool: b}]}\n",
		"models: [chat, cloud", "models: [paired, paired-first, chat, cloud")
	w.b = b
	w.gateway = up(t, text)
	return w
}

// asks sends n requests, each of which must be answered, and counts who did.
func (w *pairWorld) asks(t *testing.T, model string, n int) map[string]int {
	t.Helper()
	who := map[string]int{}
	for range n {
		got := w.chat(model)
		if got.status != 200 {
			t.Fatalf("status %d: %s", got.status, got.body)
		}
		who[got.header.Get("x-simulator")]++
	}
	return who
}

// An endpoint that says that it is ill gets nothing, without a request finding out;
// when all are, the next target is tried at once; who is well again is used again.
func TestHealthChecks(t *testing.T) {
	t.Parallel()
	w := newPairWorld(t, ", health_check: {interval: 200ms, healthy_after: 1}, slow_start: 0s")
	if who := w.asks(t, "paired", 20); who["x"] == 0 || who["y"] == 0 {
		t.Errorf("both are well: %v", who)
	}
	w.x.fault(t, simulate.Fault{Unhealthy: true})
	eventually(t, 15*time.Second, func() string {
		w.x.ClearRequests()
		if who := w.asks(t, "paired", 10); who["y"] != 10 || len(w.x.Requests()) != 0 {
			return fmt.Sprintf("x is ill: %v, and %d requests reached it", who, len(w.x.Requests()))
		}
		return ""
	})
	w.y.fault(t, simulate.Fault{Unhealthy: true})
	eventually(t, 15*time.Second, func() string {
		if who := w.asks(t, "paired-first", 5); who["b"] != 5 {
			return fmt.Sprintf("both are ill: %v", who)
		}
		return ""
	})
	w.x.fault(t)
	w.y.fault(t)
	eventually(t, 15*time.Second, func() string {
		if who := w.asks(t, "paired-first", 20); who["x"] == 0 || who["y"] == 0 {
			return fmt.Sprintf("both are well again: %v", who)
		}
		return ""
	})
}

// An endpoint that fails while it is called is left to the other, whatever it answers;
// no client notices.
func TestEjection(t *testing.T) {
	t.Parallel()
	w := newPairWorld(t, ", health_check: {off: true}, ejection: {errors: 4, time: 3s}, slow_start: 0s")
	w.asks(t, "paired", 10)
	for _, tc := range []struct {
		name  string
		fault simulate.Fault
	}{
		{"5xx", simulate.Fault{Status: 500}},
		{"429", simulate.Fault{Status: 429}},
		{"reset", simulate.Fault{Reset: true}},
		{"no answer in time", simulate.Fault{StallBeforeHeadersMS: 3000}},
	} {
		w.x.fault(t, tc.fault)
		if who := w.asks(t, "paired", 60); who["y"] != 60 {
			t.Errorf("%s: %v", tc.name, who)
		}
		if n := len(w.x.Requests()); n > 15 { // half of them without an ejection
			t.Errorf("%s: %d of 60 requests reached the endpoint that fails", tc.name, n)
		}
		w.x.fault(t)
		eventually(t, 40*time.Second, func() string {
			if who := w.asks(t, "paired", 10); who["x"] == 0 {
				return fmt.Sprintf("%s: the endpoint that is well again is not used: %v", tc.name, who)
			}
			return ""
		})
	}
}

// However often endpoints fall ill and get well, all of them at once too, no client is
// refused that another target could serve.
func TestEndpointsComeAndGo(t *testing.T) {
	t.Parallel()
	w := newPairWorld(t, ", health_check: {interval: 100ms, healthy_after: 1, unhealthy_after: 1}, slow_start: 0s")
	w.asks(t, "paired", 10)
	refused, all, other := 0, 0, 0
	for i := range 12 {
		switch i % 3 {
		case 0:
			w.x.fault(t, simulate.Fault{Unhealthy: true})
		case 1:
			w.y.fault(t, simulate.Fault{Unhealthy: true})
		case 2:
			w.x.fault(t)
			w.y.fault(t)
		}
		for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); all++ {
			got := w.chat("paired-first")
			if got.status != 200 {
				refused++
			}
			if got.header.Get("x-simulator") == "b" {
				other++
			}
		}
	}
	if refused > 0 || other == 0 || other == all {
		t.Errorf("%d of %d were refused, %d answered by the other pool", refused, all, other)
	}
}
