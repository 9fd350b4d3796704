package openai

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
)

// said is what a meter knows after one value.
type said struct {
	Event    Event
	Usage    ai.Usage
	Reported bool
	Finish   string
}

// meter reads values, each cut into pieces of n bytes (whole when n is 0).
func meter(n int, values ...string) said {
	var m Meter
	for _, v := range values {
		m.Begin()
		for n > 0 && len(v) > n {
			m.Write([]byte(v[:n]))
			v = v[n:]
		}
		m.Write([]byte(v))
	}
	u, ok := m.Usage()
	return said{*m.Event(), u, ok, m.Finish()}
}

var meterCases = map[string]struct {
	values []string
	want   said
}{
	"role chunk": {
		[]string{`{"id":"1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}`},
		said{Event: Event{Choices: true, Choice: true, Complete: true}},
	},
	"content chunk": {
		[]string{`{"choices":[{"delta":{"content":"a\"b\n"},"logprobs":null}]}`},
		said{Event: Event{Content: true, TextBytes: 6, Choices: true, Choice: true, Complete: true}},
	},
	"escaped backslash ends": {
		[]string{`{"choices":[{"delta":{"content":"\\"},"finish_reason":"stop"}]}`},
		said{Event: Event{Content: true, TextBytes: 2, Choices: true, Choice: true, Finish: true, Complete: true}, Finish: "stop"},
	},
	"reasoning of vLLM": {
		[]string{`{"choices":[{"delta":{"reasoning":"mm"}}]}`},
		said{Event: Event{Content: true, TextBytes: 2, Choices: true, Choice: true, Complete: true}},
	},
	"reasoning_content": {
		[]string{`{"choices":[{"delta":{"reasoning_content":"mm","content":null}}]}`},
		said{Event: Event{Content: true, TextBytes: 2, Choices: true, Choice: true, Complete: true}},
	},
	"tool call": {
		[]string{`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]}}]}`},
		said{Event: Event{Content: true, TextBytes: 10, Choices: true, Choice: true, Complete: true}},
	},
	"completion": {
		[]string{`{"choices":[{"text":"abc","finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}`},
		said{Event: Event{Content: true, TextBytes: 3, Choices: true, Choice: true, Finish: true, Usage: true, Complete: true},
			Usage: ai.Usage{Input: 3, Output: 1}, Reported: true, Finish: "length"},
	},
	"usage event": {
		[]string{`{"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":16},"completion_tokens_details":{"reasoning_tokens":4}}}`},
		said{Event: Event{Usage: true, Choices: true, Complete: true},
			Usage: ai.Usage{Input: 4, CachedInput: 16, Output: 9, Reasoning: 4}, Reported: true},
	},
	"DeepSeek": {
		[]string{`{"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":9,"prompt_cache_hit_tokens":12,"prompt_cache_miss_tokens":8}}`},
		said{Event: Event{Usage: true, Choices: true, Complete: true}, Usage: ai.Usage{Input: 8, CachedInput: 12, Output: 9}, Reported: true},
	},
	"Moonshot": {
		[]string{`{"choices":[{"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":8,"completion_tokens":2,"cached_tokens":3}}]}`},
		said{Event: Event{Choices: true, Choice: true, Finish: true, Usage: true, Complete: true},
			Usage: ai.Usage{Input: 5, CachedInput: 3, Output: 2}, Reported: true, Finish: "stop"},
	},
	"SGLang": {
		[]string{`{"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":7,"reasoning_tokens":5}}`},
		said{Event: Event{Usage: true, Choices: true, Complete: true}, Usage: ai.Usage{Input: 8, Output: 7, Reasoning: 5}, Reported: true},
	},
	"continuous usage, the last holds": {
		[]string{
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":8,"completion_tokens":1}}`,
			`{"choices":[{"delta":{"content":"b"}}],"usage":{"prompt_tokens":8,"completion_tokens":2}}`,
		},
		said{Event: Event{Content: true, TextBytes: 1, Usage: true, Choices: true, Choice: true, Complete: true},
			Usage: ai.Usage{Input: 8, Output: 2}, Reported: true},
	},
	"usage beside choices outranks": {
		[]string{
			`{"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":2}}`,
			`{"choices":[{"usage":{"prompt_tokens":1,"completion_tokens":1}}]}`,
		},
		said{Event: Event{Usage: true, Choices: true, Choice: true, Complete: true}, Usage: ai.Usage{Input: 8, Output: 2}, Reported: true},
	},
	"embeddings": {
		[]string{`{"object":"list","data":[{"embedding":[0.1,-2e-3,{"usage":[1]}],"text":"}\"]"}],"usage":{"prompt_tokens":8,"total_tokens":8}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Input: 8}, Reported: true},
	},
	"usage elsewhere is no usage": {
		[]string{`{"metadata":{"usage":{"prompt_tokens":8}},"choices":[{"delta":{"content":"\"usage\":{\"prompt_tokens\":9}"}}]}`},
		said{Event: Event{Content: true, TextBytes: 31, Choices: true, Choice: true, Complete: true}},
	},
	"figures that are none": {
		[]string{`{"choices":[],"usage":{"prompt_tokens":-5,"completion_tokens":1.5}}`},
		said{Event: Event{Choices: true, Complete: true}},
	},
	"a figure too large": {
		[]string{`{"usage":{"prompt_tokens":99999999999999999999,"completion_tokens":1}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Output: 1}, Reported: true},
	},
	"more cached than sent": {
		[]string{`{"usage":{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":9},"reasoning_tokens":3}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{CachedInput: 5, Output: 1, Reasoning: 1}, Reported: true},
	},
	"empty usage": {[]string{`{"usage":{}}`}, said{Event: Event{Complete: true}}},
	"error":       {[]string{`{"error":{"message":"x","choices":[{}]}}`}, said{Event: Event{Error: true, Complete: true}}},
	"error text":  {[]string{`{"error":"Unauthorized"}`}, said{Event: Event{Error: true, Complete: true}}},
	"no error":    {[]string{`{"error":null,"choices":[]}`}, said{Event: Event{Choices: true, Complete: true}}},
	"reason with quotes": {
		[]string{`{"choices":[{"finish_reason":"to\"ol calls=1"}]}`},
		said{Event: Event{Choices: true, Choice: true, Finish: true, Complete: true}, Finish: "toolcalls"},
	},
	"done is no JSON": {[]string{`[DONE]`}, said{}},
	"cut":             {[]string{`{"choices":[],"usage":{"prompt_tokens":1}`}, said{Event: Event{Choices: true, Usage: true}, Usage: ai.Usage{Input: 1}, Reported: true}},
	"what follows":    {[]string{`{"choices":[]}{"usage":{"prompt_tokens":1}}`}, said{Event: Event{Choices: true, Complete: true}}},
	"spaced":          {[]string{" { \"usage\" :\t{ \"prompt_tokens\" : 7 ,\r\n\"completion_tokens\":1 } } "}, said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Input: 7, Output: 1}, Reported: true}},
}

func TestMeter(t *testing.T) {
	for name, tc := range meterCases {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{0, 1, 2, 3, 7} {
				if diff := cmp.Diff(tc.want, meter(n, tc.values...)); diff != "" {
					t.Errorf("in pieces of %d bytes (-want +got):\n%s", n, diff)
				}
			}
		})
	}
}

func TestUsageOnly(t *testing.T) {
	for value, want := range map[string]bool{
		`{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}`:                             true,
		`{"choices":[{"delta":{}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`:                 false,
		`{"choices":[],"usage":null}`:                                                                  false,
		`{"usage":{"prompt_tokens":1,"completion_tokens":1}}`:                                          false,
		`{"choices":[],"error":{"message":"m"},"usage":{"prompt_tokens":1}}`:                           false,
		`{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}`:                              false,
		`{"choices":[],"prompt_filter_results":[{"content_filter_results":{}}]}`:                       false,
		`{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1},"service_tier":"default"}`:    true,
		`{"usage":{"prompt_tokens":1,"completion_tokens":1},"choices":[]}`:                             true,
		`{"id":"x","choices":[],"x":[[{"choices":[1]}]],"usage":{"prompt_tokens":0,"total_tokens":0}}`: true,
	} {
		var m Meter
		m.Begin()
		m.Write([]byte(value))
		if got := m.Event().UsageOnly(); got != want {
			t.Errorf("%s: usage only is %v, want %v", value, got, want)
		}
	}
}

// Any split of the bytes says what no split says, whatever was read before, and
// nothing panics. Read byte by byte, the meter remembers nothing.
func FuzzMeter(f *testing.F) {
	for _, tc := range meterCases {
		f.Add(tc.values[0], tc.values[len(tc.values)-1], 3)
		f.Add(tc.values[0], meterCases["content chunk"].values[0], 40)
		f.Add(tc.values[0], strings.Replace(tc.values[0], ":", " : ", 2), 60)
	}
	f.Add(strings.Repeat(`{"choices":[`, 40), `{"choices":[{"text":"`, 1)
	f.Fuzz(func(t *testing.T, a, b string, n int) {
		values := []string{a, b, a, a, b, b}
		for i := range values {
			want := meter(1, values[:i+1]...)
			for _, n := range []int{0, max(1, n%128)} {
				if diff := cmp.Diff(want, meter(n, values[:i+1]...)); diff != "" {
					t.Fatalf("value %d in pieces of %d (-bytes +pieces):\n%s", i, n, diff)
				}
			}
			u := want.Usage
			if u.Input < 0 || u.CachedInput < 0 || u.Output < 0 || u.Reasoning < 0 || u.Reasoning > u.Output {
				t.Fatalf("usage %+v", u)
			}
		}
	})
}

func BenchmarkMeterChunk(b *testing.B) {
	chunk := []byte(`{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"deepseek-ai/DeepSeek-V3","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null}`)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	var m Meter
	for b.Loop() {
		m.Begin()
		m.Write(chunk)
	}
}
