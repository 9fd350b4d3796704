package openai

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/ai"
)

func TestPrefixKey(t *testing.T) {
	const (
		system = `{"role":"system","content":"You write Go."}`
		task   = `{"role":"user","content":"Fix the build."}`
	)
	chat := func(messages string) string { return `{"model":"m","messages":[` + messages + `]}` }
	long := strings.Repeat("x", leadingText)
	for _, tc := range []struct {
		name string
		kind ai.Kind
		a, b string
		same bool
	}{
		{"a further turn", ai.KindChat, chat(system + "," + task), chat(system + "," + task + `,{"role":"assistant","content":"Done."},{"role":"user","content":"And the tests?"}`), true},
		{"a member more, in another order", ai.KindChat, chat(system + "," + task), `{"messages":[` + system + `,{"content":"Fix the build.","role":"user"}],"temperature":0,"model":"m"}`, true},
		{"another task", ai.KindChat, chat(system + "," + task), chat(system + `,{"role":"user","content":"Fix the tests."}`), false},
		{"another system prompt", ai.KindChat, chat(system + "," + task), chat(`{"role":"system","content":"You write C."},` + task), false},
		{"another role", ai.KindChat, chat(`{"role":"system","content":"a"}`), chat(`{"role":"user","content":"a"}`), false},
		{"text between messages", ai.KindChat, chat(`{"role":"system","content":"ab"},{"role":"user","content":"c"}`), chat(`{"role":"system","content":"a"},{"role":"user","content":"bc"}`), false},
		{"another image", ai.KindChat, chat(`{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a/1.png"}}]}`), chat(`{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a/2.png"}}]}`), false},
		{"no user speaks", ai.KindChat, chat(system), chat(system), true},
		{"the client's own key", ai.KindChat, `{"model":"m","prompt_cache_key":"k","messages":[` + system + `]}`, `{"model":"m","prompt_cache_key":"k","messages":[` + task + `]}`, true},
		{"another key of the client", ai.KindChat, `{"model":"m","prompt_cache_key":"k","messages":[` + task + `]}`, `{"model":"m","prompt_cache_key":"l","messages":[` + task + `]}`, false},
		{"a prompt that goes on", ai.KindCompletion, `{"model":"m","prompt":"` + long + `a"}`, `{"model":"m","prompt":"` + long + `b"}`, true},
		{"another prompt", ai.KindCompletion, `{"model":"m","prompt":"a` + long + `"}`, `{"model":"m","prompt":"b` + long + `"}`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := prefixKey(t, tc.kind, tc.a), prefixKey(t, tc.kind, tc.b)
			if (a == b) != tc.same {
				t.Errorf("%x and %x, want the same: %v", a, b, tc.same)
			}
		})
	}
}

// An empty key, or one that is no text, is none; and what has no text has no beginning.
func TestNoPrefixKey(t *testing.T) {
	with := func(key string) string {
		return fmt.Sprintf(`{"model":"m","prompt_cache_key":%s,"messages":[{"role":"user","content":"a"}]}`, key)
	}
	for _, key := range []string{`""`, `null`, `[]`, `12345`} {
		if got, want := prefixKey(t, ai.KindChat, with(key)), prefixKey(t, ai.KindChat, with(`null`)); got != want {
			t.Errorf("%s: %x, want %x", key, got, want)
		}
	}
	for _, body := range []string{`{"model":"m","prompt":""}`, `{"model":"m","prompt":[1,2,3]}`} {
		var r Request
		if f := Parse(ai.KindCompletion, []byte(body), 64, &r); f != nil {
			t.Fatal(f)
		}
		if key, ok := r.PrefixKey(); ok {
			t.Errorf("%s: key %x", body, key)
		}
	}
}

func TestPrefixKeyDoesNotAllocate(t *testing.T) {
	var r Request
	if f := Parse(ai.KindChat, chatBody(2<<10), 64, &r); f != nil {
		t.Fatal(f)
	}
	if n := testing.AllocsPerRun(100, func() { r.PrefixKey() }); n > 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkPrefixKey(b *testing.B) {
	var r Request
	if f := Parse(ai.KindChat, chatBody(200<<10), 64, &r); f != nil {
		b.Fatal(f)
	}
	b.ReportAllocs()
	for b.Loop() {
		r.PrefixKey()
	}
}

func prefixKey(t *testing.T, kind ai.Kind, body string) uint64 {
	t.Helper()
	var r Request
	if f := Parse(kind, []byte(body), 64, &r); f != nil {
		t.Fatal(f)
	}
	key, ok := r.PrefixKey()
	if !ok {
		t.Fatalf("%s: no key", body)
	}
	return key
}
