package simulate

import (
	"strings"
	"testing"
)

func TestPrefixCache(t *testing.T) {
	block := func(s string) string { return strings.Repeat(s, prefixBlock) }
	c := NewPrefixCache(4 * prefixBlock)
	for i, step := range []struct {
		prompt string
		blocks int
	}{
		{block("a") + block("b"), 0},
		{block("a") + block("b") + "and less than a block", 2},
		{block("b"), 0},                           // it stood behind a
		{block("x") + block("b"), 0},              // and not behind x
		{block("a") + block("b"), 0},              // a was the oldest and is gone; b alone is of no use
		{block("a") + block("b") + block("c"), 2}, // both are back
		{"", 0},
	} {
		if got := c.Prefill(step.prompt); got != step.blocks*prefixBlock {
			t.Errorf("step %d: %d bytes were cached, want %d blocks", i, got, step.blocks)
		}
	}
}
