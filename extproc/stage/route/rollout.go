package route

import (
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// shift sends the share of a rollout to its canary first. The pool that the requests
// move from stays behind it, as the way back.
func (s *Stage) shift(ex *pipeline.Exchange, steps []plan.Step) {
	d := &ex.Decision
	r := d.Model.Rollout
	if r == nil || s.Share == nil {
		return
	}
	at := stands(d, steps, r.From)
	if at < 0 {
		return
	}
	if d.Share = s.Share(d.Model); d.Share <= 0 || s.place(ex, r) >= d.Share {
		return
	}
	if reason := s.bar(ex, r.To); reason != ai.ReasonNone {
		d.Dropped = append(d.Dropped, pipeline.Drop{Pool: r.To, Reason: reason})
		return
	}
	d.Moved = true
	d.Targets = slices.Insert(d.Targets, at, r.To)
}

// stands is where a pool is among the targets, or where it would be if it did not rest
// and had a longer context: that says nothing of the canary. It is negative where the
// route does not name the pool, or the caller may not use it.
func stands(d *pipeline.Decision, steps []plan.Step, p *plan.Pool) int {
	if at := slices.Index(d.Targets, p); at >= 0 {
		return at
	}
	if !slices.ContainsFunc(d.Dropped, func(x pipeline.Drop) bool {
		return x.Pool == p && (x.Reason == ai.ReasonPoolResting || x.Reason == ai.ReasonContextTooLong)
	}) {
		return -1
	}
	at := 0 // behind those of its step and of the steps before
	for i := range steps {
		here := false
		for _, c := range steps[i].Choices {
			here = here || c.Pool == p
			at = max(at, slices.Index(d.Targets, c.Pool)+1)
		}
		if here {
			break
		}
	}
	return at
}

// place is where a request stands, from 0 to under 1: it moves when the share is beyond
// that. As shares only grow from step to step, whoever has moved stays.
func (s *Stage) place(ex *pipeline.Exchange, r *plan.Rollout) float64 {
	if r.Sticky == "" {
		return float64(s.Draw(1<<53)) / (1 << 53)
	}
	return float64(mix(stickyKey(ex, r.Sticky)^xxhash.Sum64String(r.To.Name))>>11) / (1 << 53)
}
