package bpe

import "bytes"

// scratch is the memory that counting needs. A scratch serves one call at a time.
type scratch struct {
	tokens []uint32 // the encoding so far
	dead   []uint64 // a bit for each offset that no encoding goes through
	normal normalizer
	recent [1 << recentBits]recent
	// followers are, for two tokens, the first of the second one and its prefixes that
	// may follow the first: the two in 40 bits, plus one, above the answer. Runs of one
	// character have dozens of prefixes, and meet the same ones at each step.
	followers [1 << followerBits]uint64
}

// recent is a piece of up to midBytes bytes and the number of its tokens: the words
// of smallKey, the number in the top four bits. Texts repeat their words, and this
// table stays in the processor's cache where the vocabulary's does not.
type recent [2]uint64

const (
	recentBits   = 14
	followerBits = 11
	countShift   = 60
)

// How many elements the memory of an idle scratch may have: what a piece of a
// megabyte, which only hostile text has, needs.
const (
	maxKeptTokens = 3 << 18
	maxKeptWords  = 1 << 16
	maxKeptBytes  = 1 << 21
)

// acquire takes a scratch. They are kept for good, one for each processor: a
// sync.Pool would lose what was counted recently at each garbage collection.
func (v *Vocabulary) acquire() *scratch {
	select {
	case s := <-v.scratches:
		return s
	default:
		return &scratch{tokens: make([]uint32, 0, 64), dead: make([]uint64, 8)}
	}
}

func (v *Vocabulary) release(s *scratch) {
	if cap(s.tokens) > maxKeptTokens {
		s.tokens = make([]uint32, 0, 64)
	}
	if len(s.dead) > maxKeptWords {
		s.dead = make([]uint64, 8)
	}
	s.normal.trim()
	select {
	case v.scratches <- s:
	default:
	}
}

// Count is the number of tokens of text. Text that looks like a special token is
// text. Bytes that are not valid UTF-8 count as a symbol each.
func (v *Vocabulary) Count(text []byte) int {
	s := v.acquire()
	if v.nfc {
		text = s.normal.nfc(text)
	}
	n := 0
	for i := 0; i < len(text); {
		end := v.pattern.next(text, i)
		switch size := end - i; {
		case size == 1:
			n++
		case size <= midBytes:
			n += v.small(text, i, end, s)
		case v.whole.hasLong(text[i:end]):
			n++
		default:
			n += v.merge(text[i:end], s)
		}
		i = end
	}
	v.release(s)
	return n
}

// small is the number of tokens of a piece of up to midBytes bytes.
func (v *Vocabulary) small(text []byte, begin, end int, s *scratch) int {
	key := smallKey(text, begin, end)
	r := &s.recent[smallHash(key)>>(64-recentBits)]
	if r[0] == key[0] && r[1]<<(64-countShift) == key[1]<<(64-countShift) {
		return int(r[1] >> countShift)
	}
	n := 1
	if !v.whole.hasSmall(key) {
		n = v.merge(text[begin:end], s)
	}
	r[0], r[1] = key[0], key[1]|uint64(n)<<countShift
	return n
}

// merge is the number of tokens of one piece.
//
// Each step takes the longest token from here on that may follow the last one and
// does not end where nothing goes on; when there is none, here is such a place, and
// the last token is given up for its next shorter prefix. Every offset is declared
// dead once at the most, so the steps are linear in the piece, times the prefixes of
// a token that may follow another: few, but in runs of one character.
func (v *Vocabulary) merge(piece []byte, s *scratch) int {
	words := len(piece)/64 + 1
	if words > len(s.dead) {
		s.dead = make([]uint64, words)
	} else {
		clear(s.dead[:words])
	}
	dead := s.dead[:words]
	tokens := s.tokens[:0]
	m := matcher{v: v, piece: piece}
	pos, next, last := 0, m.longest(0), none
	for {
		if last != none && next != none {
			next = v.follower(last, next, s)
		}
		if next != none {
			end := pos + int(v.length[next])
			if dead[end>>6]>>(end&63)&1 == 1 {
				next = v.prefix[next]
				continue
			}
			tokens = append(tokens, next)
			if end == len(piece) {
				s.tokens = tokens
				return len(tokens)
			}
			last, pos = next, end
			next = m.longest(pos)
			continue
		}
		dead[pos>>6] |= 1 << (pos & 63)
		// The piece as single bytes is one way: at the start there always is a next.
		next = v.prefix[last]
		tokens = tokens[:len(tokens)-1]
		pos -= int(v.length[last])
		last = none
		if len(tokens) > 0 {
			last = tokens[len(tokens)-1]
		}
	}
}

// matcher finds the longest tokens of a piece. Where the same bytes come again as at
// the last place, as in a run of one character, the token is the same.
type matcher struct {
	v     *Vocabulary
	piece []byte
	at    int    // where was looked last
	seen  int    // so many bytes decided
	token uint32 // and this was found
}

// worthComparing is from how many bytes on comparing is faster than looking again.
const worthComparing = 8

func (m *matcher) longest(pos int) uint32 {
	if m.seen >= worthComparing && pos+m.seen <= len(m.piece) && bytes.Equal(m.piece[pos:pos+m.seen], m.piece[m.at:m.at+m.seen]) {
		return m.token
	}
	token, seen := m.v.trie.longest(m.piece[pos:])
	if m.token, m.at, m.seen = token, pos, seen; pos+seen > len(m.piece) {
		m.seen = 0 // the end of the piece decided it
	}
	return token
}

// follower is the first of next and its prefixes that may follow last, none when none
// may.
func (v *Vocabulary) follower(last, next uint32, s *scratch) uint32 {
	key := uint64(last)<<20 | uint64(next)
	f := &s.followers[scramble(key)>>(64-followerBits)]
	if *f>>20 == key+1 {
		if t := uint32(*f & (MaxTokens - 1)); t != MaxTokens-1 {
			return t
		}
		return none
	}
	t := next
	for t != none && !v.follows(last, t) {
		t = v.prefix[t]
	}
	*f = (key+1)<<20 | uint64(t&(MaxTokens-1))
	return t
}

// follows tells whether right may stand behind left: whether encoding their joint
// bytes gives the two back. It takes them apart again, last merge first, and looks
// whether the encoding would have joined what stands at the border before.
func (v *Vocabulary) follows(left, right uint32) bool {
	limit := none // what joins across the border comes before this token
	for {
		if joined := v.pairs.makes(left, right); joined < limit {
			return false
		}
		if left > right {
			limit = left
			left = v.split[left][1]
			if left == limit { // a byte
				limit = right + 1
				right = v.split[right][0]
				if right+1 == limit {
					return true
				}
			}
		} else {
			limit = right + 1
			right = v.split[right][0]
			if right+1 == limit { // a byte
				limit = left
				left = v.split[left][1]
				if left == limit {
					return true
				}
			}
		}
	}
}
