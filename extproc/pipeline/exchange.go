package pipeline

import (
	"time"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// Exchange is one client request on its way. Each field has one writer, named
// beside it; the others only read it.
type Exchange struct {
	Plan      *plan.Plan    // Begin; captured once, so that a reload never shows in the middle
	In        Inbound       // Begin, decode
	Principal ai.Principal  // auth
	Grants    *plan.Grants  // auth; nil until the caller is known
	Estimate  Estimate      // tokens
	Edits     []openai.Edit // decode, quota; append-only, applied once at the end
	Decision  Decision      // route (and models: the model)
	Reserved  Reservation   // quota
	Trace     Trace         // Pipeline
}

// Begin starts an exchange under a plan, with what is known from the headers.
// What an earlier exchange left in ex is forgotten; its memory is used again.
func (ex *Exchange) Begin(p *plan.Plan, id string, now time.Time, headers []Header, bodyFollows bool) {
	*ex = Exchange{
		Plan:     p,
		In:       Inbound{ID: id, Time: now, Headers: headers, BodyFollows: bodyFollows, Request: openai.Request{Segments: ex.In.Request.Segments[:0]}},
		Edits:    ex.Edits[:0],
		Decision: Decision{Targets: ex.Decision.Targets[:0], Dropped: ex.Decision.Dropped[:0]},
		Trace:    Trace{Steps: ex.Trace.Steps[:0]},
	}
}

// Counter counts the input tokens of a request.
type Counter interface {
	// Bound is never less than what a backend counts, and cheap.
	Bound(*openai.Request) int64
	// Exact counts with weir's tokenizer. It returns false when something in
	// the request (an image, say) could only be estimated.
	Exact(*openai.Request) (n int64, exact bool)
}

// Estimate is what weir knows of a request's input tokens.
type Estimate struct {
	Bound   int64 // the backend counts no more
	counter Counter
	request *openai.Request
	n       int64
	asked   bool
	exact   bool
}

// NewEstimate bounds the input now and leaves counting for when somebody asks.
func NewEstimate(c Counter, r *openai.Request) Estimate {
	return Estimate{Bound: c.Bound(r), counter: c, request: r}
}

// Count counts the input tokens with weir's tokenizer, once. It returns false
// when the count is not exact. A backend with another tokenizer may count a
// little more: a reservation takes Bound where it can. It costs time in
// proportion to the body: ask only when a decision depends on it.
func (e *Estimate) Count() (n int64, exact bool) {
	if !e.asked && e.counter != nil {
		e.asked = true
		e.n, e.exact = e.counter.Exact(e.request)
		e.n = min(e.n, e.Bound)
	}
	return e.n, e.exact
}

// Known is the best figure that is there already; it never counts.
func (e *Estimate) Known() (int64, ai.Certainty) {
	switch {
	case e.exact:
		return e.n, ai.Counted
	case e.counter == nil:
		return 0, ai.CertaintyUnspecified
	}
	return e.Bound, ai.Estimated
}

// Decision is where the request may go, and why.
type Decision struct {
	Model *plan.Model
	// Rule is the name of the rule that routed: "default" for the model's own
	// targets, empty when none did.
	Rule    string
	Targets []*plan.Pool // in the order in which they are tried
	Dropped []Drop       // what the route names and the request may not use
}

// DefaultRule stands for the model's own targets where a rule's name is expected.
const DefaultRule = "default"

// Drop is a pool that a route names and this request may not use.
type Drop struct {
	Pool   *plan.Pool
	Reason ai.Reason
}

// Reservation is what quota took from the limits for this request.
type Reservation struct {
	Limits []*plan.Limit // the limits that apply
	Result limit.Result
	Input  int64 // tokens; zero when nothing is held
	Output int64 // tokens, of all choices together
	// MaxOutput is the ceiling of output tokens that the backend is sent for
	// each choice; 0 when none is sent.
	MaxOutput int64
}

// Trace is what each stage said.
type Trace struct {
	Steps   []Step
	stopped int // the step that ended the request: its index plus one, or 0
}

// add notes a step: one for each stage, also for one that judged the headers
// before. It returns the step's index plus one.
func (t *Trace) add(s Step) int {
	for i := range t.Steps {
		if old := &t.Steps[i]; old.Stage == s.Stage {
			s.Took += old.Took
			if !s.Verdict.Stops() {
				s.Verdict = old.Verdict
			}
			*old = s
			return i + 1
		}
	}
	t.Steps = append(t.Steps, s)
	return len(t.Steps)
}

// Step is what one stage said.
type Step struct {
	Stage   string
	Mode    plan.Mode
	Verdict Verdict // in shadow mode, what it would have been
	Took    time.Duration
}

// Stopped is the step that refused or answered the request, if one did.
func (t *Trace) Stopped() (*Step, bool) {
	if t.stopped == 0 {
		return nil, false
	}
	return &t.Steps[t.stopped-1], true
}

// Shadowed is the first step that would have refused, had its stage been enforced.
func (t *Trace) Shadowed() (*Step, bool) {
	for i := range t.Steps {
		if s := &t.Steps[i]; s.Mode == plan.Shadow && s.Verdict.Reason != ai.ReasonNone {
			return s, true
		}
	}
	return nil, false
}
