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
func (s *Stage) shift(ex *pipeline.Exchange) {
	d := &ex.Decision
	r := d.Model.Rollout
	if r == nil || s.Share == nil {
		return
	}
	at := slices.Index(d.Targets, r.From)
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

// place is where a request stands, from 0 to under 1: it moves when the share is beyond
// that. As shares only grow from step to step, whoever has moved stays.
func (s *Stage) place(ex *pipeline.Exchange, r *plan.Rollout) float64 {
	if r.Sticky == "" {
		return float64(s.Draw(1<<53)) / (1 << 53)
	}
	return float64(mix(stickyKey(ex, r.Sticky)^xxhash.Sum64String(r.To.Name))>>11) / (1 << 53)
}
