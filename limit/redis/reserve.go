package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// split is a limit in its two parts: what the server gives, and what each replica
// may give while the server is away. The pots and the share are the limit.
type split struct{ share, pot *plan.Limit }

// maxSplits is how many limits are kept split: those of a few configurations.
const maxSplits = 4096

// split divides a limit. Small amounts leave nothing for the pots.
func (l *Ledger) split(lim *plan.Limit) split {
	if s, ok := l.splits.Load(lim); ok {
		return s.(split)
	}
	s := split{share: lim}
	if l.opt.Allowance > 0 {
		// An amount is at most 2^53 and the allowance MaxAllowance: no overflow.
		pot := lim.Amount * int64(l.opt.Allowance) / 100 / int64(l.opt.Replicas)
		share, part := *lim, *lim
		share.Amount, part.Amount = lim.Amount-pot*int64(l.opt.Replicas), pot
		part.Breaker, part.AlertAt = false, nil // the whole has them
		s = split{share: &share, pot: &part}
	}
	n := 0
	l.splits.Range(func(any, any) bool { n++; return true })
	if n >= maxSplits {
		l.splits.Clear()
	}
	l.splits.Store(lim, s)
	l.known.Store(lim.Ident(), lim)
	return s
}

// demand is what a request wants of one count, as the server is asked for it.
type demand struct {
	limit.Demand             // of the server's share
	lim          *plan.Limit // as it is configured
	id           string
	others       string // the count for users beyond those that have one of their own
}

// demands are what r wants of the server.
func (l *Ledger) demands(limits []*plan.Limit, r *limit.Request) []demand {
	shares := make([]*plan.Limit, len(limits))
	for i, lim := range limits {
		shares[i] = l.split(lim).share
	}
	found := limit.Demands(make([]limit.Demand, 0, len(limits)), shares, r)
	list := make([]demand, len(found))
	at := 0 // demands come in the order of the limits
	for i, f := range found {
		for shares[at] != f.Limit {
			at++
		}
		list[i] = demand{Demand: f, lim: limits[at], id: identify(f.Limit, f.Scope).String()}
		if f.Scope.User != "" {
			f.Scope.User = limit.OtherUsers
			list[i].others = identify(f.Limit, f.Scope).String()
		}
	}
	return list
}

// kind is how a unit is counted.
func kind(u plan.Unit) string {
	switch u {
	case plan.UnitRequests:
		return "r"
	case plan.UnitConcurrency:
		return "c"
	}
	return "t"
}

// micros rounds a window up, so that nothing leaves early.
func micros(d time.Duration) int64 { return int64((d + time.Microsecond - 1) / time.Microsecond) }

func number(n int64) string { return strconv.FormatInt(n, 10) }

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// periodOf are the start and the end of the period that holds the time t, and the
// end of the next one; zeros for a window.
func periodOf(lim *plan.Limit, t time.Time) (start, end, next int64) {
	if lim.Period == "" {
		return 0, 0, 0
	}
	s, e := lim.Period.Bounds(t.In(lim.Zone))
	_, n := lim.Period.Bounds(e)
	return s.UnixMicro(), e.UnixMicro(), n.UnixMicro()
}

// windowOf is how long a slot stays after its end.
func windowOf(lim *plan.Limit) int64 {
	if lim.Period != "" {
		return 0
	}
	return micros(lim.Window)
}

// alertsOf are the percentages at which somebody is told, and the counts.
func alertsOf(lim *plan.Limit) string {
	var b []byte
	for i, p := range lim.AlertAt {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(p), 10)
		b = append(b, ':')
		b = strconv.AppendInt(b, limit.Threshold(lim.Amount, p), 10)
	}
	return string(b)
}

// What the script is asked to do.
const (
	modeReserve = "reserve"
	modeCheck   = "check"
	modeLook    = "look"
)

// reserveArgs are the script's own arguments.
func (l *Ledger) reserveArgs(mode string, r *limit.Request, list []demand) []string {
	options := len(r.OptionsOf())
	args := make([]string, 0, 5+len(list)*(12+2*options))
	args = append(args, mode, r.ID, number(l.opt.Hold.Microseconds()), strconv.Itoa(l.opt.maxUsers), strconv.Itoa(options))
	now := l.time()
	for i := range list {
		d := &list[i]
		lim := d.Limit
		start, end, next := periodOf(lim, now)
		args = append(args, d.id, d.others, lim.Ident(), kind(lim.Unit), bit(lim.OnBreach != plan.BreachReport),
			number(lim.Amount), number(windowOf(lim)), number(start), number(end), number(next),
			bit(lim.Breaker), alertsOf(lim))
		for o := range options {
			args = append(args, number(d.N[o]), number(d.Needs[o]))
		}
	}
	return args
}

// Reserve admits r under all limits that apply to it, or under none.
func (l *Ledger) Reserve(limits []*plan.Limit, r *limit.Request) limit.Result {
	if len(limits) == 0 {
		return limit.Result{OK: true}
	}
	list := l.demands(limits, r)
	if len(list) == 0 {
		return limit.Result{OK: true}
	}
	if l.ready() {
		if res, ok := l.reserve(limits, r, list); ok {
			return res
		}
	}
	return l.fromPot(limits, r)
}

