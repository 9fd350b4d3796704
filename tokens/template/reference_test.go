package template_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/tokens/template"
)

// day is the backends' clock in the tests.
var day = time.Date(2026, 3, 7, 12, 0, 0, 0, time.UTC)

// families are those that the reference renders, and the percentage of the random
// chats, and of those without tools, whose rendering is exact at the least. What
// else there is: calls and tools in families that do not define them, thoughts in
// DeepSeek's answers, several parts or instructions in harmony.
var families = []struct {
	name       string
	all, plain int
}{
	{"qwen2.5", 90, 100}, {"qwen3", 90, 100}, {"llama-3", 50, 100}, {"llama-3.1", 95, 100}, {"llama-3.2", 95, 100},
	{"deepseek-v3", 35, 65}, {"deepseek-v3.1", 45, 80}, {"deepseek-r1", 30, 55},
	{"mistral-v3", 60, 70}, {"mistral-v7", 60, 70}, {"mistral-v11", 60, 70}, {"mistral-v13", 60, 70}, {"harmony", 35, 35},
}

// recorder writes what it is given into one string, and counts what a tokenizer
// could make of it at the most.
type recorder struct {
	v       *dialect.View
	text    bytes.Buffer
	ceiling int64
	media   int
}

func (w *recorder) Special(name string) {
	w.text.WriteString(name)
	w.ceiling++
}

func (w *recorder) Literal(s string) {
	w.text.WriteString(s)
	w.ceiling += int64(len(s))
}

func (w *recorder) Segment(s *dialect.Segment, trim bool) {
	b, _ := w.v.Decode(s, nil)
	if trim {
		b = template.Trim(b)
	}
	w.Bytes(b)
}

func (w *recorder) Bytes(b []byte) {
	w.text.Write(b)
	w.ceiling += int64(len(b))
}

func (w *recorder) Media(*dialect.Media) { w.media++ }

func parse(t testing.TB, body string) *dialect.View {
	t.Helper()
	var r openai.Request
	if fault := openai.Parse(ai.KindChat, []byte(body), 64, &r); fault != nil {
		t.Fatalf("%v at %d of %s", fault, fault.Offset, body)
	}
	return &r.View
}

func render(t testing.TB, family, body string) (*recorder, bool) {
	t.Helper()
	tmpl, ok := template.ByName(family)
	if !ok {
		t.Fatalf("no template %q", family)
	}
	v := parse(t, body)
	w := &recorder{v: v}
	exact := tmpl.Render(v, w, template.Options{Backend: template.VLLM, Now: day})
	bound := tmpl.Bound()
	if limit := bound.Of(v); w.ceiling > limit {
		t.Errorf("%s: %d bytes and special tokens are above the bound of %d: %s", family, w.ceiling, limit, body)
	}
	return w, exact
}

// answer is what a backend makes of a request: a text, or an error.
type answer struct{ Text, Error *string }

// reference asks scripts/reference_chat.py about all bodies, for one family.
func reference(t testing.TB, family string, bodies []string) []answer {
	t.Helper()
	for _, need := range []string{"../../.tools/chats/templates", "../../.tools/tokenizers/vocab"} {
		if _, err := os.Stat(need); err != nil {
			t.Fatalf("%s is missing: run make setup", need)
		}
	}
	var in bytes.Buffer
	for _, body := range bodies {
		fmt.Fprintf(&in, "{\"family\": %q, \"now\": %q, \"request\": %s}\n", family, day.Format(time.DateOnly), body)
	}
	cmd := exec.Command("python3", "../../scripts/reference_chat.py")
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("reference_chat.py: %v (run make setup)", err)
	}
	answers := make([]answer, 0, len(bodies))
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(bodies) {
		t.Fatalf("reference_chat.py answered %d of %d", len(answers), len(bodies))
	}
	return answers
}

// TestRandomChats holds every family against its reference: what is rendered is the
// same wherever the rendering says that it is exact, and it says so for all but the
// odd chats.
func TestRandomChats(t *testing.T) {
	const chats = 400
	for _, f := range families {
		family := f.name
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, 2))
			bodies := make([]string, chats)
			for i := range bodies {
				bodies[i] = randomChat(rng, i%2 == 0)
			}
			exacts, doubted, known, plain, plainExact := 0, 0, 0, 0, 0
			for i, want := range reference(t, family, bodies) {
				got, exact := render(t, family, bodies[i])
				if want.Text == nil {
					continue
				}
				known++
				if i%2 != 0 {
					plain++
				}
				if same := got.text.String() == *want.Text; !exact {
					if same {
						doubted++
					}
					continue
				}
				exacts++
				if i%2 != 0 {
					plainExact++
				}
				if got.text.String() != *want.Text {
					t.Errorf("%s\nrequest %s\n%s", family, bodies[i], difference(got.text.String(), *want.Text))
				}
			}
			if 100*exacts < f.all*known || 100*plainExact < f.plain*plain {
				t.Errorf("only %d of %d renderings are exact, without tools %d of %d", exacts, known, plainExact, plain)
			}
			t.Logf("%d of %d renderings are exact (of those without tools %d of %d), %d more are the same, the backend refuses %d",
				exacts, known, plainExact, plain, doubted, chats-known)
		})
	}
}

