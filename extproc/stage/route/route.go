// Package route is the stage that decides where a request may go: from the
// model's virtual name to the ordered pools that are tried, as rules, grants and
// context windows allow.
package route

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// Stage routes.
type Stage struct {
	// Draw returns a number in [0, n), evenly; n is at least 1.
	Draw func(n uint64) uint64
	// Live is what is known of the pools; nil: nothing is.
	Live plan.Live
	// Left is which part of a limit, 0 to 1, is left for who calls; ok is false when that
	// is not known. It must not wait. nil: it is not known.
	Left func(*plan.Limit, *pipeline.Exchange) (part float64, ok bool)
	// Effort reads how much the client wants the model to think.
	Effort func(*openai.Request) string
	// Share is which part of a model's requests its rollout moves now, 0 to 1. It must not
	// wait. nil: none.
	Share  func(*plan.Model) float64
	rests  *Rests
	barred func(*pipeline.Exchange, *plan.Pool) ai.Reason
}

// New makes the stage, with Go's random source; rests knows which pools are to be
// left alone.
func New(rests *Rests) *Stage {
	s := &Stage{Draw: rand.Uint64N, Effort: effort, rests: rests}
	s.barred = s.bar // once, and not for each request
	return s
}

// Name of the stage.
func (*Stage) Name() string { return "route" }

// Request sets the decision.
func (s *Stage) Request(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	m, ok := ex.Plan.Models[ex.In.Request.Model]
	if !ok {
		return noModel(ai.ReasonUnknownModel), nil
	}
	ex.Decision.Model, ex.Decision.Bar, ex.Decision.Effort = m, s.barred, s.Effort(&ex.In.Request)
	if v := permit(ex, m); v.Stops() {
		return v, nil
	}
	steps, err := s.choose(ex, m)
	if err != nil {
		return pipeline.Verdict{}, err
	}
	d := &ex.Decision
	for i := range steps {
		dropped := len(d.Dropped)
		s.add(ex, &steps[i])
		if d.RefuseEgress && len(d.Targets) == 0 && slices.ContainsFunc(d.Dropped[dropped:], isEgress) {
			ex.Grants.Settle()
			return noEgress(), nil
		}
	}
	s.shift(ex, steps)
	ex.Grants.Settle()
	if len(d.Targets) == 0 {
		return nowhere(ex), nil
	}
	s.demote(ex)
	s.bound(ex)
	return pipeline.Verdict{}, nil
}

// choose finds the first rule whose condition holds, or the model's own targets.
func (s *Stage) choose(ex *pipeline.Exchange, m *plan.Model) ([]plan.Step, error) {
	if len(m.Rules) > 0 {
		facts := s.facts(ex, m)
		for _, r := range m.Rules {
			holds, err := r.When.Holds(&facts)
			if err != nil {
				return nil, fmt.Errorf("model %q: rule %q: %w", m.Name, r.Name, err)
			}
			if holds {
				ex.Decision.Rule, ex.Decision.RefuseEgress = r.Name, r.RefuseEgress
				return r.Targets, nil
			}
		}
	}
	if len(m.Targets) > 0 {
		ex.Decision.Rule, ex.Decision.RefuseEgress = pipeline.DefaultRule, m.RefuseEgress
	}
	return m.Targets, nil
}

func (s *Stage) facts(ex *pipeline.Exchange, m *plan.Model) plan.Facts {
	r := &ex.In.Request
	f := plan.Facts{
		Principal:      ex.Principal,
		Model:          m.Name,
		Kind:           ex.In.Kind,
		Stream:         r.Stream,
		Tools:          r.Tools,
		Vision:         r.Vision,
		Audio:          r.Audio,
		Batch:          m.Batch || r.Flex,
		MaxOutput:      r.MaxOutput,
		Effort:         ex.Decision.Effort,
		ThinkingBudget: r.ThinkingBudget,
		InputTokens:    func() int64 { return most(ex, m) },
		Live:           s.Live,
		Left:           s.left(ex),
		Seen:           &ex.Decision.Seen,
		Now:            ex.In.Time.UTC().Truncate(time.Microsecond),
	}
	if names := ex.Plan.Bounds.HeaderFacts; len(names) > 0 {
		f.Headers = make(map[string]string, len(names))
		for _, name := range names {
			if value, ok := ex.In.HeaderList(name); ok {
				f.Headers[name] = value
			}
		}
	}
	return f
}

