// Package tokens counts the input tokens of requests as the backends count them:
// the chat as the model's template renders it, by the model's vocabulary, media by
// the model's rules. Every count has a bound that is never below what the backend
// counts, and says whether it is exact.
package tokens

import (
	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/tokens/media"
	"github.com/weirproxy/weir/tokens/template"
)

// Count is how many tokens a request's input has: the best figure, a bound that is
// never below what the backend counts, and whether the figure is the backend's.
type Count = media.Count

// MaxCounted is how much text of one request is counted by one vocabulary, in bytes: a
// million tokens of usual text. What is beyond is estimated by its length, and bounded
// by it. It keeps the time below a second, whatever the text.
const MaxCounted = template.MaxRendered

// usualBytes is how many bytes of text make a token, roughly, in the languages and
// the code that vocabularies are made for.
const usualBytes = 4

// usualMessage is what a message has beside its text, roughly.
const usualMessage = 4

// Likely is a guess at the input tokens of a request without looking at its text:
// for accounts of requests that were not counted, and for nothing else.
func Likely(r *openai.Request) int64 {
	n := r.TokenIDs + usualMessage*int64(len(r.Messages))
	for i := range r.Segments {
		n += int64(r.Segments[i].Text) / usualBytes
	}
	rules := media.ForModel("")
	for i := range r.Media {
		n += countMedia(&rules, &r.View, &r.Media[i]).Tokens
	}
	return max(n, 1)
}

// Bound is an upper bound of the input tokens of r for any tokenizer that never
// makes more tokens of a text than it has bytes, in normal form C or as it stands:
// those with a byte-level BPE, and those that fall back to bytes.
func Bound(r *openai.Request) int64 { return Unknown.Bound(r) }

// nonASCII is the number of bytes that are not ASCII.
func nonASCII(text []byte) (n int64) {
	for _, c := range text {
		n += int64(c >> 7)
	}
	return n
}

// countMedia counts one medium by the rules of a model.
func countMedia(rules *media.Rules, v *dialect.View, m *dialect.Media) Count {
	literal := v.MediaBytes(m)
	switch m.Kind {
	case dialect.Image:
		return rules.CountImage(literal, m.Detail)
	case dialect.Audio:
		format := ""
		if len(m.Format) > 2 {
			format = string(m.Format[1 : len(m.Format)-1])
		}
		return rules.CountAudio(literal, format)
	case dialect.Video:
		return rules.CountVideo(literal)
	default:
		return rules.CountFile(literal)
	}
}

// promptMarks is how many marks a backend sets around a prompt that is no chat, at
// the most: one at each end.
const promptMarks = 2

// isChat tells whether a request is rendered by a chat template.
func isChat(r *openai.Request) bool { return r.Kind == ai.KindChat || len(r.Messages) > 0 }
