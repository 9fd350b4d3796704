package bpe

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// class is what the patterns want to know of a character: a bit each.
type class uint16

const (
	upper    class = 1 << iota // Lu, Lt
	lower                      // Ll
	caseless                   // Lm, Lo
	mark                       // M
	number                     // N
	space                      // White_Space
	newline                    // \r and \n; they are space too
	sign                       // P, S
	eastern                    // Chinese characters and kana, as DeepSeek's pattern has them
	shifting                   // may change or move in normal form C
	western                    // all that is not eastern
)

const letter = upper | lower | caseless

// ascii are the classes of the single bytes. A byte that begins no valid UTF-8 is
// taken for U+FFFD, a symbol.
var ascii [256]class

// Characters share blocks of 256: blockOf is the block of each, in blocks.
var (
	blockOf [(unicode.MaxRune + 1) >> 8]uint8
	blocks  [][256]class
)

// loadClasses fills the tables from Go's Unicode tables, which takes some
// milliseconds.
var loadClasses = sync.OnceFunc(func() {
	all := make([]class, unicode.MaxRune+1)
	for _, c := range []struct {
		class  class
		tables []*unicode.RangeTable
	}{
		{upper, []*unicode.RangeTable{unicode.Lu, unicode.Lt}},
		{lower, []*unicode.RangeTable{unicode.Ll}},
		{caseless, []*unicode.RangeTable{unicode.Lm, unicode.Lo}},
		{mark, []*unicode.RangeTable{unicode.M}},
		{number, []*unicode.RangeTable{unicode.N}},
		{space, []*unicode.RangeTable{unicode.White_Space}},
		{sign, []*unicode.RangeTable{unicode.P, unicode.S}},
		{eastern, []*unicode.RangeTable{easternTable}},
	} {
		for _, t := range c.tables {
			fill(all, t, c.class)
		}
	}
	for _, c := range newer {
		for _, r := range c.ranges {
			for x := r[0]; x <= r[1]; x++ {
				all[x] |= c.class
			}
		}
	}
	for x := rune(0x300); x <= unicode.MaxRune; x++ { // none is below
		if all[x] != 0 && unstable(x) {
			all[x] |= shifting
		}
	}
	for x := range all {
		if all[x]&eastern == 0 {
			all[x] |= western
		}
	}
	all['\r'] |= newline
	all['\n'] |= newline
	for i := range ascii {
		ascii[i] = all[i]
		if i >= utf8.RuneSelf {
			ascii[i] = sign | western
		}
	}
	index := map[[256]class]uint8{}
	for i := range blockOf {
		block := [256]class(all[i<<8:])
		n, known := index[block]
		if !known {
			n = uint8(len(blocks))
			index[block] = n
			blocks = append(blocks, block)
		}
		blockOf[i] = n
	}
})

var easternTable = &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0x3040, Hi: 0x30FF, Stride: 1}, {Lo: 0x4E00, Hi: 0x9FA5, Stride: 1}}}

func fill(all []class, t *unicode.RangeTable, c class) {
	for _, r := range t.R16 {
		for x := rune(r.Lo); x <= rune(r.Hi); x += rune(r.Stride) {
			all[x] |= c
		}
	}
	for _, r := range t.R32 {
		for x := rune(r.Lo); x <= rune(r.Hi); x += rune(r.Stride) {
			all[x] |= c
		}
	}
}

// at is the class of the character at i, and its length. At the end it is no class
// and has no length.
func at(text []byte, i int) (class, int) {
	if i >= len(text) {
		return 0, 0
	}
	if c := text[i]; c < utf8.RuneSelf {
		return ascii[c], 1
	}
	return wide(text[i:])
}

// wide is the class of a character of several bytes, and its length.
func wide(rest []byte) (class, int) {
	c := rest[0]
	// Most CJK text: three bytes with any continuation bytes.
	if c-0xE1 < 0xED-0xE1 && len(rest) >= 3 && rest[1]&0xC0 == 0x80 && rest[2]&0xC0 == 0x80 {
		hi := uint(c&0x0F)<<4 | uint(rest[1]&0x3C)>>2
		return blocks[blockOf[hi]][rest[1]<<6|rest[2]&0x3F], 3
	}
	r, n := utf8.DecodeRune(rest)
	return blocks[blockOf[r>>8]][r&0xFF], n
}

// run is the end of the longest run of characters from i on that are of one of the
// classes and of none of the others.
func run(text []byte, i int, of, not class) int {
	for i < len(text) {
		if c := text[i]; c < utf8.RuneSelf {
			if k := ascii[c]; k&of == 0 || k&not != 0 {
				return i
			}
			i++
			continue
		}
		k, n := wide(text[i:])
		if k&of == 0 || k&not != 0 {
			return i
		}
		i += n
	}
	return i
}
