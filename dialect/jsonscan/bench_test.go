package jsonscan

import (
	"fmt"
	"strings"
	"testing"
)

// chat is a chat body of about size bytes.
func chat(size int, sentence string) []byte {
	var b strings.Builder
	b.WriteString(`{"model":"deepseek-v3","stream":true,"temperature":0.7,"max_tokens":1024,"messages":[{"role":"system","content":"You are a careful assistant."}`)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `,{"role":"user","content":"%d. %s"}`, i, strings.Repeat(sentence, min(16, 1+size/1024)))
	}
	b.WriteString(`]}`)
	return []byte(b.String())
}

func BenchmarkCheck(b *testing.B) {
	english := `The quick brown fox jumps over the lazy dog, and then \"says\" nothing more about it.\n`
	chinese := `敏捷的棕色狐狸跳过了懒狗，然后什么也没有说。`
	hostile := []byte(`{"first":0`)
	for i := range 1_000_000 {
		hostile = fmt.Appendf(hostile, `,"k%x":0`, i)
	}
	hostile = append(hostile, '}')
	for _, bb := range []struct {
		name string
		body []byte
	}{
		{"english-2K", chat(2<<10, english)},
		{"english-200K", chat(200<<10, english)},
		{"chinese-200K", chat(200<<10, chinese)},
		{"tokens-200K", []byte(`{"input":[` + strings.Repeat("12345,", 33000) + `1]}`)},
		{"small-objects-200K", []byte(`{"a":[` + strings.Repeat(`{"id":1,"x":"yes","k":null},`, 7000) + `{}]}`)},
		{"million-keys", hostile},
		{"escapes-200K", []byte(`{"a":"` + strings.Repeat(`\u00e9\n`, 25000) + `"}`)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			if f := Check(bb.body, 64); f != nil {
				b.Fatal(f)
			}
			b.SetBytes(int64(len(bb.body)))
			b.ReportAllocs()
			for b.Loop() {
				Check(bb.body, 64)
			}
		})
	}
}
