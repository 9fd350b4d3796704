package live

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// backend answers /metrics as it is told.
type backend struct {
	*httptest.Server
	endpoint plan.Endpoint
	status   atomic.Int64
	text     atomic.Pointer[string]
}

func newBackend(t *testing.T) *backend {
	b := &backend{}
	b.say(200, "vllm:num_requests_running 3\nvllm:num_requests_waiting 2\n")
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		if b.status.Load() == 302 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(int(b.status.Load()))
		_, _ = w.Write([]byte(*b.text.Load()))
	}))
	t.Cleanup(b.Close)
	at := netip.MustParseAddrPort(b.Listener.Addr().String())
	b.endpoint = plan.Endpoint{Host: at.Addr().String(), Port: uint32(at.Port()), Weight: 1}
	return b
}

func (b *backend) say(status int, text string) {
	b.status.Store(int64(status))
	b.text.Store(&text)
}

// scrape runs a scraper over a pool until the test ends.
func scrape(t *testing.T, endpoints ...plan.Endpoint) *Table {
	p := vllmPool("a", endpoints...)
	p.Metrics.Interval, p.Metrics.Timeout = 100*time.Millisecond, 5*time.Second
	tab := NewTable()
	tab.Follow(&plan.Plan{Pools: []*plan.Pool{p}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = NewScraper(tab, slog.New(slog.DiscardHandler)).Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return tab
}

func until(t *testing.T, what string, tab *Table, ok func(plan.PoolState) bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, _ := tab.Pool("a")
		if ok(s) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %+v, %+v", what, s, tab.Endpoints("a"))
		}
	}
}

func TestScrape(t *testing.T) {
	one, two := newBackend(t), newBackend(t)
	tab := scrape(t, one.endpoint, two.endpoint)
	until(t, "both are heard of", tab, func(s plan.PoolState) bool { return s.Running == 6 && s.Waiting == 4 && s.Healthy == 2 })

	two.say(503, "")
	until(t, "one is down", tab, func(s plan.PoolState) bool { return s.Healthy == 1 && s.Running == 3 })
	two.say(200, "vllm:num_requests_running 1\n")
	until(t, "it is back", tab, func(s plan.PoolState) bool { return s.Healthy == 2 && s.Running == 4 })

	two.Close()
	until(t, "nothing listens there", tab, func(s plan.PoolState) bool { return s.Healthy == 1 && s.Running == 3 })
	if e := tab.Endpoints("a")[1]; !e.Down || e.Error == "" || strings.Contains(e.Error, "http://") {
		t.Errorf("%+v", e)
	}
}

// What answers, and does not tell how busy it is, is up.
func TestMuteIsNotDown(t *testing.T) {
	b := newBackend(t)
	tab := scrape(t, b.endpoint)
	until(t, "it is heard of", tab, func(s plan.PoolState) bool { return s.Running == 3 })
	for _, mute := range []struct {
		status int
		text   string
		why    string
	}{
		{404, "no", "/metrics answers 404"}, {302, "", "/metrics answers 302"}, {401, "", "/metrics answers 401"},
		{200, "<html>", errNoMetrics.Error()},
	} {
		b.say(mute.status, mute.text)
		until(t, mute.why, tab, func(plan.PoolState) bool { return tab.Endpoints("a")[0].Error == mute.why })
	}
	until(t, "it is stale, and up", tab, func(s plan.PoolState) bool { return s.Stale && s.Healthy == 1 })
}

func TestErrorsArePlain(t *testing.T) {
	if err := plainly(context.DeadlineExceeded); err.Error() != "no answer in time" {
		t.Error(err)
	}
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	if err := plainly(refused); err.Error() != "dial tcp: connection refused" {
		t.Error(err)
	}
}
