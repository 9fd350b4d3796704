package limit

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// clock is set by the test.
type clock struct{ ns atomic.Int64 }

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func (c *clock) now() time.Time          { return start.Add(time.Duration(c.ns.Load())) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

func request(id string, input, output int64) *Request {
	return &Request{
		ID: id, Principal: ai.Principal{Key: "k", Application: "a", Team: "t"}, Model: "m",
		Targets: []Target{{Pool: "p", Input: input}}, Options: []Option{{Output: output}},
	}
}

// use is what the pool of request says was used.
func use(u ai.Usage) []Used { return []Used{{Pool: "p", Usage: u}} }

func limits(ls ...plan.Limit) []*plan.Limit {
	out := make([]*plan.Limit, len(ls))
	for i := range ls {
		if ls[i].Window == 0 {
			ls[i].Window = time.Minute
		}
		out[i] = &ls[i]
	}
	return out
}

func TestUnits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		unit         plan.Unit
		reserve, use int64 // what remains of 100
	}{
		{plan.UnitRequests, 99, 99},
		{plan.UnitInputTokens, 90, 93},
		{plan.UnitOutputTokens, 80, 96},
		{plan.UnitTokens, 70, 89},
	} {
		var c clock
		l := New(c.now)
		ls := limits(plan.Limit{Name: "l", Unit: tt.unit, Amount: 100})
		figure := func(res Result) Figure {
			if tt.unit == plan.UnitRequests {
				return res.Requests
			}
			return res.Tokens
		}
		res := l.Reserve(ls, request("1", 10, 20))
		if f := figure(res); !res.OK || !res.Held || f.Limit != 100 || f.Remaining != tt.reserve {
			t.Errorf("%s: reserved %+v, want %d to remain", tt.unit, res, tt.reserve)
		}
		l.Settle("1", use(ai.Usage{Input: 5, CachedInput: 2, Output: 4, Reasoning: 3}))
		l.Settle("1", use(ai.Usage{Input: 50, Output: 4}))
		l.Release("1")
		if res := l.Reserve(ls, request("2", 0, 0)); tt.unit != plan.UnitRequests && figure(res).Remaining != tt.use {
			t.Errorf("%s: settled %+v, want %d to remain", tt.unit, res, tt.use)
		} else if tt.unit == plan.UnitRequests && res.Requests.Remaining != 98 {
			t.Errorf("%s: %+v", tt.unit, res)
		}
		if l.Held() != 1 {
			t.Errorf("%d held, want 1", l.Held())
		}
	}
}

func TestAllOrNone(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(
		plan.Limit{Name: "requests", Unit: plan.UnitRequests, Amount: 10},
		plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 100},
		plan.Limit{Name: "others", Unit: plan.UnitTokens, Amount: 1, Teams: map[string]bool{"other": true}},
	)
	if res := l.Reserve(ls, request("1", 50, 51)); res.OK || res.Held || !res.Impossible || res.Limit != ls[1] || res.RetryAfter != 0 {
		t.Errorf("%+v", res)
	}
	res := l.Reserve(ls, request("2", 50, 50))
	if !res.OK || res.Requests != (Figure{10, 9, 61 * time.Second}) || res.Tokens != (Figure{100, 0, time.Minute}) {
		t.Errorf("the refused request left something: %+v", res)
	}
	if res := l.Reserve(ls, request("3", 1, 0)); res.OK || res.Impossible || res.Limit != ls[1] || res.RetryAfter != 6*time.Second {
		t.Errorf("%+v", res)
	}
	l.Release("2")
	if res := l.Reserve(ls, request("4", 50, 50)); !res.OK || res.Requests.Remaining != 9 {
		t.Errorf("release left something: %+v", res)
	}
	if res := l.Reserve(nil, request("5", 1, 1)); !res.OK || res.Held || res.Requests.Limit != 0 {
		t.Errorf("without limits: %+v", res)
	}
}

