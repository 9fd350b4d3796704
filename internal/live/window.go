package live

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// A window is the last minute, in slots of five seconds: what is older than a minute
// is not counted, and what is younger than 55 s always is.
const (
	slotLength = 5 * time.Second
	slots      = 12
)

// window counts the attempts of the last minute. One writer at a time; readers take
// no lock and read what was summed up last.
type window struct {
	mu     sync.Mutex // of writers
	slots  [slots]slot
	streak int64 // failures in a row
	last   int64 // the slot of the last of them
	sum    atomic.Pointer[sums]
}

type slot struct {
	at    int64 // the slot's number since the epoch
	count [neither + 1]int64
	first Histogram
}

// sums are of all slots.
type sums struct {
	slot            int64
	attempts        int64
	errors, refused float64
	first           time.Duration
	firstOf         int64
	failing, dead   bool
}

func (w *window) add(now time.Time, o outcome, first time.Duration) {
	if o == neither {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := now.UnixNano() / int64(slotLength)
	s := &w.slots[n%slots]
	if s.at != n {
		*s = slot{at: n}
	}
	s.count[o]++
	if w.streak++; o != failed {
		w.streak = 0
	}
	w.last = n
	if first > 0 && o == good {
		s.first.Add(first)
	}
	w.sum.Store(w.sumUp(n))
}

func (w *window) sumUp(n int64) *sums {
	total := &sums{slot: n}
	var count [neither + 1]int64
	var first Histogram
	for i := range w.slots {
		s := &w.slots[i]
		if s.at <= n-slots {
			continue
		}
		for o, c := range s.count {
			count[o] += c
		}
		first.Merge(&s.first)
	}
	total.attempts = count[good] + count[failed] + count[refused]
	if total.attempts > 0 {
		total.errors = float64(count[failed]) / float64(total.attempts)
		total.refused = float64(count[refused]) / float64(total.attempts)
	}
	total.dead = w.streak >= failingOf && n-w.last < failingIn
	total.failing = total.dead || w.failing(n)
	total.first, total.firstOf = first.Median()
	return total
}

// What is failing: of at least so many attempts of the last seconds more than half failed,
// or so many in a row.
const (
	failingOf = 5
	failingIn = 3 // slots: 10 to 15 seconds
)

// failing tells whether the last slots are those of a pool that fails.
func (w *window) failing(n int64) bool {
	var attempts, failures int64
	for at := n; at > n-failingIn; at-- {
		if s := &w.slots[at%slots]; s.at == at {
			attempts += s.count[good] + s.count[failed] + s.count[refused]
			failures += s.count[failed]
		}
	}
	return attempts >= failingOf && 2*failures > attempts
}

// read fills in the sums, unless all that they rest on is older than a minute.
func (w *window) read(now time.Time, s *plan.PoolState) {
	total := w.sum.Load()
	if total == nil {
		return
	}
	n := now.UnixNano() / int64(slotLength)
	if n != total.slot {
		total = w.renew(n, total)
	}
	s.Attempts, s.ErrorRate, s.RefusedRate, s.FirstToken = total.attempts, total.errors, total.refused, total.first
	s.Failing, s.Dead = total.failing, total.dead
}

// renew sums up anew when a slot has passed, so that the old ones fall out. Whoever
// does not get to it goes by the sums of before.
func (w *window) renew(n int64, old *sums) *sums {
	if n < old.slot || !w.mu.TryLock() {
		return old
	}
	defer w.mu.Unlock()
	next := w.sumUp(n)
	w.sum.Store(next)
	return next
}
