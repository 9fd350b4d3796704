package limit

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// counterID knows a counter across configurations, by what its limit counts.
type counterID struct {
	limit  string // plan.Limit.Ident
	unit   plan.Unit
	period plan.Period
	zone   string
	scope  Scope
}

func identify(l *plan.Limit, r *Request, pool string) counterID {
	id := counterID{limit: l.Ident(), unit: l.Unit, period: l.Period}
	if l.Period != "" {
		id.zone = l.Zone.String()
	}
	s := &id.scope
	if l.PerOrganisation {
		s.Organisation = r.Principal.Organisation
	}
	if l.PerTeam {
		s.Team = r.Principal.Team
	}
	if l.PerApplication {
		s.Application = r.Principal.Application
	}
	if l.PerKey {
		s.Key = r.Principal.Key
	}
	if l.PerUser {
		s.User = r.Principal.User
	}
	if l.PerModel {
		s.Model = r.Model
	}
	s.Pool = pool
	return id
}

// appendKey appends what the map of counters knows it by: one string is hashed
// faster than ten.
func (id *counterID) appendKey(b []byte) []byte {
	for _, field := range [...]string{
		id.limit, string(id.unit), string(id.period), id.zone, id.scope.Organisation, id.scope.Team, id.scope.Application,
		id.scope.Key, id.scope.User, id.scope.Model, id.scope.Pool,
	} {
		b = binary.AppendUvarint(b, uint64(len(field))) // so that no two ids are alike
		b = append(b, field...)
	}
	return b
}

// lookUp finds a counter; nil when nothing was counted. The key stays in l.key.
func (l *Ledger) lookUp(id *counterID) *counter {
	l.key = id.appendKey(l.key[:0])
	return l.counters[string(l.key)]
}

// counter counts for one limit and one value of its scope.
type counter struct {
	id    counterID
	limit *plan.Limit // as it was when a request was judged by it last
	slots []slot      // by end; none is empty
	sum   int64       // over slots
	held  int64       // reserved and not settled; of concurrency, running
	holds int         // reservations that refer to the counter
	// young is what of slots belongs to requests that are still open: it is put
	// back from their decisions after a restart, and so is not saved.
	young []slot

	resets  int           // how often it was reset: what was held before is not in young
	asked   time.Duration // when a request wanted something of it last
	broken  time.Duration // the breaker is open until then
	alerted time.Duration // until then the alerts of told are not repeated
	told    uint64        // the highest percentage of the alerts that were told
	changed bool          // since it was saved

	queue      *queue
	prev, next *counter
}

// slot is what was counted until end: the end of a sixtieth of the window, or of
// the period.
type slot struct {
	end time.Duration // since the ledger's epoch
	n   int64
}

// slotsPerWindow is how finely time is kept.
const slotsPerWindow = 60

// add counts n at the time at and answers the end of its slot.
func (c *counter) add(at time.Duration, n int64) time.Duration {
	end := c.queue.slotEnd(at)
	if n == 0 || c.queue.leaves(end) <= c.queue.now() {
		return end
	}
	c.sum += n
	c.slots = addTo(c.slots, end, n)
	return end
}

// addTo adds n to the slot with this end.
func addTo(slots []slot, end time.Duration, n int64) []slot {
	i := len(slots)
	for i > 0 && slots[i-1].end > end {
		i--
	}
	if i > 0 && slots[i-1].end == end {
		slots[i-1].n += n
		return slots
	}
	return slices.Insert(slots, i, slot{end, n})
}

// takeFrom takes back n that was added to the slot with this end, if the slot is
// still there, and tells how much that was.
func takeFrom(slots []slot, end time.Duration, n int64) ([]slot, int64) {
	for i := range slots {
		if slots[i].end != end {
			continue
		}
		n = min(n, slots[i].n)
		if slots[i].n -= n; slots[i].n == 0 {
			slots = slices.Delete(slots, i, i+1)
		}
		return slots, n
	}
	return slots, 0
}

// remove takes back n that was counted in the slot with this end.
func (c *counter) remove(end time.Duration, n int64) {
	c.slots, n = takeFrom(c.slots, end, n)
	c.sum -= n
}

// expire drops the slots that are past.
func (c *counter) expire() {
	now := c.queue.now()
	gone := 0
	for gone < len(c.slots) && c.queue.leaves(c.slots[gone].end) <= now {
		c.sum -= c.slots[gone].n
		gone++
	}
	if gone > 0 {
		c.slots = slices.Delete(c.slots, 0, gone)
	}
	for len(c.young) > 0 && c.queue.leaves(c.young[0].end) <= now {
		c.young = slices.Delete(c.young, 0, 1)
	}
}

// free is what is left of an amount; negative while there is a debt.
func (c *counter) free(amount int64) int64 { return amount - c.sum - c.held }

// open tells whether the breaker of a limit is open: of one that has any.
func (c *counter) open(l *plan.Limit) bool { return l.Breaker && c.tripped() }

