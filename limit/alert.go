package limit

import (
	"math/bits"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// Alert says that so much of a limit was used. It comes once for each percentage
// in a period, or in a window.
type Alert struct {
	Limit   *plan.Limit
	Scope   Scope
	Percent int
	Used    int64
	Time    time.Time
	Until   time.Time // when the period ends; for a window, when it is told again at the earliest
}

// alertUsed tells of the percentages that are reached.
func (l *Ledger) alertUsed(lim *plan.Limit, c *counter) {
	for _, p := range lim.AlertAt {
		if c.sum >= share(lim.Amount, p) {
			l.alert(lim, c, p)
		}
	}
}

// share is a percentage of an amount, rounded up.
func share(amount int64, percent int) int64 {
	hi, lo := bits.Mul64(uint64(amount), uint64(percent))
	lo, carry := bits.Add64(lo, 99, 0)
	n, _ := bits.Div64(hi+carry, lo, 100) // a percentage below 2^57 leaves room
	return int64(n)
}

// alert tells of one percentage, unless it was told in this period.
func (l *Ledger) alert(lim *plan.Limit, c *counter, percent int) {
	now := c.queue.now()
	if c.alerted <= now {
		c.told = 0
	}
	for _, p := range lim.AlertAt {
		if p != percent || uint64(p) <= c.told { // a lower one was told before it, or need not be any more
			continue
		}
		c.told = uint64(p)
		if c.alerted = now + max(c.queue.span.window, time.Second); c.queue.span.period != "" {
			c.alerted = c.queue.slotEnd(now)
		}
		l.change(c)
		l.alerts = append(l.alerts, Alert{
			Limit: lim, Scope: c.id.scope, Percent: p, Used: c.sum,
			Time: l.now().Round(0), Until: l.epoch.Round(0).Add(c.alerted),
		})
	}
}
