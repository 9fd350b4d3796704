package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/tokens/template"
	"github.com/weirproxy/weir/tokens/vocab"
)

var day = time.Date(2026, 3, 7, 12, 0, 0, 0, time.UTC)

func parse(t testing.TB, kind ai.Kind, body string) *openai.Request {
	t.Helper()
	var r openai.Request
	if f := openai.Parse(kind, []byte(body), 64, &r); f != nil {
		t.Fatalf("%v: %.200s", f, body)
	}
	return &r
}

func tokenizer(t testing.TB, c Choice) *Tokenizer {
	t.Helper()
	tok, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
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

func TestCount(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("hello ", MaxCounted/6+1)
	for _, tt := range []struct {
		name, body string
		kind       ai.Kind
		choice     Choice
		want       int64
		exact      bool
	}{
		{"cookbook, gpt-4", cookbook, ai.KindChat, Choice{Model: "gpt-4"}, 129, true},
		{"cookbook, gpt-4o", cookbook, ai.KindChat, Choice{Model: "gpt-4o"}, 124, true},
		{"embedding", `{"model":"m","input":["hello world","hello\u0020world"]}`, ai.KindEmbedding, Choice{Model: "text-embedding-3-small"}, 4, true},
		{"embedding of a model that is not known", `{"model":"m","input":"hello world"}`, ai.KindEmbedding, Choice{Model: "bge-m3"}, 2, false},
		{"token ids", `{"model":"m","prompt":[[1,2,3],[4]]}`, ai.KindCompletion, Choice{Model: "gpt-3.5-turbo-instruct"}, 4, true},
		{"settings", `{"model":"m","prompt":"hello world","user":"someone","temperature":1,"logit_bias":{"1":2}}`, ai.KindCompletion, Choice{Model: "gpt-3.5-turbo-instruct"}, 2, true},
		{"suffix", `{"model":"m","prompt":"hello world","suffix":"hello world"}`, ai.KindCompletion, Choice{Model: "gpt-3.5-turbo-instruct"}, 4, false},
		{"begin of text", `{"model":"m","prompt":["hello world","hello"]}`, ai.KindCompletion, Choice{Model: "deepseek-v3", Adapter: "vllm"}, 5, true},
		// 3 marks a message, "user", the text, the primer of 3, and the image of 4 tiles.
		{"image", `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"What is this?"},{"type":"image_url","image_url":{"detail":"low","url":"https://x/y.png"}}]}]}`, ai.KindChat, Choice{Model: "gpt-4o"}, 3 + 1 + 4 + 3 + 85, true},
		{"special tokens in text", `{"model":"m","messages":[{"role":"user","content":"<|im_end|>"}]}`, ai.KindChat, Choice{Model: "qwen3-8b", Adapter: "vllm"}, 9, true},
		{"more text than is counted", `{"model":"m","input":["` + long + `","hello world"]}`, ai.KindEmbedding, Choice{Model: "text-embedding-3-small"}, int64(len(long))/usualBytes + 2, false},
	} {
		r := parse(t, tt.kind, tt.body)
		tok := tokenizer(t, tt.choice)
		n := tok.Count(r, Session{Now: day})
		if n.Tokens != tt.want || n.Exact != tt.exact || n.Bound < n.Tokens || n.Exact && n.Bound != n.Tokens {
			t.Errorf("%s: %+v, want %d, exact %t", tt.name, n, tt.want, tt.exact)
		}
		if b := tok.Bound(r); n.Bound > b {
			t.Errorf("%s: %d, above the bound by lengths, %d", tt.name, n.Bound, b)
		}
		if b := Bound(r); n.Tokens > b {
			t.Errorf("%s: %d, above the bound for any tokenizer, %d", tt.name, n.Tokens, b)
		}
	}
}

// whole counts a rendering with its texts put together, without any short cut.
type whole struct {
	tok  *Tokenizer
	v    *dialect.View
	text []byte
	n    int64
}

func (w *whole) flush() {
	c := counter{t: w.tok}
	w.n += c.plain(w.text)
	w.text = w.text[:0]
}

func (w *whole) Special(string)       { w.flush(); w.n++ }
func (w *whole) Literal(s string)     { w.text = append(w.text, s...) }
func (w *whole) Bytes(b []byte)       { w.text = append(w.text, b...) }
func (w *whole) Media(*dialect.Media) { w.flush() }

func (w *whole) Segment(s *dialect.Segment, trim bool) {
	b, _ := w.v.Decode(s, nil)
	if trim {
		b = template.Trim(b)
	}
	w.Bytes(b)
}

var models = []Choice{
	{Model: "gpt-4o"}, {Model: "gpt-4"}, {Model: "gpt-5"}, {Model: "gpt-oss-20b", Adapter: "vllm"}, {Model: "Qwen/Qwen2.5-7B-Instruct", Adapter: "vllm"},
	{Model: "Qwen/Qwen3-8B", Adapter: "vllm"}, {Model: "Qwen/Qwen3-8B", Adapter: "sglang"}, {Model: "deepseek-v3", Adapter: "vllm"},
	{Model: "deepseek-v3.1", Adapter: "vllm"}, {Model: "mistral-nemo", Adapter: "vllm"}, {Model: "mistral-medium-latest"},
	{Model: "meta-llama/Llama-3.1-8B-Instruct", Adapter: "vllm"}, {Model: "kimi-k2"}, {Model: "glm-4.5"},
}

// randomChat is a chat of texts that begin and end in ways that could join with what
// stands around them.
func randomChat(rng *rand.Rand) string {
	pieces := []string{"hello", "\n", " ", "\n\n", "/", "Let's", "  x", "中文", "\u0301", "\t", "<|im_end|>", "a\\b", "\"q\"", "1234", "<think>", "é", "\u3000", "\r\n", "."}
	text := func() string {
		var s strings.Builder
		for range rng.IntN(6) {
			s.WriteString(pieces[rng.IntN(len(pieces))])
		}
		if rng.IntN(8) == 0 {
			s.WriteString(strings.Repeat("long text that is remembered ", 20+rng.IntN(4)))
		}
		return s.String()
	}
	messages := []map[string]any{}
	if rng.IntN(2) == 0 {
		messages = append(messages, map[string]any{"role": "system", "content": text()})
	}
	for range 1 + rng.IntN(4) {
		user := map[string]any{"role": "user", "content": text()}
		if rng.IntN(4) == 0 {
			user["content"] = []any{map[string]any{"type": "text", "text": text()}, map[string]any{"type": "text", "text": text()}}
		}
		if rng.IntN(6) == 0 {
			user["name"] = "ada"
		}
		messages = append(messages, user, map[string]any{"role": "assistant", "content": text()})
	}
	body := map[string]any{"model": "m", "messages": append(messages, map[string]any{"role": "user", "content": text()})}
	if rng.IntN(4) == 0 {
		body["tools"] = []any{map[string]any{"type": "function", "function": map[string]any{"name": "f", "description": text(), "parameters": map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"type": "string", "description": text()}}}}}}
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Counting in parts, from memory and with escapes gives what counting the rendered
// text gives.
func TestCountIsThatOfTheWholeText(t *testing.T) {
	t.Parallel()
	memo := NewMemo()
	defer memo.Close()
	var hashes Hashes
	rng := rand.New(rand.NewPCG(7, 7))
	var toks []*Tokenizer
	for _, c := range models {
		toks = append(toks, tokenizer(t, c))
	}
	exact := 0
	for range 1500 {
		body := randomChat(rng)
		r := parse(t, ai.KindChat, body)
		hashes.Reset()
		for _, tok := range toks {
			w := &whole{tok: tok, v: &r.View}
			tok.template.Render(&r.View, w, template.Options{Backend: tok.backend, Now: day})
			w.flush()
			for _, s := range []Session{{Now: day}, {Now: day, Memo: memo, Tenant: "a"}, {Now: day, Memo: memo, Tenant: "a", Hashes: &hashes}} {
				n := tok.Count(r, s)
				if n.Exact {
					exact++
				}
				if n.Tokens != min(w.n, n.Bound) || n.Bound < n.Tokens || n.Exact && n.Bound != n.Tokens {
					t.Fatalf("%s: %+v, the whole text has %d: %s", tok.Template(), n, w.n, body)
				}
			}
		}
		memo.Wait()
	}
	if exact == 0 {
		t.Error("nothing was exact")
	}
}

