package tokens

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer/codec"
)

// O200k counts by OpenAI's o200k_base (GPT-4o and later). Its tables, some 6 MB,
// are loaded at the first call.
func O200k() Counter { return o200k() }

// Cl100k counts by OpenAI's cl100k_base (GPT-4, GPT-3.5, ada-002). Its tables,
// some 4 MB, are loaded at the first call.
func Cl100k() Counter { return cl100k() }

var (
	o200k  = sync.OnceValue(func() tiktoken { return tiktoken{codec.NewO200kBase()} })
	cl100k = sync.OnceValue(func() tiktoken { return tiktoken{codec.NewCl100kBase()} })
)

// ForModel is the counter of a real model by its name: cl100k_base for OpenAI's
// older models, o200k_base for all others.
func ForModel(name string) Counter {
	for _, prefix := range []string{"gpt-4-", "gpt-3.5", "gpt-35", "text-embedding-"} {
		if name == "gpt-4" || strings.HasPrefix(name, prefix) {
			return Cl100k()
		}
	}
	return O200k()
}

// tiktoken counts with a tiktoken codec, which nothing changes after it was made.
type tiktoken struct{ codec *codec.Codec }

// maxSpace is the longest run of white space that is counted, in bytes. The
// codec's pattern takes quadratic time on runs that mix spaces and newlines
// (64 KB: 1.5 s), and such a run is no text; it is taken at its bound.
const maxSpace = 256

// Count counts text, but for long runs of white space.
func (t tiktoken) Count(text string) (n int64, exact bool) {
	exact = true
	for {
		start, end := longSpace(text)
		m, err := t.codec.Count(text[:start])
		if err != nil { // the pattern has no limits that could be passed
			m, exact = start, false
		}
		n += int64(m)
		if start == end {
			return n, exact
		}
		n += int64(end - start)
		exact = false
		text = text[end:]
	}
}

// longSpace is the first run of white space that is longer than maxSpace; an
// empty one at the end of text when there is none.
func longSpace(text string) (start, end int) {
	for end < len(text) {
		if c := text[end]; c > ' ' && c < utf8.RuneSelf {
			if end-start > maxSpace {
				return start, end
			}
			end++
			start = end
			continue
		}
		r, n := utf8.DecodeRuneInString(text[end:])
		space := unicode.IsSpace(r)
		if !space && end-start > maxSpace {
			return start, end
		}
		end += n
		if !space {
			start = end
		}
	}
	if end-start > maxSpace {
		return start, end
	}
	return end, end
}
