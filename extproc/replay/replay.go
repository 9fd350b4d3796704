// Package replay decides recorded requests again, by another plan: what a change of
// the configuration does to the traffic that there was. What a request's body said is
// not recorded, only what routes read of it; so it judges roles and routes, and neither
// credentials, networks and bodies nor what is left of limits.
package replay

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/extproc/stage/route"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/tokens"
)

// Known is what both plans are replayed with: what is known of the pools now.
type Known struct {
	Live  plan.Live
	Share func(*plan.Model) float64
}

// Replay compares what two plans make of the same decisions.
type Replay struct {
	was, is *plan.Plan
	stage   *route.Stage
	report  Report
	changes map[string]*Change
}

// Report is what would be otherwise.
type Report struct {
	Replayed int `json:"replayed"`
	Changed  int `json:"changed"`
	// Passed are decisions that cannot be replayed, by why.
	Passed map[string]int `json:"passed,omitempty"`
	// Headers says that a rule reads headers, which are not recorded: it is judged as if
	// none had been sent.
	Headers bool     `json:"headers,omitempty"`
	Changes []Change `json:"changes"` // the most frequent first
}

// Change is what becomes of requests that are alike.
type Change struct {
	Model string `json:"model"`
	Team  string `json:"team"`
	Was   string `json:"was"` // "rule: pools in their order", or "refused: reason"
	Is    string `json:"is"`
	Count int    `json:"count"`
	// Examples are ids of decisions, some of them.
	Examples []string `json:"examples"`
}

const maxExamples = 3

// New begins a replay of decisions that were made under one plan, or those before it,
// and are to be made under another.
func New(was, is *plan.Plan, known Known) *Replay {
	s := route.New(route.NewRests())
	s.Live, s.Share = known.Live, known.Share
	r := &Replay{was: was, is: is, stage: s, report: Report{Passed: map[string]int{}}, changes: map[string]*Change{}}
	for _, p := range []*plan.Plan{was, is} {
		for _, m := range p.ModelList {
			r.report.Headers = r.report.Headers || slices.ContainsFunc(m.Rules, func(rule *plan.Rule) bool { return strings.Contains(rule.Source, "headers[") })
		}
	}
	return r
}

// Add replays a decision.
func (r *Replay) Add(ctx context.Context, d *usagev1.Decision) error {
	if why := passed(d); why != "" {
		r.report.Passed[why]++
		return nil
	}
	r.stage.Draw = drawn(d.GetId())
	r.stage.Effort = func(*openai.Request) string { return d.GetFacts().GetReasoningEffort() }
	was, err := r.outcome(ctx, r.was, d)
	if err != nil {
		return err
	}
	is, err := r.outcome(ctx, r.is, d)
	if err != nil {
		return err
	}
	r.report.Replayed++
	if was == is {
		return nil
	}
	r.report.Changed++
	model := d.GetModel()
	if model == "" {
		model = d.GetRequestedModel()
	}
	key := strings.Join([]string{model, d.GetTeam(), was, is}, "\x00")
	c := r.changes[key]
	if c == nil {
		c = &Change{Model: model, Team: d.GetTeam(), Was: was, Is: is}
		r.changes[key] = c
	}
	if c.Count++; len(c.Examples) < maxExamples {
		c.Examples = append(c.Examples, d.GetId())
	}
	return nil
}

// passed is why a decision cannot be replayed; "" when it can.
func passed(d *usagev1.Decision) string {
	switch {
	case d.GetRequestedModel() == "":
		return "no model was asked for"
	case d.GetTeam() == "":
		return "the caller was not known"
	case len(d.GetRoles()) == 0:
		return "recorded without roles, by an earlier weir"
	case d.GetVerdict() == "refused" && (d.GetStage() == "auth" || d.GetStage() == "network" || d.GetStage() == "decode"):
		return "refused by " + d.GetStage()
	}
	return ""
}

// Report is what was found.
func (r *Replay) Report() *Report {
	for _, c := range r.changes {
		r.report.Changes = append(r.report.Changes, *c)
	}
	slices.SortFunc(r.report.Changes, func(a, b Change) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(a.Model+a.Team+a.Was+a.Is, b.Model+b.Team+b.Was+b.Is)
	})
	return &r.report
}

