package template_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/tokens/template"
)

// recorded is a chat that a provider was asked, and the input tokens it counted.
// Family is the model's vocabulary.
type recorded struct {
	Model, Family, Source, URL string
	Request                    json.RawMessage
	PromptTokens               int `json:"prompt_tokens"`
}

func recordings(t *testing.T) (all []recorded) {
	t.Helper()
	f, err := os.Open("../../.tools/chats/recorded.jsonl")
	if err != nil {
		t.Fatalf("%v: run make setup", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var r recorded
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// runs collects the texts between special tokens.
type runs struct {
	recorder
	texts    []string
	specials int
}

func (w *runs) Special(string) {
	w.specials++
	w.flush()
}

func (w *runs) flush() {
	if w.text.Len() > 0 {
		w.texts = append(w.texts, w.text.String())
		w.text.Reset()
	}
}

func (w *runs) Media(m *dialect.Media) {
	w.flush()
	w.recorder.Media(m)
}

// count counts texts with the reference tokenizer.
func count(t *testing.T, vocabulary string, texts []string) []int {
	t.Helper()
	var in bytes.Buffer
	for _, s := range texts {
		in.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
		in.WriteString(s)
	}
	cmd := exec.Command("python3", "../../scripts/reference.py", vocabulary)
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil || len(out) != 4*len(texts) {
		t.Fatalf("reference.py %s: %v (run make setup)", vocabulary, err)
	}
	counts := make([]int, len(texts))
	for i := range counts {
		counts[i] = int(binary.LittleEndian.Uint32(out[4*i:]))
	}
	return counts
}

// counted is a recording and what the rendering of it comes to.
type counted struct {
	recorded
	runs
	exact bool
	kind  string
	n     int
}

// render renders the recording as a hosted model's.
func (c *counted) render(t *testing.T) {
	c.v = parse(t, string(c.Request))
	c.exact = template.ForModel(c.Model).Render(c.v, c, template.Options{Now: day})
	c.flush()
	c.kind = template.ForModel(c.Model).Name()
	generic := template.ForModel("").Bound()
	own := template.ForModel(c.Model).Bound()
	if limit := min(own.Of(c.v), generic.Of(c.v)); c.media == 0 && int64(c.PromptTokens) > limit {
		t.Errorf("%s, %s: the provider counted %d, above the bound of %d", c.Model, c.Source, c.PromptTokens, limit)
	}
	for _, s := range c.v.Segments {
		switch s.Kind {
		case dialect.Tool, dialect.ToolArguments:
			c.kind += ", tools"
		case dialect.Schema:
			c.kind += ", a format"
		default:
			continue
		}
		break
	}
}

// TestRecordings compares with what providers counted: the count is theirs wherever
// the rendering is exact, and near it for OpenAI's models elsewhere.
func TestRecordings(t *testing.T) {
	byVocabulary := map[string][]*counted{}
	for _, r := range recordings(t) {
		if r.Family == "" || strings.Contains(r.URL, "localhost:5002") { // a stand-in's
			continue
		}
		c := &counted{recorded: r}
		if c.render(t); c.media == 0 {
			byVocabulary[r.Family] = append(byVocabulary[r.Family], c)
		}
	}
	sums := map[string]*sum{}
	for vocabulary, all := range byVocabulary {
		var texts []string
		for _, c := range all {
			texts = append(texts, c.texts...)
		}
		counts := count(t, vocabulary, texts)
		for _, c := range all {
			c.n = c.specials
			for _, n := range counts[:len(c.texts)] {
				c.n += n
			}
			counts = counts[len(c.texts):]
			if c.exact && c.n != c.PromptTokens {
				t.Errorf("%s, %s: %d tokens, the provider counted %d: %s", c.Model, c.Source, c.n, c.PromptTokens, c.Request)
			}
			if sums[c.kind] == nil {
				sums[c.kind] = new(sum)
			}
			sums[c.kind].add(c)
		}
	}
	for kind, s := range sums {
		t.Logf("%-30s %3d chats, %3d of them exact; error of the others: mean %+.1f%%, largest %.1f%%", kind, s.chats, s.exact, 100*s.mean(), 100*s.largest)
		if strings.HasPrefix(kind, "openai") && s.largest > 0.3 {
			t.Errorf("%s: a count is off by %.0f%%", kind, 100*s.largest)
		}
	}
	for kind, least := range map[string]int{"openai": 400, "openai-reasoning": 4, "openai-gpt-5": 8, "llama-3.1": 5, "llama-3": 2, "deepseek-v3": 5, "mistral-v13": 4} {
		if s := sums[kind]; s == nil || s.exact < least {
			t.Errorf("%s: too few exact chats: %+v", kind, s)
		}
	}
}

// sum is the error of counts that are not exact.
type sum struct {
	chats, exact   int
	total, largest float64
}

func (s *sum) add(c *counted) {
	s.chats++
	if c.exact {
		s.exact++
		return
	}
	off := float64(c.n-c.PromptTokens) / float64(c.PromptTokens)
	s.total += off
	s.largest = max(s.largest, math.Abs(off))
}

func (s *sum) mean() float64 { return s.total / float64(max(s.chats-s.exact, 1)) }

// TestCookbook counts the chat that OpenAI's cookbook counts, which its API counted
// too.
func TestCookbook(t *testing.T) {
	const chat = `{"model":"m","messages":[` +
		`{"role":"system","content":"You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},` +
		`{"role":"system","name":"example_user","content":"New synergies will help drive top-line growth."},` +
		`{"role":"system","name":"example_assistant","content":"Things working well together will increase revenue."},` +
		`{"role":"system","name":"example_user","content":"Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},` +
		`{"role":"system","name":"example_assistant","content":"Let's talk later when we're less busy about how to do better."},` +
		`{"role":"user","content":"This late pivot means we don't have time to boil the ocean for the client deliverable."}]}`
	for vocabulary, want := range map[string]int{"cl100k_base": 129, "o200k_base": 124} {
		v := parse(t, chat)
		w := &runs{recorder: recorder{v: v}}
		if !template.ForModel("gpt-4o").Render(v, w, template.Options{}) {
			t.Error("the chat is not exact")
		}
		w.flush()
		got := w.specials
		for _, n := range count(t, vocabulary, w.texts) {
			got += n
		}
		if got != want {
			t.Errorf("%s: %d tokens, want %d", vocabulary, got, want)
		}
	}
}
