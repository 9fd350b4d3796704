package openai

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/internal/ai"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		kind ai.Kind
		body string
		want Request // Kind, spans and the view aside
		text string  // the view, as viewText writes it
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
			want: Request{Model: "gpt-4", Stream: true, N: 2, Prompts: 1, MaxOutput: 100, HasMaxOutput: true, Vision: true},
			text: "system[content:be\nkind] user[name:Ada content:what? image:auto:data:image/png;base64,AAAA]",
		},
		{
			name: "tools and their calls", kind: ai.KindChat,
			body: `{"model":"m","tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"auto","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1"},{"id":"2"}]},{"role":"tool","tool_call_id":"1","content":"7"}]}`,
			want: Request{Model: "m", N: 1, Prompts: 1, Tools: true},
			text: `tool:<{"type":"function","function":{"name":"f"}}> assistant[tool_call_id:1 tool_call_id:2 calls:2] tool[tool_call_id:1 content:7]`,
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
			want: Request{Model: "m", N: 1, Prompts: 1, MaxOutput: 9, HasMaxOutput: true},
		},
		{
			name: "ceiling of zero", kind: ai.KindCompletion,
			body: `{"model":"m","prompt":"x","max_tokens":0}`,
			want: Request{Model: "m", N: 1, Prompts: 1, MaxOutput: 1, HasMaxOutput: true},
			text: "prompt:x",
		},
		{
			name: "media", kind: ai.KindChat,
			body: `{"model":"m","messages":[{"role":"user","content":["plain",{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}},{"type":"video_url","video_url":{"url":"u"}},{"type":"audio_url","audio_url":{"url":"u"}},{"type":"file","file":{"file_id":"f"}},{"type":"new","new":{"a":1}}]}]}`,
			want: Request{Model: "m", N: 1, Prompts: 1, Vision: true, Audio: true},
			text: `user[content:plain other:<{"a":1}> audio:base64:wav:AAAA video:url:u audio:url:u file:elsewhere:]`,
		},
		{
			name: "an answer in audio", kind: ai.KindChat,
			body: `{"model":"m","messages":[],"audio":{"voice":"alloy","format":"wav"},"service_tier":"auto"}`,
			want: Request{Model: "m", N: 1, Prompts: 1, Audio: true},
		},
		{
			name: "an answer in audio, by its modalities, that can wait", kind: ai.KindChat,
			body: `{"model":"m","messages":[],"audio":null,"modalities":["text","\u0061udio"],"service_tier":"flex"}`,
			want: Request{Model: "m", N: 1, Prompts: 1, Audio: true, Flex: true},
		},
		{
			name: "an answer in text", kind: ai.KindChat,
			body: `{"model":"m","messages":[],"audio":null,"modalities":["text",{"audio":1}],"service_tier":["flex"]}`,
			want: Request{Model: "m", N: 1, Prompts: 1},
		},
		{
			name: "modalities that are none", kind: ai.KindChat,
			body: `{"model":"m","messages":[],"modalities":"audio"}`,
			want: Request{Model: "m", N: 1, Prompts: 1},
		},
		{
			name: "fields that weir does not know", kind: ai.KindChat,
			body: `{"model":"m","messages":[{"role":"user","content":{"a":1},"prefix":true}],"documents":[{"text":"d"}],"chat_template":"t","guided":true,"metadata":{"a":"b"}}`,
			want: Request{Model: "m", N: 1, Prompts: 1},
			text: `user[content:<{"a":1}> other:<true>] documents:<[{"text":"d"}]> chat_template:t`,
		},
		{
			name: "completion of several prompts", kind: ai.KindCompletion,
			body: `{"model":"m","prompt":["a","b","c"],"n":2,"best_of":4,"suffix":"s"}`,
			want: Request{Model: "m", N: 4, Prompts: 3},
			text: `prompt:a prompt:b prompt:c suffix:s`,
		},
		{
			name: "completion of token ids", kind: ai.KindCompletion,
			body: `{"model":"m","prompt":[1,2,3]}`,
			want: Request{Model: "m", N: 1, Prompts: 1},
			text: "ids:3",
		},
		{
			name: "embedding of lists of token ids", kind: ai.KindEmbedding,
			body: `{"model":"m","input":[[1,2,3],[4]]}`,
			want: Request{Model: "m", N: 1, Prompts: 2},
			text: "ids:4",
		},
		{
			name: "embedding of a string", kind: ai.KindEmbedding,
			body: `{"model":"m","input":"é\u00e9"}`,
			want: Request{Model: "m", N: 1, Prompts: 1},
			text: "prompt:éé",
		},
		{
			name: "embedding of messages", kind: ai.KindEmbedding,
			body: `{"model":"m","messages":[{"role":"user","content":"x"}]}`,
			want: Request{Model: "m", N: 1, Prompts: 1},
			text: "user[content:x]",
		},
		{
			name: "calls, thoughts and results", kind: ai.KindChat,
			body: `{"model":"m","messages":[{"role":"assistant","reasoning_content":"hm","content":null,"refusal":"no","tool_calls":[{"id":"c1","type":"function","function":{"name":"get\u005fx","arguments":"{\"a\":1}"}},"odd"],"function_call":{"name":"g","arguments":"{}"}},{"role":"critic","content":"x"},{"role":"function","name":"g","content":"9"}],"tool_choice":{"type":"function"},"response_format":{"type":"text"},"chat_template_kwargs":{"enable_thinking":false},"add_generation_prompt":false,"reasoning_effort":"low"}`,
			want: Request{Model: "m", N: 1, Prompts: 1},
			text: `assistant[reasoning:hm refusal:no tool_call_id:c1 tool_call_name:get_x tool_arguments:{"a":1} tool_call:odd tool_call_name:g tool_arguments:{} calls:3] [role:critic content:x] function[name:g content:9] tool_choice:<{"type":"function"}> schema:<{"type":"text"}> chat_template_kwargs:<{"enable_thinking":false}> add_generation_prompt:<false> reasoning_effort:low`,
		},
		{
			name: "media in their forms", kind: ai.KindChat,
			body: `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":"HTTP://x/y.png"},{"type":"image_url","image_url":{"url":"d\u0061ta:image/png;base64,QQ==","detail":"high"}},{"type":"file","file":{"filename":"a b.pdf","file_data":"DATA:application/pdf;base64,QQ=="}},{"type":"input_image","image_url":null}]}],"mm_processor_kwargs":{"max_pixels":1e9}}`,
			want: Request{Model: "m", N: 1, Prompts: 1, Vision: true},
			text: `user[file_name:a b.pdf image:auto:HTTP://x/y.png image:high:d\u0061ta:image/png;base64,QQ== file:data:DATA:application/pdf;base64,QQ==] limits`,
		},
	}
	r := Request{Model: "old"} // as left behind
	r.Segments, r.Media, r.TokenIDs = []dialect.Segment{{Text: 99}}, []dialect.Media{{}}, 7
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if f := Parse(tt.kind, []byte(tt.body), 64, &r); f != nil {
				t.Fatal(f)
			}
			ignore := cmpopts.IgnoreFields(Request{}, "View", "Kind", "ModelSpan")
			if d := cmp.Diff(tt.want, r, ignore, cmpopts.IgnoreUnexported(Request{})); d != "" {
				t.Error(d)
			}
			var model string
			if err := json.Unmarshal(r.Body[r.ModelSpan.Off:r.ModelSpan.End()], &model); err != nil || model != r.Model {
				t.Errorf("the model's span holds %q, %v", model, err)
			}
			if got := viewText(t, &r.View); got != tt.text {
				t.Errorf("the view is\n%s, want\n%s", got, tt.text)
			}
		})
	}
}

