package live

import (
	"math/bits"
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
	first [latencies]int32
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

// latencies are the buckets of first-token times: four to each doubling from 1 ms on,
// up to four minutes. So a median is within 19 % of what it was.
const latencies = 72

func bucketOf(d time.Duration) int {
	v := uint64(d / (250 * time.Microsecond)) // 4 is a millisecond
	if v < 4 {
		return 0
	}
	exp := bits.Len64(v) - 3 // v >> exp is 4 to 7
	return min(exp*4+int(v>>exp)-4, latencies-1)
}

// timeOf is the middle of a bucket.
func timeOf(bucket int) time.Duration {
	exp, quarter := bucket/4, bucket%4
	low := time.Duration(4+quarter) << exp
	return low*250*time.Microsecond + (250 * time.Microsecond << exp / 2)
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
		s.first[bucketOf(first)]++
	}
	w.sum.Store(w.sumUp(n))
}

func (w *window) sumUp(n int64) *sums {
	total := &sums{slot: n}
	var count [neither + 1]int64
	var first [latencies]int64
	for i := range w.slots {
		s := &w.slots[i]
		if s.at <= n-slots {
			continue
		}
		for o, c := range s.count {
			count[o] += c
		}
		for b, c := range s.first {
			first[b] += int64(c)
			total.firstOf += int64(c)
		}
	}
	total.attempts = count[good] + count[failed] + count[refused]
	if total.attempts > 0 {
		total.errors = float64(count[failed]) / float64(total.attempts)
		total.refused = float64(count[refused]) / float64(total.attempts)
	}
	total.dead = w.streak >= failingOf && n-w.last < failingIn
	total.failing = total.dead || w.failing(n)
	total.first = median(&first, total.firstOf)
	return total
}

// What is failing: of at least so many attempts of the last seconds this part failed,
// or so many in a row.
const (
	failingOf   = 5
	failingPart = 0.5
	failingIn   = 3 // slots: 10 to 15 seconds
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
	return attempts >= failingOf && float64(failures) >= failingPart*float64(attempts)
}

func median(first *[latencies]int64, of int64) time.Duration {
	var below int64
	for b, c := range first {
		if below += c; c > 0 && 2*below >= of {
			return timeOf(b)
		}
	}
	return 0
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
