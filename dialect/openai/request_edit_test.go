package openai

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/jsonscan"
	"github.com/weirproxy/weir/internal/ai"
)

func TestEdits(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body, want string
		kind             ai.Kind
		max              int64
	}{
		{name: "nothing to do", body: `{"model":"m","messages":[],"max_tokens":5}`, max: 5, want: `{"model":"m","messages":[],"max_tokens":5}`},
		{name: "lowered", body: `{"max_tokens":50,"model":"m","messages":[]}`, max: 7, want: `{"max_tokens":7,"model":"m","messages":[]}`},
		{name: "the client's own is kept", body: `{"max_completion_tokens":50,"model":"m","messages":[]}`, max: 7, want: `{"max_completion_tokens":7,"model":"m","messages":[]}`},
		{name: "both lowered", body: `{"max_tokens":9,"max_completion_tokens":50,"model":"m","messages":[]}`, max: 7, want: `{"max_tokens":7,"max_completion_tokens":7,"model":"m","messages":[]}`},
		{name: "the higher lowered", body: `{"max_tokens":3,"max_completion_tokens":50,"model":"m","messages":[]}`, max: 7, want: `{"max_tokens":3,"max_completion_tokens":7,"model":"m","messages":[]}`},
		{name: "added", body: `{"model":"m","messages":[] } `, max: 7, want: `{"model":"m","messages":[] ,"max_tokens":7} `},
		{name: "null replaced", body: `{"model":"m","messages":[],"max_completion_tokens": null}`, max: 7, want: `{"model":"m","messages":[],"max_completion_tokens": 7}`},
		{name: "one of two nulls", body: `{"model":"m","messages":[],"max_completion_tokens":null,"max_tokens":null}`, max: 7, want: `{"model":"m","messages":[],"max_completion_tokens":null,"max_tokens":7}`},
		{name: "completions know max_tokens only", kind: ai.KindCompletion, body: `{"model":"m","max_completion_tokens":5}`, max: 7, want: `{"model":"m","max_completion_tokens":5,"max_tokens":7}`},
		{name: "embeddings have none", kind: ai.KindEmbedding, body: `{"model":"m","input":"x","stream":true}`, max: 7, want: `{"model":"m","input":"x","stream":true}`},
		{name: "usage added", body: `{"model":"m","messages":[],"max_tokens":1,"stream":true}`, max: 7, want: `{"model":"m","messages":[],"max_tokens":1,"stream":true,"stream_options":{"include_usage":true}}`},
		{name: "min_tokens goes with its ceiling", body: `{"model":"m","messages":[],"min_tokens":40,"max_tokens":50}`, max: 7, want: `{"model":"m","messages":[],"min_tokens":7,"max_tokens":7}`},
		{name: "min_tokens goes with an added ceiling", body: `{"min_tokens":40,"model":"m","messages":[]}`, max: 7, want: `{"min_tokens":7,"model":"m","messages":[],"max_tokens":7}`},
		{name: "a small min_tokens stays", body: `{"model":"m","messages":[],"min_tokens":7,"max_tokens":50}`, max: 7, want: `{"model":"m","messages":[],"min_tokens":7,"max_tokens":7}`},
		{name: "a min_tokens that the client itself has above its ceiling stays", body: `{"model":"m","messages":[],"min_tokens":40,"max_tokens":5}`, max: 7, want: `{"model":"m","messages":[],"min_tokens":40,"max_tokens":5}`},
		{name: "a null stays", body: `{"model":"m","messages":[],"min_tokens":null,"max_tokens":50}`, max: 7, want: `{"model":"m","messages":[],"min_tokens":null,"max_tokens":7}`},
		{name: "both added", body: `{"stream":true,"messages":[],"model":"m"}`, max: 7, want: `{"stream":true,"messages":[],"model":"m","stream_options":{"include_usage":true},"max_tokens":7}`},
		{name: "into empty options", body: `{"stream":true,"stream_options":{ },"messages":[],"max_tokens":1,"model":"m"}`, max: 7, want: `{"stream":true,"stream_options":{"include_usage":true },"messages":[],"max_tokens":1,"model":"m"}`},
		{name: "into options", body: `{"stream":true,"stream_options":{"a":1},"messages":[],"max_tokens":1,"model":"m"}`, max: 7, want: `{"stream":true,"stream_options":{"include_usage":true,"a":1},"messages":[],"max_tokens":1,"model":"m"}`},
		{name: "instead of false", body: `{"stream":true,"stream_options":{"include_usage": false},"messages":[],"max_tokens":1,"model":"m"}`, max: 7, want: `{"stream":true,"stream_options":{"include_usage": true},"messages":[],"max_tokens":1,"model":"m"}`},
		{name: "instead of null", body: `{"stream":true,"stream_options":null,"messages":[],"max_tokens":1,"model":"m"}`, max: 7, want: `{"stream":true,"stream_options":{"include_usage":true},"messages":[],"max_tokens":1,"model":"m"}`},
		{name: "asked for already", body: `{"stream":true,"stream_options":{"include_usage":true},"messages":[],"max_tokens":1,"model":"m"}`, max: 7, want: `{"stream":true,"stream_options":{"include_usage":true},"messages":[],"max_tokens":1,"model":"m"}`},
		{name: "below zero is zero", body: `{"model":"m","messages":[],"max_tokens":5}`, max: -3, want: `{"model":"m","messages":[],"max_tokens":0}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.kind == "" {
				tt.kind = ai.KindChat
			}
			var r Request
			if f := Parse(tt.kind, []byte(tt.body), 64, &r); f != nil {
				t.Fatal(f)
			}
			got := checkEdits(t, &r, tt.max)
			if string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// checkEdits makes all edits and checks that the body means what was intended.
func checkEdits(t *testing.T, r *Request, n int64) []byte {
	t.Helper()
	edits := r.MaxOutputEdits(nil, n)
	if e, ok := r.IncludeUsageEdit(); ok {
		edits = append([]Edit{e}, edits...)
	}
	got, err := Apply([]byte("#"), r.Body, edits)
	if err != nil {
		t.Fatal(err)
	}
	got = bytes.TrimPrefix(got, []byte("#"))
	if f := jsonscan.Check(got, 65); f != nil {
		t.Fatalf("%+v: %s", f, got)
	}
	span, ok := MovedSpan(r.ModelSpan, edits)
	var model string
	if err := json.Unmarshal(got[span.Off:span.End()], &model); !ok || err != nil || model != r.Model {
		t.Fatalf("the model's span holds %q after the edits, want %q", model, r.Model)
	}
	var was, is map[string]any
	if json.Unmarshal(r.Body, &was) != nil || json.Unmarshal(got, &is) != nil {
		t.Fatal("not JSON")
	}
	checkMeaning(t, r, n, is)
	if was, is := was["min_tokens"], is["min_tokens"]; was != is && (is != float64(max(n, 0)) || was.(float64) < is.(float64)) {
		t.Fatalf("min_tokens was %v and is %v, with a ceiling of %d", was, is, n)
	}
	for _, key := range []string{"max_tokens", "max_completion_tokens", "min_tokens"} {
		delete(was, key)
		delete(is, key)
	}
	for _, m := range []map[string]any{was, is} {
		if o, ok := m["stream_options"].(map[string]any); ok {
			delete(o, "include_usage")
		}
		if o, _ := m["stream_options"].(map[string]any); len(o) == 0 {
			delete(m, "stream_options")
		}
	}
	if !reflect.DeepEqual(was, is) {
		t.Fatalf("more than the edits changed: %s became %s", r.Body, got)
	}
	return got
}

func checkMeaning(t *testing.T, r *Request, n int64, is map[string]any) {
	t.Helper()
	if r.Kind == ai.KindEmbedding {
		return
	}
	given := false
	for i, key := range []string{"max_tokens", "max_completion_tokens"} {
		v, ok := is[key].(float64)
		if !ok || r.Kind == ai.KindCompletion && i == 1 {
			continue
		}
		given = true
		if v > float64(max(n, 0)) {
			t.Fatalf("%s is %v, want at most %d", key, v, n)
		}
	}
	if !given {
		t.Fatal("no ceiling is set")
	}
	if r.Stream {
		o, _ := is["stream_options"].(map[string]any)
		if o["include_usage"] != true {
			t.Fatal("usage is not asked for")
		}
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		edits []Edit
		want  string // "" is an error
	}{
		{"none", nil, "0123456789"},
		{"unsorted", []Edit{{8, 1, "x"}, {2, 3, ""}}, "01567x9"},
		{"insertions keep their order", []Edit{{4, 0, "b"}, {4, 0, "a"}, {0, 0, "<"}, {10, 0, ">"}}, "<0123ba456789>"},
		{"insertion before a replacement", []Edit{{4, 2, "x"}, {4, 0, "a"}}, "0123ax6789"},
		{"side by side", []Edit{{2, 2, "x"}, {4, 2, "y"}}, "01xy6789"},
		{"overlapping", []Edit{{2, 3, "x"}, {4, 2, "y"}}, ""},
		{"insertion inside a replacement", []Edit{{2, 3, "x"}, {3, 0, "y"}}, ""},
		{"outside", []Edit{{9, 2, "x"}}, ""},
		{"behind", []Edit{{11, 0, "x"}}, ""},
		{"before", []Edit{{-1, 1, "x"}}, ""},
		{"negative length", []Edit{{3, -1, "x"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Apply([]byte("dst:"), []byte("0123456789"), tt.edits)
			if tt.want == "" {
				if err == nil || string(got) != "dst:" {
					t.Errorf("got %s, %v, want an error", got, err)
				}
				return
			}
			if err != nil || string(got) != "dst:"+tt.want {
				t.Errorf("got %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestMovedSpan(t *testing.T) {
	t.Parallel()
	s := Span{4, 2}
	for _, tt := range []struct {
		name  string
		edits []Edit
		want  Span
		ok    bool
	}{
		{"before", []Edit{{0, 1, "abc"}, {3, 1, ""}}, Span{5, 2}, true},
		{"behind", []Edit{{6, 0, "abc"}, {7, 1, ""}}, Span{4, 2}, true},
		{"right before", []Edit{{4, 0, "ab"}}, Span{6, 2}, true},
		{"inside", []Edit{{5, 0, "ab"}}, Span{}, false},
		{"over", []Edit{{3, 2, "ab"}}, Span{}, false},
	} {
		if got, ok := MovedSpan(s, tt.edits); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %v, %t, want %v, %t", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	for i, s := range []string{
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"image_url":{"url":"data:"}}]}],"stream":true,"max_tokens":9}`,
		`{"stream":true,"stream_options":{"include_usage":false,"a":[{}]},"model":"m","messages":[],"max_completion_tokens":null}`,
		`{"model":"m","prompt":[1,[2],"x"],"n":3,"best_of":7}`,
		`{"input":["a","\u00e9"],"model":"m","tools":[{}]}`,
		`{"model":"m","messages":[],"min_tokens":9,"thinking":{"type":"enabled","budget_tokens":8},"reasoning":{"max_tokens":7},"thinking_budget":-1}`,
		`{"model":"m","messages":[],"chat_template_kwargs":{"thinking_budget":5},"extra_body":{"google":{"thinking_config":{"thinking_budget":6}},"thinking":null}}`,
	} {
		f.Add([]byte(s), uint8(i), int64(5))
	}
	kinds := []ai.Kind{ai.KindChat, ai.KindChat, ai.KindCompletion, ai.KindEmbedding}
	f.Fuzz(func(t *testing.T, body []byte, kind uint8, n int64) {
		r := Request{Model: "old"}
		r.Segments = make([]dialect.Segment, 3)
		fault := Parse(kinds[int(kind)%len(kinds)], body, 64, &r)
		if fault != nil {
			if fault.Reason == "" || fault.Message == "" || fault.Offset < 0 || fault.Offset > len(body) {
				t.Fatalf("%+v", fault)
			}
			return
		}
		end := 0
		for _, s := range r.Segments {
			if s.Off < end || s.Len <= 0 || s.End() > len(body) || s.Text > s.Len || s.Message >= len(r.Messages) {
				t.Fatalf("segment %+v behind %d", s, end)
			}
			end = s.End()
			if text, _ := r.Decode(&s, nil); s.Text != len(text) && (s.Text != 0 || !s.Raw) {
				t.Fatalf("segment %+v has a text of %d bytes", s, len(text))
			}
		}
		if r.N < 1 || r.Answers() < r.N || r.MaxOutput < 0 || r.ThinkingBudget < 0 || r.HasMaxOutput && r.MaxOutput < 1 {
			t.Fatalf("%d answers of %d tokens, %d of them thoughts", r.Answers(), r.MaxOutput, r.ThinkingBudget)
		}
		for _, m := range r.Media {
			if m.Off < 0 || m.Off+m.Len > len(body) || m.Before > len(r.Segments) || m.Message >= len(r.Messages) {
				t.Fatalf("medium %+v", m)
			}
			r.MediaBytes(&m)
		}
		checkEdits(t, &r, n%(1<<40))
	})
}
