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
	clear(c.parts[:cap(c.parts)]) // they point into the request
	if cap(c.parts) > maxKept/1024 {
		c.parts = nil
	}
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
		if len(c.whole) > c.left { // cut off: neither counted nor remembered
			n := int64(0)
			for j := range parts {
				n += c.size(&parts[j])
			}
			c.exact = false
			c.left = 0
			return n / usualBytes
		}
	}
	return c.remembered(c.whole)
}

// size is the length of a part's text in bytes.
func (c *counter) size(p *part) int64 {
	switch {
	case p.segment != nil:
		return int64(p.segment.Text)
	case p.literal != "":
		return int64(len(p.literal))
	}
	return int64(p.end - p.start)
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
	if !c.spend(s.Text) { // also of what is remembered: a count does not depend on that
		return int64(s.Text) / usualBytes
	}
	k, worth := c.key(c.v.Bytes(s), c.index(s), s.Escaped && !s.Raw, trim)
	known := false
	if worth {
		n, known = c.s.Memo.get(k)
	}
	if !known {
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
	if !c.spend(len(text)) {
		return int64(len(text)) / usualBytes
	}
	k, worth := c.key(text, noSegment, false, false)
	if worth {
		if n, known := c.s.Memo.get(k); known {
			return n
		}
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
		c.exact, c.left = false, 0 // what comes is not looked at either
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
// special ones, and others that were added to a vocabulary.
type added struct {
	first [256]bool // bytes that one begins with
	only  int       // the one such byte, -1 when there are more
	nodes []addedNode
}

// addedNode is a node of the trie of added tokens, children by their byte in order.
type addedNode struct {
	bytes    []byte
	children []int32
	ends     bool
}

func newAdded(tokens []string) *added {
	a := &added{only: -1, nodes: []addedNode{{}}}
	for _, t := range tokens {
		if t == "" {
			continue
		}
		node := int32(0)
		for i := range len(t) {
			node = a.child(node, t[i])
		}
		a.nodes[node].ends = true
		a.first[t[0]] = true
	}
	if len(a.nodes[0].bytes) == 1 {
		a.only = int(a.nodes[0].bytes[0])
	}
	return a
}

// child is the node behind a byte, made if need be.
func (a *added) child(node int32, c byte) int32 {
	n := &a.nodes[node]
	i, ok := slices.BinarySearch(n.bytes, c)
	if ok {
		return n.children[i]
	}
	made := int32(len(a.nodes))
	n.bytes, n.children = slices.Insert(n.bytes, i, c), slices.Insert(n.children, i, made)
	a.nodes = append(a.nodes, addedNode{})
	return made
}

// find is where the first added token stands in text, the longest one there; start
// and end are equal when there is none.
func (a *added) find(text []byte) (start, end int) {
	if a == nil {
		return 0, 0
	}
	for i := 0; i < len(text); i++ {
		if a.only >= 0 {
			n := bytes.IndexByte(text[i:], byte(a.only))
			if n < 0 {
				break
			}
			i += n
		} else if !a.first[text[i]] {
			continue
		}
		if n := a.match(text[i:]); n > 0 {
			return i, i + n
		}
	}
	return 0, 0
}

// match is the length of the longest added token that text begins with.
func (a *added) match(text []byte) (length int) {
	node := &a.nodes[0]
	for i, c := range text {
		at, ok := slices.BinarySearch(node.bytes, c)
		if !ok {
			break
		}
		if node = &a.nodes[node.children[at]]; node.ends {
			length = i + 1
		}
	}
	return length
}
