package jsonscan

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/ai"
)

// str reads the string that begins here.
func (s *Scanner) str() (Value, bool) {
	start := s.pos
	v := Value{Kind: String, Off: start}
	saved := 0 // bytes that decoding the escapes saves
	i := start + 1
	for {
		i = plain(s.body, i)
		if i >= len(s.body) {
			s.pos = start
			return v, s.invalid("a string has no end")
		}
		switch c := s.body[i]; {
		case c == '"':
			s.pos = i + 1
			v.Len = s.pos - start
			v.Text = v.Len - 2 - saved
			return v, true
		case c == '\\':
			n, text := s.escape(i)
			if n == 0 {
				return v, false
			}
			v.Escaped = true
			saved += n - text
			i += n
		case c < ' ':
			s.pos = i
			return v, s.invalid("a control character stands in a string")
		default:
			end, ok := multibyte(s.body, i)
			if !ok {
				return v, s.fail(ai.ReasonInvalidUTF8, end, "a string is not valid UTF-8")
			}
			i = end
		}
	}
}

const (
	low  = 0x0101010101010101
	high = 0x8080808080808080
)

// plain is the index of the first byte from i on that is not plain ASCII text:
// a quote, a backslash, a control character, or 0x80 and above.
//
// It tests eight bytes at once: (w - low*n) &^ w & high marks the bytes of w
// below n, and is exact up to and including the first that it marks
// (Hacker's Delight, 6-1); bytes of 0x80 and above are marked by themselves.
func plain(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote := w ^ low*'"'
		slash := w ^ low*'\\'
		mark := ((w-low*' ')&^w | (quote-low)&^quote | (slash-low)&^slash | w) & high
		if mark != 0 {
			return i + bits.TrailingZeros64(mark)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < ' ' || c >= utf8.RuneSelf {
			break
		}
	}
	return i
}

// multibyte passes over the characters of more than one byte from i on. When
// they are not valid UTF-8 (Unicode 17, table 3-7), it answers where.
func multibyte(b []byte, i int) (int, bool) {
	for i < len(b) && b[i] >= utf8.RuneSelf {
		rest := b[i:]
		c := rest[0]
		// Most CJK text: three bytes with any continuation bytes.
		if c-0xE1 < 0xED-0xE1 && len(rest) >= 3 && rest[1]&0xC0 == 0x80 && rest[2]&0xC0 == 0x80 {
			i += 3
			continue
		}
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n < 2 {
			return i, false
		}
		i += n
	}
	return i, true
}

// escape reads the escape at i. It answers how many bytes it has and how many
// its text has; zero for a fault.
func (s *Scanner) escape(i int) (n, text int) {
	s.pos = i
	if i+1 >= len(s.body) {
		s.invalid("a string has no end")
		return 0, 0
	}
	switch s.body[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, 1
	case 'u':
	default:
		s.invalid("an escape in a string is not known")
		return 0, 0
	}
	r, ok := hex4(s.body[i+2:])
	switch {
	case !ok:
		s.invalid("an escape in a string needs four hexadecimal digits")
		return 0, 0
	case r < 0xD800 || r > 0xDFFF:
		return 6, utf8.RuneLen(r)
	case r <= 0xDBFF && i+7 < len(s.body) && s.body[i+6] == '\\' && s.body[i+7] == 'u':
		if second, ok := hex4(s.body[i+8:]); ok && second >= 0xDC00 && second <= 0xDFFF {
			return 12, 4
		}
	}
	s.fail(ai.ReasonInvalidUTF8, i, "a string has half a surrogate pair")
	return 0, 0
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// AppendText appends the decoded text of a string, quotes included in literal,
// that a Scanner has read. Of any other literal it appends what it can.
func AppendText(dst, literal []byte) []byte {
	if len(literal) < 2 {
		return dst
	}
	in := literal[1 : len(literal)-1]
	for i := 0; i < len(in); {
		if in[i] != '\\' || i+1 >= len(in) {
			n := bytes.IndexByte(in[i+1:], '\\')
			if n < 0 {
				return append(dst, in[i:]...)
			}
			dst = append(dst, in[i:i+1+n]...)
			i += 1 + n
			continue
		}
		i += 2
		switch c := in[i-1]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, n := unicode(in[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// unicode decodes what follows \u, a second escape of a surrogate pair included.
func unicode(in []byte) (r rune, n int) {
	r, ok := hex4(in)
	if !ok {
		return utf8.RuneError, 0
	}
	if r >= 0xD800 && r <= 0xDBFF && len(in) >= 10 {
		if second, ok := hex4(in[6:]); ok {
			return 0x10000 + (r-0xD800)<<10 + (second - 0xDC00), 10
		}
	}
	return r, 4
}

// number reads the number that begins here.
func (s *Scanner) number() bool {
	if s.body[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.body) && s.body[s.pos] == '0' {
		s.pos++
	} else if !s.digits() {
		return false
	}
	if s.pos < len(s.body) && s.body[s.pos] == '.' {
		s.pos++
		if !s.digits() {
			return false
		}
	}
	if s.pos < len(s.body) && s.body[s.pos]|0x20 == 'e' {
		s.pos++
		if s.pos < len(s.body) && (s.body[s.pos] == '+' || s.body[s.pos] == '-') {
			s.pos++
		}
		return s.digits()
	}
	return true
}

func (s *Scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.body) && s.body[s.pos]-'0' <= 9 {
		s.pos++
	}
	return s.pos > start || s.invalid("a digit was expected")
}

func (s *Scanner) literal(want string) bool {
	if len(s.body)-s.pos < len(want) || string(s.body[s.pos:s.pos+len(want)]) != want {
		return s.invalid("a value was expected")
	}
	s.pos += len(want)
	return true
}
