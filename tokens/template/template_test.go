package template_test

import (
	"strings"
	"testing"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/tokens/template"
)

// TestExact says of single requests whether their rendering is exact: a vLLM's, where
// nothing else is said.
func TestExact(t *testing.T) {
	const hello = `"messages":[{"role":"user","content":"hello"}]`
	const called = `"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[` +
		`{"id":"abcdefgh1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"abcdefgh1","content":"b"}]`
	const tool = `"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}]`
	for _, c := range []struct {
		name, family, body string
		want               bool
	}{
		{"plain", "qwen3", hello, true},
		{"no messages", "qwen3", `"messages":[]`, false},
		{"sampling", "qwen3", hello + `,"temperature":0.1,"top_p":1,"max_tokens":5,"stop":["x"],"seed":1,"user":"u","stream":true,"stream_options":{"include_usage":true}`, true},
		{"unknown field", "qwen3", hello + `,"shiny":true`, false},
		{"unknown field, null", "qwen3", hello + `,"shiny":null`, true},
		{"name in escapes", "qwen3", hello + `,"t\u0065mperature":1`, false},
		{"own template", "qwen3", hello + `,"chat_template":"{{ messages }}"`, false},
		{"no thinking", "qwen3", hello + `,"chat_template_kwargs":{"enable_thinking":false}`, true},
		{"unknown variable", "qwen3", hello + `,"chat_template_kwargs":{"shout":true}`, false},
		{"thinking of another type", "qwen3", hello + `,"chat_template_kwargs":{"enable_thinking":"no"}`, false},
		{"no reply", "qwen3", hello + `,"add_generation_prompt":false`, false},
		{"reply", "qwen3", hello + `,"add_generation_prompt":true,"continue_final_message":false,"add_special_tokens":false`, true},
		{"continued", "qwen3", hello + `,"continue_final_message":true`, false},
		{"documents", "qwen3", hello + `,"documents":[{"title":"a","text":"b"}]`, false},
		{"truncated", "qwen3", hello + `,"truncate_prompt_tokens":10`, false},
		{"effort none", "qwen3", hello + `,"reasoning_effort":"none"`, false},
		{"effort high", "qwen3", hello + `,"reasoning_effort":"high"`, true},
		{"effort of a thinking DeepSeek", "deepseek-v3.1", hello + `,"reasoning_effort":"high"`, false},
		{"format", "qwen3", hello + `,"response_format":{"type":"json_object"}`, true},
		{"tools", "qwen3", hello + `,` + tool, true},
		{"tools that must not be called", "qwen3", hello + `,` + tool + `,"tool_choice":"none"`, false},
		{"functions", "qwen3", hello + `,"functions":[{"name":"f"}]`, false},
		{"a tool with more fields", "qwen3", hello + `,"tools":[{"type":"function","function":{"name":"f"},"x":1}]`, false},
		{"a tool of another type", "qwen3", hello + `,"tools":[{"type":"custom","custom":{"name":"f"}}]`, false},
		{"an empty list of tools", "qwen3", hello + `,"tools":[]`, true},
		{"an empty list of tools", "llama-3.1", hello + `,"tools":[]`, false},
		{"calls", "qwen3", called, true},
		{"calls", "llama-3.1", called, true},
		{"calls", "mistral-v7", called, true},
		{"calls", "harmony", called, true},
		{"calls", "deepseek-v3", called, false},
		{"a call without an id", "qwen3", strings.Replace(called, `"id":"abcdefgh1",`, "", 1), false},
		{"a call in the old form", "qwen3", `"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}}]`, false},
		{"an id that Mistral refuses", "mistral-v3", strings.ReplaceAll(called, "abcdefgh1", "call_1"), false},
		{"an image", "qwen3", `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]`, false},
		{"a part of another type", "qwen3", `"messages":[{"role":"user","content":[{"type":"shiny","shiny":"x"}]}]`, false},
		{"a field of a message", "qwen3", `"messages":[{"role":"user","content":"a","prefix":true}]`, false},
		{"an empty field of a message", "qwen3", `"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","annotations":[]}]`, true},
		{"a content that is an object", "qwen3", `"messages":[{"role":"user","content":{"text":"a"}}]`, false},
		{"another role", "llama-3.1", `"messages":[{"role":"ipython","content":"a"}]`, false},
		{"a last message of the assistant", "mistral-v3", `"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]`, false},
		{"OpenAI", "openai", hello, true},
		{"OpenAI, tools", "openai", hello + `,` + tool, false},
		{"OpenAI, a format", "openai", hello + `,"response_format":{"type":"json_object"}`, false},
		{"OpenAI, text", "openai", hello + `,"response_format":{"type":"text"}`, true},
		{"OpenAI, a format that mentions text", "openai", hello + `,"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"type":"object","properties":{"text":{"type":"string"}}}}}`, false},
		{"OpenAI, text beside other fields", "openai", hello + `,"response_format":{"x":1,"type":"text"}`, true},
		{"OpenAI, a format without a type", "openai", hello + `,"response_format":{"text":"text"}`, false},
		{"a field of a message, a digit", "qwen3", `"messages":[{"role":"user","content":"a","prefix":1}]`, false},
		{"a field of a message, two digits", "qwen3", `"messages":[{"role":"user","content":"a","prefix":42}]`, false},
		{"an empty object in a message", "qwen3", `"messages":[{"role":"user","content":"a","extra":{}}]`, true},
		{"generic", "generic", hello, false},
	} {
		if _, exact := render(t, c.family, `{"model":"m",`+c.body+`}`); exact != c.want {
			t.Errorf("%s, %s: exact is %v", c.family, c.name, exact)
		}
	}
}

