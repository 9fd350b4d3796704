package openai

import (
	"cmp"
	"errors"
	"slices"
	"strconv"

	"github.com/weirproxy/weir/internal/ai"
)

// Edit replaces Len bytes at Off by Text.
type Edit struct {
	Off, Len int
	Text     string
}

// editPoints are the places of a body that edits need.
type editPoints struct {
	end          int  // of the object: its closing brace
	options      Span // the value of stream_options; Len 0 when it is absent
	optionsNull  bool
	optionsEmpty bool
	include      Span // the value of include_usage; Len 0 when it is absent
	ceilings     [2]ceiling
	least        ceiling // min_tokens
}

// The two output ceilings of OpenAI.
const (
	maxTokens = iota
	maxCompletionTokens
)

// IncludeUsageEdit is the edit that asks the backend for usage in the stream. It
// is false when none is needed: no stream, or the client asks already.
func (r *Request) IncludeUsageEdit() (Edit, bool) {
	e := &r.edits
	switch {
	case !r.Stream || r.IncludeUsage || r.Kind == ai.KindEmbedding:
		return Edit{}, false
	case e.include.Len > 0: // false or null
		return Edit{e.include.Off, e.include.Len, `true`}, true
	case e.options.Len == 0:
		return Edit{Off: e.end, Text: `,"stream_options":{"include_usage":true}`}, true
	case e.optionsNull:
		return Edit{e.options.Off, e.options.Len, `{"include_usage":true}`}, true
	case e.optionsEmpty:
		return Edit{Off: e.options.Off + 1, Text: `"include_usage":true`}, true
	}
	return Edit{Off: e.options.Off + 1, Text: `"include_usage":true,`}, true
}

// MaxOutputEdits appends to dst the edits after which no answer may be longer
// than n tokens. Each ceiling that the client gave is lowered to n if it is
// higher. When it gave none, one is written: in place of the client's null, if
// there is one (so max_completion_tokens stays what such a client uses), or
// else as max_tokens, which every backend but OpenAI's newest models knows. A min_tokens
// that would be above a ceiling of weir's is lowered to it: vLLM refuses such a
// request. Embeddings have no output and get no edit.
func (r *Request) MaxOutputEdits(dst []Edit, n int64) []Edit {
	if r.Kind == ai.KindEmbedding {
		return dst
	}
	before := len(dst)
	dst = r.ceilingEdits(dst, n)
	if least := r.edits.least; len(dst) > before && least.given && least.value > max(n, 0) {
		dst = append(dst, Edit{least.Off, least.Len, strconv.FormatInt(max(n, 0), 10)})
	}
	return dst
}

func (r *Request) ceilingEdits(dst []Edit, n int64) []Edit {
	number := strconv.FormatInt(max(n, 0), 10)
	if r.HasMaxOutput {
		for _, c := range r.edits.ceilings {
			if c.given && c.value > max(n, 0) {
				dst = append(dst, Edit{c.Off, c.Len, number})
			}
		}
		return dst
	}
	for _, c := range r.edits.ceilings {
		if c.present {
			return append(dst, Edit{c.Off, c.Len, number})
		}
	}
	return append(dst, Edit{Off: r.edits.end, Text: `,"max_tokens":` + number})
}

// errEdits is a fault of the program, not of a client.
var errEdits = errors.New("edits: overlapping, or outside of the body")

// Apply appends to dst, which shares no memory with body, the body with the edits
// made. Edits may come in any order; insertions at one offset keep theirs. It
// fails when edits overlap or leave the body; dst is then returned as it was.
func Apply(dst, body []byte, edits []Edit) ([]byte, error) {
	if !slices.IsSortedFunc(edits, byOffset) {
		edits = slices.Clone(edits)
		slices.SortStableFunc(edits, byOffset)
	}
	start, at := len(dst), 0
	grown := len(body)
	for _, e := range edits {
		grown += len(e.Text)
	}
	dst = slices.Grow(dst, grown)
	for _, e := range edits {
		if e.Off < at || e.Len < 0 || e.Off > len(body) || e.Len > len(body)-e.Off {
			return dst[:start], errEdits
		}
		dst = append(dst, body[at:e.Off]...)
		dst = append(dst, e.Text...)
		at = e.Off + e.Len
	}
	return append(dst, body[at:]...), nil
}

// byOffset sorts by offset, insertions before a replacement.
func byOffset(a, b Edit) int {
	return cmp.Or(cmp.Compare(a.Off, b.Off), cmp.Compare(min(a.Len, 1), min(b.Len, 1)))
}

// MovedSpan is where s lies after the edits; false when one of them touches it.
// What is inserted right before s moves it.
func MovedSpan(s Span, edits []Edit) (Span, bool) {
	moved := s
	for _, e := range edits {
		switch {
		case e.Off+e.Len <= s.Off:
			moved.Off += len(e.Text) - e.Len
		case e.Off < s.End():
			return Span{}, false
		}
	}
	return moved, true
}