// left tells what is left of a limit for who calls; nil when that is not known.
func (s *Stage) left(ex *pipeline.Exchange) func(*plan.Limit) (float64, bool) {
	if s.Left == nil {
		return nil
	}
	return func(l *plan.Limit) (float64, bool) { return s.Left(l, ex) }
}

// most is the largest count of input tokens among the pools that the model could go
// to: a rule on the length of the input holds whichever is chosen.
func most(ex *pipeline.Exchange, m *plan.Model) (n int64) {
	for _, p := range m.Pools {
		n = max(n, ex.Estimate.Count(p).Tokens)
	}
	return n
}

// add appends the pools of a step that the request may use: the one that is
// drawn first, the others behind it, heaviest first. The draw is among those
// that may be used, so that their shares keep their proportions.
func (s *Stage) add(ex *pipeline.Exchange, step *plan.Step) {
	if step.By != plan.ByWeight {
		s.rank(ex, step)
		return
	}
	d := &ex.Decision
	start := len(d.Targets)
	var weights [8]uint32 // of Targets[start:]; longer splits spill to the heap
	w := weights[:0]
	var total uint64
	for _, c := range step.Choices {
		if known(d, c.Pool) {
			continue
		}
		if reason := s.bar(ex, c.Pool); reason != ai.ReasonNone {
			d.Dropped = append(d.Dropped, pipeline.Drop{Pool: c.Pool, Reason: reason})
			continue
		}
		// Insertion keeps the heaviest first and equals in their order.
		at := len(w)
		for at > 0 && w[at-1] < c.Weight {
			at--
		}
		w = append(w, 0)
		d.Targets = append(d.Targets, nil)
		copy(w[at+1:], w[at:])
		copy(d.Targets[start+at+1:], d.Targets[start+at:])
		w[at], d.Targets[start+at] = c.Weight, c.Pool
		total += uint64(c.Weight)
	}
	if len(w) < 2 || total == 0 {
		return
	}
	drawn := 0
	if step.Sticky != "" {
		drawn = kept(stickyKey(ex, step.Sticky), d.Targets[start:], w)
	} else {
		for r := s.Draw(total); r >= uint64(w[drawn]); drawn++ {
			r -= uint64(w[drawn])
		}
	}
	first := d.Targets[start+drawn]
	copy(d.Targets[start+1:start+drawn+1], d.Targets[start:start+drawn])
	d.Targets[start] = first
}

// resting tells whether a pool asked to be left alone, and notes when the first
// such pool may be called again.
func (s *Stage) resting(ex *pipeline.Exchange, p *plan.Pool) bool {
	until := s.rests.Until(p.Name, ex.In.Time)
	if until.IsZero() {
		return false
	}
	if wait := until.Sub(ex.In.Time); ex.Decision.RestsFor == 0 || wait < ex.Decision.RestsFor {
		ex.Decision.RestsFor = wait
	}
	return true
}

// known tells whether the pool was kept or dropped already.
func known(d *pipeline.Decision, p *plan.Pool) bool {
	for _, t := range d.Targets {
		if t == p {
			return true
		}
	}
	for i := range d.Dropped {
		if d.Dropped[i].Pool == p {
			return true
		}
	}
	return false
}

// fits tells whether input and output fit into a pool's context window. Only an
// exact count proves that they do not; without one the backend is asked.
func fits(ex *pipeline.Exchange, p *plan.Pool) bool {
	if p.ContextWindow <= 0 || !ex.Estimate.Counts() {
		return true
	}
	room := p.ContextWindow
	if ex.In.Kind != ai.KindEmbedding {
		room -= max(1, ex.In.Request.MaxOutput)
	}
	if ex.Estimate.Bound() <= room {
		return true
	}
	n := ex.Estimate.Count(p)
	return !n.Exact || n.Tokens <= room
}
