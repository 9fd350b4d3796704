package config

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/rule"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// compileModels compiles the virtual models and their routes.
func (c *compilation) compileModels() {
	rules, err := rule.NewCompiler(c.vocabulary())
	if err != nil {
		c.fault("", "%s", err)
		return
	}
	c.models = map[string]*plan.Model{}
	c.out.Models = map[string]*plan.Model{}
	for i, m := range c.cfg.Models {
		path := index("models", i)
		model := &plan.Model{
			Name:              m.Name,
			Aliases:           m.Aliases,
			DefaultMaxTokens:  m.DefaultMaxTokens,
			MinOutputTokens:   m.MinOutputTokens,
			FirstTokenTimeout: m.FirstTokenTimeout.AsDuration(),
			AttemptTimeout:    m.AttemptTimeout.AsDuration(),
			MaxAttempts:       int(m.MaxAttempts),
			Batch:             m.Priority == "batch",
		}
		if len(m.Rules) == 0 && len(m.Targets) == 0 && !c.faulty[path+".rules"] && !c.faulty[path+".targets"] {
			c.fault(path, "neither rules nor targets: every request would be refused")
		}
		model.Targets, model.RefuseEgress = c.steps(path+".targets", m.Targets), m.EgressRefused == "refuse"
		model.Rules = c.rules(path, m, rules, model.Targets)
		model.Pools = pools(model)
		if model.Rollout = c.rollout(path+".rollout", m.Rollout, model.Pools); model.Rollout != nil && !slices.Contains(model.Pools, model.Rollout.To) {
			model.Pools = append(model.Pools, model.Rollout.To)
		}
		if model.Rollout != nil && model.MaxAttempts == 1 {
			c.warn(path+".rollout", "max_attempts is 1: what pool %q fails is not tried at pool %q, and fails for the client", model.Rollout.To.Name, model.Rollout.From.Name)
		}
		if m.Name != "" && c.models[m.Name] == nil {
			c.models[m.Name] = model
		}
		c.claim(path+".name", m.Name, model)
		for j, alias := range m.Aliases {
			c.claim(index(path+".aliases", j), alias, model)
		}
		c.windows(path, model)
		c.out.ModelList = append(c.out.ModelList, model)
	}
	slices.SortFunc(c.out.ModelList, func(a, b *plan.Model) int { return cmp.Compare(a.Name, b.Name) })
}

// pools are all pools that a model's rules and targets name, each once.
func pools(m *plan.Model) (all []*plan.Pool) {
	steps := slices.Clone(m.Targets)
	for _, r := range m.Rules {
		steps = append(steps, r.Targets...)
	}
	for _, s := range steps {
		for _, choice := range s.Choices {
			if choice.Pool != nil && !slices.Contains(all, choice.Pool) {
				all = append(all, choice.Pool)
			}
		}
	}
	return all
}

// claim gives a name or an alias to a model, once.
func (c *compilation) claim(path, name string, model *plan.Model) {
	switch taken := c.out.Models[name]; {
	case name == "":
	case taken == model:
		c.fault(path, "model %q has this name already", model.Name)
	case taken != nil:
		c.fault(path, "%q is already a name of model %q", name, taken.Name)
	default:
		c.out.Models[name] = model
	}
}

// vocabulary is what conditions may name.
func (c *compilation) vocabulary() rule.Vocabulary {
	names := map[string][]string{
		"team":        slices.Collect(maps.Keys(c.teams)),
		"application": slices.Collect(maps.Keys(c.apps)),
		"roles":       slices.Collect(maps.Keys(c.roles)),
	}
	for _, m := range c.cfg.Models {
		names["model"] = append(names["model"], m.Name)
	}
	limits := map[string]*plan.Limit{}
	for i, l := range c.cfg.Limits {
		if len(l.Pools) == 0 && !slices.Contains(l.Per, "pool") { // of those, nothing is known before the target is
			limits[l.Name] = c.limits[i]
		}
	}
	return rule.Vocabulary{HeaderFacts: c.out.Bounds.HeaderFacts, Names: names, Pools: c.pools, Limits: limits, Calendars: c.out.Calendars}
}

// routeRule is a rule with its place in the file: written there, or a tier.
type routeRule struct {
	*configv1.Rule
	path string
	tier bool
}

// routeRules are the rules of a model and, behind them, its tiers.
func (c *compilation) routeRules(path string, m *configv1.Model) []routeRule {
	var list []routeRule
	for i, r := range m.Rules {
		list = append(list, routeRule{Rule: r, path: index(path+".rules", i)})
	}
	return append(list, c.tiers(path+".tiers", m.Tiers)...)
}

