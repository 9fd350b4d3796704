// Package jsonscan reads one JSON object strictly (RFC 8259), in one pass,
// without building anything: the caller pulls keys and values and takes their
// offsets. What weir and a backend could read differently is refused: keys that
// an object has twice (as decoded values, at every level), invalid UTF-8, lone
// surrogates, anything behind the object. It never changes a body.
//
// A walk looks like this; the first fault ends it, and every later call answers
// false:
//
//	s.EnterObject()
//	for key, ok := s.NextKey(); ok; key, ok = s.NextKey() {
//		switch string(s.Text(key)) {
//		case "model":
//			model := s.Value()
//		default:
//			s.Value()
//		}
//	}
//	s.End()
//	fault := s.Fault()
package jsonscan

import (
	"sync"

	"github.com/weirproxy/weir/internal/ai"
)

// Kind is the type of a value.
type Kind uint8

// The kinds; Invalid is where no value can begin.
const (
	Invalid Kind = iota
	Object
	Array
	String
	Number
	True
	False
	Null
)

func (k Kind) String() string {
	return [...]string{"invalid", "object", "array", "string", "number", "boolean", "boolean", "null"}[k]
}

// Value is where a value stands in the body.
type Value struct {
	Kind Kind
	// Off and Len are the value's bytes, a string's quotes included.
	Off, Len int
	// Text is the length of a string's decoded text, in bytes.
	Text int
	// Escaped says that a string has escapes.
	Escaped bool
}

// Fault is why a body is refused: the reason is invalid_json, duplicate_key,
// invalid_utf8, too_deep or body_too_large. What is a fixed text without any of the body.
type Fault struct {
	Reason ai.Reason
	Offset int
	What   string
}

// Scanner walks over one body. The zero value is ready for Reset.
type Scanner struct {
	body     []byte
	pos      int
	maxDepth int
	frames   []frame
	keys     keySet
	text     []byte // Text's answer when it had to be decoded
	fault    Fault
	failed   bool
}

// frame is an open object or array.
type frame struct {
	object bool
	begun  bool // has a member already
	hashed bool // its keys are in the hash table
	first  int  // index of its first key in keySet.keys
}

var pool = sync.Pool{New: func() any { return new(Scanner) }}

// Acquire takes a scanner from the pool and sets it to the start of body.
func Acquire(body []byte, maxDepth int) *Scanner {
	s := pool.Get().(*Scanner)
	s.Reset(body, maxDepth)
	return s
}

// keptKeys is how many keys' memory an idle scanner may hold.
const keptKeys = 1 << 12

// Release gives the scanner back to the pool; it must not be used after.
func (s *Scanner) Release() {
	s.body = nil
	if cap(s.keys.keys) > keptKeys || cap(s.text) > keptKeys {
		s.keys = keySet{}
		s.text = nil
	}
	pool.Put(s)
}

// Reset sets the scanner to the start of body. Nesting deeper than maxDepth is
// refused; an object at the top has depth 1.
func (s *Scanner) Reset(body []byte, maxDepth int) {
	s.body, s.pos, s.maxDepth = body, 0, maxDepth
	s.frames = s.frames[:0]
	s.keys.reset()
	s.fault, s.failed = Fault{}, false
	if len(body) > maxBody {
		s.fail(ai.ReasonTooLarge, maxBody, "the body is too large")
	}
}

// maxBody is the largest body: offsets of keys are kept in 32 bits.
const maxBody = 1<<31 - 1

// Check reads a whole body and returns its first fault, nil when it has none.
func Check(body []byte, maxDepth int) *Fault {
	s := Acquire(body, maxDepth)
	defer s.Release()
	if s.EnterObject() {
		s.skipOpen(0)
	}
	s.End()
	return s.Fault()
}

// Fault is the first fault found; nil when there was none so far.
func (s *Scanner) Fault() *Fault {
	if !s.failed {
		return nil
	}
	f := s.fault
	return &f
}

// Offset is where the scanner stands.
func (s *Scanner) Offset() int { return s.pos }

// Text is the decoded text of a string. It is valid until the next call of the
// scanner and must not be changed.
func (s *Scanner) Text(v Value) []byte {
	if !v.Escaped {
		return s.body[v.Off+1 : v.Off+v.Len-1]
	}
	s.text = AppendText(s.text[:0], s.body[v.Off:v.Off+v.Len])
	return s.text
}

func (s *Scanner) fail(reason ai.Reason, offset int, what string) bool {
	if !s.failed {
		s.failed = true
		s.fault = Fault{Reason: reason, Offset: offset, What: what}
	}
	return false
}

func (s *Scanner) invalid(what string) bool {
	return s.fail(ai.ReasonInvalidJSON, s.pos, what)
}
