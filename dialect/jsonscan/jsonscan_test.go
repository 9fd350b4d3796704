package jsonscan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/ai"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	deep := func(n int) string {
		return `{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`
	}
	many := func(n int, more string) string {
		var b strings.Builder
		b.WriteString(`{"x":0`)
		for i := range n {
			fmt.Fprintf(&b, `,"key%d":{"key%d":[{"x":1}]}`, i, i)
		}
		b.WriteString(more + `}`)
		return b.String()
	}
	tests := []struct {
		name, body string
		want       ai.Reason
		offset     int
	}{
		{"empty object", `{}`, "", 0},
		{"white space", " \r\n\t{ \"a\" : [ 1 , 2 ] , \"b\" : { } } \n", "", 0},
		{"every value", `{"a":"x","b":-1.5e+3,"c":true,"d":false,"e":null,"f":[],"g":{}}`, "", 0},
		{"no body", ``, ai.ReasonInvalidJSON, 0},
		{"array at the top", `[]`, ai.ReasonInvalidJSON, 0},
		{"string at the top", `"a"`, ai.ReasonInvalidJSON, 0},
		{"byte order mark", "\ufeff{}", ai.ReasonInvalidJSON, 0},
		{"something behind", `{} {}`, ai.ReasonInvalidJSON, 3},
		{"nul behind", "{}\x00", ai.ReasonInvalidJSON, 2},
		{"trailing comma", `{"a":1,}`, ai.ReasonInvalidJSON, 7},
		{"trailing comma in array", `{"a":[1,]}`, ai.ReasonInvalidJSON, 8},
		{"leading comma", `{,"a":1}`, ai.ReasonInvalidJSON, 1},
		{"no comma", `{"a":1 "b":2}`, ai.ReasonInvalidJSON, 7},
		{"no colon", `{"a" 1}`, ai.ReasonInvalidJSON, 5},
		{"no value", `{"a":}`, ai.ReasonInvalidJSON, 5},
		{"wrong bracket", `{"a":[1}`, ai.ReasonInvalidJSON, 7},
		{"not closed", `{"a":[1]`, ai.ReasonInvalidJSON, 8},
		{"string not closed", `{"a":"b`, ai.ReasonInvalidJSON, 5},
		{"single quotes", `{'a':1}`, ai.ReasonInvalidJSON, 1},
		{"comment", `{"a":1/**/}`, ai.ReasonInvalidJSON, 6},
		{"leading zero", `{"a":01}`, ai.ReasonInvalidJSON, 6},
		{"plus", `{"a":+1}`, ai.ReasonInvalidJSON, 5},
		{"no fraction", `{"a":1.}`, ai.ReasonInvalidJSON, 7},
		{"no exponent", `{"a":1e}`, ai.ReasonInvalidJSON, 7},
		{"minus alone", `{"a":-}`, ai.ReasonInvalidJSON, 6},
		{"NaN", `{"a":NaN}`, ai.ReasonInvalidJSON, 5},
		{"True", `{"a":True}`, ai.ReasonInvalidJSON, 5},
		{"literal cut", `{"a":tru`, ai.ReasonInvalidJSON, 5},
		{"control character", "{\"a\":\"x\ny\"}", ai.ReasonInvalidJSON, 7},
		{"delete is text", "{\"a\":\"\x7f\"}", "", 0},
		{"unknown escape", `{"a":"\x41"}`, ai.ReasonInvalidJSON, 6},
		{"short escape", `{"a":"\u12"}`, ai.ReasonInvalidJSON, 6},
		{"pair", `{"a":"\ud83d\ude00\ud83D\uDE01"}`, "", 0},
		{"high alone", `{"a":"\ud83d"}`, ai.ReasonInvalidUTF8, 6},
		{"low alone", `{"a":"\ude00"}`, ai.ReasonInvalidUTF8, 6},
		{"two highs", `{"a":"\ud83d\ud83d"}`, ai.ReasonInvalidUTF8, 6},
		{"high and escape", `{"a":"\ud83d\n"}`, ai.ReasonInvalidUTF8, 6},
		{"low in key", `{"\ude00":1}`, ai.ReasonInvalidUTF8, 2},
		{"bad utf-8", "{\"a\":\"abc\xff\"}", ai.ReasonInvalidUTF8, 9},
		{"overlong", "{\"a\":\"\xe0\x80\x80\"}", ai.ReasonInvalidUTF8, 6},
		{"overlong of two", "{\"a\":\"\xc0\x80\"}", ai.ReasonInvalidUTF8, 6},
		{"surrogate in utf-8", "{\"a\":\"\xed\xa0\x80\"}", ai.ReasonInvalidUTF8, 6},
		{"beyond Unicode", "{\"a\":\"\xf4\x90\x80\x80\"}", ai.ReasonInvalidUTF8, 6},
		{"character cut", "{\"a\":\"é\xe4\xb8\"}", ai.ReasonInvalidUTF8, 8},
		{"replacement character", "{\"a\":\"\ufffd\"}", "", 0},
		{"depth reached", deep(64), "", 0},
		{"depth passed", deep(65), ai.ReasonTooDeep, 5 + 63},
		{"duplicate", `{"a":1,"a":1}`, ai.ReasonDuplicateKey, 7},
		{"duplicate by escape", `{"model":1,"mod\u0065l":1}`, ai.ReasonDuplicateKey, 11},
		{"duplicate of escape", `{"mod\u0065l":1,"model":1}`, ai.ReasonDuplicateKey, 16},
		{"duplicate escapes", `{"\u0061":1,"\u0061":1}`, ai.ReasonDuplicateKey, 12},
		{"duplicate below", `{"a":[{"b":{"c":1,"d":2,"c":3}}]}`, ai.ReasonDuplicateKey, 24},
		{"duplicate empty", `{"":1,"":1}`, ai.ReasonDuplicateKey, 6},
		{"same in another object", `{"a":{"a":{"a":1}},"b":{"a":1},"c":[{"a":1},{"a":1}]}`, "", 0},
		{"case differs", `{"a":1,"A":1}`, "", 0},
		{"many keys", many(3000, ""), "", 0},
		{"many keys, first again", many(40, `,"x":1`), ai.ReasonDuplicateKey, len(many(40, ""))},
		{"many keys, last again", many(40, `,"\u006bey39":1`), ai.ReasonDuplicateKey, len(many(40, ""))},
		{"many keys, below", many(40, `,"y":{"x":1,"x":1}`), ai.ReasonDuplicateKey, len(many(40, "")) + 11},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := Check([]byte(tt.body), 64)
			switch {
			case f == nil && tt.want != "":
				t.Errorf("accepted, want %s", tt.want)
			case f != nil && (f.Reason != tt.want || f.Offset != tt.offset):
				t.Errorf("%s at %d (%s), want %q at %d", f.Reason, f.Offset, f.What, tt.want, tt.offset)
			}
		})
	}
}

