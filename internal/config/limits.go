package config

import (
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// compileLimits compiles the limits and reports those that count nothing.
func (c *compilation) compileLimits() {
	c.named("limits", "limit", len(c.cfg.Limits), func(i int) string { return c.cfg.Limits[i].Name })
	c.zone("time_zone", c.cfg.TimeZone)
	organisations := map[string]bool{}
	for _, t := range c.cfg.Teams {
		if t.Organisation != "" {
			organisations[t.Organisation] = true
		}
	}
	for i, l := range c.cfg.Limits {
		path := index("limits", i)
		limit := c.limits[i]
		*limit = plan.Limit{
			Name:            l.Name,
			Unit:            plan.Unit(l.Unit),
			Amount:          l.Amount,
			Window:          l.Window.AsDuration(),
			Period:          plan.Period(l.Period),
			PerOrganisation: slices.Contains(l.Per, "organisation"),
			PerTeam:         slices.Contains(l.Per, "team"),
			PerApplication:  slices.Contains(l.Per, "application"),
			PerKey:          slices.Contains(l.Per, "key"),
			PerUser:         slices.Contains(l.Per, "user"),
			PerModel:        slices.Contains(l.Per, "model"),
			PerPool:         slices.Contains(l.Per, "pool"),
			Organisations:   filter(c, path+".organisations", "organisation", l.Organisations, organisations),
			Teams:           filter(c, path+".teams", "team", l.Teams, c.teams),
			Applications:    filter(c, path+".applications", "application", l.Applications, c.apps),
			Keys:            filter(c, path+".keys", "key", l.Keys, c.keys),
			Pools:           filter(c, path+".pools", "pool", l.Pools, c.pools),
			Breaker:         l.Breaker,
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
		c.amount(path, l, limit)
		c.span(path, l, limit)
		c.breach(path, l, limit)
		c.users(path, limit)
		c.downgrades(path, l, limit)
		limit.SetBasis()
		c.out.Limits = append(c.out.Limits, limit)
	}
	for i, l := range c.cfg.Limits { // what a limit counts may come to it by another's downgrade
		if path := index("limits", i); c.filtered(path, l) && !c.counts(c.out.Limits[i]) {
			c.fault(path, "counts nothing: no caller and no model that a role permits match all of its filters")
		}
	}
	c.retention()
}

// nameLimits makes the limits, empty, so that conditions can refer to them.
func (c *compilation) nameLimits() {
	for _, l := range c.cfg.Limits {
		c.limits = append(c.limits, &plan.Limit{Name: l.Name})
	}
}

// users checks that those whom the limit counts can be told apart, where it does.
func (c *compilation) users(path string, limit *plan.Limit) {
	named := limit.Keys == nil
	for name := range limit.Keys {
		_, known := c.keys[name] // of one that is not, a fault is noted already
		named = named || !known || strings.HasPrefix(name, ai.IssuerKey(""))
	}
	switch {
	case !limit.PerUser:
	case len(c.cfg.TokenIssuers) == 0:
		c.fault(path+".per", "users are named by tokens, and there are no token_issuers: all callers would be one user")
	case !named:
		c.fault(path+".per", "users are named by tokens, and keys names no token issuer: all callers would be one user")
	}
}

// downgrades checks that a downgrade helps: a request is one request everywhere.
func (c *compilation) downgrades(path string, l *configv1.Limit, limit *plan.Limit) {
	if limit.OnBreach != plan.BreachDowngrade || limit.Unit != plan.UnitRequests && limit.Unit != plan.UnitConcurrency || limit.PerPool {
		return
	}
	counted := func(name string) bool { return c.pools[name] != nil && limit.Counts(name) }
	if len(l.DowngradeTo) > 0 && !slices.ContainsFunc(l.DowngradeTo, func(name string) bool { return !counted(name) }) {
		c.fault(path+".on_breach", "downgrades nothing: the limit counts a request in downgrade_to as well, and has no room for it there either; name the pools that it is to count")
		return
	}
	for i, name := range l.DowngradeTo {
		if counted(name) {
			c.fault(index(path+".downgrade_to", i), "never gone to: the limit counts a request at pool %q as well, and has no room for it there either", name)
		}
	}
}

// retention warns of a usage store that forgets what limits count.
func (c *compilation) retention() {
	var longest *plan.Limit
	for _, l := range c.out.Limits {
		if longest == nil || longestSpan(l) > longestSpan(longest) {
			longest = l
		}
	}
	if longest != nil && longestSpan(longest) > c.out.Usage.Retention {
		c.warn("usage.retention", "shorter than the %s of limit %q: a limit that is new counts what the usage store has, and would miss a part of it", longest.Span(), longest.Name)
	}
}

// longestSpan is the longest time over which a limit counts.
func longestSpan(l *plan.Limit) time.Duration {
	const day = 24 * time.Hour
	switch l.Period {
	case plan.Day:
		return day
	case plan.Week:
		return 7 * day
	case plan.Month:
		return 31 * day
	}
	return l.Window
}

// amount is what the limit holds: money in nano-dollars, anything else as it is.
func (c *compilation) amount(path string, l *configv1.Limit, limit *plan.Limit) {
	money := limit.Unit == plan.UnitUSD
	switch {
	case money && l.Amount != 0:
		c.fault(path+".amount", "a limit in money has its amount in usd")
	case money:
		if limit.Amount = int64(math.Round(l.Usd * 1e9)); limit.Amount < 1 {
			c.fault(path+".usd", "a limit in money needs an amount of at least a nano-dollar")
		}
	case l.Usd != 0:
		c.fault(path+".usd", "the limit counts %s and not money", l.Unit)
	case l.Amount < 1 && !c.faulty[path+".amount"]:
		c.fault(path+".amount", "must be at least 1")
	}
}

// span is the time over which the limit counts.
func (c *compilation) span(path string, l *configv1.Limit, limit *plan.Limit) {
	switch {
	case limit.Period == "" && l.TimeZone != "":
		c.fault(path+".time_zone", "has no effect without a period: windows slide")
	case limit.Unit == plan.UnitConcurrency && (limit.Period != "" || l.Window != nil):
		c.fault(path, "concurrency is counted at any moment: it has neither window nor period")
	case limit.Period != "" && l.Window != nil:
		c.fault(path+".window", "either window or period, not both")
	case limit.Period != "":
		limit.Zone = c.zone(path+".time_zone", l.TimeZone)
	}
	if limit.Breaker && limit.Period == "" {
		c.fault(path+".breaker", "needs a period: it closes when the period ends")
	}
}

// zone finds a time zone. Local is no zone: it is another one on each machine.
func (c *compilation) zone(path, name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		c.fault(path, "unknown time zone %q: want a name such as Europe/Berlin, or UTC", name)
		return time.UTC
	}
	return zone
}

// breach is what happens when the limit has no room, and who is told.
func (c *compilation) breach(path string, l *configv1.Limit, limit *plan.Limit) {
	if l.OnBreach != "refuse" {
		limit.OnBreach = plan.Breach(l.OnBreach)
	}
	if limit.Breaker && limit.OnBreach == plan.BreachReport {
		c.fault(path+".breaker", "has no effect with on_breach report: nothing is refused")
	}
	downgrades := limit.OnBreach == plan.BreachDowngrade
	switch {
	case downgrades && len(l.DowngradeTo) == 0:
		c.fault(path+".on_breach", "downgrade needs downgrade_to: the pools to go to")
	case !downgrades && len(l.DowngradeTo) > 0:
		c.fault(path+".downgrade_to", "has no effect unless on_breach is downgrade")
	}
	if limit.OnBreach != plan.BreachQueue && l.QueueWait != nil {
		c.fault(path+".queue_wait", "has no effect unless on_breach is queue")
	}
	c.distinct(path+".downgrade_to", l.DowngradeTo)
	for i, name := range l.DowngradeTo {
		if pool, ok := refer(c, index(path+".downgrade_to", i), "pool", name, c.pools); ok && pool != nil {
			limit.DowngradeTo = append(limit.DowngradeTo, pool)
		}
	}
	limit.QueueWait = l.QueueWait.AsDuration()
	if l.NoAlerts && len(l.AlertAt) > 0 {
		c.fault(path+".alert_at", "has no effect with no_alerts")
	}
	for _, percent := range l.AlertAt {
		limit.AlertAt = append(limit.AlertAt, int(percent))
	}
	slices.Sort(limit.AlertAt)
}

// compileAlerts checks where alerts go.
func (c *compilation) compileAlerts() {
	for i, w := range c.cfg.Alerts.GetWebhooks() {
		path := index("alerts.webhooks", i)
		u, err := url.Parse(w.Url)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			c.fault(path+".url", "want http(s)://host[:port]/path, without a user")
			continue
		}
		hook := plan.Webhook{URL: w.Url}
		if w.Secret != nil {
			s, ok := c.secrets.resolve(path+".secret", w.Secret)
			if !ok {
				continue
			}
			hook.Secret = []byte(s.value)
			c.material = append(c.material, s.value)
		}
		c.out.Webhooks = append(c.out.Webhooks, hook)
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
		"organisations": l.Organisations, "teams": l.Teams, "applications": l.Applications, "keys": l.Keys, "models": l.Models, "pools": l.Pools,
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
