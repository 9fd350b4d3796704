package openai

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weirproxy/weir/internal/ai"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		kind ai.Kind
		body string
		want Request // Body, Kind, spans and segments aside
		text string  // the texts of the segments, raw ones in angle brackets
	}{
		{
			name: "smallest chat", kind: ai.KindChat,
			body: `{"model":"m","messages":[]}`,
			want: Request{Model: "m", N: 1, Prompts: 1},
		},
		{
			name: "chat", kind: ai.KindChat,
			body: ` {"messages":[{"role":"system","content":"be\nkind"},{"role":"user","name":"Ada","content":[{"type":"text","text":"what?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],
				"model":"gpt\u002d4","stream":true,"n":2,"max_completion_tokens":100,"temperature":0.5,"user":"u-1","stop":["x"]}`,
			want: Request{Model: "gpt-4", Stream: true, N: 2, Prompts: 1, MaxOutput: 100, HasMaxOutput: true, Messages: 2, Names: 1, Images: 1, Vision: true},
			text: "system|be\nkind|user|Ada|what?",
		},
		{
			name: "tools and their calls", kind: ai.KindChat,
			body: `{"model":"m","tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"auto","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1"},{"id":"2"}]},{"role":"tool","tool_call_id":"1","content":"7"}]}`,
			want: Request{Model: "m", N: 1, Prompts: 1, Tools: true, ToolDefs: 1, ToolCalls: 2, Messages: 2},
			text: `<[{"type":"function","function":{"name":"f"}}]>|assistant|<[{"id":"1"},{"id":"2"}]>|tool|1|7`,
		},
		{
			name: "nulls are absent", kind: ai.KindChat,
			body: `{"model":"m","messages":[],"stream":null,"stream_options":null,"n":null,"max_tokens":null,"max_completion_tokens":null,"tools":null,"functions":[]}`,
			want: Request{Model: "m", N: 1, Prompts: 1},
		},
		{
			name: "usage asked for", kind: ai.KindChat,
			body: `{"model":"m","messages":[],"stream":true,"stream_options":{"x":{},"include_usage":true}}`,
			want: Request{Model: "m", N: 1, Prompts: 1, Stream: true, IncludeUsage: true},
		},
		{
			name: "both ceilings", kind: ai.KindChat,
			body: `{"model":"m","messages":[],"max_tokens":7,"max_completion_tokens":9}`,
			want: Request{Model: "m", N: 1, Prompts: 1, MaxOutput: 7, HasMaxOutput: true},
		},
		{
			name: "ceiling of zero", kind: ai.KindCompletion,
			body: `{"model":"m","prompt":"x","max_tokens":0}`,
			want: Request{Model: "m", N: 1, Prompts: 1, HasMaxOutput: true},
			text: "x",
		},
		{
			name: "media", kind: ai.KindChat,
			body: `{"model":"m","messages":[{"role":"user","content":["plain",{"type":"input_audio","input_audio":{"data":"AAAA"}},{"type":"video_url","video_url":{"url":"u"}},{"type":"audio_url","audio_url":{"url":"u"}},{"type":"file","file":{"file_id":"f"}},{"type":"new","new":{"a":1}}]}]}`,
			want: Request{Model: "m", N: 1, Prompts: 1, Messages: 1, Videos: 1, AudioURLs: 1, AudioBytes: 15 + 11, Files: 1, Vision: true},
			text: `user|plain|<{"a":1}>`,
		},
		{
			name: "fields that weir does not know", kind: ai.KindChat,
			body: `{"model":"m","messages":[{"role":"user","content":{"a":1},"prefix":true}],"documents":[{"text":"d"}],"chat_template":"t","guided":true,"metadata":{"a":"b"}}`,
			want: Request{Model: "m", N: 1, Prompts: 1, Messages: 1},
			text: `user|<{"a":1}>|<true>|<[{"text":"d"}]>|<"t">`,
		},
		{
			name: "completion of several prompts", kind: ai.KindCompletion,
			body: `{"model":"m","prompt":["a","b","c"],"n":2,"best_of":4,"suffix":"s"}`,
			want: Request{Model: "m", N: 4, Prompts: 3},
			text: `a|b|c|<"s">`,
		},
		{
			name: "completion of token ids", kind: ai.KindCompletion,
			body: `{"model":"m","prompt":[1,2,3]}`,
			want: Request{Model: "m", N: 1, Prompts: 1, TokenIDs: 3},
		},
		{
			name: "embedding of lists of token ids", kind: ai.KindEmbedding,
			body: `{"model":"m","input":[[1,2,3],[4]]}`,
			want: Request{Model: "m", N: 1, Prompts: 2, TokenIDs: 4},
		},
		{
			name: "embedding of a string", kind: ai.KindEmbedding,
			body: `{"model":"m","input":"é\u00e9"}`,
			want: Request{Model: "m", N: 1, Prompts: 1},
			text: "éé",
		},
		{
			name: "embedding of messages", kind: ai.KindEmbedding,
			body: `{"model":"m","messages":[{"role":"user","content":"x"}]}`,
			want: Request{Model: "m", N: 1, Prompts: 1, Messages: 1},
			text: "user|x",
		},
	}
	r := Request{Segments: []Segment{{Bytes: 99}}, Images: 7, Model: "old"} // as left behind
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if f := Parse(tt.kind, []byte(tt.body), 64, &r); f != nil {
				t.Fatal(f)
			}
			ignore := cmpopts.IgnoreFields(Request{}, "Body", "Kind", "ModelSpan", "Segments")
			if d := cmp.Diff(tt.want, r, ignore, cmpopts.IgnoreUnexported(Request{})); d != "" {
				t.Error(d)
			}
			var model string
			if err := json.Unmarshal(r.Body[r.ModelSpan.Off:r.ModelSpan.End()], &model); err != nil || model != r.Model {
				t.Errorf("the model's span holds %q, %v", model, err)
			}
			if got := segmentTexts(t, &r); got != tt.text {
				t.Errorf("segments %q, want %q", got, tt.text)
			}
		})
	}
}

