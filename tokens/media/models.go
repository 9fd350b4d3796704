package media

import "strings"

// family is the rules of all models whose names begin alike.
type family struct {
	prefix string
	rules  Rules
}

// The longest inputs of the families, in tokens.
const (
	context128K = 128_000
	context200K = 200_000
	context256K = 262_144
	context400K = 400_000
	context1M   = 1_050_000
)

// defaultCap is for films, sounds and documents of models that state none.
const defaultCap = 131_072

// OpenAI's sizings, as "Images and vision" has them.
var (
	fit512    = Sizing{Edge: 512}
	fit2048   = Sizing{Edge: 2048, Budget: 6144} // the edge alone allows 4096 patches
	budget1K  = Sizing{Edge: 2048, Budget: 1536}
	budget2K  = Sizing{Edge: 2048, Budget: 2500}
	budget10K = Sizing{Edge: 6000, Budget: 10000}
	anySize   = Sizing{Edge: 65535}
)

// always is one sizing for every detail.
func always(z Sizing) Patches { return Patches{Auto: z, Low: z, High: z, Original: z} }

// times sets the factor, in tokens per hundred patches, and what another source
// says of both.
func (r Patches) times(factor, boundFactor int64, bound Sizing) Patches {
	r.Factor, r.BoundFactor, r.BoundSizing = factor, boundFactor, bound
	return r
}

var (
	gpt56 = Patches{Auto: anySize, Low: fit512, High: budget2K, Original: anySize}.times(120, 0, Sizing{})
	gpt55 = Patches{Auto: budget10K, Low: fit512, High: budget2K, Original: budget10K}.times(120, 0, Sizing{})
	gpt54 = Patches{Auto: budget2K, Low: fit2048, High: budget2K, Original: budget10K}
	gpt5  = Tiles{70, 140}
	gpt4  = Tiles{85, 170}
	o1    = Tiles{75, 150}
)

// openAI is the rules of a model of OpenAI's. Of sound it counts a token for
// each tenth of a second (not verified), of a page what a page's image and its
// text come to (not verified).
func openAI(image ImageRule, context int64) Rules {
	beside := int64(0)
	if _, ok := image.(Patches); ok {
		beside = 2 // bills of gpt-4.1-mini and o4-mini have two more than the guide says
	}
	return Rules{
		Image:    image,
		Beside:   beside,
		Audio:    AudioRule{PerSecond: 10, Beside: 16, Cap: context},
		Video:    VideoRule{PerSecond: 300, Usual: 16384, Cap: context},
		Document: DocumentRule{PerPage: 1600, Cap: context},
		Context:  context,
	}
}

// qwen is the rules of Qwen's models. A film is taken by two frames a second, in
// pairs; the cap is the context, for vLLM takes 32 frames at an image's limits.
// Whisper's encoder and a join of two make 25 tokens a second, and 13 in Qwen3
// (_get_feat_extract_output_lengths in transformers 5.24).
func qwen(image Qwen, perSecond, context int64) Rules {
	return Rules{
		Image:    image,
		Audio:    AudioRule{PerSecond: perSecond, Most: 25, Beside: 16, Cap: context},
		Video:    VideoRule{PerSecond: 300, Usual: 12288, Cap: context},
		Document: DocumentRule{PerPage: 1600, Cap: context},
		Context:  context,
	}
}

var (
	qwen2 = qwen(Qwen{28, 3136, 12_845_056}, 25, defaultCap)
	qwen3 = qwen(Qwen{32, 65_536, 16_777_216}, 13, context256K)
	// qwen3Omni has the limits of Qwen2-VL with the patches of Qwen3-VL.
	qwen3Omni = qwen(Qwen{32, 3136, 12_845_056}, 13, defaultCap)
	// hosted is Qwen under the names of Alibaba's own service, which may stand for
	// any version.
	hosted = Rules{
		Image:    Loose{Qwen{28, 3136, 12_845_056}, 16384 + qwenMarkers},
		Audio:    qwen2.Audio,
		Video:    qwen3.Video,
		Document: qwen3.Document,
		Context:  context256K,
	}
)

// anthropic is the rules of Claude: a page is an image and up to 3,000 tokens of
// text (Anthropic, "PDF support"); measurements of usual pages are near 2,300
// for both. It takes no sound and no film.
func anthropic(image Claude) Rules {
	return Rules{
		Image:    image,
		Audio:    AudioRule{PerSecond: 32, Beside: 16, Cap: defaultCap},
		Video:    VideoRule{PerSecond: 300, Usual: 16384, Cap: defaultCap},
		Document: DocumentRule{PerPage: 2300, Cap: context1M},
		Context:  context1M,
	}
}

var (
	claudeStandard = anthropic(Claude{1568, 1568})
	claudeHigh     = anthropic(Claude{2576, 4784})
)

// google is the rules of Gemini: 32 tokens a second of sound and 258 a frame of
// film, of which one is taken a second (Google, "Understand and count tokens").
func google(image ImageRule, page int64) Rules {
	return Rules{
		Image:    image,
		Audio:    AudioRule{PerSecond: 32, Beside: 64, Cap: context1M},
		Video:    VideoRule{PerSecond: 290, Usual: 16384, Cap: context1M},
		Document: DocumentRule{PerPage: page, Cap: context1M},
		Context:  context1M,
	}
}

// unknown is the rules of a model of which nothing is known. Encoders after
// Whisper's give at the most 50 states a second, and some fill up half a minute.
var unknown = Rules{
	Image:    Guess{},
	Audio:    AudioRule{PerSecond: 25, Most: 50, Beside: 30 * 50, Cap: defaultCap},
	Video:    VideoRule{PerSecond: 300, Usual: 16384, Cap: defaultCap},
	Document: DocumentRule{PerPage: 1600, Cap: defaultCap},
}

