package limit

import (
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// Count is what a counter counts, in a form that can be kept: without what open
// requests hold, which is known from their decisions.
type Count struct {
	Limit  string
	Unit   plan.Unit
	Period plan.Period
	Zone   string
	Window time.Duration // as it was when the count was taken
	Scope  Scope

	Slots   []Slot
	Broken  time.Time // the breaker is open until then; zero for never
	Alerted time.Time // the alerts of Told are not repeated until then
	Told    uint64
	Until   time.Time // when nothing of it matters any more
}

// Slot is what was counted until End.
type Slot struct {
	End time.Time
	N   int64
}

// change notes that a counter differs from what was saved.
func (l *Ledger) change(c *counter) {
	if !c.changed {
		c.changed = true
		l.changed = append(l.changed, c)
	}
}

// Changed takes out the counts that changed since it was called last. They are
// the caller's to keep: what is not kept is to be given to Unsaved.
func (l *Ledger) Changed() []Count {
	l.lock()
	defer l.unlock()
	if len(l.changed) == 0 {
		return nil
	}
	list := make([]Count, len(l.changed))
	for i, c := range l.changed {
		c.changed = false
		c.expire()
		list[i] = l.count(c)
	}
	clear(l.changed)
	l.changed = l.changed[:0]
	return list
}

// Unsaved says that counts that were taken out could not be kept.
func (l *Ledger) Unsaved(list []Count) {
	l.lock()
	defer l.unlock()
	for i := range list {
		id := list[i].id()
		if c := l.lookUp(&id); c != nil {
			l.change(c)
		}
	}
}

func (l *Ledger) count(c *counter) Count {
	k := Count{
		Limit: c.id.limit, Unit: c.id.unit, Period: c.id.period, Zone: c.id.zone, Scope: c.id.scope,
		Window: c.queue.span.window, Told: c.told,
	}
	// Windows go by the time that passes, and what is kept goes by the clock.
	now, wall := c.queue.now(), l.epoch.Round(0).Add(l.stands(c.queue))
	clock := func(d time.Duration) time.Time { return wall.Add(d - now) }
	k.Until = clock(max(c.until(), now))
	if c.broken > 0 {
		k.Broken = clock(c.broken)
	}
	if c.alerted > 0 {
		k.Alerted = clock(c.alerted)
	}
	for _, s := range c.slots {
		for _, y := range c.young {
			if y.end == s.end {
				s.n -= y.n
			}
		}
		if s.n > 0 {
			k.Slots = append(k.Slots, Slot{End: clock(s.end), N: s.n})
		}
	}
	return k
}

// stands is where the clock stands, since the epoch, by which the counts of a queue
// are kept: that of calendars, unless they go by another one.
func (l *Ledger) stands(q *queue) time.Duration {
	if l.civil == nil {
		return l.wall
	}
	return q.now()
}

// inQueue is a time of the clock as the queue goes.
func (l *Ledger) inQueue(q *queue, t time.Time) time.Duration {
	return l.sinceEpoch(t) - l.stands(q) + q.now()
}

func (k *Count) id() counterID {
	return counterID{limit: k.Limit, unit: k.Unit, period: k.Period, zone: k.Zone, scope: k.Scope}
}

// Load puts counts back that were taken out before a restart. What is counted
// already stays counted. A zone that is no more is of no use to anybody.
func (l *Ledger) Load(list []Count) {
	l.lock()
	defer l.unlock()
	for i := range list {
		l.load(&list[i])
	}
}

func (l *Ledger) load(k *Count) {
	s := span{window: k.Window, period: k.Period}
	if k.Period != "" {
		zone, err := time.LoadLocation(k.Zone)
		if err != nil {
			return
		}
		s.window, s.zone = 0, zone
	}
	c := l.counter(k.id(), s)
	for _, slot := range k.Slots {
		if slot.N > 0 {
			// A clock that was set back since must not let anything stay for ever.
			end := min(l.inQueue(c.queue, slot.End), c.queue.slotEnd(c.queue.now()))
			c.slots, c.sum = addTo(c.slots, end, clamp(slot.N)), c.sum+clamp(slot.N)
		}
	}
	if !k.Broken.IsZero() && k.Period != "" {
		c.broken = max(c.broken, min(l.inQueue(c.queue, k.Broken), c.queue.slotEnd(c.queue.now())))
	}
	if !k.Alerted.IsZero() {
		c.alerted, c.told = max(c.alerted, l.inQueue(c.queue, k.Alerted)), max(c.told, k.Told)
	}
	c.expire()
}

// Restore counts r, without checking, as it was before a restart: it was admitted
// at that time, with the first of its options, and is still open. One that is
// open already is given what it does not hold yet, of limits that are new.
func (l *Ledger) Restore(limits []*plan.Limit, r *Request, admitted time.Time) {
	l.lock()
	defer l.unlock()
	l.find(limits, r)
	if res, ok := l.open[r.ID]; ok {
		l.found = slices.DeleteFunc(l.found, func(d demand) bool {
			return slices.ContainsFunc(res.holds, func(h hold) bool { return h.c == d.c })
		})
	}
	if len(l.found) > 0 {
		passed, wall := l.past(admitted)
		l.hold(r.ID, 0, passed, wall)
	}
}

// Count counts, without checking, what r used, which ended at that time. Nothing
// is known of r before, nor held for it.
func (l *Ledger) Count(limits []*plan.Limit, r *Request, used []Used, admitted, ended time.Time) {
	l.lock()
	defer l.unlock()
	at := func(lim *plan.Limit) time.Time {
		if lim.Unit == plan.UnitRequests {
			return admitted
		}
		return ended
	}
	// What is past has no count: users of long ago must not take the places of today's.
	limits = slices.DeleteFunc(slices.Clone(limits), func(lim *plan.Limit) bool {
		q := l.queue(spanOf(lim))
		return lim.Unit == plan.UnitConcurrency || q.leaves(q.slotEnd(q.pick(l.past(at(lim))))) <= q.now()
	})
	l.find(limits, r)
	for i := range l.found {
		d := &l.found[i]
		n := int64(1)
		if d.limit.Unit != plan.UnitRequests {
			n = Spent(d.limit, d.pool, used)
		}
		d.c.add(d.c.queue.pick(l.past(at(d.limit))), n)
		if n > 0 {
			l.change(d.c)
		}
	}
}

// past is a time by both clocks, and not in the future.
func (l *Ledger) past(t time.Time) (passed, wall time.Duration) {
	d := l.sinceEpoch(t)
	passed = d
	if l.civil == nil {
		passed -= l.wall - l.passed // by so much the clock was set forward
	}
	return min(passed, l.passed), min(d, l.wall)
}

// Reset gives back all that was used of a limit in the scopes that match, and
// closes their breakers; what open requests hold stays held. It returns what the
// counts were.
func (l *Ledger) Reset(lim *plan.Limit, match func(Scope) bool) []State {
	l.lock()
	defer l.unlock()
	var list []State
	for _, c := range l.counters {
		if c.id.limit != lim.Ident() || !match(c.id.scope) {
			continue
		}
		if c.expire(); c.sum > 0 || c.tripped() {
			list = append(list, state(lim, c))
		}
		c.resets++
		c.slots, c.young, c.sum, c.broken, c.alerted, c.told = nil, nil, 0, 0, 0, 0
		l.change(c)
	}
	return list
}

// States tells of each count that r would be judged by, under the limits that
// apply to it.
func (l *Ledger) States(limits []*plan.Limit, r *Request) []State {
	l.lock()
	defer l.unlock()
	l.find(limits, r)
	list := make([]State, len(l.found))
	for i := range l.found {
		list[i] = state(l.found[i].limit, l.found[i].c)
	}
	return list
}

// All tells of every count of the limits that is not empty, in no order.
func (l *Ledger) All(limits []*plan.Limit) []State {
	l.lock()
	defer l.unlock()
	var list []State
	for _, c := range l.counters {
		i := slices.IndexFunc(limits, func(lim *plan.Limit) bool {
			return lim.Ident() == c.id.limit && lim.Unit == c.id.unit && lim.Period == c.id.period
		})
		if c.expire(); i >= 0 && (c.sum > 0 || c.held > 0 || c.open(limits[i])) {
			list = append(list, state(limits[i], c))
		}
	}
	return list
}

func state(lim *plan.Limit, c *counter) State {
	return State{
		Limit: lim, Scope: c.id.scope, Used: c.sum, Reserved: c.held,
		Left: max(c.free(lim.Amount), 0), Open: c.open(lim), Reset: c.reset(),
	}
}