// difference shows where two texts part.
func difference(got, want string) string {
	n := 0
	for n < len(got) && n < len(want) && got[n] == want[n] {
		n++
	}
	near := func(s string) string { return s[max(n-60, 0):min(n+60, len(s))] }
	return fmt.Sprintf("   got … %q …\n  want … %q …", near(got), near(want))
}

var words = []string{
	"", " ", "\n", "hello", " hello ", "\n\nwhat is\tthis?\n", "grüße, 世界 🌍", "\u00a0\u2003padded\u3000", "a\"quoted\"\\back/slash",
	"\u0001\u001f\u007f\b\f", "</think>", "<think>\nhm\n</think>\n\nyes", "a</think>b</think>c", "<tool_response>\nx\n</tool_response>",
	"<tool_response>x", "{\"a\": 1, \"b\": [1.0, 1e5, 1e-7, -0, 1E22]}", "[1,2,3]", "42", "1.50", "true", "null", "not json", "NaN", "\"text\"",
	"<|im_end|>", "[INST]", "  trailing   ", "line one\r\nline two", "\u2028", "{}", "{\"k\":\"v\\n\\u00e9\\/\"}", " {\"x\":1} ",
}

func pick(rng *rand.Rand, from []string) string { return from[rng.IntN(len(from))] }

// randomChat is a chat request with messages in a likely order. With tools, some are
// offered and called.
func randomChat(rng *rand.Rand, tools bool) string {
	var messages []any
	add := func(fields ...any) { messages = append(messages, ordered(fields)) }
	if rng.IntN(2) == 0 {
		add("role", "system", "content", content(rng))
	}
	for range rng.IntN(4) + 1 {
		add("role", "user", "content", content(rng))
		if rng.IntN(12) == 0 {
			add("role", "system", "content", content(rng))
		}
		if rng.IntN(10) == 0 {
			add("role", "user", "name", "Ann", "content", content(rng))
		}
		if tools && rng.IntN(2) == 0 {
			n := 1
			if rng.IntN(3) == 0 {
				n = 2
			}
			messages = append(messages, assistant(rng, n))
			for i := range n {
				add("role", "tool", "tool_call_id", callID(i), "content", content(rng))
			}
			if rng.IntN(4) == 0 {
				continue
			}
		}
		messages = append(messages, assistant(rng, 0))
	}
	if rng.IntN(8) > 0 {
		add("role", "user", "content", content(rng))
	}
	request := ordered{"model", "m", "messages", messages, "temperature", json.Number("0.5")}
	if tools && rng.IntN(3) > 0 {
		offered := []any{tool(rng)}
		if rng.IntN(3) == 0 {
			offered = append(offered, tool(rng))
		}
		request = append(request, "tools", offered)
	}
	if rng.IntN(4) == 0 {
		request = append(request, "chat_template_kwargs", ordered{"enable_thinking", rng.IntN(2) == 0})
	}
	if rng.IntN(4) == 0 {
		request = append(request, "chat_template_kwargs2", nil)
	}
	var b strings.Builder
	encode(&b, rng, request)
	return b.String()
}

func callID(i int) string { return fmt.Sprintf("call_abcdefgh%d", i) }

func assistant(rng *rand.Rand, calls int) ordered {
	m := ordered{"role", "assistant"}
	switch {
	case calls == 0:
		m = append(m, "content", content(rng))
	case rng.IntN(2) == 0:
		m = append(m, "content", nil)
	case rng.IntN(2) == 0:
		m = append(m, "content", pick(rng, words))
	}
	if rng.IntN(8) == 0 {
		m = append(m, "reasoning_content", pick(rng, words))
	}
	if calls > 0 {
		var list []any
		for i := range calls {
			arguments := pick(rng, []string{"{}", "", "{\"city\":\"Paris\",\"n\":1.0}", "{ \"a\" : [ ] , \"b\":{\"c\":null}}", "\"just text\"", "oops", "[1e400]", "{\"é\":\"\\u00e9\\u4e16\\ud83c\\udf0d\"}", "123456789012345678901234567890"})
			function := ordered{"name", pick(rng, []string{"get_weather", "f", "Search-1"}), "arguments", arguments}
			if rng.IntN(3) == 0 {
				function[0], function[1], function[2], function[3] = function[2], function[3], function[0], function[1]
			}
			list = append(list, ordered{"id", callID(i), "type", "function", "function", function})
		}
		m = append(m, "tool_calls", list)
	}
	return m
}