// families is searched in this order; a longer prefix stands before a shorter
// one that it begins with.
//
// Not verified: that codex and pro models count as the model that they are named
// after, and everything of gpt-6 and later, taken to be as gpt-5.6.
var families = []family{
	{"gpt-5.6", openAI(gpt56, context1M)},
	{"gpt-5.5", openAI(gpt55, context1M)},
	{"gpt-5.4-mini", openAI(gpt54.times(120, 162, Sizing{}), context400K)},
	{"gpt-5.4-nano", openAI(gpt54.times(120, 246, Sizing{}), context400K)},
	{"gpt-5.4", openAI(gpt54.times(120, 0, Sizing{}), context1M)},
	{"gpt-5.3", openAI(always(fit2048).times(120, 0, Sizing{}), context400K)},
	{"gpt-5.2", openAI(always(fit2048).times(120, 0, Sizing{}), context400K)},
	{"gpt-5.1-codex-mini", openAI(always(budget1K).times(120, 162, fit2048), context400K)},
	{"gpt-5.1-codex", openAI(Loose{gpt5, codexMost}, context400K)},
	{"gpt-5.1", openAI(gpt5, context400K)},
	{"gpt-5.", openAI(Loose{gpt56, context1M}, context1M)},
	{"gpt-5-codex-mini", openAI(always(budget1K).times(120, 162, fit2048), context400K)},
	{"gpt-5-codex", openAI(Loose{gpt5, codexMost}, context400K)},
	{"gpt-5-pro", openAI(Loose{gpt5, codexMost}, context400K)},
	{"gpt-5-mini", openAI(always(budget1K).times(120, 162, fit2048), context400K)},
	{"gpt-5-nano", openAI(always(budget1K).times(150, 246, fit2048), context400K)},
	{"gpt-5", openAI(gpt5, context400K)},
	{"gpt-4.1-mini", openAI(always(fit2048).times(162, 0, Sizing{}), context1M)},
	{"gpt-4.1-nano", openAI(always(budget1K).times(246, 0, fit2048), context1M)},
	{"gpt-4.1", openAI(gpt4, context1M)},
	{"gpt-4.5", openAI(gpt4, context128K)},
	{"gpt-4o-mini", openAI(Tiles{2833, 5667}, context128K)},
	{"gpt-4o", openAI(gpt4, context128K)},
	{"chatgpt-4o", openAI(gpt4, context128K)},
	{"gpt-4-turbo", openAI(gpt4, context128K)},
	{"gpt-4-vision", openAI(gpt4, context128K)},
	{"gpt-4-1106-vision", openAI(gpt4, context128K)},
	{"gpt-audio", openAI(Guess{}, context128K)},
	{"gpt-realtime", openAI(Guess{}, context128K)},
	{"gpt-oss", unknown},
	{"gpt-3", unknown},
	{"gpt-4", unknown},
	{"gpt-", openAI(Loose{gpt56, context1M}, context1M)},
	{"o4-mini", openAI(always(budget1K).times(172, 0, fit2048), context200K)},
	{"o1", openAI(Loose{o1, 0}, context200K)}, // bills of less than the guide's were published
	{"o3", openAI(o1, context200K)},
	{"computer-use-preview", openAI(Tiles{65, 129}, context128K)},

	{"qwen2.5-vl", qwen2},
	{"qwen2_5-vl", qwen2},
	{"qwen2-vl", qwen2},
	{"qwen2.5-omni", qwen2},
	{"qwen2-audio", qwen2},
	{"qvq", hosted},
	{"qwen-vl", hosted},
	{"qwen-omni", hosted},
	{"qwen3-vl", qwen3},
	{"qwen3-omni", qwen3Omni},
	{"qwen3.", qwen3}, // from 3.5 on all of them see

	{"gemini-1", google(Gemini{}, 258)},
	{"gemini-2", google(Gemini{}, 258)},
	{"gemini", google(geminiBudget{}, 560)},
}

// codexMost is what the older rule for small models allows.
const codexMost = 4096*246/100 + 2

// ForModel picks the rules by the real model's name, which may have a path before
// it, as in "openai/gpt-4o", and anything behind it.
func ForModel(name string) Rules {
	if i := indexFold(name, "claude"); i >= 0 {
		return claude(name[i+len("claude"):])
	}
	name = strings.TrimPrefix(name[strings.LastIndexByte(name, '/')+1:], "ft:")
	for i := range families {
		if f := &families[i]; len(name) >= len(f.prefix) && strings.EqualFold(name[:len(f.prefix)], f.prefix) {
			return f.rules
		}
	}
	return unknown
}

func indexFold(s, lower string) int {
	for i := 0; i+len(lower) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(lower)], lower) {
			return i
		}
	}
	return -1
}

// claude reads the version behind the name: models from 4.7 on take larger
// images, and so does what has none.
func claude(version string) Rules {
	major, rest := versionPart(version)
	minor, _ := versionPart(rest)
	if major > 0 && (major < 4 || major == 4 && minor < 7) {
		return claudeStandard
	}
	return claudeHigh
}

// versionPart is the next number of one or two digits; zero when the next one is
// longer, a date. What is no digit before it is passed over.
func versionPart(s string) (n int, rest string) {
	for len(s) > 0 && (s[0] < '0' || s[0] > '9') {
		s = s[1:]
	}
	digits := 0
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		if digits < 2 {
			n = n*10 + int(s[digits]-'0')
		}
		digits++
	}
	if digits > 2 {
		return 0, ""
	}
	return n, s[digits:]
}
