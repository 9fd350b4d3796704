package template_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/weirproxy/weir/tokens/template"
)

// TestBoundHolds: whatever is rendered, and however often, the bound of lengths is not
// below it, for any backend; nor is that of the generic template.
func TestBoundHolds(t *testing.T) {
	const chats = 400
	generic, _ := template.ByName("generic")
	most := generic.Bound()
	rng := rand.New(rand.NewPCG(3, 4))
	for range chats {
		var b strings.Builder
		encode(&b, rng, hostileChat(rng))
		v := parse(t, b.String())
		for _, name := range template.Names() {
			tmpl, _ := template.ByName(name)
			for _, backend := range []template.Backend{template.Hosted, template.VLLM, template.SGLang} {
				w := &recorder{v: v}
				tmpl.Render(v, w, template.Options{Backend: backend, Now: day})
				bound := tmpl.Bound()
				if limit := min(bound.Of(v), most.Of(v)); w.ceiling > limit {
					t.Fatalf("%s, backend %d: %d bytes and special tokens are above the bound of %d: %s", name, backend, w.ceiling, limit, b.String())
				}
			}
		}
	}
}

// TestBoundOfExtremes: the bound holds for what is shortest in the body and longest when it is
// rendered, many times over.
func TestBoundOfExtremes(t *testing.T) {
	tool := func(parameters string) string {
		return `"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f","parameters":` + parameters + `}}]`
	}
	nest := func(open, inner, end string, levels int) string {
		return strings.Repeat(open, levels) + inner + strings.Repeat(end, levels)
	}
	many := func(n int, s string) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }
	members := func(value string) string {
		var all []string
		for i := range 400 {
			all = append(all, fmt.Sprintf(`"%x":%s`, i, value))
		}
		return strings.Join(all, ",")
	}
	for _, c := range []struct{ name, body string }{
		{"results of nothing", `"messages":[` + many(400, `{"role":"tool"}`) + `]`},
		{"turns of nothing", `"messages":[` + many(400, `{"role":"tool"},{"role":"user"},{"role":"assistant"},{"role":"system"}`) + `]`},
		{"calls of nothing", `"messages":[` + many(200, `{"role":"assistant","tool_calls":[{},{"id":"1","function":{"name":"","arguments":""}},{"function":{"arguments":""}}]}`) + `]`},
		{"tools of nothing", `"messages":[{"role":"user"}],"tools":[` + many(200, `{"function":{"name":""}}`) + `]`},
		{"numbers", tool(`[` + many(2000, "1e15") + `]`)},
		{"commas", tool(`[` + many(2000, "1") + `]`)},
		{"a list in lists", tool(nest("[", many(400, "1"), "]", 50))},
		{"an object in objects", tool(nest(`{"":`, "{"+members("0")+"}", "}", 50))},
		{"properties in properties", tool(nest(`{"type":"object","properties":{"":`, `{"type":"object","properties":{`+members("{}")+`}}`, "}}", 26))},
		{"comments in properties", tool(nest(`{"type":"object","properties":{"":`, `{"type":"object","properties":{`+members(`{"title":"","description":"","examples":[""]}`)+`}}`, "}}", 26))},
		{"alternatives of alternatives", tool(`{"type":"object","properties":{"":` + nest(`{"oneOf":[`, many(400, "{}"), "]}", 26) + `}}`)},
		{"answers in the form of arguments", `"messages":[{"role":"user","content":"a"},{"role":"tool","content":"[` + many(2000, "1e15") + `]"}]`},
	} {
		for _, name := range template.Names() {
			render(t, name, `{"model":"m",`+c.body+`}`)
		}
	}
}

// TestBoundOfOrdinary: names that results are shown with add their length, no more.
func TestBoundOfOrdinary(t *testing.T) {
	chat := func(name string) string {
		return `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"` + name + `","arguments":"{}"}}]},` +
			`{"role":"tool","tool_call_id":"a","content":"x"},{"role":"function","name":"f","content":"x"}]}`
	}
	for _, family := range []struct {
		name   string
		copies int64
	}{{"qwen3", 1}, {"llama-3.1", 1}, {"mistral-v3", 1}, {"deepseek-v3.1", 1}, {"openai", 3}, {"harmony", 3}, {"generic", 3}} {
		tmpl, _ := template.ByName(family.name)
		bound := tmpl.Bound()
		if got := bound.Of(parse(t, chat("lookup"))) - bound.Of(parse(t, chat("f"))); got != 5*family.copies {
			t.Errorf("%s: five bytes more of a name add %d", family.name, got)
		}
	}
}

