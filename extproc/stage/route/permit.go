package route

import (
	"math"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// permit takes out the roles that bar what the body asks for.
func permit(ex *pipeline.Exchange, m *plan.Model) pipeline.Verdict {
	g := &ex.Grants
	if reason := g.Model(m); reason != ai.ReasonNone {
		return noModel(reason)
	}
	if reason, feature := g.Features(features(ex)); reason != ai.ReasonNone {
		return noFeature(reason, feature)
	}
	if reason := g.Output(output(ex)); reason != ai.ReasonNone {
		return pipeline.Verdict{Reason: reason, Param: "max_tokens",
			Message: "The request asks for more output tokens, in all answers together, than you may use in one request."}
	}
	return pipeline.Verdict{}
}

func features(ex *pipeline.Exchange) (used plan.Features) {
	r := &ex.In.Request
	if r.Tools {
		used |= plan.Tools
	}
	if r.Vision {
		used |= plan.Vision
	}
	if r.Stream {
		used |= plan.Streaming
	}
	return used
}

// output is the least that the request asks for: its ceiling for every answer, or
// a token for each when it names none and will be given one.
func output(ex *pipeline.Exchange) int64 {
	r := &ex.In.Request
	switch {
	case ex.In.Kind == ai.KindEmbedding:
		return 0
	case !r.HasMaxOutput:
		return r.Answers()
	case r.MaxOutput > math.MaxInt64/r.Answers():
		return math.MaxInt64
	}
	return r.MaxOutput * r.Answers()
}

// bar tells why the request may not use the pool. One that it may use is noted as a
// target.
func (s *Stage) bar(ex *pipeline.Exchange, p *plan.Pool) ai.Reason {
	g := &ex.Grants
	roles, reason := g.Reach(p)
	if reason != ai.ReasonNone {
		return reason
	}
	// Counting costs time, and most inputs are below the bound without it.
	if most, ok := g.ContextBound(roles); ok && (!ex.Estimate.Counts() || ex.Estimate.Bound() > most) {
		if roles, reason = g.Within(roles, counted(ex, p)); reason != ai.ReasonNone {
			return reason
		}
	}
	if !fits(ex, p) {
		return ai.ReasonContextTooLong
	}
	if s.resting(ex, p) {
		return ai.ReasonPoolResting
	}
	if ex.In.Request.HasMaxOutput || ex.In.Kind == ai.KindEmbedding {
		g.TakeGiven(roles)
	} else {
		g.Take(roles, ex.In.Request.Answers())
	}
	return ai.ReasonNone
}

// counted is the input as the pool's backend counts it; where nothing is counted,
// no bound is known to be kept.
func counted(ex *pipeline.Exchange, p *plan.Pool) int64 {
	if !ex.Estimate.Counts() {
		return math.MaxInt64
	}
	return ex.Estimate.Count(p).Tokens
}

// noModel is the same for a model that does not exist and for one that no role
// permits: nobody learns the names of models by trying.
func noModel(reason ai.Reason) pipeline.Verdict {
	return pipeline.Verdict{Reason: reason, Param: "model", Message: "The model does not exist, or you may not call it."}
}

func noFeature(reason ai.Reason, f plan.Features) pipeline.Verdict {
	switch f {
	case plan.Tools:
		return pipeline.Verdict{Reason: reason, Param: "tools", Message: "You may not use tools with this model."}
	case plan.Vision:
		return pipeline.Verdict{Reason: reason, Param: "messages", Message: "You may not send images or videos to this model."}
	}
	return pipeline.Verdict{Reason: reason, Param: "stream", Message: "You may not ask for a stream of this model."}
}

func noEgress() pipeline.Verdict {
	return pipeline.Verdict{Reason: ai.ReasonEgressNotAllowed, Param: "model",
		Message: "This request would leave for a public provider, which this key may not use."}
}

// inputField is where a request has its input.
var inputField = map[ai.Kind]string{ai.KindChat: "messages", ai.KindCompletion: "prompt", ai.KindEmbedding: "input"}

func isEgress(d pipeline.Drop) bool { return d.Reason == ai.ReasonEgressNotAllowed }

// nowhere says why no target is left. Of several reasons it is the one that the
// client can do most about.
func nowhere(ex *pipeline.Exchange) pipeline.Verdict {
	if ex.Decision.RestsFor > 0 {
		return pipeline.Refuse(ai.ReasonPoolResting, "The backends of this model asked not to be called for now: try again later.")
	}
	var why [4]bool
	for _, d := range ex.Decision.Dropped {
		switch d.Reason {
		case ai.ReasonContextTooLong:
			why[0] = true
		case ai.ReasonContextNotAllowed:
			why[1] = true
		case ai.ReasonEgressNotAllowed:
			why[2] = true
		case ai.ReasonPoolNotAllowed:
			why[3] = true
		}
	}
	switch {
	case why[0]:
		return pipeline.Verdict{Reason: ai.ReasonContextTooLong,
			Message: "The input and the output asked for are longer than the model's context."}
	case why[1]:
		return pipeline.Verdict{Reason: ai.ReasonContextNotAllowed, Param: inputField[ex.In.Kind],
			Message: "The input is longer than you may send in one request."}
	case why[2]:
		return noEgress()
	case why[3]:
		return pipeline.Verdict{Reason: ai.ReasonPoolNotAllowed, Param: "model",
			Message: "No route of the model is open to you."}
	}
	return pipeline.Verdict{Reason: ai.ReasonNoRoute, Param: "model",
		Message: "No route of the model takes this request."}
}
