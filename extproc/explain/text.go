package explain

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// WriteText writes the result for a reader.
func (r *Result) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	row("verdict", r.headline())
	if r.Message != "" {
		row("message", r.Message)
	}
	if c := r.Caller; c != nil {
		row("caller", fmt.Sprintf("key %s, application %s, team %s, roles %s; known by %s, user %s, from %s",
			c.Key, dash(c.Application), dash(c.Team), dash(strings.Join(c.Roles, ", ")), c.Identity, dash(c.User), dash(c.Address)))
	}
	for _, role := range r.Roles {
		row("role", role.Name+": "+role.outcome(), role.Permits)
	}
	if q := r.Request; q != nil {
		row("request", q.text())
	}
	for _, rule := range r.Rules {
		row("rule", rule.Name+": "+rule.Outcome, rule.When)
	}
	for _, f := range r.Facts {
		row("fact", f.text())
	}
	if r.Route != "" {
		row("route", r.Route, "egress that is not permitted: "+r.EgressRefused)
	}
	if o := r.Rollout; o != nil {
		side := "not this one"
		if o.Moved {
			side = "this one too"
		}
		row("rollout", fmt.Sprintf("%.4g %% of what goes to %s goes to %s first: %s", o.Percent, o.From, o.To, side))
	}
	for _, target := range r.Targets {
		row("target", target.text())
	}
	r.Reserved.rows(row)
	for _, e := range r.Edits {
		row("edit", fmt.Sprintf("at byte %d, %d bytes become %s", e.Offset, e.Length, e.Text))
	}
	for _, s := range r.Stages {
		row("stage", fmt.Sprintf("%s (%s): %s %s", s.Name, s.Mode, s.Verdict, s.Reason))
	}
	if r.Answer != "" {
		row("answer", r.Answer)
	}
	return t.Flush()
}

func (r *Result) headline() string {
	switch {
	case r.Reason != "":
		return fmt.Sprintf("%s with %d by %s: %s", r.Verdict, r.Status, r.Stage, r.Reason)
	case r.Status != 0:
		return fmt.Sprintf("answered with %d by %s", r.Status, r.Stage)
	}
	return r.Verdict
}

func (r *Role) outcome() string {
	if r.EndedBy == "" {
		return "permits"
	}
	return "ended, " + r.EndedBy
}

func (q *Request) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, model %s", q.Kind, dash(q.RequestedModel))
	if q.Model != "" && q.Model != q.RequestedModel {
		fmt.Fprintf(&b, " (%s)", q.Model)
	}
	for _, trait := range []struct {
		name string
		has  bool
	}{{"stream", q.Stream}, {"tools", q.Tools}, {"vision", q.Vision}, {"audio", q.Audio}, {"batch", q.Batch}} {
		if trait.has {
			b.WriteString(", " + trait.name)
		}
	}
	fmt.Fprintf(&b, ", input tokens %d (%s)", q.InputTokens, q.InputCertainty)
	if q.MaxOutputTokens > 0 {
		fmt.Fprintf(&b, ", output at most %d", q.MaxOutputTokens)
	}
	return b.String()
}

func (f *Fact) text() string {
	text := fmt.Sprintf("%s is %v", f.Name, f.Value)
	if !f.Known {
		text += ", which stands for not known"
	}
	if f.Age != "" {
		text += ", told " + f.Age + " ago"
	}
	return text
}

func (t *Target) text() string {
	text := fmt.Sprintf("%s (%s, %s)", t.Pool, t.Placement, t.Model)
	if t.Dropped != "" {
		text += ": dropped, " + t.Dropped
	}
	if t.Behind != "" {
		text += ": behind the others, " + t.Behind
	}
	if t.InputCertainty != "" {
		text += fmt.Sprintf(", input tokens %d (%s)", t.InputTokens, t.InputCertainty)
		if t.InputBound != t.InputTokens {
			text += fmt.Sprintf(", at most %d", t.InputBound)
		}
	}
	return text
}

func (r *Reserve) rows(row func(...string)) {
	if r == nil {
		return
	}
	for _, l := range r.Limits {
		text := l.Name + ": " + l.in(l.Amount)
		if l.Window != "" {
			text += " in " + l.Window
		}
		if l.Left != nil {
			text += fmt.Sprintf(", %s used, %s reserved, %s left", l.in(l.Left.Used), l.in(l.Left.Reserved), l.in(l.Left.Remaining))
			if l.Left.Used > 0 {
				text += ", all of it in " + l.Left.Reset
			}
			if l.Left.Open {
				text += ", the breaker is open"
			}
		}
		if l.Refused {
			text += ": refuses"
		}
		row("limit", text)
	}
	if r.Held || r.InputTokens+r.OutputTokens > 0 {
		row("reserved", fmt.Sprintf("%d input and %d output tokens", r.InputTokens, r.OutputTokens))
	}
}

// in writes an amount in the limit's unit: money, which is counted in nano-dollars, in
// dollars.
func (l *Limit) in(n int64) string {
	switch l.Unit {
	case string(plan.UnitUSD):
		return "$" + ai.NanoUSD(n).Decimal()
	case string(plan.UnitConcurrency):
		return fmt.Sprintf("%d at a time", n)
	}
	return fmt.Sprintf("%d %s", n, l.Unit)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
