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
	Check(limits []*plan.Limit, r limit.Request) limit.Result
	Reserve(limits []*plan.Limit, r limit.Request) limit.Result
	Release(id string)
}

// Stage reserves.
type Stage struct{ ledger Ledger }

// New makes the stage.
func New(l Ledger) *Stage { return &Stage{sparing{l}} }

// Name of the stage.
func (*Stage) Name() string { return "quota" }

// Request reserves input and allowed output. The input is counted for each target:
// the largest bound is what the request can use.
func (s *Stage) Request(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	limits := applying(ex, ex.Decision.Model)
	if len(limits) == 0 {
		return pipeline.Verdict{}, nil
	}
	ex.Reserved.Limits = limits
	if input, output, ok := s.reserve(ex); !ok {
		return refusal(&ex.Reserved.Result, input, output), nil
	}
	if slices.ContainsFunc(limits, boundsOutput) && ex.In.Kind != ai.KindEmbedding {
		ex.Edits = ex.In.Request.MaxOutputEdits(ex.Edits, ex.Reserved.MaxOutput)
	} else {
		ex.Reserved.MaxOutput = 0
	}
	return pipeline.Verdict{}, nil
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
	limits := applying(ex, m)
	if len(limits) == 0 {
		return pipeline.Verdict{}, nil
	}
	r := request(ex, m)
	r.Input = 1
	if wanted(ex, m) > 0 {
		r.Output = answers(ex)
	}
	res := g.ledger.Check(limits, r)
	if res.OK {
		return pipeline.Verdict{}, nil
	}
	ex.Reserved.Limits, ex.Reserved.Result = limits, res
	return refusal(&res, r.Input, r.Output), nil
}

// Undo gives the reservation back.
func (s *Stage) Undo(ex *pipeline.Exchange) {
	if ex.Reserved.Result.Held {
		s.ledger.Release(ex.In.ID)
		ex.Reserved.Result.Held = false
	}
}

func (s *Stage) reserve(ex *pipeline.Exchange) (input, output int64, ok bool) {
	res := &ex.Reserved
	input = most(ex)
	res.MaxOutput = allowed(ex, res.Limits, input)
	output = times(res.MaxOutput, answers(ex))
	r := request(ex, ex.Decision.Model)
	r.Input, r.Output = input, output
	if res.Result = s.ledger.Reserve(res.Limits, r); res.Result.OK {
		res.Input, res.Output = input, output
	}
	return input, output, res.Result.OK
}

func request(ex *pipeline.Exchange, m *plan.Model) limit.Request {
	return limit.Request{ID: ex.In.ID, Principal: ex.Principal, Model: m.Name}
}

// most is the most input tokens that a target can count.
func most(ex *pipeline.Exchange) (n int64) {
	for _, p := range ex.Decision.Targets {
		n = max(n, ex.Estimate.Count(p).Bound)
	}
	return n
}

// applying are the limits that count this request.
func applying(ex *pipeline.Exchange, m *plan.Model) []*plan.Limit {
	var limits []*plan.Limit
	for _, l := range ex.Plan.Limits {
		if l.Applies(&ex.Principal, m.Name) {
			limits = append(limits, l)
		}
	}
	return limits
}

func boundsOutput(l *plan.Limit) bool {
	return l.Unit == plan.UnitTokens || l.Unit == plan.UnitOutputTokens
}

// wanted is the output of one answer that the client asks for, or the model's
// default.
func wanted(ex *pipeline.Exchange, m *plan.Model) int64 {
	switch {
	case ex.In.Kind == ai.KindEmbedding:
		return 0
	case ex.In.Request.HasMaxOutput:
		return ex.In.Request.MaxOutput
	}
	return m.DefaultMaxTokens
}

// margin: of an estimate an eighth is kept free beside it.
const margin = 8

// allowed is what is wanted, lowered to what the limits can hold at all beside
// the input. A default is lowered to what every target has room for too: the
// client did not ask for it, so no backend may refuse it as too long. It is at
// least 1 when anything is wanted.
func allowed(ex *pipeline.Exchange, limits []*plan.Limit, input int64) int64 {
	want, n := wanted(ex, ex.Decision.Model), answers(ex)
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
				in := ex.Estimate.Count(p)
				out = min(out, p.ContextWindow-min(in.Bound, in.Tokens+in.Tokens/margin))
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
func refusal(r *limit.Result, input, output int64) pipeline.Verdict {
	name, per := "", ""
	if r.Limit != nil {
		name = strconv.Quote(r.Limit.Name)
		per = fmt.Sprintf(" of %d %s in %s", r.Limit.Amount, r.Limit.Unit, r.Limit.Window)
	}
	if r.Impossible {
		return pipeline.Refuse(ai.ReasonLimitExceeded, fmt.Sprintf("The request is larger than limit %s%s allows at all: it may take %d input and %d output tokens.", name, per, input, output))
	}
	return pipeline.Refuse(ai.ReasonLimitExceeded, fmt.Sprintf("Limit %s%s is used up: try again in %s.", name, per, inSeconds(r.RetryAfter)))
}

// inSeconds rounds up to a whole second.
func inSeconds(d time.Duration) time.Duration {
	return max(1, (d+time.Second-1)/time.Second) * time.Second
}
