package tokens

import (
	"math"
	"sync"
	"sync/atomic"
)

// Learned is what the backends' own figures teach about counting, pool by pool: by
// what factor an estimate is corrected, and whether a count that was thought exact
// is to be trusted. It is safe for concurrent use.
type Learned struct {
	mu    sync.RWMutex
	pools map[string]*lesson
}

type lesson struct {
	factor atomic.Uint64 // bits of a float64; 0 is 1
	doubt  atomic.Bool
}

// NewLearned knows nothing yet.
func NewLearned() *Learned { return &Learned{pools: map[string]*lesson{}} }

const (
	// pace is how much of an error one request corrects: an average over the last
	// twenty or so.
	pace = 0.05
	// The factor stays between these: what is further off is no matter of vocabulary.
	leastFactor, mostFactor = 0.25, 4
	// leastLesson is the shortest input that teaches, in tokens: of a shorter one the
	// template is most.
	leastLesson = 32
)

func (l *Learned) of(pool string) *lesson {
	l.mu.RLock()
	p := l.pools[pool]
	l.mu.RUnlock()
	return p
}

// Observe learns from a request that the pool served: what was told of its input
// before, exactly or not, and what the backend reported. It returns true when the
// pool's counts turn out not to be exact, for the first time.
func (l *Learned) Observe(pool string, told int64, exact bool, reported int64) (fellShort bool) {
	if told <= 0 || reported <= 0 || exact && reported <= told {
		return false
	}
	l.mu.Lock()
	p := l.pools[pool]
	if p == nil {
		p = &lesson{}
		l.pools[pool] = p
	}
	l.mu.Unlock()
	if exact {
		return p.doubt.CompareAndSwap(false, true)
	}
	if told < leastLesson {
		return false
	}
	for {
		old := p.factor.Load()
		f := factor(old) * math.Pow(float64(reported)/float64(told), pace)
		if p.factor.CompareAndSwap(old, math.Float64bits(min(max(f, leastFactor), mostFactor))) {
			return false
		}
	}
}

func factor(bits uint64) float64 {
	if bits == 0 {
		return 1
	}
	return math.Float64frombits(bits)
}

// Doubts tells whether counts of the pool that were thought exact fell short of
// what its backend reported.
func (l *Learned) Doubts(pool string) bool {
	p := l.of(pool)
	return p != nil && p.doubt.Load()
}

// Factor is by what the pool's estimates are corrected; 1 when nothing was learnt.
func (l *Learned) Factor(pool string) float64 {
	if p := l.of(pool); p != nil {
		return factor(p.factor.Load())
	}
	return 1
}

// Correct corrects a count for the pool, if it is an estimate. Its bound stays.
func (l *Learned) Correct(pool string, c Count) Count {
	if !c.Exact {
		c.Tokens = min(max(1, int64(math.Round(float64(c.Tokens)*l.Factor(pool)))), c.Bound)
	}
	return c
}

// Forget forgets what was learnt of the pool: it is another one now, or counted in
// another way.
func (l *Learned) Forget(pool string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pools, pool)
}

// Each calls f for every pool of which something was learnt, in no order.
func (l *Learned) Each(f func(pool string, factor float64, doubts bool)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for pool, p := range l.pools {
		f(pool, factor(p.factor.Load()), p.doubt.Load())
	}
}