func TestWalk(t *testing.T) {
	t.Parallel()
	body := []byte(`{"a\n":"x\u00e9\ud83d\ude00y","b":[1,[2],{"c":null}],"d":-0.5}`)
	s := Acquire(body, 64)
	defer s.Release()
	var got []string
	s.EnterObject()
	for key, ok := s.NextKey(); ok; key, ok = s.NextKey() {
		name := string(s.Text(key))
		if s.Peek() == Array {
			s.EnterArray()
			for s.NextItem() {
				v := s.Value()
				got = append(got, fmt.Sprintf("%s[]=%s", name, body[v.Off:v.Off+v.Len]))
			}
			continue
		}
		v := s.Value()
		if v.Kind == String {
			text := s.Text(v)
			got = append(got, fmt.Sprintf("%q=%s", name, text))
			if len(text) != v.Text {
				t.Errorf("text of %d bytes, want %d", v.Text, len(text))
			}
			continue
		}
		got = append(got, fmt.Sprintf("%s=%s:%s", name, v.Kind, body[v.Off:v.Off+v.Len]))
	}
	if !s.End() {
		t.Fatal(s.Fault())
	}
	want := `"a\n"=xé😀y; b[]=1; b[]=[2]; b[]={"c":null}; d=number:-0.5`
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

// A caller that forgets to read a value must not get a body accepted.
func TestWalkWithoutReading(t *testing.T) {
	t.Parallel()
	s := Acquire([]byte(`{"a":1,"b":2}`), 64)
	defer s.Release()
	s.EnterObject()
	s.NextKey()
	s.NextKey()
	if s.End() || s.Fault() == nil {
		t.Error("accepted")
	}
}

func TestScannerIsCleanAfterFault(t *testing.T) {
	t.Parallel()
	var s Scanner
	bad := []byte(`{"a":{` + manyKeys(100) + `,"k0":1}}`)
	good := []byte(`{"a":{` + manyKeys(100) + `}}`)
	for range 3 {
		for _, tt := range []struct {
			body []byte
			ok   bool
		}{{bad, false}, {good, true}} {
			s.Reset(tt.body, 8)
			s.Value()
			if s.End() != tt.ok {
				t.Fatalf("fault %v, want ok=%t", s.Fault(), tt.ok)
			}
		}
	}
}

func manyKeys(n int) string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf(`"k%d":%d`, i, i)
	}
	return strings.Join(keys, ",")
}

