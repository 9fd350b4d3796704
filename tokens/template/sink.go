package template

import (
	"bytes"

	"github.com/weirproxy/weir/dialect/jsonscan"
)

// MaxRendered is how much one rendering writes of what it makes itself of a request,
// in bytes: JSON that is written anew, schemas as TypeScript, and names that stand in
// the text more often than in the body. Indents make it many times as long as the
// body. Beyond it nothing is written anew and the rendering is not exact; it is as much
// as the counter counts.
const MaxRendered = 4 << 20

// sink takes rendered bytes as long as there is room for them.
type sink struct {
	b    []byte
	room int  // bytes that may still be taken
	full bool // something was not taken, and nothing more is
}

// fits reports whether there is room for n bytes; if not, it is full.
func (s *sink) fits(n int) bool {
	s.full = s.full || n > s.room
	return !s.full
}

// take takes n bytes of the room, or fills it.
func (s *sink) take(n int) bool {
	if !s.fits(n) {
		return false
	}
	s.room -= n
	return true
}

func (s *sink) byte(c byte) {
	if s.take(1) {
		s.b = append(s.b, c)
	}
}

func (s *sink) bytes(b []byte) {
	if s.take(len(b)) {
		s.b = append(s.b, b...)
	}
}

func (s *sink) literal(t string) {
	if s.take(len(t)) {
		s.b = append(s.b, t...)
	}
}

const blanks = "                                                                "

func (s *sink) spaces(n int) {
	if !s.take(n) {
		return
	}
	for ; n > len(blanks); n -= len(blanks) {
		s.b = append(s.b, blanks...)
	}
	s.b = append(s.b, blanks[:max(n, 0)]...)
}

// text writes the text of the JSON string b, which has its quotes.
func (s *sink) text(b []byte) {
	if len(b) < 2 || !s.take(len(b)) {
		return
	}
	if bytes.IndexByte(b, '\\') < 0 {
		s.b = append(s.b, b[1:len(b)-1]...)
		return
	}
	s.b = jsonscan.AppendText(s.b, b)
}