// outcome is what a plan makes of a decision.
func (r *Replay) outcome(ctx context.Context, p *plan.Plan, d *usagev1.Decision) (string, error) {
	ex := new(pipeline.Exchange)
	ex.Begin(p, d.GetId(), d.GetTime().AsTime(), nil, true)
	ex.In.Kind, ex.In.Request = ai.Kind(d.GetKind()), request(d)
	roles, who, gone := r.caller(p, d)
	if gone != "" {
		return "refused: the configuration has no " + gone, nil
	}
	ex.Principal, ex.Identity = who, ai.Identity(d.GetIdentity())
	var ok bool
	if ex.Grants, ok = plan.Grant(roles); !ok {
		return "refused: more roles than a caller may have", nil
	}
	if p.Mode("access") == plan.Enforce {
		if reason := ex.Grants.Live(ex.In.Kind, ex.In.Time, ex.In.Client); reason != ai.ReasonNone {
			return "refused: " + string(reason), nil
		}
	}
	ex.Estimate = pipeline.NewEstimate(counter{d}, ex)
	v, err := r.stage.Request(ctx, ex)
	switch {
	case err != nil:
		return "", fmt.Errorf("decision %s: %w", d.GetId(), err)
	case v.Stops():
		return "refused: " + string(v.Reason), nil
	}
	names := make([]string, len(ex.Decision.Targets))
	for i, t := range ex.Decision.Targets {
		names[i] = t.Name
	}
	return ex.Decision.Rule + ": " + strings.Join(names, ", "), nil
}

func request(d *usagev1.Decision) openai.Request {
	f := d.GetFacts()
	r := openai.Request{
		Kind: ai.Kind(d.GetKind()), Model: d.GetRequestedModel(), Stream: d.GetStream(), Tools: f.GetTools(), Vision: f.GetVision(), Audio: f.GetAudio(), Flex: f.GetFlex(),
		ThinkingBudget: f.GetThinkingBudget(), N: max(f.GetAnswers(), 1), Prompts: 1,
	}
	if f != nil && f.AskedOutputTokens != nil {
		r.MaxOutput, r.HasMaxOutput = f.GetAskedOutputTokens(), true
	}
	return r
}

// caller is who called, with the roles that the plan gives now: those of a key of the
// file by its name; else those that the plan gives to the application and the team, and
// beside them the caller's own, which are what the other plan does not give to them.
func (r *Replay) caller(p *plan.Plan, d *usagev1.Decision) (roles []*plan.Role, who ai.Principal, gone string) {
	byName := func(k *plan.Key) bool { return k.Name == d.GetKey() }
	isKey := d.GetIdentity() == string(ai.IdentityKey)
	at := slices.IndexFunc(p.KeyList, byName)
	switch {
	case isKey && at >= 0:
		who = p.KeyList[at].Principal
	case isKey && slices.ContainsFunc(r.was.KeyList, byName):
		return nil, who, "key " + d.GetKey()
	default:
		owner := plan.Owner{Team: d.GetTeam(), Application: d.GetApplication()}
		given := r.was.PrincipalOf(owner).Roles
		for _, role := range d.GetRoles() {
			if !slices.Contains(given, role) {
				owner.Roles = append(owner.Roles, role)
			}
		}
		if gone := p.Gone(owner); gone != "" {
			return nil, who, gone
		}
		who = p.PrincipalOf(owner)
		who.Key = d.GetKey()
	}
	who.User = d.GetUser()
	for _, role := range p.RolesOf(who.Roles) {
		anywhere := *role
		anywhere.Network = nil // from where it came is not recorded
		roles = append(roles, &anywhere)
	}
	return roles, who, ""
}

// counter knows of every pool what was recorded.
type counter struct{ d *usagev1.Decision }

func (c counter) Bound(*pipeline.Exchange) int64 { return c.d.GetInputTokens() }

func (c counter) Count(*pipeline.Exchange, *plan.Pool) tokens.Count {
	n := c.d.GetInputTokens()
	return tokens.Count{Tokens: n, Bound: n, Exact: c.d.GetInputCertainty() == usagev1.Certainty_CERTAINTY_COUNTED}
}

// drawn draws the same place of any range for a decision, each time: so that a draw
// changes only where the shares do.
func drawn(id string) func(n uint64) uint64 {
	at := float64(xxhash.Sum64String(id)>>11) / (1 << 53)
	return func(n uint64) uint64 { return uint64(at * float64(n)) }
}
