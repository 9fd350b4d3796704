// Package quota is the stage that reserves what a request may use from every
// limit that applies to it, before it leaves, and gives the backend no higher an
// output ceiling than what was reserved.
package quota

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// Ledger holds reservations. limit.Ledger is one.
type Ledger interface {
	Reserve(limits []*plan.Limit, r limit.Request) limit.Result
	Release(id string)
}

// Stage reserves.
type Stage struct{ ledger Ledger }

// New makes the stage.
func New(l Ledger) *Stage { return &Stage{l} }

// Name of the stage.
func (*Stage) Name() string { return "quota" }

// Request reserves input and allowed output. The input is the proven bound; only
// when a limit or a context window is too small for that is it counted, which
// costs time.
func (s *Stage) Request(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	limits := applying(ex)
	if len(limits) == 0 {
		return pipeline.Verdict{}, nil
	}
	ex.Reserved.Limits = limits
	byTokens := slices.ContainsFunc(limits, func(l *plan.Limit) bool { return l.Unit != plan.UnitRequests })
	input := ex.Estimate.Bound
	output := allowed(ex, limits, input)
	if byTokens && output < wanted(ex) {
		input, output = counted(ex, limits, input, output)
	}
	held := s.reserve(ex, input, output)
	if !held && countHelps(&ex.Reserved.Result) {
		if n, out := counted(ex, limits, input, output); n < input {
			output = out
			held = s.reserve(ex, n, output)
		}
	}
	if !held {
		return refusal(&ex.Reserved.Result), nil
	}
	if slices.ContainsFunc(limits, boundsOutput) && ex.In.Kind != ai.KindEmbedding {
		ex.Reserved.MaxOutput = output
		ex.Edits = ex.In.Request.MaxOutputEdits(ex.Edits, output)
	}
	return pipeline.Verdict{}, nil
}

// Undo gives the reservation back.
func (s *Stage) Undo(ex *pipeline.Exchange) {
	if ex.Reserved.Result.Held {
		s.ledger.Release(ex.In.ID)
		ex.Reserved.Result.Held = false
	}
}

func (s *Stage) reserve(ex *pipeline.Exchange, input, output int64) bool {
	res := &ex.Reserved
	res.Input, res.Output = input, times(output, answers(ex))
	res.Result = s.ledger.Reserve(res.Limits, limit.Request{
		ID: ex.In.ID, Principal: ex.Principal, Model: ex.Decision.Model.Name, Input: res.Input, Output: res.Output,
	})
	if !res.Result.OK {
		res.Input, res.Output = 0, 0
	}
	return res.Result.OK
}

// applying are the limits that count this request.
func applying(ex *pipeline.Exchange) []*plan.Limit {
	var limits []*plan.Limit
	for _, l := range ex.Plan.Limits {
		if l.Applies(&ex.Principal, ex.Decision.Model.Name) {
			limits = append(limits, l)
		}
	}
	return limits
}

func boundsOutput(l *plan.Limit) bool {
	return l.Unit == plan.UnitTokens || l.Unit == plan.UnitOutputTokens
}

// counted is input and allowed output by an exact count, or what they were when
// there is none.
func counted(ex *pipeline.Exchange, limits []*plan.Limit, input, output int64) (int64, int64) {
	n, exact := ex.Estimate.Count()
	if !exact || n >= input {
		return input, output
	}
	return n, allowed(ex, limits, n)
}

// countHelps tells whether a smaller input than the bound could be admitted.
// A request that would be refused anyway must be cheap to refuse: who is over
// a limit would otherwise make weir count for nothing.
func countHelps(r *limit.Result) bool {
	switch r.Limit.Unit {
	case plan.UnitTokens, plan.UnitInputTokens:
		return r.Tokens.Remaining > 0 && (r.Requests.Limit == 0 || r.Requests.Remaining > 0)
	}
	return false
}

// wanted is the output of one answer that the client asks for, or the model's
// default.
func wanted(ex *pipeline.Exchange) int64 {
	switch {
	case ex.In.Kind == ai.KindEmbedding:
		return 0
	case ex.In.Request.HasMaxOutput:
		return ex.In.Request.MaxOutput
	}
	return ex.Decision.Model.DefaultMaxTokens
}

// allowed is what is wanted, lowered to what the limits can hold at all beside
// the input. A default is lowered to what every target has room for too: the
// client did not ask for it, so no backend may refuse it as too long. It is at
// least 1 when anything is wanted.
func allowed(ex *pipeline.Exchange, limits []*plan.Limit, input int64) int64 {
	want, n := wanted(ex), answers(ex)
	if want <= 0 {
		return 0
	}
	out := want
	for _, l := range limits {
		switch l.Unit {
		case plan.UnitTokens:
			out = min(out, (l.Amount-input)/n)
		case plan.UnitOutputTokens:
			out = min(out, l.Amount/n)
		}
	}
	if !ex.In.Request.HasMaxOutput {
		for _, p := range ex.Decision.Targets {
			if p.ContextWindow > 0 {
				out = min(out, p.ContextWindow-input)
			}
		}
	}
	return max(out, 1)
}

func answers(ex *pipeline.Exchange) int64 { return max(1, ex.In.Request.Answers()) }

// times multiplies counts and saturates instead of overflowing.
func times(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}

// refusal tells which limit refused, and how it helps to wait.
func refusal(r *limit.Result) pipeline.Verdict {
	name, per := "", ""
	if r.Limit != nil {
		name = strconv.Quote(r.Limit.Name)
		per = fmt.Sprintf(" of %d %s in %s", r.Limit.Amount, r.Limit.Unit, r.Limit.Window)
	}
	if r.Impossible {
		return pipeline.Refuse(ai.ReasonLimitExceeded, fmt.Sprintf("The request is larger than limit %s%s allows at all.", name, per))
	}
	return pipeline.Refuse(ai.ReasonLimitExceeded, fmt.Sprintf("Limit %s%s is used up: try again in %s.", name, per, inSeconds(r.RetryAfter)))
}

// inSeconds rounds up to a whole second.
func inSeconds(d time.Duration) time.Duration {
	return max(1, (d+time.Second-1)/time.Second) * time.Second
}
