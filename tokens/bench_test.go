package tokens

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/tokens/internal/reference"
)

// conversation is a chat of an agent, of so many bytes of real text in turns of 2 KB.
func conversation(tb testing.TB, size int) []byte {
	tb.Helper()
	var text []byte
	for _, f := range reference.Corpus(tb) {
		if f.Class == "english" || f.Class == "code" {
			text = append(text, f.Head(tb)...)
		}
	}
	const turn = 2 << 10
	messages := []map[string]string{{"role": "system", "content": "You are a careful engineer."}}
	roles := [2]string{"user", "assistant"}
	for i := 0; i*turn < size; i++ {
		messages = append(messages, map[string]string{"role": roles[i%2], "content": string(text[i*turn : (i+1)*turn])})
	}
	body := bytes.NewBuffer(nil)
	enc := json.NewEncoder(body)
	enc.SetEscapeHTML(false) // as all clients but Go's have it
	if err := enc.Encode(map[string]any{"model": "m", "messages": messages}); err != nil {
		tb.Fatal(err)
	}
	return body.Bytes()
}

func BenchmarkCount(b *testing.B) {
	for _, c := range []Choice{{Model: "gpt-4o"}, {Model: "Qwen/Qwen3-8B", Adapter: "vllm"}, {Model: "deepseek-v3", Adapter: "vllm"}} {
		tok := tokenizer(b, c)
		tok.Load()
		for _, size := range []int{2 << 10, 20 << 10, 200 << 10} {
			var r openai.Request
			body := conversation(b, size)
			if f := openai.Parse(ai.KindChat, body, 64, &r); f != nil {
				b.Fatal(f)
			}
			b.Run(fmt.Sprintf("%s/%dK/cold", tok.Template(), size>>10), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					tok.Count(&r, Session{})
				}
			})
			b.Run(fmt.Sprintf("%s/%dK/next-turn", tok.Template(), size>>10), func(b *testing.B) {
				memo := NewMemo()
				defer memo.Close()
				s := Session{Memo: memo, Tenant: "team"}
				tok.Count(&r, s)
				memo.Wait()
				last := r.Segments[len(r.Segments)-1]
				new := r.Body[last.Off+1:][:16]
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for i := uint64(0); b.Loop(); i++ { // the last turn is new each time
					copy(new, fmt.Sprintf("%016x", i))
					tok.Count(&r, s)
				}
			})
		}
	}
}

func BenchmarkBound(b *testing.B) {
	var r openai.Request
	if f := openai.Parse(ai.KindChat, conversation(b, 200<<10), 64, &r); f != nil {
		b.Fatal(f)
	}
	b.ReportAllocs()
	for b.Loop() {
		Bound(&r)
	}
}

// BenchmarkTools counts the same 40 tools, 20 KB of JSON, with each request, as an
// agent sends them.
func BenchmarkTools(b *testing.B) {
	var tools []any
	for i := range 40 {
		tools = append(tools, map[string]any{"type": "function", "function": map[string]any{
			"name": fmt.Sprintf("lookup_%d", i), "description": "Looks up what is known about a customer, an order or an invoice, and returns it as text.",
			"parameters": map[string]any{"type": "object", "required": []string{"id"}, "properties": map[string]any{
				"id":     map[string]any{"type": "string", "description": "What to look up: the number on the invoice, or the customer's name."},
				"fields": map[string]any{"type": "array", "items": map[string]any{"type": "string"}, "description": "Which fields are wanted."},
				"limit":  map[string]any{"type": "integer", "minimum": 1, "maximum": 100},
			}},
		}})
	}
	body, err := json.Marshal(map[string]any{"model": "m", "tools": tools, "messages": []any{map[string]any{"role": "user", "content": "Which invoices are open?"}}})
	if err != nil {
		b.Fatal(err)
	}
	var r openai.Request
	if f := openai.Parse(ai.KindChat, body, 64, &r); f != nil {
		b.Fatal(f)
	}
	for _, c := range models[:12] {
		tok := tokenizer(b, c)
		b.Run(tok.Template()+"/"+c.Adapter, func(b *testing.B) {
			memo := NewMemo()
			defer memo.Close()
			s := Session{Memo: memo, Tenant: "a", Now: day}
			tok.Count(&r, s)
			memo.Wait()
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				tok.Count(&r, s)
			}
		})
	}
}
