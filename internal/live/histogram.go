package live

import (
	"math"
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
	of = h.count()
	return h.at(float64(of) / 2), of
}

// Likely is between what the median of all such times lies, by those that were counted:
// in 19 of 20 cases. By rank, so that it holds however they scatter.
func (h *Histogram) Likely() (least, most time.Duration) {
	n := float64(h.count())
	return h.at(n/2 - math.Sqrt(n)), h.at(n/2 + math.Sqrt(n))
}

func (h *Histogram) count() (of int64) {
	for _, n := range h {
		of += int64(n)
	}
	return of
}

// at is the time that so many do not exceed; of more than there are, the longest.
func (h *Histogram) at(rank float64) (longest time.Duration) {
	var below int64
	for b, n := range h {
		if n <= 0 {
			continue
		}
		longest = timeOf(b)
		if below += int64(n); float64(below) >= rank {
			break
		}
	}
	return longest
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
