package limit

import (
	"maps"
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
	civil func() time.Time // the clock of calendars, where it is another; nil otherwise
	epoch time.Time
	// OnAlert is called for each alert, without a lock held. Set it before the
	// first use.
	OnAlert func(Alert)

	mu           sync.Mutex
	passed, wall time.Duration       // since epoch, by the time that passed and by the clock; neither goes back
	counters     map[string]*counter // by counterID.appendKey
	key          []byte              // the one that was looked up last
	queues       []*queue            // one for each span
	users        map[string]int      // counters with a user, by limit
	open         map[string]*reservation
	spare        []*reservation
	found        []demand // of the reservation at hand
	changed      []*counter
	alerts       []Alert
	debts        map[string]int64 // what exceeded its reservation, by limit
}

// demand is what a request wants of one counter, with each of its options.
type demand struct {
	limit *plan.Limit
	pool  string // where the limit counts each apart
	c     *counter
	n     [MaxOptions]int64
	needs [MaxOptions]int64 // what has to be free
}

// reservation is what one request holds.
type reservation struct{ holds []hold }

// hold is what a reservation holds of one counter.
type hold struct {
	c     *counter
	limit *plan.Limit // as it was when it was reserved
	pool  string
	n     int64
	slot  time.Duration // of a request: the end of the slot in which it counts
	reset int           // of a request: how often the counter had been reset
}

// New makes an empty ledger; now is its clock.
func New(now func() time.Time) *Ledger {
	return &Ledger{
		now: now, epoch: now(), counters: map[string]*counter{}, users: map[string]int{},
		open: map[string]*reservation{}, debts: map[string]int64{},
	}
}

// Reserve admits r under all limits that apply to it, or under none.
func (l *Ledger) Reserve(limits []*plan.Limit, r *Request) Result {
	l.lock()
	defer l.unlock()
	l.sweep(len(limits) + 2)
	res := l.judge(limits, r)
	if res.OK && len(l.found) > 0 {
		l.settleAsHeld(r.ID)
		l.hold(r.ID, res.Option, l.passed, l.wall)
		res.Held = true
	}
	for i := range l.found {
		res.note(&l.found[i])
	}
	return res
}

// Check tells whether Reserve would admit r now, and holds nothing.
func (l *Ledger) Check(limits []*plan.Limit, r *Request) Result {
	l.lock()
	defer l.unlock()
	res := l.judge(limits, r)
	for i := range l.found {
		res.note(&l.found[i])
	}
	return res
}

// judge finds what r wants and tells with which option all of it is free.
func (l *Ledger) judge(limits []*plan.Limit, r *Request) Result {
	l.find(limits, r)
	options := r.options()
	for i := range options {
		if l.fits(i) {
			return l.admitted(i)
		}
	}
	var res Result
	last := len(options) - 1
	for i := range l.found {
		l.refuse(&l.found[i], last, &res, !ai.IsProbeID(r.ID))
	}
	return res
}

func (l *Ledger) fits(option int) bool {
	for i := range l.found {
		d := &l.found[i]
		if d.binds() && d.n[option] > 0 && (d.c.open(d.limit) || d.needs[option] > d.c.free(d.limit.Amount)) {
			return false // what takes nothing is not held up by a debt
		}
	}
	return true
}

func (d *demand) binds() bool { return d.limit.OnBreach != plan.BreachReport }

func (l *Ledger) admitted(option int) Result {
	res := Result{OK: true, Option: option}
	for i := range l.found {
		if d := &l.found[i]; !d.binds() && d.n[option] > max(d.c.free(d.limit.Amount), 0) {
			res.Reported = d.limit
			break
		}
	}
	return res
}

// maxUsers bounds how many users of a limit have a count of their own at a time:
// who names a user is often the client, and one that names millions must not
// fill the memory. Those beyond share one count, with the same amount.
const maxUsers = 100_000

// otherUsers is the user under which they count; no client can name it.
const otherUsers = "\x00others"

// find notes in l.found what r wants of each counter of the limits that apply.
func (l *Ledger) find(limits []*plan.Limit, r *Request) {
	l.found = l.found[:0]
	eachCount(limits, r, func(lim *plan.Limit, pool string) { l.want(lim, r, pool) })
}