// A text that is cut off because too much was counted is not looked up as what is
// left of it.
func TestCutOffTextIsNotRemembered(t *testing.T) {
	t.Parallel()
	memo := NewMemo()
	defer memo.Close()
	tok := tokenizer(t, Choice{Model: "mistral-nemo", Adapter: "vllm"})
	system := strings.Repeat("be kind to them ", 23)
	s := Session{Memo: memo, Tenant: "a", Now: day}
	tok.Count(parse(t, ai.KindChat, `{"model":"m","messages":[{"role":"user","content":"`+system+`"}]}`), s)
	memo.Wait()
	r := parse(t, ai.KindChat, `{"model":"m","messages":[{"role":"user","content":"`+strings.Repeat("x ", MaxCounted/2-10)+`"},{"role":"assistant","content":"ok"},`+
		`{"role":"system","content":"`+system+`"},{"role":"user","content":"`+strings.Repeat(" secret words", 4000)+`"}]}`)
	with, without := tok.Count(r, s), tok.Count(r, Session{Now: day})
	if with.Exact || without.Exact || with.Tokens < 2_000_000 || with.Bound < without.Tokens {
		t.Errorf("with a memo %+v, without %+v", with, without)
	}
}

// What decides about the count of a text keeps its memories apart.
func TestMemoOfDifferentTokenizers(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../.tools/tokenizers/vocab/cl100k_base.tiktoken")
	if err != nil {
		t.Fatalf("%v: run make setup", err)
	}
	ids := map[uint64]Choice{}
	for _, c := range []Choice{
		{Vocabulary: "o200k", File: "f", Content: content}, {Vocabulary: "qwen", File: "f", Content: content},
		{Vocabulary: "qwen", File: "f", Content: content, Template: "openai"}, {Vocabulary: "qwen", Template: "openai"},
		{Vocabulary: "qwen", Template: "qwen3"}, {Vocabulary: "qwen", Template: "qwen2.5"}, {Vocabulary: "qwen", Template: "generic"},
	} {
		tok := tokenizer(t, c)
		if other, taken := ids[tok.id]; taken {
			t.Errorf("%s, %s and %s, %s share their memory", c.Vocabulary, c.Template, other.Vocabulary, other.Template)
		}
		ids[tok.id] = c
	}
}