func TestNoAllocation(t *testing.T) {
	body := []byte(`{"model":"m","esc\u0061ped":"a\nb",` + manyKeys(200) + `,"d":{` + manyKeys(100) + `}}`)
	Check(body, 64)
	if n := testing.AllocsPerRun(100, func() { Check(body, 64) }); n > 0.5 {
		t.Errorf("%v allocations a scan, want 0", n)
	}
}

func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"x\u00e9",{"b":null}],"c":true}`, `{"a":1,"\u0061":2}`, "{\"é\xff\":0}", `{"a":"\ud83d\ude00"}`, `[`, `{"":{"":[]}}`, strings.Repeat(`{"a":`, 70)} {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{` + manyKeys(30) + `,"k7":0}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got := Check(body, 64)
		if want := reference(body, 64); (got == nil) != (want == "") {
			t.Fatalf("got %v, reference says %q", got, want)
		}
		if got != nil && (got.Offset < 0 || got.Offset > len(body)) {
			t.Fatalf("offset %d outside of the body", got.Offset)
		}
	})
}

// reference judges a body slowly, with encoding/json; it answers "" for a good one.
func reference(body []byte, maxDepth int) string {
	if !json.Valid(body) {
		return "invalid"
	}
	if !utf8.Valid(body) {
		return "utf-8"
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	tok, err := d.Token()
	if err != nil || tok != json.Delim('{') {
		return "not an object"
	}
	if loneSurrogate(body) {
		return "surrogate"
	}
	return referenceObject(d, 1, maxDepth)
}

func referenceObject(d *json.Decoder, depth, maxDepth int) string {
	if depth > maxDepth {
		return "depth"
	}
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err.Error()
		}
		if seen[key.(string)] {
			return "duplicate"
		}
		seen[key.(string)] = true
		if fault := referenceValue(d, depth, maxDepth); fault != "" {
			return fault
		}
	}
	_, err := d.Token()
	if err != nil {
		return err.Error()
	}
	return ""
}

func referenceValue(d *json.Decoder, depth, maxDepth int) string {
	tok, err := d.Token()
	if err != nil {
		return err.Error()
	}
	switch tok {
	case json.Delim('{'):
		return referenceObject(d, depth+1, maxDepth)
	case json.Delim('['):
		if depth+1 > maxDepth {
			return "depth"
		}
		for d.More() {
			if fault := referenceValue(d, depth+1, maxDepth); fault != "" {
				return fault
			}
		}
		if _, err := d.Token(); err != nil {
			return err.Error()
		}
	}
	return ""
}

// loneSurrogate finds half a pair among the escapes of valid JSON.
func loneSurrogate(body []byte) bool {
	var code func(i int) int
	code = func(i int) int {
		if i+6 > len(body) || body[i] != '\\' || body[i+1] != 'u' {
			return -1
		}
		var r int
		if _, err := fmt.Sscanf(string(body[i+2:i+6]), "%04x", &r); err != nil {
			return -1
		}
		return r
	}
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		r := code(i)
		switch {
		case r >= 0xD800 && r <= 0xDBFF:
			if second := code(i + 6); second < 0xDC00 || second > 0xDFFF {
				return true
			}
			i += 11
		case r >= 0xDC00 && r <= 0xDFFF:
			return true
		default:
			i++
		}
	}
	return false
}

// Objects with keys drawn from few names, so that duplicates are as likely as
// not, at sizes on both sides of the change to the hash table.
func TestDuplicatesAgainstReference(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	dup, clean := 0, 0
	for range 4000 {
		body := randomObject(rng, 1+rng.IntN(60), 3)
		want := reference(body, 64)
		got := Check(body, 64)
		if (got == nil) != (want == "") || got != nil && got.Reason != ai.ReasonDuplicateKey {
			t.Fatalf("got %+v, reference says %q: %s", got, want, body)
		}
		if got == nil {
			clean++
		} else {
			dup++
		}
	}
	if dup < 500 || clean < 500 {
		t.Errorf("%d with duplicates, %d without: the test does not test both", dup, clean)
	}
}

func randomObject(rng *rand.Rand, keys, depth int) []byte {
	b := []byte{'{'}
	for i := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		name := fmt.Sprintf("%x", rng.IntN(keys*keys*2))
		if rng.IntN(4) == 0 {
			name = fmt.Sprintf(`\u%04x%s`, name[0], name[1:])
		}
		b = fmt.Appendf(b, `"%s":`, name)
		if depth > 0 && rng.IntN(keys) == 0 {
			b = append(b, randomObject(rng, 1+rng.IntN(30), depth-1)...)
		} else {
			b = append(b, '0')
		}
	}
	return append(b, '}')
}
