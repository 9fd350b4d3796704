package limit

import (
	"fmt"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

func budget(amount int64, breaker bool, alerts ...int) *plan.Limit {
	return &plan.Limit{Name: "b", Unit: plan.UnitTokens, Amount: amount, Period: plan.Day, Zone: time.UTC, Breaker: breaker, AlertAt: alerts}
}

// A request of before a budget was raised is judged by the budget as it is now.
func TestRaisedBudgetStaysOpen(t *testing.T) {
	var c clock
	l := New(c.now)
	var alerts []int
	l.OnAlert = func(a Alert) { alerts = append(alerts, a.Percent) }
	old, now := []*plan.Limit{budget(100, true, 100)}, []*plan.Limit{budget(1000, true, 100)}
	if !l.Reserve(old, request("1", 60, 0)).OK || !l.Reserve(old, request("2", 40, 0)).OK {
		t.Fatal("refused")
	}
	l.Settle("1", use(ai.Usage{Input: 60}))
	// The operator raises the budget, and a request is judged by it; then the second
	// one ends.
	l.Check(now, request("?", 1, 0))
	l.Settle("2", use(ai.Usage{Input: 40}))
	res := l.Reserve(now, request("3", 1, 0))
	if !res.OK || len(alerts) > 0 {
		t.Errorf("%+v, alerts %v", res, alerts)
	}
}

// A breaker that is taken out of the configuration closes nothing.
func TestBreakerTakenOut(t *testing.T) {
	var c clock
	l := New(c.now)
	l.Reserve([]*plan.Limit{budget(100, true)}, request("1", 100, 0))
	l.Settle("1", use(ai.Usage{Input: 100}))
	if res := l.Reserve([]*plan.Limit{budget(1000, false)}, request("2", 1, 0)); !res.OK {
		t.Errorf("%+v", res)
	}
}

// A small answer's overrun counts too.
func TestOverrunOfSmallAnswers(t *testing.T) {
	tg := Target{Overrun: 500}
	if n := tg.amount(plan.UnitOutputTokens, 90); n < 540 {
		t.Error(n)
	}
	if n := tg.amount(plan.UnitOutputTokens, 256); n < 1536 {
		t.Error(n)
	}
}

// Users of a period that is past take no places of today's.
func TestUsersOfThePast(t *testing.T) {
	var c clock
	l := New(c.now)
	ls := []*plan.Limit{{Name: "u", Unit: plan.UnitTokens, Amount: 100, Period: plan.Day, Zone: time.UTC, PerUser: true}}
	yesterday := c.now().Add(-24 * time.Hour)
	for i := range maxUsers {
		r := request("", 1, 0)
		r.Principal.User = fmt.Sprint("x", i)
		l.Count(ls, r, use(ai.Usage{Input: 1}), yesterday, yesterday)
	}
	for _, u := range []string{"a", "b"} {
		r := request("", 1, 0)
		r.Principal.User = u
		l.Count(ls, r, use(ai.Usage{Input: 60}), c.now(), c.now())
	}
	r := request("q", 10, 0)
	r.Principal.User = "c"
	if res := l.Reserve(ls, r); !res.OK {
		t.Errorf("c used nothing: %+v", res)
	}
	c.advance(2 * time.Second)
	r = request("q2", 100, 0)
	r.Principal.User = "a"
	for range 10 {
		l.Reserve(ls, request("zz", 1, 0))
	}
	if res := l.Reserve(ls, r); res.OK {
		t.Errorf("a used 60 and reserves 100 of 100")
	}
}

// What a reset gave back is not given back again when its request is withdrawn.
func TestResetThenRelease(t *testing.T) {
	var c clock
	l := New(c.now)
	ls := []*plan.Limit{{Name: "r", Unit: plan.UnitRequests, Amount: 2, Period: plan.Day, Zone: time.UTC}}
	l.Reserve(ls, request("1", 1, 0))
	l.Reset(ls[0], func(Scope) bool { return true })
	l.Reserve(ls, request("2", 1, 0))
	l.Reserve(ls, request("3", 1, 0))
	l.Release("1")
	if l.Reserve(ls, request("4", 1, 0)).OK {
		t.Error("3 requests since the reset, of 2")
	}
}

// Who waits for a debt to leave is told so.
func TestRetryAfterADebt(t *testing.T) {
	var c clock
	l := New(c.now)
	ls := limits(plan.Limit{Name: "t", Unit: plan.UnitTokens, Amount: 100})
	for i, n := range []int64{10, 500} {
		id := fmt.Sprint(i)
		l.Reserve(ls, request(id, 10, 0))
		l.Settle(id, use(ai.Usage{Input: n}))
		c.advance(20 * time.Second)
	}
	res := l.Reserve(ls, request("x", 5, 0))
	c.advance(res.RetryAfter - 1)
	if l.Reserve(ls, request("x", 5, 0)).OK {
		t.Errorf("there is room before %v", res.RetryAfter)
	}
	c.advance(1)
	if res := l.Reserve(ls, request("x", 5, 0)); !res.OK {
		t.Errorf("%+v", res)
	}
}

// Other percentages do not tell again what was told, nor keep back what was not.
func TestOtherAlertPercentages(t *testing.T) {
	var c clock
	l := New(c.now)
	var alerts []int
	l.OnAlert = func(a Alert) { alerts = append(alerts, a.Percent) }
	old, now := []*plan.Limit{budget(100, false, 50, 80, 100)}, []*plan.Limit{budget(100, false, 80, 100)}
	l.Reserve(old, request("1", 60, 0))
	l.Settle("1", use(ai.Usage{Input: 60}))
	l.Reserve(now, request("2", 30, 0))
	l.Settle("2", use(ai.Usage{Input: 30}))
	if fmt.Sprint(alerts) != "[50 80]" {
		t.Error(alerts)
	}
}

// A budget that is found to be used is told of with the next use.
func TestAlertsOfACountedBudget(t *testing.T) {
	var c clock
	l := New(c.now)
	var alerts []int
	l.OnAlert = func(a Alert) { alerts = append(alerts, a.Percent) }
	now := c.now()
	l.Count([]*plan.Limit{budget(100, false, 50, 80, 100)}, request("1", 90, 0), use(ai.Usage{Input: 90}), now, now)
	l.Reserve([]*plan.Limit{budget(100, false, 50, 80, 100)}, request("2", 5, 0))
	l.Settle("2", use(ai.Usage{Input: 5}))
	if fmt.Sprint(alerts) != "[50 80]" {
		t.Errorf("95 per cent are used, alerts at %v", alerts)
	}
}

// Who only looks opens no breaker.
func TestProbeOpensNoBreaker(t *testing.T) {
	var c clock
	l := New(c.now)
	n := 0
	l.OnAlert = func(a Alert) { n++ }
	ls := []*plan.Limit{budget(1000, true, 100)}
	l.Reserve(ls, request("1", 991, 0))
	l.Settle("1", use(ai.Usage{Input: 991}))
	l.Check(ls, request(ai.ProbeID("0123456789abcdef0123456789abcdef"), 10, 0))
	if res := l.Reserve(ls, request("2", 5, 0)); !res.OK || n > 0 {
		t.Errorf("alerts %d %+v", n, res)
	}
}