func content(rng *rand.Rand) any {
	switch rng.IntN(6) {
	case 0:
		parts := []any{ordered{"type", "text", "text", pick(rng, words)}}
		for range rng.IntN(3) {
			parts = append(parts, ordered{"type", "text", "text", pick(rng, words)})
		}
		return parts
	default:
		s := pick(rng, words)
		for range rng.IntN(3) {
			s += pick(rng, words)
		}
		return s
	}
}

func tool(rng *rand.Rand) ordered {
	function := ordered{"name", pick(rng, []string{"get_weather", "f", "Search-1"})}
	if rng.IntN(4) > 0 {
		function = append(function, "description", pick(rng, words)+"A tool.\nOf two lines.")
	}
	if rng.IntN(4) > 0 {
		function = append(function, "parameters", schema(rng, 0))
	}
	if rng.IntN(4) == 0 {
		function = append(function, "strict", rng.IntN(2) == 0)
	}
	if rng.IntN(2) == 0 { // another order of the same fields
		function = append(append(ordered{}, function[2:]...), function[:2]...)
	}
	return ordered{"type", "function", "function", function}
}

// schema is a JSON schema of an object.
func schema(rng *rand.Rand, depth int) ordered {
	var properties ordered
	var required []any
	for i := range rng.IntN(4) {
		name := fmt.Sprintf("p%d", i)
		properties = append(properties, name, property(rng, depth))
		if rng.IntN(2) == 0 {
			required = append(required, name)
		}
	}
	s := ordered{"type", "object"}
	if rng.IntN(3) == 0 {
		s = append(s, "description", "An object.")
	}
	s = append(s, "properties", properties)
	if required != nil {
		s = append(s, "required", required)
	}
	if rng.IntN(3) == 0 {
		s = append(s, "additionalProperties", false)
	}
	return s
}

func property(rng *rand.Rand, depth int) ordered {
	var p ordered
	switch rng.IntN(9) {
	case 0:
		p = ordered{"type", "string", "enum", []any{"a", "b\"c"}}
		if rng.IntN(2) == 0 {
			p = append(p, "default", "a")
		}
	case 1:
		p = ordered{"type", "integer", "minimum", json.Number("-0"), "maximum", json.Number("1e3"), "default", json.Number("7")}
	case 2:
		p = ordered{"type", "number", "default", json.Number(pick(rng, []string{"0.5", "1.0", "12.250"}))}
	case 3:
		p = ordered{"type", "array", "items", ordered{"type", "string"}}
	case 4:
		p = ordered{"type", []any{"string", "null", "integer"}, "nullable", true}
	case 5:
		p = ordered{"oneOf", []any{
			ordered{"type", "string", "description", "first"}, ordered{"type", "number", "nullable", true, "default", json.Number("3")},
		}, "description", pick(rng, []string{"first", "another"}), "default", "x"}
	case 6:
		if depth < 2 {
			p = schema(rng, depth+1)
			break
		}
		fallthrough
	default:
		p = ordered{"type", "string", "title", "T", "examples", []any{"x", "y"}, "default", "d", "nullable", true}
	}
	if rng.IntN(2) == 0 && p[0] != "oneOf" && p[1] != "object" {
		p = append(p, "description", "What "+pick(rng, words))
	}
	return p
}

// ordered is an object: names and values in turn.
type ordered []any

// encode writes v as JSON, with white space and escapes as clients of many kinds
// write them.
func encode(b *strings.Builder, rng *rand.Rand, v any) {
	space := func() {
		if rng.IntN(4) == 0 {
			b.WriteString(pick(rng, []string{" ", "  ", "\t"}))
		}
	}
	switch v := v.(type) {
	case ordered:
		b.WriteByte('{')
		for i := 0; i < len(v); i += 2 {
			if i > 0 {
				b.WriteByte(',')
			}
			space()
			encode(b, rng, v[i])
			b.WriteByte(':')
			space()
			encode(b, rng, v[i+1])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			encode(b, rng, item)
			space()
		}
		b.WriteByte(']')
	case string:
		encodeString(b, rng, v)
	default:
		out, _ := json.Marshal(v)
		b.Write(out)
	}
}

func encodeString(b *strings.Builder, rng *rand.Rand, s string) {
	ascii := rng.IntN(2) == 0
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '/' && ascii:
			b.WriteString(`\/`)
		case c == '\n' && rng.IntN(2) == 0:
			b.WriteString(`\n`)
		case c < ' ' || ascii && c > '~' && c < 0x10000 || c == '<' && ascii:
			fmt.Fprintf(b, `\u%04x`, c)
		case ascii && c >= 0x10000:
			c -= 0x10000
			fmt.Fprintf(b, `\u%04X\u%04x`, 0xd800+c>>10, 0xdc00+c&0x3ff)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
}
