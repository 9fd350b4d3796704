package limit

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

func benchLimits() []*plan.Limit {
	return limits(
		plan.Limit{Name: "key-requests", Unit: plan.UnitRequests, Amount: 1e12, PerKey: true},
		plan.Limit{Name: "key-tokens", Unit: plan.UnitTokens, Amount: 1e12, PerKey: true},
		plan.Limit{Name: "team-tokens", Unit: plan.UnitTokens, Amount: 1e12, PerTeam: true},
	)
}

// ids are decision ids, made before the clock runs.
func ids() []string {
	out := make([]string, 1<<16)
	for i := range out {
		out[i] = fmt.Sprintf("%032x", i)
	}
	return out
}

// One operation is a reservation and its settlement.
func BenchmarkReserveSettle(b *testing.B) {
	for _, keys := range []int{10, 100_000} {
		b.Run(fmt.Sprintf("keys-%d", keys), func(b *testing.B) {
			ls, names, id := benchLimits(), make([]string, keys), ids()
			for i := range names {
				names[i] = fmt.Sprintf("application-key-%d", i)
			}
			l := New(time.Now)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				r := request(id[i%len(id)], 500, 1000)
				r.Principal.Key = names[i%keys]
				l.Reserve(ls, r)
				l.Settle(r.ID, use(ai.Usage{Input: 400, Output: 300}))
				i++
			}
		})
	}
}

func BenchmarkReserveOnly(b *testing.B) {
	ls, id := benchLimits(), ids()
	l := New(time.Now)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		l.Reserve(ls, request(id[i%len(id)], 1, 1))
		if i++; i%len(id) == 0 {
			b.StopTimer()
			for _, id := range id {
				l.Release(id)
			}
			b.StartTimer()
		}
	}
}

func BenchmarkParallel(b *testing.B) {
	ls, id := benchLimits(), ids()
	l := New(time.Now)
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := request(id[n.Add(1)%int64(len(id))], 500, 1000)
			l.Reserve(ls, r)
			l.Settle(r.ID, use(ai.Usage{Input: 400, Output: 300}))
		}
	})
}

// One operation is a reservation and its settlement under so many limits, of
// all kinds and scopes, with keys of so many callers.
func BenchmarkLimits(b *testing.B) {
	units := []plan.Unit{plan.UnitRequests, plan.UnitTokens, plan.UnitUSD, plan.UnitOutputTokens, plan.UnitConcurrency}
	for _, n := range []int{1, 5, 20} {
		for _, keys := range []int{10, 100_000} {
			b.Run(fmt.Sprintf("limits-%d/keys-%d", n, keys), func(b *testing.B) {
				var ls []*plan.Limit
				for i := range n {
					l := plan.Limit{Name: fmt.Sprint("limit-", i), Unit: units[i%len(units)], Amount: 1e15, Window: time.Minute, PerKey: i%2 == 0, PerTeam: i%3 == 0}
					switch {
					case l.Unit == plan.UnitUSD:
						l.Window, l.Period, l.Zone, l.AlertAt = 0, plan.Month, time.UTC, []int{50, 80, 100}
					case l.Unit == plan.UnitConcurrency:
						l.Window = 0
					}
					ls = append(ls, &l)
				}
				names, id := make([]string, keys), ids()
				for i := range names {
					names[i] = fmt.Sprintf("application-key-%d", i)
				}
				l := New(time.Now)
				used := []Used{{Pool: "p", Usage: ai.Usage{Input: 400, Output: 300}, Cost: 12345}}
				r := request("", 500, 1000)
				r.Options = append(r.Options, Option{Output: 500}, Option{Output: 256})
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					r.ID, r.Principal.Key = id[i%len(id)], names[i%keys]
					l.Reserve(ls, r)
					l.Settle(r.ID, used)
					i++
				}
			})
		}
	}
}