// TestBackends says what only one backend renders so.
func TestBackends(t *testing.T) {
	const parts = `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}`
	const one = `{"messages":[{"role":"user","content":"a"}]}`
	const formatted = `{"messages":[{"role":"user","content":"a"}],"response_format":{"type":"json_object"}}`
	tmpl, _ := template.ByName("qwen3")
	for _, c := range []struct {
		body    string
		backend template.Backend
		user    string
		exact   bool
	}{
		{parts, template.VLLM, "a\nb", true},
		{parts, template.SGLang, "a b", true},
		{parts, template.Hosted, "a\nb", false},
		{one, template.Hosted, "a", true},
		{formatted, template.Hosted, "a", false},
		{formatted, template.VLLM, "a", true},
	} {
		v := parse(t, strings.Replace(c.body, "{", `{"model":"m",`, 1))
		w := &recorder{v: v}
		exact := tmpl.Render(v, w, template.Options{Backend: c.backend})
		want := "<|im_start|>user\n" + c.user + "<|im_end|>\n<|im_start|>assistant\n"
		if got := w.text.String(); got != want || exact != c.exact {
			t.Errorf("backend %d: got %q exact %v, want %q exact %v", c.backend, got, exact, want, c.exact)
		}
	}
}

// TestMedia: every template hands on every medium, once.
func TestMedia(t *testing.T) {
	const image = `{"type":"image_url","image_url":{"url":"x"}}`
	for _, name := range template.Names() {
		w, _ := render(t, name, `{"model":"m","messages":[{"role":"user","content":[`+image+`,{"type":"text","text":"a"},`+image+`]},{"role":"user","content":[`+image+`]}]}`)
		if w.media != 3 || !strings.Contains(w.text.String(), "a") {
			t.Errorf("%s: %d media, text %q", name, w.media, w.text.String())
		}
	}
}

// TestDates: templates that print the date are exact where the clock is known.
func TestDates(t *testing.T) {
	for _, family := range []string{"llama-3.2", "harmony"} {
		tmpl, _ := template.ByName(family)
		v := parse(t, `{"model":"m","messages":[{"role":"user","content":"a"}]}`)
		if tmpl.Render(v, &recorder{v: v}, template.Options{Backend: template.VLLM}) {
			t.Errorf("%s is exact without a clock", family)
		}
		if !tmpl.Render(v, &recorder{v: v}, template.Options{Backend: template.VLLM, Now: day}) {
			t.Errorf("%s is not exact with a clock", family)
		}
	}
}

