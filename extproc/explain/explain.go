// Package explain tells what weir would decide about a request, and why, by
// letting the production pipeline decide and reading the exchange that it leaves
// behind. It evaluates nothing itself, sends nothing and journals nothing.
package explain

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// Input is the request to explain.
type Input struct {
	// Who calls: one of these.
	Key      string            // the key itself, or its name
	SPIFFEID string            // of a workload
	Claims   []byte            // of a token that counts as verified: a JSON object
	ClientIP string            // from where; "" is not known
	Method   string            // default: POST with a body, GET without
	Path     string            // as /v1/chat/completions
	Headers  map[string]string // beside those that say who calls
	Body     []byte
	Now      time.Time // what rules read as now
}

// Result is what was decided, and why.
type Result struct {
	Verdict string   `json:"verdict"` // allowed or refused
	Status  int      `json:"status,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Stage   string   `json:"stage,omitempty"`
	Message string   `json:"message,omitempty"`
	Param   string   `json:"param,omitempty"`
	Answer  string   `json:"answer,omitempty"` // the body, when weir answers itself
	Caller  *Caller  `json:"caller,omitempty"`
	Roles   []Role   `json:"roles,omitempty"`
	Request *Request `json:"request,omitempty"`
	Rules   []Rule   `json:"rules,omitempty"`
	Facts   []Fact   `json:"facts,omitempty"`
	Route   string   `json:"route,omitempty"` // the rule that routed, or default
	// EgressRefused is what the route does about a target that is egress and not
	// permitted: next or refuse.
	EgressRefused string   `json:"egress_refused,omitempty"`
	Rollout       *Rollout `json:"rollout,omitempty"`
	Targets       []Target `json:"targets,omitempty"`
	Reserved      *Reserve `json:"reserved,omitempty"`
	Edits         []Edit   `json:"edits,omitempty"`
	Stages        []Stage  `json:"stages"`
}

// Caller is who calls.
type Caller struct {
	Key         string   `json:"key"`
	Application string   `json:"application,omitempty"`
	Team        string   `json:"team"`
	Roles       []string `json:"roles,omitempty"`
	User        string   `json:"user,omitempty"`
	Identity    string   `json:"identity"` // how the caller was known: key, jwt or workload
	Address     string   `json:"address,omitempty"`
}

// Role is a role of the caller: what it permits, and the check that ended it, if
// one did. A request is let through while one is not ended.
type Role struct {
	Name    string `json:"name"`
	Permits string `json:"permits"`
	EndedBy string `json:"ended_by,omitempty"`
}

// Request is what weir read of the request.
type Request struct {
	Kind            string `json:"kind"`
	RequestedModel  string `json:"requested_model,omitempty"`
	Model           string `json:"model,omitempty"`
	Stream          bool   `json:"stream"`
	Tools           bool   `json:"tools"`
	Vision          bool   `json:"vision"`
	Audio           bool   `json:"audio"`
	Batch           bool   `json:"batch"`                       // it can wait, as the model or the client says
	MaxOutputTokens int64  `json:"max_output_tokens,omitempty"` // as the client gave it
	InputTokens     int64  `json:"input_tokens"`
	InputCertainty  string `json:"input_certainty"`
}

// Rollout is a model's rollout that the route names the pool of.
type Rollout struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Percent float64 `json:"percent"` // of the requests move now
	Moved   bool    `json:"moved"`   // this request is of them
}

// Rule is a rule of the model: whether it held, did not hold, or was not tried.
type Rule struct {
	Name    string `json:"name"`
	When    string `json:"when"`
	Outcome string `json:"outcome"`
}

// Fact is what the rules that were tried read of a pool or a limit.
type Fact struct {
	Name  string `json:"name"`  // as pools["local"].waiting
	Value any    `json:"value"` // a number or a flag
	// Known is false where nothing was measured: the value then stands for that.
	Known bool `json:"known"`
	// Age is how long ago the backends said so; absent where nobody says when.
	Age string `json:"age,omitempty"`
}

// The outcomes of rules.
const (
	Held     = "held"
	DidNot   = "did not hold"
	NotTried = "not tried"
)

// Target is a pool of the route.
type Target struct {
	Pool      string `json:"pool"`
	Placement string `json:"placement"`
	Model     string `json:"model"`             // the real model
	Dropped   string `json:"dropped,omitempty"` // why it is not tried
	Behind    string `json:"behind,omitempty"`  // why it is tried only after others
	// Input tokens as its backend counts them, the most that they can be, and
	// whether they are counted or estimated; absent where nothing is counted.
	InputTokens    int64  `json:"input_tokens,omitempty"`
	InputBound     int64  `json:"input_bound,omitempty"`
	InputCertainty string `json:"input_certainty,omitempty"`
}

// Reserve is what quota reserved, or tried to.
type Reserve struct {
	Limits          []Limit `json:"limits"`
	InputTokens     int64   `json:"input_tokens"`
	OutputTokens    int64   `json:"output_tokens"`
	MaxOutputTokens int64   `json:"max_output_tokens,omitempty"` // the ceiling sent to the backend
	Held            bool    `json:"held"`
}

// Limit is a limit that counts the request.
type Limit struct {
	Name    string `json:"name"`
	Unit    string `json:"unit"`
	Amount  int64  `json:"amount"`
	Window  string `json:"window"`
	Refused bool   `json:"refused,omitempty"`
	// Left is what is left of it, as a running weir knows; absent otherwise.
	Left *Left `json:"left,omitempty"`
}

// Left is how far a limit is used; of several counts of a limit, as one for each
// pool, the tightest. The figures are in the limit's unit, money in nano-dollars.
type Left struct {
	Used      int64  `json:"used"`
	Reserved  int64  `json:"reserved"`
	Remaining int64  `json:"remaining"`
	Open      bool   `json:"breaker_open,omitempty"`
	Reset     string `json:"reset"` // until all of it is there again, if nothing else comes
}

// Edit is a change of the body before it leaves.
type Edit struct {
	Offset int    `json:"offset"`
	Length int    `json:"length"`
	Text   string `json:"text"`
}

// Stage is what one stage of the pipeline said.
type Stage struct {
	Name    string `json:"name"`
	Mode    string `json:"mode"`
	Verdict string `json:"verdict"` // go on, refused, would refuse, answered
	Reason  string `json:"reason,omitempty"`
	Micros  int64  `json:"us"`
}

// Allowed tells whether the request would have been let through or answered.
func (r *Result) Allowed() bool { return r.Verdict == allowed }

const (
	allowed = "allowed"
	refused = "refused"
)

// Explain lets run decide about the request under p. The pipeline must have a
// ledger of its own: the limits are taken as unused.
func Explain(ctx context.Context, run *pipeline.Pipeline, p *plan.Plan, in Input) *Result {
	ex := new(pipeline.Exchange)
	v := decide(ctx, run, p, in, "explain", ex)
	return read(ex, &v)
}

// Counts are what limits have counted.
type Counts interface {
	States(limits []*plan.Limit, r *limit.Request) []limit.State
}

// liveID is the id of a probe: what has it takes nothing.
var liveID = ai.ProbeID(strings.Repeat("0", 32))

// Live lets the pipeline of a running weir decide, by the limits as they are used
// now, and tells what is left of each.
func Live(ctx context.Context, run *pipeline.Pipeline, p *plan.Plan, in Input, counts Counts) *Result {
	ex := new(pipeline.Exchange)
	v := decide(ctx, run, p, in, liveID, ex)
	r := read(ex, &v)
	if len(ex.Reserved.Limits) == 0 {
		return r
	}
	for _, s := range counts.States(ex.Reserved.Limits, &ex.Reserved.Request) {
		l := &r.Reserved.Limits[slices.Index(ex.Reserved.Limits, s.Limit)]
		if l.Left == nil || s.Left < l.Left.Remaining {
			l.Left = &Left{Used: s.Used, Reserved: s.Reserved, Remaining: s.Left, Open: s.Open, Reset: s.Reset.Round(time.Millisecond).String()}
		}
	}
	return r
}

// decide lets run decide about the request, as ex.
func decide(ctx context.Context, run *pipeline.Pipeline, p *plan.Plan, in Input, id string, ex *pipeline.Exchange) pipeline.Verdict {
	p, token := withKey(p, in.Key, in.Now)
	ex.Begin(p, id, in.Now, append(headers(in), credentials(in, token)...), len(in.Body) > 0)
	if v := run.Headers(ctx, ex); v.Stops() {
		return v
	}
	return run.Request(ctx, ex, in.Body)
}

// withKey finds the key that is meant. When it is given by its name, the plan is
// one in which a token made up on the spot opens that key: production stores
// hashes only, and has to authenticate a token here as always.
func withKey(p *plan.Plan, key string, now time.Time) (*plan.Plan, string) {
	if _, reason := p.KeyByToken(key, now); reason != ai.ReasonInvalidKey || key == "" {
		return p, key
	}
	token := rand.Text()
	if made, ok := p.Opening(key, token); ok {
		return made, token
	}
	return p, key
}

// credentials are the headers that say who calls, as they reach production: those
// that only Envoy can set included.
func credentials(in Input, token string) (h []pipeline.Header) {
	add := func(name, value string) {
		if value != "" {
			h = append(h, pipeline.Header{Name: name, Value: value})
		}
	}
	if in.Claims != nil {
		payload := base64.RawURLEncoding.EncodeToString(in.Claims)
		token = "e30." + payload + ".c2ln"
		add(ai.ClaimsHeader, payload)
	}
	if token != "" {
		add("authorization", "Bearer "+token)
	}
	if in.SPIFFEID != "" { // from the connection, and from a proxy in case the address is a trusted one's
		add(ai.PeerURIHeader, in.SPIFFEID)
		add("x-forwarded-client-cert", "URI="+in.SPIFFEID)
	}
	add(ai.PeerHeader, in.ClientIP)
	return h
}

func headers(in Input) []pipeline.Header {
	method := in.Method
	if method == "" {
		if method = http.MethodPost; len(in.Body) == 0 {
			method = http.MethodGet
		}
	}
	h := []pipeline.Header{{Name: ":method", Value: method}, {Name: ":path", Value: in.Path}}
	for name, value := range in.Headers {
		h = append(h, pipeline.Header{Name: strings.ToLower(name), Value: value})
	}
	return h
}

// read tells what the exchange holds.
func read(ex *pipeline.Exchange, v *pipeline.Verdict) *Result {
	r := &Result{Verdict: allowed, Roles: roles(ex), EgressRefused: egressRefused(ex), Stages: stages(ex), Route: ex.Decision.Rule, Targets: targets(ex), Rules: rules(ex), Facts: facts(ex), Reserved: reserved(ex), Rollout: rollout(ex)}
	switch {
	case v.Reply != nil:
		r.Status, r.Answer = v.Reply.Status, string(v.Reply.Body)
	case v.Stops():
		r.Verdict, r.Status = refused, v.Reason.Answer().Status
		r.Reason, r.Message, r.Param = string(v.Reason), v.Message, v.Param
	}
	if step, ok := ex.Trace.Stopped(); ok {
		r.Stage = step.Stage
	}
	if p := ex.Principal; p.Key != "" {
		r.Caller = &Caller{Key: p.Key, Application: p.Application, Team: p.Team, Roles: p.Roles, User: p.User, Identity: string(ex.Identity)}
		if ex.In.Client.IsValid() {
			r.Caller.Address = ex.In.Client.String()
		}
	}
	if ex.In.Kind != "" {
		r.Request = request(ex)
	}
	if r.Verdict == allowed {
		for _, e := range ex.Edits {
			r.Edits = append(r.Edits, Edit{Offset: e.Off, Length: e.Len, Text: e.Text})
		}
	}
	return r
}

func request(ex *pipeline.Exchange) *Request {
	in := &ex.In.Request
	n, certainty := ex.Estimate.Likely()
	if targets := ex.Decision.Targets; len(targets) > 0 {
		n, certainty = ex.Estimate.Known(targets[0])
	}
	r := &Request{
		Kind: string(ex.In.Kind), RequestedModel: in.Model, Stream: in.Stream, Tools: in.Tools, Vision: in.Vision, Audio: in.Audio, Batch: in.Flex,
		MaxOutputTokens: in.MaxOutput, InputTokens: n, InputCertainty: certainty.String(),
	}
	if ex.Decision.Model != nil {
		r.Model = ex.Decision.Model.Name
		r.Batch = r.Batch || ex.Decision.Model.Batch
	}
	return r
}

func stages(ex *pipeline.Exchange) []Stage {
	all := []Stage{}
	for i := range ex.Trace.Steps {
		step := &ex.Trace.Steps[i]
		s := Stage{Name: step.Stage, Mode: step.Mode.String(), Verdict: "go on", Reason: string(step.Verdict.Reason), Micros: step.Took.Microseconds()}
		switch {
		case step.Verdict.Reply != nil:
			s.Verdict = "answered"
		case step.Verdict.Reason != ai.ReasonNone && step.Mode == plan.Shadow:
			s.Verdict = "would refuse"
		case step.Verdict.Reason != ai.ReasonNone:
			s.Verdict = refused
		}
		all = append(all, s)
	}
	return all
}

func rules(ex *pipeline.Exchange) []Rule {
	m := ex.Decision.Model
	if m == nil || ex.Decision.Rule == "" && !noRoute(ex) {
		return nil
	}
	outcome := DidNot
	var all []Rule
	for _, r := range m.Rules {
		if r.Name == ex.Decision.Rule {
			outcome = Held
		}
		all = append(all, Rule{Name: r.Name, When: r.Source, Outcome: outcome})
		if outcome == Held {
			outcome = NotTried
		}
	}
	return all
}

// facts are the live facts by which the rules that were tried held or did not.
func facts(ex *pipeline.Exchange) (all []Fact) {
	if ex.Decision.Model == nil {
		return nil
	}
	for _, r := range ex.Decision.Model.Rules {
		reader, ok := r.When.(plan.Reader)
		if !ok {
			continue
		}
		for _, v := range reader.Read(&ex.Decision.Seen) {
			f := Fact{Name: v.Name, Value: v.Value, Known: v.Known}
			if v.Age > 0 {
				f.Age = v.Age.String()
			}
			if !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
		if r.Name == ex.Decision.Rule {
			break // the rest was not tried
		}
	}
	return all
}

// noRoute tells whether all rules were tried, without one that held.
func noRoute(ex *pipeline.Exchange) bool {
	step, ok := ex.Trace.Stopped()
	return ok && step.Verdict.Reason == ai.ReasonNoRoute
}

// rollout is that of the model while it moves requests of this route.
func rollout(ex *pipeline.Exchange) *Rollout {
	d := &ex.Decision
	if d.Share <= 0 {
		return nil
	}
	r := d.Model.Rollout
	return &Rollout{From: r.From.Name, To: r.To.Name, Percent: 100 * d.Share, Moved: d.Moved}
}

func targets(ex *pipeline.Exchange) []Target {
	var all []Target
	for _, p := range ex.Decision.Targets {
		t := Target{Pool: p.Name, Placement: string(p.Placement), Model: p.Model}
		if ex.Estimate.Counts() {
			n, certainty := ex.Estimate.Known(p)
			t.InputTokens, t.InputBound, t.InputCertainty = n, ex.Estimate.Count(p).Bound, certainty.String()
		}
		all = append(all, t)
	}
	for _, d := range ex.Decision.Demoted {
		for i := range all {
			if all[i].Pool == d.Pool.Name {
				all[i].Behind = d.Why
			}
		}
	}
	for _, d := range ex.Decision.Dropped {
		all = append(all, Target{Pool: d.Pool.Name, Placement: string(d.Pool.Placement), Model: d.Pool.Model, Dropped: string(d.Reason)})
	}
	return all
}

func reserved(ex *pipeline.Exchange) *Reserve {
	res := &ex.Reserved
	if len(res.Limits) == 0 {
		return nil
	}
	r := &Reserve{InputTokens: res.Input, OutputTokens: res.Output, MaxOutputTokens: res.MaxOutput, Held: res.Result.Held}
	for _, l := range res.Limits {
		r.Limits = append(r.Limits, Limit{Name: l.Name, Unit: string(l.Unit), Amount: l.Amount, Window: l.Span(), Refused: l == res.Result.Limit})
	}
	return r
}
