package media

// text walks over the characters of a JSON string as it stands in a body,
// without its quotes.
type text struct {
	lit []byte
	pos int
}

// other stands for what is not ASCII and for escapes that JSON does not know.
const other = 0x80

// next is the next character: ASCII as it is, everything else at 0x80 or above.
func (t *text) next() (c byte, ok bool) {
	if t.pos >= len(t.lit) {
		return 0, false
	}
	c = t.lit[t.pos]
	t.pos++
	if c == '\\' {
		c = t.escape()
	}
	return c, true
}

// escape reads what follows a backslash. PHP and others write "\/" for every
// slash, so that escapes are not rare in base64.
func (t *text) escape() byte {
	if t.pos >= len(t.lit) {
		return other
	}
	c := t.lit[t.pos]
	t.pos++
	switch c {
	case '"', '\\', '/':
		return c
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'u':
		return t.unicode()
	}
	return other
}

func (t *text) unicode() byte {
	if len(t.lit)-t.pos < 4 {
		t.pos = len(t.lit)
		return other
	}
	var r int
	for _, c := range t.lit[t.pos : t.pos+4] {
		v, ok := hex(c)
		if !ok {
			return other
		}
		r = r<<4 | int(v)
	}
	t.pos += 4
	if r >= other {
		return other
	}
	return byte(r)
}

func hex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
