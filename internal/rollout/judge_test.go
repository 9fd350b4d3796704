package rollout

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

var defaults = plan.RolloutJudge{MinRequests: 100, MaxErrorRateIncrease: 0.02, MaxRefusalRateIncrease: 0.02, MaxFirstTokenRatio: 1.5}

// step sends requests, of which the share goes to the canary, and judges after each; it
// gives how many the canary had when it was aborted, or 0.
func step(r *rand.Rand, share float64, requests int, send func(to *Arm, canary bool)) int64 {
	var a arms
	for range requests {
		arm, canary := &a.From, r.Float64() < share
		if canary {
			arm = &a.To
		}
		arm.Requests++
		send(arm, canary)
		if judge(&defaults, &a).abort != "" {
			return a.To.Requests
		}
	}
	return 0
}

// A canary as good as the old pool is seldom aborted, however many have moved and
// however often it is judged; one at which everything fails is left soon all the same.
func TestChance(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const steps, requests = 200, 1500
	fails := func(base, canary float64) func(*Arm, bool) {
		return func(arm *Arm, to bool) {
			p := base
			if to {
				p = canary
			}
			if r.Float64() < p {
				arm.Errors++
			}
		}
	}
	for _, share := range []float64{0.05, 0.25, 0.5, 0.75, 0.9} {
		for _, base := range []float64{0, 0.01, 0.05, 0.1} {
			n := 0
			for range steps {
				if step(r, share, requests, fails(base, base)) > 0 {
					n++
				}
			}
			if n > steps/20 {
				t.Errorf("share %v, both fail at %v: %d of %d aborted", share, base, n, steps)
			}
		}
		var most int64
		for range steps {
			n := step(r, share, requests, fails(0.01, 1))
			if n == 0 {
				t.Fatalf("share %v: a canary that always fails is not aborted", share)
			}
			most = max(most, n)
		}
		if most > 60 { // where the old pool failed at the only request that it had
			t.Errorf("share %v: a canary that always fails got %d requests", share, most)
		}
	}
}

// Times to the first token scatter: a canary within the ratio is seldom aborted, and one
// at twice the ratio is.
func TestChanceOfTimes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	times := func(slower float64) func(*Arm, bool) {
		return func(arm *Arm, to bool) {
			d := 300 * math.Exp(r.NormFloat64())
			if to {
				d *= slower
			}
			arm.First.Add(time.Duration(d * float64(time.Millisecond)))
		}
	}
	for _, c := range []struct {
		slower      float64
		least, most int
	}{{1, 0, 1}, {1.25, 0, 3}, {3, 100, 100}} {
		n := 0
		for range 100 {
			if step(r, 0.5, 1000, times(c.slower)) > 0 {
				n++
			}
		}
		if n < c.least || n > c.most {
			t.Errorf("%v times as slow: %d of 100 aborted, want %d to %d", c.slower, n, c.least, c.most)
		}
	}
	var a arms
	for range 200 {
		a.To.Requests++
		a.From.Requests++
		times(1.6)(&a.To, true)
		times(1)(&a.From, false)
	}
	if v := judge(&defaults, &a); v.abort != "" || !strings.HasPrefix(v.hold, "not sure yet: median") {
		t.Errorf("what may be slower is no reason to wait: %+v", v)
	}
}