// eachCount calls want for each count of the limits that apply to r.
func eachCount(limits []*plan.Limit, r *Request, want func(lim *plan.Limit, pool string)) {
	for _, lim := range limits {
		switch {
		case !lim.Applies(&r.Principal, r.Model):
		case lim.PerPool:
			for i := range r.Targets {
				if pool := r.Targets[i].Pool; lim.Counts(pool) && !named(r.Targets[:i], pool) {
					want(lim, pool)
				}
			}
		case lim.Pools == nil || counted(lim, r.Targets):
			want(lim, "")
		}
	}
}

func named(targets []Target, pool string) bool {
	for i := range targets {
		if targets[i].Pool == pool {
			return true
		}
	}
	return false
}

func counted(l *plan.Limit, targets []Target) bool {
	for i := range targets {
		if l.Counts(targets[i].Pool) {
			return true
		}
	}
	return false
}

func (l *Ledger) want(lim *plan.Limit, r *Request, pool string) {
	id, s := identify(lim, r, pool), spanOf(lim)
	c := l.lookUp(&id)
	if c == nil && id.scope.User != "" && l.users[lim.Ident()] >= maxUsers {
		id.scope.User = otherUsers
		c = l.lookUp(&id)
	}
	if c == nil {
		c = l.counter(id, s)
	} else {
		l.touch(c, s)
		c.expire()
	}
	c.asked, c.limit = c.queue.now(), lim
	l.found = append(l.found, demand{limit: lim, pool: pool, c: c})
	l.found[len(l.found)-1].fill(r)
}

// refuse judges one demand of a request that is not admitted with any option. A probe
// only looks: it opens no breaker.
func (l *Ledger) refuse(d *demand, option int, res *Result, client bool) {
	free, n := max(d.c.free(d.limit.Amount), 0), d.n[option]
	if !d.binds() || n == 0 || n <= free && !d.c.open(d.limit) {
		return
	}
	impossible := n > d.limit.Amount
	var wait time.Duration
	if !impossible {
		wait = d.c.wait(n - d.c.free(d.limit.Amount)) // a debt has to leave first
		if client {
			l.exhausted(d, free)
		}
	}
	if res.Limit == nil || impossible && !res.Impossible || impossible == res.Impossible && wait > res.RetryAfter {
		*res = Result{Limit: d.limit, Pool: d.pool, RetryAfter: wait, Impossible: impossible, Open: d.c.open(d.limit)}
	}
}

// exhausted opens the breaker of a budget of which less than a hundredth is left
// when that is too little for a request and nobody can give anything back.
func (l *Ledger) exhausted(d *demand, free int64) {
	if d.c.held == 0 && free < max(d.limit.Amount/100, 1) {
		l.breakOpen(d.limit, d.c)
		l.alert(d.limit, d.c, 100)
	}
}

func (l *Ledger) breakOpen(lim *plan.Limit, c *counter) {
	if lim.Breaker && lim.Period != "" && !c.open(lim) {
		c.broken = c.queue.slotEnd(l.wall)
		l.change(c)
	}
}

// note writes the state of a demand's limit into the figures.
func (res *Result) note(d *demand) {
	res.Note(d.limit, Figure{Limit: d.limit.Amount, Remaining: max(d.c.free(d.limit.Amount), 0), Reset: d.c.reset()})
}

// hold opens a reservation under id for what was found, or adds it to one that is
// open; requests count at a time that is given by both clocks.
func (l *Ledger) hold(id string, option int, passed, wall time.Duration) {
	res, ok := l.open[id]
	if !ok {
		res = l.reservation()
	}
	for i := range l.found {
		d := &l.found[i]
		h := hold{c: d.c, limit: d.limit, pool: d.pool, n: d.n[option]}
		if d.limit.Unit == plan.UnitRequests {
			h.reset = d.c.resets
			h.slot = d.c.add(d.c.queue.pick(passed, wall), h.n)
			d.c.young = addTo(d.c.young, h.slot, h.n)
			l.used(d.limit, d.c, h.n)
		} else {
			d.c.held += h.n
		}
		d.c.holds++
		res.holds = append(res.holds, h)
	}
	l.open[id] = res
}

// pick is the time by which the span goes, of one told by both clocks.
func (q *queue) pick(passed, wall time.Duration) time.Duration {
	if q.span.period != "" {
		return wall
	}
	return passed
}