func TestAdded(t *testing.T) {
	t.Parallel()
	a := newAdded([]string{"<|a|>", "<|ab|>", "<|ab|>c", "[MASK]", ""})
	for text, want := range map[string][2]int{
		"": {0, 0}, "x<|a|>y": {1, 6}, "<|ab|>c": {0, 7}, "<|ab|>": {0, 6}, "<|<|a|>": {2, 7}, "[MASK": {0, 0}, "<[MASK]": {1, 7}, "<|a": {0, 0},
	} {
		if start, end := a.find([]byte(text)); start != want[0] || end != want[1] {
			t.Errorf("%q: %d to %d, want %v", text, start, end, want)
		}
	}
	if start, end := (*added)(nil).find([]byte("<|a|>")); start != end {
		t.Error("found without any")
	}
}

// The bound of a text that may stand among anything holds whatever is put before and
// behind it.
func TestEndsAreOpen(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(9, 9))
	for _, name := range []string{"o200k", "cl100k", "qwen", "deepseek", "tekken"} {
		k, _ := vocab.ByName(name)
		v := k.Vocabulary()
		for range 20_000 {
			alphabet := [][]string{{"1", "2", "3", "٧", "３"}, {"=", "-", "*"}, {"a", "b", " ", "the ", "word "}, {"中", "文", " x", "1"}, {"a", " ", "\t", "1", "é"}}[rng.IntN(5)]
			var s strings.Builder
			for range rng.IntN(40) {
				s.WriteString(alphabet[rng.IntN(len(alphabet))])
			}
			around := alphabet[rng.IntN(len(alphabet))]
			limit := v.Count([]byte(s.String())) + joints + int(ends([]byte(s.String())))
			if n := v.Count([]byte(around+s.String()+around)) - 2*len(around); n > limit {
				t.Fatalf("%s: %q within %q: %d tokens, by itself %d", name, s.String(), around, n, limit)
			}
		}
	}
}

