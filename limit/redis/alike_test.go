package redis

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	"github.com/weirproxy/weir/limit/redis/redistest"
)

// The clocks of tests begin where a slot of every window does.
var start = time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)

// world is one server, with the time of the test.
type world struct {
	server *redistest.Server
	now    time.Duration
	run    string // what the server is called
	name   string
}

func (w *world) time() time.Time  { return start.Add(w.now) }
func (w *world) options() Options { return w.replica("one", 1) }

func (w *world) replica(name string, n int) Options {
	return Options{
		Server: Server{Addresses: []string{w.server.Address()}}, Name: w.name, Replica: name, Replicas: n,
		Timeout: 5 * time.Second, Now: w.time, clock: w.clockKey(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// clockKey is beside the ledger's keys, and is not lost with them.
func (w *world) clockKey() string { return "clock:{" + w.name + "}" }

// set tells the server what time it is.
func (w *world) set(c rueidis.Client, now string) {
	if err := c.Do(context.Background(), c.B().Set().Key(w.clockKey()).Value(now).Build()).Error(); err != nil {
		panic(err)
	}
}

var worlds atomic.Int64

func newWorld(s *redistest.Server) *world {
	return &world{server: s, run: "first", name: fmt.Sprint("test", worlds.Add(1))}
}

func (w *world) dial(t testing.TB) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{w.server.Address()}, DialCtxFn: dialContext, DisableCache: true, ForceSingleClient: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// manual is a ledger whose keeper goes when the test says so.
type manual struct {
	*Ledger
	k *keeper
}

func newManual(t testing.TB, o Options) *manual {
	t.Helper()
	l := New(o)
	m := &manual{Ledger: l, k: &keeper{l: l}}
	t.Cleanup(func() {
		if c := l.client.Load(); c != nil {
			(*c).Close()
		}
	})
	return m
}

// step lets the keeper do what is next, and tells the server what ended.
func (m *manual) step() {
	m.k.step(context.Background())
	for m.ready() && m.flushSome(context.Background()) {
	}
}

func (m *manual) mustOpen(t testing.TB) {
	t.Helper()
	for range 5 {
		if m.step(); m.Ready() == nil {
			return
		}
	}
	t.Fatalf("not open: %v", m.Ready())
}

var berlin, _ = time.LoadLocation("Europe/Berlin")

// variety is one of each kind of limit.
func variety() []*plan.Limit {
	return []*plan.Limit{
		{Name: "requests", Unit: plan.UnitRequests, Amount: 6, Window: 6 * time.Second, PerKey: true},
		{Name: "tokens", Unit: plan.UnitTokens, Amount: 5000, Window: time.Minute, PerTeam: true, AlertAt: []int{50, 80, 100}},
		{Name: "in", Unit: plan.UnitInputTokens, Amount: 600, Window: 12 * time.Second, PerPool: true},
		{Name: "running", Unit: plan.UnitConcurrency, Amount: 9, PerTeam: true},
		{Name: "money", Unit: plan.UnitUSD, Amount: 30_000, Period: plan.Day, Zone: berlin, Breaker: true, AlertAt: []int{90, 100}},
		{Name: "seen", Unit: plan.UnitOutputTokens, Amount: 700, Window: time.Minute, OnBreach: plan.BreachReport},
		{Name: "users", Unit: plan.UnitRequests, Amount: 3, Window: 6 * time.Second, PerUser: true, Pools: map[string]bool{"b": true}},
	}
}

func anyRequest(rng *rand.Rand, id string) *limit.Request {
	r := &limit.Request{
		ID:        id,
		Principal: ai.Principal{Key: fmt.Sprint("k", rng.IntN(3)), Team: fmt.Sprint("t|%", rng.IntN(2)), User: fmt.Sprint("u", rng.IntN(3))},
		Model:     "m",
	}
	for _, pool := range []string{"a", "b"}[:1+rng.IntN(2)] {
		r.Targets = append(r.Targets, limit.Target{
			Pool: pool, Input: rng.Int64N(60), Price: ai.Price{Input: ai.NanoUSD(1+rng.Int64N(2)) * 4_000_000, Output: 3_000_000}, Billed: rng.IntN(4) == 0,
		})
	}
	out := rng.Int64N(300)
	r.Options = []limit.Option{{Output: 4 * out, Generous: true}, {Output: out}}
	if rng.IntN(2) == 0 {
		r.Options = r.Options[1:]
	}
	return r
}

// TestDecidesAlike plays random requests to a ledger in process and to one in Redis,
// and compares each word of their answers.
func TestDecidesAlike(t *testing.T) {
	t.Parallel()
	for _, name := range redistest.Available(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, name)
			refused := map[string]int{}
			for seed := range uint64(3) {
				playAlike(t, newWorld(server), rand.New(rand.NewPCG(seed, 3)), refused)
			}
			if len(refused) < 6 {
				t.Errorf("refused by %v: too little to compare", refused)
			}
		})
	}
}

