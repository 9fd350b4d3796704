package doctor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
)

// Examiner sends probes.
type Examiner struct {
	Now func() time.Time // nil is time.Now
}

const (
	chatPath    = "/v1/chat/completions"
	unknownPath = "/weir-doctor/no-such-path"
	// of is what a probe that stands for a key asks.
	of = `{"model":%s,"max_tokens":1,"messages":[{"role":"user","content":"A probe of the gateway's."}]}`
)

// Examine probes one listener under the plan that is in force here. Before weir is
// proved to decide there, no probe is sent that stands for a key.
func (e *Examiner) Examine(ctx context.Context, p *plan.Plan, t Target) []Finding {
	now := e.Now
	if now == nil {
		now = time.Now
	}
	x := &examination{ctx: ctx, plan: p, client: newClient(t, p.Probe, now)}
	defer x.client.close()
	if !x.decides() {
		return x.findings
	}
	x.refusals()
	x.walks()
	x.limits()
	return x.findings
}

// Idle are the limits of the plan that count no request of a key that it lists: no
// probe can stand for one. That it can count any is seen to when a file is read.
func Idle(p *plan.Plan) []Finding {
	var list []Finding
	for _, l := range cover(p, time.Time{}).idle {
		list = append(list, Finding{Policy: "limit " + l.Name, State: Unknown, Evidence: "no key of the configuration may make a request that it counts, for which a probe could stand"})
	}
	return list
}

// examination is one Examine under way.
type examination struct {
	ctx      context.Context
	plan     *plan.Plan
	client   *client
	findings []Finding

	cover  coverage
	stages []stageProof    // in the order of the pipeline
	seen   map[string]bool // limits that counted a probe, by name
	passed bool            // some walk ran through all stages
	ended  string          // what ended a walk before
}

// stageProof is what the walks say of one stage.
type stageProof struct {
	name, mode string
	runs       int
}

func (x *examination) find(policy string, s State, evidence string, args ...any) {
	t := x.client.target
	x.findings = append(x.findings, Finding{Proxy: t.Proxy, Listener: t.Listener, Policy: policy, State: s, Evidence: fmt.Sprintf(evidence, args...)})
}

// decides proves that weir decides, by a request without a key. The token of that
// request is worth nothing to who gets it in weir's place.
func (x *examination) decides() bool {
	r, err := x.client.send(x.ctx, request{method: http.MethodPost, path: chatPath, body: "{}"})
	switch {
	case refusedByTLS(err):
		x.find(Decisions, Unknown, "the listener ends the TLS handshake (%v): doctor.certificate is what probes show it", err)
		x.findings[len(x.findings)-1].Closed = true
		return false
	case err != nil:
		x.find(Decisions, Unknown, "%s cannot be asked: %v", x.client.target.URL, err)
		return false
	case r.answer == nil && r.decision != "" && r.status == http.StatusUnauthorized:
		x.find(Decisions, Unknown, "a weir refuses there that does not know this one's probes: do they share key_hash_secret?")
		return false
	case r.answer == nil && r.status >= 500:
		x.find(Decisions, Unknown, "nothing passes: a request without a key gets status %d, and not from weir", r.status)
		return false
	case r.answer == nil:
		x.find(Decisions, NotInForce, "a request without a key gets status %d, and weir was not asked", r.status)
		return false
	}
	x.find(Decisions, InForce, "decision %s", r.answer.ID)
	if r.answer.Plan != x.plan.Version {
		x.find(Plan, NotInForce, "plan %s decides there, and %s is in force here", r.answer.Plan, x.plan.Version)
	} else {
		x.find(Plan, InForce, "plan %s", r.answer.Plan)
	}
	x.refused(Authentication, "a request without a key", r, nil, ai.ReasonMissingKey)
	return true
}

// refusals proves what is to be refused.
func (x *examination) refusals() {
	r, err := x.client.send(x.ctx, request{method: http.MethodPost, path: chatPath, body: "{}", key: rand.Text(), spoof: true})
	x.refused(Keys, "a wrong key", r, err, ai.ReasonInvalidKey)
	switch {
	case r.answer == nil:
		x.find(Headers, Unknown, "no answer of weir's")
	case len(r.answer.Leaked) > 0:
		x.find(Headers, NotInForce, "a client can send %q", r.answer.Leaked)
	default:
		x.find(Headers, InForce, "%d spoofed headers were dropped", len(spoofed))
	}
	r, err = x.client.send(x.ctx, request{method: http.MethodGet, path: unknownPath})
	x.refused(Paths, "a path that weir does not serve", r, err, ai.ReasonUnknownPath)

	x.cover = cover(x.plan, x.client.now().UTC())
	if len(x.cover.walks) == 0 {
		return
	}
	w := x.cover.walks[0]
	name := quoted(w.model.Name)
	r, err = x.client.send(x.ctx, x.standing(w, `{"model":`+name+`,"model":`+name+`,"messages":[]}`))
	x.refused(Reading, "a body with a key twice", r, err, ai.ReasonDuplicateKey)
	large := x.standing(w, "")
	large.contentLength = x.plan.Bounds.MaxBodyBytes + 1
	r, err = x.client.send(x.ctx, large)
	x.refused(Size, "a body of "+strconv.FormatInt(large.contentLength, 10)+" bytes", r, err, ai.ReasonTooLarge)
}

