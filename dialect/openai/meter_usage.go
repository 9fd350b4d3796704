package openai

import "github.com/weirproxy/weir/internal/ai"

// usageFields are the figures of one usage object as they stand there. They
// overlap; classes makes them disjoint. One figure may stand under two names, in
// one object even: then the larger one holds.
//
//	prompt_tokens, completion_tokens, total_tokens
//	prompt_tokens_details.
//	  cached_tokens                  OpenAI, vLLM, SGLang, MindIE, DashScope
//	  cache_write_tokens             OpenRouter
//	  cache_creation_input_tokens    DashScope
//	  created_cache_tokens           vLLM
//	  audio_tokens                   OpenAI, DashScope
//	  image_tokens, video_tokens     DashScope
//	  multimodal_tokens.{audio,image,video}  vLLM
//	completion_tokens_details.
//	  reasoning_tokens, audio_tokens OpenAI, DashScope, OpenRouter
//	  image_tokens                   OpenRouter
//	prompt_cache_hit_tokens          DeepSeek
//	cached_tokens                    Moonshot
//	cache_read_input_tokens, cache_creation_input_tokens  gateways before Anthropic's API
//	reasoning_tokens                 SGLang
//
// Sources, besides each provider's reference of its chat completions: DashScope's
// context cache (docs.qwencloud.com/developer-guides/text-generation/context-cache),
// OpenRouter's usage accounting (openrouter.ai/docs/use-cases/usage-accounting), and
// PromptTokenUsageInfo in vLLM's entrypoints.
type usageFields struct {
	hasPrompt bool
	broken    bool // a total that is no count

	prompt, completion, total int64
	cached, written           int64
	audioIn, imageIn, videoIn int64
	reasoning                 int64
	audioOut, imageOut        int64
}

// says tells whether the object says what was used. Without the prompt's tokens,
// or with a total that no reader can take for a count, it does not: weir's own
// figures are better than a nothing that costs nothing.
func (f *usageFields) says() bool { return f.hasPrompt && !f.broken }

// classes makes the figures disjoint. What a provider does not say is which of them
// overlap: some of what was cached may be sound. Where the parts are more than the
// whole, they overlap for certain, and the dearest kind keeps its tokens: sound,
// then images, then what was written into the cache; what was read from it gets
// the rest. So nothing is counted twice, and nothing at less than it costs.
//
// Output is what total_tokens has beyond the prompt, where that is more than
// completion_tokens: xAI and Gemini leave reasoning out of the latter.
func (f *usageFields) classes() ai.Usage {
	var u ai.Usage
	rest := f.prompt
	u.AudioInput = take(&rest, f.audioIn)
	u.ImageInput = take(&rest, f.imageIn)
	u.ImageInput += take(&rest, f.videoIn)
	u.CacheWrite = take(&rest, f.written)
	u.CachedInput = take(&rest, f.cached)
	u.Input = rest

	u.Output = max(f.completion, f.total-f.prompt)
	rest = u.Output
	u.AudioOutput = take(&rest, f.audioOut)
	u.ImageOutput = take(&rest, f.imageOut)
	u.Reasoning = take(&rest, f.reasoning)
	return u
}

// take is as much of n as there is left.
func take(rest *int64, n int64) int64 {
	n = min(n, *rest)
	*rest -= n
	return n
}

// number takes a number of the usage object that is being read; ok is false where
// it is not a count: negative, with a fraction or exponent, or beyond 64 bits.
func (m *Meter) number(at place, v int64, ok bool) {
	f := &m.cur
	if !ok {
		f.broken = f.broken || at == atPrompt || at == atCompletion
		return
	}
	switch at {
	case atPrompt:
		f.prompt, f.hasPrompt = v, true
	case atCompletion:
		f.completion = v
	case atTotal:
		f.total = v
	default:
		if part := f.part(at); part != nil {
			*part = max(*part, v)
		}
	}
}

// part is the figure that stands at a place, nil where none does.
func (f *usageFields) part(at place) *int64 {
	switch at {
	case atCached:
		return &f.cached
	case atCacheWrite:
		return &f.written
	case atAudioInput:
		return &f.audioIn
	case atImageInput:
		return &f.imageIn
	case atVideoInput:
		return &f.videoIn
	case atReasoning:
		return &f.reasoning
	case atAudioOutput:
		return &f.audioOut
	case atImageOutput:
		return &f.imageOut
	}
	return nil
}
