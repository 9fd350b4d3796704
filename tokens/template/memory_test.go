package template

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
)

// silence is a Writer of nothing.
type silence struct{}

func (silence) Special(string)                 {}
func (silence) Literal(string)                 {}
func (silence) Segment(*dialect.Segment, bool) {}
func (silence) Bytes([]byte)                   {}
func (silence) Media(*dialect.Media)           {}

func viewOf(t *testing.T, body string) *dialect.View {
	t.Helper()
	var r openai.Request
	if f := openai.Parse(ai.KindChat, []byte(body), 64, &r); f != nil {
		t.Fatal(f)
	}
	return &r.View
}

// TestRelease: an idle renderer holds on to nothing of the request, nor to the memory that a large
// one needed.
func TestRelease(t *testing.T) {
	var calls, results []string
	for i := range 50_000 {
		calls = append(calls, fmt.Sprintf(`{"id":"\u0061%d","function":{"name":"f","arguments":"{}"}}`, i))
		results = append(results, `{"role":"tool","tool_call_id":"a1","content":"x"}`)
	}
	long := strings.Repeat(`\n`, maxKept+1)
	body := `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"` + long + `"},{"type":"text","text":"` + long + `"}]},{"role":"assistant","tool_calls":[` + strings.Join(calls, ",") + `]},` +
		strings.Join(results, ",") + `,{"role":"tool","content":"` + long + `"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"a":"` + long + `"}}}]}`
	v := viewOf(t, body)
	for _, tmpl := range templates {
		r := new(renderer)
		r.reset(v, silence{}, Options{Backend: VLLM})
		tmpl.walk(r)
		r.release()
		if r.v != nil || r.w != nil || r.out.src != nil || r.set.effort != nil || r.set.chosen != nil {
			t.Errorf("%s: the request is held", tmpl.name)
		}
		for name, n := range map[string]uintptr{
			"text": uintptr(cap(r.text)), "json": uintptr(cap(r.json)), "more": uintptr(cap(r.more)), "out": uintptr(cap(r.out.b)), "scratch": uintptr(cap(r.out.scratch)),
			"calls": uintptr(cap(r.calls)) * unsafe.Sizeof(call{}), "callees": uintptr(cap(r.callees.calls)) * unsafe.Sizeof(callee{}),
			"ids": uintptr(cap(r.callees.text)), "nodes": uintptr(cap(r.out.nodes)) * unsafe.Sizeof(node{}),
		} {
			if n > maxKept {
				t.Errorf("%s: %d bytes of %s are held", tmpl.name, n, name)
			}
		}
		for _, c := range r.calls[:cap(r.calls)] {
			if c != (call{}) {
				t.Fatalf("%s: a call is held", tmpl.name)
			}
		}
	}
}

// TestCalleesOnce: the calls of a chat are read once for all results, and are searched in order.
func TestCalleesOnce(t *testing.T) {
	body := `{"model":"m","messages":[`
	for i := range 1000 {
		body += fmt.Sprintf(`{"role":"assistant","tool_calls":[{"id":"c%d","function":{"name":"f%d","arguments":"{}"}}]},`, i*7919%1000, i)
	}
	for range 2000 {
		body += `{"role":"tool","tool_call_id":"c5","content":"x"},`
	}
	v := viewOf(t, strings.TrimSuffix(body, ",")+`]}`)
	for _, tmpl := range []*Template{openaiTemplate, harmonyTemplate} {
		r := new(renderer)
		r.reset(v, silence{}, Options{Backend: VLLM})
		tmpl.walk(r)
		if n := len(r.callees.calls); n != 1000 {
			t.Errorf("%s: %d calls are known, want 1000", tmpl.name, n)
		}
		if !slices.IsSortedFunc(r.callees.calls, func(a, b callee) int { return bytes.Compare(r.callID(&a), r.callID(&b)) }) {
			t.Errorf("%s: the calls are in no order", tmpl.name)
		}
	}
}

// TestTree: every value is read once, and found where it stands.
func TestTree(t *testing.T) {
	const levels = 500
	var h tree
	h.read([]byte(strings.Repeat(`{"type":[1,"a"],"items":`, levels) + "true" + strings.Repeat("}", levels)))
	if n := len(h.nodes); n != 4*levels+1 {
		t.Errorf("%d nodes of %d values", n, 4*levels+1)
	}
	at := 0
	for range levels {
		f := h.fields(at)
		if string(h.raw(f.kind)) != `[1,"a"]` || f.items == none || f.title != none {
			t.Fatalf("%+v of %.60s", f, h.raw(at))
		}
		at = f.items
	}
	if string(h.raw(at)) != "true" {
		t.Errorf("%s at the bottom", h.raw(at))
	}
}

// TestRequires compares with a search through the list.
func TestRequires(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var names []string
		for range rng.IntN(20) {
			names = append(names, fmt.Sprintf(`"%.*s"`, rng.IntN(4), "abab"[rng.IntN(2):]))
		}
		h := types{required: []int32{0, 0}}
		h.read([]byte(`{"required": [1, ` + strings.Join(append(names, "null"), " , ") + `]}`))
		from := h.require(h.fields(0).required)
		for _, name := range []string{`""`, `"a"`, `"b"`, `"ab"`, `"ba"`, `"aba"`, `"bab"`, `"c"`} {
			if got, want := h.requires(from, []byte(name)), slices.Contains(names, name); from != 2 || got != want {
				t.Errorf("%s in %s: %v", name, names, got)
			}
		}
	}
}

// TestNullSince compares with a search through what was written, of which none is searched twice.
func TestNullSince(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var r renderer
		r.out.room = MaxRendered
		h := r.begin(0)
		for range 20 {
			h.literal([]string{"nu", "ll", "null", "x", "nul", ""}[rng.IntN(6)])
			n := rng.IntN(len(h.b) + 1)
			if got, want := h.nullSince(n), bytes.Contains(h.b[n:], []byte("null")); got != want {
				t.Fatalf("from %d in %s: %v", n, h.b, got)
			}
			if h.searched != len(h.b) {
				t.Fatal("not all was searched")
			}
		}
	}
}

// TestNormalName: normal form C makes at most three bytes of one that is not ASCII.
func TestNormalName(t *testing.T) {
	if n := normal([]byte("aé")); n != 1+3*2 {
		t.Errorf("%d bytes", n)
	}
}