// standing is a request that stands for the walk's key.
func (x *examination) standing(w walk, body string) request {
	return request{as: w.key.Name, method: http.MethodPost, path: chatPath, key: rand.Text(), body: body}
}

func quoted(s string) string {
	b, _ := json.Marshal(s) // a string always marshals
	return string(b)
}

// refused notes whether a request was refused for the reason that it should be.
// Refused for another one, it never came to the stage that is to be proved.
func (x *examination) refused(policy, what string, r response, err error, want ai.Reason) {
	a := r.answer
	switch {
	case err != nil:
		x.find(policy, Unknown, "%s: %v", what, err)
	case a == nil && r.status < 500:
		x.find(policy, NotInForce, "%s gets status %d, and weir was not asked", what, r.status)
	case a == nil:
		x.find(policy, Unknown, "%s gets status %d, and not from weir", what, r.status)
	case a.Verdict != probe.Refused:
		x.find(policy, NotInForce, "%s is let through", what)
	case a.Reason != string(want):
		x.find(policy, Unknown, "%s is refused by stage %s: %s", what, a.Stage, a.Reason)
	case r.status != want.Answer().Status:
		x.find(policy, NotInForce, "%s is refused by weir, and the client gets status %d", what, r.status)
	default:
		x.find(policy, InForce, "%s gets %d %s", what, r.status, a.Reason)
	}
}

// walks sends probes through all stages and tells of each stage whether it ran.
func (x *examination) walks() {
	x.seen = map[string]bool{}
	for _, w := range x.cover.walks {
		r, err := x.client.send(x.ctx, x.standing(w, fmt.Sprintf(of, quoted(w.model.Name))))
		switch {
		case err != nil:
			x.ended = err.Error()
			continue
		case r.answer == nil:
			x.ended = fmt.Sprintf("status %d, and not from weir", r.status)
			continue
		case r.answer.Verdict == probe.Passed:
			x.passed = true
		default:
			x.ended = fmt.Sprintf("as key %s, stage %s refused: %s", w.key.Name, r.answer.Stage, r.answer.Reason)
		}
		x.read(r.answer)
	}
	if len(x.cover.walks) == 0 {
		x.find("every stage behind auth", Unknown, "the configuration has no key that may call a model, for which a probe could stand")
	} else if len(x.stages) == 0 {
		x.find("every stage", Unknown, "%s", x.ended)
	}
	for _, s := range x.stages {
		x.stage(s)
	}
}

func (x *examination) read(a *probe.Answer) {
	for i, s := range a.Stages {
		if i == len(x.stages) {
			x.stages = append(x.stages, stageProof{name: s.Name, mode: s.Mode})
		}
		if s.Ran && x.stages[i].name == s.Name {
			x.stages[i].runs++
		}
	}
	for _, l := range a.Limits {
		x.seen[l.Name] = true
	}
}

func (x *examination) stage(s stageProof) {
	policy := "stage " + s.name
	switch {
	case s.mode != plan.Enforce.String():
		x.chosen(policy, "the stage's mode is "+s.mode)
	case s.runs > 0:
		x.find(policy, InForce, "probes that stood for a key and that it judged: %d", s.runs)
	case x.passed:
		x.find(policy, NotInForce, "a probe ran through all stages, and not through it")
	default:
		x.find(policy, Unknown, "no probe came that far: %s", x.ended)
	}
}

// chosen notes what the configuration keeps from being in force.
func (x *examination) chosen(policy, evidence string) {
	x.find(policy, NotInForce, "%s", evidence)
	x.findings[len(x.findings)-1].Chosen = true
}

// quotaStage is the stage that asks the limits.
const quotaStage = "quota"

// limits tells of each limit whether it counted a probe.
func (x *examination) limits() {
	mode := x.plan.Mode(quotaStage)
	for _, l := range x.plan.Limits {
		policy := "limit " + l.Name
		switch {
		case contains(x.cover.idle, l):
			continue // of no proxy: see Idle
		case mode != plan.Enforce:
			x.chosen(policy, "the mode of stage quota is "+mode.String())
		case l.OnBreach == plan.BreachReport:
			x.chosen(policy, "it reports, and lets through")
		case x.seen[l.Name]:
			x.find(policy, InForce, "it counted a probe")
		case contains(x.cover.left, l):
			x.find(policy, Unknown, "not probed: more than %d different requests would be needed", maxWalks)
		case x.passed && x.ended == "" && len(x.plan.Limits) <= probe.MaxLimits:
			x.find(policy, NotInForce, "a probe that it should count passed, and was not counted")
		default:
			x.find(policy, Unknown, "no probe came that far: %s", x.ended)
		}
	}
}

func contains(list []*plan.Limit, l *plan.Limit) bool {
	for _, one := range list {
		if one == l {
			return true
		}
	}
	return false
}
