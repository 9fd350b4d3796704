// Package bench is what the benchmarks share: what they measure with, and how their
// reports show it.
package bench

import (
	"fmt"
	"slices"
)

// Spread is the values of one figure in all rounds, in the order of the rounds.
type Spread []float64

// Median is the median, 0 when there are no values.
func (s Spread) Median() float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// String is the median, with the extremes when there are several rounds.
func (s Spread) String() string {
	if len(s) == 0 {
		return ""
	}
	text := Number(s.Median())
	if len(s) > 1 {
		text += fmt.Sprintf(" (%s–%s)", Number(slices.Min(s)), Number(slices.Max(s)))
	}
	return text
}

// Each is the spread of what f makes of each value.
func (s Spread) Each(f func(float64) float64) Spread {
	list := make(Spread, len(s))
	for i, v := range s {
		list[i] = f(v)
	}
	return list
}

// Number prints three digits that matter, or all before the point.
func Number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