// viewText writes a view: segments as kind:text, raw ones in angle brackets, those
// of a message behind its role, then its media.
func viewText(t *testing.T, v *dialect.View) string {
	t.Helper()
	var all []string
	message := dialect.NoMessage
	var open []string
	flush := func() {
		if message == dialect.NoMessage {
			return
		}
		m := v.Messages[message]
		for i := m.FirstMedia; i < m.EndMedia; i++ {
			open = append(open, mediaText(v, &v.Media[i]))
		}
		if m.ToolCalls > 0 {
			open = append(open, "calls:"+strconv.Itoa(m.ToolCalls))
		}
		all = append(all, m.Role.String()+"["+strings.Join(open, " ")+"]")
		open = nil
	}
	for i := range v.Segments {
		s := &v.Segments[i]
		text := s.Kind.String() + ":" + segmentText(t, v, s)
		if s.Message != message {
			flush()
			message = s.Message
		}
		if message == dialect.NoMessage {
			all = append(all, text)
			continue
		}
		if m := v.Messages[message]; i < m.First || i >= m.End {
			t.Errorf("segment %d is not within its message", i)
		}
		open = append(open, text)
	}
	flush()
	if v.MediaLimits {
		all = append(all, "limits")
	}
	if v.TokenIDs > 0 {
		all = append(all, "ids:"+strconv.FormatInt(v.TokenIDs, 10))
	}
	return strings.Join(all, " ")
}

