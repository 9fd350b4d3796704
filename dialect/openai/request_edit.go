package openai

// Edit replaces Len bytes at Off by Text.
type Edit struct {
	Off, Len int
	Text     string
}

// editPoints are the places that edits need.
type editPoints struct{}

// IncludeUsageEdit is the edit that asks the backend for usage in the stream. It
// is false when none is needed: no stream, or the client asks already.
func (r *Request) IncludeUsageEdit() (Edit, bool) { return Edit{}, false }

// MaxOutputEdits appends to dst the edits after which no answer may be longer
// than n tokens: each ceiling that the client gave is lowered to n if it is
// higher, and max_tokens is added when there is none. A client's own
// max_completion_tokens is kept as the one that is used. Embeddings have no
// ceiling and get no edit.
func (r *Request) MaxOutputEdits(dst []Edit, n int64) []Edit { return dst }

// Apply appends to dst the body with the edits made. Edits may come in any
// order; those at one offset are made in the order in which they are given. It
// fails when edits overlap or leave the body; dst is then returned as it was.
func Apply(dst, body []byte, edits []Edit) ([]byte, error) { return append(dst, body...), nil }

// MovedSpan is where s lies after the edits; false when one of them touches it.
func MovedSpan(s Span, edits []Edit) (Span, bool) { return s, true }
