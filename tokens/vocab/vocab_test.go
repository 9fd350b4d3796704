package vocab

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/weirproxy/weir/tokens/bpe"
	"github.com/weirproxy/weir/tokens/internal/reference"
	"github.com/weirproxy/weir/tokens/vocab/source"
)

// full compares on all of the corpus, 100 MB, and not on its heads: make exact.
var full = flag.Bool("full", false, "compare with the references on the whole corpus")

var sources = filepath.Join("..", "..", source.Dir)

// references are the names that the reference tokenizers have for the vocabularies.
var references = map[string]string{
	"o200k": "o200k_base", "cl100k": "cl100k_base", "qwen": "qwen", "qwen3.6": "qwen3_6",
	"deepseek": "deepseek_v3", "tekken": "tekken", llama: "llama3_1",
}

// llama is Llama 3's vocabulary, which is not in the binary.
const llama = "llama3"

// vocabulary is one of this package, or Llama 3's from its file.
func vocabulary(tb testing.TB, name string) *bpe.Vocabulary {
	tb.Helper()
	if k, ok := ByName(name); ok {
		return k.Vocabulary()
	}
	data, err := os.ReadFile(filepath.Join(sources, "llama3_1.tiktoken"))
	if err != nil {
		tb.Fatalf("%v: run make setup", err)
	}
	tokens, err := bpe.ReadTiktoken(data)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := bpe.FromRanks(tokens)
	if err != nil {
		tb.Fatal(err)
	}
	v, err := bpe.New(&bpe.Source{Merges: m, Pattern: bpe.Cl100k})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// What is in the binary is what its makers publish.
func TestPacked(t *testing.T) {
	t.Parallel()
	for _, k := range All {
		m, err := source.Read(sources, k.Name)
		if err != nil {
			t.Fatalf("%v: run make setup", err)
		}
		packed, err := data.ReadFile("data/" + k.Name + ".bpe")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(packed, m.Encode()) {
			t.Errorf("%s: not what its source gives: go generate ./tokens/vocab", k.Name)
		}
	}
}

// The counts are those of tiktoken, Hugging Face's tokenizers and mistral-common: on
// prose in many languages, code in many more, JSON, base64, emoji and what is made to
// hit the edges of the patterns; every character in its own surroundings included.
func TestCountsEqualReferences(t *testing.T) {
	texts := append(corpus(t), everyCharacter()...)
	texts = append(texts, edges()...)
	total := 0
	for _, text := range texts {
		total += len(text)
	}
	t.Logf("%d texts, %.1f MB", len(texts), float64(total)/1e6)
	for name, ref := range references {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := vocabulary(t, name)
			want := reference.Start(t, ref).Count(texts...)
			sum, wrong := 0, 0
			for i, text := range texts {
				got := v.Count(text)
				sum += got
				if got == want[i] {
					continue
				}
				if wrong++; wrong <= 10 {
					t.Errorf("%.200q: %d tokens, want %d", text, got, want[i])
				}
			}
			t.Logf("%d tokens, %d texts counted wrongly", sum, wrong)
		})
	}
}

// corpus is the heads of the files, or all of them, in texts of up to 64 KB.
func corpus(tb testing.TB) (texts [][]byte) {
	for _, f := range reference.Corpus(tb) {
		text := f.Head(tb)
		if *full {
			text = f.Text(tb)
		}
		for len(text) > reference.HeadBytes {
			end := reference.HeadBytes
			for !utf8.RuneStart(text[end]) {
				end--
			}
			texts = append(texts, text[:end])
			text = text[end:]
		}
		texts = append(texts, text)
	}
	return texts
}

// everyCharacter has each character that there is in a few surroundings. Of long
// stretches of ideographs and syllables, which behave alike, and of those that mean
// nothing, it has every 16th.
func everyCharacter() (texts [][]byte) {
	var text []byte
	for r := rune(1); r <= unicode.MaxRune; r++ {
		long := r > 0x4E10 && r < 0x9F00 || r > 0xAC10 && r < 0xD700 || r > 0x17010 && r < 0x18A00 || r > 0x20010 && r < 0x3FFFF
		if r > 0x3FFFF && r < 0xE0000 || r > 0xE1000 || !utf8.ValidRune(r) || long && r%16 != 0 {
			continue
		}
		text = fmt.Appendf(text, "a%c1%cB %cb' %c\n%c", r, r, r, r, r)
		if len(text) > 500 {
			texts = append(texts, text)
			text = nil
		}
	}
	return append(texts, text)
}