func segmentTexts(t *testing.T, r *Request) string {
	t.Helper()
	var texts []string
	for _, s := range r.Segments {
		text := string(r.Body[s.Off:s.End()])
		if s.Raw {
			texts = append(texts, "<"+text+">")
			continue
		}
		if s.Escaped != strings.Contains(text, `\`) {
			t.Errorf("segment %s: escaped is %t", text, s.Escaped)
		}
		var decoded string
		if err := json.Unmarshal([]byte(text), &decoded); err != nil {
			t.Error(err)
		}
		if len(decoded) != s.Bytes {
			t.Errorf("segment of %d bytes, want %d: %s", s.Bytes, len(decoded), text)
		}
		texts = append(texts, decoded)
	}
	return strings.Join(texts, "|")
}

func TestParseFaults(t *testing.T) {
	t.Parallel()
	chat := func(more string) string { return `{"model":"m","messages":[]` + more + `}` }
	tests := []struct {
		name   string
		kind   ai.Kind
		body   string
		reason ai.Reason
		param  string
	}{
		{"no body", ai.KindChat, "", ai.ReasonEmptyBody, ""},
		{"white space", ai.KindChat, " \n", ai.ReasonEmptyBody, ""},
		{"not JSON", ai.KindChat, "model=x", ai.ReasonInvalidJSON, ""},
		{"a list", ai.KindChat, "[]", ai.ReasonInvalidJSON, ""},
		{"JSON fault behind a wrong field", ai.KindChat, chat(`,"n":"x","a":}`), ai.ReasonInvalidJSON, ""},
		{"duplicate", ai.KindChat, chat(`,"m\u006fdel":"other"`), ai.ReasonDuplicateKey, ""},
		{"duplicate below", ai.KindChat, chat(`,"stream_options":{"include_usage":true,"include_usage":false}`), ai.ReasonDuplicateKey, ""},
		{"utf-8", ai.KindChat, chat(",\"user\":\"\xff\""), ai.ReasonInvalidUTF8, ""},
		{"deep", ai.KindChat, chat(`,"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64)), ai.ReasonTooDeep, ""},
		{"no model", ai.KindChat, `{"messages":[]}`, ai.ReasonInvalidField, "model"},
		{"null model", ai.KindChat, `{"model":null,"messages":[]}`, ai.ReasonInvalidField, "model"},
		{"empty model", ai.KindChat, `{"model":"","messages":[]}`, ai.ReasonInvalidField, "model"},
		{"model of a number", ai.KindChat, `{"model":4,"messages":[]}`, ai.ReasonInvalidField, "model"},
		{"long model", ai.KindChat, `{"model":"` + strings.Repeat("m", 257) + `","messages":[]}`, ai.ReasonInvalidField, "model"},
		{"no messages", ai.KindChat, `{"model":"m"}`, ai.ReasonInvalidField, "messages"},
		{"messages of a string", ai.KindChat, `{"model":"m","messages":"x"}`, ai.ReasonInvalidField, "messages"},
		{"message of a string", ai.KindChat, `{"model":"m","messages":[{},"x"]}`, ai.ReasonInvalidField, "messages[1]"},
		{"no input", ai.KindEmbedding, `{"model":"m"}`, ai.ReasonInvalidField, "input"},
		{"input of an object", ai.KindEmbedding, `{"model":"m","input":{}}`, ai.ReasonInvalidField, "input"},
		{"prompt of booleans", ai.KindCompletion, `{"model":"m","prompt":[true]}`, ai.ReasonInvalidField, "prompt"},
		{"prompt of lists of strings", ai.KindCompletion, `{"model":"m","prompt":[["a"]]}`, ai.ReasonInvalidField, "prompt"},
		{"stream of a string", ai.KindChat, chat(`,"stream":"true"`), ai.ReasonInvalidField, "stream"},
		{"stream of a number", ai.KindChat, chat(`,"stream":1`), ai.ReasonInvalidField, "stream"},
		{"stream_options of a list", ai.KindChat, chat(`,"stream_options":[]`), ai.ReasonInvalidField, "stream_options"},
		{"include_usage of a number", ai.KindChat, chat(`,"stream_options":{"include_usage":0}`), ai.ReasonInvalidField, "stream_options.include_usage"},
		{"max_tokens of a string", ai.KindChat, chat(`,"max_tokens":"5"`), ai.ReasonInvalidField, "max_tokens"},
		{"max_tokens below zero", ai.KindChat, chat(`,"max_tokens":-1`), ai.ReasonInvalidField, "max_tokens"},
		{"max_tokens with exponent", ai.KindChat, chat(`,"max_tokens":1e3`), ai.ReasonInvalidField, "max_tokens"},
		{"max_tokens with fraction", ai.KindChat, chat(`,"max_tokens":10.0`), ai.ReasonInvalidField, "max_tokens"},
		{"max_tokens too large", ai.KindChat, chat(`,"max_tokens":9999999999999999`), ai.ReasonInvalidField, "max_tokens"},
		{"max_completion_tokens", ai.KindChat, chat(`,"max_completion_tokens":true`), ai.ReasonInvalidField, "max_completion_tokens"},
		{"n of zero", ai.KindChat, chat(`,"n":0`), ai.ReasonInvalidField, "n"},
		{"best_of of zero", ai.KindCompletion, `{"model":"m","best_of":0}`, ai.ReasonInvalidField, "best_of"},
		{"tools of an object", ai.KindChat, chat(`,"tools":{}`), ai.ReasonInvalidField, "tools"},
		{"Model", ai.KindChat, chat(`,"Model":"other"`), ai.ReasonInvalidField, "model"},
		{"long s in stream", ai.KindChat, chat(`,"ſtream":true`), ai.ReasonInvalidField, "stream"},
		{"Kelvin in max_tokens", ai.KindChat, chat(`,"max_to` + "\u212a" + `ens":9`), ai.ReasonInvalidField, "max_tokens"},
		{"escaped capital", ai.KindChat, chat(`,"\u004d\u0041X_TOKENS":9`), ai.ReasonInvalidField, "max_tokens"},
		{"INCLUDE_USAGE", ai.KindChat, chat(`,"stream_options":{"INCLUDE_USAGE":true}`), ai.ReasonInvalidField, "stream_options.include_usage"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var r Request
			f := Parse(tt.kind, []byte(tt.body), 64, &r)
			if f == nil {
				t.Fatal("accepted")
			}
			if f.Reason != tt.reason || f.Param != tt.param || f.Message == "" {
				t.Errorf("%s, param %q (%s), want %s, param %q", f.Reason, f.Param, f.Message, tt.reason, tt.param)
			}
			if strings.Contains(f.Message, "other") || strings.Contains(f.Message, `\u`) {
				t.Errorf("the message tells the client's value: %s", f.Message)
			}
		})
	}
}

