package tokens

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
)

// recorded is a chat that a provider was asked, and the input tokens it reported.
type recorded struct {
	Model, Family, Source, URL string
	Request                    json.RawMessage
	PromptTokens               int64 `json:"prompt_tokens"`
}

func recordings(tb testing.TB) (all []recorded) {
	tb.Helper()
	f, err := os.Open("../.tools/chats/recorded.jsonl")
	if err != nil {
		tb.Fatalf("%v: run make setup", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var r recorded
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			tb.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// group is what recordings of one kind come to.
type group struct {
	n, exact, equal int
	sum, worst      float64 // relative errors
}

// What weir counts is what providers reported, where it says that it is; elsewhere it
// is near, and the bound is never below. The table of errors by family is in the log.
func TestRecordedChats(t *testing.T) {
	groups := map[string]*group{}
	exact := 0
	for i, rec := range recordings(t) {
		if unlike(&rec) {
			continue
		}
		var r openai.Request
		fault := openai.Parse(ai.KindChat, rec.Request, 64, &r)
		if fault != nil && fault.Param == "model" { // it was in the URL
			fault = openai.Parse(ai.KindChat, append([]byte(`{"model":"m",`), rec.Request[1:]...), 64, &r)
		}
		if fault != nil {
			t.Fatalf("recording %d: %v", i, fault)
		}
		tok, err := New(Choice{Model: rec.Model})
		if err != nil {
			t.Fatal(err)
		}
		n := tok.Count(&r, Session{Now: time.Date(2026, 3, 7, 12, 0, 0, 0, time.UTC)})
		kind := tok.Template() + " by " + tok.Vocabulary() + content(&r)
		g := groups[kind]
		if g == nil {
			g = &group{}
			groups[kind] = g
		}
		g.n++
		off := float64(n.Tokens-rec.PromptTokens) / float64(rec.PromptTokens)
		g.sum += off
		if math.Abs(off) > math.Abs(g.worst) {
			g.worst = off
		}
		if n.Tokens == rec.PromptTokens {
			g.equal++
		}
		if n.Exact {
			exact++
			g.exact++
			if n.Tokens != rec.PromptTokens {
				t.Errorf("%s (%s, recording %d): counted %d and called it exact, reported %d", rec.Model, rec.Source, i, n.Tokens, rec.PromptTokens)
			}
		}
		if n.Bound < rec.PromptTokens {
			t.Errorf("%s (%s, recording %d): the bound is %d, reported %d", rec.Model, rec.Source, i, n.Bound, rec.PromptTokens)
		}
		if n.Tokens > n.Bound {
			t.Errorf("recording %d: %+v", i, n)
		}
	}
	var table strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(groups)) {
		g := groups[kind]
		fmt.Fprintf(&table, "%-60s %4d  exact %4d  equal %4d  mean error %+6.1f %%  worst %+6.1f %%\n", kind, g.n, g.exact, g.equal, 100*g.sum/float64(g.n), 100*g.worst)
	}
	t.Logf("\n%s", table.String())
	if exact < 480 {
		t.Errorf("only %d recordings are counted exactly", exact)
	}
}

// unlike are recordings that say nothing about counting, and why.
func unlike(r *recorded) bool {
	return strings.Contains(r.Model, "compound") || // a system that asks its models several times, with tools and texts of its own
		strings.Contains(r.URL, "localhost") || // whatever was there
		strings.Contains(r.Source, "test_mistral_chat_model") && r.Model == "mistral-large-latest" // stood for Mistral Large 2411, with another vocabulary
}

// content says what there is in a request beside text.
func content(r *openai.Request) (s string) {
	has := func(k dialect.Kind) bool {
		return slices.ContainsFunc(r.Segments, func(s dialect.Segment) bool { return s.Kind == k })
	}
	if has(dialect.Tool) || has(dialect.ToolArguments) {
		s += ", tools"
	}
	if has(dialect.Schema) {
		s += ", a format"
	}
	if len(r.Media) > 0 {
		s += ", media"
	}
	return s
}
