// Package openai knows OpenAI's wire: what a request body asks for and where in
// its bytes the answers are, the edits that weir makes to it, what a response
// has used, and the shape of errors. It imports nothing of weir but the shared
// nouns and the scanner, because it is compiled into the Wasm filters too; it
// never re-encodes a body.
package openai

import (
	"math"
	"math/bits"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/internal/ai"
)

// Span is a stretch of a body's bytes.
type Span struct{ Off, Len int }

// End is the offset behind the span.
func (s Span) End() int { return s.Off + s.Len }

// Request is what weir reads of a request body. It may be used again for
// another Parse; its slices keep their capacity.
type Request struct {
	dialect.View // what the model may read
	Kind         ai.Kind

	Model     string // decoded; 1 to MaxModelName bytes
	ModelSpan Span   // the value, quotes included

	Stream       bool
	IncludeUsage bool // the client asks for usage in the stream
	Tools        bool // tools or functions are offered
	Vision       bool // an image or a video is among the content
	Audio        bool // audio is among the content, or the answer shall be audio
	Flex         bool // the client says that it can wait (service_tier: flex)

	// MaxOutput is the output ceiling that the client gave, in tokens for each
	// answer; 0 with HasMaxOutput false when it gave none. Of two that differ it is
	// the larger one: backends do not agree on which of them counts.
	MaxOutput    int64
	HasMaxOutput bool
	// ThinkingBudget is the largest number of tokens that the client allows for
	// reasoning, by whatever name; 0 when it gave none. Reasoning is a part of the
	// output: a ceiling below the budget leaves no answer, and some providers refuse it.
	ThinkingBudget int64
	// N is the number of answers for each prompt that are paid for: n, or
	// best_of if that is larger. At least 1.
	N int64
	// Prompts is the number of prompts: 1 for a chat, the length of the list for
	// completions and embeddings that have one. At least 1.
	Prompts int64

	edits editPoints
}

// MaxModelName is the longest model name, in bytes.
const MaxModelName = 256

// Fault is why a body is refused. Its texts name places, never the client's values.
type Fault struct {
	Reason  ai.Reason
	Param   string // the field, as messages[2].content; may be empty
	Offset  int    // of the byte in the body
	Message string // for the client
}

func (f *Fault) Error() string { return string(f.Reason) + ": " + f.Message }

// Answers is how many answers the request can be billed for: N for each prompt.
// It saturates instead of overflowing.
func (r *Request) Answers() int64 {
	hi, lo := bits.Mul64(uint64(max(r.N, 1)), uint64(max(r.Prompts, 1)))
	if hi > 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(lo)
}