// hostileChat is a chat with anything anywhere: long names, many results for a call,
// fields that are missing, schemas that are nested deep.
func hostileChat(rng *rand.Rand) ordered {
	var messages, tools []any
	roles := []string{"system", "developer", "user", "assistant", "tool", "function", "nobody"}
	role := pick(rng, roles)
	for range rng.IntN(30) {
		if rng.IntN(3) == 0 { // else in a row
			role = pick(rng, roles)
		}
		m := ordered{"role", role}
		switch rng.IntN(4) {
		case 0:
			m = append(m, "content", nil)
		case 1:
			m = append(m, "content", []any{pick(rng, words), json.Number("1e15"), ordered{"type", "text", "text", pick(rng, words)}, ordered{"type", "text"}})
		case 2:
			m = append(m, "content", pick(rng, words))
		}
		m = append(m, optional(rng, "name", pick(rng, words))...)
		m = append(m, optional(rng, "reasoning_content", pick(rng, words))...)
		m = append(m, optional(rng, "prefix", json.Number("1"))...)
		if role == "assistant" || rng.IntN(8) == 0 {
			m = append(m, hostileCalls(rng)...)
		}
		if rng.IntN(4) > 0 {
			m = append(m, "tool_call_id", callID(rng.IntN(3)))
		}
		messages = append(messages, m)
	}
	request := ordered{"model", "m", "messages", messages}
	for range rng.IntN(3) {
		tools = append(tools, hostileTool(rng))
	}
	request = append(request, optional(rng, "tools", tools)...)
	request = append(request, optional(rng, "functions", tools)...)
	request = append(request, optional(rng, "tool_choice", ordered{"type", "function", "function", ordered{"name", longName(rng)}})...)
	return append(request, optional(rng, "response_format", ordered{"type", "json_schema", "json_schema", ordered{"schema", deep(rng, 30)}})...)
}

// optional is a field, or none.
func optional(rng *rand.Rand, name string, value any) ordered {
	if rng.IntN(2) == 0 {
		return nil
	}
	return ordered{name, value}
}

func longName(rng *rand.Rand) string {
	return strings.Repeat(pick(rng, []string{"f", "get_weather", "é", "\n", "\""}), rng.IntN(3)*rng.IntN(1000))
}

func hostileCalls(rng *rand.Rand) ordered {
	var list []any
	for range rng.IntN(4) {
		function := optional(rng, "name", longName(rng))
		function = append(function, optional(rng, "arguments", pick(rng, words))...)
		c := append(optional(rng, "id", callID(rng.IntN(3))), optional(rng, "type", "function")...)
		list = append(list, append(c, "function", function))
	}
	if rng.IntN(6) == 0 {
		return ordered{"function_call", ordered{"name", longName(rng), "arguments", pick(rng, words)}}
	}
	return ordered{"tool_calls", list}
}

func hostileTool(rng *rand.Rand) any {
	switch rng.IntN(6) {
	case 0:
		return []any{json.Number("1e15"), pick(rng, words), ordered{}}
	case 1:
		return tool(rng)
	}
	f := optional(rng, "name", longName(rng))
	f = append(f, optional(rng, "description", strings.Repeat("\n", rng.IntN(40))+pick(rng, words))...)
	f = append(f, optional(rng, "strict", rng.IntN(2) == 0)...)
	f = append(f, optional(rng, "parameters", deep(rng, rng.IntN(29)))...)
	return append(optional(rng, "type", "function"), "function", f)
}

// deep is a schema of objects in objects, with many small members at the bottom.
func deep(rng *rand.Rand, depth int) any {
	if depth <= 1 {
		switch rng.IntN(3) {
		case 0:
			return ordered{"type", "array", "items", []any{json.Number("1"), []any{}, ordered{}, json.Number("1e15")}}
		case 1:
			return ordered{"type", "string", "enum", []any{"", "a", json.Number("1.50")}, "default", ""}
		}
		var small ordered
		for i := range rng.IntN(30) {
			small = append(small, fmt.Sprint(i), ordered{})
		}
		return ordered{"type", "object", "properties", small}
	}
	inner := deep(rng, depth-1)
	var s ordered
	switch rng.IntN(5) {
	case 0:
		s = ordered{"oneOf", []any{inner, ordered{}, ordered{"description", "", "default", json.Number("0")}}}
	case 1:
		s = ordered{"type", "array", "items", inner}
	default:
		s = ordered{"type", "object", "properties", ordered{"", inner, "a", ordered{"title", "", "description", "", "examples", []any{"", ""}}}}
	}
	s = append(s, optional(rng, "title", "")...)
	s = append(s, optional(rng, "description", "")...)
	s = append(s, optional(rng, "default", json.Number("0.0"))...)
	s = append(s, optional(rng, "nullable", true)...)
	s = append(s, optional(rng, "examples", []any{""})...)
	return append(s, optional(rng, "required", []any{"a"})...)
}
