package media

import "encoding/binary"

// maxLook is how many characters of a part are looked at, from its beginning:
// the 288 KiB in which every usual header lies, a large colour profile or the
// cover of an album included. It keeps the time for a part within a fraction of
// a millisecond, and within one or two for a literal full of escapes.
const maxLook = 384 << 10

// source gives the bytes of one part from its beginning, and decodes what is
// asked for and no more. What is passed over is not decoded either, but looked
// at: one character there that a lenient decoder drops would shift all behind
// it.
type source struct {
	text           // what may be looked at
	all     []byte // the whole literal
	percent bool   // not base64 but percent-encoded (RFC 2397)
	held    [3]byte
	n, at   int   // how much of held there is, and how much of it is given
	offset  int64 // bytes given or passed over
	// doubt says that other decoders could read other bytes: the two alphabets
	// mixed or the URL alphabet, which lenient decoders drop; characters that
	// strict ones refuse. White space leaves none: it is dropped or refused.
	doubt bool
}

// maxHead is how long what stands before the comma of a data URI may be.
const maxHead = 256

// open finds the data of a data URI (RFC 2397, WHATWG fetch 6) or, when bare is
// set, of base64 without any head.
func open(literal []byte, bare bool) (source, bool) {
	s := source{all: literal}
	s.lit = literal[:min(len(literal), maxLook)]
	start := s.skipBlank()
	if !s.scheme() {
		s.pos = start
		return s, bare && !s.isURL()
	}
	var head [maxHead]byte
	for n := range head {
		c, ok := s.next()
		if !ok {
			return s, false
		}
		if c == ',' {
			s.percent = !isBase64(head[:n])
			return s, true
		}
		head[n] = c
	}
	return s, false
}

func (s *source) skipBlank() int {
	for {
		start := s.pos
		if c, ok := s.next(); !ok || alphabet[c] != blank {
			s.pos = start
			return start
		}
	}
}

func (s *source) scheme() bool {
	for _, want := range []byte("data:") {
		if c, ok := s.next(); !ok || fold(c) != want {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// isURL says that a scheme and a colon stand here, which base64 never begins with.
func (s *source) isURL() bool {
	t := s.text
	for range 16 {
		c, ok := t.next()
		if !ok {
			return false
		}
		if c == ':' {
			return true
		}
	}
	return false
}

// isBase64 says that a head ends in ";base64".
func isBase64(head []byte) bool {
	const word = "base64"
	for len(head) > 0 && head[len(head)-1] == ' ' {
		head = head[:len(head)-1]
	}
	n := len(head) - len(word)
	if n < 1 {
		return false
	}
	for i, c := range head[n:] {
		if fold(c) != word[i] {
			return false
		}
	}
	for head = head[:n]; len(head) > 0 && head[len(head)-1] == ' '; {
		head = head[:len(head)-1]
	}
	return len(head) > 0 && head[len(head)-1] == ';'
}

// fill reads all of p, or answers false.
func (s *source) fill(p []byte) bool {
	s.offset += int64(len(p))
	for len(p) > 0 {
		if s.at < s.n {
			k := copy(p, s.held[s.at:s.n])
			s.at += k
			p = p[k:]
			continue
		}
		if k := s.direct(p); k > 0 {
			p = p[k:]
			continue
		}
		if !s.group() {
			return false
		}
	}
	return true
}

// direct decodes whole groups of the standard alphabet into p.
func (s *source) direct(p []byte) (n int) {
	if s.percent {
		return 0
	}
	for len(p)-n >= 3 && len(s.lit)-s.pos >= 4 {
		b := s.lit[s.pos : s.pos+4]
		a0, a1, a2, a3 := alphabet[b[0]], alphabet[b[1]], alphabet[b[2]], alphabet[b[3]]
		if a0|a1|a2|a3 >= urlSafe {
			break
		}
		p[n], p[n+1], p[n+2] = a0<<2|a1>>4, a1<<4|a2>>2, a2<<6|a3
		s.pos += 4
		n += 3
	}
	return n
}

// group decodes the next bytes into held: up to three of base64, one of percent.
func (s *source) group() bool {
	if s.percent {
		return s.percentByte()
	}
	var v uint32
	sextets := 0
	for sextets < 4 {
		c, ok := s.next()
		if !ok {
			break
		}
		a := alphabet[c]
		if a == pad {
			s.lit = s.lit[:s.pos]
			break
		}
		if a == blank {
			continue
		}
		s.doubt = s.doubt || a >= urlSafe
		if a < blank {
			v = v<<6 | uint32(a&^urlSafe)
			sextets++
		}
	}
	s.at, s.n = 0, sextets*3/4
	v <<= 6 * (4 - sextets)
	s.held = [3]byte{byte(v >> 16), byte(v >> 8), byte(v)}
	return s.n > 0
}

func (s *source) percentByte() bool {
	c, ok := s.next()
	if !ok {
		return false
	}
	if c == '%' {
		t := s.text
		first, _ := t.next()
		second, _ := t.next()
		h, okH := hex(first)
		l, okL := hex(second)
		if okH && okL {
			c, s.text = h<<4|l, t
		}
		s.doubt = s.doubt || !okH || !okL
	} else {
		// A fragment ends a URL; what is not ASCII is encoded in more ways than one.
		s.doubt = s.doubt || c == '#' || c >= other
	}
	s.held[0], s.at, s.n = c, 0, 1
	return true
}

// skip passes over n bytes, or answers false.
func (s *source) skip(n int64) bool {
	if n < 0 {
		return false
	}
	s.offset += n
	for {
		k := min(int64(s.n-s.at), n)
		s.at += int(k)
		if n -= k; n == 0 {
			return true
		}
		if !s.percent && n >= 3 {
			rest := s.lit[s.pos:]
			if groups := n / 3; groups < int64(len(rest)/4) {
				rest = rest[:groups*4]
			}
			run := plain(rest) &^ 3
			s.pos += run
			if n -= int64(run / 4 * 3); n == 0 {
				return true
			}
		}
		if !s.group() {
			return false
		}
	}
}

// left is how many bytes there are from here on, at the most. It is the true
// number for base64 without escapes and white space.
func (s *source) left() int64 {
	rest := s.all[s.pos:]
	if s.percent {
		return int64(len(rest))
	}
	return int64(s.n-s.at) + int64(len(unpadded(rest)))*3/4
}

// unpadded is base64 without the padding at its end.
func unpadded(b []byte) []byte {
	for range 2 {
		if n := len(b); n > 0 && b[n-1] == '=' {
			b = b[:n-1]
		}
	}
	return b
}

func (s *source) u8() (byte, bool) {
	var b [1]byte
	ok := s.fill(b[:])
	return b[0], ok
}

func (s *source) u16() (int64, bool) {
	var b [2]byte
	ok := s.fill(b[:])
	return int64(binary.BigEndian.Uint16(b[:])), ok
}

func (s *source) u32() (int64, bool) {
	var b [4]byte
	ok := s.fill(b[:])
	return int64(binary.BigEndian.Uint32(b[:])), ok
}
