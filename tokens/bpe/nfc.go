package bpe

import (
	"slices"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Normal form C (Unicode Standard, annex 15) as Hugging Face's tokenizers make it.
// golang.org/x/text would do but for two things. It puts a joiner into runs of more
// than 30 marks, which no tokenizer does, so that hostile text would be counted
// wrongly. And the tokenizers' data are of Unicode 9: what came later neither moves
// nor joins. The data of x/text are used for the rest.

// later are the characters that would move or join, had the tokenizers heard of them.
// The list is that of the differences between their form C and that of x/text.
var later = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x07FD, Hi: 0x07FD, Stride: 1}, {Lo: 0x0898, Hi: 0x089F, Stride: 1},
		{Lo: 0x08CA, Hi: 0x08D3, Stride: 1}, {Lo: 0x09FE, Hi: 0x09FE, Stride: 1},
		{Lo: 0x0C3C, Hi: 0x0C3C, Stride: 1}, {Lo: 0x0D3B, Hi: 0x0D3C, Stride: 1},
		{Lo: 0x0EBA, Hi: 0x0EBA, Stride: 1}, {Lo: 0x1715, Hi: 0x1715, Stride: 1},
		{Lo: 0x1ABF, Hi: 0x1ACE, Stride: 1}, {Lo: 0x1DF6, Hi: 0x1DFA, Stride: 1},
		{Lo: 0xA82C, Hi: 0xA82C, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x10D24, Hi: 0x10D27, Stride: 1}, {Lo: 0x10EAB, Hi: 0x10EAC, Stride: 1},
		{Lo: 0x10EFD, Hi: 0x10EFF, Stride: 1}, {Lo: 0x10F46, Hi: 0x10F50, Stride: 1},
		{Lo: 0x10F82, Hi: 0x10F85, Stride: 1}, {Lo: 0x11070, Hi: 0x11070, Stride: 1},
		{Lo: 0x1133B, Hi: 0x1133B, Stride: 1}, {Lo: 0x1145E, Hi: 0x1145E, Stride: 1},
		{Lo: 0x11839, Hi: 0x1183A, Stride: 1}, {Lo: 0x11930, Hi: 0x11930, Stride: 1},
		{Lo: 0x1193D, Hi: 0x1193E, Stride: 1}, {Lo: 0x11943, Hi: 0x11943, Stride: 1},
		{Lo: 0x119E0, Hi: 0x119E0, Stride: 1}, {Lo: 0x11A34, Hi: 0x11A34, Stride: 1},
		{Lo: 0x11A47, Hi: 0x11A47, Stride: 1}, {Lo: 0x11A99, Hi: 0x11A99, Stride: 1},
		{Lo: 0x11D42, Hi: 0x11D42, Stride: 1}, {Lo: 0x11D44, Hi: 0x11D45, Stride: 1},
		{Lo: 0x11D97, Hi: 0x11D97, Stride: 1}, {Lo: 0x11F41, Hi: 0x11F42, Stride: 1},
		{Lo: 0x16FF0, Hi: 0x16FF1, Stride: 1}, {Lo: 0x1E08F, Hi: 0x1E08F, Stride: 1},
		{Lo: 0x1E130, Hi: 0x1E136, Stride: 1}, {Lo: 0x1E2AE, Hi: 0x1E2AE, Stride: 1},
		{Lo: 0x1E2EC, Hi: 0x1E2EF, Stride: 1}, {Lo: 0x1E4EC, Hi: 0x1E4EF, Stride: 1},
	},
}

// unstable tells whether the character may change, or join with or move before what
// stands before it, when a text is brought into form C. A text without such
// characters is in form C.
func unstable(r rune) bool {
	if unicode.Is(later, r) {
		return false
	}
	var buf [utf8.UTFMax]byte
	p := norm.NFC.Properties(buf[:utf8.EncodeRune(buf[:], r)])
	return p.CCC() != 0 || !norm.NFC.IsNormal(buf[:utf8.RuneLen(r)]) || !p.BoundaryBefore()
}

// composites maps two characters to the one that they are together; Hangul aside.
var composites = sync.OnceValue(func() map[[2]rune]rune {
	m := map[[2]rune]rune{}
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		if r >= hangul && r < hangul+hangulCount {
			continue
		}
		s := string(r)
		parts := []rune(string(norm.NFC.PropertiesString(s).Decomposition()))
		if len(parts) < 2 || norm.NFC.String(s) != s || unicode.Is(later, parts[0]) || unicode.Is(later, parts[len(parts)-1]) {
			continue
		}
		// Decompositions are given in full; but for its last character each is the
		// decomposition of a composite.
		if first := []rune(norm.NFC.String(string(parts[:len(parts)-1]))); len(first) == 1 {
			m[[2]rune{first[0], parts[len(parts)-1]}] = r
		}
	}
	return m
})

// The syllables of Hangul (Unicode Standard, 3.12).
const (
	hangul      = 0xAC00
	hangulL     = 0x1100
	hangulV     = 0x1161
	hangulT     = 0x11A7
	hangulLs    = 19
	hangulVs    = 21
	hangulTs    = 28
	hangulCount = hangulLs * hangulVs * hangulTs
)

