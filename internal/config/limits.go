package config

import (
	"slices"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// compileLimits compiles the limits and reports those that count nothing.
func (c *compilation) compileLimits() {
	c.named("limits", "limit", len(c.cfg.Limits), func(i int) string { return c.cfg.Limits[i].Name })
	for i, l := range c.cfg.Limits {
		path := index("limits", i)
		limit := &plan.Limit{
			Name:           l.Name,
			Unit:           plan.Unit(l.Unit),
			Amount:         l.Amount,
			Window:         l.Window.AsDuration(),
			PerKey:         slices.Contains(l.Per, "key"),
			PerApplication: slices.Contains(l.Per, "application"),
			PerTeam:        slices.Contains(l.Per, "team"),
			PerModel:       slices.Contains(l.Per, "model"),
			Teams:          filter(c, path+".teams", "team", l.Teams, c.teams),
			Applications:   filter(c, path+".applications", "application", l.Applications, c.apps),
			Keys:           filter(c, path+".keys", "key", l.Keys, c.keys),
		}
		c.distinct(path+".models", l.Models)
		for j, name := range l.Models {
			c.modelName(index(path+".models", j), name)
			if name == "*" {
				c.fault(index(path+".models", j), `leave models out to count all of them`)
			}
		}
		if len(l.Models) > 0 {
			limit.Models = set(l.Models...)
		}
		if c.filtered(path, l) && !c.counts(limit) {
			c.fault(path, "counts nothing: no key matches its filters")
		}
		c.out.Limits = append(c.out.Limits, limit)
	}
}

// filter checks the names of one filter; nil is all.
func filter[T any](c *compilation, path, kind string, names []string, among map[string]T) map[string]bool {
	c.distinct(path, names)
	for i, name := range names {
		refer(c, index(path, i), kind, name, among)
	}
	if len(names) == 0 {
		return nil
	}
	return set(names...)
}

// filtered tells whether a limit has filters, all of them without a fault.
func (c *compilation) filtered(path string, l *configv1.Limit) bool {
	some := false
	for name, list := range map[string][]string{
		"teams": l.Teams, "applications": l.Applications, "keys": l.Keys, "models": l.Models,
	} {
		some = some || len(list) > 0
		for i := range list {
			if c.faulty[index(path+"."+name, i)] {
				return false
			}
		}
	}
	return some
}

// counts tells whether any key can make a request that the limit counts.
func (c *compilation) counts(l *plan.Limit) bool {
	for _, t := range c.out.TokenIssuers {
		if l.Keys == nil || l.Keys[ai.IssuerKey(t.Name)] {
			return true // its tokens may stand for any team
		}
	}
	for _, k := range c.callers() {
		for _, m := range c.out.ModelList {
			if k.Grants.MayCall(m) && l.Applies(&k.Principal, m.Name) {
				return true
			}
		}
	}
	return false
}

// reach warns of what nobody can use.
func (c *compilation) reach() {
	used := map[string]bool{}
	for _, m := range c.out.ModelList {
		for _, p := range routed(m) {
			used[p.Name] = true
		}
	}
	for i, p := range c.cfg.Pools {
		if !used[p.Name] {
			c.warn(index("pools", i), "no model uses pool %q", p.Name)
		}
	}
	if len(c.out.TokenIssuers) > 0 {
		return // a token may have any role
	}
	held := map[string]bool{}
	for _, k := range c.callers() {
		for _, r := range k.Principal.Roles {
			held[r] = true
		}
	}
	for i, r := range c.cfg.Roles {
		if !held[r.Name] {
			c.warn(index("roles", i), "no key has role %q", r.Name)
		}
	}
	for i, m := range c.cfg.Models {
		if model := c.models[m.Name]; model != nil && len(c.callers()) > 0 {
			c.reachModel(index("models", i), model)
		}
	}
}

// reachModel warns of a model that nobody may call, or that keys may call and
// never get an answer from, because all its pools are egress to them.
func (c *compilation) reachModel(path string, m *plan.Model) {
	pools := routed(m)
	callable, answered := false, false
	for i, k := range c.callers() {
		if !k.Grants.MayCall(m) {
			continue
		}
		callable = true
		if slices.ContainsFunc(pools, k.Grants.MayReach) {
			answered = true
		} else if k.Grants.Models[m.Name] && i < len(c.out.KeyList) {
			c.warn(index("keys", i), "may call model %q, but every pool of it is egress, which no role of the key permits", m.Name)
		}
	}
	switch {
	case !callable:
		c.warn(path, "no key may call model %q", m.Name)
	case !answered && allPublic(pools):
		c.warn(path, "every pool of model %q is public, and no key that may call it has egress", m.Name)
	}
}

func allPublic(pools []*plan.Pool) bool {
	return !slices.ContainsFunc(pools, func(p *plan.Pool) bool { return p.Placement != ai.Public })
}
