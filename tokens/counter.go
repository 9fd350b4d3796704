package tokens

import (
	"bytes"
	"slices"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/jsonscan"
	"github.com/weirproxy/weir/tokens/template"
)

// counter counts what a template renders. Text between two special tokens is one
// text to the tokenizer; it is put together only where its parts cannot be counted
// one by one.
type counter struct {
	t     *Tokenizer
	v     *dialect.View
	s     Session
	exact bool
	left  int // bytes of text that may still be counted

	tokens int64
	parts  []part // of the text since the last special token
	seen   []seen // segments that were counted by themselves

	bytes []byte // of the parts that are neither literals nor segments
	text  []byte // decoded text
	whole []byte // parts that were put together
	hash  []byte // of the memo
}

// part is a piece of rendered text: a literal, or a segment, or bytes of the counter.
type part struct {
	literal    string
	segment    *dialect.Segment
	trim       bool
	start, end int
}

type seen struct {
	off   int
	count int64
}

var counters = sync.Pool{New: func() any { return new(counter) }}

func acquire(t *Tokenizer, v *dialect.View, s Session) *counter {
	c := counters.Get().(*counter)
	c.t, c.v, c.s = t, v, s
	c.exact, c.left = true, MaxCounted
	c.tokens = 0
	c.parts, c.seen, c.bytes = c.parts[:0], c.seen[:0], c.bytes[:0]
	return c
}

// maxKept is how much memory an idle counter may hold, in bytes.
const maxKept = 1 << 20

func (c *counter) release() {
	c.t, c.v, c.s = nil, nil, Session{}
	clear(c.parts)
	for _, b := range []*[]byte{&c.bytes, &c.text, &c.whole} {
		if cap(*b) > maxKept {
			*b = nil
		}
	}
	if cap(c.seen) > maxKept/16 {
		c.seen = nil
	}
	counters.Put(c)
}

// Special counts one token.
func (c *counter) Special(string) {
	c.flush()
	c.tokens++
}

// Literal takes text of the template.
func (c *counter) Literal(s string) {
	if s != "" {
		c.parts = append(c.parts, part{literal: s})
	}
}

// Segment takes the text of a segment.
func (c *counter) Segment(s *dialect.Segment, trim bool) {
	if s.Text > 0 {
		c.parts = append(c.parts, part{segment: s, trim: trim})
	}
}

// Bytes takes text that was put together.
func (c *counter) Bytes(b []byte) {
	if len(b) > 0 {
		start := len(c.bytes)
		c.bytes = append(c.bytes, b...)
		c.parts = append(c.parts, part{start: start, end: len(c.bytes)})
	}
}

// Media ends a text. What media cost is counted apart from what is rendered.
func (c *counter) Media(*dialect.Media) { c.flush() }

// flush counts the text since the last special token.
func (c *counter) flush() {
	for i := 0; i < len(c.parts); {
		end := i + 1
		for end < len(c.parts) && !c.apart(&c.parts[end-1], &c.parts[end]) {
			end++
		}
		if end == i+1 {
			c.tokens += c.one(&c.parts[i])
		} else {
			c.tokens += c.together(c.parts[i:end])
		}
		i = end
	}
	c.parts, c.bytes = c.parts[:0], c.bytes[:0]
}

// apart tells whether two parts that follow each other may be counted one by one:
// in all patterns a piece ends behind a line break that something other than white
// space or a slash follows, and nothing before it matters from there on.
func (c *counter) apart(a, b *part) bool {
	return c.endsLine(a) && c.beginsText(b)
}

func (c *counter) endsLine(p *part) bool {
	switch {
	case p.segment != nil:
		return false
	case p.literal != "":
		return p.literal[len(p.literal)-1] == '\n'
	}
	return c.bytes[p.end-1] == '\n'
}

func (c *counter) beginsText(p *part) bool {
	if p.literal != "" {
		r, _ := utf8.DecodeRuneInString(p.literal)
		return !unicode.IsSpace(r) && r != '/'
	}
	raw := c.bytes[p.start:p.end]
	if p.segment != nil {
		raw = c.v.Bytes(p.segment)
	}
	r, _ := utf8.DecodeRune(raw)
	return !unicode.IsSpace(r) && r != '/' && r != '\\'
}

// one counts a part by itself.
func (c *counter) one(p *part) int64 {
	switch {
	case p.segment != nil:
		return c.segment(p.segment, p.trim)
	case p.literal != "":
		c.whole = append(c.whole[:0], p.literal...)
		return c.plain(c.whole)
	}
	return c.remembered(c.bytes[p.start:p.end])
}

// together counts parts as one text.
func (c *counter) together(parts []part) int64 {
	c.whole = c.whole[:0]
	for i := range parts {
		p := &parts[i]
		switch {
		case p.segment != nil:
			text := c.decode(p.segment, p.trim)
			c.whole = append(c.whole, text...)
		case p.literal != "":
			c.whole = append(c.whole, p.literal...)
		default:
			c.whole = append(c.whole, c.bytes[p.start:p.end]...)
		}
		if len(c.whole) > c.left {
			break
		}
	}
	return c.remembered(c.whole)
}

func (c *counter) decode(s *dialect.Segment, trim bool) []byte {
	text := c.v.Bytes(s)
	if s.Escaped && !s.Raw {
		c.text = jsonscan.AppendText(c.text[:0], c.v.Body[s.Off:s.End()])
		text = c.text
	}
	if trim {
		text = template.Trim(text)
	}
	return text
}

