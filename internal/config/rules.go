package config

import (
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/rule"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// reachRules reports the rules of a model that no request reaches.
func (c *compilation) reachRules(path string, m *configv1.Model, list []routeRule, compiler *rule.Compiler, conditions []*rule.Condition) {
	if len(list) == 0 {
		return
	}
	found := compiler.Reach(conditions, c.world(m.Name))
	sources := map[string]int{}
	for i, r := range list {
		source := strings.Join(strings.Fields(r.When), " ")
		first, again := sources[source]
		switch {
		case again && source != "":
			c.fault(r.path+".when", "never reached: the same condition as in %s", strings.TrimPrefix(list[first].path, path+"."))
		case found[i].Outcome == rule.Never:
			c.fault(r.path+".when", "never holds, whoever calls and whatever is asked: mend it, or leave the rule out")
		case found[i].Outcome == rule.Shadowed:
			c.fault(r.path, "never reached: %s; put it before, or leave it out", shadowing(list, conditions, found[i]))
		}
		if !again {
			sources[source] = i
		}
		c.keyNames(r.path+".when", conditions[i])
	}
	if last := found[len(list)]; last.Outcome == rule.Shadowed && len(m.Targets) > 0 {
		if last.By < 0 {
			c.fault(path+".targets", "never reached: one of the rules always holds")
			return
		}
		c.fault(path+".targets", "never reached: rule %q always holds", list[last.By].Name)
	}
}

// shadowing says which rules come before one that is never reached.
func shadowing(list []routeRule, conditions []*rule.Condition, r rule.Reach) string {
	if r.By < 0 {
		return "whenever it holds, one of the rules before it holds"
	}
	if _, always := conditions[r.By].Constant(); always {
		return "rule \"" + list[r.By].Name + "\" before it always holds"
	}
	return "whenever it holds, rule \"" + list[r.By].Name + "\" before it holds"
}

// keyNames warns of keys that the file does not have: such a key can be made
// while weir runs, and is as likely a slip.
func (c *compilation) keyNames(path string, cond *rule.Condition) {
	if cond == nil {
		return
	}
	for _, name := range cond.Compared("key") {
		if keyless, exists := c.keyless(name); keyless {
			if !exists {
				c.fault(path, "key is never %q: nothing of this name is configured", name)
			}
			continue
		}
		if !slices.ContainsFunc(c.cfg.Keys, func(k *configv1.Key) bool { return k.Name == name }) {
			c.warn(path, "this file has no key %q: the condition waits for one of that name", name)
		}
	}
}

// nameCallers learns what kinds of callers there can be: keys of every team and
// application, with their roles and any others.
func (c *compilation) nameCallers() {
	for _, t := range c.cfg.Teams {
		c.kinds = append(c.kinds, rule.Caller{Team: t.Name, Roles: t.Roles})
	}
	for _, a := range c.cfg.Applications {
		roles := append(slices.Clone(c.teams[a.Team].GetRoles()), a.Roles...)
		c.kinds = append(c.kinds, rule.Caller{Team: a.Team, Application: a.Name, Roles: roles})
	}
}

// world is who can call a model: whoever has a role that permits it.
func (c *compilation) world(model string) rule.World {
	w := rule.World{Model: model, Callers: c.kinds}
	for _, r := range c.cfg.Roles {
		if slices.Contains(r.Models, model) || slices.Contains(r.Models, "*") {
			w.Granting = append(w.Granting, r.Name)
		}
	}
	return w
}
