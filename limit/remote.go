package limit

import (
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// What a ledger needs that keeps its counts elsewhere, and decides alike.

// Demand is what a request wants of one count, with each of its options.
type Demand struct {
	Limit *plan.Limit
	Pool  string // where the limit counts each apart
	Scope Scope
	N     [MaxOptions]int64
	Needs [MaxOptions]int64 // what has to be free
}

// NewPart makes an empty ledger of a part of what is counted elsewhere: windows go by
// now, and calendars by the clock that goes there.
func NewPart(now, civil func() time.Time) *Ledger {
	l := New(now)
	l.civil = civil
	return l
}

// Now is the time by which windows go.
func (l *Ledger) Now() time.Time {
	l.lock()
	defer l.unlock()
	return l.epoch.Round(0).Add(l.passed)
}

// OtherUsers is the user under which those count that are beyond MaxUsers; no
// client can name it.
const OtherUsers = otherUsers

// MaxUsers is how many users of a limit have a count of their own at a time.
const MaxUsers = maxUsers

// SlotsPerWindow is how finely the time of a window is kept.
const SlotsPerWindow = slotsPerWindow

// Demands adds to list what r wants of each count of the limits that apply to it,
// in their order.
func Demands(list []Demand, limits []*plan.Limit, r *Request) []Demand {
	want := func(lim *plan.Limit, pool string) {
		d := demand{limit: lim, pool: pool}
		d.fill(r)
		list = append(list, Demand{Limit: lim, Pool: pool, Scope: identify(lim, r, pool).scope, N: d.n, Needs: d.needs})
	}
	eachCount(limits, r, want)
	return list
}

// OptionsOf are the options that the request is judged by: at least one, at most
// MaxOptions.
func (r *Request) OptionsOf() []Option { return r.options() }

// Note writes the state of a limit into the figures: of several the tightest.
func (res *Result) Note(lim *plan.Limit, f Figure) {
	var at *Figure
	switch lim.Unit {
	case plan.UnitRequests:
		at = &res.Requests
	case plan.UnitTokens, plan.UnitInputTokens, plan.UnitOutputTokens:
		at = &res.Tokens
	default:
		return
	}
	if at.Limit == 0 || f.Remaining < at.Remaining {
		*at = f
	}
}

// Threshold is the count at which an alert of so many percent is told.
func Threshold(amount int64, percent int) int64 { return share(amount, percent) }

// Counts are all counts of which anything matters, without what open requests hold.
func (l *Ledger) Counts() []Count {
	l.lock()
	defer l.unlock()
	list := make([]Count, 0, len(l.counters))
	for _, c := range l.counters {
		if c.expire(); c.sum > 0 || c.tripped() {
			list = append(list, l.count(c))
		}
	}
	return list
}

// Holds tells whether something is held under id.
func (l *Ledger) Holds(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.open[id]
	return ok
}

// PlanLimit is as much of the limit as tells its counts apart; nil when its zone is
// no more.
func (k *Count) PlanLimit() *plan.Limit {
	lim := &plan.Limit{Name: k.Limit, Unit: k.Unit, Period: k.Period}
	if k.Period == "" {
		lim.Window = k.Window
		return lim
	}
	zone, err := time.LoadLocation(k.Zone)
	if err != nil {
		return nil
	}
	lim.Zone = zone
	return lim
}
