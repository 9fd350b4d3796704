package tokens

import (
	"bytes"
	"time"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/tokens/bpe"
	"github.com/weirproxy/weir/tokens/media"
	"github.com/weirproxy/weir/tokens/template"
)

// Tokenizer counts the input of one model as served by one kind of backend. It is
// immutable and safe for concurrent use.
type Tokenizer struct {
	vocabulary func() *bpe.Vocabulary
	name       string // of the vocabulary
	id         uint64 // of what the count of a text depends on, for Memo
	// estimate says that the vocabulary is not the model's, only a near one.
	estimate bool
	nfc      bool
	added    *added // what the backend reads as one token also within text
	begins   int    // tokens that a backend puts before a prompt that is no chat
	bare     bool   // nothing stands around the inputs of an embedding
	template *template.Template
	backend  template.Backend
	media    media.Rules
}

// Vocabulary is the name of the vocabulary.
func (t *Tokenizer) Vocabulary() string { return t.name }

// Template is the name of the chat template.
func (t *Tokenizer) Template() string { return t.template.Name() }

// Estimates tells that no count can be exact: the vocabulary is only a near one.
func (t *Tokenizer) Estimates() bool { return t.estimate }

// Alike tells whether two tokenizers count alike.
func (t *Tokenizer) Alike(o *Tokenizer) bool {
	return t.id == o.id && t.template == o.template && t.backend == o.backend && t.estimate == o.estimate
}

// Approximate tells that no chat can be counted exactly, because the template is a
// usual one and not the model's, or was not held against the model's.
func (t *Tokenizer) Approximate() bool { return t.template.Estimate() }

// Load builds the vocabulary's tables now and not at the first count.
func (t *Tokenizer) Load() { t.vocabulary() }

// Session is what a count depends on beside the request.
type Session struct {
	// Memo remembers counts of text, nil for none; Tenant is whose they are. Hashes
	// keeps the hashes of the request's text between counts; it may be nil.
	Memo   *Memo
	Tenant string
	Hashes *Hashes
	// Now is for templates that print the date.
	Now time.Time
	// Doubt says that the tokenizer was seen to count less than the backend: no count
	// is exact then, and bounds rest on lengths alone.
	Doubt bool
}

// Bound is an upper bound of the input tokens without looking at the text, but for
// how deep the JSON of tools is nested: a byte-level BPE makes no more tokens of a text than it has bytes, as each stands for
// at least one, and normal form C makes at most three bytes of one (Unicode,
// annex 15, table 11).
func (t *Tokenizer) Bound(r *openai.Request) int64 {
	n := t.fixed(r)
	for i := range r.Segments {
		n += t.segmentBound(r, &r.Segments[i])
	}
	return n + t.countMedia(&r.View).Bound
}

// countMedia counts all media of a request.
func (t *Tokenizer) countMedia(v *dialect.View) Count {
	n := Count{Exact: true}
	for i := range v.Media {
		n = n.Add(countMedia(&t.media, v, &v.Media[i]))
	}
	if v.MediaLimits && len(v.Media) > 0 { // nothing but the context bounds them
		n.Bound, n.Exact = max(n.Bound, t.media.Context, longestContext), false
	}
	return n
}

// longestContext is the longest context that a model is known to have, in tokens.
const longestContext = 1 << 20

// fixed is what a backend adds to the text, at the most.
func (t *Tokenizer) fixed(r *openai.Request) int64 {
	if !isChat(r) {
		return r.TokenIDs + promptMarks*r.Prompts
	}
	b := t.template.Bound()
	return r.TokenIDs + promptMarks*r.Prompts + b.Fixed(&r.View)
}

