package extproc

import (
	"math"
	"math/bits"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// The verdicts of a decision.
const (
	Allowed = "allowed"
	Refused = "refused"
)

// record is the decision as it is journalled. Nothing in it aliases the exchange.
func record(ex *pipeline.Exchange, v *pipeline.Verdict) *usagev1.Decision {
	d := &usagev1.Decision{
		Id:           ex.In.ID,
		Time:         timestamppb.New(ex.In.Time),
		Key:          ex.Principal.Key,
		Application:  ex.Principal.Application,
		Team:         ex.Principal.Team,
		Organisation: ex.Principal.Organisation,
		User:         ex.Principal.User,
		Kind:         string(ex.In.Kind),
		Stream:       ex.In.Request.Stream,
		Verdict:      Allowed,
		TraceId:      ex.In.TraceID(),
		Rule:         ex.Decision.Rule,
		Identity:     string(ex.Identity), // where the client is stays out of the record
		Roles:        ex.Principal.Roles,
		Facts:        facts(ex),
	}
	if m := ex.Decision.Model; m != nil {
		d.Model = m.Name
	}
	d.RequestedModel = requestedModel(ex)
	var n int64
	var certainty ai.Certainty
	if len(ex.Decision.Targets) > 0 && v.Reply == nil && !v.Stops() {
		n, certainty = ex.Estimate.Known(ex.Decision.Targets[0])
	} else {
		n, certainty = ex.Estimate.Likely()
	}
	d.InputTokens, d.InputCertainty = n, usagev1.Certainty(certainty)
	switch {
	case v.Reply != nil:
		d.Status = int32(v.Reply.Status)
	case v.Stops():
		d.Verdict, d.Reason, d.Status = Refused, string(v.Reason), int32(v.Reason.Answer().Status)
		if step, ok := ex.Trace.Stopped(); ok {
			d.Stage = step.Stage
		}
	default:
		recordTargets(d, ex)
		recordReservation(d, ex)
		if step, ok := ex.Trace.Shadowed(); ok {
			d.Reason, d.Stage = string(step.Verdict.Reason), step.Stage
		}
	}
	return d
}

// facts are what a route reads of the body; nil where the body says nothing of it.
func facts(ex *pipeline.Exchange) *usagev1.Facts {
	r := &ex.In.Request
	if !r.Tools && !r.Vision && !r.Audio && !r.Flex && ex.Decision.Effort == "" && r.ThinkingBudget == 0 && !r.HasMaxOutput && r.Answers() == 1 {
		return nil
	}
	f := &usagev1.Facts{Tools: r.Tools, Vision: r.Vision, Audio: r.Audio, Flex: r.Flex, ReasoningEffort: ex.Decision.Effort, ThinkingBudget: r.ThinkingBudget}
	if r.HasMaxOutput {
		f.AskedOutputTokens = proto.Int64(r.MaxOutput) // r is used again
	}
	if n := r.Answers(); n > 1 {
		f.Answers = n
	}
	return f
}

// requestedModel is the name as the client wrote it, without a copy when the
// plan has the same string.
func requestedModel(ex *pipeline.Exchange) string {
	name := ex.In.Request.Model
	if m := ex.Decision.Model; m != nil {
		if name == m.Name {
			return m.Name
		}
		for _, alias := range m.Aliases {
			if name == alias {
				return alias
			}
		}
	}
	return strings.ToValidUTF8(strings.Clone(name), "\uFFFD")
}

func recordTargets(d *usagev1.Decision, ex *pipeline.Exchange) {
	pools := ex.Decision.Targets
	d.Targets = make([]string, len(pools))
	d.Prices = make([]*usagev1.TargetPrice, len(pools))
	prices := make([]usagev1.TargetPrice, len(pools))
	for i, p := range pools {
		d.Targets[i] = p.Name
		t := &prices[i]
		t.Pool, t.BillsAbandoned = p.Name, p.BillsAbandoned
		t.SetPrice(p.PriceAt(ex.In.Time))
		d.Prices[i] = t
	}
}

func recordReservation(d *usagev1.Decision, ex *pipeline.Exchange) {
	d.AllowedOutputTokens = allowedOutput(ex)
	d.MaxOutputTokens = ex.In.Request.MaxOutput
	if m := ex.Reserved.MaxOutput; m > 0 && ex.Plan.Mode(quotaStage) == plan.Enforce {
		d.MaxOutputTokens = m
	}
	if !ex.Reserved.Result.Held {
		return
	}
	d.ReservedInputTokens, d.ReservedOutputTokens = ex.Reserved.Input, ex.Reserved.Output
	for i := range ex.Reserved.Request.Targets {
		t := &ex.Reserved.Request.Targets[i]
		d.Prices[i].ReservedInputTokens, d.Prices[i].Tries = t.Input, int32(t.Tries)
	}
	if l := ex.Reserved.Result.Reported; l != nil {
		d.ReportedLimit = l.Name
	}
	d.Limits = make([]string, len(ex.Reserved.Limits))
	for i, l := range ex.Reserved.Limits {
		d.Limits[i] = l.Ident()
	}
}

// allowedOutput is the output that all answers together may have: by the ceiling that
// is sent, where weir sends one, or else by what the client or the model's default
// allows.
func allowedOutput(ex *pipeline.Exchange) int64 {
	r := &ex.In.Request
	if ex.In.Kind == ai.KindEmbedding {
		return 0
	}
	each := ex.Decision.Model.DefaultMaxTokens
	switch m := ex.Reserved.MaxOutput; {
	case m > 0 && ex.Plan.Mode(quotaStage) == plan.Enforce:
		each = m
	case r.HasMaxOutput:
		each = r.MaxOutput
	}
	hi, lo := bits.Mul64(uint64(max(each, 0)), uint64(max(r.Answers(), 1)))
	if hi > 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(lo)
}

// quotaStage is the stage whose ceiling is sent when it is enforced.
const quotaStage = "quota"
