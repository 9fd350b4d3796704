package template_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/tokens/template"
)

// joined is n pieces with commas between them.
func joined(n int, piece func(i int) string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(piece(i))
	}
	return b.String()
}

// offered is a chat with tools.
func offered(tools string) string {
	return `{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[` + tools + `]}`
}

func toolWith(parameters string) string {
	return `{"type":"function","function":{"name":"f","description":"d","parameters":` + parameters + `}}`
}

// nestedLists are n lists of numbers, each in 54 others.
func nestedLists(n int) string {
	return joined(n, func(int) string {
		return strings.Repeat("[", 55) + joined(400, func(int) string { return "1" }) + strings.Repeat("]", 55)
	})
}

// nestedSchema is an object of n properties in as many others as a body may have.
func nestedSchema(n int) string {
	const levels = 25
	return strings.Repeat(`{"type":"object","properties":{"a":`, levels) +
		`{"type":"object","properties":{` + joined(n, func(i int) string { return fmt.Sprintf(`"%x":{}`, i) }) + `}}` + strings.Repeat("}}", levels)
}

// amplified are chats that are rendered at many times their size.
var amplified = map[string]string{
	"nested lists":   offered(toolWith(`{"a":[` + nestedLists(1200) + `]}`)),
	"nested schemas": offered(joined(30, func(int) string { return toolWith(nestedSchema(4500)) })),
	"a long name": `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"` + strings.Repeat("f", 1<<19) + `","arguments":"{}"}}]},` +
		joined(1000, func(int) string { return `{"role":"tool","tool_call_id":"a","content":"x"}` }) + `]}`,
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestAmplified: a rendering is at most MaxRendered longer than the body, with what the template
// adds, takes a few times as much memory, and is not exact when it was cut.
func TestAmplified(t *testing.T) {
	for name, body := range amplified {
		v := parse(t, body)
		cut := false
		for _, family := range template.Names() {
			tmpl, _ := template.ByName(family)
			w := new(nothing)
			exact := true
			memory := allocated(func() { exact = tmpl.Render(v, w, template.Options{Backend: template.VLLM, Now: day}) })
			if limit := len(body) + template.MaxRendered + 1<<17; w.n > limit {
				t.Errorf("%s, %s: %d bytes become %d", family, name, len(body), w.n)
			}
			if memory > 8*template.MaxRendered {
				t.Errorf("%s, %s: %d bytes are allocated", family, name, memory)
			}
			cut = cut || !exact
		}
		if !cut {
			t.Errorf("%s: nothing was cut", name)
		}
	}
}

// TestCut: what was cut is not exact, and the next rendering is as if nothing had been.
func TestCut(t *testing.T) {
	const ordinary = `{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}]}`
	want, exact := render(t, "llama-3.1", ordinary)
	if !exact {
		t.Fatal("an ordinary chat is not exact")
	}
	if _, exact := render(t, "llama-3.1", amplified["nested lists"]); exact {
		t.Error("what was cut is exact")
	}
	got, exact := render(t, "llama-3.1", ordinary)
	if !exact || got.text.String() != want.text.String() {
		t.Errorf("after that: exact %v, %q", exact, got.text.String())
	}
}

// TestCutArguments: arguments for which there is no room stand as they do in the body.
func TestCutArguments(t *testing.T) {
	call := func(arguments string) string {
		return `{"role":"assistant","tool_calls":[{"id":"abcdefghi","type":"function","function":{"name":"f","arguments":"` + arguments + `"}}]}`
	}
	long := `[` + joined(template.MaxRendered/3+1, func(int) string { return "1" }) + `]`
	for _, family := range []string{"qwen3", "mistral-v3", "llama-3.1", "deepseek-v3.1"} {
		w, exact := render(t, family, `{"model":"m","messages":[`+call(long)+`,`+call(`{\"b\":2}`)+`,{"role":"user","content":"c"}]}`)
		got := w.text.String()
		if exact || !strings.Contains(got, long) || !strings.Contains(got, `"b`) || strings.Contains(got, `"b": 2`) {
			t.Errorf("%s: exact %v, %d bytes", family, exact, len(got))
		}
	}
}

// TestCallees: a result is shown with the function of the last call by its id, however the id is
// written.
func TestCallees(t *testing.T) {
	call := func(id, name string) string {
		return `{"role":"assistant","tool_calls":[{"id":` + id + `,"type":"function","function":{"name":"` + name + `","arguments":"{}"}},` +
			`{"id":"other","type":"function","function":{"name":"` + name + `2","arguments":"{}"}}]}`
	}
	result := func(id string) string { return `{"role":"tool","tool_call_id":` + id + `,"content":"x"}` }
	body := `{"model":"m","messages":[{"role":"user","content":"a"},` + strings.Join([]string{
		result(`"late"`), call(`"aa"`, "first"), call(`"a"`, "short"), call(`"\u0061a"`, "second"), call(`17`, "number"), call(`"late"`, "late"),
		result(`"aa"`), result(`"a\u0061"`), result(`"a"`), result(`"aaa"`), result(`""`), result(`17`), result(`"other"`), `{"role":"tool","content":"x"}`,
	}, ",") + `]}`
	for family, format := range map[string]string{"harmony": "functions.%s to=assistant", "openai": "<|im_start|>functions.%s<|im_sep|>"} {
		w, _ := render(t, family, body)
		got := w.text.String()
		for name, n := range map[string]int{"late": 1, "first": 0, "second": 2, "short": 1, "number": 1, "late2": 1, "": 3} {
			if found := strings.Count(got, fmt.Sprintf(format, name)); found != n {
				t.Errorf("%s: %d results of %q, want %d in %s", family, found, name, n, got)
			}
		}
	}
}

// segments counts the segments that are written and those that are written again.
type segments struct {
	nothing
	seen  map[*dialect.Segment]bool
	again int
}

func (w *segments) Segment(s *dialect.Segment, trim bool) {
	w.nothing.Segment(s, trim)
	if w.seen[s] {
		w.again++
	}
	w.seen[s] = true
}

// TestRepeated: nothing but the names of functions that were called is written more often than it
// stands in the body, and those as the segments they are.
func TestRepeated(t *testing.T) {
	const results = 50
	body := `{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"c","reasoning":"r",` +
		`"tool_calls":[{"id":"abcdefghi","type":"function","function":{"name":"f","arguments":"{}"}}]},` +
		joined(results, func(int) string { return `{"role":"tool","tool_call_id":"abcdefghi","content":"x"}` }) + `,{"role":"user","content":"v"}]}`
	v := parse(t, body)
	for _, name := range template.Names() {
		tmpl, _ := template.ByName(name)
		w := &segments{seen: map[*dialect.Segment]bool{}}
		tmpl.Render(v, w, template.Options{Backend: template.VLLM, Now: day})
		want := 0
		if bound := tmpl.Bound(); bound.Callee > 0 && name != "generic" {
			want = results
		}
		if w.again != want {
			t.Errorf("%s: %d segments are written again, want %d", name, w.again, want)
		}
	}
}

// TestNoAllocationForTools: memory is used again also for calls, results and tools.
func TestNoAllocationForTools(t *testing.T) {
	body := `{"model":"m","messages":[{"role":"user","content":"u"},{"role":"assistant","tool_calls":[` +
		joined(20, func(i int) string {
			return fmt.Sprintf(`{"id":"\u0061bcdefg%02d","type":"function","function":{"name":"f%d","arguments":"{\"a\":[1,2.50]}"}}`, i, i)
		}) + `]},` + joined(20, func(i int) string {
		return fmt.Sprintf(`{"role":"tool","tool_call_id":"abcdefg%02d","content":"x"}`, i)
	}) +
		`],"tools":[` + toolWith(nestedSchema(100)) + `]}`
	v := parse(t, body)
	for _, name := range []string{"openai", "harmony"} {
		tmpl, _ := template.ByName(name)
		w := new(nothing)
		if n := testing.AllocsPerRun(100, func() { tmpl.Render(v, w, template.Options{Now: day}) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
