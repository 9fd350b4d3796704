// Package bpe counts the tokens that a byte-pair encoding makes of a text, exactly
// and in time linear in the text, without building them.
//
// A vocabulary is the 256 bytes and an ordered list of merges; a pattern cuts a
// text into pieces first, as the vocabulary's own regular expression does. Of each
// piece that is no token as a whole, the algorithm of the Rust crate bpe
// (github/rust-gems, "So many tokens, so little time") finds the encoding: it takes
// the longest token that may follow the last one, and goes back where none may. Two
// tokens may follow each other if and only if encoding their joint bytes gives back
// the two, and a sequence in which every two neighbours may is the encoding.
package bpe

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Merges is a vocabulary: token i is byte i, token 256+i what the i-th pair joins,
// in the order in which the encoding prefers them. Each pair is the one way in which
// the encoding builds its token. What a source lists and the encoding never builds
// is in Whole.
type Merges struct {
	Pairs [][2]uint32
	// Whole are tokens that only a piece that equals one of them becomes.
	Whole []string
}

const byteTokens = 256

// MaxTokens is above the tokens that a vocabulary may have: pairs of them are kept in
// one word, and the last number stands for none.
const MaxTokens = 1 << 20

// maxTokenBytes is the longest token that a vocabulary may have.
const maxTokenBytes = 1 << 12

var (
	errTooMany = fmt.Errorf("%d tokens or more", MaxTokens)
	errTooLong = fmt.Errorf("a token of more than %d bytes", maxTokenBytes)
)

// builder finds the merges that an encoding really makes.
type builder struct {
	ranks map[[2]uint32]uint32 // of the pairs so far: the token that they make
	texts []string             // of the tokens so far
	ids   map[string]uint32
	pairs [][2]uint32
}

func newBuilder() *builder {
	b := &builder{ranks: map[[2]uint32]uint32{}, ids: map[string]uint32{}}
	for i := range byteTokens {
		text := string([]byte{byte(i)})
		b.texts = append(b.texts, text)
		b.ids[text] = uint32(i)
	}
	return b
}

// add makes the pair the next token, if the merges so far leave it standing: if
// not, the encoding joins across their border before and never meets the pair.
func (b *builder) add(pair [2]uint32) bool {
	text := b.texts[pair[0]] + b.texts[pair[1]]
	if _, known := b.ids[text]; known {
		return false
	}
	if parts := b.encode(text); len(parts) != 2 || parts[0] != pair[0] || parts[1] != pair[1] {
		return false
	}
	id := uint32(len(b.texts))
	b.ranks[pair] = id
	b.ids[text] = id
	b.texts = append(b.texts, text)
	b.pairs = append(b.pairs, pair)
	return true
}

// encode is the textbook encoding: the best pair is joined until none is left.
func (b *builder) encode(text string) []uint32 {
	parts := make([]uint32, len(text))
	for i := range len(text) {
		parts[i] = uint32(text[i])
	}
	for {
		best, at := uint32(0), -1
		for i := range len(parts) - 1 {
			if id, ok := b.ranks[[2]uint32{parts[i], parts[i+1]}]; ok && (at < 0 || id < best) {
				best, at = id, i
			}
		}
		if at < 0 {
			return parts
		}
		parts[at] = best
		parts = append(parts[:at+1], parts[at+2:]...)
	}
}

// FromRanks makes merges of tokens in the order of their ranks, as tiktoken keeps
// them: any two neighbours that make a token together may be joined, the lowest
// rank first, and a piece that is a token is never taken apart. Tokens of one byte
// may stand anywhere.
func FromRanks(tokens []string) (*Merges, error) {
	ranks := make(map[string]int, len(tokens))
	for rank, text := range tokens {
		if len(text) == 0 {
			return nil, errors.New("an empty token")
		}
		ranks[text] = rank
	}
	return fromTextbook(tokens, tokens, func(left, right string) (int, bool) {
		rank, ok := ranks[left+right]
		return rank, ok
	})
}

// FromPairs makes merges of pairs of texts in their order, as Hugging Face's
// tokenizers keep them: only what is listed is joined. whole are tokens that a
// piece may be without having been merged ("ignore_merges"), nil when none may.
func FromPairs(pairs [][2]string, whole []string) (*Merges, error) {
	ranks := make(map[[2]string]int, len(pairs))
	texts := make([]string, 0, len(pairs))
	for rank, p := range pairs {
		if _, again := ranks[p]; !again {
			ranks[p] = rank
			texts = append(texts, p[0]+p[1])
		}
	}
	return fromTextbook(texts, whole, func(left, right string) (int, bool) {
		rank, ok := ranks[[2]string{left, right}]
		return rank, ok
	})
}

// fromTextbook finds how the encoding builds each of the texts, if it does, and puts
// the merges in an order in which no token comes before its parts.
//
// Most vocabularies are in such an order. In Llama 3's, some tokens have a lower rank
// than a part of theirs: as soon as that part is there they are merged, before
// anything else of a higher rank. So they come right behind it.
func fromTextbook(texts, whole []string, rank func(left, right string) (int, bool)) (*Merges, error) {
	built := make(map[string]step, len(texts))
	for _, text := range texts {
		if len(text) > maxTokenBytes {
			return nil, errTooLong
		}
		if s, ok := build(text, rank); ok {
			built[text] = s
		}
	}
	if len(built) >= MaxTokens-byteTokens {
		return nil, errTooMany
	}
	order := make([]string, 0, len(built))
	when := make(map[string]int, len(built))
	for text := range built {
		order = append(order, text)
		formed(text, built, when)
	}
	slices.SortFunc(order, func(a, b string) int {
		return cmp.Or(cmp.Compare(when[a], when[b]), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	b := newBuilder()
	for _, text := range order {
		s := built[text]
		left, ok1 := b.ids[s.left]
		right, ok2 := b.ids[s.right]
		if !ok1 || !ok2 || !b.add([2]uint32{left, right}) {
			return nil, fmt.Errorf("the merge of %q and %q comes in an order that is not known", s.left, s.right)
		}
	}
	m := &Merges{Pairs: b.pairs}
	for _, text := range whole {
		if _, known := b.ids[text]; !known {
			m.Whole = append(m.Whole, text)
		}
	}
	return m, nil
}

// step is the last merge that builds a token, and its rank.
type step struct {
	left, right string
	rank        int
}

// build is how the encoding builds a text of several bytes; false when it does not.
func build(text string, rank func(left, right string) (int, bool)) (last step, ok bool) {
	parts := make([]string, len(text))
	for i := range len(text) {
		parts[i] = text[i : i+1]
	}
	for len(parts) > 1 {
		at := -1
		var best step
		for i := range len(parts) - 1 {
			if r, ok := rank(parts[i], parts[i+1]); ok && (at < 0 || r < best.rank) {
				at, best = i, step{parts[i], parts[i+1], r}
			}
		}
		if at < 0 {
			return step{}, false
		}
		last = best
		parts[at] = best.left + best.right
		parts = slices.Delete(parts, at+1, at+2)
	}
	return last, len(text) > 1
}

// formed is when the encoding has formed a token: at its rank, or with its last part.
func formed(text string, built map[string]step, when map[string]int) int {
	if t, known := when[text]; known || len(text) == 1 {
		return t
	}
	s := built[text]
	t := max(s.rank, formed(s.left, built, when), formed(s.right, built, when))
	when[text] = t
	return t
}