// tripped tells whether the breaker was opened, and nothing has closed it since.
func (c *counter) tripped() bool { return c.broken > c.queue.now() }

// wait is how long it takes until need more is free.
func (c *counter) wait(need int64) time.Duration {
	now := c.queue.now()
	if c.limit != nil && c.open(c.limit) {
		return c.broken - now
	}
	for _, s := range c.slots {
		if need -= s.n; need <= 0 {
			return c.queue.leaves(s.end) - now
		}
	}
	return max(c.queue.span.window/10, time.Second)
}

// reset is how long it takes until nothing is counted.
func (c *counter) reset() time.Duration {
	now := c.queue.now()
	switch {
	case c.held > 0 && c.queue.span.window > 0:
		return c.queue.span.window
	case len(c.slots) == 0:
		return 0
	}
	return c.queue.leaves(c.slots[len(c.slots)-1].end) - now
}

// idle says that the counter can be forgotten. One that is empty stays for a
// little while: making it anew costs more than keeping it.
func (c *counter) idle() bool {
	return c.holds == 0 && max(c.until(), c.asked+time.Second) <= c.queue.now()
}

// until is when nothing of the counter matters any more, if nothing is held.
func (c *counter) until() time.Duration {
	until := max(c.broken, c.alerted)
	if n := len(c.slots); n > 0 {
		until = max(until, c.queue.leaves(c.slots[n-1].end))
	}
	return until
}

// span is the time over which a limit counts: a window, a calendar period in a
// zone, or neither.
type span struct {
	window time.Duration
	period plan.Period
	zone   *time.Location
}

// alike compares zones by their names: each configuration loads its own.
func (s span) alike(o span) bool {
	return s.window == o.window && s.period == o.period && (s.period == "" || s.zone.String() == o.zone.String())
}

func spanOf(l *plan.Limit) span {
	if l.Period != "" {
		return span{period: l.Period, zone: l.Zone}
	}
	return span{window: l.Window}
}

// queue holds the counters of one span, the one that was used longest ago first:
// those that became idle are at its front.
type queue struct {
	ledger      *Ledger
	span        span
	start, end  time.Duration // the period that was asked for last
	front, back *counter
}

// now is the time by which the span goes. A window goes by the time that passes,
// so that a clock that is set makes it neither longer nor shorter; the calendar
// goes by the clock.
func (q *queue) now() time.Duration {
	if q.span.period != "" {
		return q.ledger.wall
	}
	return q.ledger.passed
}

// slotEnd is the end of the slot that holds the time at.
func (q *queue) slotEnd(at time.Duration) time.Duration {
	if q.span.period != "" {
		if at < q.start || at >= q.end {
			start, end := q.span.period.Bounds(q.ledger.epoch.Round(0).Add(at).In(q.span.zone))
			q.start, q.end = q.ledger.sinceEpoch(start), q.ledger.sinceEpoch(end)
		}
		return q.end
	}
	width := max(q.span.window/slotsPerWindow, 1)
	end := at - at%width
	if end <= at {
		end += width // at may be before the epoch, where % rounds up
	}
	return end
}

// leaves is when a slot with this end leaves.
func (q *queue) leaves(end time.Duration) time.Duration { return end + q.span.window }

func (q *queue) push(c *counter) {
	c.queue, c.prev, c.next = q, q.back, nil
	if q.back == nil {
		q.front = c
	} else {
		q.back.next = c
	}
	q.back = c
}

func (q *queue) remove(c *counter) {
	if c.prev == nil {
		q.front = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		q.back = c.prev
	} else {
		c.next.prev = c.prev
	}
}

// counter finds a counter, or makes it.
func (l *Ledger) counter(id counterID, s span) *counter {
	if c := l.lookUp(&id); c != nil {
		return c
	}
	c := &counter{id: id}
	l.counters[string(l.key)] = c
	if id.scope.User != "" {
		l.users[id.limit]++
	}
	l.queue(s).push(c)
	return c
}

// touch puts a counter at the back of the queue of this span.
func (l *Ledger) touch(c *counter, s span) {
	if c.queue.back == c && c.queue.span.alike(s) {
		return
	}
	c.queue.remove(c)
	l.queue(s).push(c)
}

func (l *Ledger) queue(s span) *queue {
	for _, q := range l.queues {
		if q.span.alike(s) {
			return q
		}
	}
	q := &queue{ledger: l, span: s}
	l.queues = append(l.queues, q)
	return q
}

// sweep drops idle counters, looking at no more than n of each queue; one that
// is held goes to the back.
func (l *Ledger) sweep(n int) {
	for _, q := range l.queues {
		for range n {
			c := q.front
			if c == nil || !c.idle() && c.holds == 0 {
				break
			}
			q.remove(c)
			if c.holds > 0 {
				q.push(c)
				continue
			}
			l.key = c.id.appendKey(l.key[:0])
			delete(l.counters, string(l.key))
			if c.id.scope.User != "" {
				l.users[c.id.limit]--
			}
		}
	}
}
