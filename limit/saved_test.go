package limit

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// ended is an event in the journal of the test.
type ended struct {
	r         *Request
	used      []Used
	admit, at time.Time
}

// A ledger that is killed at any moment and put back from what was kept, what the
// journal has behind that, and what is open, counts as one that went on.
func TestLoadedCountsAsBefore(t *testing.T) {
	t.Parallel()
	ls := []*plan.Limit{
		{Name: "r", Unit: plan.UnitRequests, Amount: 40, Window: time.Minute, PerKey: true},
		{Name: "rd", Unit: plan.UnitRequests, Amount: 1e6, Period: plan.Day, Zone: time.UTC, PerTeam: true},
		{Name: "t", Unit: plan.UnitTokens, Amount: 5000, Window: 2 * time.Minute, PerTeam: true},
		{Name: "usd", Unit: plan.UnitUSD, Amount: 80_000, Period: plan.Day, Zone: time.UTC, PerModel: true, AlertAt: []int{50}},
		{Name: "c", Unit: plan.UnitConcurrency, Amount: 15},
	}
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var c clock
		c.advance(20 * time.Hour) // midnight comes in the middle
		l, twin := New(c.now), New(c.now)
		kept := map[string]Count{}
		var journal []ended
		open := map[string]ended{}
		for i := range 1500 {
			c.advance(time.Duration(rng.ExpFloat64() * float64(10*time.Second)))
			for id, e := range open {
				if rng.IntN(4) > 0 {
					continue
				}
				delete(open, id)
				if rng.IntN(6) == 0 {
					l.Release(id)
					twin.Release(id)
					continue
				}
				n := rng.Int64N(e.r.Targets[0].Input + 1)
				e.used, e.at = []Used{{Pool: "p", Usage: ai.Usage{Input: n}, Cost: ai.NanoUSD(n)}}, c.now()
				l.Settle(id, e.used)
				twin.Settle(id, e.used)
				journal = append(journal, e)
			}
			r := request(fmt.Sprint(i), rng.Int64N(300), 0)
			r.Principal = ai.Principal{Key: fmt.Sprint("k", rng.IntN(3)), Team: fmt.Sprint("t", rng.IntN(2))}
			r.Model, r.Targets[0].Price = fmt.Sprint("m", rng.IntN(2)), perToken
			a, b := l.Reserve(ls, r), twin.Reserve(ls, r)
			if diff := cmp.Diff(b, a); diff != "" {
				t.Fatalf("seed %d, request %d (-went on +put back):\n%s", seed, i, diff)
			}
			if a.OK {
				open[r.ID] = ended{r: r, admit: c.now()}
			}
			if rng.IntN(30) == 0 { // it is kept
				for _, k := range l.Changed() {
					kept[fmt.Sprint(k.Limit, k.Scope)] = k
				}
				journal = journal[:0]
			}
			if rng.IntN(50) > 0 {
				continue
			}
			// Slots are laid out from a ledger's beginning: at a multiple of their width.
			c.advance(2*time.Second - time.Duration(c.ns.Load())%(2*time.Second))
			l = New(c.now)
			for _, k := range kept {
				l.Load([]Count{k})
			}
			for _, e := range journal {
				l.Count(ls, e.r, e.used, e.admit, e.at)
			}
			for _, e := range open {
				l.Restore(ls, e.r, e.admit)
			}
		}
	}
}

func TestUnsavedAreTakenOutAgain(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(plan.Limit{Name: "t", Unit: plan.UnitTokens, Amount: 100})
	l.Reserve(ls, request("1", 10, 0))
	l.Settle("1", use(ai.Usage{Input: 10}))
	first := l.Changed()
	if len(first) != 1 || len(l.Changed()) != 0 {
		t.Fatalf("%+v", first)
	}
	l.Unsaved(first)
	if diff := cmp.Diff(first, l.Changed()); diff != "" {
		t.Error(diff)
	}
}

// A limit that comes while requests run takes in what they hold.
func TestRestoreAddsWhatIsNew(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	old := limits(plan.Limit{Name: "old", Unit: plan.UnitTokens, Amount: 100})
	both := append(limits(plan.Limit{Name: "new", Unit: plan.UnitTokens, Amount: 100}), old...)
	l.Reserve(old, request("1", 70, 0))
	for range 2 {
		l.Restore(both, request("1", 70, 0), c.now())
	}
	for _, s := range l.States(both, request("2", 0, 0)) {
		if s.Reserved != 70 {
			t.Errorf("%+v", s)
		}
	}
	l.Settle("1", use(ai.Usage{Input: 10}))
	for _, s := range l.States(both, request("2", 0, 0)) {
		if s.Reserved != 0 || s.Used != 10 {
			t.Errorf("%+v", s)
		}
	}
}
