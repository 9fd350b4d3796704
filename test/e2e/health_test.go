package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// sick is a backend whose health can be set.
type sick struct {
	backend
	health atomic.Int32 // the status of /health
}

func newSick(t *testing.T, name string) *sick {
	t.Helper()
	s := &sick{backend: backend{Server: simulate.New(simulate.Options{Model: realModelA, Name: name})}}
	s.health.Store(200)
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			w.WriteHeader(int(s.health.Load()))
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(h.CloseClientConnections)
	t.Cleanup(h.Close)
	s.url = h.URL
	return s
}

// twins is a gateway whose pool a has two endpoints, which model embed goes to alone and
// chat with pool b behind it.
type twins struct {
	*gateway
	x, y *sick
	b    *backend
}

func newTwins(t *testing.T, pool string) *twins {
	t.Helper()
	p := &twins{x: newSick(t, "x"), y: newSick(t, "y")}
	a, b, text := newBackends(t, "    connect_timeout: 1s\n  - name: b\n", "    connect_timeout: 1s\n    metrics: {off: true}\n    "+pool+"\n  - name: b\n",
		"  - name: embed\n", "  - name: embed\n    attempt_timeout: 1s\n    first_token_timeout: 1s\n")
	p.b = b
	text = edited(t, text, `endpoints: [{url: "`+a.url+`"}]`, fmt.Sprintf(`endpoints: [{url: %q}, {url: %q}]`, p.x.url, p.y.url))
	p.gateway = up(t, text)
	return p
}

// burst sends n requests, one after the other, and says how many each endpoint received
// and how many answers were not 200.
func (p *twins) burst(t *testing.T, model string, n int) (x, y, failed int) {
	t.Helper()
	p.x.ClearRequests()
	p.y.ClearRequests()
	for range n {
		if got := p.chat(model); got.status != 200 {
			failed++
		}
	}
	return len(p.x.Requests()), len(p.y.Requests()), failed
}

// An endpoint that says that it is not well gets nothing, and with a whole pool that is
// not well the next target answers; who is well again is back.
func TestHealthChecks(t *testing.T) {
	t.Parallel()
	p := newTwins(t, "health_check: {interval: 100ms, timeout: 1s, healthy_after: 1}\n    slow_start: 0s")
	reaches := func(what string, ok func(x, y, failed int) bool) {
		t.Helper()
		eventually(t, 20*time.Second, func() string {
			if x, y, failed := p.burst(t, "chat", 20); !ok(x, y, failed) {
				return fmt.Sprintf("%s: x %d, y %d, failed %d", what, x, y, failed)
			}
			return ""
		})
	}
	reaches("both are well", func(x, y, failed int) bool { return x > 0 && y > 0 && failed == 0 })
	p.x.health.Store(503)
	reaches("x is not well", func(x, y, failed int) bool { return x == 0 && y == 20 && failed == 0 })
	p.y.health.Store(500)
	reaches("none is well", func(x, y, failed int) bool { return x == 0 && y == 0 && failed == 0 })
	if got := p.chat("chat"); got.status != 200 || got.header.Get("x-simulator") != "b" {
		t.Errorf("status %d from %q", got.status, got.header.Get("x-simulator"))
	}
	p.x.health.Store(404) // it is there, without such a path
	p.y.health.Store(200)
	// One of 20 tries a pool first that failed, so this may take a while.
	reaches("both are back", func(x, y, failed int) bool { return x > 0 && y > 0 && failed == 0 })
}