// reserve asks the server; ok is false when it has no answer.
func (l *Ledger) reserve(limits []*plan.Limit, r *limit.Request, list []demand) (limit.Result, bool) {
	l.asking.RLock()
	defer l.asking.RUnlock()
	if !l.ready() {
		return limit.Result{}, false
	}
	rep, err := l.askTwice(modeReserve, r, list)
	if err != nil {
		l.giveUp(r.ID)
		l.lost(err)
		return limit.Result{}, false
	}
	if rep.status != statusOK {
		l.turn(rep)
		return limit.Result{}, false
	}
	out, err := readOutcome(&rep, list)
	if err != nil {
		l.giveUp(r.ID)
		l.lost(err)
		return limit.Result{}, false
	}
	res := l.result(rep.now, list, out, len(r.OptionsOf()))
	if res.OK {
		l.note(limits, r, list, res.Option)
		res.Held = true
	}
	l.tellAll(out.alerts)
	return res, true
}

// askTwice asks again when the server's clock is in another period than was thought.
func (l *Ledger) askTwice(mode string, r *limit.Request, list []demand) (reply, error) {
	rep, err := l.ask(context.Background(), reserveScript, l.reserveArgs(mode, r, list))
	if err == nil && rep.status == statusStale {
		rep, err = l.ask(context.Background(), reserveScript, l.reserveArgs(mode, r, list))
	}
	return rep, err
}

// giveUp takes a reservation back of which nobody knows whether it was made.
func (l *Ledger) giveUp(id string) {
	l.metrics.doubtful.Inc()
	l.mu.Lock()
	l.enqueue(operation{id: id, how: void})
	l.mu.Unlock()
}

// note keeps what the server holds for this replica, in the replica's own account.
func (l *Ledger) note(limits []*plan.Limit, r *limit.Request, list []demand, option int) {
	admitted := *r
	admitted.Options = []limit.Option{r.OptionsOf()[option]}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, again := l.open[r.ID]; again {
		l.own.SettleHeld(r.ID) // as the server did
	}
	now := l.opt.Now()
	l.own.Restore(limits, &admitted, now)
	l.hold(r.ID, list, option, now)
}

// hold is called with mu held.
func (l *Ledger) hold(id string, list []demand, option int, at time.Time) {
	res := &reservation{holds: make([]hold, len(list)), due: at.Add(l.opt.Hold)}
	for i := range list {
		d := &list[i]
		res.holds[i] = hold{id: d.id, limit: d.lim, share: d.Limit, pool: d.Pool, n: d.N[option], at: at}
	}
	l.open[id] = res
}

// fromPot is the answer when the server has none.
func (l *Ledger) fromPot(limits []*plan.Limit, r *limit.Request) limit.Result {
	p := l.phase.Load()
	if l.opt.Allowance == 0 || !p.pot() {
		l.metrics.unavailable.Inc()
		return limit.Result{Unavailable: true, RetryAfter: time.Second}
	}
	pots := l.Pots(limits)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stood {
		return limit.Result{Unavailable: true, RetryAfter: time.Second}
	}
	res := l.pot.Reserve(pots, r)
	for i, pot := range pots {
		if res.Limit == pot {
			res.Limit = limits[i]
		}
		if res.Reported == pot {
			res.Reported = limits[i]
		}
	}
	if !res.OK {
		// It may fit once the server is back.
		res = limit.Result{Unavailable: true, RetryAfter: time.Second}
	} else {
		l.metrics.fromPot.Inc()
	}
	return res
}

// Check tells whether Reserve would admit r now, and holds nothing. The server is
// asked for a probe, which wants to know, and otherwise only when one of the counts
// refused somebody a moment ago: Reserve decides.
func (l *Ledger) Check(limits []*plan.Limit, r *limit.Request) limit.Result {
	probe := ai.IsProbeID(r.ID)
	if len(limits) == 0 || !probe && l.isTight.Load() == 0 {
		return limit.Result{OK: true}
	}
	list := l.demands(limits, r)
	if len(list) == 0 || !probe && !l.refusedLately(list) {
		return limit.Result{OK: true}
	}
	if l.ready() {
		if res, ok := l.check(r, list); ok {
			return res
		}
	}
	if !probe {
		return limit.Result{OK: true}
	}
	return l.checkPot(limits, r)
}

// check asks the server; ok is false when it has no answer.
func (l *Ledger) check(r *limit.Request, list []demand) (limit.Result, bool) {
	rep, err := l.askTwice(modeCheck, r, list)
	if err != nil {
		l.lost(err)
		return limit.Result{}, false
	}
	if rep.status != statusOK {
		l.turn(rep)
		return limit.Result{}, false
	}
	out, err := readOutcome(&rep, list)
	if err != nil {
		l.lost(err)
		return limit.Result{}, false
	}
	l.tellAll(out.alerts)
	return l.result(rep.now, list, out, len(r.OptionsOf())), true
}

// checkPot tells whether fromPot would admit r.
func (l *Ledger) checkPot(limits []*plan.Limit, r *limit.Request) limit.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opt.Allowance > 0 && l.phase.Load().pot() && l.stood {
		if res := l.pot.Check(l.Pots(limits), r); res.OK {
			return res
		}
	}
	return limit.Result{Unavailable: true, RetryAfter: time.Second}
}

// States tells of each count that r would be judged by, under the limits that
// apply to it; nothing while the server has no answer.
func (l *Ledger) States(limits []*plan.Limit, r *limit.Request) []limit.State {
	if !l.ready() {
		return nil
	}
	list := l.demands(limits, r)
	if len(list) == 0 {
		return nil
	}
	rep, err := l.askTwice(modeLook, r, list)
	if err != nil {
		l.lost(err)
		return nil
	}
	if rep.status != statusOK {
		l.turn(rep)
		return nil
	}
	out, err := readOutcome(&rep, list)
	if err != nil {
		return nil
	}
	states := make([]limit.State, len(list))
	for i := range list {
		states[i] = out.counts[i].state(list[i].lim, list[i].Limit.Amount, list[i].Scope, rep.now)
	}
	return states
}
