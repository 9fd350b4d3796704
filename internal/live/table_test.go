package live

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weirproxy/weir/dialect/profile"
	"github.com/weirproxy/weir/internal/plan"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// clock is one that a test moves.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)} }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

func vllmPool(name string, endpoints ...plan.Endpoint) *plan.Pool {
	kind, _ := profile.ByName("vllm")
	return &plan.Pool{
		Name: name, Adapter: kind, Scheme: "http", Endpoints: endpoints, ConnectTimeout: time.Second,
		Metrics: plan.Metrics{Path: kind.Metrics.Path, Interval: 2 * time.Second, Timeout: 2 * time.Second},
	}
}

func table(c *clock, pools ...*plan.Pool) *Table {
	t := NewTable()
	t.Now = func() time.Time { return c.now }
	t.Follow(&plan.Plan{Pools: pools})
	return t
}

func event(pool string, first time.Duration, attempts ...*usagev1.Attempt) *usagev1.Event {
	return &usagev1.Event{Pool: pool, FirstTokenUs: first.Microseconds(), Attempts: attempts}
}

func at(pool string, status int32, failure string) *usagev1.Attempt {
	return &usagev1.Attempt{Pool: pool, Status: status, Failure: failure}
}

func TestAttemptsOfTheLastMinute(t *testing.T) {
	c := newClock()
	tab := table(c, vllmPool("a"), vllmPool("b"))
	for range 6 {
		tab.Ended(event("a", 100*time.Millisecond, at("a", 200, "")))
	}
	tab.Ended(event("b", 900*time.Millisecond, at("a", 503, "status"), at("b", 200, "")))
	tab.Ended(event("", 0, at("a", 429, "status")))
	tab.Ended(event("a", 0, at("a", 400, "")))              // the client's own fault
	tab.Ended(event("", 0, at("a", 0, "client_gone")))      // says nothing of the backend
	tab.Ended(event("gone", 0, at("gone", 200, "")))        // a pool that is in no plan
	tab.Ended(event("a", 0, at("a", 0, "connect_failure"))) // never answered
	tab.Ended(event("a", 400*time.Millisecond, at("a", 200, "")))
	s, ok := tab.Pool("a")
	if !ok || s.Attempts != 10 || s.ErrorRate != 0.2 || s.RefusedRate != 0.1 {
		t.Errorf("%+v, %v", s, ok)
	}
	if s.FirstToken < 80*time.Millisecond || s.FirstToken > 120*time.Millisecond {
		t.Errorf("the median first token is after %v", s.FirstToken)
	}
	if s, _ := tab.Pool("b"); s.Attempts != 1 || s.FirstToken != 0 {
		t.Errorf("after a failover the first token is not the second pool's alone: %+v", s)
	}
	c.pass(54 * time.Second)
	if s, _ := tab.Pool("a"); s.Attempts != 10 {
		t.Errorf("after 54 s: %+v", s)
	}
	c.pass(7 * time.Second)
	if s, _ := tab.Pool("a"); s.Attempts != 0 || s.ErrorRate != 0 || s.FirstToken != 0 {
		t.Errorf("after a minute: %+v", s)
	}
	if _, ok := tab.Pool("gone"); ok {
		t.Error("a pool that is in no plan is known")
	}
}

func TestFailing(t *testing.T) {
	c := newClock()
	tab := table(c, vllmPool("a"))
	is := func(want bool, when string) {
		t.Helper()
		if s, _ := tab.Pool("a"); s.Failing != want {
			t.Errorf("%s: failing %v", when, s.Failing)
		}
	}
	fail, answer := event("", 0, at("a", 502, "status")), event("a", 0, at("a", 200, ""))
	for range 100 {
		tab.Ended(answer)
	}
	for range failingOf - 1 {
		tab.Ended(fail)
	}
	is(false, "four failures after a hundred answers")
	tab.Ended(fail)
	is(true, "five in a row")
	tab.Ended(answer)
	is(false, "and an answer")
	c.pass(20 * time.Second)
	for range 4 {
		tab.Ended(fail)
		tab.Ended(answer)
	}
	is(false, "every second one fails")
	tab.Ended(fail)
	is(true, "more than half fail")
	tab.Ended(answer)
	is(false, "half are answered")
	for range failingOf {
		tab.Ended(fail)
	}
	is(true, "again five in a row")
	c.pass(15 * time.Second)
	is(false, "when nobody has tried for a while")
	tab.Ended(event("", 0, at("a", 429, "status")))
	is(false, "a busy pool")
}

func TestLatenciesAreNear(t *testing.T) {
	for d := time.Millisecond; d < 4*time.Minute; d += d/7 + 1 {
		got := timeOf(bucketOf(d))
		if off := float64(got)/float64(d) - 1; off < -0.2 || off > 0.2 {
			t.Errorf("%v is told as %v", d, got)
		}
	}
	for _, d := range []time.Duration{0, time.Microsecond, 24 * time.Hour} {
		if b := bucketOf(d); b < 0 || b >= latencies {
			t.Errorf("%v is in bucket %d", d, b)
		}
	}
}

