package sqlite

import (
	"strings"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store"
)

// figureColumns are the columns that are summed, of events and of roll-ups alike,
// in the order of figures.
var figureColumns = []string{
	"input", "cached_input", "cache_write", "audio_input", "image_input", "output", "reasoning", "audio_output", "image_output",
	"cost_nanousd", "input_nanousd", "output_nanousd", "abandoned", "abandoned_nanousd", "estimated",
}

const figureCount = 15

// figures are what is summed of an event, or the sums.
type figures [figureCount]int64

func figuresOf(e *usagev1.Event) figures {
	u, costs, given := e.GetTokens().Usage(), e.GetCosts().Nouns(), e.GetAbandoned()
	return figures{
		u.Input, u.CachedInput, u.CacheWrite, u.AudioInput, u.ImageInput, u.Output, u.Reasoning, u.AudioOutput, u.ImageOutput,
		e.GetCostNanousd(), int64(costs.OfInput()), int64(costs.OfOutput()), given.GetTokens().Usage().Total(), given.GetCostNanousd(), estimated(e),
	}
}

func (f *figures) add(g *figures) {
	for i, n := range g {
		f[i] += n
	}
}

// appendTo appends the figures as arguments of a statement.
func (f *figures) appendTo(args []any) []any {
	for _, n := range f {
		args = append(args, n)
	}
	return args
}

// into puts the figures into a row.
func (f *figures) into(r *store.Row) {
	r.Tokens = ai.Usage{
		Input: f[0], CachedInput: f[1], CacheWrite: f[2], AudioInput: f[3], ImageInput: f[4],
		Output: f[5], Reasoning: f[6], AudioOutput: f[7], ImageOutput: f[8],
	}
	r.Cost, r.InputCost, r.OutputCost = ai.NanoUSD(f[9]), ai.NanoUSD(f[10]), ai.NanoUSD(f[11])
	r.Abandoned, r.AbandonedCost, r.Estimated = f[12], ai.NanoUSD(f[13]), f[14]
}

// estimated is how many of an event's tokens are estimated.
func estimated(e *usagev1.Event) (n int64) {
	u := e.GetTokens().Usage()
	if e.GetInputCertainty() == usagev1.Certainty_CERTAINTY_ESTIMATED {
		n += u.TotalInput()
	}
	if e.GetOutputCertainty() == usagev1.Certainty_CERTAINTY_ESTIMATED {
		n += u.Output
	}
	return n
}

// columnList is the columns with the text around each, separated by commas.
func columnList(before, after string) string {
	list := make([]string, len(figureColumns))
	for i, c := range figureColumns {
		list[i] = before + c + after
	}
	return strings.Join(list, ", ")
}

// parameters is a list of n of them, in parentheses.
func parameters(n int) string { return "(?" + strings.Repeat(",?", n-1) + ")" }
