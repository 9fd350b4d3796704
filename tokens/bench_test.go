package tokens

import (
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/ai"
)

func body(text string, size int) string {
	return `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat(text, 1+size/len(text)) + `"}]}`
}

func BenchmarkExact(b *testing.B) {
	for _, bb := range []struct{ name, text string }{
		{"english", `The quick brown fox jumps over the lazy dog.\n`},
		{"chinese", `敏捷的棕色狐狸跳过了懒狗。`},
		{"code", `for i := 0; i < len(items); i++ {\n\tsum += items[i]\n}\n`},
	} {
		b.Run(bb.name+"-2K", func(b *testing.B) {
			r := parse(b, ai.KindChat, body(bb.text, 2<<10))
			O200k()
			b.SetBytes(int64(len(r.Body)))
			b.ReportAllocs()
			for b.Loop() {
				Exact(O200k(), r)
			}
		})
	}
}

func BenchmarkBound(b *testing.B) {
	r := parse(b, ai.KindChat, cookbook)
	b.ReportAllocs()
	for b.Loop() {
		Bound(r)
	}
}