// However requests begin and end and plans change, nothing is open in the end.
func TestOpenComesBackToNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	plans := [][]*plan.Pool{{vllmPool("a"), vllmPool("b")}, {vllmPool("b"), vllmPool("c")}, {vllmPool("a")}}
	tab := table(newClock(), plans[0]...)
	var open []*usagev1.Decision
	count := map[string]int64{}
	for range 5000 {
		switch n := r.IntN(10); {
		case n == 0:
			tab.Follow(&plan.Plan{Pools: plans[r.IntN(len(plans))]})
		case n < 6 || len(open) == 0:
			d := &usagev1.Decision{Targets: []string{string(rune('a' + r.IntN(3))), "b"}}
			open = append(open, d)
			count[d.Targets[0]]++
			tab.Pending(d, 1)
		default:
			i := r.IntN(len(open))
			tab.Pending(open[i], -1)
			count[open[i].Targets[0]]--
			open = append(open[:i], open[i+1:]...)
		}
		for name, n := range count {
			if s, _ := tab.Pool(name); s.Open != n {
				t.Fatalf("pool %s: %d open, want %d", name, s.Open, n)
			}
		}
	}
	for _, d := range open {
		tab.Pending(d, -1)
	}
	for name := range count {
		if s, _ := tab.Pool(name); s.Open != 0 {
			t.Errorf("pool %s: %d are open in the end", name, s.Open)
		}
	}
}

func TestWhatIsKnownStays(t *testing.T) {
	c := newClock()
	one, two := plan.Endpoint{Host: "10.0.0.1", Port: 80}, plan.Endpoint{Host: "10.0.0.2", Port: 80}
	tab := table(c, vllmPool("a", one, two))
	p := (*tab.pools.Load())["a"]
	for i, e := range *p.endpoints.Load() {
		e.said(&reading{at: c.now, running: float64(i + 1), waiting: 4, kvUse: 0.5, hasKV: i == 0})
	}
	p.summarize()
	if s, _ := tab.Pool("a"); s.Running != 3 || s.Waiting != 8 || s.KVUse != 0.5 || s.Healthy != 2 || s.Stale {
		t.Errorf("%+v", s)
	}
	tab.Follow(&plan.Plan{Pools: []*plan.Pool{vllmPool("a", two, plan.Endpoint{Host: "10.0.0.3", Port: 80})}})
	if s, _ := tab.Pool("a"); s.Running != 2 || s.Endpoints != 2 || s.Healthy != 2 {
		t.Errorf("after the change: %+v", s)
	}
	c.pass(6*time.Second + 1)
	if s, _ := tab.Pool("a"); !s.Stale || s.Running != 2 {
		t.Errorf("after three intervals: %+v", s)
	}
	for range downAfter {
		(*p.endpoints.Load())[0].silence("refused", true)
	}
	p.summarize()
	if s, _ := tab.Pool("a"); s.Healthy != 1 || s.Running != 0 || !s.Heard.IsZero() {
		t.Errorf("with one down and one never heard of: %+v", s)
	}
}

func BenchmarkPool(b *testing.B) {
	tab := table(newClock(), vllmPool("a", plan.Endpoint{Host: "10.0.0.1", Port: 80}))
	tab.Ended(event("a", time.Second, at("a", 200, "")))
	b.ReportAllocs()
	for b.Loop() {
		if s, ok := tab.Pool("a"); !ok || s.Attempts != 1 {
			b.Fatal(s)
		}
	}
}

func BenchmarkEnded(b *testing.B) {
	tab := table(newClock(), vllmPool("a"))
	e := event("a", time.Second, at("a", 200, ""))
	b.ReportAllocs()
	for b.Loop() {
		tab.Ended(e)
	}
}

// An endpoint that was down when its pool stopped being asked is not known to be down.
func TestMetricsOff(t *testing.T) {
	pool := &plan.Pool{Name: "p", Endpoints: []plan.Endpoint{{Host: "127.0.0.1", Port: 1}}, Metrics: plan.Metrics{Path: "/metrics", Port: 9, Interval: 1e9}}
	tab := NewTable()
	tab.Follow(&plan.Plan{Pools: []*plan.Pool{pool}})
	e := (*(*tab.pools.Load())["p"].endpoints.Load())[0]
	for range downAfter {
		e.silence("refused", true)
	}
	off := *pool
	off.Metrics = plan.Metrics{}
	tab.Follow(&plan.Plan{Pools: []*plan.Pool{&off}})
	if s, _ := tab.Pool("p"); s.Healthy != 1 {
		t.Errorf("healthy %d for ever, though nobody asks any more: the pool stays demoted", s.Healthy)
	}
}