func TestDoubtRestsOnLengths(t *testing.T) {
	t.Parallel()
	r := parse(t, ai.KindChat, cookbook)
	tok := tokenizer(t, Choice{Model: "gpt-4o"})
	if n := tok.Count(r, Session{Doubt: true}); n.Exact || n.Tokens != 124 || n.Bound != tok.Bound(r) || n.Bound < 500 {
		t.Errorf("%+v", n)
	}
}

// A request that brings limits of its own for its media has no bound but a context.
func TestMediaLimits(t *testing.T) {
	t.Parallel()
	const image = `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]`
	tok := tokenizer(t, Choice{Model: "Qwen/Qwen2.5-VL-7B-Instruct", Adapter: "vllm"})
	if n := tok.Count(parse(t, ai.KindChat, image+`}`), Session{}); n.Bound > 20_000 {
		t.Errorf("%+v", n)
	}
	if n := tok.Count(parse(t, ai.KindChat, image+`,"mm_processor_kwargs":{"max_pixels":1000000000}}`), Session{}); n.Bound < longestContext {
		t.Errorf("%+v", n)
	}
}

func TestChoices(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		choice               Choice
		vocabulary, template string
		estimates            bool
	}{
		{Choice{Model: "gpt-4"}, "cl100k", "openai", false},
		{Choice{Model: "gpt-3.5-turbo-0125"}, "cl100k", "openai", false},
		{Choice{Model: "openai/gpt-4o-mini"}, "o200k", "openai", false},
		{Choice{Model: "gpt-oss-120b"}, "o200k", "harmony", false},
		{Choice{Model: "Qwen/Qwen3-32B"}, "qwen", "qwen3", false},
		{Choice{Model: "qwen-max"}, "qwen", "generic", true},
		{Choice{Model: "qwen3.6-35b"}, "qwen3.6", "generic", false},
		{Choice{Model: "qwen3-max"}, "qwen", "generic", true},
		{Choice{Model: "Qwen/QwQ-32B"}, "qwen", "generic", false},
		{Choice{Model: "Qwen1.5-7B-Chat"}, "qwen", "generic", false},
		{Choice{Model: "deepseek-r1:14b"}, "qwen", "generic", true},
		{Choice{Model: "ft:gpt-4o-mini:acme"}, "o200k", "openai", false},
		{Choice{Model: "deepseek-chat"}, "deepseek", "deepseek-v3", false},
		{Choice{Model: "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"}, "qwen", "deepseek-r1", true},
		{Choice{Model: "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"}, "cl100k", "deepseek-r1", true},
		{Choice{Model: "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B"}, "qwen", "deepseek-r1", true},
		{Choice{Model: "deepseek-ai/deepseek-coder-6.7b-instruct"}, "deepseek", "generic", true},
		{Choice{Model: "deepseek-ai/DeepSeek-V2-Lite"}, "deepseek", "generic", true},
		{Choice{Model: "Qwen/Qwen2.5-Math-7B-Instruct"}, "qwen", "generic", false},
		{Choice{Model: "mistral-nemo"}, "tekken", "mistral-v3", false},
		{Choice{Model: "open-mistral-7b"}, "tekken", "mistral-v3", true},
		{Choice{Model: "meta-llama/Llama-3.3-70B-Instruct"}, "cl100k", "llama-3.1", true},
		{Choice{Model: "text-embedding-3-large"}, "cl100k", "generic", false},
		{Choice{Model: "glm-4.5-air"}, "qwen", "generic", true},
		{Choice{Model: "kimi-k2"}, "o200k", "generic", true},
		{Choice{Model: ""}, "o200k", "generic", true},
		{Choice{Model: "house-model", Vocabulary: "qwen", Template: "qwen3"}, "qwen", "qwen3", false},
	} {
		tok := tokenizer(t, tt.choice)
		if tok.Vocabulary() != tt.vocabulary || tok.Template() != tt.template || tok.Estimates() != tt.estimates {
			t.Errorf("%+v: %s, %s, estimates %t", tt.choice, tok.Vocabulary(), tok.Template(), tok.Estimates())
		}
	}
	for text, c := range map[string]Choice{
		"template: ":                                       {Template: "nobody's"},
		"vocabulary: ":                                     {Vocabulary: "nobody's"},
		"file: x.tiktoken does not say":                    {File: "x.tiktoken", Content: []byte("YQ== 0\n")},
		"file: x.json: line 1":                             {File: "x.json", Vocabulary: "qwen", Content: []byte("nonsense\n")},
		"vocabulary: the file says itself":                 {File: "x", Vocabulary: "qwen", Content: []byte(`{"model":{}}`)},
		"file: x is a vocabulary of Mistral's":             {File: "x", Template: "qwen3", Content: []byte(`{"config":{"default_vocab_size":1}}`)},
		"template: \"a\" is not known; there are deepseek": {Template: "a", Vocabulary: "b"},
	} {
		_, err := New(c)
		var wrong *ChoiceError
		if !errors.As(err, &wrong) || !strings.HasPrefix(err.Error(), text) {
			t.Errorf("%+v: %v, want %s", c, err, text)
		}
	}
	if _, err := New(Choice{Template: "a", Vocabulary: "b"}); !strings.Contains(err.Error(), "\nvocabulary: ") {
		t.Errorf("not every fault is named: %v", err)
	}
}