func TestRetryAfterIsEnoughAndNotTooMuch(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 100})
	for i := range 5 {
		id := fmt.Sprint(i)
		l.Reserve(ls, request(id, 20, 0))
		l.Settle(id, use(ai.Usage{Input: 20}))
		c.advance(7 * time.Second)
	}
	res := l.Reserve(ls, request("x", 35, 0))
	if res.OK || res.RetryAfter <= 0 {
		t.Fatalf("%+v", res)
	}
	// Two of the five must leave: the second was counted at 7 s, in the slot
	// that ends at 8 s, and it is 35 s now.
	if want := (8 + 60 - 35) * time.Second; res.RetryAfter != want {
		t.Errorf("retry after %v, want %v", res.RetryAfter, want)
	}
	c.advance(res.RetryAfter - 1)
	if l.Reserve(ls, request("x", 35, 0)).OK {
		t.Error("admitted before")
	}
	c.advance(1)
	if !l.Reserve(ls, request("x", 35, 0)).OK {
		t.Error("refused after")
	}
}

func TestOvershootIsDebt(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 100}, plan.Limit{Name: "out", Unit: plan.UnitOutputTokens, Amount: 10})
	l.Reserve(ls, request("1", 10, 10))
	l.Settle("1", use(ai.Usage{Input: 10, Output: 500}))
	if res := l.Reserve(ls, request("2", 1, 0)); res.OK || res.Limit != ls[0] || res.Tokens.Remaining != 0 {
		t.Errorf("%+v", res)
	}
	if res := l.Reserve(ls[1:], request("3", 1, 0)); !res.OK {
		t.Errorf("a request without output is refused for a debt of output: %+v", res)
	}
	l.Release("3")
	c.advance(61 * time.Second)
	if res := l.Reserve(ls, request("4", 1, 0)); !res.OK || res.Tokens.Remaining != 10 {
		t.Errorf("the debt stays: %+v", res)
	}
}

// Tokens of a long answer may come at any moment until it ends.
func TestReservationStaysUntilSettled(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 100}, plan.Limit{Name: "requests", Unit: plan.UnitRequests, Amount: 1})
	l.Reserve(ls, request("1", 0, 60))
	c.advance(10 * time.Minute)
	if res := l.Reserve(ls, request("2", 0, 60)); res.OK || res.Limit != ls[0] {
		t.Errorf("%+v", res)
	}
	l.Settle("1", use(ai.Usage{Output: 60}))
	c.advance(59 * time.Second)
	if res := l.Reserve(ls, request("2", 0, 60)); res.OK {
		t.Errorf("%+v", res)
	}
	c.advance(2 * time.Second)
	if res := l.Reserve(ls, request("2", 0, 60)); !res.OK {
		t.Errorf("%+v", res)
	}
}

func TestScopesHaveCountsOfTheirOwn(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(
		plan.Limit{Name: "key", Unit: plan.UnitRequests, Amount: 1, PerKey: true},
		plan.Limit{Name: "team-model", Unit: plan.UnitRequests, Amount: 2, PerTeam: true, PerModel: true},
		plan.Limit{Name: "all", Unit: plan.UnitRequests, Amount: 4},
	)
	for i, tt := range []struct {
		key, team, model string
		limit            string // that refuses
	}{
		{"k1", "t1", "m1", ""},
		{"k1", "t1", "m1", "key"},
		{"k2", "t1", "m1", ""},
		{"k3", "t1", "m1", "team-model"},
		{"k3", "t1", "m2", ""},
		{"k4", "t2", "m1", ""},
		{"k5", "t2", "m1", "all"},
	} {
		res := l.Reserve(ls, &Request{ID: fmt.Sprint(i), Principal: ai.Principal{Key: tt.key, Team: tt.team}, Model: tt.model})
		got := ""
		if res.Limit != nil {
			got = res.Limit.Name
		}
		if got != tt.limit || res.OK != (tt.limit == "") {
			t.Errorf("request %d: refused by %q, want %q", i, got, tt.limit)
		}
	}
}

