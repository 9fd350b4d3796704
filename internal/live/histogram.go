package live

import (
	"math/bits"
	"time"
)

// latencies are the buckets of first-token times: four to each doubling from 1 ms on,
// up to four minutes. So a median is within 19 % of what it was.
const latencies = 72

// Histogram counts times to first tokens. The zero value is empty.
type Histogram [latencies]int32

// Add counts a time.
func (h *Histogram) Add(d time.Duration) { h[bucketOf(d)]++ }

// Merge adds what another histogram has counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other {
		h[i] += n
	}
}

// Median is the median of how many times, within 19 %; 0 of none.
func (h *Histogram) Median() (median time.Duration, of int64) {
	for _, n := range h {
		of += int64(n)
	}
	var below int64
	for b, n := range h {
		if below += int64(n); n > 0 && 2*below >= of {
			return timeOf(b), of
		}
	}
	return 0, of
}

func bucketOf(d time.Duration) int {
	v := uint64(d / (250 * time.Microsecond)) // 4 is a millisecond
	if v < 4 {
		return 0
	}
	exp := bits.Len64(v) - 3 // v >> exp is 4 to 7
	return min(exp*4+int(v>>exp)-4, latencies-1)
}

// timeOf is the middle of a bucket.
func timeOf(bucket int) time.Duration {
	exp, quarter := bucket/4, bucket%4
	low := time.Duration(4+quarter) << exp
	return low*250*time.Microsecond + (250 * time.Microsecond << exp / 2)
}
