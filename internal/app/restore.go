package app

import (
	"context"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	"github.com/weirproxy/weir/limit/sqlite"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage"
	"github.com/weirproxy/weir/usage/spool"
)

// restore puts back into the ledger what it counted before the restart: what was
// kept, what the journal has behind that, and what is still held. Without it a
// restart would be a way past every limit. A limit of which nothing was kept is
// counted from the usage store.
func (k *keeper) restore(ctx context.Context, p *plan.Plan) error {
	for _, a := range k.accounts {
		if err := k.restoreOne(ctx, a, p); err != nil {
			return err
		}
	}
	for _, d := range k.usage.Pending() {
		k.hold(p.Limits, d)
	}
	k.follow(p)
	return k.save(ctx)
}

// restoreOne puts back what one account counted.
func (k *keeper) restoreOne(ctx context.Context, a account, p *plan.Plan) error {
	state, err := a.store.Load(ctx)
	if err != nil {
		return err
	}
	a.ledger.Load(state.Counts)
	var kept, fresh []*plan.Limit
	for _, l := range p.Limits {
		if contains(state.Names, l) {
			kept = append(kept, l)
		} else {
			fresh = append(fresh, l)
		}
	}
	if err := k.replay(ctx, a.count, kept, state.Place); err != nil {
		return err
	}
	if !a.whole {
		return nil
	}
	for _, l := range fresh {
		k.ledger.Fresh(l)
	}
	_, err = k.count(ctx, a.count, fresh)
	return err
}

func contains(names []sqlite.Name, l *plan.Limit) bool {
	for _, n := range names {
		if n == nameOf(l) {
			return true
		}
	}
	return false
}

// replay counts the events behind a place. When the journal does not reach back to
// it, those of the store from then on: some may count twice, and none is missed.
func (k *keeper) replay(ctx context.Context, count tally, limits []*plan.Limit, at sqlite.Place) error {
	if len(limits) == 0 {
		return nil
	}
	add := func(e *usagev1.Event) error { k.add(count, limits, e); return nil }
	whole, err := k.usage.After(spool.Position{Segment: at.Segment, Offset: at.Offset}, add)
	if whole || err != nil {
		return err
	}
	const slack = time.Minute // an event is journalled some time after its end
	k.log.Warn("the usage journal does not reach back to where the limits were kept; they are counted from the usage store", "since", at.Time)
	_, err = k.usage.Recent(ctx, time.Since(at.Time)+slack, add)
	return err
}

// count counts limits from the usage store, as far as they reach back, up to the
// place in the journal that it returns.
func (k *keeper) count(ctx context.Context, count tally, limits []*plan.Limit) (spool.Position, error) {
	reach := time.Duration(0)
	now := time.Now()
	for _, l := range limits {
		if l.Period != "" {
			start, _ := l.Period.Bounds(now.In(l.Zone))
			reach = max(reach, now.Sub(start))
		}
		reach = max(reach, l.Window)
	}
	reach += time.Minute // an event is journalled some time after its end
	began := time.Now()
	at, err := k.usage.Recent(ctx, reach, func(e *usagev1.Event) error { k.add(count, limits, e); return nil })
	if took := time.Since(began); took > time.Second {
		k.log.Info("limits were counted from the usage store", "limits", len(limits), "back to", now.Add(-reach), "took", took)
	}
	return at, err
}

// add counts what an event of an admitted request says was used.
func (k *keeper) add(count tally, limits []*plan.Limit, e *usagev1.Event) {
	d := e.GetDecision()
	if d.GetVerdict() == usage.VerdictAllowed && len(d.GetTargets()) > 0 && !usage.Withdrawn(e) {
		r := requestOf(d)
		count(limits, &r, usedOf(e), d.GetTime().AsTime(), e.GetEnd().AsTime())
	}
}

// hold reserves again what an open decision holds.
func (k *keeper) hold(limits []*plan.Limit, d *usagev1.Decision) {
	r := requestOf(d)
	k.ledger.Restore(limits, &r, d.GetTime().AsTime())
}

// requestOf is what was asked of the ledger for a decision.
func requestOf(d *usagev1.Decision) limit.Request {
	r := limit.Request{
		ID:    d.GetId(),
		Model: d.GetModel(),
		Principal: ai.Principal{
			Key: d.GetKey(), Application: d.GetApplication(), Team: d.GetTeam(), Organisation: d.GetOrganisation(), User: d.GetUser(),
		},
		Options: []limit.Option{{Output: d.GetReservedOutputTokens()}},
	}
	// Where no limit applied when it was admitted, nothing was reserved: it may use
	// what it was allowed.
	unlimited := len(d.GetLimits()) == 0
	if unlimited {
		r.Options[0].Output = d.GetAllowedOutputTokens()
	}
	for _, p := range d.GetPrices() {
		input := p.GetReservedInputTokens()
		if unlimited {
			input = d.GetInputTokens()
		}
		r.Targets = append(r.Targets, limit.Target{
			Pool: p.GetPool(), Input: input,
			Price: p.Price(), Billed: p.GetBillsAbandoned(), Tries: int64(p.GetTries()),
		})
	}
	return r
}

// usedOf is what an event says was used of each pool.
func usedOf(e *usagev1.Event) []limit.Used {
	shares := usage.UsedByPool(e)
	used := make([]limit.Used, len(shares))
	for i, s := range shares {
		used[i] = limit.Used(s)
	}
	return used
}