// edges are random texts of characters at which the patterns turn, and of neighbours.
func edges() (texts [][]byte) {
	rng := rand.New(rand.NewPCG(1, 2))
	alphabets := [][]rune{
		[]rune("aAbB1 \t\n\r'sStTreRElLdDmMvV'/.,!?-_中文かなー・é\u0301\u00a0\u3000\u2028\u0085ſKⅫ²ǅʰ\u200b\u200d👍🏽🇩🇪éÀ한글ไทยहिन्दी\u0651"),
		[]rune(" \n\r\t\u3000'/a"),
		[]rune("かなカナ漢字ー・゛゜ゝヽ゠\u3040\u3097\u3099。、 \n1a!\u200b"),
		[]rune("aeoAEO \u0301\u0300\u0323\u0328\u0302\u0307\u031b\u0345\u0344\u1100\u1161\u11a8\uac00\uac01\u09c7\u09be\u0915\u093c\u0340\u0374\u212b\u1e9b\u0f71\u0f72\u0f73\u0f80\ufb1d\u2126\U0001d15e\u05d0\u05bc\u3099\u304b\U00011935\U00011930"),
	}
	for _, alphabet := range alphabets {
		for range 10_000 {
			var s strings.Builder
			for range rng.IntN(60) {
				s.WriteRune(alphabet[rng.IntN(len(alphabet))])
			}
			texts = append(texts, []byte(s.String()))
		}
	}
	for range 3000 { // neighbours
		base := rune(rng.IntN(0x3000))
		var text []byte
		for range rng.IntN(300) {
			text = utf8.AppendRune(text, base+rune(rng.IntN(200)))
		}
		texts = append(texts, text)
	}
	for _, c := range "-*=/# \t_~.あ" { // of which vocabularies have dozens of lengths
		for n := 1; n < 700; n += 1 + n/40 {
			run := strings.Repeat(string(c), n)
			texts = append(texts, []byte(run), []byte(run+"!"), []byte("x "+run+"\n"+run))
		}
	}
	return append(texts, []byte(strings.Repeat("-", 1<<16)), []byte(strings.Repeat("a", 1<<18)), []byte(strings.Repeat(" ", 1<<18)), []byte(strings.Repeat("\u0301", 1<<16)),
		[]byte("e"+strings.Repeat("\u0301\u0323", 1000)), []byte(strings.Repeat("aB", 1<<16)), []byte(strings.Repeat(" \n", 1<<16)),
		[]byte(strings.Repeat("'s", 1<<12)), []byte(strings.Repeat("中A", 1<<14)), []byte("<|endoftext|><|im_start|>"))
}

// Fuzzed against tiktoken and Hugging Face's tokenizers:
//
//	go test ./tokens/vocab -run XX -fuzz FuzzCountsEqualReferences -parallel 1
func FuzzCountsEqualReferences(f *testing.F) {
	type pair struct {
		name string
		v    *bpe.Vocabulary
		ref  *reference.Counter
	}
	var pairs []pair
	for name, ref := range references {
		p := pair{name, vocabulary(f, name), reference.Start(f, ref)}
		p.ref.Count([]byte("x")) // which waits until it is loaded
		pairs = append(pairs, p)
	}
	for _, text := range edges()[:64] {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return
		}
		for _, p := range pairs {
			if got, want := p.v.Count(text), p.ref.Count(text)[0]; got != want {
				t.Errorf("%s: %q: %d tokens, want %d", p.name, text, got, want)
			}
		}
	})
}

func TestByName(t *testing.T) {
	t.Parallel()
	for _, k := range All {
		if got, ok := ByName(k.Name); !ok || got != k {
			t.Errorf("%s is not found by its name", k.Name)
		}
		if k.For == "" || k.From == "" || k.Licence == "" {
			t.Errorf("%s: whose it is is not said", k.Name)
		}
	}
	if _, ok := ByName("nobody's"); ok {
		t.Error("a vocabulary that nobody has is found")
	}
}

func BenchmarkCount(b *testing.B) {
	classes := map[string][]byte{}
	for _, f := range reference.Corpus(b) {
		classes[f.Class] = append(classes[f.Class], f.Head(b)...)
	}
	classes["one letter"] = bytes.Repeat([]byte("a"), 1<<20)
	classes["spaces"] = bytes.Repeat([]byte(" "), 1<<20)
	classes["dashes"] = bytes.Repeat([]byte("-"), 1<<20)
	classes["rules"] = bytes.Repeat([]byte(strings.Repeat("-", 255)+"!"), 1<<12)
	classes["comments"] = bytes.Repeat([]byte(strings.Repeat("/", 255)+"x"), 1<<12)
	classes["marks"] = bytes.Repeat([]byte("\u0301"), 1<<19)
	names := make([]string, 0, len(classes))
	for name := range classes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, vocab := range []string{"o200k", "cl100k", "qwen", "qwen3.6", "deepseek", "tekken", llama} {
		v := vocabulary(b, vocab)
		for _, class := range names {
			b.Run(vocab+"/"+class, func(b *testing.B) {
				b.SetBytes(int64(len(classes[class])))
				b.ReportAllocs()
				for b.Loop() {
					v.Count(classes[class])
				}
			})
		}
	}
}
