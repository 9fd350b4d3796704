package limit

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// A period begins anew at midnight of its zone; what is reserved over midnight
// counts in both.
func TestPeriods(t *testing.T) {
	t.Parallel()
	var c clock // 2030-01-02 03:04:05 UTC, 04:04:05 in Berlin
	l := New(c.now)
	ls := []*plan.Limit{{Name: "day", Unit: plan.UnitTokens, Amount: 100, Period: plan.Day, Zone: zone(t, "Europe/Berlin")}}
	l.Reserve(ls, request("1", 60, 0))
	l.Settle("1", use(ai.Usage{Input: 60}))
	l.Reserve(ls, request("late", 30, 0))
	midnight := 19*time.Hour + 55*time.Minute + 55*time.Second
	res := l.Reserve(ls, request("2", 20, 0))
	if res.OK || res.RetryAfter != midnight || res.Tokens.Remaining != 10 {
		t.Errorf("%+v, want to retry after %v", res, midnight)
	}
	c.advance(midnight - 1)
	if l.Reserve(ls, request("2", 20, 0)).OK {
		t.Error("admitted before midnight")
	}
	c.advance(1)
	if res := l.Reserve(ls, request("2", 20, 0)); !res.OK || res.Tokens.Remaining != 50 {
		t.Errorf("after midnight: %+v", res)
	}
	l.Settle("late", use(ai.Usage{Input: 30}))
	if res := l.Reserve(ls, request("3", 60, 0)); res.OK || res.Tokens.Remaining != 50 {
		t.Errorf("what was settled after midnight counts after midnight: %+v", res)
	}
}

// A clock that is set forward, as by a mistake that is mended, does not make a
// window shorter.
func TestWindowsGoByTheTimeThatPasses(t *testing.T) {
	t.Parallel()
	now := time.Now() // with what passes beside what the clock says
	l := New(func() time.Time { return now })
	ls := limits(plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 100})
	l.Reserve(ls, request("1", 100, 0))
	l.Settle("1", use(ai.Usage{Input: 100}))
	now = now.Add(time.Second)
	l.Load([]Count{{Limit: "tokens", Unit: plan.UnitTokens, Window: time.Minute, Slots: []Slot{{End: time.Now().Add(9 * time.Hour), N: 1}}}})
	if l.Reserve(ls, request("2", 1, 0)).OK {
		t.Error("admitted")
	}
	now = now.Add(62 * time.Second)
	if !l.Reserve(ls, request("2", 100, 0)).OK {
		t.Error("what was counted in the future stays for longer than a window")
	}
}

func TestConcurrency(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := []*plan.Limit{{Name: "two", Unit: plan.UnitConcurrency, Amount: 2, PerKey: true}}
	l.Reserve(ls, request("1", 5, 5))
	l.Reserve(ls, request("2", 5, 5))
	c.advance(time.Hour)
	if res := l.Reserve(ls, request("3", 5, 5)); res.OK || res.RetryAfter != time.Second || res.Impossible {
		t.Errorf("%+v", res)
	}
	l.Settle("1", use(ai.Usage{Input: 5}))
	if !l.Reserve(ls, request("3", 5, 5)).OK {
		t.Error("the end of one does not let another in")
	}
	l.Release("2")
	l.Release("3")
	if s := l.States(ls, request("4", 0, 0)); len(s) != 1 || s[0].Reserved != 0 || s[0].Used != 0 || s[0].Left != 2 {
		t.Errorf("%+v", s)
	}
}

// perToken is a price of a nano-dollar a token.
var perToken = ai.Price{Input: 1e6, CachedInput: 1e6, Output: 1e6}