func segmentText(t *testing.T, v *dialect.View, s *dialect.Segment) string {
	t.Helper()
	if s.Raw {
		return "<" + string(v.Bytes(s)) + ">"
	}
	literal := string(v.Body[s.Off:s.End()])
	if s.Escaped != strings.Contains(literal, `\`) {
		t.Errorf("segment %s: escaped is %t", literal, s.Escaped)
	}
	var want string
	if err := json.Unmarshal([]byte(literal), &want); err != nil {
		t.Error(err)
	}
	text, _ := v.Decode(s, nil)
	if string(text) != want || s.Text != len(want) {
		t.Errorf("segment %s is %q, of %d bytes", literal, text, s.Text)
	}
	return string(text)
}

func mediaText(v *dialect.View, m *dialect.Media) string {
	text := m.Kind.String() + ":"
	if m.Kind == dialect.Image {
		text += [...]string{"auto", "low", "high", "original"}[m.Detail] + ":"
	} else {
		text += [...]string{"elsewhere", "url", "data", "base64"}[m.Source] + ":"
	}
	if m.Format != nil {
		text += strings.Trim(string(m.Format), `"`) + ":"
	}
	return text + string(v.MediaBytes(m))
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
		{"max_tokens of zero", ai.KindChat, chat(`,"max_tokens":0`), ai.ReasonInvalidField, "max_tokens"},
		{"max_completion_tokens of zero", ai.KindChat, chat(`,"max_tokens":5,"max_completion_tokens":0`), ai.ReasonInvalidField, "max_completion_tokens"},
		{"max_tokens of minus zero", ai.KindChat, chat(`,"max_tokens":-0`), ai.ReasonInvalidField, "max_tokens"},
		{"max_tokens beyond all numbers", ai.KindChat, chat(`,"max_tokens":1e400`), ai.ReasonInvalidField, "max_tokens"},
		{"max_tokens beyond 64 bits", ai.KindChat, chat(`,"max_tokens":1000000000000000000`), ai.ReasonInvalidField, "max_tokens"},
		{"max_tokens of a list", ai.KindChat, chat(`,"max_tokens":[5]`), ai.ReasonInvalidField, "max_tokens"},
		{"max_tokens twice", ai.KindChat, chat(`,"max_tokens":5,"max\u005ftokens":5000`), ai.ReasonDuplicateKey, ""},
		{"min_tokens below zero", ai.KindChat, chat(`,"min_tokens":-1`), ai.ReasonInvalidField, "min_tokens"},
		{"min_tokens of a string", ai.KindChat, chat(`,"min_tokens":"9"`), ai.ReasonInvalidField, "min_tokens"},
		{"n with fraction", ai.KindChat, chat(`,"n":1.0`), ai.ReasonInvalidField, "n"},
		{"n beyond 64 bits", ai.KindChat, chat(`,"n":1e18`), ai.ReasonInvalidField, "n"},
		{"n below zero", ai.KindChat, chat(`,"n":-3`), ai.ReasonInvalidField, "n"},
		{"n of a string", ai.KindChat, chat(`,"n":"2"`), ai.ReasonInvalidField, "n"},
		{"n twice", ai.KindChat, chat(`,"n":1,"n":128`), ai.ReasonDuplicateKey, ""},
		{"N", ai.KindChat, chat(`,"N":128`), ai.ReasonInvalidField, "n"},
		{"best_of of a string", ai.KindCompletion, `{"model":"m","prompt":"x","best_of":"9"}`, ai.ReasonInvalidField, "best_of"},
		{"budget below", ai.KindChat, chat(`,"thinking_budget":-2`), ai.ReasonInvalidField, "thinking_budget"},
		{"budget near minus one", ai.KindChat, chat(`,"thinking_budget":-1.5`), ai.ReasonInvalidField, "thinking_budget"},
		{"budget of minus ten", ai.KindChat, chat(`,"thinking_token_budget":-10`), ai.ReasonInvalidField, "thinking_token_budget"},
		{"budget of a string", ai.KindChat, chat(`,"thinking":{"budget_tokens":"5"}`), ai.ReasonInvalidField, "thinking.budget_tokens"},
		{"budget with exponent", ai.KindChat, chat(`,"reasoning":{"effort":"high","max_tokens":1e3}`), ai.ReasonInvalidField, "reasoning.max_tokens"},
		{"budget beyond 64 bits", ai.KindChat, chat(`,"chat_template_kwargs":{"thinking_budget":99999999999999999999}`), ai.ReasonInvalidField, "chat_template_kwargs.thinking_budget"},
		{"budget of a list, deep", ai.KindChat, chat(`,"extra_body":{"google":{"thinking_config":{"thinking_budget":[1]}}}`), ai.ReasonInvalidField, "extra_body.google.thinking_config.thinking_budget"},
		{"Budget_Tokens", ai.KindChat, chat(`,"thinking":{"Budget_Tokens":5}`), ai.ReasonInvalidField, "thinking.budget_tokens"},
		{"Thinking", ai.KindChat, chat(`,"Thinking":{"budget_tokens":5}`), ai.ReasonInvalidField, "thinking"},
		{"ceiling in extra_body", ai.KindChat, chat(`,"max_tokens":5,"extra_body":{"max_tokens":100000}`), ai.ReasonInvalidField, "extra_body.max_tokens"},
		{"N in extra_body", ai.KindChat, chat(`,"extra_body":{"extra_body":{"N":100}}`), ai.ReasonInvalidField, "extra_body.extra_body.n"},
		{"model in extra_body", ai.KindChat, chat(`,"extra_body":{"model":"other"}`), ai.ReasonInvalidField, "extra_body.model"},
		{"budget twice", ai.KindChat, chat(`,"thinking":{"budget_tokens":5,"budget_tokens":6}`), ai.ReasonDuplicateKey, ""},
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

func TestThinkingBudget(t *testing.T) {
	t.Parallel()
	for more, want := range map[string]int64{
		``:                               0,
		`,"thinking":{"type":"enabled"}`: 0,
		`,"thinking":true`:               0,
		`,"thinking":{"type":"enabled","budget_tokens":4096}`:                                4096,
		`,"thinking":{"type":"disabled","budget_tokens":9}`:                                  9,
		`,"thinking_budget":500`:                                                             500,
		`,"thinking_budget":null`:                                                            0,
		`,"thinking_budget":-1`:                                                              0,
		`,"thinking_budget": -1 `:                                                            0,
		`,"thinking_token_budget":0`:                                                         0,
		`,"thinking_token_budget":64`:                                                        64,
		`,"thinking_budget_tokens":65`:                                                       65,
		`,"reasoning":{"effort":"low"}`:                                                      0,
		`,"reasoning":"high"`:                                                                0,
		`,"reasoning":{"max_tokens":2000,"exclude":true}`:                                    2000,
		`,"chat_template_kwargs":{"enable_thinking":true,"thinking_budget":30}`:              30,
		`,"chat_template_kwargs":{"Tools":1,"thinking_token_budget":31}`:                     31,
		`,"chat_template_kwargs":{"nested":{"thinking_budget":31}}`:                          0,
		`,"chat_template_kwargs":"x"`:                                                        0,
		`,"extra_body":{"google":{"thinking_config":{"thinking_budget":77}}}`:                77,
		`,"extra_body":{"thinking":{"budget_tokens":78},"extra_body":{"top_k":5}}`:           78,
		`,"google":{"thinking_config":{"thinking_budget":77}}`:                               0,
		`,"metadata":{"thinking_budget":"x"},"messages2":[{"thinking":{"budget_tokens":5}}]`: 0,
		`,"thinking_budget":5,"thinking":{"budget_tokens":7},"reasoning":{"max_tokens":6}`:   7,
	} {
		var r Request
		if f := Parse(ai.KindChat, []byte(`{"model":"m","messages":[]`+more+`}`), 64, &r); f != nil {
			t.Errorf("%s: %v", more, f)
		} else if r.ThinkingBudget != want {
			t.Errorf("%s: budget %d, want %d", more, r.ThinkingBudget, want)
		}
	}
}

// What a body says of the number and the length of its answers is never less than
// what some backend makes of it.
func TestAnswersOfHostileBodies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind            ai.Kind
		body            string
		answers, output int64
	}{
		{ai.KindChat, `{"model":"m","messages":[],"n":128,"max_tokens":1}`, 128, 1},
		{ai.KindChat, `{"model":"m","messages":[],"max_tokens":1,"max_completion_tokens":100000}`, 1, 100_000},
		{ai.KindChat, `{"model":"m","messages":[],"max_tokens":100000,"max_completion_tokens":1}`, 1, 100_000},
		{ai.KindChat, `{"model":"m","messages":[],"max_tokens":null,"max_completion_tokens":3}`, 1, 3},
		{ai.KindChat, `{"model":"m","messages":[],"best_of":9,"n":2}`, 9, 0},
		{ai.KindCompletion, `{"model":"m","prompt":["a","b"],"best_of":2,"n":9}`, 18, 0},
		{ai.KindCompletion, `{"model":"m","prompt":[[1,2],[3]],"best_of":null,"n":null}`, 2, 0},
		{ai.KindCompletion, `{"model":"m","prompt":"a","max_tokens":0,"echo":true}`, 1, 1},
		{ai.KindCompletion, `{"model":"m","prompt":["a","b","c"],"n":999999999999999,"best_of":999999999999999}`, 2_999_999_999_999_997, 0},
	} {
		var r Request
		if f := Parse(tt.kind, []byte(tt.body), 64, &r); f != nil {
			t.Errorf("%s: %v", tt.body, f)
		} else if r.Answers() != tt.answers || r.MaxOutput != tt.output || r.HasMaxOutput != (tt.output > 0) {
			t.Errorf("%s: %d answers of %d, want %d of %d", tt.body, r.Answers(), r.MaxOutput, tt.answers, tt.output)
		}
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
