package route

import (
	"math"
	"time"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

const (
	// explore: of so many requests, one goes first to a pool whose first-token time is
	// not known.
	explore = 16
	// trial: of so many requests, one goes to a failing pool as if it were not, so that
	// it is seen when it is well again.
	trial = 20
	// slow is the key of what is not known, behind all that is; broken of what fails.
	slow   = 1e12
	broken = 1e15
)

// rank appends the pools of a step that the request may use, by the step's order. Those
// that are equal are in a random order: else all replicas would send all to the first.
func (s *Stage) rank(ex *pipeline.Exchange, step *plan.Step) {
	d := &ex.Decision
	start := len(d.Targets)
	var keys [8]float64 // of Targets[start:]; longer steps spill to the heap
	w := keys[:0]
	for i := range step.Choices {
		p := step.Choices[i].Pool
		if known(d, p) {
			continue
		}
		if reason := s.bar(ex, p); reason != ai.ReasonNone {
			d.Dropped = append(d.Dropped, pipeline.Drop{Pool: p, Reason: reason})
			continue
		}
		key := s.key(ex, step.By, p)
		at := len(w)
		for at > 0 && w[at-1] > key {
			at--
		}
		at -= s.among(w[:at], key)
		w = append(w, 0)
		d.Targets = append(d.Targets, nil)
		copy(w[at+1:], w[at:])
		copy(d.Targets[start+at+1:], d.Targets[start+at:])
		w[at], d.Targets[start+at] = key, p
	}
}

// among draws how many of those before a pool that are equal to it go behind it. Each
// order of the equal ones is then as likely as any other.
func (s *Stage) among(before []float64, key float64) int {
	equal := 0
	for equal < len(before) && before[len(before)-1-equal] == key {
		equal++
	}
	if equal == 0 {
		return 0
	}
	return int(s.Draw(uint64(equal) + 1))
}

// key is what a pool is put in order by: the least is first.
func (s *Stage) key(ex *pipeline.Exchange, by plan.Order, p *plan.Pool) float64 {
	switch by {
	case plan.ByPrice:
		return cost(ex, p)
	case plan.ByFirstToken:
		return s.firstToken(p)
	}
	return s.load(p)
}

// cost is what the request would cost at a pool, in nano-dollars: its input, and all the
// output that it asks for, or else the model's default.
func cost(ex *pipeline.Exchange, p *plan.Pool) float64 {
	var input int64
	if ex.Estimate.Counts() {
		input = ex.Estimate.Count(p).Tokens
	}
	r := &ex.In.Request
	output := r.MaxOutput
	switch {
	case ex.In.Kind == ai.KindEmbedding:
		output = 0
	case !r.HasMaxOutput:
		output = ex.Decision.Model.DefaultMaxTokens
	}
	price := p.PriceAt(ex.In.Time)
	return float64(price.Input)*float64(input) + float64(price.Output)*float64(output)*float64(r.Answers()) + float64(price.Request)*1e6
}

// firstToken is the median of the last minute, in milliseconds. A pool of which it is
// not known is tried now and then.
func (s *Stage) firstToken(p *plan.Pool) float64 {
	now, ok := s.state(p)
	switch {
	case ok && now.Failing:
		return broken
	case ok && now.FirstToken > 0:
		return float64(now.FirstToken) / float64(time.Millisecond)
	case s.Draw(explore) == 0:
		return -1
	}
	return slow
}

// load is what a pool has to do for each healthy endpoint: as the backends say, and at
// least what weir itself has sent there.
func (s *Stage) load(p *plan.Pool) float64 {
	now, ok := s.state(p)
	if !ok {
		return 0
	}
	n := float64(now.Open)
	if !now.Heard.IsZero() && !now.Stale {
		n = math.Max(n, now.Running+now.Waiting)
	}
	if now.Healthy == 0 {
		return broken
	}
	return n / float64(now.Healthy)
}

func (s *Stage) state(p *plan.Pool) (plan.PoolState, bool) {
	if s.Live == nil {
		return plan.PoolState{}, false
	}
	return s.Live.Pool(p.Name)
}

// demote puts targets behind the others that are failing or have too much to do. They
// stay targets: what is the only way is tried, whatever is known of it.
func (s *Stage) demote(ex *pipeline.Exchange) {
	d := &ex.Decision
	if s.Live == nil || len(d.Targets) < 2 {
		return
	}
	for _, p := range d.Targets {
		if why := s.demotion(p); why != "" {
			d.Demoted = append(d.Demoted, pipeline.Demotion{Pool: p, Why: why})
		}
	}
	if n := len(d.Demoted); n == 0 || n == len(d.Targets) {
		d.Demoted = d.Demoted[:0]
		return
	}
	kept := d.Targets[:0]
	for _, p := range d.Targets {
		if !d.DemotedFor(p, "") {
			kept = append(kept, p)
		}
	}
	// What has too much to do is better than what fails.
	for _, why := range [...]string{pipeline.Saturated, pipeline.Failing} {
		for i := range d.Demoted {
			if d.Demoted[i].Why == why {
				kept = append(kept, d.Demoted[i].Pool)
			}
		}
	}
	d.Targets = kept
}

// bound keeps the request within its attempts. A second try at a target is left out where
// it would likely fail too: it would double what a pool gets that fails. The only target
// gets it while any of its endpoints answers.
func (s *Stage) bound(ex *pipeline.Exchange) {
	d := &ex.Decision
	most := d.Model.MaxAttempts
	if most > 0 && len(d.Targets) > most {
		for _, p := range d.Targets[most:] {
			d.Dropped = append(d.Dropped, pipeline.Drop{Pool: p, Reason: ai.ReasonAttemptsUsed})
		}
		d.Targets = d.Targets[:most]
	}
	for _, p := range d.Targets {
		if len(p.Endpoints) < 2 {
			continue
		}
		if now, ok := s.state(p); ok && (now.Dead || now.Failing && len(d.Targets) > 1) {
			d.Once = append(d.Once, p)
		}
	}
}

// demotion is why a pool goes behind the others; "" for not.
func (s *Stage) demotion(p *plan.Pool) string {
	now, ok := s.Live.Pool(p.Name)
	switch {
	case !ok:
	case now.Failing && s.Draw(trial) != 0, now.Endpoints > 0 && now.Healthy == 0:
		return pipeline.Failing
	case p.Saturation != nil && p.Saturation.Reached(&now):
		return pipeline.Saturated
	}
	return ""
}