// Every attempt that may be billed counts beside the one that answers.
func TestAttemptsThatMayBeBilled(t *testing.T) {
	t.Parallel()
	targets := []Target{
		{Pool: "public", Input: 50, Price: perToken, Billed: true, Tries: 2},
		{Pool: "dear", Input: 100, Price: ai.Price{Input: 3e6, Output: 2e6}, Billed: true},
		{Pool: "private", Input: 120, Price: perToken},
		{Pool: "other", Input: 110, Price: perToken},
	}
	for _, tt := range []struct {
		limit plan.Limit
		want  int64
	}{
		{plan.Limit{Unit: plan.UnitRequests}, 1},
		{plan.Limit{Unit: plan.UnitConcurrency}, 1},
		{plan.Limit{Unit: plan.UnitInputTokens}, 100 + 100 + 120},
		{plan.Limit{Unit: plan.UnitOutputTokens}, 4 * 50},
		{plan.Limit{Unit: plan.UnitTokens}, 2*100 + 150 + 170},
		{plan.Limit{Unit: plan.UnitUSD}, 2*100 + 400 + 170},
		{plan.Limit{Unit: plan.UnitUSD, Pools: map[string]bool{"dear": true, "other": true}}, 400 + 160},
	} {
		r := request("1", 0, 50)
		r.Targets = targets
		tt.limit.Name, tt.limit.Amount, tt.limit.Window = "l", 1000, time.Minute
		if tt.limit.Unit == plan.UnitConcurrency {
			tt.limit.Window = 0
		}
		ls := []*plan.Limit{&tt.limit}
		var c clock
		l := New(c.now)
		if res := l.Reserve(ls, r); !res.OK {
			t.Errorf("%+v", res)
		}
		if s := l.States(ls, r); s[0].Used+s[0].Reserved != tt.want {
			t.Errorf("%s: %+v, want %d", tt.limit.Unit, s[0], tt.want)
		}
	}
}

