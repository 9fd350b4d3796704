package pipeline

import (
	"slices"
	"time"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
	"github.com/weirproxy/weir/limit"
	"github.com/weirproxy/weir/tokens"
)

// Exchange is one client request on its way. Each field has one writer, named
// beside it; the others only read it.
type Exchange struct {
	Plan      *plan.Plan    // Begin; captured once, so that a reload never shows in the middle
	In        Inbound       // Begin, decode
	Principal ai.Principal  // auth
	Identity  ai.Identity   // auth: how the caller was known
	Network   *plan.Network // auth: that of the key
	Grants    plan.Grants   // auth, access, route: the roles that still permit the request
	Estimate  Estimate      // tokens
	Edits     []openai.Edit // decode, quota; append-only, applied once at the end
	Decision  Decision      // route (and models: the model)
	Reserved  Reservation   // quota
	Trace     Trace         // Pipeline

	// Probe marks a probe of the doctor's; nil for every other request. The server
	// sets it. No stage judges by it.
	Probe *probe.Token
}

// Begin starts an exchange under a plan, with what is known from the headers.
// What an earlier exchange left in ex is forgotten; its memory is used again.
func (ex *Exchange) Begin(p *plan.Plan, id string, now time.Time, headers []Header, bodyFollows bool) {
	view := ex.In.Request.View
	view.Reset(nil)
	*ex = Exchange{
		Plan:     p,
		In:       Inbound{ID: id, Time: now, Headers: headers, BodyFollows: bodyFollows, Request: openai.Request{View: view}},
		Estimate: Estimate{hashes: ex.Estimate.hashes},
		Edits:    ex.Edits[:0],
		Decision: Decision{
			Targets: ex.Decision.Targets[:0], Dropped: ex.Decision.Dropped[:0], Demoted: ex.Decision.Demoted[:0], Once: ex.Decision.Once[:0],
			Seen: ex.Decision.Seen.Emptied(),
		},
		Reserved: Reservation{Limits: ex.Reserved.Limits[:0], Request: limit.Request{
			Targets: ex.Reserved.Request.Targets[:0], Options: ex.Reserved.Request.Options[:0],
		}},
		Trace: Trace{Steps: ex.Trace.Steps[:0]},
	}
}

// Counter counts the input tokens of a request.
type Counter interface {
	// Bound is above what any backend counts, without looking at the text.
	Bound(*Exchange) int64
	// Count counts as the pool's backend does. It costs time in proportion to the
	// body.
	Count(*Exchange, *plan.Pool) tokens.Count
}

// Estimate is what weir knows of a request's input tokens, counts and estimates. They
// are made when they are asked for, once for each of the first few pools.
type Estimate struct {
	counter Counter
	ex      *Exchange
	bound   int64
	pools   [4]*plan.Pool // counted so far
	counts  [4]tokens.Count
	n       int
	hashes  tokens.Hashes
}

// NewEstimate leaves counting for when somebody asks. It takes over the memory of
// the estimate that ex has.
func NewEstimate(c Counter, ex *Exchange) Estimate {
	e := Estimate{counter: c, ex: ex, hashes: ex.Estimate.hashes}
	e.hashes.Reset()
	return e
}

// Hashes are those of the request's texts, for the counter.
func (e *Estimate) Hashes() *tokens.Hashes { return &e.hashes }

// Counts tells whether anything is counted: the stage may be off.
func (e *Estimate) Counts() bool { return e.counter != nil }

// Bound is above what any backend counts, and cheap; 0 when nothing is counted.
func (e *Estimate) Bound() int64 {
	if e.bound == 0 && e.counter != nil {
		e.bound = e.counter.Bound(e.ex)
	}
	return e.bound
}

// Count is the input tokens as the pool's backend counts them.
func (e *Estimate) Count(p *plan.Pool) tokens.Count {
	if e.counter == nil {
		return tokens.Count{}
	}
	for i, known := range e.pools[:e.n] {
		if known == p {
			return e.counts[i]
		}
	}
	c := e.counter.Count(e.ex, p)
	if e.n < len(e.pools) {
		e.pools[e.n], e.counts[e.n] = p, c
		e.n++
	}
	return c
}

