// Package tokens counts the input tokens of requests: a proven upper bound at
// the price of an addition, and a count by a tokenizer where a decision depends
// on it.
package tokens

import "github.com/weirproxy/weir/dialect/openai"

// Counter counts the tokens of a text. It is safe for concurrent use.
type Counter interface {
	Count(text string) int
}

// O200k counts by OpenAI's o200k_base.
func O200k() Counter { return nil }

// Cl100k counts by OpenAI's cl100k_base.
func Cl100k() Counter { return nil }

// Bound is an upper bound of the input tokens of r.
func Bound(r *openai.Request) int64 { return 0 }

// Exact counts the input tokens of r. exact is false when something in r could
// only be estimated. The count is never above Bound.
func Exact(c Counter, r *openai.Request) (n int64, exact bool) { return 0, false }
