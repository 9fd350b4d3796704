// Package query answers how much was used by whom, and writes the answer for
// people and programs.
package query

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/usage/store"
)

// Usage sums up the requests that ended in [since, until) for each combination
// of by, in the order of by's values. The last second or so may not be stored
// yet.
func Usage(ctx context.Context, r store.Reader, since, until time.Time, by []store.Dimension) ([]store.Row, error) {
	if !since.Before(until) {
		return nil, fmt.Errorf("usage: since %s is not before until %s", since.Format(time.RFC3339), until.Format(time.RFC3339))
	}
	rows, err := r.Usage(ctx, store.Query{Since: since, Until: until, By: by})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rows, func(a, b store.Row) int { return slices.Compare(a.By, b.By) })
	return rows, nil
}

// ParseBy reads a list of dimensions separated by commas. An empty text is no
// dimension.
func ParseBy(text string) ([]store.Dimension, error) {
	var by []store.Dimension
	for word := range strings.SplitSeq(text, ",") {
		d := store.Dimension(strings.TrimSpace(word))
		switch {
		case d == "":
		case !slices.Contains(store.Dimensions, d):
			return nil, fmt.Errorf("usage: unknown dimension %q: want some of %s", word, names(store.Dimensions))
		case slices.Contains(by, d):
			return nil, fmt.Errorf("usage: dimension %q stands twice", word)
		default:
			by = append(by, d)
		}
	}
	return by, nil
}

func names(by []store.Dimension) string {
	words := make([]string, len(by))
	for i, d := range by {
		words[i] = string(d)
	}
	return strings.Join(words, ", ")
}

// total adds rows up.
func total(rows []store.Row) store.Row {
	var t store.Row
	for _, r := range rows {
		t.Requests += r.Requests
		t.Tokens = t.Tokens.Add(r.Tokens)
		t.Cost += r.Cost
		t.InputCost += r.InputCost
		t.OutputCost += r.OutputCost
		t.AbandonedCost += r.AbandonedCost
		t.Abandoned += r.Abandoned
		t.Estimated += r.Estimated
	}
	return t
}

// estimatedShare is the part of a row's tokens that was estimated, from 0 to 1.
func estimatedShare(r *store.Row) float64 {
	if n := r.Tokens.Total(); n > 0 {
		return float64(r.Estimated) / float64(n)
	}
	return 0
}
