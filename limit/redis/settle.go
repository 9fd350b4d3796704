package redis

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// Settle replaces what is held under id by what was used, be it less or more. It
// does not wait for the server. Settling twice, or an id that is not known, has no
// effect.
func (l *Ledger) Settle(id string, used []limit.Used) {
	l.end(id, settle, func() { l.own.Settle(id, used); l.pot.Settle(id, used) }, func(h *hold) int64 {
		return limit.Spent(h.limit, h.pool, used)
	})
}

// SettleHeld closes a reservation at what it holds: nobody knows what was used.
func (l *Ledger) SettleHeld(id string) {
	l.end(id, settle, func() { l.own.SettleHeld(id); l.pot.SettleHeld(id) }, nil)
}

// Release gives back all that is held under id, the request itself included:
// nothing was spent. An id that is not known has no effect.
func (l *Ledger) Release(id string) {
	l.end(id, release, func() { l.own.Release(id); l.pot.Release(id) }, nil)
}

// end ends a reservation: in the replica's own account at once, at the server soon.
func (l *Ledger) end(id, how string, here func(), spent func(*hold) int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	here()
	res, ok := l.open[id]
	if !ok {
		return
	}
	delete(l.open, id)
	l.enqueue(operation{id: id, how: how, used: res.used(spent)})
}

// used are pairs of counts and what was used of them.
func (r *reservation) used(spent func(*hold) int64) []string {
	if spent == nil {
		return nil
	}
	var pairs []string
	for i := range r.holds {
		if h := &r.holds[i]; kind(h.limit.Unit) == "t" {
			pairs = append(pairs, h.id, number(spent(h)))
		}
	}
	return pairs
}

// enqueue is called with mu held.
func (l *Ledger) enqueue(op operation) {
	l.queue = append(l.queue, op)
	select {
	case l.flush <- struct{}{}:
	default:
	}
}

// batch is how many reservations are ended in one go.
const batch = 128

// flushLoop tells the server what ended, until ctx ends.
func (l *Ledger) flushLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.flush:
		}
		for l.ready() && l.flushSome(ctx) {
		}
	}
}

// flushSome ends some reservations at the server, those first that ended first, and
// tells whether there are more. What the server did not acknowledge stays in the
// queue: ending a reservation twice has no effect.
func (l *Ledger) flushSome(ctx context.Context) bool {
	l.mu.Lock()
	list := l.queue[:min(len(l.queue), batch)]
	l.mu.Unlock()
	if len(list) == 0 {
		return false
	}
	done := l.endAll(ctx, list)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue = l.queue[done:]; len(l.queue) == 0 {
		l.queue = nil
	}
	return done == len(list) && len(l.queue) > 0
}

// endAll tells how many of the operations are done.
func (l *Ledger) endAll(ctx context.Context, list []operation) int {
	c := l.client.Load()
	if c == nil {
		return 0
	}
	v := l.view.Load()
	ctx, cancel := context.WithTimeout(ctx, 4*l.opt.Timeout)
	defer cancel()
	commands := make([]rueidis.Completed, len(list))
	for i, op := range list {
		args := l.head(v, make([]string, 0, headArgs+2+len(op.used)))
		commands[i] = settleScript.build(*c, l.meta, append(append(args, op.id, op.how), op.used...))
	}
	began := time.Now()
	results := (*c).DoMulti(ctx, commands...)
	for i, res := range results {
		if err, ok := rueidis.IsRedisErr(res.Error()); ok && err.IsNoScript() {
			res = settleScript.run(ctx, *c, l.meta, append(append(l.head(v, nil), list[i].id, list[i].how), list[i].used...))
		}
		rep, err := l.hear(v, res)
		l.metrics.asked(time.Since(began), err)
		if err != nil {
			l.lost(err)
			return i
		}
		if rep.status != statusOK {
			l.turn(rep)
			return i
		}
		if alerts, err := readAlerts(&rep, 1); err == nil {
			l.tellAll(alerts)
		}
	}
	return len(list)
}

// Restore counts r, without checking, as it was before a restart: it was admitted
// at that time, with the first of its options, and is still open. Whether the
// server held it or the pot is not known: both take it in, in the replica's own
// account. What the server counts is not changed.
func (l *Ledger) Restore(limits []*plan.Limit, r *limit.Request, admitted time.Time) {
	list := l.demands(limits, r)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.Restore(limits, r, admitted)
	if l.opt.Allowance > 0 {
		l.pot.Restore(l.pots(limits), r, admitted)
	}
	if _, ok := l.open[r.ID]; !ok && len(list) > 0 {
		l.hold(r.ID, list, 0, admitted)
	}
}

func (l *Ledger) pots(limits []*plan.Limit) []*plan.Limit {
	list := make([]*plan.Limit, len(limits))
	for i, lim := range limits {
		list[i] = l.split(lim).pot
	}
	return list
}

// maxEnded bounds how many requests are remembered that ended before this process
// began, for the case that the server was not told.
const maxEnded = 200_000

// Count counts, without checking, what r used, which ended at that time: in the
// replica's own account. The server knows of it, or is told when it still holds r.
func (l *Ledger) Count(limits []*plan.Limit, r *limit.Request, used []limit.Used, admitted, ended time.Time) {
	list := l.demands(limits, r)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.Count(limits, r, used, admitted, ended)
	if l.opt.Allowance > 0 {
		l.pot.Count(l.pots(limits), r, used, admitted, ended)
	}
	if len(list) == 0 || len(l.ended) >= maxEnded {
		return
	}
	res := reservation{holds: make([]hold, len(list))}
	for i := range list {
		res.holds[i] = hold{id: list[i].id, limit: list[i].lim, pool: list[i].Pool}
	}
	l.ended[r.ID] = res.used(func(h *hold) int64 { return limit.Spent(h.limit, h.pool, used) })
}

// Held is the number of reservations of this replica that are open.
func (l *Ledger) Held() int { return l.own.Held() + l.pot.Held() }

// Debts calls fn with what exceeded its reservation since this process began, for
// each limit where something did in this replica.
func (l *Ledger) Debts(fn func(limit string, n int64)) {
	sum := map[string]int64{}
	add := func(name string, n int64) { sum[name] += n }
	l.own.Debts(add)
	l.pot.Debts(add)
	for name, n := range sum {
		fn(name, n)
	}
}
