package ai

import (
	"math/bits"
	"strconv"
	"strings"
)

// NanoUSD is money in billionths of a US dollar.
type NanoUSD int64

const maxNanoUSD = NanoUSD(1<<63 - 1)

// Plus adds and saturates instead of overflowing; neither may be negative.
func (n NanoUSD) Plus(m NanoUSD) NanoUSD {
	if n > maxNanoUSD-m {
		return maxNanoUSD
	}
	return n + m
}

// Price is what a million tokens of each class cost, as the classes of Usage, and
// what each request costs beside its tokens. Every class has its price: whoever
// makes a Price puts that of the nearest class where none was given. None is
// negative.
type Price struct {
	Input       NanoUSD
	CachedInput NanoUSD
	CacheWrite  NanoUSD
	AudioInput  NanoUSD
	ImageInput  NanoUSD

	Output      NanoUSD // of the text of an answer
	Reasoning   NanoUSD
	AudioOutput NanoUSD
	ImageOutput NanoUSD

	Request NanoUSD // for one, not for a million
}

// Free tells whether nothing costs anything.
func (p Price) Free() bool { return p == Price{} }

// Costs is what a request costs, by what it is paid for. The classes are those of
// Usage; but Output is that of the text alone, so that all of them add up.
type Costs struct {
	Input, CachedInput, CacheWrite, AudioInput, ImageInput NanoUSD
	Output, Reasoning, AudioOutput, ImageOutput            NanoUSD
	Request                                                NanoUSD
}

// OfInput is what all classes of input cost.
func (c Costs) OfInput() NanoUSD {
	return c.Input.Plus(c.CachedInput).Plus(c.CacheWrite).Plus(c.AudioInput).Plus(c.ImageInput)
}

// OfOutput is what all classes of output cost.
func (c Costs) OfOutput() NanoUSD {
	return c.Output.Plus(c.Reasoning).Plus(c.AudioOutput).Plus(c.ImageOutput)
}

// Total adds up.
func (c Costs) Total() NanoUSD { return c.OfInput().Plus(c.OfOutput()).Plus(c.Request) }

// Costs is what one request that used u costs, each class rounded up to the next
// nano-dollar. It saturates instead of overflowing. The parts of u's
// output must be no more than there is of it, as Clamp leaves them.
func (p Price) Costs(u Usage) Costs {
	text := max(u.Output, 0)
	for _, part := range [...]int64{u.Reasoning, u.AudioOutput, u.ImageOutput} {
		text = max(0, text-max(part, 0))
	}
	return Costs{
		Input:       classCost(u.Input, p.Input),
		CachedInput: classCost(u.CachedInput, p.CachedInput),
		CacheWrite:  classCost(u.CacheWrite, p.CacheWrite),
		AudioInput:  classCost(u.AudioInput, p.AudioInput),
		ImageInput:  classCost(u.ImageInput, p.ImageInput),
		Output:      classCost(text, p.Output),
		Reasoning:   classCost(u.Reasoning, p.Reasoning),
		AudioOutput: classCost(u.AudioOutput, p.AudioOutput),
		ImageOutput: classCost(u.ImageOutput, p.ImageOutput),
		Request:     max(p.Request, 0),
	}
}

// Cost is the total of Costs.
func (p Price) Cost(u Usage) NanoUSD { return p.Costs(u).Total() }

// Bound is the most that one request can cost with at most so many tokens of input
// and of output, of whatever classes: Cost of no such usage is more. It saturates.
func (p Price) Bound(input, output int64) NanoUSD {
	in := bound(input, p.Input, p.CachedInput, p.CacheWrite, p.AudioInput, p.ImageInput)
	out := bound(output, p.Output, p.Reasoning, p.AudioOutput, p.ImageOutput)
	return in.Plus(out).Plus(max(p.Request, 0))
}

// bound is what the tokens cost at the dearest of the prices, and what rounding up
// can add to that: less than a nano-dollar for each class whose price is a fraction
// of one for a token; nothing where all tokens are of one class.
func bound(tokens int64, prices ...NanoUSD) NanoUSD {
	var dearest NanoUSD
	var fractions int64
	for _, p := range prices {
		dearest = max(dearest, p)
		if p%1_000_000 != 0 {
			fractions++
		}
	}
	if tokens <= 0 || dearest <= 0 {
		return 0
	}
	return classCost(tokens, dearest).Plus(NanoUSD(min(tokens-1, fractions)))
}

// classCost rounds up and saturates.
func classCost(tokens int64, perMillion NanoUSD) NanoUSD {
	if tokens <= 0 || perMillion <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(tokens), uint64(perMillion))
	lo, carry := bits.Add64(lo, 999_999, 0)
	if hi += carry; hi >= 1_000_000 {
		return maxNanoUSD
	}
	q, _ := bits.Div64(hi, lo, 1_000_000)
	if q > uint64(maxNanoUSD) {
		return maxNanoUSD
	}
	return NanoUSD(q)
}

// Decimal writes the amount in dollars, exactly, with at least two decimals:
// 412000 is "0.000412".
func (n NanoUSD) Decimal() string {
	sign, u := "", uint64(n)
	if n < 0 {
		sign, u = "-", -u
	}
	whole, frac := u/1e9, strconv.FormatUint(1e9+u%1e9, 10)[1:]
	frac = frac[:2] + strings.TrimRight(frac[2:], "0")
	return sign + strconv.FormatUint(whole, 10) + "." + frac
}
