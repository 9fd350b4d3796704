// Package sse takes a stream of server-sent events apart while it passes, in
// whatever pieces it arrives, without keeping any of it.
//
// Format: https://html.spec.whatwg.org/multipage/server-sent-events.html. Lines
// end in LF, CRLF or CR; only the field data is looked at; a comment and every
// other field is passed over.
package sse

import "bytes"

// Token is what a piece of a stream is.
type Token uint8

// The tokens.
const (
	// Skip is a piece without meaning here: a comment, another field, a line end.
	Skip Token = iota
	// Data is a piece of the value of a data field.
	Data
	// Break stands between two data fields of one event: the data has a line feed there.
	Break
	// End is the blank line that ends an event, whether it had data or not.
	End
)

type state uint8

const (
	lineStart state = iota // nothing of the line was read
	inName                 // the line is data[:matched] so far
	afterName              // after "data:", where one space may stand
	inData                 // in the value of a data field
	inOther                // in a comment or another field
)

const dataField = "data:"

// Splitter splits a stream. Its zero value stands at the beginning of one.
type Splitter struct {
	state   state
	matched uint8 // of dataField
	cr      bool  // the last byte was CR: a LF now belongs to it
	hasData bool  // the event has a data field already
}

// Next reads the first token of p, which must not be empty: n bytes of it, at
// least one. For Data these bytes are the value itself. The pieces of a value
// that the stream cuts come as several Data tokens.
func (s *Splitter) Next(p []byte) (n int, tok Token) {
	if s.cr {
		s.cr = false
		if p[0] == '\n' {
			return 1, Skip
		}
	}
	switch s.state {
	case lineStart:
		if n, ok := s.lineEnd(p); ok {
			s.hasData = false
			return n, End
		}
		s.state, s.matched = inName, 0
		return s.name(p)
	case inName:
		return s.name(p)
	case afterName:
		s.state = inData
		if p[0] == ' ' {
			return 1, Skip
		}
	}
	return s.value(p)
}

// OnLineFeed tells whether a line feed that comes next is the second half of a
// line end that was already read.
func (s *Splitter) OnLineFeed() bool { return s.cr }

// name reads on in what may become "data:".
func (s *Splitter) name(p []byte) (int, Token) {
	n := 0
	for n < len(p) && int(s.matched) < len(dataField) && p[n] == dataField[s.matched] {
		n, s.matched = n+1, s.matched+1
	}
	switch {
	case int(s.matched) == len(dataField):
		s.state = afterName
		if s.hasData {
			return n, Break
		}
		s.hasData = true
		return n, Skip
	case n == len(p):
		return n, Skip
	}
	s.state = inOther
	if n > 0 {
		return n, Skip
	}
	return s.value(p)
}

// value reads to the end of the line or of p.
func (s *Splitter) value(p []byte) (int, Token) {
	if n, ok := s.lineEnd(p); ok {
		s.state = lineStart
		return n, Skip
	}
	n := bytes.IndexByte(p, '\n')
	if n < 0 {
		n = len(p)
	}
	if i := bytes.IndexByte(p[:n], '\r'); i >= 0 {
		n = i
	}
	if s.state == inData {
		return n, Data
	}
	return n, Skip
}

func (s *Splitter) lineEnd(p []byte) (int, bool) {
	switch {
	case p[0] == '\n':
		return 1, true
	case p[0] != '\r':
		return 0, false
	case len(p) == 1:
		s.cr = true
		return 1, true
	case p[1] == '\n':
		return 2, true
	}
	return 1, true
}
