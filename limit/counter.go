package limit

import (
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// counterID knows a counter across configurations. Fields that are not of the
// limit's scope are empty.
type counterID struct {
	limit                         string
	unit                          plan.Unit
	key, application, team, model string
}

func identify(l *plan.Limit, r *Request) counterID {
	id := counterID{limit: l.Name, unit: l.Unit}
	if l.PerKey {
		id.key = r.Principal.Key
	}
	if l.PerApplication {
		id.application = r.Principal.Application
	}
	if l.PerTeam {
		id.team = r.Principal.Team
	}
	if l.PerModel {
		id.model = r.Model
	}
	return id
}

// counter counts for one limit and one value of its scope.
type counter struct {
	id    counterID
	slots []slot // by end; none is empty
	sum   int64  // over slots
	held  int64  // tokens reserved and not settled
	holds int    // reservations that refer to the counter

	queue      *queue
	prev, next *counter
}

// slot is what was counted until end.
type slot struct {
	end time.Duration // since the ledger's epoch
	n   int64
}

// slotsPerWindow is how finely time is kept.
const slotsPerWindow = 60

// add counts n at the time at and answers the end of its slot.
func (c *counter) add(at, now time.Duration, n int64) time.Duration {
	width := max(c.queue.window/slotsPerWindow, 1)
	end := at - at%width
	if end <= at {
		end += width // at may be before the epoch, where % rounds up
	}
	if n == 0 || end+c.queue.window <= now {
		return end
	}
	c.sum += n
	i := len(c.slots)
	for i > 0 && c.slots[i-1].end > end {
		i--
	}
	if i > 0 && c.slots[i-1].end == end {
		c.slots[i-1].n += n
	} else {
		c.slots = slices.Insert(c.slots, i, slot{end, n})
	}
	return end
}

// remove takes back n that was counted in the slot with this end, if the slot is
// still there.
func (c *counter) remove(end time.Duration, n int64) {
	for i := range c.slots {
		if c.slots[i].end != end {
			continue
		}
		n = min(n, c.slots[i].n)
		c.sum -= n
		if c.slots[i].n -= n; c.slots[i].n == 0 {
			c.slots = slices.Delete(c.slots, i, i+1)
		}
		return
	}
}

// expire drops the slots that the window has passed.
func (c *counter) expire(now time.Duration) {
	gone := 0
	for gone < len(c.slots) && c.slots[gone].end+c.queue.window <= now {
		c.sum -= c.slots[gone].n
		gone++
	}
	if gone > 0 {
		c.slots = slices.Delete(c.slots, 0, gone)
	}
}

// wait is how long it takes until need more is free.
func (c *counter) wait(need int64, now time.Duration) time.Duration {
	for _, s := range c.slots {
		if need -= s.n; need <= 0 {
			return s.end + c.queue.window - now
		}
	}
	return max(c.queue.window/10, time.Second)
}

// reset is how long it takes until nothing is counted.
func (c *counter) reset(now time.Duration) time.Duration {
	switch {
	case c.held > 0:
		return c.queue.window
	case len(c.slots) == 0:
		return 0
	}
	return c.slots[len(c.slots)-1].end + c.queue.window - now
}

// idle says that the counter can be forgotten.
func (c *counter) idle(now time.Duration) bool {
	return c.holds == 0 && (len(c.slots) == 0 || c.slots[len(c.slots)-1].end+c.queue.window <= now)
}

// queue holds the counters of one length of window, the one that was used
// longest ago first: those that became idle are at its front.
type queue struct {
	window      time.Duration
	front, back *counter
}

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
func (l *Ledger) counter(id counterID, window time.Duration) *counter {
	if c, ok := l.counters[id]; ok {
		return c
	}
	c := &counter{id: id}
	l.counters[id] = c
	l.window(window).push(c)
	return c
}

// touch puts a counter at the back of the queue of this window.
func (l *Ledger) touch(c *counter, window time.Duration) {
	if c.queue.window == window && c.queue.back == c {
		return
	}
	c.queue.remove(c)
	l.window(window).push(c)
}

func (l *Ledger) window(window time.Duration) *queue {
	for _, q := range l.queues {
		if q.window == window {
			return q
		}
	}
	q := &queue{window: window}
	l.queues = append(l.queues, q)
	return q
}

// sweep drops idle counters, looking at no more than n of each queue; one that
// is held goes to the back.
func (l *Ledger) sweep(now time.Duration, n int) {
	for _, q := range l.queues {
		for range n {
			c := q.front
			if c == nil || !c.idle(now) && c.holds == 0 {
				break
			}
			q.remove(c)
			if c.holds > 0 {
				q.push(c)
				continue
			}
			delete(l.counters, c.id)
		}
	}
}