// A field that only looks like a known one is none of weir's business.
func TestOtherCaseOfUnknownFields(t *testing.T) {
	t.Parallel()
	var r Request
	if f := Parse(ai.KindChat, []byte(`{"model":"m","messages":[{"Name":"x"}],"X-Trace":"1","Größe":2,"N1":3}`), 64, &r); f != nil {
		t.Error(f)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ n, prompts, want int64 }{{1, 1, 1}, {3, 4, 12}, {0, 0, 1}, {1e15, 1e15, 1<<63 - 1}} {
		r := Request{N: tt.n, Prompts: tt.prompts}
		if got := r.Answers(); got != tt.want {
			t.Errorf("n=%d prompts=%d: %d, want %d", tt.n, tt.prompts, got, tt.want)
		}
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	body := []byte(`{"model":"m","stream":true,"messages":[{"role":"user","content":"a\nb"},{"role":"user","content":[{"type":"text","text":"x"}]}],"max_tokens":5}`)
	var r Request
	Parse(ai.KindChat, body, 64, &r)
	if n := testing.AllocsPerRun(100, func() { Parse(ai.KindChat, body, 64, &r) }); n > 0.5 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, size := range []int{2 << 10, 200 << 10} {
		b.Run(map[bool]string{true: "2K", false: "200K"}[size == 2<<10], func(b *testing.B) {
			body := chatBody(size)
			var r Request
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if f := Parse(ai.KindChat, body, 64, &r); f != nil {
					b.Fatal(f)
				}
			}
		})
	}
}

func chatBody(size int) []byte {
	var s strings.Builder
	s.WriteString(`{"model":"deepseek-v3","stream":true,"temperature":0.7,"max_tokens":1024,"messages":[{"role":"system","content":"You are careful."}`)
	for s.Len() < size {
		s.WriteString(`,{"role":"user","content":"` + strings.Repeat(`The quick brown fox jumps over the lazy dog.\n`, 20) + `"}`)
	}
	return []byte(s.String() + `]}`)
}
