// Package usagev1 is the usage event: the generated messages, and what turns them into
// the nouns of package ai and back.
package usagev1

import "github.com/weirproxy/weir/internal/ai"

// TokensOf are the tokens of u.
func TokensOf(u ai.Usage) *Tokens {
	return &Tokens{
		Input: u.Input, CachedInput: u.CachedInput, CacheWrite: u.CacheWrite, AudioInput: u.AudioInput, ImageInput: u.ImageInput,
		Output: u.Output, Reasoning: u.Reasoning, AudioOutput: u.AudioOutput, ImageOutput: u.ImageOutput,
	}
}

// Usage is what TokensOf was given; nothing for nil.
func (x *Tokens) Usage() ai.Usage {
	return ai.Usage{
		Input: x.GetInput(), CachedInput: x.GetCachedInput(), CacheWrite: x.GetCacheWrite(), AudioInput: x.GetAudioInput(), ImageInput: x.GetImageInput(),
		Output: x.GetOutput(), Reasoning: x.GetReasoning(), AudioOutput: x.GetAudioOutput(), ImageOutput: x.GetImageOutput(),
	}
}

// CostsOf are the costs of c.
func CostsOf(c ai.Costs) *Costs {
	return &Costs{
		Input: int64(c.Input), CachedInput: int64(c.CachedInput), CacheWrite: int64(c.CacheWrite), AudioInput: int64(c.AudioInput), ImageInput: int64(c.ImageInput),
		Output: int64(c.Output), Reasoning: int64(c.Reasoning), AudioOutput: int64(c.AudioOutput), ImageOutput: int64(c.ImageOutput),
		Request: int64(c.Request),
	}
}

// Nouns is what CostsOf was given; nothing for nil.
func (x *Costs) Nouns() ai.Costs {
	return ai.Costs{
		Input: ai.NanoUSD(x.GetInput()), CachedInput: ai.NanoUSD(x.GetCachedInput()), CacheWrite: ai.NanoUSD(x.GetCacheWrite()),
		AudioInput: ai.NanoUSD(x.GetAudioInput()), ImageInput: ai.NanoUSD(x.GetImageInput()),
		Output: ai.NanoUSD(x.GetOutput()), Reasoning: ai.NanoUSD(x.GetReasoning()), AudioOutput: ai.NanoUSD(x.GetAudioOutput()),
		ImageOutput: ai.NanoUSD(x.GetImageOutput()), Request: ai.NanoUSD(x.GetRequest()),
	}
}

// SetPrice sets what a pool costs. A class that costs as its nearest one is left out.
func (x *TargetPrice) SetPrice(p ai.Price) {
	differs := func(price, nearest ai.NanoUSD) *int64 {
		if price == nearest {
			return nil
		}
		n := int64(price)
		return &n
	}
	x.Input, x.CachedInput, x.Output, x.Request = int64(p.Input), int64(p.CachedInput), int64(p.Output), int64(p.Request)
	x.CacheWrite, x.AudioInput, x.ImageInput = differs(p.CacheWrite, p.Input), differs(p.AudioInput, p.Input), differs(p.ImageInput, p.Input)
	x.Reasoning, x.AudioOutput, x.ImageOutput = differs(p.Reasoning, p.Output), differs(p.AudioOutput, p.Output), differs(p.ImageOutput, p.Output)
}

// Price is what SetPrice was given; nothing for nil. What was written before the
// classes were told apart costs as their nearest ones.
func (x *TargetPrice) Price() ai.Price {
	if x == nil {
		return ai.Price{}
	}
	or := func(price *int64, nearest int64) ai.NanoUSD {
		if price == nil {
			return ai.NanoUSD(nearest)
		}
		return ai.NanoUSD(*price)
	}
	return ai.Price{
		Input: ai.NanoUSD(x.Input), CachedInput: ai.NanoUSD(x.CachedInput),
		CacheWrite: or(x.CacheWrite, x.Input), AudioInput: or(x.AudioInput, x.Input), ImageInput: or(x.ImageInput, x.Input),
		Output: ai.NanoUSD(x.Output), Reasoning: or(x.Reasoning, x.Output), AudioOutput: or(x.AudioOutput, x.Output), ImageOutput: or(x.ImageOutput, x.Output),
		Request: ai.NanoUSD(x.Request),
	}
}
