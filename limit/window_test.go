package limit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// past is a request as the test remembers it.
type past struct {
	r                 *Request
	admitted, settled time.Duration
	open              bool
	used              ai.Usage
}

// TestWindowIsNeverPassed plays random requests with random ends against a slow
// account of every limit, and asks at each answer: is the promise kept, and was
// a refused one really too much?
func TestWindowIsNeverPassed(t *testing.T) {
	t.Parallel()
	ls := limits(
		plan.Limit{Name: "requests", Unit: plan.UnitRequests, Amount: 7, Window: time.Second, PerKey: true},
		plan.Limit{Name: "in", Unit: plan.UnitInputTokens, Amount: 900, Window: 10 * time.Second, PerTeam: true},
		plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 5000, PerTeam: true, PerModel: true},
		plan.Limit{Name: "out", Unit: plan.UnitOutputTokens, Amount: 3000, Window: 7 * time.Second, Models: map[string]bool{"m1": true}},
	)
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var c clock
		l := New(c.now)
		var all []*past
		admitted, refused := 0, map[string]int{}
		for i := range 4000 {
			c.advance(time.Duration(rng.ExpFloat64() * float64(60*time.Millisecond)))
			now := time.Duration(c.ns.Load())
			finish(l, all, now, rng)
			r := request(fmt.Sprint(i), rng.Int64N(100), rng.Int64N(400))
			r.Principal = ai.Principal{Key: fmt.Sprint("k", rng.IntN(3)), Team: fmt.Sprint("t", rng.IntN(2))}
			r.Model = fmt.Sprint("m", rng.IntN(2))
			res := l.Reserve(ls, r)
			if !res.OK {
				refused[res.Limit.Name]++
				slotted := res.Limit.Window + res.Limit.Window/slotsPerWindow
				if taken(all, res.Limit, r, now, slotted)+r.amount(res.Limit, "", r.Options[0].Output) <= res.Limit.Amount {
					t.Fatalf("seed %d, request %d: refused by %s without cause", seed, i, res.Limit.Name)
				}
				continue
			}
			admitted++
			all = append(all, &past{r: r, admitted: now, open: true})
			for _, lim := range ls {
				if !lim.Applies(&r.Principal, r.Model) {
					continue
				}
				if n := taken(all, lim, r, now, lim.Window); n > lim.Amount {
					t.Fatalf("seed %d, request %d: %s has %d of %d", seed, i, lim.Name, n, lim.Amount)
				}
			}
			if len(all) > 2000 {
				all = all[1000:]
			}
		}
		if admitted < 500 || len(refused) != len(ls) {
			t.Errorf("seed %d: %d admitted, refused %v: the test does not test every limit", seed, admitted, refused)
		}
	}
}

// finish ends some of the open requests.
func finish(l *Ledger, all []*past, now time.Duration, rng *rand.Rand) {
	for _, p := range all {
		if !p.open || rng.IntN(20) > 0 {
			continue
		}
		p.open, p.settled = false, now
		if rng.IntN(8) == 0 {
			l.Release(p.r.ID)
			p.admitted, p.settled = -time.Hour, -time.Hour // as if it had never been
			continue
		}
		p.used = ai.Usage{Input: rng.Int64N(p.r.Targets[0].Input + 1), Output: rng.Int64N(p.r.Options[0].Output + 1)}
		l.Settle(p.r.ID, use(p.used))
		l.Settle(p.r.ID, use(ai.Usage{Input: 1e6}))
	}
}

// taken is what limit counts for the scope of r in the window that ends now.
func taken(all []*past, lim *plan.Limit, r *Request, now, window time.Duration) (n int64) {
	for _, p := range all {
		if !lim.Applies(&p.r.Principal, p.r.Model) || identify(lim, p.r, "") != identify(lim, r, "") {
			continue
		}
		switch {
		case lim.Unit == plan.UnitRequests:
			if p.admitted > now-window {
				n++
			}
		case p.open:
			n += p.r.amount(lim, "", p.r.Options[0].Output)
		case p.settled > now-window:
			n += Spent(lim, "", use(p.used))
		}
	}
	return n
}

// Many goroutines in one moment: what they hold and have used never passes the
// limit, and once all have ended nothing is held.
func TestConcurrentReservations(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(
		plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 1000},
		plan.Limit{Name: "requests", Unit: plan.UnitRequests, Amount: 500, PerKey: true},
	)
	var taken, most, admitted atomic.Int64
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range 2000 {
				id := fmt.Sprint(g, "-", i)
				n := 1 + rng.Int64N(50)
				if !l.Reserve(ls, request(id, n, 0)).OK {
					continue
				}
				admitted.Add(1)
				// What is given back is subtracted before it is given back, so
				// that the account is never above the ledger's.
				now := taken.Add(n)
				for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
				}
				used := n * int64(rng.IntN(2))
				if rng.IntN(40) > 0 {
					used = 0
				}
				taken.Add(used - n)
				if used == 0 && i%2 == 0 {
					l.Release(id)
				} else {
					l.Settle(id, use(ai.Usage{Input: used}))
				}
			}
		})
	}
	group.Wait()
	if most.Load() > 1000 || taken.Load() > 1000 {
		t.Errorf("%d tokens at the most, %d at the end, want at most 1000", most.Load(), taken.Load())
	}
	if l.Held() != 0 {
		t.Errorf("%d held at the end", l.Held())
	}
	if admitted.Load() < 100 {
		t.Errorf("%d admitted: the test does not test much", admitted.Load())
	}
	res := l.Reserve(ls[:1], request("last", 0, 0))
	if want := 1000 - taken.Load(); res.Tokens.Remaining != want {
		t.Errorf("%d remain, want %d", res.Tokens.Remaining, want)
	}
}
