package tokens

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
)

func parse(t testing.TB, kind ai.Kind, body string) *openai.Request {
	t.Helper()
	var r openai.Request
	if f := openai.Parse(kind, []byte(body), 64, &r); f != nil {
		t.Fatal(f)
	}
	return &r
}

func TestCount(t *testing.T) {
	t.Parallel()
	space := strings.Repeat(" \n", 200)
	for _, tt := range []struct {
		text          string
		o200k, cl100k int64
		exact         bool
	}{
		{"", 0, 0, true},
		{"hello world", 2, 2, true},
		{"<|endoftext|>", 7, 7, true}, // as text, not as the token
		{"你好，世界", 3, 6, true},
		{strings.Repeat("\n", 256) + "x", 17, 9, true},
		{"hello world" + space + "hello world", 4 + 400, 4 + 400, false},
		{space, 400, 400, false},
		{"a" + strings.Repeat("\u3000", 86), 1 + 258, 1 + 258, false},
	} {
		for _, c := range []struct {
			Counter
			want int64
		}{{O200k(), tt.o200k}, {Cl100k(), tt.cl100k}} {
			got, exact := c.Count(tt.text)
			if got != c.want || exact != tt.exact {
				t.Errorf("%.20q: %d, %t, want %d, %t", tt.text, got, exact, c.want, tt.exact)
			}
		}
	}
}

func TestForModel(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Counter{
		"gpt-4": Cl100k(), "gpt-4-turbo": Cl100k(), "gpt-3.5-turbo": Cl100k(), "text-embedding-3-small": Cl100k(),
		"gpt-4o": O200k(), "gpt-4.1-mini": O200k(), "deepseek-v3": O200k(), "": O200k(),
	} {
		if ForModel(name) != want {
			t.Errorf("%q: the wrong counter", name)
		}
	}
}

// cookbook is the chat of OpenAI's cookbook ("How to count tokens with tiktoken"),
// for which it prints what the API reports: 129 tokens for gpt-4, 124 for gpt-4o.
const cookbook = `{"model":"gpt-4","messages":[
	{"role":"system","content":"You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
	{"role":"system","name":"example_user","content":"New synergies will help drive top-line growth."},
	{"role":"system","name":"example_assistant","content":"Things working well together will increase revenue."},
	{"role":"system","name":"example_user","content":"Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
	{"role":"system","name":"example_assistant","content":"Let\u0027s talk later when we're less busy about how to do better."},
	{"role":"user","content":"This late pivot means we don't have time to boil the ocean for the client deliverable."}]}`

func TestExact(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body string
		kind       ai.Kind
		want       int64
		exact      bool
	}{
		{"cookbook", cookbook, ai.KindChat, 129, true},
		{"embedding", `{"model":"m","input":["hello world","hello\u0020world"]}`, ai.KindEmbedding, 4, true},
		{"token ids", `{"model":"m","prompt":[[1,2,3],[4]]}`, ai.KindCompletion, 4, true},
		{"settings", `{"model":"m","prompt":"hello world","user":"someone","temperature":1,"logit_bias":{"1":2}}`, ai.KindCompletion, 2, true},
		{"suffix", `{"model":"m","prompt":"hello world","suffix":"hello world"}`, ai.KindCompletion, 6, false},
		{"image", `{"model":"m","messages":[{"content":[{"type":"image_url","image_url":{"url":"data:,` + strings.Repeat("A", 9000) + `"}}]}]}`, ai.KindChat, 6 + usualImage, false},
	} {
		r := parse(t, tt.kind, tt.body)
		n, exact := Exact(Cl100k(), r)
		if n != tt.want || exact != tt.exact {
			t.Errorf("%s: %d, %t, want %d, %t", tt.name, n, exact, tt.want, tt.exact)
		}
		if b := Bound(r); n > b {
			t.Errorf("%s: %d, above the bound %d", tt.name, n, b)
		}
	}
	if n, exact := Exact(O200k(), parse(t, ai.KindChat, cookbook)); n != 124 || !exact {
		t.Errorf("cookbook by o200k: %d, %t, want 124", n, exact)
	}
}

func TestExactTakesLongTextAtItsBound(t *testing.T) {
	t.Parallel()
	r := parse(t, ai.KindEmbedding, `{"model":"m","input":["`+strings.Repeat("hello ", maxCounted/6+1)+`","hello world"]}`)
	n, exact := Exact(O200k(), r)
	if want := int64(6*(maxCounted/6+1) + 2); n != want || exact {
		t.Errorf("%d, %t, want %d", n, exact, want)
	}
}