func TestNewPlanKeepsCounts(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	l.Reserve(limits(plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 100, PerKey: true}), request("1", 90, 0))
	changed := limits(plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 110, Window: time.Hour, PerKey: true})
	if res := l.Reserve(changed, request("2", 15, 0)); !res.OK || res.Tokens.Remaining != 5 {
		t.Errorf("%+v", res)
	}
	l.Settle("1", use(ai.Usage{Input: 90}))
	c.advance(59 * time.Minute)
	if res := l.Reserve(changed, request("3", 6, 0)); res.OK {
		t.Errorf("the longer window is not kept: %+v", res)
	}
	other := limits(plan.Limit{Name: "tokens", Unit: plan.UnitRequests, Amount: 1, PerKey: true})
	if res := l.Reserve(other, request("4", 0, 0)); !res.OK {
		t.Errorf("tokens count as requests: %+v", res)
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 100}, plan.Limit{Name: "requests", Unit: plan.UnitRequests, Amount: 10})
	ago := func(d time.Duration) time.Time { return start.Add(-d) }
	l.Restore(ls, request("open", 20, 20), ago(90*time.Second))
	l.Restore(ls, request("open", 20, 20), ago(90*time.Second))
	l.Count(ls, request("settled", 20, 20), use(ai.Usage{Input: 30, Output: 100}), ago(70*time.Second), ago(10*time.Second))
	l.Count(ls, request("older", 20, 20), use(ai.Usage{Input: 1}), ago(20*time.Second), ago(20*time.Second))
	l.Count(ls, request("long ago", 20, 20), use(ai.Usage{Input: 5, Output: 5}), ago(62*time.Second), ago(62*time.Second))
	if l.Held() != 1 {
		t.Errorf("%d held, want 1", l.Held())
	}
	res := l.Reserve(ls, request("1", 1, 0))
	if res.OK || res.Tokens.Remaining != 0 || res.Requests.Remaining != 9 {
		t.Errorf("%+v", res)
	}
	c.advance(41 * time.Second) // the older one leaves
	l.Settle("open", use(ai.Usage{Output: 10}))
	c.advance(10 * time.Second)
	if res := l.Reserve(ls, request("1", 1, 0)); !res.OK || res.Tokens.Remaining != 89 || res.Requests.Remaining != 9 {
		t.Errorf("%+v", res)
	}
}

func TestSameIDTwiceForgetsNothing(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 100})
	l.Reserve(ls, request("", 40, 0))
	l.Reserve(ls, request("", 40, 0))
	if res := l.Reserve(ls, request("", 40, 0)); res.OK || l.Held() != 1 {
		t.Errorf("%+v", res)
	}
	l.Release("")
	if res := l.Reserve(ls, request("1", 60, 0)); !res.OK || res.Tokens.Remaining != 0 {
		t.Errorf("%+v", res)
	}
}

func TestIdleCountersAreDropped(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(
		plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 1000, PerKey: true},
		plan.Limit{Name: "all", Unit: plan.UnitTokens, Amount: 1e12, Window: time.Hour},
	)
	reserve := func(id string) {
		r := request(id, 1, 1)
		r.Principal.Key = id
		if res := l.Reserve(ls, r); !res.OK {
			t.Fatalf("%+v", res)
		}
	}
	reserve("held for long")
	most := 0
	for i := range 20_000 {
		id := fmt.Sprint(i)
		reserve(id)
		l.Settle(id, use(ai.Usage{Input: 1}))
		c.advance(100 * time.Millisecond) // 610 keys in a window and a slot
		most = max(most, len(l.counters))
	}
	if most > 700 {
		t.Errorf("%d counters at the most, want some 610", most)
	}
	if l.Held() != 1 || len(l.spare) > 2 {
		t.Errorf("%d held, %d spare", l.Held(), len(l.spare))
	}
}

func TestClockSetBack(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 100})
	c.advance(time.Hour)
	l.Reserve(ls, request("1", 100, 0))
	l.Settle("1", use(ai.Usage{Input: 100}))
	c.advance(-2 * time.Hour)
	if l.Reserve(ls, request("2", 1, 0)).OK {
		t.Error("a clock set back freed the window")
	}
}
