package ai

import (
	"strconv"
	"strings"
)

// Decimal writes the amount in dollars, exactly, with at least two decimals:
// 412000 is "0.000412".
func (n NanoUSD) Decimal() string {
	sign, u := "", uint64(n)
	if n < 0 {
		sign, u = "-", -u
	}
	whole, frac := u/1e9, strconv.FormatUint(1e9+u%1e9, 10)[1:]
	frac = frac[:2] + strings.TrimRight(frac[2:], "0")
	return sign + strconv.FormatUint(whole, 10) + "." + frac
}
