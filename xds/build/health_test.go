package build

import "testing"

// However many endpoints a pool has, one is never ejected, and at most one more than
// that stays where a percent is more than an endpoint.
func TestMostEjected(t *testing.T) {
	for n := 2; n <= 1000; n++ {
		all := 2*n + 1
		most := int(mostEjected(n, all))
		ejected := 0
		for (ejected+1)*100 <= most*all { // Envoy: to no more than that
			ejected++
		}
		if ejected >= n || ejected < n-1-n/50 {
			t.Errorf("%d of %d endpoints may be ejected", ejected, n)
		}
	}
}