func compose(a, b rune) (rune, bool) {
	if l, v := a-hangulL, b-hangulV; l >= 0 && l < hangulLs && v >= 0 && v < hangulVs {
		return hangul + (l*hangulVs+v)*hangulTs, true
	}
	if s, t := a-hangul, b-hangulT; s >= 0 && s < hangulCount && s%hangulTs == 0 && t > 0 && t < hangulTs {
		return a + t, true
	}
	r, ok := composites()[[2]rune{a, b}]
	return r, ok
}

// marked is a character with its canonical combining class.
type marked struct {
	r   rune
	ccc uint8
}

// normalizer brings texts into form C. Its memory is used again.
type normalizer struct {
	out     []byte
	cluster []marked
}

// trim gives back more memory than is worth keeping.
func (n *normalizer) trim() {
	if cap(n.out) > maxKeptBytes {
		n.out = nil
	}
	if cap(n.cluster) > maxKeptTokens {
		n.cluster = nil
	}
}

// nfc is text in form C: text itself, or memory that is valid until the next call.
// Bytes that are not UTF-8 stay as they are.
func (n *normalizer) nfc(text []byte) []byte {
	i := stable(text, 0)
	if i == len(text) {
		return text
	}
	n.out = n.out[:0]
	done := 0
	for i < len(text) {
		// The cluster: the character before, which may join with what follows, and
		// all unstable ones.
		start := i
		if i > done {
			_, size := utf8.DecodeLastRune(text[done:i])
			start -= size
		}
		end := i
		for end < len(text) {
			k, size := at(text, end)
			if k&shifting == 0 {
				break
			}
			end += size
		}
		n.out = append(n.out, text[done:start]...)
		n.compose(text[start:end])
		done = end
		i = stable(text, end)
	}
	n.out = append(n.out, text[done:]...)
	return n.out
}

// stable is the offset of the first unstable character from i on.
func stable(text []byte, i int) int {
	for i < len(text) {
		if text[i] < utf8.RuneSelf {
			i++
			continue
		}
		k, size := wide(text[i:])
		if k&shifting != 0 {
			return i
		}
		i += size
	}
	return i
}

// compose appends a cluster in form C to n.out.
func (n *normalizer) compose(cluster []byte) {
	c := n.cluster[:0]
	for len(cluster) > 0 {
		r, size := utf8.DecodeRune(cluster)
		if r == utf8.RuneError && size < 2 { // ends what is composed
			n.out = appendComposed(n.out, c)
			c = c[:0]
			n.out = append(n.out, cluster[0])
			cluster = cluster[1:]
			continue
		}
		c = appendDecomposed(c, cluster[:size])
		cluster = cluster[size:]
	}
	n.out = appendComposed(n.out, c)
	n.cluster = c
}

func appendDecomposed(c []marked, char []byte) []marked {
	r, _ := utf8.DecodeRune(char)
	if s := r - hangul; s >= 0 && s < hangulCount {
		c = append(c, marked{r: hangulL + s/(hangulVs*hangulTs)}, marked{r: hangulV + s%(hangulVs*hangulTs)/hangulTs})
		if t := s % hangulTs; t > 0 {
			c = append(c, marked{r: hangulT + t})
		}
		return c
	}
	p := norm.NFC.Properties(char)
	d := p.Decomposition()
	switch last, _ := utf8.DecodeLastRune(d); {
	case unicode.Is(later, r) || d != nil && unicode.Is(later, last):
		return append(c, marked{r: r})
	case d == nil:
		return append(c, marked{r, p.CCC()})
	}
	for len(d) > 0 {
		r, size := utf8.DecodeRune(d)
		c = append(c, marked{r, norm.NFC.Properties(d[:size]).CCC()})
		d = d[size:]
	}
	return c
}

// appendComposed orders and joins decomposed characters, and appends what comes out.
func appendComposed(out []byte, c []marked) []byte {
	order(c)
	const no = -1
	starter := no // the last one, that may join with what follows
	kept := c[:0] // overtakes nothing, as what is read is never behind it
	last := uint8(0)
	for i := range c {
		m := c[i]
		// Joins what nothing stands between that is of the same class or higher.
		if starter != no && (len(kept)-1 == starter || last < m.ccc) {
			if r, ok := compose(kept[starter].r, m.r); ok {
				kept[starter].r = r
				continue
			}
		}
		if m.ccc == 0 {
			starter = len(kept)
		}
		last = m.ccc
		kept = append(kept, m)
	}
	for _, m := range kept {
		out = utf8.AppendRune(out, m.r)
	}
	return out
}

// order sorts each run of marks by their classes, equal ones in their order.
func order(c []marked) {
	for i := 0; i < len(c); {
		if c[i].ccc == 0 {
			i++
			continue
		}
		start := i
		for i < len(c) && c[i].ccc != 0 {
			i++
		}
		slices.SortStableFunc(c[start:i], func(a, b marked) int { return int(a.ccc) - int(b.ccc) })
	}
}
