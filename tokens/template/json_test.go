package template

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/weirproxy/weir/dialect/jsonscan"
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
)

// numbers are hard to print as another language does.
var numbers = []string{
	"0", "-0", "-0.0", "0.0", "1", "-17", "1.0", "1.50", "100", "1e0", "1E5", "1e15", "1e16", "123456789012345680.0", "12345678901234567890",
	"-12345678901234567890123456789012345678901234567890", "1e-4", "0.0001", "0.00001", "1e-5", "12.5e-7", "9999999999999998.0", "9999999999999999.0",
	"0.1", "0.30000000000000004", "1e22", "1e23", "5e-324", "2.2250738585072014e-308", "1.7976931348623157e308", "1e-400", "-1e-400", "123.456e+2", "1e+16", "1e400", "-1e309",
}

func dumped(b string, indent int) (string, bool) {
	d := dumper{sink: sink{room: MaxRendered}, indent: indent}
	d.value([]byte(b), 0)
	return string(d.b), !d.doubt
}

// TestNumbers compares with Python itself.
func TestNumbers(t *testing.T) {
	in := strings.Join(numbers, "\n")
	cmd := exec.Command("python3", "-c", "import sys, json\nfor line in sys.stdin: print(json.dumps(json.loads(line)))")
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, n := range numbers {
		if got, ok := dumped(n, 0); got != want[i] || !ok {
			t.Errorf("%s: %s, %v, want %s", n, got, ok, want[i])
		}
	}
	if _, ok := dumped(strings.Repeat("9", maxPythonDigits+1), 0); ok {
		t.Error("an integer that Python refuses is exact")
	}
}

func TestIndent(t *testing.T) {
	const in = `{"a":[],"b":{ },"c":[1,{"d":"\u00e9\/\u0001"}],"e":null}`
	const want = "{\n    \"a\": [],\n    \"b\": {},\n    \"c\": [\n        1,\n        {\n            \"d\": \"é/\\u0001\"\n        }\n    ],\n    \"e\": null\n}"
	if got, ok := dumped(in, 4); got != want || !ok {
		t.Errorf("got %s", got)
	}
}

// FuzzJSON: of valid JSON the rendering means the same and its rendering is itself;
// of anything else there is no panic.
func FuzzJSON(f *testing.F) {
	for _, n := range numbers {
		f.Add([]byte(n))
	}
	for _, s := range []string{`{"a":[1,2,{"b":"\u00e9\ud83c\udf0d\\"}],"c":{}}`, "{", `{"a"`, `{"a":`, `["`, `"\`, `[,]`, `{"a":1,}`, "", "}", `{"model":"m","messages":[],"tools":[{}],"chat_template_kwargs":{"thinking":true},"reasoning_effort":"\u0061"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<12 {
			return // nested deeper than any parser lets it be
		}
		var r openai.Request
		if openai.Parse(ai.KindChat, b, 64, &r) == nil {
			readSettings(&r.View)
		}
		member(b, "a")
		h := types{dumper: dumper{sink: sink{room: MaxRendered}}}
		h.read(b)
		h.schema(0, 0)
		h.function(b)
		text, ok := dumped(string(b), 0)
		once := []byte(text)
		s := jsonscan.Acquire(b, 64)
		defer s.Release()
		s.Value()
		if s.End(); s.Fault() != nil || !ok {
			return
		}
		if bytes.Contains(once, []byte("Infinity")) {
			return
		}
		if again, _ := dumped(text, 0); again != text {
			t.Fatalf("%q becomes %q becomes %q", b, once, again)
		}
		var want, got any
		if json.Unmarshal(b, &want) == nil && (json.Unmarshal(once, &got) != nil || !reflect.DeepEqual(got, want)) {
			t.Fatalf("%q is not %q", once, b)
		}
	})
}
