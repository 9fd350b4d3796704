// Package live keeps what is known at this moment of the pools: what their backends
// say of themselves, how the attempts of the last minute went, and which requests are
// open. It decides nothing. Reading it never waits; writers are the scraper, and the
// journal of decisions.
package live

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/plan"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// Table is what is known of the pools of the plan in force. It implements plan.Live
// and is safe for concurrent use.
type Table struct {
	// Now is the clock; time.Now unless a test sets another.
	Now func() time.Time
	// Rests is until when a pool asked to be left alone; zero when it did not. It may be
	// nil: none does.
	Rests func(pool string, now time.Time) time.Time

	following sync.Mutex // one plan at a time
	pools     atomic.Pointer[map[string]*pool]
}

// pool is what is known of one pool.
type pool struct {
	conf      atomic.Pointer[plan.Pool] // as the plan in force says
	open      atomic.Int64
	seen      window
	endpoints atomic.Pointer[[]*endpoint] // in the order of the plan's
	summing   sync.Mutex                  // of those who write heard
	heard     atomic.Pointer[summary]     // nil: nothing was heard yet
	// The scraper's alone.
	client *http.Client
	of     *plan.Pool // whom the client was made for
	told   int        // how many endpoints were down when that was last said
	tellAt time.Time  // when to say that it changed; zero: it did not
}

// summary is what the endpoints said, together.
type summary struct {
	oldest                  time.Time
	down                    int
	known                   int // of the endpoints, those that were heard of
	running, waiting, kvUse float64
	staleAfter              time.Duration
}

// NewTable makes a table that knows no pool yet.
func NewTable() *Table {
	t := &Table{Now: time.Now}
	t.pools.Store(&map[string]*pool{})
	return t
}

var _ plan.Live = (*Table)(nil)

// Follow makes the pools of a plan those of the table. What is known of pools and
// endpoints that stay is kept; a request that is open at a pool that goes is counted
// there until it ends.
func (t *Table) Follow(p *plan.Plan) {
	t.following.Lock()
	defer t.following.Unlock()
	old := *t.pools.Load()
	next := make(map[string]*pool, len(p.Pools))
	for _, conf := range p.Pools {
		known, ok := old[conf.Name]
		if !ok {
			known = &pool{}
		}
		known.follow(conf)
		next[conf.Name] = known
	}
	for name, known := range old {
		if _, stays := next[name]; !stays && known.open.Load() > 0 {
			known.follow(&plan.Pool{Name: name})
			next[name] = known
		}
	}
	t.pools.Store(&next)
}

func (p *pool) follow(conf *plan.Pool) {
	was := p.endpoints.Load()
	if old := p.conf.Load(); old != nil && (old.Metrics.Path != conf.Metrics.Path || old.Metrics.Port != conf.Metrics.Port) {
		was = nil // asked elsewhere, or not any more: that nobody answered there says nothing now
	}
	list := make([]*endpoint, len(conf.Endpoints))
	for i, e := range conf.Endpoints {
		address := net.JoinHostPort(e.Host, strconv.FormatUint(uint64(e.Port), 10))
		if was != nil {
			if at := slices.IndexFunc(*was, func(k *endpoint) bool { return k.address == address }); at >= 0 {
				list[i] = (*was)[at]
			}
		}
		if list[i] == nil {
			list[i] = &endpoint{address: address}
		}
	}
	p.conf.Store(conf)
	p.endpoints.Store(&list)
	p.summarize()
}

// Pool is the state of a pool.
func (t *Table) Pool(name string) (plan.PoolState, bool) {
	p, ok := (*t.pools.Load())[name]
	if !ok {
		return plan.PoolState{}, false
	}
	now := t.Now()
	n := len(*p.endpoints.Load())
	s := plan.PoolState{Endpoints: n, Healthy: n, Open: p.open.Load()}
	if h := p.heard.Load(); h != nil {
		s.Healthy = n - h.down
		s.Heard, s.Running, s.Waiting, s.KVUse = h.oldest, h.running, h.waiting, h.kvUse
		s.Stale = h.known > 0 && now.Sub(h.oldest) > h.staleAfter
	}
	p.seen.read(now, &s)
	if t.Rests != nil {
		s.RestUntil = t.Rests(name, now)
	}
	return s, true
}

// Endpoints are the states of a pool's endpoints, in the order of the plan's.
func (t *Table) Endpoints(name string) []plan.EndpointState {
	p, ok := (*t.pools.Load())[name]
	if !ok {
		return nil
	}
	now, stale := t.Now(), staleAfter(p.conf.Load())
	var list []plan.EndpointState
	for _, e := range *p.endpoints.Load() {
		list = append(list, e.state(now, stale))
	}
	return list
}

// Pending counts the requests that are open: delta is 1 when one is decided and -1
// when it has ended, however it did.
func (t *Table) Pending(d *usagev1.Decision, delta int) {
	if targets := d.GetTargets(); len(targets) > 0 {
		t.known(targets[0]).open.Add(int64(delta))
	}
}

// known is the pool of that name. What a decision names that is in no plan (the plan
// was changed while weir was down) is kept for as long as it is open.
func (t *Table) known(name string) *pool {
	if p, ok := (*t.pools.Load())[name]; ok {
		return p
	}
	t.following.Lock()
	defer t.following.Unlock()
	old := *t.pools.Load()
	if p, ok := old[name]; ok {
		return p
	}
	next := make(map[string]*pool, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	p := &pool{}
	p.follow(&plan.Pool{Name: name})
	next[name] = p
	t.pools.Store(&next)
	return p
}

// Ended takes in how the attempts of a request went that has ended.
func (t *Table) Ended(e *usagev1.Event) {
	pools, at := *t.pools.Load(), t.Now()
	for _, a := range e.GetAttempts() {
		p, ok := pools[a.GetPool()]
		if !ok {
			continue
		}
		var first time.Duration
		if a.GetPool() == e.GetPool() && len(e.GetAttempts()) == 1 {
			// After a failover the time to the first token is not this pool's alone.
			first = time.Duration(e.GetFirstTokenUs()) * time.Microsecond
		}
		p.seen.add(at, outcomeOf(a), first)
	}
}

// outcome is how an attempt went, as it speaks of its backend.
type outcome uint8

const (
	good outcome = iota
	failed
	refused // 429
	neither // the client went, or its request was at fault
)

func outcomeOf(a *usagev1.Attempt) outcome {
	status := a.GetStatus()
	switch {
	case a.GetFailure() == "client_gone":
		return neither
	case status == 429:
		return refused
	case a.GetFailure() != "" || status >= 500 || status == 0:
		return failed
	case status >= 400:
		return neither
	}
	return good
}
