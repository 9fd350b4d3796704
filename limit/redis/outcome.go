package redis

import (
	"errors"
	"time"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// count is the state of one count, as the server told it. Times are µs since 1970.
type count struct {
	used, held, last, broken int64
	wait                     int64 // -1: it did not refuse; -2: there is never room
}

// outcome is what the script for reservations answered.
type outcome struct {
	option, reported int // from 1; 0 for none
	counts           []count
	alerts           []told
}

// told is an alert as the server told it.
type told struct {
	id                   string
	percent, used, until int64
}

var errAnswer = errors.New("the limit store answered something else than was asked")

// readOutcome reads the answer about these counts.
func readOutcome(rep *reply, list []demand) (outcome, error) {
	var out outcome
	rest := rep.rest
	if len(rest) < 2+5*len(list) || (len(rest)-2-5*len(list))%4 != 0 {
		return out, errAnswer
	}
	n := make([]int64, 2+5*len(list))
	for i := range n {
		var err error
		if n[i], err = integer(&rest[i]); err != nil {
			return out, err
		}
	}
	if n[0] < 0 || n[0] > limit.MaxOptions || n[1] < 0 || n[1] > int64(len(list)) {
		return out, errAnswer
	}
	out.option, out.reported = int(n[0]), int(n[1])
	out.counts = make([]count, len(list))
	for i := range out.counts {
		at := n[2+5*i:]
		out.counts[i] = count{used: at[0], held: at[1], last: at[2], broken: at[3], wait: at[4]}
	}
	var err error
	out.alerts, err = readAlerts(rep, len(n))
	return out, err
}

// readAlerts reads alerts that stand behind the first n values.
func readAlerts(rep *reply, n int) ([]told, error) {
	var list []told
	for i := n; i+4 <= len(rep.rest); i += 4 {
		var a told
		var err error
		if a.id, err = rep.rest[i].ToString(); err != nil {
			return nil, err
		}
		for j, v := range []*int64{&a.percent, &a.used, &a.until} {
			if *v, err = integer(&rep.rest[i+1+j]); err != nil {
				return nil, err
			}
		}
		list = append(list, a)
	}
	return list, nil
}

// result is the outcome in the words of package limit.
func (l *Ledger) result(now int64, list []demand, out outcome, options int) limit.Result {
	var res limit.Result
	if out.option > 0 && out.option <= options {
		res.OK, res.Option = true, out.option-1
		if out.reported > 0 {
			res.Reported = list[out.reported-1].lim
		}
	} else {
		for i := range list {
			l.refusal(&res, &list[i], &out.counts[i], now)
		}
	}
	for i := range list {
		d, c := &list[i], &out.counts[i]
		res.Note(d.lim, limit.Figure{
			Limit: d.lim.Amount, Remaining: max(d.Limit.Amount-c.used-c.held, 0), Reset: c.reset(d.Limit, now),
		})
	}
	return res
}

// refusal takes in that a count refused: of several the one that refuses for longest
// is named.
func (l *Ledger) refusal(res *limit.Result, d *demand, c *count, now int64) {
	if c.wait == -1 {
		return
	}
	impossible := c.wait < 0
	var wait time.Duration
	if !impossible {
		wait = time.Duration(c.wait) * time.Microsecond
		l.refused(d.id)
	}
	if res.Limit == nil || impossible && !res.Impossible || impossible == res.Impossible && wait > res.RetryAfter {
		*res = limit.Result{Limit: d.lim, Pool: d.Pool, RetryAfter: wait, Impossible: impossible, Open: c.broken > now}
	}
}

// reset is how long it takes until nothing is counted.
func (c *count) reset(lim *plan.Limit, now int64) time.Duration {
	switch {
	case c.held > 0 && lim.Window > 0:
		return lim.Window
	case c.last == 0:
		return 0
	}
	return max(time.Duration(c.last+windowOf(lim)-now)*time.Microsecond, 0)
}

func (c *count) state(lim *plan.Limit, amount int64, scope limit.Scope, now int64) limit.State {
	return limit.State{
		Limit: lim, Scope: scope, Used: c.used, Reserved: c.held, Left: max(amount-c.used-c.held, 0),
		Open: c.broken > now, Reset: c.reset(lim, now),
	}
}

// tightFor is how long a refusal is remembered by Check.
const tightFor = time.Second

// maxTight bounds how many counts are remembered.
const maxTight = 4096

// refused remembers that a count had no room.
func (l *Ledger) refused(id string) {
	if l.isTight.Load() >= maxTight {
		l.tight.Clear()
		l.isTight.Store(0)
	}
	if _, was := l.tight.Swap(id, l.opt.Now().Add(tightFor)); !was {
		l.isTight.Add(1)
	}
}

// refusedLately tells whether one of the counts had no room a moment ago.
func (l *Ledger) refusedLately(list []demand) bool {
	now := l.opt.Now()
	for i := range list {
		until, ok := l.tight.Load(list[i].id)
		if !ok {
			continue
		}
		if now.Before(until.(time.Time)) {
			return true
		}
		if l.tight.CompareAndDelete(list[i].id, until) {
			l.isTight.Add(-1)
		}
	}
	return false
}

// tellAll tells of alerts. One of a limit that is not configured any more is of no
// use to anybody.
func (l *Ledger) tellAll(list []told) {
	for _, a := range list {
		id, err := parseIdentity(a.id)
		if err != nil {
			continue
		}
		lim, ok := l.known.Load(id.limit)
		if !ok {
			continue
		}
		l.tell(limit.Alert{
			Limit: lim.(*plan.Limit), Scope: id.scope, Percent: int(a.percent), Used: a.used,
			Time: l.time().Round(0), Until: time.UnixMicro(a.until),
		})
	}
}

func (l *Ledger) tell(a limit.Alert) {
	if l.OnAlert != nil {
		l.OnAlert(a)
	}
}
