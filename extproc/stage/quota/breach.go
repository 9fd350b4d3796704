package quota

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// maxWaiting bounds how many requests wait for limits at a time: each keeps its
// body in memory. Those beyond are refused at once.
const maxWaiting = 1000

// maxBatchWaiting is how many may wait for a request of a batch model to wait as well: the
// other places are those of interactive ones.
const maxBatchWaiting = maxWaiting / 2

// reserve takes what the request may use. Where a limit has no room it does what
// the limit says: pools that have none left drop out, a downgrade goes elsewhere,
// a queue waits. It is false when nothing helped.
func (s *Stage) reserve(ctx context.Context, ex *pipeline.Exchange) bool {
	var waited time.Duration
	shadow := ex.Plan.Mode(s.Name()) == plan.Shadow
	place := place{line: &s.line}
	defer place.leave()
	var before whole
	for {
		res := &ex.Reserved.Result
		if l, pool := s.line.before(ex); l != nil && !shadow {
			*res = limit.Result{Limit: l, Pool: pool}
		} else if *res = s.ledger.Reserve(ex.Reserved.Limits, s.build(ex)); res.OK {
			return true
		}
		switch l := res.Limit; {
		case l == nil: // the ledger could not be asked
			return false
		case shadow: // changes nothing
			return false
		case dropPools(ex, &before):
		case l.OnBreach == plan.BreachDowngrade && downgrade(ex):
			before.targets = nil // it goes elsewhere altogether
		case l.OnBreach == plan.BreachQueue && s.wait(ctx, ex, &place, &waited):
			before.back(&ex.Decision) // any of them may have room by now
		default:
			return false
		}
	}
}

// whole remembers the targets before those without room were dropped.
type whole struct {
	targets []*plan.Pool // nil: none was
	dropped int          // of the decision's drops, those of before
}

// back brings them back.
func (w *whole) back(d *pipeline.Decision) {
	if w.targets != nil {
		d.Targets, d.Dropped, w.targets = append(d.Targets[:0], w.targets...), d.Dropped[:w.dropped], nil
	}
}

// dropPools drops the targets whose limit has no room, if others are left.
func dropPools(ex *pipeline.Exchange, before *whole) bool {
	l, pool := ex.Reserved.Result.Limit, ex.Reserved.Result.Pool
	if !l.OfPools() {
		return false
	}
	d := &ex.Decision
	full := func(p *plan.Pool) bool { return l.Counts(p.Name) && (pool == "" || p.Name == pool) }
	left := 0
	for _, p := range d.Targets {
		if !full(p) {
			left++
		}
	}
	if left == 0 || left == len(d.Targets) {
		return false
	}
	if before.targets == nil {
		before.targets, before.dropped = slices.Clone(d.Targets), len(d.Dropped)
	}
	for _, p := range d.Targets {
		if full(p) {
			d.Dropped = append(d.Dropped, pipeline.Drop{Pool: p, Reason: ai.ReasonLimitExceeded})
		}
	}
	d.Targets = slices.DeleteFunc(d.Targets, full)
	return true
}

// downgrade replaces the targets by those that the limit names, as far as the
// request may use them. It is done once for a request.
func downgrade(ex *pipeline.Exchange) bool {
	l, d := ex.Reserved.Result.Limit, &ex.Decision
	if ex.Reserved.Downgraded != nil {
		return false
	}
	var targets []*plan.Pool
	for _, p := range l.DowngradeTo {
		if d.Bar(ex, p) == ai.ReasonNone {
			targets = append(targets, p)
		}
	}
	if len(targets) == 0 {
		return false
	}
	for _, p := range d.Targets {
		if !slices.Contains(targets, p) {
			d.Dropped = append(d.Dropped, pipeline.Drop{Pool: p, Reason: ai.ReasonLimitExceeded})
		}
	}
	d.Targets, ex.Reserved.Downgraded = append(d.Targets[:0], targets...), l
	return true
}

// wait waits for others to end, and is false when the request has waited for long
// enough.
func (s *Stage) wait(ctx context.Context, ex *pipeline.Exchange, place *place, waited *time.Duration) bool {
	res := &ex.Reserved.Result
	left := res.Limit.QueueWait - *waited
	if res.Impossible || res.Open || left <= 0 || ai.IsProbeID(ex.In.ID) {
		return false
	}
	defer s.waiting.Add(-1)
	batch := ex.Decision.Model.Batch
	if n := s.waiting.Add(1); n > maxWaiting || batch && n > maxBatchWaiting {
		return false
	}
	switch {
	case !res.Limit.Capacity():
		place.leave() // the pool is not what it waits for
	case !batch:
		place.take(res.Limit, res.Pool)
	}
	// Whose turn it is among equals, nobody says; a random pause keeps those who wait apart, and
	// who has waited for long asks less often: many may wait, and each look may be a
	// way to another machine.
	pause := min(left, max(*waited/4, 10*time.Millisecond)+time.Duration(rand.Int64N(int64(20*time.Millisecond))))
	*waited += pause
	return s.Sleep(ctx, pause)
}

// refusal tells which limit refused, and how it helps to wait.
func refusal(ex *pipeline.Exchange) pipeline.Verdict {
	r := &ex.Reserved.Result
	if r.Unavailable || r.Limit == nil {
		return pipeline.Refuse(ai.ReasonLimitsUnavailable, "The gateway cannot account for this request now; try again.")
	}
	name := fmt.Sprintf("%s of %s", strconv.Quote(r.Limit.Name), describe(r.Limit))
	switch {
	case r.Impossible:
		q := &ex.Reserved.Request
		return pipeline.Refuse(ai.ReasonLimitExceeded, fmt.Sprintf("The request is larger than limit %s allows at all: it may take %d input and %d output tokens.",
			name, most(q), outputOf(q, len(q.Options)-1)))
	case r.Limit.Capacity():
		return pipeline.Refuse(ai.ReasonPoolBusy, fmt.Sprintf("The backends of this model have as much to do as limit %s lets them: try again.", name))
	case r.Limit.Period != "":
		return pipeline.Refuse(ai.ReasonBudgetExceeded, fmt.Sprintf("Budget %s is used up: try again in %s.", name, inSeconds(r.RetryAfter)))
	}
	return pipeline.Refuse(ai.ReasonLimitExceeded, fmt.Sprintf("Limit %s is used up: try again in %s.", name, inSeconds(r.RetryAfter)))
}

// describe is a limit in words, as "1000 tokens in 1m0s" or "$25.00 a month".
func describe(l *plan.Limit) string {
	amount := fmt.Sprintf("%d %s", l.Amount, l.Unit)
	switch l.Unit {
	case plan.UnitUSD:
		amount = "$" + ai.NanoUSD(l.Amount).Decimal()
	case plan.UnitConcurrency:
		return fmt.Sprintf("%d requests at a time", l.Amount)
	}
	if l.Period != "" {
		return amount + " a " + string(l.Period)
	}
	return amount + " in " + l.Window.String()
}

// inSeconds rounds up to a whole second.
func inSeconds(d time.Duration) time.Duration {
	return max(1, (d+time.Second-1)/time.Second) * time.Second
}