func TestForModel(t *testing.T) {
	for model, want := range map[string]string{
		"gpt-4o": "openai", "gpt-4.1-mini": "openai", "gpt-3.5-turbo": "openai", "openai/gpt-4o-mini-2024-07-18": "openai", "chatgpt-4o-latest": "openai",
		"gpt-5": "openai-gpt-5", "gpt-5.4": "openai-gpt-5", "o3-mini": "openai-reasoning",
		"openai/gpt-oss-120b": "harmony", "gpt-oss:20b": "harmony",
		"Qwen/Qwen3-8B": "qwen3", "qwen3-32b": "qwen3", "Qwen3-30B-A3B-Instruct-2507": "qwen3-instruct", "Qwen/Qwen3-4B-Thinking-2507": "qwen3-thinking",
		"Qwen/Qwen3.5-4B": "generic", "Qwen/Qwen2.5-7B-Instruct": "qwen2.5", "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2.5-vl", "Qwen/Qwen3-Coder-480B-A35B-Instruct": "qwen3-instruct",
		"deepseek-chat": "deepseek-v3", "deepseek-ai/DeepSeek-V3": "deepseek-v3", "deepseek-ai/DeepSeek-V3-0324": "deepseek-v3", "deepseek-ai/DeepSeek-V3.1": "deepseek-v3.1",
		"deepseek-ai/DeepSeek-V3.2": "generic", "deepseek-ai/DeepSeek-R1": "deepseek-r1", "deepseek-reasoner": "deepseek-r1", "DeepSeek-R1-Distill-Qwen-32B": "deepseek-r1", "deepseek-v4-flash": "generic",
		"meta-llama/Llama-3.1-8B-Instruct": "llama-3.1", "meta-llama/Llama-3.3-70B-Instruct": "llama-3.1", "llama3.1:8b": "llama-3.1", "llama-3.3-70b-versatile": "llama-3.1",
		"meta-llama/Llama-3.2-3B-Instruct": "llama-3.2", "meta-llama/Meta-Llama-3-8B-Instruct": "llama-3", "llama3-8b-8192": "llama-3", "meta-llama/Llama-4-Scout-17B": "generic",
		"mistralai/Mistral-Nemo-Instruct-2407": "mistral-v3", "mistralai/Mistral-7B-Instruct-v0.3": "mistral-v3", "mistral-large-2411": "mistral-v7", "mistralai/Mistral-Small-24B-Instruct-2501": "mistral-v7", "mistralai/Mistral-Small-3.2-24B-Instruct-2506": "mistral-v13", "mistral-large-latest": "mistral-v13",
		"moonshotai/Kimi-K2-Instruct": "generic", "zai-org/GLM-4.6": "generic", "": "generic", "nobody-knows": "generic",
	} {
		if got := template.ForModel(model).Name(); got != want {
			t.Errorf("%s: %s, want %s", model, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, name := range template.Names() {
		if tmpl, ok := template.ByName(name); !ok || tmpl.Name() != name {
			t.Errorf("%s is not found by its name", name)
		}
	}
	if _, ok := template.ByName("nothing"); ok {
		t.Error("a template by no name")
	}
}

// TestGenericBound: the bound of the generic template is above those of all others.
func TestGenericBound(t *testing.T) {
	generic, _ := template.ByName("generic")
	g := generic.Bound()
	for _, name := range template.Names() {
		tmpl, _ := template.ByName(name)
		b := tmpl.Bound()
		if b.Request > g.Request || b.Tools > g.Tools || b.Message > g.Message || b.Tool > g.Tool || b.Call > g.Call || b.Raw > g.Raw || b.Arguments > g.Arguments ||
			b.Indent > g.Indent || b.Callee > g.Callee {
			t.Errorf("%s: %+v is above %+v", name, b, g)
		}
	}
}

func TestTrim(t *testing.T) {
	for in, want := range map[string]string{
		"": "", " a ": "a", "\u00a0\u2003\u3000a b\u2029\x1c": "a b", "\u0085a\u001f": "a", " \n\t\v\f\r": "", "\u200ba": "\u200ba", "\ufeffa": "\ufeffa",
	} {
		if got := string(template.Trim([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// nothing is a Writer that keeps nothing.
type nothing struct{ n int }

func (w *nothing) Special(string)                     { w.n++ }
func (w *nothing) Literal(s string)                   { w.n += len(s) }
func (w *nothing) Segment(s *dialect.Segment, _ bool) { w.n += s.Text }
func (w *nothing) Bytes(b []byte)                     { w.n += len(b) }
func (w *nothing) Media(*dialect.Media)               { w.n++ }

const ordinary = `{"model":"m","messages":[{"role":"system","content":"Be \"brief\".\n"},{"role":"user","content":[{"type":"text","text":"one"},{"type":"text","text":"two \u00e9"}]},` +
	`{"role":"assistant","content":"<think>\nhm\n<\/think>\n\nyes"},{"role":"user","content":"again? "}],"temperature":0.5,"max_tokens":100}`

func TestNoAllocation(t *testing.T) {
	v := parse(t, ordinary)
	w := new(nothing)
	for _, name := range template.Names() {
		tmpl, _ := template.ByName(name)
		if n := testing.AllocsPerRun(100, func() { tmpl.Render(v, w, template.Options{Now: day}) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkRender(b *testing.B) {
	v := parse(b, ordinary)
	w := new(nothing)
	for _, name := range []string{"openai", "qwen3", "llama-3.1", "mistral-v3", "harmony"} {
		tmpl, _ := template.ByName(name)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tmpl.Render(v, w, template.Options{Now: day})
			}
		})
	}
}
