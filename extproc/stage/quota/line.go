package quota

import (
	"sync"
	"sync/atomic"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/plan"
)

// line knows for which capacity of pools interactive requests wait in this replica.
// Requests for batch models let them go first. The zero value is ready for use.
type line struct {
	total   atomic.Int64 // mostly 0, and then nobody needs the lock
	mu      sync.Mutex
	waiting map[spot]int
}

// spot is one count of a limit that is a capacity.
type spot struct{ limit, pool string }

func spotOf(l *plan.Limit, pool string) spot {
	if !l.PerPool {
		pool = "" // the pools share one count
	}
	return spot{l.Ident(), pool}
}

// before is the capacity, of those that a batch request needs, for which others wait
// that go first, and its pool; nil when it is the request's turn.
func (q *line) before(ex *pipeline.Exchange) (*plan.Limit, string) {
	if !ex.Decision.Model.Batch || q.total.Load() == 0 {
		return nil, ""
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range ex.Reserved.Limits {
		if !l.Capacity() || l.OnBreach != plan.BreachQueue {
			continue
		}
		for _, p := range ex.Decision.Targets {
			if l.Counts(p.Name) && q.waiting[spotOf(l, p.Name)] > 0 {
				return l, p.Name
			}
		}
	}
	return nil, ""
}

// place is where one request stands in line; the zero spot is nowhere.
type place struct {
	line *line
	at   spot
}

// take stands in line for a capacity, and leaves the one before.
func (p *place) take(l *plan.Limit, pool string) {
	at := spotOf(l, pool)
	if p.at == at {
		return
	}
	p.leave()
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	if p.line.waiting == nil {
		p.line.waiting = map[spot]int{}
	}
	p.line.waiting[at]++
	p.line.total.Add(1)
	p.at = at
}

func (p *place) leave() {
	if p.at == (spot{}) {
		return
	}
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	if p.line.waiting[p.at]--; p.line.waiting[p.at] == 0 {
		delete(p.line.waiting, p.at)
	}
	p.line.total.Add(-1)
	p.at = spot{}
}
