package config

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// compileRoles compiles the roles.
func (c *compilation) compileRoles() {
	c.out.Roles = map[string]*plan.Role{}
	for i, r := range c.cfg.Roles {
		first(c.out.Roles, r.Name, c.role(index("roles", i), r))
	}
}

func (c *compilation) role(path string, r *configv1.Role) *plan.Role {
	c.distinct(path+".models", r.Models)
	for j, name := range r.Models {
		c.modelName(index(path+".models", j), name)
	}
	if len(r.Models) > 1 && slices.Contains(r.Models, "*") {
		c.fault(path+".models", `"*" is all models: name no others beside it`)
	}
	out := &plan.Role{
		Name: r.Name, AllModels: slices.Contains(r.Models, "*"),
		MaxContext: r.MaxContextTokens, MaxOutput: r.MaxOutputTokens, Hours: c.hours(path+".hours", r.Hours),
		Network: c.network(path+".network", r.Network),
	}
	if !out.AllModels {
		out.Models = set(r.Models...)
	}
	for _, name := range r.Endpoints {
		out.Endpoints = append(out.Endpoints, ai.Kind(name))
	}
	for _, f := range plan.AllFeatures {
		if slices.Contains(r.DenyFeatures, f.Name) {
			out.Denied |= f.Feature
		}
	}
	c.egress(path, r, out)
	c.distinct(path+".pools", r.Pools)
	for j, name := range r.Pools {
		at := index(path+".pools", j)
		if pool, ok := refer(c, at, "pool", name, c.pools); ok && pool.Placement == ai.Public && !r.Egress {
			c.fault(at, "pool %q is public: reaching it needs egress: true", name)
		}
	}
	if len(r.Pools) > 0 {
		out.Pools = set(r.Pools...)
	}
	c.bars(path, r, out)
	return out
}

func (c *compilation) egress(path string, r *configv1.Role, out *plan.Role) {
	out.AllEgress = r.Egress && len(r.EgressPools) == 0
	if len(r.EgressPools) > 0 && !r.Egress {
		c.fault(path+".egress_pools", "grants nothing without egress: true")
	}
	c.distinct(path+".egress_pools", r.EgressPools)
	for j, name := range r.EgressPools {
		at := index(path+".egress_pools", j)
		pool, ok := refer(c, at, "pool", name, c.pools)
		switch {
		case !ok:
		case pool.Placement == ai.Private:
			c.fault(at, "pool %q is private: reaching it is no egress", name)
		case len(r.Pools) > 0 && !slices.Contains(r.Pools, name):
			c.fault(at, "grants nothing: pool %q is not among the role's pools", name)
		}
	}
	if r.Egress {
		out.EgressPools = set(r.EgressPools...)
	}
}

// features are those that requests to an endpoint can use.
var features = map[ai.Kind]plan.Features{
	ai.KindChat:       plan.Tools | plan.Vision | plan.Streaming,
	ai.KindCompletion: plan.Streaming,
}

// bars reports what a role bars and no request that it permits otherwise has.
func (c *compilation) bars(path string, r *configv1.Role, role *plan.Role) {
	permits := func(kinds ...ai.Kind) bool {
		return len(role.Endpoints) == 0 || slices.ContainsFunc(kinds, func(k ai.Kind) bool { return slices.Contains(role.Endpoints, k) })
	}
	for i, name := range r.DenyFeatures {
		for _, f := range plan.AllFeatures {
			if f.Name == name && !permits(ai.KindChat) && (f.Feature&features[ai.KindCompletion] == 0 || !permits(ai.KindCompletion)) {
				c.fault(index(path+".deny_features", i), "denies nothing: no endpoint of the role has %s", name)
			}
		}
	}
	if r.MaxContextTokens > 0 && !permits(ai.KindChat, ai.KindCompletion, ai.KindEmbedding) {
		c.fault(path+".max_context_tokens", "bounds nothing: no endpoint of the role takes input")
	}
	if r.MaxOutputTokens > 0 && !permits(ai.KindChat, ai.KindCompletion) {
		c.fault(path+".max_output_tokens", "bounds nothing: no endpoint of the role has output")
	}
}

var weekdays = map[string]time.Weekday{
	"sun": time.Sunday, "mon": time.Monday, "tue": time.Tuesday, "wed": time.Wednesday, "thu": time.Thursday, "fri": time.Friday, "sat": time.Saturday,
}

// hours compiles times of the week.
func (c *compilation) hours(path string, h *configv1.Hours) *plan.Hours {
	if h == nil {
		return nil
	}
	zone, err := time.LoadLocation(h.TimeZone)
	switch {
	case h.TimeZone == "": // the schema's rules reported it
		return nil
	case err != nil:
		c.fault(path+".time_zone", "unknown time zone %q: want an IANA name, as Europe/Berlin", h.TimeZone)
		return nil
	case h.TimeZone == "Local":
		c.fault(path+".time_zone", "the zone of the machine is not a fixed one: want an IANA name, as Europe/Berlin")
		return nil
	}
	out := plan.NewHours(zone)
	for i, w := range h.Windows {
		c.window(index(path+".windows", i), w, out)
	}
	if out.Always() {
		c.fault(path, "every time of the week is within the windows: leave hours out")
	}
	return out
}

func (c *compilation) window(path string, w *configv1.HourWindow, out *plan.Hours) {
	from, ok1 := c.clock(path+".from", w.From)
	to, ok2 := c.clock(path+".to", w.To)
	if !ok1 || !ok2 {
		return
	}
	switch {
	case from == 24*60:
		c.fault(path+".from", "24:00 is an end: write 00:00 of the next day")
		return
	case from == to:
		c.fault(path+".to", "the window is empty; a whole day is from 00:00 to 24:00")
		return
	}
	days := w.Days
	if len(days) == 0 {
		days = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
	}
	added := false
	for _, d := range days {
		if day, ok := weekdays[d]; ok {
			added = out.Add(day, from, to) || added
		}
	}
	if !added && !c.under(path) {
		c.fault(path, "adds nothing: all of it is within the windows before it")
	}
}

// clock reads HH:MM as minutes of the day.
func (c *compilation) clock(path, text string) (int, bool) {
	if text == "" {
		return 0, false // the schema's rules reported it
	}
	hour, minute, ok := strings.Cut(text, ":")
	h, err1 := strconv.ParseUint(hour, 10, 8)
	m, err2 := strconv.ParseUint(minute, 10, 8)
	if !ok || err1 != nil || err2 != nil || len(hour) != 2 || len(minute) != 2 || m > 59 || h*60+m > 24*60 {
		c.fault(path, "want a time of the day from \"00:00\" to \"24:00\"")
		return 0, false
	}
	return int(h*60 + m), true
}

// held are the roles that a caller has; too many cannot be judged.
func (c *compilation) held(path string, names []string) []*plan.Role {
	c.countRoles(path, len(names))
	return c.out.RolesOf(names)
}

func (c *compilation) countRoles(path string, n int) {
	if n > plan.MaxRoles {
		c.fault(path, "%d roles, those of its application and team included: at most %d", n, plan.MaxRoles)
	}
}