// A vocabulary of the operator's counts as the one in the binary does, and makes a
// family exact of which weir has none.
func TestVocabularyFiles(t *testing.T) {
	t.Parallel()
	read := func(name string) []byte {
		b, err := os.ReadFile("../.tools/tokenizers/vocab/" + name)
		if err != nil {
			t.Fatalf("%v: run make setup", err)
		}
		return b
	}
	r := parse(t, ai.KindChat, cookbook)
	for _, tt := range []struct {
		choice Choice
		like   string // a model whose vocabulary is in the binary
	}{
		{Choice{Model: "deepseek-v3", Adapter: "vllm", File: "tokenizer.json", Content: read("deepseek_v3.json")}, "deepseek-v3"},
		{Choice{Model: "mistral-nemo", Adapter: "vllm", File: "tekken.json", Content: read("tekken.json")}, "mistral-nemo"},
		{Choice{Model: "gpt-4o", Vocabulary: "o200k", File: "o200k_base.tiktoken", Content: read("o200k_base.tiktoken")}, "gpt-4o"},
	} {
		got := tokenizer(t, tt.choice).Count(r, Session{Now: day})
		want := tokenizer(t, Choice{Model: tt.like, Adapter: tt.choice.Adapter}).Count(r, Session{Now: day})
		if got != want || !got.Exact {
			t.Errorf("%s: %+v, want %+v", tt.choice.File, got, want)
		}
	}
	other := Choice{Model: "meta-llama/Llama-3.1-8B-Instruct", Adapter: "vllm", File: "tokenizer.json", Content: read("deepseek_v3.json")}
	if _, err := New(other); err == nil || !strings.Contains(err.Error(), "<|begin_of_text|>") {
		t.Errorf("another model's file is taken for Llama's: %v", err)
	}
	llama := Choice{Model: "meta-llama/Llama-3.1-8B-Instruct", Adapter: "vllm", File: "tokenizer.model", Content: read("llama3_1.tiktoken")}
	tok := tokenizer(t, llama)
	if again := tokenizer(t, llama); again.id != tok.id {
		t.Error("the same file was read twice")
	}
	hello := parse(t, ai.KindChat, `{"model":"m","messages":[{"role":"user","content":"Hello, how are you?"}]}`)
	// The default system block with its dates has 25 tokens, with the marks around it.
	if n := tok.Count(hello, Session{Now: day}); !n.Exact || n.Tokens != 41 {
		t.Errorf("Llama: %+v", n)
	}
}

