package redis

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
	l.enqueue(operation{id: id, how: how, rest: res.used(spent)})
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
		commands[i] = op.script().build(*c, l.meta, op.args(l.head(v, make([]string, 0, headArgs+2+len(op.rest)))))
	}
	began := time.Now()
	results := (*c).DoMulti(ctx, commands...)
	for i, res := range results {
		if err, ok := rueidis.IsRedisErr(res.Error()); ok && err.IsNoScript() {
			res = list[i].script().run(ctx, *c, l.meta, list[i].args(l.head(v, nil)))
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

// script is what carries the operation out.
func (o *operation) script() *script {
	if o.how == also {
		return alsoScript
	}
	return settleScript
}

// args are the operation's arguments behind the head.
func (o *operation) args(head []string) []string {
	head = append(head, o.id)
	if o.how != also {
		head = append(head, o.how)
	}
	return append(head, o.rest...)
}

// Restore counts r, without checking, as it was before a restart: it was admitted
// at that time, with the first of its options, and is still open. One that is open
// already is given what it does not hold yet, of limits that are new. Whether the
// server held it or the pot is not known after a restart: both take it in, in the
// replica's own accounts. The server is told of what is new only.
func (l *Ledger) Restore(limits []*plan.Limit, r *limit.Request, admitted time.Time) {
	list := l.demands(limits, r)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.Restore(limits, r, admitted)
	if l.opt.Allowance > 0 && !l.stood {
		l.pot.Restore(l.Pots(limits), r, admitted)
	}
	res, ok := l.open[r.ID]
	if !ok && len(list) > 0 {
		l.hold(r.ID, list, 0, admitted)
	}
	if !ok || !l.stood {
		return
	}
	more := &reservation{due: res.due}
	for i := range list {
		h := hold{id: list[i].id, limit: list[i].lim, share: list[i].Limit, pool: list[i].Pool, n: list[i].N[0], at: admitted}
		if !slices.ContainsFunc(res.holds, func(o hold) bool { return o.id == h.id }) {
			more.holds = append(more.holds, h)
		}
	}
	if len(more.holds) == 0 {
		return
	}
	res.holds = append(slices.Clip(res.holds), more.holds...)
	l.enqueue(operation{
		id: "hold:" + r.ID + ":" + more.holds[0].id, how: also,
		rest: reservationRecord(r.ID, more, l.opt.Hold, l.opt.Now(), l.time()),
	})
}

// Pots are the limits by which the pot counts.
func (l *Ledger) Pots(limits []*plan.Limit) []*plan.Limit {
	if l.opt.Allowance == 0 {
		return nil
	}
	list := make([]*plan.Limit, len(limits))
	for i, lim := range limits {
		list[i] = l.split(lim).pot
	}
	return list
}

// maxEnded bounds how many requests are remembered that ended before this process
// began, for the case that the server was not told.
const maxEnded = 200_000

// Count counts, without checking, what r used, which ended at that time. Before Run
// that is in the replica's own account: the server knows of it, or is told when it
// still holds r. Later the server is told, but for limits of which Introduce will tell.
func (l *Ledger) Count(limits []*plan.Limit, r *limit.Request, used []limit.Used, admitted, ended time.Time) {
	list := l.demands(limits, r)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.Count(limits, r, used, admitted, ended)
	if len(list) == 0 {
		return
	}
	if l.stood {
		l.countThere(list, r.ID, used, admitted, ended)
		return
	}
	if len(l.ended) < maxEnded {
		l.ended[r.ID] = pairsOf(list, used)
	}
}

// pairsOf are pairs of counts and what was used of them.
func pairsOf(list []demand, used []limit.Used) []string {
	res := reservation{holds: make([]hold, len(list))}
	for i := range list {
		res.holds[i] = hold{id: list[i].id, limit: list[i].lim, pool: list[i].Pool}
	}
	return res.used(func(h *hold) int64 { return limit.Spent(h.limit, h.pool, used) })
}

// countThere tells the server of use that it does not know of.
func (l *Ledger) countThere(list []demand, id string, used []limit.Used, admitted, ended time.Time) {
	here, there := l.opt.Now(), l.time()
	var records []string
	for i := range list {
		d := &list[i]
		n, at := int64(1), admitted
		switch {
		case l.unsaid[d.lim.Ident()], d.lim.Unit == plan.UnitConcurrency:
			continue
		case d.lim.Unit != plan.UnitRequests:
			n, at = limit.Spent(d.lim, d.Pool, used), ended
		}
		_, end, next := periodOf(d.lim, there)
		slot := slotEnd(d.lim, there.Add(-max(here.Sub(at), 0)))
		records = append(records, "C", d.id, number(windowOf(d.lim)), number(end), number(next), "0", "1", number(slot), number(n))
	}
	if len(records) > 0 {
		l.enqueue(operation{id: "count:" + id + ":" + list[0].id, how: also, rest: records})
	}
}

// Fresh says that a limit is new: what this replica knows of one
// that was there before is not whole. What it has behind it is counted from now on
// by Count, and the server is told by Introduce.
func (l *Ledger) Fresh(lim *plan.Limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.Reset(lim, func(limit.Scope) bool { return true })
	l.unsaid[lim.Ident()] = true
}

// Introduce tells the server what this replica knows of the limits that are new,
// before anybody is judged by them. When the server cannot be told now, nothing
// is reserved until it can.
func (l *Ledger) Introduce(ctx context.Context) {
	if !l.ready() {
		return // the keeper does it
	}
	if err := l.introduce(ctx); err != nil {
		l.lost(err)
	}
}

func (l *Ledger) introduce(ctx context.Context) error {
	l.mu.Lock()
	names := slices.Sorted(maps.Keys(l.unsaid))
	l.mu.Unlock()
	for _, name := range names {
		if err := l.introduceOne(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) introduceOne(ctx context.Context, name string) error {
	l.mu.Lock()
	shift := l.time().Sub(l.own.Now())
	var records [][]string
	for _, c := range l.own.Counts() {
		if c.Limit != name {
			continue
		}
		if r := countRecord(&c, l.time(), shift); r != nil {
			records = append(records, r)
		}
	}
	l.said++
	said := fmt.Sprintf("limit:%s:%s:%d", name, l.boot, l.said)
	l.mu.Unlock()
	for i, piece := range chunk(records) {
		args := append([]string{fmt.Sprintf("%s:%d", said, i)}, piece...)
		rep, err := l.ask(ctx, alsoScript, args)
		if err != nil { // it counts once, however often it is said
			rep, err = l.ask(ctx, alsoScript, args)
		}
		switch {
		case err != nil:
			return err
		case rep.status != statusOK:
			l.turn(rep)
			return fmt.Errorf("the limit store answered %q", rep.status)
		}
	}
	l.mu.Lock()
	delete(l.unsaid, name)
	l.mu.Unlock()
	return nil
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
