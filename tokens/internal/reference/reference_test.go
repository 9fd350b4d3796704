package reference

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// TestCount: known counts, over a single process, in the order that was asked.
func TestCount(t *testing.T) {
	t.Parallel()
	texts := [][]byte{
		[]byte("Hello, world!"),
		nil,
		[]byte("<|endoftext|>"), // ordinary text, not the token
		[]byte("12345"),
		[]byte("e\u0301"), // Qwen composes it
		bytes.Repeat([]byte("a"), 5<<20),
		[]byte("中文"),
	}
	want := map[string][]int{
		"o200k_base":  {4, 0, 7, 2, 2, 655360, 1},
		"cl100k_base": {4, 0, 7, 2, 2, 655360, 2},
		"qwen":        {4, 0, 7, 5, 1, 655360, 1},
		"qwen3_6":     {4, 0, 7, 5, 1, 655360, 1},
		"deepseek_v3": {4, 0, 7, 2, 2, 655360, 1},
		"llama3_1":    {4, 0, 7, 2, 2, 655360, 1},
		"tekken":      {4, 0, 7, 5, 3, 2621440, 2},
	}
	for _, vocab := range Vocabularies {
		t.Run(vocab, func(t *testing.T) {
			t.Parallel()
			c := Start(t, vocab)
			if diff := cmp.Diff(want[vocab], c.Count(texts...)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(want[vocab][:3], c.Count(texts[:3]...)); diff != "" {
				t.Errorf("the second time: %s", diff)
			}
			if got := c.Count(); len(got) != 0 {
				t.Errorf("no text: %v", got)
			}
		})
	}
}

// TestCorpus: every class is there, and a head is a beginning, of whole characters.
func TestCorpus(t *testing.T) {
	t.Parallel()
	var all, heads int
	classes := map[string]bool{}
	for _, f := range Corpus(t) {
		text, head := f.Text(t), f.Head(t)
		if !bytes.HasPrefix(text, head) || !utf8.Valid(text) || !utf8.Valid(head) {
			t.Errorf("%s/%s: head of %d bytes, text of %d", f.Class, f.Name, len(head), len(text))
		}
		all, heads, classes[f.Class] = all+len(text), heads+len(head), true
	}
	if len(classes) != 15 || all < 90<<20 || heads < 4<<20 || heads > 8<<20 {
		t.Errorf("%d classes, %d bytes, heads of %d", len(classes), all, heads)
	}
}