func TestMemo(t *testing.T) {
	t.Parallel()
	m := NewMemo()
	defer m.Close()
	text := []byte("some text")
	key := func(m *Memo, tenant string, kind uint64, text string) memoKey {
		k, scratch := m.hash(tenant, []byte(text), nil)
		k, _ = m.of(k, kind, scratch)
		return k
	}
	k := key(m, "a", 1, "some text")
	if k != key(m, "a", 1, string(bytes.Clone(text))) {
		t.Error("the key of a text is not stable")
	}
	other := NewMemo()
	defer other.Close()
	for name, other := range map[string]memoKey{
		"tenant": key(m, "b", 1, "some text"), "vocabulary": key(m, "a", 2, "some text"), "text": key(m, "a", 1, "some texts"),
		"cut": key(m, "asome", 1, " text"), "memo": key(other, "a", 1, "some text"), "empty": key(m, "a", 1, ""),
	} {
		if other[0] == k[0] || other[1] == k[1] {
			t.Errorf("another %s has the same key", name)
		}
	}
	if _, known := m.get(k); known {
		t.Error("known before it was counted")
	}
	m.put(k, 7)
	m.Wait()
	if n, known := m.get(k); !known || n != 7 {
		t.Errorf("%d, %t", n, known)
	}
	if _, known := m.get(memoKey{k[0], k[1] + 1}); known {
		t.Error("half a key is taken for the whole")
	}
}

func TestLearned(t *testing.T) {
	t.Parallel()
	l := NewLearned()
	estimate := Count{Tokens: 1000, Bound: 4000}
	if got := l.Correct("p", estimate); got != estimate || l.Factor("p") != 1 || l.Doubts("p") {
		t.Errorf("before anything was learnt: %+v", got)
	}
	for range 200 { // the backend counts a fifth more
		told := l.Correct("p", estimate).Tokens
		if l.Observe("p", told, false, 1200) {
			t.Fatal("an estimate fell short of being exact")
		}
	}
	if got := l.Correct("p", estimate); got.Tokens < 1190 || got.Tokens > 1210 || got.Bound != 4000 {
		t.Errorf("after two hundred requests: %+v", got)
	}
	for range 2000 {
		l.Observe("p", 1000, false, 1_000_000)
	}
	if f := l.Factor("p"); f != mostFactor {
		t.Errorf("factor %v", f)
	}
	exact := Count{Tokens: 10, Bound: 10, Exact: true}
	if got := l.Correct("p", exact); got != exact {
		t.Errorf("an exact count was corrected: %+v", got)
	}
	l.Forget("p")
	if l.Factor("p") != 1 {
		t.Error("what was forgotten is known")
	}
	l.Observe("q", 3, false, 300) // too short to teach
	if l.Factor("q") != 1 || l.Observe("q", 100, true, 100) || l.Observe("q", 100, true, 90) || l.Doubts("q") {
		t.Error("nothing was wrong with q")
	}
	if !l.Observe("q", 100, true, 101) || l.Observe("q", 100, true, 101) || !l.Doubts("q") || l.Doubts("p") {
		t.Error("a count that fell short is told once, and doubted from then on")
	}
}

