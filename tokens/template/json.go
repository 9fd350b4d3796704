package template

import (
	"bytes"
	"math"
	"strconv"

	"github.com/weirproxy/weir/dialect/jsonscan"
)

// The functions here read JSON that is known to be valid: a body, or a part of
// one, that was parsed. On other input they answer something, and never panic.

// skipSpace is the offset of the first byte at or behind i that is no white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString is the offset behind the string whose opening quote is at i.
func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return len(b)
		}
		i += n
		slashes := 0
		for b[i-1-slashes] == '\\' { // ends at the opening quote at the latest
			slashes++
		}
		if slashes%2 == 0 {
			return i + 1
		}
	}
	return len(b)
}

// ends are the bytes that a number or a name of JSON ends before.
var ends = [256]bool{',': true, ':': true, '{': true, '}': true, '[': true, ']': true, '"': true, ' ': true, '\n': true, '\t': true, '\r': true}

// skipValue is the offset behind the value that starts at i.
func skipValue(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = skipString(b, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\n', '\t', '\r':
			i++
			continue
		default:
			for i < len(b) && !ends[b[i]] {
				i++
			}
		}
		if depth <= 0 {
			return i
		}
	}
	return len(b)
}

// members walks over the members of an object.
type members struct {
	b          []byte
	i          int
	name       []byte // quotes included
	start, end int
}

// object is a walk over the object that b is, behind white space.
func object(b []byte) (members, bool) {
	i := skipSpace(b, 0)
	return members{b: b, i: i + 1}, i < len(b) && b[i] == '{'
}

func (m *members) next() bool {
	i := skipSpace(m.b, m.i)
	if i < len(m.b) && m.b[i] == ',' {
		i = skipSpace(m.b, i+1)
	}
	if i >= len(m.b) || m.b[i] == '}' || m.b[i] == ']' {
		m.i = i
		return false
	}
	end := skipValue(m.b, i)
	m.name = m.b[i:end]
	if i = skipSpace(m.b, end); i >= len(m.b) || m.b[i] != ':' {
		return false
	}
	i = skipSpace(m.b, i+1)
	m.start, m.end = i, skipValue(m.b, i)
	m.i = m.end
	return m.start < m.end
}

// key is the name of the member as it stands, without its quotes.
func (m *members) key() []byte {
	if len(m.name) < 2 {
		return nil
	}
	return m.name[1 : len(m.name)-1]
}

func (m *members) value() []byte { return m.b[m.start:m.end] }

// member is the value of the member of that name in the object b; nil when there
// is none. A name that is written with escapes is not found.
func member(b []byte, name string) []byte {
	m, ok := object(b)
	if !ok {
		return nil
	}
	for m.next() {
		if string(m.key()) == name {
			return m.value()
		}
	}
	return nil
}

// appendString appends the text of the JSON string b, quotes included.
func appendString(dst, b []byte) []byte {
	if len(b) < 2 {
		return dst
	}
	if bytes.IndexByte(b, '\\') < 0 {
		return append(dst, b[1:len(b)-1]...)
	}
	return jsonscan.AppendText(dst, b)
}

// dumper writes JSON as Python's json.dumps(json.loads(text), ensure_ascii=False)
// does, which is what transformers' tojson does; or, compact, without white space, as
// serde_json writes it.
type dumper struct {
	sink
	indent  int // spaces a level; 0 for one line
	compact bool
	doubt   bool
	scratch []byte
}

// value writes the value b.
func (d *dumper) value(b []byte, depth int) { d.at(b, skipSpace(b, 0), depth) }

// at writes the value at i, and answers the offset behind it: the end of b when
// there is no more room.
func (d *dumper) at(b []byte, i, depth int) int {
	if i >= len(b) || d.full {
		d.doubt = true
		return len(b)
	}
	switch b[i] {
	case '{', '[':
		return d.container(b, i, depth)
	case '"':
		end := skipString(b, i)
		d.str(b[i:end])
		return end
	}
	end := i
	for end < len(b) && isScalar(b[end]) {
		end++
	}
	if end == i { // no JSON
		d.doubt = true
		return i + 1
	}
	switch c := b[i]; {
	case c == 't' || c == 'f' || c == 'n':
		d.bytes(b[i:end])
	case d.compact:
		d.rustNumber(b[i:end])
	default:
		d.number(b[i:end])
	}
	return end
}

// isScalar reports whether c may be part of a number or of a name of JSON.
func isScalar(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '-' || c == '+' || c == '.'
}

