// Package quota is the stage that reserves what a request may use from every
// limit that applies to it, before it leaves, and gives the backend no higher an
// output ceiling than what was reserved.
package quota

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// Ledger holds reservations. limit.Ledger is one.
type Ledger interface {
	Check(limits []*plan.Limit, r *limit.Request) limit.Result
	Reserve(limits []*plan.Limit, r *limit.Request) limit.Result
	Release(id string)
}

// Stage reserves.
type Stage struct {
	ledger  Ledger
	outputs *limit.Outputs
	waiting atomic.Int64 // requests in the queue
	line    line         // of these, the interactive ones that wait for pools

	// Sleep waits, and is false when the request is not wanted any more first.
	Sleep func(context.Context, time.Duration) bool
}

// New makes the stage; outputs are what is known of the length of answers.
func New(l Ledger, outputs *limit.Outputs) *Stage {
	return &Stage{ledger: sparing{l}, outputs: outputs, Sleep: sleep}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Name of the stage.
func (*Stage) Name() string { return "quota" }

// Request reserves input and allowed output at every target that the request may
// reach, and lowers the output ceiling to what was reserved, or to what the
// roles and the targets allow where no limit bounds it.
func (s *Stage) Request(ctx context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	res := &ex.Reserved
	if res.Limits = applying(res.Limits[:0], ex, ex.Decision.Model); len(res.Limits) == 0 {
		if ceilings(ex) {
			s.ceiling(ex, ceiling(ex))
		}
		return pipeline.Verdict{}, nil
	}
	if !s.reserve(ctx, ex) {
		return refusal(ex), nil
	}
	res.Input, res.Output = most(&res.Request), outputOf(&res.Request, res.Result.Option)
	if slices.ContainsFunc(res.Limits, boundsOutput) && ex.In.Kind != ai.KindEmbedding || ceilings(ex) {
		s.ceiling(ex, res.Output/answers(ex))
	}
	return pipeline.Verdict{}, nil
}

// ceiling gives the backend a ceiling of output tokens.
func (*Stage) ceiling(ex *pipeline.Exchange, n int64) {
	ex.Reserved.MaxOutput = n
	ex.Edits = ex.In.Request.MaxOutputEdits(ex.Edits, n)
}

// Undo gives the reservation back.
func (s *Stage) Undo(ex *pipeline.Exchange) {
	if ex.Reserved.Result.Held {
		s.ledger.Release(ex.In.ID)
		ex.Reserved.Result.Held = false
	}
}

// Gate is the part of the stage that comes before tokens are counted: it refuses who
// could not be admitted with the smallest request. A request that is refused anyway
// must be cheap to refuse: who is over a limit would otherwise make weir count for
// nothing.
type Gate struct{ ledger Ledger }

// NewGate makes the gate.
func NewGate(l Ledger) *Gate { return &Gate{l} }

// Name of the stage that the gate is a part of.
func (*Gate) Name() string { return "quota" }

// Request looks whether anything is left of the limits. Models that do not exist or
// may not be called are refused later.
func (g *Gate) Request(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	m, ok := ex.Plan.Models[ex.In.Request.Model]
	if !ok || !ex.Grants.MayCall(m) {
		return pipeline.Verdict{}, nil
	}
	res := &ex.Reserved
	res.Limits = slices.DeleteFunc(applying(res.Limits[:0], ex, m), func(l *plan.Limit) bool {
		return l.OnBreach != plan.BreachRefuse // something else may yet be done
	})
	if len(res.Limits) == 0 {
		return pipeline.Verdict{}, nil
	}
	r := begin(ex, m)
	r.Targets = append(r.Targets, limit.Target{Input: 1, Price: least(ex, m)})
	if wanted(ex, m) > 0 {
		r.Options = append(r.Options, limit.Option{Output: answers(ex)})
	}
	if res.Result = g.ledger.Check(res.Limits, r); res.Result.OK {
		res.Result = limit.Result{}
		return pipeline.Verdict{}, nil
	}
	return refusal(ex), nil
}

// least is a price below that of any pool that the request may go to, by its model's
// routes or by a downgrade: nothing where one of them is free.
func least(ex *pipeline.Exchange, m *plan.Model) ai.Price {
	const nanoUSD = 1_000_000 // a million tokens at a billionth of a dollar each
	free := func(p *plan.Pool) bool { return p.PriceAt(ex.In.Time).Bound(1, 1) == 0 }
	if slices.ContainsFunc(m.Pools, free) {
		return ai.Price{}
	}
	for _, l := range ex.Plan.Limits {
		if len(l.DowngradeTo) > 0 && l.Applies(&ex.Principal, m.Name) && slices.ContainsFunc(l.DowngradeTo, free) {
			return ai.Price{}
		}
	}
	return ai.Price{Input: nanoUSD, CachedInput: nanoUSD, Output: nanoUSD}
}
