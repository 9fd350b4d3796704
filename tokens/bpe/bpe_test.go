package bpe

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// toy is a small vocabulary with prefixes of prefixes and merges that compete.
var toy = []string{"ab", "bc", "abc", "aa", "aaa", "aaaa", "cab", " a", " ab", "é", "12", "123", "\n\n", "bca", "'s"}

func toyVocabulary(t testing.TB) (*Vocabulary, *builder) {
	t.Helper()
	m, err := FromRanks(toy)
	if err != nil {
		t.Fatal(err)
	}
	v, err := New(&Source{Merges: m, Pattern: Cl100k})
	if err != nil {
		t.Fatal(err)
	}
	b := newBuilder()
	for _, p := range m.Pairs {
		if !b.add(p) {
			t.Fatalf("merge %v does not stand", p)
		}
	}
	return v, b
}

// textbook counts as the definition of the encoding has it.
func textbook(v *Vocabulary, b *builder, whole []string, text string) (n int) {
	if v.nfc {
		text = string(new(normalizer).nfc([]byte(text)))
	}
	for i := 0; i < len(text); {
		end := v.pattern.next([]byte(text), i)
		if slices.Contains(whole, text[i:end]) {
			n++
		} else {
			n += len(b.encode(text[i:end]))
		}
		i = end
	}
	return n
}

func TestCountIsTheTextbooks(t *testing.T) {
	t.Parallel()
	v, b := toyVocabulary(t)
	m, _ := FromRanks(toy)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200_000 {
		var s strings.Builder
		for range rng.IntN(24) {
			s.WriteString([]string{"a", "b", "c", "a", "b", " ", "é", "1", "2", "3", "\n", "'s", "!"}[rng.IntN(13)])
		}
		if got, want := v.Count([]byte(s.String())), textbook(v, b, m.Whole, s.String()); got != want {
			t.Fatalf("%q: %d tokens, want %d", s.String(), got, want)
		}
	}
}

// A merge that a lower one always forestalls is never made; a piece that equals its
// token is that token all the same.
func TestTokensThatAreNeverMerged(t *testing.T) {
	t.Parallel()
	m, err := FromRanks([]string{"ab", "bc", "xbc", "abcd"})
	if err != nil {
		t.Fatal(err)
	}
	// "abcd" is ab, c, d: no pair of them is a token.
	if want := []string{"abcd"}; !slices.Equal(m.Whole, want) || len(m.Pairs) != 3 {
		t.Fatalf("%v, whole %q, want whole %q", m.Pairs, m.Whole, want)
	}
	v, err := New(&Source{Merges: m, Pattern: Cl100k})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{"abcd": 1, "abcde": 4, "xbc": 1, "abcdabcd": 6, "": 0} {
		if got := v.Count([]byte(text)); got != want {
			t.Errorf("%q: %d tokens, want %d", text, got, want)
		}
	}
}