func (l *Ledger) reservation() *reservation {
	if n := len(l.spare); n > 0 {
		res := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return res
	}
	return &reservation{holds: make([]hold, 0, 4)}
}

// SettleHeld closes a reservation at what it holds: nobody knows what was used.
func (l *Ledger) SettleHeld(id string) {
	l.close(id, func(h *hold) int64 { return h.n })
}

// Settle replaces what is held under id by what was used, be it less or more.
// Settling twice, or an id that is not known, has no effect.
func (l *Ledger) Settle(id string, used []Used) {
	l.close(id, func(h *hold) int64 { return Spent(h.limit, h.pool, used) })
}

// Release gives back all that is held under id, the request itself included:
// nothing was spent. An id that is not known has no effect.
func (l *Ledger) Release(id string) { l.close(id, nil) }

// close ends a reservation. spent tells what was used of a hold; nil gives
// everything back.
func (l *Ledger) close(id string, spent func(h *hold) int64) {
	l.lock()
	defer l.unlock()
	l.end(id, spent)
}

// end is close with the ledger taken.
func (l *Ledger) end(id string, spent func(h *hold) int64) {
	res, ok := l.open[id]
	if !ok {
		return
	}
	delete(l.open, id)
	for i := range res.holds {
		h := &res.holds[i]
		l.touch(h.c, h.c.queue.span)
		h.c.expire()
		h.c.holds--
		l.endHold(h, spent)
	}
	clear(res.holds)
	res.holds = res.holds[:0]
	if len(l.spare) < 1024 {
		l.spare = append(l.spare, res)
	}
}

func (l *Ledger) endHold(h *hold, spent func(h *hold) int64) {
	switch h.limit.Unit {
	case plan.UnitRequests:
		if h.reset == h.c.resets { // else it was given back already
			var n int64
			if h.c.young, n = takeFrom(h.c.young, h.slot, h.n); spent == nil {
				h.c.remove(h.slot, n)
			}
		}
		l.change(h.c)
	case plan.UnitConcurrency:
		h.c.held -= h.n
	default:
		h.c.held -= h.n
		if spent == nil {
			return
		}
		n := spent(h)
		h.c.add(h.c.queue.now(), n)
		if n > h.n {
			l.debts[h.limit.Name] += n - h.n
		}
		l.used(h.limit, h.c, n)
	}
}

// used is called when n more of a limit was used.
func (l *Ledger) used(lim *plan.Limit, c *counter, n int64) {
	if n == 0 {
		return
	}
	l.change(c)
	if c.limit != nil && c.limit.Unit == lim.Unit {
		lim = c.limit // as it is now: the amount may be another one than when it was reserved
	}
	if c.sum >= lim.Amount {
		l.breakOpen(lim, c)
	}
	l.alertUsed(lim, c)
}

// settleAsHeld closes a reservation whose id comes again, at what it held, so that
// nothing is forgotten.
func (l *Ledger) settleAsHeld(id string) {
	l.end(id, func(h *hold) int64 { return h.n })
}

// Held is the number of reservations that are open.
func (l *Ledger) Held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// Debts calls fn with what exceeded its reservation since the ledger began, for
// each limit where something did.
func (l *Ledger) Debts(fn func(limit string, n int64)) {
	l.mu.Lock()
	debts := maps.Clone(l.debts)
	l.mu.Unlock()
	for name, n := range debts {
		fn(name, n)
	}
}

// lock takes the ledger and looks at the clocks. One that is set back stands
// still.
func (l *Ledger) lock() {
	l.mu.Lock()
	now := l.now()
	l.passed = max(l.passed, now.Sub(l.epoch))
	if l.civil != nil {
		now = l.civil()
	}
	l.wall = max(l.wall, l.sinceEpoch(now))
}

// sinceEpoch is a time of the clock, without regard to what passed.
func (l *Ledger) sinceEpoch(t time.Time) time.Duration { return t.Round(0).Sub(l.epoch.Round(0)) }

// unlock lets the ledger go and tells of the alerts.
func (l *Ledger) unlock() {
	if len(l.alerts) == 0 {
		l.mu.Unlock()
		return
	}
	alerts := l.alerts
	l.alerts = nil
	l.mu.Unlock()
	if l.OnAlert != nil {
		for _, a := range alerts {
			l.OnAlert(a)
		}
	}
}
