package rollout

import (
	"fmt"
	"math"
	"time"

	"github.com/weirproxy/weir/internal/live"
	"github.com/weirproxy/weir/internal/plan"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// Arm is what was counted in a step of the requests that went to one pool first.
type Arm struct {
	Requests int64
	Errors   int64 // the pool failed or was too busy, whatever the client got in the end
	Refusals int64 // the pool refused, or a content filter ended the answer
	First    live.Histogram
}

// arms are both sides.
type arms struct{ To, From Arm }

func (a *arms) merge(b *arms) {
	for _, side := range [...]struct{ into, other *Arm }{{&a.To, &b.To}, {&a.From, &b.From}} {
		side.into.Requests += side.other.Requests
		side.into.Errors += side.other.Errors
		side.into.Refusals += side.other.Refusals
		side.into.First.Merge(&side.other.First)
	}
}

// take counts a request by its first attempt, at the arm's pool. Who went away before
// the end says nothing of the pool.
func (a *Arm) take(e *usagev1.Event) {
	first := e.GetAttempts()[0]
	alone := len(e.GetAttempts()) == 1
	status := first.GetStatus()
	switch {
	case first.GetFailure() == "client_gone":
		return
	case status == 429, first.GetFailure() != "", status >= 500, status == 0:
		a.Errors++
	case status >= 400, alone && e.GetFinishReason() == "content_filter":
		a.Refusals++
	case alone && e.GetFirstTokenUs() > 0: // after a failover the time is not this pool's alone
		a.First.Add(time.Duration(e.GetFirstTokenUs()) * time.Microsecond)
	}
	a.Requests++
}

// verdict is what the counts of a step say: abort is why the canary surely does worse,
// hold why the next step must wait. Both empty: it does as well.
type verdict struct{ abort, hold string }

// judge compares the canary with the old pool.
func judge(j *plan.RolloutJudge, a *arms) (v verdict) {
	to, from := &a.To, &a.From
	if to.Requests < j.MinRequests {
		v.hold = fmt.Sprintf("%d of %d requests", to.Requests, j.MinRequests)
	}
	for _, c := range [...]struct {
		what      string
		bad, base int64
		margin    float64
	}{
		{"error rate", to.Errors, from.Errors, j.MaxErrorRateIncrease},
		{"refusal rate", to.Refusals, from.Refusals, j.MaxRefusalRateIncrease},
	} {
		// A few requests of the old pool, of which some are bad, would excuse anything.
		most := math.Min(1, rate(c.base, max(from.Requests, j.MinRequests))+c.margin)
		told := fmt.Sprintf("%s %d of %d, at most %.3g %% (the old pool's: %d of %d)", c.what, c.bad, to.Requests, 100*most, c.base, from.Requests)
		switch {
		case float64(c.bad) > surely(most, max(to.Requests, j.MinRequests)) && apart(c.bad, to.Requests, c.base, from.Requests, c.margin):
			v.abort = told
			return v
		case rate(c.bad, to.Requests) > most && v.hold == "":
			v.hold = "not sure yet: " + told
		}
	}
	if v.hold == "" && 2*to.Errors > to.Requests { // where the old pool does no better: a step is no way out
		v.hold = fmt.Sprintf("most of its requests fail: %d of %d (the old pool's: %d of %d)", to.Errors, to.Requests, from.Errors, from.Requests)
	}
	toFirst, n := to.First.Median()
	fromFirst, of := from.First.Median()
	if j.MaxFirstTokenRatio > 0 && n >= j.MinRequests && of >= j.MinRequests && float64(toFirst) > j.MaxFirstTokenRatio*float64(fromFirst) {
		told := fmt.Sprintf("median time to the first token %s of %d, at most %g × %s of %d", rounded(toFirst), n, j.MaxFirstTokenRatio, rounded(fromFirst), of)
		// Times scatter widely: of a hundred, the median may be a fifth off.
		least, _ := to.First.Likely()
		_, most := from.First.Likely()
		switch {
		case float64(least) > j.MaxFirstTokenRatio*float64(most):
			v.abort = told
		case v.hold == "":
			v.hold = "not sure yet: " + told
		}
	}
	return v
}

// apart tells whether two rates differ by more than the margin and by more than chance.
// The old pool's is as uncertain as the canary's, and more so when most requests have
// moved: that it failed at none of ten does not say that it never fails.
func apart(bad, of, base, baseOf int64, margin float64) bool {
	n, m := float64(of), float64(max(baseOf, 1))
	p := math.Min(1, float64(bad+base)/(n+m))
	return float64(bad)/n-float64(base)/m-margin > 2.5*math.Sqrt(p*(1-p)*(1/n+1/m))
}

// surely is what so many requests seldom exceed by chance if each is bad with this
// probability: two standard deviations above the mean.
func surely(p float64, n int64) float64 {
	mean := p * float64(n)
	return mean + 2*math.Sqrt(mean*(1-p))
}

func rate(bad, of int64) float64 {
	if of == 0 {
		return 0
	}
	return float64(bad) / float64(of)
}

func rounded(d time.Duration) time.Duration { return d.Round(d / 100).Round(100 * time.Microsecond) }

// tally is what one process counted, as it is stored. Sparse: most buckets are empty.
type tally struct {
	Revision int64    `json:"revision"` // of the rollout at which it counted
	To       armTally `json:"to"`
	From     armTally `json:"from"`
}

type armTally struct {
	Requests int64         `json:"requests"`
	Errors   int64         `json:"errors,omitempty"`
	Refusals int64         `json:"refusals,omitempty"`
	First    map[int]int32 `json:"first,omitempty"` // by bucket
}

func tallyOf(a *Arm) armTally {
	t := armTally{Requests: a.Requests, Errors: a.Errors, Refusals: a.Refusals, First: map[int]int32{}}
	for i, n := range a.First {
		if n > 0 {
			t.First[i] = n
		}
	}
	return t
}

func (t *armTally) arm() (a Arm, ok bool) {
	a = Arm{Requests: t.Requests, Errors: t.Errors, Refusals: t.Refusals}
	for i, n := range t.First {
		if i < 0 || i >= len(a.First) || n < 0 {
			return a, false
		}
		a.First[i] = n
	}
	return a, t.Requests >= 0 && t.Errors >= 0 && t.Refusals >= 0
}
