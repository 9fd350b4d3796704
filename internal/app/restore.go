package app

import (
	"context"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage"
)

// restore puts back into the ledger what it counted before the restart: what
// was used within the longest window, and what is still held. Without it a
// restart would be a way past every limit.
func restore(ledger *limit.Ledger, rec *usage.Recorder, p *plan.Plan) error {
	var longest time.Duration
	for _, l := range p.Limits {
		longest = max(longest, l.Window)
	}
	if longest == 0 {
		return nil
	}
	for _, d := range rec.Pending() {
		restoreOne(ledger, p, d, nil, d.GetTime().AsTime())
	}
	return rec.Recent(context.Background(), longest, func(e *usagev1.Event) error {
		if d := e.GetDecision(); d.GetVerdict() == usage.VerdictAllowed {
			used := usage.Used(e)
			restoreOne(ledger, p, d, &used, e.GetEnd().AsTime())
		}
		return nil
	})
}

func restoreOne(ledger *limit.Ledger, p *plan.Plan, d *usagev1.Decision, used *ai.Usage, at time.Time) {
	principal := ai.Principal{Key: d.GetKey(), Application: d.GetApplication(), Team: d.GetTeam()}
	var applies []*plan.Limit
	for _, l := range p.Limits {
		if l.Applies(&principal, d.GetModel()) {
			applies = append(applies, l)
		}
	}
	if len(applies) == 0 {
		return
	}
	ledger.Restore(applies, limit.Request{
		ID: d.GetId(), Principal: principal, Model: d.GetModel(),
		Input: d.GetReservedInputTokens(), Output: d.GetReservedOutputTokens(),
	}, used, at)
}
