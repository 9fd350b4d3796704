package bpe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
)

// Vocabulary is a vocabulary ready for counting. Nothing changes after New; it is
// safe for concurrent use.
type Vocabulary struct {
	pattern Pattern
	nfc     bool
	trie    trie   // all tokens that the encoding builds, for the longest match
	pairs   pairs  // the token that a pair makes
	whole   pieces // all tokens, for pieces that are one

	length []uint16    // of each token, in bytes
	prefix []uint32    // the longest token that a token begins with, itself aside; none
	split  [][2]uint32 // the pair that made a token; of a byte, itself twice

	scratches chan *scratch // idle ones
}

// none is no token.
const none = ^uint32(0)

// New makes a vocabulary ready.
func New(s *Source) (*Vocabulary, error) {
	m := s.Merges
	loadClasses()
	if s.NFC {
		composites()
	}
	count := byteTokens + len(m.Pairs)
	if count >= MaxTokens {
		return nil, errTooMany
	}
	v := &Vocabulary{pattern: s.Pattern, nfc: s.NFC, length: make([]uint16, count), prefix: make([]uint32, count), split: make([][2]uint32, count), scratches: make(chan *scratch, runtime.GOMAXPROCS(0))}
	texts, starts, err := m.texts()
	if err != nil {
		return nil, err
	}
	text := func(id uint32) []byte { return texts[starts[id]:starts[id+1]] }
	sorted := make([]uint32, count)
	for id := range sorted {
		sorted[id] = uint32(id)
	}
	slices.SortFunc(sorted, func(a, b uint32) int { return bytes.Compare(text(a), text(b)) })
	v.trie.init(sorted, text)
	v.pairs = make(pairs, slotsFor(len(m.Pairs)))
	v.addPieces(count, text, m.Whole)
	for id := range uint32(count) {
		t := text(id)
		v.length[id] = uint16(len(t))
		v.prefix[id], _ = v.trie.longest(t[:len(t)-1])
		v.split[id] = [2]uint32{id, id}
		if id >= byteTokens {
			v.split[id] = m.Pairs[id-byteTokens]
			v.pairs.add(v.split[id][0], v.split[id][1], id)
		}
	}
	return v, nil
}

// addPieces fills the set of all tokens.
func (v *Vocabulary) addPieces(count int, text func(uint32) []byte, whole []string) {
	sizes := [3]int{}
	size := func(n int) {
		switch {
		case n <= shortBytes:
			sizes[0]++
		case n <= midBytes:
			sizes[1]++
		default:
			sizes[2]++
		}
	}
	for id := range uint32(count) {
		size(len(text(id)))
	}
	for _, w := range whole {
		size(len(w))
	}
	v.whole.init(sizes[0], sizes[1], sizes[2])
	for id := range uint32(count) {
		v.whole.add(text(id))
	}
	for _, w := range whole {
		v.whole.add([]byte(w))
	}
}

// texts are the texts of all tokens, one behind the other, and where each begins.
func (m *Merges) texts() (texts []byte, starts []uint32, err error) {
	texts = make([]byte, byteTokens, 8*(byteTokens+len(m.Pairs)))
	starts = make([]uint32, byteTokens+1, byteTokens+len(m.Pairs)+1)
	for i := range byteTokens {
		texts[i] = byte(i)
		starts[i+1] = uint32(i) + 1
	}
	for i, p := range m.Pairs {
		if id := uint32(byteTokens + i); p[0] >= id || p[1] >= id {
			return nil, nil, fmt.Errorf("merge %d joins a token that comes later", i)
		}
		begin := len(texts)
		for _, part := range p {
			texts = append(texts, texts[starts[part]:starts[part+1]]...)
		}
		if len(texts)-begin > maxTokenBytes {
			return nil, nil, errTooLong
		}
		starts = append(starts, uint32(len(texts)))
	}
	return texts, starts, nil
}

// scramble spreads a key over all bits (the multiplier of Fibonacci hashing, Knuth,
// volume 3, 6.4). The tables hold a vocabulary, which no client chooses; what a
// client looks up in them can at worst walk over the few neighbours of one slot.
func scramble(key uint64) uint64 { return key * 0x9E3779B97F4A7C15 }

// slot is where the search for a hash begins in a table of n slots.
func slot(hash uint64, n int) int {
	hi, _ := bits.Mul64(hash, uint64(n))
	return int(hi)
}

// slotsFor is how many slots a table for n keys has: some must stay free.
func slotsFor(n int) int { return n + n/2 + 8 }

// pairs maps two tokens to the one that they make: open addressing over words of
// 20 bits each for left, right and what they make. No word is zero, as no pair
// makes token 0.
type pairs []uint64

func (p pairs) add(left, right, id uint32) {
	key := uint64(left)<<20 | uint64(right)
	i := slot(scramble(key), len(p))
	for p[i] != 0 {
		if i++; i == len(p) {
			i = 0
		}
	}
	p[i] = key<<20 | uint64(id)
}

// makes is the token that two tokens make, none when there is none.
func (p pairs) makes(left, right uint32) uint32 {
	key := uint64(left)<<20 | uint64(right)
	for i := slot(scramble(key), len(p)); ; {
		switch w := p[i]; {
		case w == 0:
			return none
		case w>>20 == key:
			return uint32(w & (MaxTokens - 1))
		}
		if i++; i == len(p) {
			i = 0
		}
	}
}

// trie finds the longest token that a text begins with. Edges are in a table with
// open addressing: the node and the byte that lead to a node. The first two bytes
// lead to their node at once.
type trie struct {
	first []uint32 // node after two bytes, 0 when there is none
	edges []edge
	token []uint32 // of each node, none when no token ends there
}