func TestLikely(t *testing.T) {
	t.Parallel()
	r := parse(t, ai.KindChat, `{"model":"m","messages":[{"role":"user","content":"Say something about rivers."}]}`)
	if got := Likely(r); got < 7 || got > 20 {
		t.Errorf("27 bytes in one message are likely %d tokens", got)
	}
	image := parse(t, ai.KindChat, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}`)
	if got := Likely(image); got < 256 || got > Bound(image) {
		t.Errorf("an image is likely %d tokens", got)
	}
}

func TestConcurrentCounts(t *testing.T) {
	t.Parallel()
	memo := NewMemo()
	defer memo.Close()
	tok := tokenizer(t, Choice{Model: "Qwen/Qwen3-8B", Adapter: "vllm"})
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 50 {
				r := parse(t, ai.KindChat, `{"model":"m","messages":[{"role":"user","content":"`+strings.Repeat(fmt.Sprintf("word%d ", g), 10*i)+`"}]}`)
				a := tok.Count(r, Session{Memo: memo, Tenant: "a"})
				if b := tok.Count(r, Session{}); a != b {
					t.Errorf("%+v and %+v", a, b)
				}
			}
		})
	}
	group.Wait()
}

func TestCountDoesNotAllocate(t *testing.T) {
	memo := NewMemo()
	defer memo.Close()
	for _, c := range []Choice{{Model: "gpt-4o"}, {Model: "Qwen/Qwen3-8B", Adapter: "vllm"}, {Model: "deepseek-v3"}} {
		tok := tokenizer(t, c)
		r := parse(t, ai.KindChat, `{"model":"m","messages":[{"role":"system","content":"Be\nkind."},{"role":"user","content":"`+strings.Repeat("How are you? ", 50)+`"}]}`)
		s := Session{Memo: memo, Tenant: "a", Now: day}
		tok.Count(r, s)
		memo.Wait()
		if n := testing.AllocsPerRun(200, func() { tok.Count(r, s) }); n >= 1 {
			t.Errorf("%s: %v allocations, want 0", c.Model, n)
		}
	}
}

func FuzzCountWithinBound(f *testing.F) {
	f.Add([]byte(cookbook), uint8(0))
	f.Add([]byte(`{"model":"m","prompt":["a",[1]],"suffix":"\u00e9","tools":[{}]}`), uint8(1))
	f.Add([]byte(`{"model":"m","input":"\ud83d\ude00 \n \n"}`), uint8(2))
	f.Add([]byte(`{"model":"m","messages":[{"content":[{"image_url":{}},{"input_audio":1},{"audio_url":""},{"file":0},{"video":[]}],"tool_calls":[1]}],"tools":[{"a":1e15}]}`), uint8(0))
	f.Add([]byte(randomChat(rand.New(rand.NewPCG(1, 1)))), uint8(0))
	kinds := []ai.Kind{ai.KindChat, ai.KindCompletion, ai.KindEmbedding}
	var toks []*Tokenizer
	for _, c := range models {
		toks = append(toks, tokenizer(f, c))
	}
	f.Fuzz(func(t *testing.T, body []byte, kind uint8) {
		var r openai.Request
		if openai.Parse(kinds[int(kind)%len(kinds)], body, 64, &r) != nil {
			return
		}
		for _, tok := range toks {
			n := tok.Count(&r, Session{Now: day})
			if n.Tokens < 0 || n.Tokens > n.Bound || n.Exact && n.Tokens != n.Bound {
				t.Fatalf("%s: %+v", tok.Template(), n)
			}
			if b := tok.Bound(&r); n.Bound > b {
				t.Fatalf("%s: bound %d, by lengths %d", tok.Template(), n.Bound, b)
			}
		}
	})
}