// segment counts a segment by itself. The memo knows it as it stands in the body:
// what is known need not be decoded.
func (c *counter) segment(s *dialect.Segment, trim bool) (n int64) {
	k, worth := c.key(c.v.Bytes(s), c.index(s), s.Escaped && !s.Raw, trim)
	known := false
	if worth {
		n, known = c.s.Memo.get(k)
	}
	if !known {
		if !c.spend(s.Text) {
			return int64(s.Text) / usualBytes
		}
		text := c.decode(s, trim)
		n = c.plain(text)
		if worth {
			c.s.Memo.put(k, n)
		}
	}
	c.seen = append(c.seen, seen{s.Off, n})
	return n
}

// remembered counts text that is no segment.
func (c *counter) remembered(text []byte) (n int64) {
	k, worth := c.key(text, noSegment, false, false)
	if worth {
		if n, known := c.s.Memo.get(k); known {
			return n
		}
	}
	if !c.spend(len(text)) {
		return int64(len(text)) / usualBytes
	}
	n = c.plain(text)
	if worth {
		c.s.Memo.put(k, n)
	}
	return n
}

// key is the memo's key of a text; worth tells whether looking it up is. i is the
// index of the segment that the text is, or noSegment.
func (c *counter) key(text []byte, i int, escaped, trim bool) (k memoKey, worth bool) {
	if c.s.Memo == nil || len(text) < worthKeeping {
		return k, false
	}
	kind := c.t.id << 2
	if escaped {
		kind |= 1
	}
	if trim {
		kind |= 2
	}
	if i == noSegment || c.s.Hashes == nil {
		k, c.hash = c.s.Memo.hash(c.s.Tenant, text, c.hash)
	} else {
		kept, known := c.s.Hashes.slot(i, len(c.v.Segments))
		if !*known {
			*kept, c.hash = c.s.Memo.hash(c.s.Tenant, text, c.hash)
			*known = true
		}
		k = *kept
	}
	k, c.hash = c.s.Memo.of(k, kind, c.hash)
	return k, true
}

const noSegment = -1

// index is the index of a segment of the view, whose segments are in order.
func (c *counter) index(s *dialect.Segment) int {
	i, ok := slices.BinarySearchFunc(c.v.Segments, s.Off, func(x dialect.Segment, off int) int { return x.Off - off })
	if !ok {
		return noSegment
	}
	return i
}

// spend takes n bytes of what may be counted.
func (c *counter) spend(n int) bool {
	if n > c.left {
		c.exact = false
		return false
	}
	c.left -= n
	return true
}

// plain counts text: by the vocabulary, but for what the backend reads as one token
// also within text.
func (c *counter) plain(text []byte) (n int64) {
	v := c.t.vocabulary()
	for !c.t.template.PlainText() {
		start, end := c.t.added.find(text)
		if start == end {
			break
		}
		n += int64(v.Count(text[:start])) + 1
		text = text[end:]
	}
	return n + int64(v.Count(text))
}

// counted is the count of a segment that was counted by itself. The segments must be
// in order.
func (c *counter) counted(s *dialect.Segment) (int64, bool) {
	i, ok := slices.BinarySearchFunc(c.seen, s.Off, func(e seen, off int) int { return e.off - off })
	if !ok {
		return 0, false
	}
	return c.seen[i].count, true
}

// sortSeen puts the counted segments in the order of the body.
func (c *counter) sortSeen() {
	slices.SortFunc(c.seen, func(a, b seen) int { return a.off - b.off })
}

// added are the tokens that a backend finds in any text before it looks at the rest:
// special ones, and others that were added to a vocabulary. All are of several bytes.
type added struct {
	first  []byte              // bytes that one begins with, each once
	second map[uint16][][]byte // by the first two bytes, the longest first
}

func newAdded(tokens []string) *added {
	a := &added{second: map[uint16][][]byte{}}
	for _, t := range tokens {
		if len(t) < 2 {
			continue // no vocabulary has one
		}
		if bytes.IndexByte(a.first, t[0]) < 0 {
			a.first = append(a.first, t[0])
		}
		key := uint16(t[0])<<8 | uint16(t[1])
		a.second[key] = append(a.second[key], []byte(t))
	}
	for _, some := range a.second {
		slices.SortFunc(some, func(x, y []byte) int { return len(y) - len(x) })
	}
	return a
}

// find is where the first added token stands in text; start and end are equal when
// there is none.
func (a *added) find(text []byte) (start, end int) {
	if a == nil {
		return 0, 0
	}
	for i := a.next(text, 0); i >= 0; i = a.next(text, i+1) {
		for _, t := range a.second[uint16(text[i])<<8|uint16(text[i+1])] {
			if bytes.HasPrefix(text[i:], t) {
				return i, i + len(t)
			}
		}
	}
	return 0, 0
}

// next is the next place, but for the last byte, where a token could begin; -1 when
// there is none.
func (a *added) next(text []byte, from int) int {
	best := -1
	for _, c := range a.first { // one in all families that are known
		if i := bytes.IndexByte(text[from:], c); i >= 0 && from+i+1 < len(text) && (best < 0 || from+i < best) {
			best = from + i
		}
	}
	return best
}