// An endpoint that fails is left alone, while its peers answer, and is back after a while;
// no client notices.
func TestEjection(t *testing.T) {
	t.Parallel()
	p := newTwins(t, "ejection: {after: 3, for: 2s, at_most: 2s}\n    slow_start: 0s")
	for _, tc := range []struct {
		name  string
		fault simulate.Fault
	}{
		{"500", simulate.Fault{Status: 500}},
		{"503", simulate.Fault{Status: 503}},
		{"429", simulate.Fault{Status: 429}},
		{"reset", simulate.Fault{Reset: true}},
		{"slow", simulate.Fault{StallBeforeHeadersMS: -1}},
	} {
		p.x.fault(t, tc.fault)
		quiet := false
		for range 20 {
			x, y, failed := p.burst(t, "embed", 10)
			if failed > 0 && tc.name != "429" {
				t.Errorf("%s: %d of 10 failed", tc.name, failed)
			}
			if quiet = x == 0 && y == 10; quiet {
				break
			}
		}
		if !quiet {
			t.Errorf("%s: the endpoint is not left alone", tc.name)
		}
		p.x.fault(t)
		eventually(t, 20*time.Second, func() string {
			if x, _, failed := p.burst(t, "embed", 10); x == 0 || failed > 0 {
				return fmt.Sprintf("%s: after it, x received %d, %d failed", tc.name, x, failed)
			}
			return ""
		})
	}
	// What is wrong with the requests ejects nobody.
	p.x.fault(t, simulate.Fault{Status: 400, Body: `{"error":{"message":"too hot","type":"BadRequestError","code":400}}`})
	for range 5 {
		if x, y, failed := p.burst(t, "embed", 20); x == 0 || y == 0 || failed != x {
			t.Errorf("400: x received %d, y %d, %d failed", x, y, failed)
		}
	}
}

// Second tries do not double what a pool gets that is dead.
func TestDeadPoolIsNotTriedTwice(t *testing.T) {
	t.Parallel()
	p := newTwins(t, "ejection: {off: true}")
	p.x.fault(t, simulate.Fault{Status: 503})
	p.y.fault(t, simulate.Fault{Status: 503})
	const n = 200
	for range n {
		if got := p.chat("embed"); got.status != 503 || !strings.Contains(got.body, `"error"`) {
			t.Fatalf("status %d: %s", got.status, got.body)
		}
		time.Sleep(10 * time.Millisecond) // a load, and not a race against what is known
	}
	if got := len(p.x.Requests()) + len(p.y.Requests()); got < n || float64(got) >= 1.2*n {
		t.Errorf("%d attempts for %d requests", got, n)
	} else {
		t.Logf("%d attempts for %d requests", got, n)
	}
	p.x.fault(t)
	p.y.fault(t)
	if _, _, failed := p.burst(t, "embed", 10); failed > 0 {
		t.Errorf("it is well again: %d of 10 failed", failed)
	}
}

// However often endpoints fall ill and get well, all of them at once too, no client is
// refused that another target could serve.
func TestEndpointsComeAndGo(t *testing.T) {
	t.Parallel()
	p := newTwins(t, "health_check: {interval: 100ms, healthy_after: 1, unhealthy_after: 1}")
	refused, all, other := 0, 0, 0
	for i := range 12 {
		switch i % 3 {
		case 0:
			p.x.health.Store(503)
		case 1:
			p.y.health.Store(503)
		case 2:
			p.x.health.Store(200)
			p.y.health.Store(200)
		}
		for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); all++ {
			got := p.chat("chat")
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

// When one endpoint of a pool fails and the next target fails too, the pool's other
// endpoint is tried: what could be answered is.
func TestOtherEndpointAfterAll(t *testing.T) {
	t.Parallel()
	p := newTwins(t, "ejection: {off: true}")
	p.x.fault(t, simulate.Fault{Status: 500})
	p.b.fault(t, simulate.Fault{Status: 500})
	for range 12 {
		if got := p.chat("chat"); got.status != 200 || got.header.Get("x-simulator") != "y" {
			t.Errorf("status %d from %q: %s", got.status, got.header.Get("x-simulator"), got.body)
		}
	}
	x, y, b := len(p.x.Requests()), len(p.y.Requests()), len(p.b.Requests())
	if x == 0 || x != b || y != 12 {
		t.Errorf("x had %d requests, b %d, y %d", x, b, y)
	}
}
