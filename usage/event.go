package usage

import (
	"net/http"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// The verdicts of a decision.
const (
	VerdictAllowed = "allowed"
	VerdictRefused = "refused"
)

// The outcomes of an event, as in weir.usage.v1.Event.
const (
	OutcomeCompleted   = "completed"
	OutcomeRefused     = "refused"
	OutcomeClientGone  = "client_gone"
	OutcomeFailed      = "failed"
	OutcomeUnavailable = "unavailable"
	OutcomeUnknown     = "unknown"
)

// Outcomes are all of them.
var Outcomes = []string{OutcomeCompleted, OutcomeRefused, OutcomeClientGone, OutcomeFailed, OutcomeUnavailable, OutcomeUnknown}

// Nothing that one request can use reaches these; what a backend claims above
// them is cut, so that sums over years still fit 64 bits.
const (
	maxTokens = 1 << 32
	maxCost   = ai.NanoUSD(1e15) // a million dollars
)

// stageEnvoy stands for the stage where Envoy refused without weir.
const stageEnvoy = "envoy"

// answered is the event of a request that weir answered itself: refused, or
// allowed without any target (the list of models).
func answered(d *usagev1.Decision, now time.Time) *usagev1.Event {
	e := &usagev1.Event{Decision: d, End: timestamppb.New(now), Status: d.GetStatus(), Outcome: OutcomeRefused, Flags: "-"}
	e.DurationUs = max(0, now.Sub(d.GetTime().AsTime()).Microseconds())
	if d.GetVerdict() == VerdictAllowed {
		e.Outcome = OutcomeCompleted
		if e.Status == 0 {
			e.Status = http.StatusOK
		}
	}
	return e
}

// expired is the event of an admitted request whose end nobody reported: it is
// taken to have used what was reserved for it, or else what it was allowed, at the
// dearest of its targets, and at each other one that may bill an attempt that gave
// no answer.
func expired(d *usagev1.Decision, now time.Time) *usagev1.Event {
	e := &usagev1.Event{Decision: d, End: timestamppb.New(now), Outcome: OutcomeUnknown, Flags: "-"}
	e.DurationUs = max(0, now.Sub(d.GetTime().AsTime()).Microseconds())
	input, output := d.GetReservedInputTokens(), d.GetReservedOutputTokens()
	if input == 0 && output == 0 {
		input, output = allowed(d)
	}
	input, output = min(max(input, 0), maxTokens), min(max(output, 0), maxTokens)
	served, rest := worst(d, input, output)
	e.Tokens, e.CostNanousd = usagev1.TokensOf(served.Usage), int64(served.Cost)
	e.InputCertainty, e.OutputCertainty = usagev1.Certainty_CERTAINTY_ESTIMATED, usagev1.Certainty_CERTAINTY_ESTIMATED
	for _, s := range rest {
		addAbandoned(e, s.Usage, s.Cost)
	}
	return e
}

// withdrawn is the event of an admitted request whose answer never left weir:
// most often because the client had gone.
func withdrawn(d *usagev1.Decision, now time.Time) *usagev1.Event {
	e := &usagev1.Event{Decision: d, End: timestamppb.New(now), Outcome: OutcomeClientGone, Flags: "-", Tokens: &usagev1.Tokens{}}
	e.DurationUs = max(0, now.Sub(d.GetTime().AsTime()).Microseconds())
	return e
}

// Withdrawn tells whether the event is that of a request whose answer never left
// weir: it was not admitted after all.
func Withdrawn(e *usagev1.Event) bool {
	return e.GetOutcome() == OutcomeClientGone && e.GetFlags() == "-" && len(e.GetAttempts()) == 0
}

// closed is the event of an admitted request, from its decision and what Envoy
// logged about it.
func closed(d *usagev1.Decision, e *Entry) *usagev1.Event {
	ev := fromEntry(d, e)
	attempts := parseAttempts(e.Attempts)
	// What the filter noted in a form that weir does not know is as good as
	// nothing noted.
	noted, err := ai.ParseAdapterUsage(e.Usage)
	if err != nil {
		noted = ai.AdapterUsage{}
	}
	silent := noted.Chunks == 0 && noted.TextBytes == 0 && !noted.Reported
	ev.Attempts = eventAttempts(attempts, e, silent)
	ev.Pool = answeringPool(attempts, e)
	served := servedBy(attempts, e)
	ev.Outcome = outcome(e, served)
	ev.FinishReason = clip(noted.Finish, 64)
	ev.Chunks = noted.Chunks
	if noted.FirstToken != 0 {
		ev.FirstTokenUs = max(0, noted.FirstToken-e.Start.UnixMicro())
	}
	switch {
	case ev.Outcome != OutcomeCompleted:
	case e.Details == ai.DetailsIdle:
		ev.Outcome = OutcomeFailed
		nameBreak(ev, failIdle)
	case e.Details == ai.DetailsInterrupted || brokeOff(d, &noted):
		ev.Outcome = OutcomeFailed
		nameBreak(ev, failInterrupted)
	}
	var what serving
	switch {
	case served:
		what = servedAnswer
	case ev.Outcome == OutcomeClientGone && (len(attempts) > 0 || e.Cluster != ""):
		what = servedNobody
	}
	if n := len(ev.Attempts); n > 0 && what == servedNobody && abandoned(d, ev.Attempts[n-1]) {
		what = servedNothing // the attempt is charged as one that was given up
	}
	u, in, out := used(d, &noted, what, e.Bytes)
	var costs ai.Costs
	if what != servedNothing || u != (ai.Usage{}) {
		costs = terms(d, lastPool(attempts, e)).Price().Costs(u)
	}
	setTokens(ev, u, in, out, costs)
	chargeAbandoned(ev, u, ai.NanoUSD(ev.CostNanousd), noted.Finish != "")
	return ev
}

// nameBreak says of the attempt that answered why its answer is not whole, where Envoy
// does not say.
func nameBreak(ev *usagev1.Event, why string) {
	if n := len(ev.Attempts); n > 0 && ev.Attempts[n-1].Failure == "" {
		ev.Attempts[n-1].Failure = why
	}
}

// brokeOff tells of a stream that the filter read and that ended without a
// finish reason: after an error event, say. To Envoy it looks whole.
func brokeOff(d *usagev1.Decision, noted *ai.AdapterUsage) bool {
	return d.GetStream() && noted.Finish == "" && (noted.Done || noted.Chunks > 0)
}

// orphan is the event of a request of which weir knows no decision: Envoy
// answered it without weir, or the journal lost it.
func orphan(id ID, e *Entry) *usagev1.Event {
	d := &usagev1.Decision{Id: id.String(), Time: timestamppb.New(e.Start)}
	if e.ID != nil && (e.Attempts != "" || e.pool() != "") {
		d.Verdict = VerdictAllowed
		return closed(d, e)
	}
	d.Verdict, d.Status = VerdictRefused, int32(e.Status)
	if e.ID == nil {
		d.Stage = stageEnvoy
	}
	ev := fromEntry(d, e)
	switch {
	case e.Status == http.StatusServiceUnavailable, e.Status == http.StatusGatewayTimeout, e.Status == 0:
		ev.Outcome, d.Reason = OutcomeUnavailable, string(ai.ReasonUnavailable)
	case e.Status >= 400 && e.Status < 500:
		ev.Outcome = OutcomeRefused
		if e.ID == nil {
			d.Reason = string(envoyReason(e.Status))
		}
	default:
		ev.Outcome, d.Reason = OutcomeFailed, string(ai.ReasonInternal)
	}
	return ev
}

// bypass is the event of a request that came past weir. Where the adapter stood in
// its way, or nothing, it is a refusal; otherwise a backend may have served it, and
// what it used is told as of any other.
func bypass(id ID, e *Entry) *usagev1.Event {
	d := &usagev1.Decision{Id: id.String(), Time: timestamppb.New(e.Start), Stage: stageEnvoy, Reason: string(ai.ReasonBypass)}
	if e.Details == ai.DetailsBypass || e.pool() == "" && e.Attempts == "" {
		d.Verdict, d.Status = VerdictRefused, int32(e.Status)
		ev := fromEntry(d, e)
		ev.Outcome = OutcomeRefused
		return ev
	}
	d.Verdict = VerdictAllowed
	return closed(d, e)
}

func envoyReason(status int) ai.Reason {
	switch status {
	case http.StatusNotFound:
		return ai.ReasonUnknownPath
	case http.StatusMethodNotAllowed:
		return ai.ReasonMethod
	case http.StatusRequestEntityTooLarge:
		return ai.ReasonTooLarge
	}
	return ai.ReasonNone // the details say it
}

func fromEntry(d *usagev1.Decision, e *Entry) *usagev1.Event {
	flags := e.Flags
	if flags == "" {
		flags = "-"
	}
	return &usagev1.Event{
		Decision:      d,
		End:           timestamppb.New(e.Start.Add(e.Duration)),
		DurationUs:    e.Duration.Microseconds(),
		Status:        int32(e.Status),
		ResponseBytes: e.Bytes,
		Flags:         flags,
		Details:       e.Details,
		Tokens:        &usagev1.Tokens{},
	}
}

// serving is what a backend did for a request.
type serving uint8

const (
	servedNothing serving = iota
	servedAnswer          // the client got its answer
	servedNobody          // a backend worked, and the client had left
)

// used decides what a request used. What the backend reported counts as it is, unless
// it reports no input at all, which no request has.
// Otherwise, when content was streamed, or a whole answer came without figures,
// output is the larger of the content events (each holds a token at least) and
// a quarter of the text's bytes; of an answer that the filter could not read at
// all (compressed, of another type, cut midway) a quarter of all its bytes.
// Input is what weir knows of it. A client that left while a backend worked is
// charged its input in the same way. A request of which nothing was served used
// nothing.
func used(d *usagev1.Decision, noted *ai.AdapterUsage, what serving, bytes int64) (u ai.Usage, in, out usagev1.Certainty) {
	if noted.Reported && noted.Usage.TotalInput() > 0 { // without any input it is no usage
		reported := usagev1.Certainty_CERTAINTY_REPORTED
		return clampUsage(noted.Usage), reported, reported
	}
	if what == servedNothing && noted.Chunks == 0 && noted.TextBytes == 0 {
		return ai.Usage{}, 0, 0
	}
	u.Input = d.GetInputTokens()
	if in = d.GetInputCertainty(); in != usagev1.Certainty_CERTAINTY_COUNTED {
		in = usagev1.Certainty_CERTAINTY_ESTIMATED
	}
	if d.GetKind() != string(ai.KindEmbedding) {
		text := noted.TextBytes
		if what == servedAnswer && text == 0 && noted.Chunks == 0 {
			text = bytes
		}
		u.Output = max(noted.Chunks, text/4+min(1, text%4), noted.Usage.Output)
	}
	return clampUsage(u), in, usagev1.Certainty_CERTAINTY_ESTIMATED
}

func clampUsage(u ai.Usage) ai.Usage { return u.Clamp(maxTokens) }

func setTokens(e *usagev1.Event, u ai.Usage, in, out usagev1.Certainty, costs ai.Costs) {
	e.Tokens, e.InputCertainty, e.OutputCertainty = usagev1.TokensOf(u), in, out
	e.CostNanousd = int64(min(costs.Total(), maxCost))
	if costs != (ai.Costs{}) {
		e.Costs = usagev1.CostsOf(costs)
	}
}

// brokenFlags are set when a response that had begun did not end as it should.
var brokenFlags = []string{"UF", "UC", "UR", "UT", "UPE", "LR", "SI", "DT", "DPE", "UMSDR", "OM"}

func outcome(e *Entry, served bool) string {
	switch {
	case e.clientGone():
		return OutcomeClientGone
	case served && !e.hasFlag(brokenFlags...):
		return OutcomeCompleted
	}
	return OutcomeFailed
}

// servedBy tells whether a backend answered well and the client got that answer.
// A response that the filter held back when its time was up was not served.
func servedBy(attempts []attempt, e *Entry) bool {
	if n := len(attempts); n > 0 && !success(attempts[n-1].status) {
		return false
	}
	return success(e.Status) && (len(attempts) > 0 || e.Cluster != "")
}

func success(status int) bool { return status >= 200 && status < 300 }

// lastPool is the pool that was tried last.
func lastPool(attempts []attempt, e *Entry) string {
	if n := len(attempts); n > 0 {
		return clip(attempts[n-1].pool, 64)
	}
	return clip(e.pool(), 64)
}

// answeringPool is the pool whose response the client got, whatever it said.
// Where Envoy answered in its stead, the classes of the two statuses differ, or
// no response had begun.
func answeringPool(attempts []attempt, e *Entry) string {
	if n := len(attempts); n > 0 {
		if status := attempts[n-1].status; status == 0 || status/100 != e.Status/100 {
			return ""
		}
	} else if e.Status == 0 || e.Flags != "" {
		return ""
	}
	return lastPool(attempts, e)
}

// The ways in which an attempt fails, as in weir.usage.v1.Attempt.
const (
	failConnect     = "connect_failure"
	failReset       = "reset"
	failTimeout     = "timeout"
	failFirstToken  = "first_token_timeout"
	failInterrupted = "interrupted"
	failIdle        = "stream_idle_timeout"
	failNoContent   = "no_content"
	failStatus      = "status"
	failNoResponse  = "no_response"
	failClientGone  = "client_gone"
)

// eventAttempts derives why each attempt failed. Envoy's flags speak of the last
// one alone; of an earlier one only the status is known. silent says that the
// filter noted nothing of an answer.
func eventAttempts(attempts []attempt, e *Entry, silent bool) []*usagev1.Attempt {
	list := make([]*usagev1.Attempt, len(attempts))
	for i, a := range attempts {
		failure := earlierFailure(a)
		if i == len(attempts)-1 {
			failure = lastFailure(a, e, silent)
		}
		list[i] = &usagev1.Attempt{Pool: clip(a.pool, 64), Status: int32(a.status), Failure: failure, RestMs: a.rest}
	}
	return list
}

func earlierFailure(a attempt) string {
	switch {
	case a.status == 0:
		return failNoResponse
	case a.status < 300: // it began, and broke off or was given up before its first content
		return failNoContent
	}
	return failStatus
}

func lastFailure(a attempt, e *Entry, silent bool) string {
	switch {
	case e.hasFlag("UT", "DT", "SI", "UMSDR") && a.status >= 200 && a.status < 300 && e.Status >= 500:
		return failFirstToken
	case e.hasFlag("UT", "DT", "SI", "UMSDR"):
		return failTimeout
	case e.hasFlag("UF"):
		return failConnect
	case e.hasFlag("UC", "UR", "LR", "UPE"):
		return failReset
	case (a.status == 0 || silent && success(a.status)) && e.clientGone():
		return failClientGone
	case a.status == 0:
		return failNoResponse
	case a.status >= 400:
		return failStatus
	}
	return ""
}
