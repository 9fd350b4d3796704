package ai

import (
	"math"
	"testing"
)

func TestDecimal(t *testing.T) {
	for in, want := range map[NanoUSD]string{
		0:             "0.00",
		1:             "0.000000001",
		412_000:       "0.000412",
		1_000_000_000: "1.00",
		1_500_000_000: "1.50",
		-20_000_000:   "-0.02",
		math.MaxInt64: "9223372036.854775807",
		math.MinInt64: "-9223372036.854775808",
	} {
		if got := in.Decimal(); got != want {
			t.Errorf("%d: %s, want %s", int64(in), got, want)
		}
	}
}