func TestBound(t *testing.T) {
	t.Parallel()
	chat := func(more string) string { return `{"model":"m","messages":[` + more + `]}` }
	for _, tt := range []struct {
		name, body string
		kind       ai.Kind
		want       int64
	}{
		{"empty chat", chat(``), ai.KindChat, boundRequest + boundPrompt},
		{"text is counted decoded", chat(`{"role":"user","content":"\u4f60\n"}`), ai.KindChat, boundRequest + boundPrompt + boundMessage + 4 + 4},
		{"image at its cap", chat(`{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("A", 1<<20) + `"}}]}`), ai.KindChat, boundRequest + boundPrompt + boundMessage + ImageCap},
		{"audio by its size", chat(`{"content":[{"type":"input_audio","input_audio":"` + strings.Repeat("A", 78) + `"}]}`), ai.KindChat, boundRequest + boundPrompt + boundMessage + 10},
		{"tools", `{"model":"m","messages":[],"tools":[{"a":1}]}`, ai.KindChat, boundRequest + boundPrompt + boundTools + boundToolDef + 2*9},
		{"token ids", `{"model":"m","input":[[1,2],[3]]}`, ai.KindEmbedding, 3 + 2*boundPrompt},
	} {
		if got := Bound(parse(t, tt.kind, tt.body)); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// Texts that make a tokenizer slow must not: a quarter of a megabyte of each takes
// a tenth of a second, where the codec alone takes half a minute for the first.
// The limit between the two leaves room for a busy machine.
func TestHostileTextIsCountedInTime(t *testing.T) {
	for name, unit := range map[string]string{
		"spaces and newlines":   " \n",
		"runs that are counted": strings.Repeat(" \n", maxSpace/2) + "x",
		"one letter":            "a",
		"wide spaces":           "\u3000\n\t",
		"capitals":              "AÀ",
		"marks":                 "\u0301",
		"punctuation":           "'/",
	} {
		text := strings.Repeat(unit, 256<<10/len(unit))
		begin := time.Now()
		n, _ := O200k().Count(text)
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if n > int64(len(text)) {
			t.Errorf("%s: %d tokens of %d bytes", name, n, len(text))
		}
	}
}

func TestConcurrentCounts(t *testing.T) {
	t.Parallel()
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 50 {
				text := strings.Repeat(fmt.Sprintf("word%d ", g), i)
				a, _ := O200k().Count(text)
				if b, _ := O200k().Count(text); a != b {
					t.Errorf("%d and %d", a, b)
				}
			}
		})
	}
	group.Wait()
}

func FuzzExactWithinBound(f *testing.F) {
	f.Add([]byte(cookbook), uint8(0))
	f.Add([]byte(`{"model":"m","prompt":["a",[1]],"suffix":"\u00e9","tools":[{}]}`), uint8(1))
	f.Add([]byte(`{"model":"m","input":"\ud83d\ude00 \n \n"}`), uint8(2))
	f.Add([]byte(`{"model":"m","messages":[{"content":[{"image_url":{}},{"input_audio":1},{"audio_url":""},{"file":0},{"video":[]}],"tool_calls":[1]}]}`), uint8(0))
	kinds := []ai.Kind{ai.KindChat, ai.KindCompletion, ai.KindEmbedding}
	f.Fuzz(func(t *testing.T, body []byte, kind uint8) {
		var r openai.Request
		if openai.Parse(kinds[int(kind)%len(kinds)], body, 64, &r) != nil {
			return
		}
		bound := Bound(&r)
		for _, c := range []Counter{O200k(), Cl100k()} {
			if n, _ := Exact(c, &r); n > bound || n < 0 {
				t.Fatalf("%d tokens, above the bound %d", n, bound)
			}
		}
	})
}

func FuzzCountWithinBytes(f *testing.F) {
	f.Add("hello \u3000\r\n 世界 '\u017f")
	f.Add(strings.Repeat(" \t\n", 100))
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range []Counter{O200k(), Cl100k()} {
			if n, _ := c.Count(text); n > int64(len(text)) || n == 0 && text != "" {
				t.Fatalf("%d tokens of %d bytes", n, len(text))
			}
		}
	})
}

func TestLikely(t *testing.T) {
	r := parse(t, ai.KindChat, `{"model":"m","messages":[{"role":"user","content":"Say something about rivers."}]}`)
	if got := Likely(r); got < 7 || got > 20 {
		t.Errorf("27 bytes in one message are likely %d tokens", got)
	}
	images := parse(t, ai.KindChat, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}`)
	if got := Likely(images); got < usualImage || got > Bound(images) {
		t.Errorf("an image is likely %d tokens", got)
	}
}
