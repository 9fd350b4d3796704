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

func (e *endpoint) down() bool {
	f := e.failed.Load()
	return f != nil && f.silent && f.times >= downAfter
}

// said takes in what the endpoint answered.
func (e *endpoint) said(r *reading) {
	e.heard.Store(r)
	e.failed.Store(nil)
}

// silence takes in that it did not. It returns whether the endpoint has just gone down.
func (e *endpoint) silence(why string, silent bool) bool {
	f := failure{times: 1, why: why, silent: silent}
	if was := e.failed.Load(); was != nil && was.silent == silent {
		f.times = was.times + 1
	}
	e.failed.Store(&f)
	return silent && f.times == downAfter
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
	p.summing.Lock() // the later summary is the one that stays
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