func (d *dumper) container(b []byte, i, depth int) int {
	object := b[i] == '{'
	closing := b[i] + 2 // '}' or ']'
	d.byte(b[i])
	n := 0
	for i = skipSpace(b, i+1); i < len(b) && b[i] != closing; n++ {
		d.separator(n == 0, depth+1)
		if object {
			i = d.key(b, i)
		}
		i = d.at(b, i, depth+1)
		if i = skipSpace(b, i); i < len(b) && b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	if n > 0 {
		d.newline(depth)
	}
	d.byte(closing)
	return min(i+1, len(b))
}

// key writes the name of a member that stands at i, and answers where its value is.
func (d *dumper) key(b []byte, i int) int {
	end := i
	if b[i] == '"' {
		end = skipString(b, i)
		d.str(b[i:end])
		if d.compact {
			d.byte(':')
		} else {
			d.literal(": ")
		}
	}
	if i = skipSpace(b, end); i < len(b) && b[i] == ':' {
		i = skipSpace(b, i+1)
	}
	return i
}

func (d *dumper) separator(first bool, depth int) {
	switch {
	case first:
	case d.compact || d.indent > 0:
		d.byte(',')
	default:
		d.literal(", ")
	}
	d.newline(depth)
}

func (d *dumper) newline(depth int) {
	if d.indent > 0 {
		d.byte('\n')
		d.spaces(d.indent * depth)
	}
}

// str writes the string b, quotes included. Written anew, it is not longer.
func (d *dumper) str(b []byte) {
	if bytes.IndexByte(b, '\\') < 0 {
		d.bytes(b)
		return
	}
	if d.take(len(b)) {
		d.scratch = jsonscan.AppendText(d.scratch[:0], b)
		d.b = appendQuoted(d.b, d.scratch)
	}
}

// number writes the number b as Python prints it after reading it.
func (d *dumper) number(b []byte) {
	if !d.fits(len(b) + maxFloat) {
		return
	}
	n := len(d.b)
	var ok bool
	d.b, ok = appendNumber(d.b, b)
	d.doubt = d.doubt || !ok
	d.room -= len(d.b) - n
}

// maxFloat is how many bytes longer than it stands a float may be written.
const maxFloat = 32

// rustNumber writes the number b as Rust prints it after reading it, which is never
// longer.
func (d *dumper) rustNumber(b []byte) {
	if !d.take(len(b)) {
		return
	}
	if bytes.ContainsAny(b, "eE") || len(b) > 15 {
		d.doubt = true // how Rust prints it is not known here
		d.b = append(d.b, b...)
		return
	}
	f, err := strconv.ParseFloat(string(b), 64)
	d.doubt = d.doubt || err != nil
	if bytes.IndexByte(b, '.') < 0 {
		d.b = append(d.b, b...)
		return
	}
	n := len(d.b)
	d.b = strconv.AppendFloat(d.b, f, 'f', -1, 64)
	if bytes.IndexByte(d.b[n:], '.') < 0 {
		d.b = append(d.b, ".0"...)
	}
}

// appendQuoted appends text as a JSON string, as json.dumps(ensure_ascii=False)
// writes it.
func appendQuoted(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\b':
			dst = append(dst, `\b`...)
		case c == '\f':
			dst = append(dst, `\f`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[c>>4], hex[c&15])
		}
	}
	return append(dst, '"')
}

// maxPythonDigits is how long an integer may be for Python to read it.
const maxPythonDigits = 4300

// appendNumber appends the number b as Python prints it after reading it; false
// when Python refuses it or reads no number.
func appendNumber(dst, b []byte) ([]byte, bool) {
	if !bytes.ContainsAny(b, ".eE") {
		if string(b) == "-0" {
			b = b[1:]
		}
		return append(dst, b...), len(b) <= maxPythonDigits
	}
	f, err := strconv.ParseFloat(string(b), 64)
	switch {
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...), true
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...), true
	case err != nil:
		return append(dst, b...), false
	}
	if exp := exponent(f); exp < -4 || exp >= 16 {
		return strconv.AppendFloat(dst, f, 'e', -1, 64), true
	}
	n := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	if bytes.IndexByte(dst[n:], '.') < 0 {
		dst = append(dst, ".0"...)
	}
	return dst, true
}

// exponent is the decimal exponent of the shortest form of f.
func exponent(f float64) int {
	if f == 0 {
		return 0
	}
	var buf [32]byte
	b := strconv.AppendFloat(buf[:0], f, 'e', -1, 64)
	e, _ := strconv.Atoi(string(b[bytes.IndexByte(b, 'e')+1:]))
	return e
}
