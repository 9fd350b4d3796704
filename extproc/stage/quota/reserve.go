package quota

import (
	"math"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// applying appends the limits that count this request.
func applying(limits []*plan.Limit, ex *pipeline.Exchange, m *plan.Model) []*plan.Limit {
	for _, l := range ex.Plan.Limits {
		if l.Applies(&ex.Principal, m.Name) {
			limits = append(limits, l)
		}
	}
	return limits
}

// begin makes the exchange's request to the ledger, without targets and options.
func begin(ex *pipeline.Exchange, m *plan.Model) *limit.Request {
	r := &ex.Reserved.Request
	*r = limit.Request{ID: ex.In.ID, Principal: ex.Principal, Model: m.Name, Targets: r.Targets[:0], Options: r.Options[:0]}
	return r
}

// build says what the request may use at its targets as they are now.
func (s *Stage) build(ex *pipeline.Exchange) *limit.Request {
	r := begin(ex, ex.Decision.Model)
	for _, p := range ex.Decision.Targets {
		r.Targets = append(r.Targets, limit.Target{
			Pool: p.Name, Input: ex.Estimate.Count(p).Bound, Price: p.PriceAt(ex.In.Time), Billed: p.BillsAbandoned,
			Overrun: s.outputs.Overrun(p.Name), Tries: int64(ex.Decision.Tries(p)),
		})
	}
	want := ceiling(ex)
	if want <= 0 {
		return r
	}
	n := answers(ex)
	least := min(want, floor(ex))
	top := holds(ex.Reserved.Limits, r, want, least, n)
	likely := s.outputs.Most(ex.Decision.Model.Name)
	r.Options = append(r.Options, limit.Option{Output: times(top, n), Generous: top/generous > max(likely, least)})
	if likely > least && likely < top {
		r.Options = append(r.Options, limit.Option{Output: times(likely, n)})
	}
	if top > least {
		r.Options = append(r.Options, limit.Option{Output: times(least, n)})
	}
	return r
}

// generous: a ceiling of more than so many times what is likely is more than
// will be used.
const generous = 4

// wanted is the output of one answer that the client asks for, or the model's
// default.
func wanted(ex *pipeline.Exchange, m *plan.Model) int64 {
	switch {
	case ex.In.Kind == ai.KindEmbedding:
		return 0
	case ex.In.Request.HasMaxOutput:
		return ex.In.Request.MaxOutput
	case ex.Grants.MaxOutput > 0 && (len(ex.Reserved.Limits) == 0 || ex.Grants.MaxOutput < m.DefaultMaxTokens):
		return ex.Grants.MaxOutput // the roles', which the model's default does not raise
	}
	return m.DefaultMaxTokens
}

// margin: of an estimate an eighth is kept free beside it.
const margin = 8

// ceiling is what is wanted. A default is lowered to what every target has room
// for and gives: the client did not ask for it, so no backend may refuse it.
func ceiling(ex *pipeline.Exchange) int64 {
	want := wanted(ex, ex.Decision.Model)
	if want <= 0 || ex.In.Request.HasMaxOutput {
		return want
	}
	for _, p := range ex.Decision.Targets {
		if p.ContextWindow > 0 {
			in := ex.Estimate.Count(p)
			want = min(want, p.ContextWindow-min(in.Bound, in.Tokens+in.Tokens/margin))
		}
		if p.MaxOutput > 0 {
			want = min(want, p.MaxOutput)
		}
	}
	return max(want, 1)
}

// ceilings tells whether the roles or a target bound what an answer may have,
// beside the limits.
func ceilings(ex *pipeline.Exchange) bool {
	if ex.In.Kind == ai.KindEmbedding {
		return false
	}
	for _, p := range ex.Decision.Targets {
		if p.MaxOutput > 0 && !ex.In.Request.HasMaxOutput {
			return true
		}
	}
	return ex.Grants.MaxOutput > 0
}

// floor is what no limit lowers an answer's ceiling under: beside a thinking budget
// there is room for an answer.
func floor(ex *pipeline.Exchange) int64 {
	least := max(ex.Decision.Model.MinOutputTokens, 1)
	if budget := ex.In.Request.ThinkingBudget; budget > 0 {
		least = max(least, budget+1)
	}
	return least
}

// holds is the largest output of one answer, from least to want, that the limits
// can hold at all beside the input, were they empty; least when not even that.
func holds(limits []*plan.Limit, r *limit.Request, want, least, answers int64) int64 {
	top := want
	for _, l := range limits {
		if l.OnBreach == plan.BreachReport || !boundsOutput(l) || r.Most(l, times(top, answers)) <= l.Amount {
			continue
		}
		low, high := least, top // low may not fit, high does not
		for low+1 < high {
			if mid := low + (high-low)/2; r.Most(l, times(mid, answers)) <= l.Amount {
				low = mid
			} else {
				high = mid
			}
		}
		top = low
	}
	return top
}

func boundsOutput(l *plan.Limit) bool {
	return l.Unit == plan.UnitTokens || l.Unit == plan.UnitOutputTokens || l.Unit == plan.UnitUSD
}

// most is the most input tokens that a target can count.
func most(r *limit.Request) (n int64) {
	for i := range r.Targets {
		n = max(n, r.Targets[i].Input)
	}
	return n
}

func outputOf(r *limit.Request, option int) int64 {
	if option < len(r.Options) {
		return r.Options[option].Output
	}
	return 0
}

func answers(ex *pipeline.Exchange) int64 { return max(1, ex.In.Request.Answers()) }

// times multiplies counts and saturates instead of overflowing.
func times(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}