// Likely is the best figure for a request that was refused: what was counted, if
// anything was, or else a guess.
func (e *Estimate) Likely() (int64, ai.Certainty) {
	switch {
	case e.counter == nil:
		return 0, ai.CertaintyUnspecified
	case e.n == 0:
		return tokens.Likely(&e.ex.In.Request), ai.Estimated
	}
	return certainty(e.counts[0])
}

// Known is the figure for a request that goes to the pool, and how it is known.
func (e *Estimate) Known(p *plan.Pool) (int64, ai.Certainty) {
	if e.counter == nil {
		return 0, ai.CertaintyUnspecified
	}
	return certainty(e.Count(p))
}

func certainty(c tokens.Count) (int64, ai.Certainty) {
	if c.Exact {
		return c.Tokens, ai.Counted
	}
	return c.Tokens, ai.Estimated
}

// Decision is where the request may go, and why.
type Decision struct {
	Model *plan.Model
	// Rule is the name of the rule that routed: "default" for the model's own
	// targets, empty when none did.
	Rule string
	// RefuseEgress is the route's: see plan.Rule.
	RefuseEgress bool
	Targets      []*plan.Pool // in the order in which they are tried
	Dropped      []Drop       // what the route names and the request may not use
	Demoted      []Demotion   // of the targets, what is tried only after the others
	// Share is which part of the requests the model's rollout moves, and Moved whether
	// this one is of them. Share is 0 where the route does not name the rollout's pool.
	Share float64
	Moved bool
	// Effort is how much the client wants the model to think; "" when it does not say.
	Effort string
	// Once are the targets that get no second try: they would fail again.
	Once []*plan.Pool
	// Seen is what the rules read of live facts.
	Seen plan.Seen
	// Bar tells why the request may not use a pool, whoever names it; none is that
	// it may. Set by route.
	Bar func(*Exchange, *plan.Pool) ai.Reason
	// RestsFor is when the first may be called again of the pools that asked to be
	// left alone; 0 when none of the route's did.
	RestsFor time.Duration
}

// Tries is how often a target is tried: those with several endpoints are tried once more
// when all targets have failed, in their order, each at another endpoint, as far as the
// model's attempts go.
func (d *Decision) Tries(p *plan.Pool) int {
	spare := len(d.Targets)
	if most := d.Model.MaxAttempts; most > 0 {
		spare = most - len(d.Targets)
	}
	for _, t := range d.Targets {
		if spare <= 0 {
			break
		}
		if len(t.Endpoints) < 2 || slices.Contains(d.Once, t) {
			continue
		}
		if t == p {
			return 2
		}
		spare--
	}
	return 1
}

// DefaultRule stands for the model's own targets where a rule's name is expected.
const DefaultRule = "default"

// Drop is a pool that a route names and this request may not use.
type Drop struct {
	Pool   *plan.Pool
	Reason ai.Reason
}

// Demotion is a target that is tried only after the others, and why.
type Demotion struct {
	Pool *plan.Pool
	Why  string
}

// Why a target is tried only after the others.
const (
	Saturated = "pool_saturated"
	Failing   = "pool_failing"
)

// DemotedFor tells whether a target is demoted for this reason; "" is any.
func (d *Decision) DemotedFor(p *plan.Pool, why string) bool {
	for i := range d.Demoted {
		if d.Demoted[i].Pool == p && (why == "" || d.Demoted[i].Why == why) {
			return true
		}
	}
	return false
}

// Reservation is what quota took from the limits for this request.
type Reservation struct {
	Limits  []*plan.Limit // the limits that apply
	Request limit.Request // what was asked of the ledger last
	Result  limit.Result
	Input   int64 // tokens, the most of any target; zero when nothing is held
	Output  int64 // tokens, of all choices together
	// Downgraded is the limit for which the request goes to other targets than
	// its route's; nil for none.
	Downgraded *plan.Limit
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
