package auth

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
)

func TestDecodeClaims(t *testing.T) {
	got, err := decodeClaims(encode(` {"sub":"a\u00e9","n":3,"f":1.5,"big":1e400,"t":true,"x":null,"l":["a",{"b":[]}],"o":{"p":{"q":false}}} `))
	want := map[string]any{"sub": "aé", "n": int64(3), "f": 1.5, "t": true, "x": nil, "l": []any{"a", map[string]any{"b": []any{}}}, "o": map[string]any{"p": map[string]any{"q": false}}}
	delete(got, "big")
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for name, payload := range map[string]string{
		"empty": "", "padding": encode(`{"a":1}`) + "=", "standard alphabet": "eyJhIjoi/+8ifQ", "a space": "e 30", "no object": encode(`[]`), "two objects": encode(`{}{}`),
		"a name twice": encode(`{"a":1,"a":1}`), "a name twice, escaped": encode(`{"a":1,"\u0061":1}`), "a name twice, deep": encode(`{"a":[{"b":1,"b":2}]}`),
		"bad UTF-8": encode("{\"a\":\"\xff\"}"), "deep": encode(`{"a":` + strings.Repeat("[", 8) + strings.Repeat("]", 8) + `}`), "half": encode(`{"a":`), "not JSON": encode("{a:1}"),
		"bits behind the end": "e31", "a line break": "e3\n0",
	} {
		if got, err := decodeClaims(payload); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What is accepted is what encoding/json reads of it.
func FuzzDecodeClaims(f *testing.F) {
	f.Add([]byte(`{"iss":"https://idp","aud":["a"],"exp":1700000000,"r":{"x":1.5}}`))
	f.Add([]byte(`{"a":{"a":{"a":[[[1]]]}}}`))
	f.Add([]byte(`{"a":-0,"b":9223372036854775808}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := decodeClaims(encode(string(payload)))
		if err != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(payload))
		d.UseNumber()
		var want map[string]any
		if err := d.Decode(&want); err != nil {
			t.Fatalf("%q is accepted: %v", payload, err)
		}
		if diff := cmp.Diff(numbers(want), any(got)); diff != "" && !bytes.ContainsAny(payload, "eE") {
			t.Errorf("%q\n%s", payload, diff)
		}
	})
}

func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case json.Number:
		return number(string(v))
	}
	return v
}

func BenchmarkHeaders(b *testing.B) {
	payload := encode(`{"iss":"https://idp","aud":"weir","sub":"5f0c1d1e-4b7a-4c55-9d53-0a4b8e3f7e11","exp":1900000000,"iat":1800000000,"azp":"app","scope":"openid profile llm",` +
		`"realm_access":{"roles":["user","staff","offline_access"]},"preferred_username":"alice","email":"alice@example.com","groups":["/a","/b","/c"]}`)
	common := []pipeline.Header{{Name: ":method", Value: "POST"}, {Name: ":path", Value: "/v1/chat/completions"}, {Name: "x-request-id", Value: "x"}, {Name: ai.PeerHeader, Value: "10.0.0.1"}}
	for name, more := range map[string][]pipeline.Header{
		"key":      {{Name: "authorization", Value: "Bearer sk-ci"}},
		"token":    {{Name: "authorization", Value: "Bearer e30." + payload + ".sig"}, {Name: ai.ClaimsHeader, Value: payload}},
		"workload": {{Name: ai.PeerURIHeader, Value: "spiffe://x/a"}},
	} {
		b.Run(name, func(b *testing.B) {
			ex := &pipeline.Exchange{Plan: testPlan()}
			ex.In.Headers = append(common, more...)
			b.ReportAllocs()
			for b.Loop() {
				if v, _ := (Stage{}).Headers(b.Context(), ex); v.Stops() {
					b.Fatal(v.Reason)
				}
			}
		})
	}
}
