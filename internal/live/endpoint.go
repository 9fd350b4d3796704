package live

import (
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// downAfter is how many times in a row an endpoint must not answer to be down.
const downAfter = 3

// endpoint is what is known of one endpoint.
type endpoint struct {
	address string // host:port that serves
	heard   atomic.Pointer[reading]
	failed  atomic.Pointer[failure] // nil while it answers
	asking  atomic.Bool
	due     time.Time // its next turn; the scraper's alone
}

// reading is what an endpoint said of itself.
type reading struct {
	at                      time.Time
	running, waiting, kvUse float64
	hasKV                   bool
}

// failure is why an endpoint was not heard of.
type failure struct {
	times int // in a row
	why   string
	// silent says that nothing answered there: it counts towards being down. One that
	// answers and tells no metrics is up.
	silent bool
}

func (e *endpoint) down() bool { return e.failed.Load().down() }

func (f *failure) down() bool { return f != nil && f.silent && f.times >= downAfter }

// said takes in what the endpoint answered.
func (e *endpoint) said(r *reading) {
	e.heard.Store(r)
	e.failed.Store(nil)
}

// silence takes in that it did not.
func (e *endpoint) silence(why string, silent bool) {
	f := failure{times: 1, why: why, silent: silent}
	if was := e.failed.Load(); was != nil && was.silent == silent {
		f.times = was.times + 1
	}
	e.failed.Store(&f)
}

// longestPause bounds how long an endpoint that is down is left alone, unless the
// pool's endpoints are asked less often anyway.
const longestPause = 10 * time.Second

// pause is the time from one question to the next: longer and longer where nobody
// answers, since asking thousands that are gone costs what asking those that live does.
func (e *endpoint) pause(interval time.Duration) time.Duration {
	f := e.failed.Load()
	if !f.down() {
		return interval
	}
	doublings := min(f.times-downAfter+1, 8)
	return max(interval, min(interval<<doublings, longestPause))
}

// answered tells whether somebody answered the last time.
func (e *endpoint) answered() bool {
	if f := e.failed.Load(); f != nil {
		return !f.silent
	}
	return e.heard.Load() != nil
}

func (e *endpoint) state(now time.Time, staleAfter time.Duration) plan.EndpointState {
	s := plan.EndpointState{Address: e.address, Down: e.down()}
	if r := e.heard.Load(); r != nil {
		s.Heard, s.Running, s.Waiting, s.KVUse = r.at, r.running, r.waiting, r.kvUse
		s.Stale = now.Sub(r.at) > staleAfter
	}
	if f := e.failed.Load(); f != nil {
		s.Error = f.why
	}
	return s
}

// summarize adds up what the endpoints said. An endpoint that is down has no load.
func (p *pool) summarize() {
	// What began earlier must not end later: it would say what was, until the next answer.
	p.summing.Lock()
	defer p.summing.Unlock()
	s := &summary{staleAfter: staleAfter(p.conf.Load())}
	var withKV float64
	for _, e := range *p.endpoints.Load() {
		if e.down() {
			s.down++
			continue
		}
		r := e.heard.Load()
		if r == nil {
			continue
		}
		if s.known == 0 || r.at.Before(s.oldest) {
			s.oldest = r.at
		}
		s.known++
		s.running += r.running
		s.waiting += r.waiting
		if r.hasKV {
			s.kvUse += r.kvUse
			withKV++
		}
	}
	if withKV > 0 {
		s.kvUse /= withKV
	}
	p.heard.Store(s)
}

// staleAfter is the age at which what a pool's endpoints said is too old to go by.
func staleAfter(conf *plan.Pool) time.Duration {
	return 3 * conf.Metrics.Interval
}
