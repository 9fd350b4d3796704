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
			for i < len(b) && !bytes.ContainsRune([]byte(",:{}[]\" \n\t\r"), rune(b[i])) {
				i++
			}
		}
		if depth <= 0 {
			return i
		}
	}
	return len(b)
}

// members walks over the members of an object, or the items of an array.
type members struct {
	b          []byte
	i          int
	array      bool
	name       []byte // quotes included
	start, end int
}

// object is a walk over the object that b is, behind white space.
func object(b []byte) (members, bool) {
	i := skipSpace(b, 0)
	return members{b: b, i: i + 1}, i < len(b) && b[i] == '{'
}

// array is a walk over the array that b is, behind white space.
func array(b []byte) (members, bool) {
	i := skipSpace(b, 0)
	return members{b: b, i: i + 1, array: true}, i < len(b) && b[i] == '['
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
	if !m.array {
		end := skipValue(m.b, i)
		m.name = m.b[i:end]
		i = skipSpace(m.b, end)
		if i >= len(m.b) || m.b[i] != ':' {
			return false
		}
		i = skipSpace(m.b, i+1)
	}
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
// does, which is what transformers' tojson does.
type dumper struct {
	indent int // spaces a level; 0 for one line
	doubt  bool
	text   []byte
}

// value appends the value b.
func (d *dumper) value(dst, b []byte, depth int) []byte {
	dst, _ = d.at(dst, b, skipSpace(b, 0), depth)
	return dst
}

// at appends the value at i, and answers the offset behind it.
func (d *dumper) at(dst, b []byte, i, depth int) ([]byte, int) {
	if i >= len(b) {
		d.doubt = true
		return dst, i
	}
	switch b[i] {
	case '{', '[':
		return d.container(dst, b, i, depth)
	case '"':
		end := skipString(b, i)
		return d.str(dst, b[i:end]), end
	}
	end := i
	for end < len(b) && isScalar(b[end]) {
		end++
	}
	if end == i { // no JSON
		d.doubt = true
		return dst, i + 1
	}
	if c := b[i]; c == 't' || c == 'f' || c == 'n' {
		return append(dst, b[i:end]...), end
	}
	dst, ok := appendNumber(dst, b[i:end])
	d.doubt = d.doubt || !ok
	return dst, end
}

// isScalar reports whether c may be part of a number or of a name of JSON.
func isScalar(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '-' || c == '+' || c == '.'
}

func (d *dumper) container(dst, b []byte, i, depth int) ([]byte, int) {
	object := b[i] == '{'
	closing := b[i] + 2 // '}' or ']'
	dst = append(dst, b[i])
	n := 0
	for i = skipSpace(b, i+1); i < len(b) && b[i] != closing; n++ {
		dst = d.separator(dst, n == 0, depth+1)
		if object {
			end := i
			if b[i] == '"' {
				end = skipString(b, i)
				dst = append(d.str(dst, b[i:end]), ": "...)
			}
			if i = skipSpace(b, end); i < len(b) && b[i] == ':' {
				i = skipSpace(b, i+1)
			}
		}
		dst, i = d.at(dst, b, i, depth+1)
		if i = skipSpace(b, i); i < len(b) && b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	if n > 0 {
		dst = d.newline(dst, depth)
	}
	return append(dst, closing), min(i+1, len(b))
}

func (d *dumper) separator(dst []byte, first bool, depth int) []byte {
	switch {
	case d.indent > 0 && !first:
		dst = append(dst, ',')
	case !first:
		dst = append(dst, ", "...)
	}
	return d.newline(dst, depth)
}

func (d *dumper) newline(dst []byte, depth int) []byte {
	if d.indent == 0 {
		return dst
	}
	dst = append(dst, '\n')
	for range d.indent * depth {
		dst = append(dst, ' ')
	}
	return dst
}

func (d *dumper) str(dst, b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 {
		return append(dst, b...)
	}
	d.text = jsonscan.AppendText(d.text[:0], b)
	return appendQuoted(dst, d.text)
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