// rules compiles the rules of a model; a tier's targets are followed by the model's own.
func (c *compilation) rules(path string, m *configv1.Model, compiler *rule.Compiler, own []plan.Step) []*plan.Rule {
	compiler = compiler.ForModel(m.Name)
	list := c.routeRules(path, m)
	out := make([]*plan.Rule, 0, len(list))
	conditions := make([]*rule.Condition, 0, len(list))
	names := map[string]string{}
	for _, r := range list {
		if first, again := names[r.Name]; again || r.Name == "default" {
			what := "the name of the model's own targets"
			if again {
				what = "the name of " + strings.TrimPrefix(first, path+".")
			}
			c.fault(r.path+".name", "%q is %s", r.Name, what)
		} else {
			names[r.Name] = r.path
		}
		cond := c.condition(r.path+".when", r.When, compiler)
		conditions = append(conditions, cond)
		compiled := &plan.Rule{Name: r.Name, Source: r.When, When: cond, RefuseEgress: r.EgressRefused == "refuse"}
		if r.tier {
			compiled.Targets = append(c.steps(r.path, r.Targets), own...)
			compiled.RefuseEgress = m.EgressRefused == "refuse"
		} else {
			compiled.Targets = c.steps(r.path+".targets", r.Targets)
		}
		out = append(out, compiled)
	}
	c.reachRules(path, m, list, compiler, conditions)
	return out
}

// condition compiles an expression; its faults have their place in the file
// where that is known exactly, and their place in the expression otherwise.
func (c *compilation) condition(path, source string, compiler *rule.Compiler) *rule.Condition {
	if source == "" {
		return nil // the schema's rules reported it
	}
	cond, faults := compiler.Compile(source)
	c.expressionFaults(path, faults)
	return cond
}

// expressionFaults notes the faults of an expression.
func (c *compilation) expressionFaults(path string, faults []*rule.Error) {
	for _, f := range faults {
		if line, col, ok := c.doc.expressionPlace(path, f.Line, f.Column); ok {
			c.faultAt(line, col, path, f.Message)
		} else if f.Line > 0 {
			c.fault(path, "at %d:%d of the expression: %s", f.Line, f.Column, f.Message)
		} else {
			c.fault(path, "%s", f.Message)
		}
	}
}

// steps compiles targets.
func (c *compilation) steps(path string, targets []*configv1.Target) []plan.Step {
	var out []plan.Step
	seen := map[string]bool{}
	once := func(at, pool string) {
		if pool != "" && seen[pool] {
			c.fault(at, "pool %q is a target of this route already", pool)
		}
		seen[pool] = true
	}
	for i, t := range targets {
		at := index(path, i)
		step := plan.Step{Sticky: plan.Sticky(t.Sticky)}
		if t.Sticky != "" && len(t.Split) == 0 {
			c.fault(at+".sticky", "it is of the pools that split names")
		}
		switch {
		case len(t.Any) > 0 && t.Pool == "" && len(t.Split) == 0:
			step = c.anyOf(at, t, once)
		case t.By != "":
			c.fault(at+".by", "it is of the pools that any names")
		case t.Pool != "" && len(t.Split) > 0, len(t.Any) > 0:
			c.fault(at, "one of pool, split and any")
		case t.Pool == "" && len(t.Split) == 0:
			if !c.under(at) {
				c.fault(at, "pool, split or any is required")
			}
		case t.Pool != "":
			once(at+".pool", t.Pool)
			if pool, ok := refer(c, at+".pool", "pool", t.Pool, c.pools); ok {
				step.Choices = append(step.Choices, plan.Choice{Pool: pool, Weight: 1})
			}
		case len(t.Split) == 1:
			c.fault(at+".split", "a split needs at least two pools; name the one as pool")
		}
		if t.Pool == "" {
			for j, w := range t.Split {
				where := index(at+".split", j) + ".pool"
				once(where, w.Pool)
				if pool, ok := refer(c, where, "pool", w.Pool, c.pools); ok {
					step.Choices = append(step.Choices, plan.Choice{Pool: pool, Weight: w.Weight})
				}
			}
		}
		if len(step.Choices) > 0 {
			out = append(out, step)
		}
	}
	return out
}

var orders = map[string]plan.Order{"price": plan.ByPrice, "first_token": plan.ByFirstToken, "load": plan.ByLoad}

// anyOf compiles a target whose pools are put in order for each request.
func (c *compilation) anyOf(at string, t *configv1.Target, once func(at, pool string)) plan.Step {
	step := plan.Step{By: orders[t.By]}
	switch {
	case t.By == "":
		c.fault(at+".by", "say by what the pools are put in order: price, first_token or load")
	case len(t.Any) < 2:
		c.fault(at+".any", "want at least two pools; name the one as pool")
	}
	for j, name := range t.Any {
		where := index(at+".any", j)
		once(where, name)
		if pool, ok := refer(c, where, "pool", name, c.pools); ok {
			step.Choices = append(step.Choices, plan.Choice{Pool: pool, Weight: 1})
		}
	}
	return step
}

// windows warns of a reservation that leaves no room for any input.
func (c *compilation) windows(path string, m *plan.Model) {
	for _, p := range slices.SortedFunc(slices.Values(m.Pools), func(a, b *plan.Pool) int { return cmp.Compare(a.Name, b.Name) }) {
		if p.ContextWindow > 0 && m.DefaultMaxTokens >= p.ContextWindow {
			c.warn(path+".default_max_tokens", "%d tokens of output fill the context window of pool %q", m.DefaultMaxTokens, p.Name)
		}
	}
}