// A token that has a lower rank than a part of it is merged as soon as that is there.
func TestTokensBeforeTheirParts(t *testing.T) {
	t.Parallel()
	tokens := []string{"xabc", "abc", "bc", "xx", "ab"} // abc is a, bc; xabc waits for it
	tokens = append(tokens, "yz", "qyzr", "yzr", "rs")  // qyzr waits for yzr, which has a higher rank
	m, err := FromRanks(tokens)
	if err != nil || len(m.Whole) > 0 {
		t.Fatalf("%v, whole %q", err, m.Whole)
	}
	v, err := New(&Source{Merges: m, Pattern: Cl100k})
	if err != nil {
		t.Fatal(err)
	}
	ranks := map[string]int{}
	for i, text := range tokens {
		ranks[text] = i
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for range 100_000 {
		var s strings.Builder
		for range 1 + rng.IntN(12) {
			s.WriteByte("xabcqyzrs"[rng.IntN(9)])
		}
		if got, want := v.Count([]byte(s.String())), tiktoken(ranks, s.String()); got != want {
			t.Fatalf("%q: %d tokens, want %d", s.String(), got, want)
		}
	}
}

// tiktoken counts a piece as tiktoken defines it.
func tiktoken(ranks map[string]int, piece string) int {
	if _, whole := ranks[piece]; whole {
		return 1
	}
	parts := strings.Split(piece, "")
	for {
		at, best := -1, 0
		for i := range len(parts) - 1 {
			if r, ok := ranks[parts[i]+parts[i+1]]; ok && (at < 0 || r < best) {
				at, best = i, r
			}
		}
		if at < 0 {
			return len(parts)
		}
		parts[at] += parts[at+1]
		parts = slices.Delete(parts, at+1, at+2)
	}
}

// Of two ways to build one text only the one that the encoding takes is kept.
func TestPairsThatAreNeverMet(t *testing.T) {
	t.Parallel()
	m, err := FromPairs([][2]string{{"a", "b"}, {"ab", "c"}, {"b", "c"}, {"a", "bc"}, {"q", "zz"}}, []string{"abc", "hello"})
	if err != nil {
		t.Fatal(err)
	}
	if want := [][2]uint32{{'a', 'b'}, {256, 'c'}, {'b', 'c'}}; !slices.Equal(m.Pairs, want) || !slices.Equal(m.Whole, []string{"hello"}) {
		t.Errorf("%v, %q", m.Pairs, m.Whole)
	}
}

func TestSourcesThatAreRefused(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", maxTokenBytes+1)
	hf := func(pre, model string) string {
		return `{"normalizer":null,"pre_tokenizer":` + pre + `,"model":` + model + `}`
	}
	const split = `{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"x+"},"behavior":"Isolated"},{"type":"ByteLevel","use_regex":false}]}`
	for name, err := range map[string]error{
		"empty token":       second(FromRanks([]string{"ab", ""})),
		"long token":        second(FromRanks([]string{long})),
		"long pair":         second(FromPairs([][2]string{{long, "a"}}, nil)),
		"tiktoken: no rank": second(ReadTiktoken([]byte("YWI=\n"))),
		"tiktoken: order":   second(ReadTiktoken([]byte("YQ== 0\nYg== 2\n"))),
		"tiktoken: base64":  second(ReadTiktoken([]byte("?? 0\n"))),
		"tiktoken: nothing": second(ReadTiktoken([]byte("\n"))),
		"tekken: no JSON":   second(ReadTekken([]byte("{"))),
		"tekken: pattern":   second(ReadTekken([]byte(`{"config":{"pattern":"x"}}`))),
		"HF: no JSON":       second(ReadHuggingFace([]byte("["))),
		"HF: unigram":       second(ReadHuggingFace([]byte(hf(split, `{"type":"Unigram"}`)))),
		"HF: pattern":       second(ReadHuggingFace([]byte(hf(split, `{"type":"BPE"}`)))),
		"HF: no split":      second(ReadHuggingFace([]byte(hf(`{"type":"Whitespace"}`, `{"type":"BPE"}`)))),
		"HF: NFKC":          second(ReadHuggingFace([]byte(`{"normalizer":{"type":"NFKC"},"model":{"type":"BPE"}}`))),
		"later token":       second(New(&Source{Merges: &Merges{Pairs: [][2]uint32{{'a', 256}}}, Pattern: Cl100k})),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestReadTiktoken(t *testing.T) {
	t.Parallel()
	var file strings.Builder
	for rank, token := range append([]string{"b", "a"}, toy...) {
		fmt.Fprintf(&file, "%s %d\n", base64.StdEncoding.EncodeToString([]byte(token)), rank)
	}
	got, err := ReadTiktoken([]byte(file.String()))
	if want := append([]string{"b", "a"}, toy...); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for _, m := range []*Merges{{}, {Pairs: [][2]uint32{{'a', 'b'}, {256, 256}}, Whole: []string{"whole", "\xff\x00"}}} {
		got, err := Decode(m.Encode())
		if err != nil || !slices.Equal(got.Pairs, m.Pairs) || !slices.Equal(got.Whole, m.Whole) {
			t.Errorf("%v became %v, %v", m, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add((&Merges{Pairs: [][2]uint32{{'a', 'b'}, {256, 256}}, Whole: []string{"whole"}}).Encode())
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		if err != nil {
			return
		}
		if v, err := New(&Source{Merges: m, Pattern: O200k}); err == nil {
			v.Count(data)
		}
	})
}

func FuzzCountIsTheTextbooks(f *testing.F) {
	v, b := toyVocabulary(f)
	m, _ := FromRanks(toy)
	f.Add("abcabc aab 1234's\n\n \n é")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<10 {
			return
		}
		if got, want := v.Count([]byte(text)), textbook(v, b, m.Whole, text); got != want {
			t.Fatalf("%q: %d tokens, want %d", text, got, want)
		}
	})
}

// However a text is cut, the pieces are the text, and none is empty.
func FuzzPatterns(f *testing.F) {
	loadClasses()
	f.Add([]byte(" \r\n\u3000'ſ 世界ーABCdef\u0301\xff\xe4\xb8 12345//\n/"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, p := range []Pattern{Cl100k, Qwen2, Qwen36, O200k, Tekken, DeepSeek} {
			for i := 0; i < len(text); {
				end := p.next(text, i)
				if end <= i || end > len(text) {
					t.Fatalf("%s: from %d to %d of %d", p.Name, i, end, len(text))
				}
				i = end
			}
		}
	})
}

func TestCountDoesNotAllocate(t *testing.T) {
	v, _ := toyVocabulary(t)
	text := []byte(strings.Repeat("abcabc aab 1234's\n\n \n é", 100))
	v.Count(text)
	if n := testing.AllocsPerRun(100, func() { v.Count(text) }); n > 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