type edge struct {
	key  uint32 // node<<8 | byte; nodes are below 2^24
	node uint32 // 0 is a free slot
}

// init makes a trie of tokens that come in lexical order, each once.
func (t *trie) init(sorted []uint32, text func(uint32) []byte) {
	nodes := 1 // the root
	var last []byte
	for _, id := range sorted {
		nodes += len(text(id)) - common(last, text(id))
		last = text(id)
	}
	t.first = make([]uint32, 1<<16)
	t.edges = make([]edge, slotsFor(nodes))
	t.token = make([]uint32, nodes)
	for i := range t.token {
		t.token[i] = none
	}
	last = nil
	path := []uint32{0} // the nodes of last's prefixes
	next := uint32(1)
	for _, id := range sorted {
		now := text(id)
		path = path[:common(last, now)+1]
		for _, c := range now[len(path)-1:] {
			t.insert(edge{path[len(path)-1]<<8 | uint32(c), next})
			path = append(path, next)
			if len(path) == 3 {
				t.first[uint(now[0])<<8|uint(now[1])] = next
			}
			next++
		}
		t.token[path[len(path)-1]] = id
		last = now
	}
}

// common is the length of the longest prefix of both.
func common(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func (t *trie) insert(e edge) {
	i := slot(scramble(uint64(e.key)), len(t.edges))
	for t.edges[i].node != 0 {
		if i++; i == len(t.edges) {
			i = 0
		}
	}
	t.edges[i] = e
}

// find is the node that an edge leads to, 0 when there is none.
func (t *trie) find(key uint32) uint32 {
	edges := t.edges
	for i := slot(scramble(uint64(key)), len(edges)); ; {
		e := edges[i]
		if e.node == 0 || e.key == key {
			return e.node
		}
		if i++; i == len(edges) {
			i = 0
		}
	}
}

// longest is the longest token that text begins with, none when there is none: only
// of the empty text. The first seen bytes decided it; seen is above the length of text
// where more text could have made another one of it.
func (t *trie) longest(text []byte) (token uint32, seen int) {
	if len(text) < 2 {
		if len(text) == 0 {
			return none, 1
		}
		return uint32(text[0]), 2
	}
	node := t.first[uint(text[0])<<8|uint(text[1])]
	best := uint32(text[0])
	i := 2
	for ; node != 0; i++ {
		if token := t.token[node]; token != none {
			best = token
		}
		if i >= len(text) {
			return best, i + 1
		}
		node = t.find(node<<8 | uint32(text[i]))
	}
	return best, i
}

// pieces is the set of all tokens. Up to 7 bytes a token is a word, its length in
// the top byte; up to 15 it is two. No two tokens have the same words, so nothing
// is to be compared but these. The few longer ones are in a map.
type pieces struct {
	short   []uint64
	mid     [][2]uint64
	long    map[string]struct{}
	longest int
}

const (
	shortBytes = 7
	midBytes   = 15
)

// init makes room for so many tokens of each kind.
func (p *pieces) init(short, mid, long int) {
	p.short, p.mid, p.long = make([]uint64, slotsFor(short)), make([][2]uint64, slotsFor(mid)), make(map[string]struct{}, long)
}

// smallKey is the bytes of text[begin:end], of which there are up to midBytes, and
// their number, in two words: the first eight bytes, and the others below the number.
// It may read what stands behind them.
func smallKey(text []byte, begin, end int) [2]uint64 {
	n := uint(end - begin)
	if begin+16 > len(text) {
		var padded [16]byte
		copy(padded[:], text[begin:end])
		text, begin = padded[:], 0
	}
	a, b := binary.LittleEndian.Uint64(text[begin:]), binary.LittleEndian.Uint64(text[begin+8:])
	if n < 8 {
		return [2]uint64{a & (1<<(8*n) - 1), uint64(n) << 56}
	}
	return [2]uint64{a, b&(1<<(8*(n-8))-1) | uint64(n)<<56}
}

func smallHash(k [2]uint64) uint64 { return scramble(k[0] ^ bits.RotateLeft64(scramble(k[1]), 32)) }

func (p *pieces) add(text []byte) {
	p.longest = max(p.longest, len(text))
	if len(text) > midBytes {
		p.long[string(text)] = struct{}{}
		return
	}
	key := smallKey(text, 0, len(text))
	if len(text) <= shortBytes {
		w := key[0] | key[1]
		i := slot(scramble(w), len(p.short))
		for p.short[i] != 0 {
			if i++; i == len(p.short) {
				i = 0
			}
		}
		p.short[i] = w
		return
	}
	i := slot(smallHash(key), len(p.mid))
	for p.mid[i] != [2]uint64{} {
		if i++; i == len(p.mid) {
			i = 0
		}
	}
	p.mid[i] = key
}

// hasSmall tells whether a piece of up to midBytes bytes, given by its smallKey, is a
// token.
func (p *pieces) hasSmall(key [2]uint64) bool {
	if key[1]>>56 <= shortBytes {
		w := key[0] | key[1]
		for i := slot(scramble(w), len(p.short)); ; {
			if k := p.short[i]; k == w || k == 0 {
				return k == w
			}
			if i++; i == len(p.short) {
				i = 0
			}
		}
	}
	for i := slot(smallHash(key), len(p.mid)); ; {
		if k := p.mid[i]; k == key || k == [2]uint64{} {
			return k == key
		}
		if i++; i == len(p.mid) {
			i = 0
		}
	}
}

// hasLong tells whether a piece of more than midBytes bytes is a token.
func (p *pieces) hasLong(piece []byte) bool {
	if len(piece) > p.longest {
		return false
	}
	_, ok := p.long[string(piece)]
	return ok
}
