package limit

import (
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// Ledger counts. It is safe for concurrent use. A counter is known by its limit's
// name and unit and the values of its scope, so that a changed configuration goes
// on with the counts of the old one; a counter without use for a window is
// dropped.
type Ledger struct {
	now   func() time.Time
	epoch time.Time

	mu       sync.Mutex
	latest   time.Duration // since epoch; never goes back
	counters map[counterID]*counter
	queues   []*queue // one for each length of window
	open     map[string]*reservation
	spare    []*reservation
	found    []demand // of the reservation at hand
}

// demand is what a request wants of one limit.
type demand struct {
	limit *plan.Limit
	c     *counter // nil when nothing was counted yet
	n     int64
}

// reservation is what one request holds.
type reservation struct{ holds []hold }

// hold is what a reservation holds of one counter.
type hold struct {
	c    *counter
	unit plan.Unit
	n    int64
	slot time.Duration // of a request: the end of the slot in which it counts
}

// New makes an empty ledger; now is its clock.
func New(now func() time.Time) *Ledger {
	return &Ledger{now: now, epoch: now(), counters: map[counterID]*counter{}, open: map[string]*reservation{}}
}

// Reserve admits r under all limits that apply to it, or under none.
func (l *Ledger) Reserve(limits []*plan.Limit, r Request) Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.time()
	l.sweep(now, len(limits)+2)
	res := l.judge(limits, &r, now)
	if res.OK && len(l.found) > 0 {
		l.settleAsHeld(r.ID, now)
		l.hold(r.ID, now, now)
		res.Held = true
	}
	for _, d := range l.found {
		res.note(d, now)
	}
	return res
}

// Check tells whether Reserve would admit r now, and holds nothing.
func (l *Ledger) Check(limits []*plan.Limit, r Request) Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.time()
	res := l.judge(limits, &r, now)
	for _, d := range l.found {
		res.note(d, now)
	}
	return res
}

// judge finds what r wants and tells whether all of it is free.
func (l *Ledger) judge(limits []*plan.Limit, r *Request, now time.Duration) Result {
	l.find(limits, r, now)
	res := Result{OK: true}
	for _, d := range l.found {
		l.check(d, now, &res)
	}
	return res
}

// find notes in l.found what r wants of each limit that applies.
func (l *Ledger) find(limits []*plan.Limit, r *Request, now time.Duration) {
	l.found = l.found[:0]
	for _, lim := range limits {
		if !lim.Applies(&r.Principal, r.Model) {
			continue
		}
		d := demand{limit: lim, n: amount(lim.Unit, r.Input, r.Output)}
		if d.c = l.counters[identify(lim, r)]; d.c != nil {
			l.touch(d.c, lim.Window)
			d.c.expire(now)
		}
		l.found = append(l.found, d)
	}
	for i := range l.found {
		if l.found[i].c == nil {
			l.found[i].c = l.counter(identify(l.found[i].limit, r), l.found[i].limit.Window)
		}
	}
}

// check judges one demand.
func (l *Ledger) check(d demand, now time.Duration, res *Result) {
	free := d.limit.Amount - d.c.sum - d.c.held
	if d.n <= max(free, 0) { // what takes nothing is not held up by a debt
		return
	}
	impossible := d.n > d.limit.Amount
	var wait time.Duration
	if !impossible {
		wait = d.c.wait(d.n-free, now)
	}
	if res.OK || impossible && !res.Impossible || impossible == res.Impossible && wait > res.RetryAfter {
		*res = Result{Limit: d.limit, RetryAfter: wait, Impossible: impossible}
	}
}

// note writes the state of a demand's limit into the figures.
func (res *Result) note(d demand, now time.Duration) {
	f := &res.Tokens
	if d.limit.Unit == plan.UnitRequests {
		f = &res.Requests
	}
	left := max(d.limit.Amount-d.c.sum-d.c.held, 0)
	if f.Limit == 0 || left < f.Remaining {
		*f = Figure{Limit: d.limit.Amount, Remaining: left, Reset: d.c.reset(now)}
	}
}

// hold opens a reservation under id for what was found; requests count at the
// time at.
func (l *Ledger) hold(id string, at, now time.Duration) {
	res := l.reservation()
	for _, d := range l.found {
		h := hold{c: d.c, unit: d.limit.Unit, n: d.n}
		if h.unit == plan.UnitRequests {
			h.slot = d.c.add(at, now, d.n)
		} else {
			d.c.held += d.n
		}
		d.c.holds++
		res.holds = append(res.holds, h)
	}
	l.open[id] = res
}

func (l *Ledger) reservation() *reservation {
	if n := len(l.spare); n > 0 {
		res := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return res
	}
	return &reservation{holds: make([]hold, 0, 4)}
}

// Settle replaces what is held under id by what was used, be it less or more.
// Settling twice, or an id that is not known, has no effect.
func (l *Ledger) Settle(id string, used ai.Usage) {
	l.close(id, func(h *hold, now time.Duration) {
		h.c.add(now, now, amount(h.unit, clamp(used.TotalInput()), used.Output))
	})
}

// Release gives back all that is held under id, the request itself included:
// nothing was spent. An id that is not known has no effect.
func (l *Ledger) Release(id string) { l.close(id, nil) }

// close ends a reservation. spend counts what was used of a hold of tokens; nil
// gives everything back.
func (l *Ledger) close(id string, spend func(h *hold, now time.Duration)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(id, l.time(), spend)
}

func (l *Ledger) end(id string, now time.Duration, spend func(h *hold, now time.Duration)) {
	res, ok := l.open[id]
	if !ok {
		return
	}
	delete(l.open, id)
	for i := range res.holds {
		h := &res.holds[i]
		l.touch(h.c, h.c.queue.window)
		h.c.expire(now)
		h.c.holds--
		switch {
		case h.unit != plan.UnitRequests:
			h.c.held -= h.n
			if spend != nil {
				spend(h, now)
			}
		case spend == nil:
			h.c.remove(h.slot, h.n)
		}
	}
	clear(res.holds)
	res.holds = res.holds[:0]
	if len(l.spare) < 1024 {
		l.spare = append(l.spare, res)
	}
}

// settleAsHeld closes a reservation whose id comes again, at what it held, so that
// nothing is forgotten.
func (l *Ledger) settleAsHeld(id string, now time.Duration) {
	l.end(id, now, func(h *hold, now time.Duration) { h.c.add(now, now, h.n) })
}

// Restore counts r, without checking, as it was before a restart: with used nil
// it was reserved at that time and is still open, otherwise it was settled then.
// An id that is open already has no effect.
func (l *Ledger) Restore(limits []*plan.Limit, r Request, used *ai.Usage, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[r.ID]; ok {
		return
	}
	now := l.time()
	then := min(at.Sub(l.epoch), now)
	if used != nil {
		r.Input, r.Output = clamp(used.TotalInput()), used.Output
	}
	l.find(limits, &r, now)
	switch {
	case len(l.found) == 0:
	case used == nil:
		l.hold(r.ID, then, now)
	default:
		for _, d := range l.found {
			d.c.add(then, now, d.n)
		}
	}
}

// Held is the number of reservations that are open.
func (l *Ledger) Held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// time is the time since the epoch; a clock that is set back stands still.
func (l *Ledger) time() time.Duration {
	l.latest = max(l.latest, l.now().Sub(l.epoch))
	return l.latest
}
