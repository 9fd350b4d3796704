package usage

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// Line tells an event in one line for people: when it ended (local time), who,
// which model, which pool, tokens and how they are known, cost, first-token
// time, verdict.
func Line(e *usagev1.Event) string {
	var b strings.Builder
	d := e.GetDecision()
	b.WriteString(e.GetEnd().AsTime().Local().Format(time.TimeOnly))
	b.WriteByte(' ')
	b.WriteString(who(d))
	b.WriteByte(' ')
	b.WriteString(what(d))
	if e.GetPool() != "" {
		b.WriteString(" → " + plain(e.GetPool()))
	}
	if Served(e).Total() > 0 {
		writeTokens(&b, e)
	}
	if a := e.GetAbandoned(); a.GetAttempts() > 0 {
		fmt.Fprintf(&b, "  given up $%s", ai.NanoUSD(a.GetCostNanousd()).Decimal())
	}
	if us := e.GetFirstTokenUs(); us > 0 {
		fmt.Fprintf(&b, "  first token %d ms", (us+500)/1000)
	}
	if n := len(e.GetAttempts()); n > 1 || n == 1 && (e.GetPool() == "" || e.GetAttempts()[0].GetFailure() != "") {
		b.WriteString("  tried " + attemptWords(e.GetAttempts()))
	}
	fmt.Fprintf(&b, "  %s %s", statusWord(e.GetStatus()), e.GetOutcome())
	if d.GetReason() != "" {
		b.WriteString(": " + plain(d.GetReason()))
	}
	return b.String()
}

func who(d *usagev1.Decision) string {
	if d.GetKey() == "" {
		return "-"
	}
	owner := d.GetTeam()
	if d.GetApplication() != "" {
		owner = d.GetApplication() + "/" + owner
	}
	return plain(d.GetKey()) + " (" + plain(owner) + ")"
}

func what(d *usagev1.Decision) string {
	switch {
	case d.GetModel() != "":
		return plain(d.GetModel())
	case d.GetRequestedModel() != "":
		return strconv.QuoteToGraphic(clip(d.GetRequestedModel(), 64))
	case d.GetKind() != "":
		return plain(d.GetKind())
	}
	return "-"
}

// writeTokens tells the answer's tokens, the classes that there are of them, and
// what they cost.
func writeTokens(b *strings.Builder, e *usagev1.Event) {
	u := Served(e)
	fmt.Fprintf(b, "  in %d (%s", u.TotalInput(), certainty(e.GetInputCertainty()))
	writeParts(b, []part{{u.CachedInput, "cached"}, {u.CacheWrite, "written to cache"}, {u.AudioInput, "audio"}, {u.ImageInput, "image"}})
	fmt.Fprintf(b, " out %d (%s", u.Output, certainty(e.GetOutputCertainty()))
	writeParts(b, []part{{u.Reasoning, "reasoning"}, {u.AudioOutput, "audio"}, {u.ImageOutput, "image"}})
	fmt.Fprintf(b, "  $%s", ai.NanoUSD(e.GetCostNanousd()-e.GetAbandoned().GetCostNanousd()).Decimal())
}

// part is one class of tokens, by its name.
type part struct {
	tokens int64
	name   string
}

func writeParts(b *strings.Builder, parts []part) {
	for _, p := range parts {
		if p.tokens > 0 {
			fmt.Fprintf(b, ", %d %s", p.tokens, p.name)
		}
	}
	b.WriteByte(')')
}

func certainty(c usagev1.Certainty) string { return ai.Certainty(c).String() }

func attemptWords(list []*usagev1.Attempt) string {
	words := make([]string, len(list))
	for i, a := range list {
		words[i] = plain(a.GetPool()) + " " + statusWord(a.GetStatus())
		if f := a.GetFailure(); f != "" && f != "status" {
			words[i] += " " + f
		}
	}
	return strings.Join(words, ", ")
}

func statusWord(status int32) string {
	if status == 0 {
		return "-"
	}
	return strconv.Itoa(int(status))
}

// plain is a name as it stands, or quoted where it would break the line or
// steer a terminal.
func plain(s string) string {
	for _, r := range s {
		if r == '"' || !strconv.IsGraphic(r) {
			return strconv.QuoteToGraphic(s)
		}
	}
	return s
}
