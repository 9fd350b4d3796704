package config

import (
	"slices"

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
			c.fault(path, "counts nothing: no caller and no model that a role permits match all of its filters")
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