// segmentBound is an upper bound for a segment by its length. Escapes are longer than
// what they stand for, in normal form C too.
func (t *Tokenizer) segmentBound(r *openai.Request, s *dialect.Segment) int64 {
	n := int64(s.Len)
	if s.Text == 0 && s.Raw { // a setting
		return 0
	}
	if t.nfc || t.estimate {
		n += 2 * nonASCII(r.Body[s.Off:s.End()])
	}
	if !isChat(r) {
		return n
	}
	b := t.template.Bound()
	return b.Times(&r.View, s) * n
}

// Count counts the input tokens of r. It costs time in proportion to the text that
// the memo does not know.
func (t *Tokenizer) Count(r *openai.Request, s Session) Count {
	c := acquire(t, &r.View, s)
	defer c.release()
	exact := !t.estimate && !s.Doubt
	if isChat(r) {
		exact = t.template.Render(&r.View, c, template.Options{Backend: t.backend, Now: s.Now}) && exact && r.Kind == ai.KindChat
		c.flush()
	} else {
		exact = t.prompts(r, c) && exact
	}
	parts := t.countMedia(&r.View)
	exact = exact && c.exact
	n := Count{Tokens: c.tokens + parts.Tokens, Exact: exact && parts.Exact}
	switch {
	case exact:
		n.Bound = c.tokens + parts.Bound
	case t.estimate || s.Doubt:
		n.Bound = t.Bound(r)
	default:
		n.Bound = t.bound(r, c) + parts.Bound
	}
	n.Tokens = min(n.Tokens, n.Bound)
	return n
}

// prompts counts what is no chat: each prompt by itself.
func (t *Tokenizer) prompts(r *openai.Request, c *counter) (exact bool) {
	exact = true
	c.tokens += r.TokenIDs
	for i := range r.Segments {
		s := &r.Segments[i]
		if s.Kind != dialect.Prompt || s.Raw {
			exact = exact && s.Text == 0
			c.tokens += int64(s.Text) / usualBytes
			continue
		}
		c.Segment(s, false)
		c.flush()
		c.tokens += int64(t.begins)
	}
	// What an embedding model sets around its input is the model's own, and what a
	// model without a template begins a text with is not known.
	return exact && (t.bare || r.Kind != ai.KindEmbedding && !t.template.Estimate())
}

// joints is how many more tokens a text may have than by itself between what a known
// template sets around it: special tokens and line breaks, at which pieces end.
const joints = 2

// bound is an upper bound where the vocabulary is the model's and the rendering is
// not known to be: text that was counted, at its count; all other text by its length.
// Where nothing is known of what stands around a text, its first and its last word
// may be cut otherwise than by themselves.
func (t *Tokenizer) bound(r *openai.Request, c *counter) int64 {
	c.sortSeen()
	n := t.fixed(r)
	for i := range r.Segments {
		s := &r.Segments[i]
		if counted, ok := c.counted(s); ok {
			n += counted + joints
			if t.template.Estimate() {
				n += ends(r.View.Bytes(s))
			}
		} else {
			n += t.segmentBound(r, s)
		}
	}
	return n
}

// ends is the length of the first word of a text and of its last one, all of it when
// it has no two words: up to a space behind a letter or a digit, where a piece ends in
// all patterns. text has its JSON escapes, none of which may be near.
func ends(text []byte) int64 {
	first, last := -1, -1
	for i := 0; i < len(text); i++ {
		n := bytes.IndexByte(text[i:], ' ')
		if n < 0 {
			break
		}
		if i += n; wordBefore(text, i) {
			if last = i; first < 0 {
				first = i
			}
		}
	}
	if first < 0 {
		return int64(len(text))
	}
	return int64(first) + int64(len(text)-last)
}

// wordBefore tells whether an ASCII letter or digit that is no part of an escape stands
// before i.
func wordBefore(text []byte, i int) bool {
	const longestEscape = 6
	if i == 0 || bytes.IndexByte(text[max(0, i-longestEscape):i], '\\') >= 0 {
		return false
	}
	c := text[i-1] | 0x20
	return c >= 'a' && c <= 'z' || text[i-1] >= '0' && text[i-1] <= '9'
}