func playAlike(t *testing.T, w *world, rng *rand.Rand, refused map[string]int) {
	here := limit.New(w.time)
	o := w.options()
	o.Hold = 10_000 * time.Hour // nobody asks for more time here
	there := newManual(t, o)
	client := w.dial(t)
	tick := func() { w.set(client, fmt.Sprintf("%d %s", w.time().UnixMicro(), w.run)) }
	tick()
	there.mustOpen(t)
	var alertsHere, alertsThere []limit.Alert
	here.OnAlert = func(a limit.Alert) { alertsHere = append(alertsHere, a) }
	there.OnAlert = func(a limit.Alert) { alertsThere = append(alertsThere, a) }
	limits := variety()
	open := map[string]*limit.Request{}
	admitted := 0
	for i := range 1200 {
		w.now += time.Duration(rng.ExpFloat64() * float64(400*time.Millisecond)).Truncate(time.Microsecond)
		if rng.IntN(200) == 0 {
			w.now += time.Duration(rng.IntN(30)) * time.Hour
		}
		tick()
		for id, r := range open {
			if rng.IntN(8) > 0 {
				continue
			}
			delete(open, id)
			if rng.IntN(5) == 0 {
				here.Release(id)
				there.Release(id)
			} else {
				u := used(rng, r)
				here.Settle(id, u)
				there.Settle(id, u)
			}
			if rng.IntN(3) == 0 { // again, and otherwise
				here.Release(id)
				there.Release(id)
			}
			for there.flushSome(t.Context()) {
			}
			break // one at a time: the order of alerts is that of the ends
		}
		r := anyRequest(rng, fmt.Sprint(i, there.Mark()))
		a, b := here.Reserve(limits, r), there.Reserve(limits, r)
		if diff := cmp.Diff(a, b, cmp.Comparer(func(x, y *plan.Limit) bool { return x == y })); diff != "" {
			t.Fatalf("request %d: in process, in Redis (-, +):\n%s\n", i, diff)
		}
		if a.OK {
			admitted++
			if a.Held {
				open[r.ID] = r
			}
		} else {
			refused[a.Limit.Name]++
		}
		if rng.IntN(50) == 0 {
			sameStates(t, here.States(limits, r), there.States(limits, r))
		}
		if rng.IntN(100) == 0 {
			a := here.Reset(limits[4], func(limit.Scope) bool { return true })
			b, err := there.Reset(t.Context(), limits[4], func(limit.Scope) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			sameStates(t, a, b)
		}
	}
	if here.Held() != there.Held() {
		t.Errorf("%d and %d held", here.Held(), there.Held())
	}
	if diff := cmp.Diff(alertsHere, alertsThere, cmp.Comparer(func(x, y *plan.Limit) bool { return x == y }), cmp.Comparer(func(x, y time.Time) bool {
		return x.Sub(y).Abs() <= 2*time.Microsecond
	})); diff != "" {
		t.Errorf("alerts in process, in Redis (-, +):\n%s", diff)
	}
	if admitted < 200 || len(alertsHere) < 3 {
		t.Errorf("%d admitted, %d alerts: too little to compare", admitted, len(alertsHere))
	}
}

func used(rng *rand.Rand, r *limit.Request) []limit.Used {
	t := r.Targets[rng.IntN(len(r.Targets))]
	u := limit.Used{Pool: t.Pool, Usage: ai.Usage{Input: rng.Int64N(t.Input + 1), Output: rng.Int64N(r.Options[0].Output/4 + 1)}}
	if rng.IntN(20) == 0 {
		u.Usage.Output += 500 // a debt
	}
	u.Cost = t.Price.Cost(u.Usage)
	return []limit.Used{u}
}

func sameStates(t *testing.T, a, b []limit.State) {
	t.Helper()
	if diff := cmp.Diff(a, b, cmp.Comparer(func(x, y *plan.Limit) bool { return x == y })); diff != "" {
		t.Fatalf("states in process, in Redis (-, +):\n%s", diff)
	}
}
