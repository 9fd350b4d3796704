package route

import (
	"sync"
	"sync/atomic"
	"time"
)

// Rests knows which pools asked to be left alone, and until when. It is safe for
// concurrent use; asking costs next to nothing while no pool rests.
type Rests struct {
	any   atomic.Bool
	mu    sync.Mutex
	until map[string]time.Time
}

// NewRests makes one in which no pool rests.
func NewRests() *Rests { return &Rests{until: map[string]time.Time{}} }

// Rest leaves a pool alone until then, or for longer if it asked for that before.
func (r *Rests) Rest(pool string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if until.After(r.until[pool]) {
		r.until[pool] = until
	}
	r.any.Store(true)
}

// Until is when the pool may be called again; zero when it may be now.
func (r *Rests) Until(pool string, now time.Time) time.Time {
	if !r.any.Load() {
		return time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.until[pool]
	if ok && !until.After(now) {
		delete(r.until, pool)
		r.any.Store(len(r.until) > 0)
		return time.Time{}
	}
	return until
}

// Each calls fn with each pool that rests.
func (r *Rests) Each(now time.Time, fn func(pool string, until time.Time)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pool, until := range r.until {
		if until.After(now) {
			fn(pool, until)
		}
	}
}
