package live

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// mutes are n endpoints that take connections and never answer.
func mutes(t *testing.T, n int) (list []plan.Endpoint) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	at := netip.MustParseAddrPort(l.Addr().String())
	for range n {
		list = append(list, plan.Endpoint{Host: at.Addr().String(), Port: uint32(at.Port()), Weight: 1})
	}
	return list
}

// Endpoints that keep whoever asks waiting do not keep those that answer from being
// asked when it is their turn.
func TestSilentOnesDelayNobody(t *testing.T) {
	b := newBackend(t)
	tab := scrape(t, b.endpoint)
	until(t, "it is heard of", tab, func(s plan.PoolState) bool { return s.Running == 3 })
	alive := vllmPool("a", b.endpoint)
	alive.Metrics.Interval, alive.Metrics.Timeout = 100*time.Millisecond, time.Second
	silent := vllmPool("silent", mutes(t, 2*maxAsking)...)
	silent.Metrics.Interval, silent.Metrics.Timeout = 100*time.Millisecond, time.Minute
	tab.Follow(&plan.Plan{Pools: []*plan.Pool{alive, silent}})
	time.Sleep(time.Second) // all slots for silent ones are taken now
	for range 10 {
		asked := time.Now()
		until(t, "it is heard of again", tab, func(s plan.PoolState) bool { return s.Heard.After(asked) })
		if waited := time.Since(asked); waited > 5*time.Second {
			t.Fatalf("its turn came after %v", waited)
		}
	}
}

// Endpoints that stop answering together are one line in the log, and so is their return.
func TestOneLineForAPool(t *testing.T) {
	var backends []*backend
	var endpoints []plan.Endpoint
	for range 8 {
		b := newBackend(t)
		b.say(503, "")
		backends, endpoints = append(backends, b), append(endpoints, b.endpoint)
	}
	var mu sync.Mutex
	var text bytes.Buffer
	lines := func() (list []string) {
		mu.Lock()
		defer mu.Unlock()
		for line := range strings.Lines(text.String()) {
			list = append(list, strings.TrimSpace(line))
		}
		return list
	}
	p := vllmPool("a", endpoints...)
	p.Metrics.Interval, p.Metrics.Timeout = 500*time.Millisecond, 20*time.Second
	tab := NewTable()
	tab.Follow(&plan.Plan{Pools: []*plan.Pool{p}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = NewScraper(tab, slog.New(slog.NewTextHandler(locked{&mu, &text}, nil))).Run(ctx)
	}()
	until(t, "all are down", tab, func(s plan.PoolState) bool { return s.Healthy == 0 })
	time.Sleep(2 * downAfter * p.Metrics.Interval)
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], `"endpoints do not answer" pool=a down=8 of=8 endpoint=`) {
		t.Errorf("eight endpoints that do not answer:\n%s", strings.Join(got, "\n"))
	}
	for _, b := range backends {
		b.say(200, "vllm:num_requests_running 1\n")
	}
	until(t, "all are back", tab, func(s plan.PoolState) bool { return s.Healthy == 8 })
	time.Sleep(2 * downAfter * p.Metrics.Interval)
	if got := lines(); !strings.Contains(got[len(got)-1], `"endpoints answer again" pool=a down=0 of=8`) {
		t.Errorf("eight endpoints that are back:\n%s", strings.Join(got, "\n"))
	}
}

type locked struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(b)
}

func TestPauses(t *testing.T) {
	e := &endpoint{}
	var got []time.Duration
	for range 8 {
		got = append(got, e.pause(2*time.Second))
		e.silence("refused", true)
	}
	want := []time.Duration{2, 2, 2, 4, 8, 10, 10, 10} // seconds
	for i, d := range want {
		if got[i] != d*time.Second {
			t.Errorf("after %d failures it is left alone for %v, want %ds", i, got[i], d)
		}
	}
	if d := e.pause(time.Minute); d != time.Minute {
		t.Errorf("a pool that is asked each minute: %v", d)
	}
	for range 100 {
		e.silence("refused", true)
	}
	if d := e.pause(2 * time.Second); d != longestPause {
		t.Errorf("after a hundred failures: %v", d)
	}
	e.said(&reading{})
	if d := e.pause(2 * time.Second); d != 2*time.Second {
		t.Errorf("once it answers: %v", d)
	}
}

// Whoever sums up last sums up everything: endpoints answer at the same time, and what
// one said must not be lost until it is asked again.
func TestSummariesDoNotRace(t *testing.T) {
	var endpoints []plan.Endpoint
	for i := range 64 {
		endpoints = append(endpoints, plan.Endpoint{Host: "10.0.0.1", Port: uint32(i + 1)})
	}
	for range 300 {
		tab := NewTable()
		tab.Follow(&plan.Plan{Pools: []*plan.Pool{vllmPool("a", endpoints...)}})
		p := (*tab.pools.Load())["a"]
		synctest.Test(t, func(t *testing.T) {
			for _, e := range *p.endpoints.Load() {
				go func() {
					e.said(&reading{running: 1})
					p.summarize()
				}()
			}
		})
		if s, _ := tab.Pool("a"); s.Running != float64(len(endpoints)) {
			t.Fatalf("%v of %d endpoints are in the summary", s.Running, len(endpoints))
		}
	}
}
