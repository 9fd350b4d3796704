package config

import (
	"reflect"
	"slices"
	"strconv"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// reach reports what no request can meet. A policy that applies to nothing is a
// fault: whoever wrote it believes that it does something. What is only unused is
// a warning. Keys can be made while weir runs, so that what could be given to one
// counts as reached: teams, applications and roles are what there is.
func (c *compilation) reach() {
	c.reachPools()
	c.reachRoles()
	for i, m := range c.cfg.Models {
		path := index("models", i)
		c.reachModel(path, c.models[m.Name])
		c.refusals(path, m)
	}
	c.bindingLimits()
	c.reachModes()
}

// reachable are the pools that a request for the model may go to: those of its
// routes, and those to which a limit of its requests downgrades them.
func (c *compilation) reachable(m *plan.Model) []*plan.Pool {
	all := slices.Clone(m.Pools)
	for _, l := range c.out.Limits {
		if l.OnBreach != plan.BreachDowngrade || !in(l.Models, m.Name) || !slices.ContainsFunc(m.Pools, func(p *plan.Pool) bool { return l.Counts(p.Name) }) {
			continue // it never refuses a request for the model
		}
		for _, p := range l.DowngradeTo {
			if !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	return all
}

func (c *compilation) reachPools() {
	used := map[*plan.Pool]bool{}
	for _, m := range c.out.ModelList {
		for _, p := range c.reachable(m) {
			used[p] = true
		}
	}
	for i, p := range c.cfg.Pools {
		if !used[c.pools[p.Name]] {
			c.warn(index("pools", i), "no model uses pool %q", p.Name)
		}
	}
}

// reachRoles reports grants that no request can use, and roles that nobody has.
func (c *compilation) reachRoles() {
	held := map[string]bool{}
	hold := func(names []string) {
		for _, name := range names {
			held[name] = true
		}
	}
	for _, t := range c.cfg.Teams {
		hold(t.Roles)
	}
	for _, a := range c.cfg.Applications {
		hold(a.Roles)
	}
	for _, k := range c.cfg.Keys {
		hold(k.Roles)
	}
	for _, w := range c.cfg.Workloads {
		hold(w.Roles)
	}
	for i, r := range c.cfg.Roles {
		path := index("roles", i)
		if !held[r.Name] && len(c.cfg.TokenIssuers) == 0 { // a token can have any role
			c.warn(path, "no team, application or key of this file has role %q", r.Name)
		}
		c.reachGrants(path, r, c.out.Roles[r.Name])
	}
}

// reachGrants reports what one role grants and nobody can use.
func (c *compilation) reachGrants(path string, r *configv1.Role, role *plan.Role) {
	var routed []*plan.Pool // by the models that the role permits
	some := false
	for _, m := range c.out.ModelList {
		switch {
		case !role.MayCall(m):
		case slices.ContainsFunc(m.Pools, role.MayReach):
			some = true
			routed = append(routed, c.reachable(m)...)
		default: // refused before any limit could downgrade it
			routed = append(routed, m.Pools...)
		}
	}
	if role.AllModels && !some {
		c.fault(path+".models", "grants nothing: the role may reach no pool of any model%s", egressHint(routed, role))
	}
	for j, name := range r.Models {
		if m := c.models[name]; m != nil && !slices.ContainsFunc(m.Pools, role.MayReach) {
			c.fault(index(path+".models", j), "grants nothing: the role may reach no pool of model %q%s", name, egressHint(m.Pools, role))
		}
	}
	for j, name := range r.Pools {
		if !slices.Contains(routed, c.pools[name]) {
			c.fault(index(path+".pools", j), "grants nothing: no route of the role's models has pool %q", name)
		}
	}
	for j, name := range r.EgressPools {
		if !slices.Contains(routed, c.pools[name]) {
			c.fault(index(path+".egress_pools", j), "grants nothing: no route of the role's models has pool %q", name)
		}
	}
	if role.AllEgress && !slices.ContainsFunc(routed, func(p *plan.Pool) bool { return p.Placement == ai.Public && role.MayUse(p) }) {
		c.warn(path+".egress", "grants nothing: no route of the role's models has a public pool")
	}
	c.reachBounds(path, role, routed)
}

func egressHint(pools []*plan.Pool, r *plan.Role) string {
	if slices.ContainsFunc(pools, func(p *plan.Pool) bool { return r.MayUse(p) && !r.MayLeave(p) }) {
		return "; public ones need egress"
	}
	return ""
}

// reachBounds warns of bounds above what any pool takes.
func (c *compilation) reachBounds(path string, r *plan.Role, pools []*plan.Pool) {
	window := int64(0)
	for _, p := range pools {
		if !r.MayReach(p) {
			continue
		}
		if p.ContextWindow == 0 {
			return // not known
		}
		window = max(window, p.ContextWindow)
	}
	if window > 0 && r.MaxContext >= window {
		c.warn(path+".max_context_tokens", "never met: no pool of the role takes more than %d tokens", window)
	}
	if window > 0 && r.MaxOutput >= window {
		c.warn(path+".max_output_tokens", "never met: no pool of the role takes more than %d tokens", window)
	}
}

// reachModel reports routes that no role can take, and models that none permits.
func (c *compilation) reachModel(path string, m *plan.Model) {
	var roles []*plan.Role
	for _, r := range c.cfg.Roles {
		if role := c.out.Roles[r.Name]; role.MayCall(m) {
			roles = append(roles, role)
		}
	}
	if len(roles) == 0 {
		c.warn(path, "no role permits model %q", m.Name)
		return
	}
	for i, r := range m.Rules {
		c.reachRoute(index(path+".rules", i)+".targets", m, r.Targets, roles)
	}
	c.reachRoute(path+".targets", m, m.Targets, roles)
}

func (c *compilation) reachRoute(path string, m *plan.Model, steps []plan.Step, roles []*plan.Role) {
	var barred []func()
	some := len(steps) == 0
	for i, s := range steps {
		for j, choice := range s.Choices {
			if slices.ContainsFunc(roles, func(r *plan.Role) bool { return r.MayReach(choice.Pool) }) {
				some = true
				continue
			}
			at := index(path, i) + ".pool"
			if len(s.Choices) > 1 {
				at = index(index(path, i)+".split", j) + ".pool"
			}
			barred = append(barred, func() {
				c.warn(at, "never tried: no role that permits model %q may reach pool %q", m.Name, choice.Pool.Name)
			})
		}
	}
	if !some {
		c.fault(path, "never reached: no role that permits model %q may reach any of these pools", m.Name)
		return
	}
	for _, warn := range barred {
		warn()
	}
}

// refusals reports egress_refused where it changes nothing.
func (c *compilation) refusals(path string, m *configv1.Model) {
	c.refusal(path, m.EgressRefused, m.Targets)
	for i, r := range m.Rules {
		c.refusal(index(path+".rules", i), r.EgressRefused, r.Targets)
	}
}

func (c *compilation) refusal(path, choice string, targets []*configv1.Target) {
	public := func(t *configv1.Target) bool {
		return c.isPublic(t.Pool) || slices.ContainsFunc(t.Split, func(w *configv1.WeightedPool) bool { return c.isPublic(w.Pool) })
	}
	if choice == "" || len(targets) > 1 && slices.ContainsFunc(targets[:len(targets)-1], public) {
		return
	}
	c.fault(path+".egress_refused", "decides nothing: no target comes after a public one")
}

func (c *compilation) isPublic(pool string) bool {
	p := c.pools[pool]
	return p != nil && p.Placement == ai.Public
}

// reachModes reports modes of stages that have nothing to judge, and bounds that
// rest on a stage that is not enforced.
func (c *compilation) reachModes() {
	if mode := c.out.Mode("quota"); mode != plan.Enforce {
		if len(c.cfg.Limits) == 0 {
			for i, s := range c.cfg.Stages {
				if s.Stage == "quota" {
					c.fault(index("stages", i), "there are no limits: stage quota has nothing to judge")
				}
			}
		}
		for i, r := range c.cfg.Roles {
			if r.MaxOutputTokens > 0 {
				c.fault(index("roles", i)+".max_output_tokens", "needs stage quota, which is in mode %s: it gives requests their ceiling", mode)
			}
		}
	}
}

// counts tells whether there can be a request that the limit counts.
func (c *compilation) counts(l *plan.Limit) bool {
	return c.countsCaller(l) && c.countsOrganisation(l) && slices.ContainsFunc(c.out.ModelList, func(m *plan.Model) bool {
		return in(l.Models, m.Name) && c.permitted(m) && slices.ContainsFunc(c.reachable(m), func(p *plan.Pool) bool { return l.Counts(p.Name) })
	})
}

// countsOrganisation tells whether a team that the limit counts is of an
// organisation that it counts.
func (c *compilation) countsOrganisation(l *plan.Limit) bool {
	if l.Organisations == nil {
		return true
	}
	return slices.ContainsFunc(c.cfg.Teams, func(t *configv1.Team) bool { return in(l.Teams, t.Name) && l.Organisations[t.Organisation] })
}

func (c *compilation) countsCaller(l *plan.Limit) bool {
	if l.Keys != nil {
		for name := range l.Keys {
			// What stands for a key and has no team can stand for any.
			k := c.keys[name]
			if k != nil && (k.Principal.Team == "" || in(l.Teams, k.Principal.Team) && in(l.Applications, k.Principal.Application)) {
				return true
			}
		}
		return false
	}
	if l.Applications == nil {
		return true // a key of any team
	}
	for name := range l.Applications {
		if app := c.apps[name]; app != nil && in(l.Teams, app.Team) {
			return true
		}
	}
	return false
}

// permitted tells whether any role permits the model.
func (c *compilation) permitted(m *plan.Model) bool {
	for _, r := range c.out.Roles {
		if r.MayCall(m) {
			return true
		}
	}
	return false
}

func in(set map[string]bool, name string) bool { return set == nil || set[name] }

// bindingLimits warns of limits that are never reached, because another counts
// all that they count, over as long a time, and allows no more.
func (c *compilation) bindingLimits() {
	for i, l := range c.out.Limits {
		for j, wider := range c.out.Limits {
			if i == j || !covers(wider, l) || j > i && covers(l, wider) {
				continue
			}
			c.warn(index("limits", i)+".amount", "never reached: limit %q counts the same requests and allows %s in %s", wider.Name, inUnit(wider), wider.Window)
			break
		}
	}
}

// covers tells whether what wider allows is never more than what l allows, and
// they are alike in all that is not compared here.
func covers(wider, l *plan.Limit) bool {
	if !reflect.DeepEqual(rest(wider), rest(l)) {
		return false
	}
	unit := wider.Unit == l.Unit || wider.Unit == plan.UnitTokens && (l.Unit == plan.UnitInputTokens || l.Unit == plan.UnitOutputTokens)
	per := (!wider.PerKey || l.PerKey) && (!wider.PerApplication || l.PerApplication) && (!wider.PerTeam || l.PerTeam) && (!wider.PerModel || l.PerModel)
	return unit && per && wider.Amount <= l.Amount && wider.Window >= l.Window &&
		within(l.Teams, wider.Teams) && within(l.Applications, wider.Applications) && within(l.Keys, wider.Keys) && within(l.Models, wider.Models)
}

// rest is a limit without what covers compares.
func rest(l *plan.Limit) plan.Limit {
	r := *l
	r.Name, r.Basis, r.Unit, r.Amount, r.Window = "", "", "", 0, 0
	r.PerKey, r.PerApplication, r.PerTeam, r.PerModel = false, false, false, false
	r.Teams, r.Applications, r.Keys, r.Models = nil, nil, nil, nil
	return r
}

// within tells whether a filter passes nothing that the wider one does not; nil
// passes all.
func within(filter, wider map[string]bool) bool {
	if wider == nil {
		return true
	}
	if filter == nil {
		return false
	}
	for name := range filter {
		if !wider[name] {
			return false
		}
	}
	return true
}

// inUnit is a limit's amount as people write it.
func inUnit(l *plan.Limit) string {
	if l.Unit == plan.UnitUSD {
		return "$" + ai.NanoUSD(l.Amount).Decimal()
	}
	return strconv.FormatInt(l.Amount, 10)
}
