package config

import (
	"fmt"
	"time"

	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// The thinking budget, in tokens, from which on a request is one for the strong tier.
const strongBudget = 8192

// What a light request may have, unless the configuration says otherwise, in tokens.
const (
	lightInput  = 1000
	lightOutput = 512
)

// tiers are the rules that a model's tiers stand for, in the order in which they are
// tried.
func (c *compilation) tiers(path string, t *configv1.Tiers) []routeRule {
	if t == nil {
		return nil
	}
	var list []routeRule
	add := func(name, when string, targets []*configv1.Target) {
		list = append(list, routeRule{Rule: &configv1.Rule{Name: "tier-" + name, When: when, Targets: targets}, path: path + "." + name, tier: true})
	}
	if len(t.Strong) > 0 {
		add("strong", fmt.Sprintf(`reasoning_effort in ["high", "xhigh", "max"] || thinking_budget >= %d`, strongBudget), t.Strong)
	}
	switch {
	case len(t.Long) > 0 && t.LongFrom > 0:
		add("long", fmt.Sprintf("input_tokens >= %d", t.LongFrom), t.Long)
	case len(t.Long) > 0:
		c.fault(path+".long", "say from how many input tokens on a request is long: long_from")
	case t.LongFrom > 0:
		c.fault(path+".long_from", "has no effect without long")
	}
	switch name := t.OffPeakCalendar; {
	case len(t.OffPeak) > 0 && name != "" && c.out.Calendars[name] != nil:
		add("off_peak", fmt.Sprintf("calendars[%q]", name), t.OffPeak)
	case len(t.OffPeak) > 0 && name != "":
		c.fault(path+".off_peak_calendar", "unknown calendar %q", name)
	case len(t.OffPeak) > 0:
		c.fault(path+".off_peak", "say when: off_peak_calendar")
	case name != "":
		c.fault(path+".off_peak_calendar", "has no effect without off_peak")
	}
	if len(t.Light) > 0 {
		add("light", fmt.Sprintf(`kind != "embedding" && !tools && !vision && thinking_budget == 0 && reasoning_effort in ["", "none", "minimal", "low"] && `+
			`max_output_tokens <= %d && input_tokens <= %d`, t.LightOutputTokens, t.LightInputTokens), t.Light)
	}
	if len(list) == 0 && !c.under(path) {
		c.fault(path, "names no targets")
	}
	return list
}

// compileCalendars compiles the times that rules call by a name.
func (c *compilation) compileCalendars() {
	c.named("calendars", "calendar", len(c.cfg.Calendars), func(i int) string { return c.cfg.Calendars[i].Name })
	c.out.Calendars = map[string]*plan.Calendar{}
	for i, k := range c.cfg.Calendars {
		path := index("calendars", i)
		calendar := &plan.Calendar{Name: k.Name, Hours: c.hours(path+".hours", k.Hours), Zone: c.zone(path+".time_zone", k.TimeZone)}
		calendar.Dates = c.dates(path+".dates", k.Dates)
		calendar.Except = c.dates(path+".except", k.Except)
		for date := range calendar.Dates {
			if calendar.Except[date] {
				c.fault(path+".except", "%04d-%02d-%02d is among dates as well", date.Year, date.Month, date.Day)
			}
		}
		if k.Hours == nil && len(k.Dates) == 0 {
			c.fault(path, "no time is in it: give hours or dates")
		}
		if k.Name != "" {
			c.out.Calendars[k.Name] = calendar
		}
	}
}

func (c *compilation) dates(path string, list []string) map[plan.Date]bool {
	if len(list) == 0 {
		return nil
	}
	days := make(map[plan.Date]bool, len(list))
	for i, text := range list {
		day, err := time.Parse(time.DateOnly, text)
		if err != nil {
			c.fault(index(path, i), "%q is no date: want 2026-12-25", text)
			continue
		}
		days[plan.Date{Year: day.Year(), Month: day.Month(), Day: day.Day()}] = true
	}
	return days
}
