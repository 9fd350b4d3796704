// Package tokens counts the input tokens of requests: an upper bound at the price
// of an addition, and a count by a tokenizer where a decision depends on it.
package tokens

import (
	"github.com/weirproxy/weir/dialect/jsonscan"
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
)

// Counter counts the tokens of a text. It is safe for concurrent use and never
// answers more than the text has bytes.
type Counter interface {
	// Count answers the number of tokens. exact is false when a stretch of the
	// text was taken at its bound, because counting it would take too long.
	Count(text string) (n int64, exact bool)
}

// What Bound adds to the text, in tokens. Chat templates of backends differ; each
// figure is above what the templates of Qwen, Llama, DeepSeek, GLM, Kimi and
// OpenAI's harmony format add.
const (
	boundRequest  = 128 // a default system message, the date, the reply's primer
	boundTools    = 512 // how to call tools, when some are offered
	boundMessage  = 16  // the marks around a message
	boundName     = 4
	boundToolDef  = 32 // beside its JSON
	boundToolCall = 32 // beside its JSON
	boundPrompt   = 4  // marks at the beginning and the end of a text
	boundRaw      = 2  // per byte of JSON: templates write it with more white space
)

// What one part of a content may have at the most, in tokens.
const (
	// ImageCap is Qwen-VL's default: 12,845,056 pixels in patches of 28 by 28.
	ImageCap = 16384
	// VideoCap is above Qwen-VL's default for a whole video (115,200).
	VideoCap = 131072
	// AudioCap is for audio by URL: half an hour at 32 tokens a second.
	AudioCap = 57600
	// FileCap is for documents, whose pages a provider reads as text and images.
	FileCap = 131072
	// audioBytes is how many base64 bytes of inline audio make a token, at the
	// least: 32 tokens a second at 2 kbit/s would be 10.
	audioBytes = 8
)

// Bound is an upper bound of the input tokens of r, without looking at its text:
// a byte-level BPE never makes more tokens of a text than it has bytes (each
// token stands for at least one byte), and the text of r is counted in bytes. To
// that come the overheads above, and images and other parts at their caps, however
// many bytes they have.
//
// The bound holds for tokenizers that take text as it stands. One that
// normalises Unicode first (Qwen: NFC) can have more of a text written to that
// end, at most three times; that excess is seen when the request is settled.
func Bound(r *openai.Request) int64 {
	n := r.TokenIDs + boundPrompt*r.Prompts
	for i := range r.Segments {
		s := &r.Segments[i]
		if s.Raw {
			n += boundRaw * int64(s.Bytes)
		} else {
			n += int64(s.Bytes)
		}
	}
	if r.Messages > 0 || r.Kind == ai.KindChat {
		n += boundRequest + boundMessage*r.Messages + boundName*r.Names + boundToolCall*r.ToolCalls
	}
	if r.ToolDefs > 0 {
		n += boundTools + boundToolDef*r.ToolDefs
	}
	n += ImageCap*r.Images + VideoCap*r.Videos + AudioCap*r.AudioURLs + FileCap*r.Files
	return n + (r.AudioBytes+audioBytes-1)/audioBytes
}

// OpenAI's overhead of a chat, in tokens (OpenAI cookbook, "How to count tokens").
const (
	perMessage = 3
	perName    = 1
	primer     = 3
)

// What Exact takes for what it cannot count, in tokens. Nothing rests on these
// but rules that ask for a size.
const (
	usualImage    = 1024
	usualVideo    = 16384
	usualAudio    = 1024
	usualFile     = 4096
	usualToolDef  = 8
	usualToolCall = 8
	usualAudioLen = 400 // base64 bytes for each token
)

// maxCounted is how much text of one request is counted, in bytes; what is beyond
// is taken at its bound. It keeps the time for one request within half a
// second, whatever the text.
const maxCounted = 1 << 20

// Exact counts the input tokens of r. exact is false when something was only
// estimated: tools, media, JSON that a backend renders in its own way, or more
// text than is counted. It is exact as to c; whether a backend has that
// tokenizer, the caller knows. The count is never above Bound.
func Exact(c Counter, r *openai.Request) (n int64, exact bool) {
	text, exact := countSegments(c, r)
	n = text + overhead(r)
	estimated := r.ToolDefs + r.ToolCalls + r.Images + r.Videos + r.AudioURLs + r.AudioBytes + r.Files
	return n, exact && estimated == 0
}

// overhead is what a request has beside its text, as far as it is usual.
func overhead(r *openai.Request) int64 {
	n := r.TokenIDs
	if r.Messages > 0 || r.Kind == ai.KindChat {
		n += perMessage*r.Messages + perName*r.Names + primer
	}
	return n + usualToolDef*r.ToolDefs + usualToolCall*r.ToolCalls + usualImage*r.Images + usualVideo*r.Videos +
		usualAudio*r.AudioURLs + usualFile*r.Files + r.AudioBytes/usualAudioLen
}

// usualBytes is how many bytes of text make a token, roughly, in the languages
// and the code that vocabularies are made for.
const usualBytes = 4

// Likely is a guess at the input tokens of r without looking at its text: for
// accounts of requests whose usage nobody reports, and for nothing else.
func Likely(r *openai.Request) int64 {
	var text int64
	for i := range r.Segments {
		text += int64(r.Segments[i].Bytes)
	}
	return min((text+usualBytes-1)/usualBytes+overhead(r), Bound(r))
}

func countSegments(c Counter, r *openai.Request) (n int64, exact bool) {
	exact = true
	left := maxCounted
	var buf []byte
	for i := range r.Segments {
		s := &r.Segments[i]
		if s.Bytes > left {
			n += int64(s.Bytes)
			exact = false
			continue
		}
		left -= s.Bytes
		text := r.Body[s.Off:s.End()]
		switch {
		case s.Raw:
			exact = false
		case s.Escaped:
			buf = jsonscan.AppendText(buf[:0], text)
			text = buf
		default:
			text = text[1 : len(text)-1]
		}
		m, ok := c.Count(string(text))
		n += m
		exact = exact && ok
	}
	return n, exact
}
