package template

import (
	"unicode/utf8"

	"github.com/weirproxy/weir/dialect"
)

// renderer is one rendering: the request, where it goes, and memory.
type renderer struct {
	v     *dialect.View
	w     Writer
	o     Options
	set   settings
	exact bool
	shown bool // the template shows media where they stand

	text    []byte // decoded or joined text
	json    []byte // a JSON string
	more    []byte
	out     types // JSON that was written anew, and what may still be written
	calls   []call
	callees callees
}

// reset prepares for a rendering.
func (r *renderer) reset(v *dialect.View, w Writer, o Options) {
	r.v, r.w, r.o, r.shown = v, w, o, false
	r.set = readSettings(v)
	r.out.room, r.out.full = MaxRendered, false
	r.callees.read = false
}

// maxKept is how much of each kind of memory an idle renderer may hold, in bytes.
const maxKept = 1 << 20

// release forgets the request, and memory that was needed for a large one.
func (r *renderer) release() {
	r.v, r.w, r.set, r.out.src = nil, nil, settings{}, nil
	for _, b := range []*[]byte{&r.text, &r.json, &r.more, &r.out.b, &r.out.scratch, &r.out.one, &r.out.other, &r.callees.text} {
		if cap(*b) > maxKept {
			*b = nil
		}
	}
	r.out.nodes, r.out.required = kept(r.out.nodes, 20), kept(r.out.required, 4)
	r.calls, r.callees.calls = kept(r.calls, 24), kept(r.callees.calls, 40)
	clear(r.calls[:cap(r.calls)]) // they point into the view
	clear(r.callees.calls[:cap(r.callees.calls)])
}

// kept is the memory of s, whose items have size bytes, or none when that is more than
// an idle renderer holds.
func kept[T any](s []T, size int) []T {
	if cap(s) > maxKept/size {
		return nil
	}
	return s[:0]
}

// doubt says that the rendering is not exact.
func (r *renderer) doubt() { r.exact = false }

// content is what a message says: a segment as it stands, or text that was put
// together in the renderer's memory and holds until the next one.
type content struct {
	segment *dialect.Segment
	bytes   []byte
}

func (c content) empty() bool {
	return c.segment == nil && len(c.bytes) == 0 || c.segment != nil && c.segment.Text == 0
}

// content is the text of message m. Parts are joined as backends flatten a list
// of parts for templates that take a string. Media and what is no text raise doubt.
func (r *renderer) content(m *dialect.Message) content {
	join := "\n"
	if r.o.Backend == SGLang {
		join = " "
	}
	return r.joined(m, join)
}

func (r *renderer) joined(m *dialect.Message, join string) content {
	r.check(m)
	if m.FirstMedia < m.EndMedia {
		r.doubt()
	}
	var only *dialect.Segment
	n := 0
	for i := m.First; i < m.End; i++ {
		if s := &r.v.Segments[i]; s.Kind == dialect.Content {
			if only == nil {
				only = s
			}
			n++
		}
	}
	if n <= 1 {
		return content{segment: only}
	}
	if r.o.Backend == Hosted {
		r.doubt()
	}
	r.text = r.text[:0]
	n = 0
	for i := m.First; i < m.End; i++ {
		s := &r.v.Segments[i]
		if s.Kind != dialect.Content {
			continue
		}
		if n > 0 {
			r.text = append(r.text, join...)
		}
		n++
		r.text = r.appendText(r.text, s)
	}
	return content{bytes: r.text}
}

// check raises doubt about fields of m that backends treat each in their way.
func (r *renderer) check(m *dialect.Message) {
	for i := m.First; i < m.End; i++ {
		switch s := &r.v.Segments[i]; s.Kind {
		case dialect.Content:
			if s.Raw {
				r.doubt() // a number, an object
			}
		case dialect.Other:
			if b := r.v.Bytes(s); !s.Raw || string(b) != "[]" && string(b) != "{}" { // what is empty is not shown
				r.doubt()
			}
		case dialect.Refusal, dialect.FileName, dialect.ToolCall:
			r.doubt()
		}
	}
}

// appendText appends the decoded text of s.
func (r *renderer) appendText(dst []byte, s *dialect.Segment) []byte {
	if !s.Escaped || s.Raw {
		return append(dst, r.v.Bytes(s)...)
	}
	var b []byte
	b, r.more = r.v.Decode(s, r.more)
	return append(dst, b...)
}

// decoded is the text of c. It holds until the next text is put together.
func (r *renderer) decoded(c content) []byte {
	if c.segment == nil {
		return c.bytes
	}
	var b []byte
	b, r.text = r.v.Decode(c.segment, r.text)
	return b
}

// emit writes c; with trim, without the white space at its ends.
func (r *renderer) emit(c content, trim bool) {
	switch {
	case c.segment != nil:
		r.w.Segment(c.segment, trim)
	case trim:
		r.bytes(Trim(c.bytes))
	default:
		r.bytes(c.bytes)
	}
}

func (r *renderer) bytes(b []byte) {
	if len(b) > 0 {
		r.w.Bytes(b)
	}
}

// find is the first segment of that kind in message m, or nil.
func (r *renderer) find(m *dialect.Message, k dialect.Kind) *dialect.Segment {
	for i := m.First; i < m.End; i++ {
		if s := &r.v.Segments[i]; s.Kind == k {
			return s
		}
	}
	return nil
}

// role writes the name of who speaks in m.
func (r *renderer) role(m *dialect.Message) {
	if m.Role != dialect.RoleOther {
		r.w.Literal(m.Role.String())
		return
	}
	r.doubt()
	if s := r.find(m, dialect.RoleName); s != nil && !s.Raw {
		r.w.Segment(s, false)
	}
}

// reasoning is what the assistant thought in m.
func (r *renderer) reasoning(m *dialect.Message) *dialect.Segment {
	var found *dialect.Segment
	for i := m.First; i < m.End; i++ {
		s := &r.v.Segments[i]
		if s.Kind != dialect.Reasoning {
			continue
		}
		if found != nil || s.Raw || r.o.Backend == SGLang {
			r.doubt() // two names for it, of which a backend reads one
		}
		if found == nil {
			found = s
		}
	}
	return found
}

// noCalls raises doubt when m has calls, for templates that do not define them.
func (r *renderer) noCalls(m *dialect.Message) {
	if m.ToolCalls > 0 {
		r.doubt()
	}
}

// Trim cuts the white space at both ends of b as Python's str.strip does.
func Trim(b []byte) []byte {
	for len(b) > 0 {
		c, n := utf8.DecodeRune(b)
		if !isSpace(c) {
			break
		}
		b = b[n:]
	}
	for len(b) > 0 {
		c, n := utf8.DecodeLastRune(b)
		if !isSpace(c) {
			break
		}
		b = b[:len(b)-n]
	}
	return b
}

// isSpace is Python's str.isspace of one character.
func isSpace(c rune) bool {
	switch {
	case c >= '\t' && c <= '\r', c >= 0x1c && c <= ' ', c == 0x85, c == 0xa0, c == 0x1680, c >= 0x2000 && c <= 0x200a,
		c == 0x2028, c == 0x2029, c == 0x202f, c == 0x205f, c == 0x3000:
		return true
	}
	return false
}