// A limit of each pool counts what its pool used, and says whose is full.
func TestPoolsApart(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(plan.Limit{Name: "pool", Unit: plan.UnitUSD, Amount: 100, PerPool: true, Pools: map[string]bool{"a": true, "b": true}})
	r := request("1", 0, 0)
	r.Targets = []Target{{Pool: "a", Input: 80, Price: perToken}, {Pool: "b", Input: 70, Price: perToken}, {Pool: "c", Input: 1000, Price: perToken}}
	if !l.Reserve(ls, r).OK {
		t.Fatal("refused")
	}
	r.ID = "2"
	if res := l.Reserve(ls, r); res.OK || res.Pool != "a" && res.Pool != "b" {
		t.Errorf("%+v", res)
	}
	l.Settle("1", []Used{{Pool: "b", Cost: 60}, {Pool: "c", Cost: 5000}})
	for _, s := range l.States(ls, r) {
		if want := map[string]int64{"a": 0, "b": 60}[s.Scope.Pool]; s.Used != want || s.Reserved != 0 {
			t.Errorf("%+v, want %d used", s, want)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	ls := limits(plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 1000}, plan.Limit{Name: "report", Unit: plan.UnitTokens, Amount: 1, OnBreach: plan.BreachReport})
	for _, tt := range []struct {
		taken  int64
		option int
		ok     bool
	}{{0, 0, true}, {750, 0, true}, {751, 1, true}, {870, 1, true}, {871, 2, true}, {980, 2, true}, {981, 0, false}} {
		var c clock
		l := New(c.now)
		l.Reserve(ls[:1], request("before", tt.taken, 0))
		r := request("1", 10, 0)
		r.Options = []Option{{Output: 190, Generous: true}, {Output: 120}, {Output: 10}}
		res := l.Reserve(ls, r)
		if res.OK != tt.ok || res.Option != tt.option || res.OK != (res.Reported == ls[1]) {
			t.Errorf("%d taken: %+v, want option %d", tt.taken, res, tt.option)
		}
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := []*plan.Limit{{Name: "day", Unit: plan.UnitTokens, Amount: 1000, Period: plan.Day, Zone: time.UTC, Breaker: true, AlertAt: []int{100}}}
	var alerts []Alert
	l.OnAlert = func(a Alert) { alerts = append(alerts, a) }
	open := func() bool { return l.States(ls, request("?", 0, 0))[0].Open }
	l.Reserve(ls, request("1", 995, 0))
	if l.Reserve(ls, request("2", 10, 0)); open() {
		t.Error("open while somebody may give something back")
	}
	l.Settle("1", use(ai.Usage{Input: 995}))
	if l.Reserve(ls, request("impossible", 5000, 0)); open() {
		t.Error("opened by a request that is larger than the limit")
	}
	if res := l.Reserve(ls, request("2", 10, 0)); res.OK || !open() || len(alerts) != 1 || alerts[0].Percent != 100 {
		t.Errorf("not open: %+v, alerts %+v", res, alerts)
	}
	if res := l.Reserve(ls, request("3", 1, 0)); res.OK || !res.Open || res.RetryAfter < 20*time.Hour {
		t.Errorf("%+v", res)
	}
	if res := l.Reserve(ls, request("nothing", 0, 0)); !res.OK {
		t.Errorf("who takes nothing is refused: %+v", res)
	}
	was := l.Reset(ls[0], func(Scope) bool { return true })
	if len(was) != 1 || was[0].Used != 995 || !was[0].Open || open() {
		t.Errorf("%+v", was)
	}
	if res := l.Reserve(ls, request("3", 1000, 0)); !res.OK {
		t.Errorf("%+v", res)
	}
	l.Settle("3", use(ai.Usage{Input: 1000}))
	if !open() {
		t.Error("all was used, and it is closed")
	}
	c.advance(24 * time.Hour)
	if res := l.Reserve(ls, request("4", 1000, 0)); !res.OK || open() {
		t.Errorf("the next day: %+v", res)
	}
}

func TestAlertsComeOnce(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	day := &plan.Limit{Name: "day", Unit: plan.UnitTokens, Amount: 1000, Period: plan.Day, Zone: time.UTC, AlertAt: []int{50, 80}, PerTeam: true}
	minute := &plan.Limit{Name: "minute", Unit: plan.UnitTokens, Amount: 100, Window: time.Minute, AlertAt: []int{1}}
	ls := []*plan.Limit{day, minute}
	got := map[string]int{}
	l.OnAlert = func(a Alert) { got[fmt.Sprint(a.Limit.Name, " ", a.Percent, " ", a.Scope)]++ }
	spend := func(n int64) {
		l.Reserve(ls, request("x", 0, 0))
		l.Settle("x", use(ai.Usage{Input: n}))
	}
	for range 60 {
		spend(10)
	}
	want := map[string]int{"day 50 team=t": 1, "minute 1 all": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	c.advance(2 * time.Minute)
	spend(200)
	want["day 80 team=t"], want["minute 1 all"] = 1, 2
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	c.advance(24 * time.Hour)
	spend(500)
	want["day 50 team=t"], want["minute 1 all"] = 2, 3
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Millions of users fill no memory: beyond a bound they share one count.
func TestUsersBeyondTheBoundShareACount(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(plan.Limit{Name: "user", Unit: plan.UnitRequests, Amount: 2, PerUser: true})
	ask := func(user string) bool {
		r := request("1", 0, 0)
		r.Principal.User = user
		ok := l.Reserve(ls, r).OK
		l.Settle("1", nil)
		return ok
	}
	for i := range maxUsers {
		if !ask(fmt.Sprint("user-", i)) {
			t.Fatalf("user %d is refused", i)
		}
	}
	if !ask("one more") || !ask("and another") || ask("a third") {
		t.Error("those beyond do not share a count of two")
	}
	if !ask("user-7") || ask("user-7") {
		t.Error("a known user has not its own count")
	}
	if n := len(l.counters); n != maxUsers+1 {
		t.Errorf("%d counters", n)
	}
	c.advance(2 * time.Minute)
	if !ask("later") {
		t.Error("refused when all the others have left")
	}
}

func TestHostileNumbers(t *testing.T) {
	t.Parallel()
	var c clock
	l := New(c.now)
	ls := limits(
		plan.Limit{Name: "tokens", Unit: plan.UnitTokens, Amount: 1e12},
		plan.Limit{Name: "usd", Unit: plan.UnitUSD, Amount: 9e15},
	)
	for _, n := range []int64{math.MinInt64, -1, math.MaxInt64} {
		r := request("1", n, n)
		r.Targets[0].Price = ai.Price{Input: math.MaxInt64, CachedInput: math.MaxInt64, Output: math.MaxInt64}
		r.Targets[0].Billed, r.Targets[0].Overrun = true, n
		if res := l.Reserve(ls, r); res.OK != (n < 0) {
			t.Errorf("%d: %+v", n, res)
		}
		l.Settle("1", []Used{{Pool: "p", Usage: ai.Usage{Input: n, CachedInput: n, Output: n}, Cost: ai.NanoUSD(n)}})
		for _, s := range l.States(ls, r) {
			if s.Used < 0 || s.Reserved != 0 || s.Left < 0 {
				t.Errorf("%d: %+v", n, s)
			}
		}
	}
}
