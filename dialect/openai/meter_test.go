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
		said{Event: Event{Complete: true}},
	},
	"an output too large": {
		[]string{`{"usage":{"prompt_tokens":4,"completion_tokens":1e400}}`},
		said{Event: Event{Complete: true}},
	},
	"a broken figure does not undo the one before": {
		[]string{`{"usage":{"prompt_tokens":4,"completion_tokens":2}}`, `{"usage":{"prompt_tokens":4,"completion_tokens":-2}}`},
		said{Event: Event{Complete: true}, Usage: ai.Usage{Input: 4, Output: 2}, Reported: true},
	},
	"output without input": {
		[]string{`{"usage":{"completion_tokens":7,"prompt_tokens":null}}`},
		said{Event: Event{Complete: true}},
	},
	"a part that is none": {
		[]string{`{"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":-3,"audio_tokens":1.5}}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Input: 9, Output: 2}, Reported: true},
	},
	"OpenAI's sound": {
		[]string{`{"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":20,"audio_tokens":30,"text_tokens":70},"completion_tokens_details":{"reasoning_tokens":5,"audio_tokens":40,"accepted_prediction_tokens":1,"rejected_prediction_tokens":2}}}`},
		said{Event: Event{Usage: true, Complete: true}, Reported: true,
			Usage: ai.Usage{Input: 50, CachedInput: 20, AudioInput: 30, Output: 50, Reasoning: 5, AudioOutput: 40}},
	},
	"OpenRouter": {
		[]string{`{"choices":[],"usage":{"completion_tokens":8,"completion_tokens_details":{"reasoning_tokens":2,"image_tokens":3},"cost":0.95,"cost_details":{"upstream_inference_cost":19},"prompt_tokens":194,"prompt_tokens_details":{"cached_tokens":10,"cache_write_tokens":100,"audio_tokens":0,"video_tokens":0},"total_tokens":202}}`},
		said{Event: Event{Usage: true, Choices: true, Complete: true}, Reported: true,
			Usage: ai.Usage{Input: 84, CachedInput: 10, CacheWrite: 100, Output: 8, Reasoning: 2, ImageOutput: 3}},
	},
	"DashScope's caches": {
		[]string{`{"usage":{"prompt_tokens":1500,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":200,"cache_creation_input_tokens":1100,"cache_creation":{"ephemeral_5m_input_tokens":1100},"cache_type":"ephemeral"}}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Input: 200, CachedInput: 200, CacheWrite: 1100, Output: 9}, Reported: true},
	},
	"DashScope's pictures": {
		[]string{`{"usage":{"prompt_tokens":1000,"completion_tokens":9,"prompt_tokens_details":{"text_tokens":100,"image_tokens":600,"video_tokens":200,"audio_tokens":100},"completion_tokens_details":{"text_tokens":9}}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Input: 100, AudioInput: 100, ImageInput: 800, Output: 9}, Reported: true},
	},
	"vLLM's modalities": {
		[]string{`{"usage":{"prompt_tokens":1000,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":16,"created_cache_tokens":64,"multimodal_tokens":{"image":600,"video":50,"audio":7,"smell":1}}}}`},
		said{Event: Event{Usage: true, Complete: true}, Reported: true,
			Usage: ai.Usage{Input: 263, CachedInput: 16, CacheWrite: 64, AudioInput: 7, ImageInput: 650, Output: 9}},
	},
	"a gateway before Anthropic's API": {
		[]string{`{"usage":{"prompt_tokens":30,"completion_tokens":2,"total_tokens":32,"prompt_tokens_details":{"cached_tokens":9},"cache_creation_input_tokens":15,"cache_read_input_tokens":9}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Input: 6, CachedInput: 9, CacheWrite: 15, Output: 2}, Reported: true},
	},
	"xAI's reasoning is beside the completion": {
		[]string{`{"usage":{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,"completion_tokens_details":{"reasoning_tokens":94}}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Input: 32, Output: 103, Reasoning: 94}, Reported: true},
	},
	"Gemini's thoughts show in the total alone": {
		[]string{`{"usage":{"total_tokens":81,"prompt_tokens":21,"completion_tokens":0}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Input: 21, Output: 60}, Reported: true},
	},
	"a total that is less": {
		[]string{`{"usage":{"total_tokens":5,"prompt_tokens":21,"completion_tokens":4}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Input: 21, Output: 4}, Reported: true},
	},
	"parts that overlap": {
		[]string{`{"usage":{"prompt_tokens":100,"completion_tokens":10,"prompt_tokens_details":{"cached_tokens":64,"audio_tokens":80,"cache_write_tokens":90},"completion_tokens_details":{"reasoning_tokens":9,"audio_tokens":8}}}`},
		said{Event: Event{Usage: true, Complete: true}, Reported: true,
			Usage: ai.Usage{AudioInput: 80, CacheWrite: 20, Output: 10, Reasoning: 2, AudioOutput: 8}},
	},
	"parts beyond all bounds": {
		[]string{`{"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"image_tokens":9000000000000000000,"video_tokens":9000000000000000000},"completion_tokens_details":{"image_tokens":9000000000000000000}}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{ImageInput: 3, Output: 2, ImageOutput: 2}, Reported: true},
	},
	"details of another shape": {
		[]string{`{"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":[{"cached_tokens":3}],"completion_tokens_details":null}}`},
		said{Event: Event{Usage: true, Complete: true}, Usage: ai.Usage{Input: 3, Output: 2}, Reported: true},
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
			// A second Clamp changes nothing: no figure is negative, no part too large.
			if u != u.Clamp(1<<63-1) {
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
