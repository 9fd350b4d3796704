package quota

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	counting "github.com/weirproxy/weir/tokens"
)

// ledger is a real one that notes what it is asked.
type ledger struct {
	*limit.Ledger
	checked, reserved int
	released          []string
}

func newLedger() *ledger { return &ledger{Ledger: limit.New(time.Now)} }

func (l *ledger) Check(limits []*plan.Limit, r *limit.Request) limit.Result {
	l.checked++
	return l.Ledger.Check(limits, r)
}

func (l *ledger) Reserve(limits []*plan.Limit, r *limit.Request) limit.Result {
	l.reserved++
	return l.Ledger.Reserve(limits, r)
}

func (l *ledger) Release(id string) {
	l.released = append(l.released, id)
	l.Ledger.Release(id)
}

// take uses up n tokens of the pool p, or n nano-dollars.
func (l *ledger) take(t *testing.T, n int64, limits ...*plan.Limit) {
	t.Helper()
	r := &limit.Request{ID: fmt.Sprint("before-", l.reserved), Principal: us, Model: "m", Targets: []limit.Target{{Pool: "p", Input: n, Price: ai.Price{Input: 1e6}}}}
	if res := l.Ledger.Reserve(limits, r); !res.OK {
		t.Fatalf("%+v", res)
	}
}

var us = ai.Principal{Key: "k", Team: "us"}

// count counts as it is told: n, exactly or not, with bound above it.
type count struct {
	bound, n int64
	exact    bool
	asked    *int
}

func (c count) Bound(*pipeline.Exchange) int64 { return c.bound }

func (c count) Count(*pipeline.Exchange, *plan.Pool) counting.Count {
	if c.asked != nil {
		*c.asked++
	}
	if c.exact {
		return counting.Count{Tokens: c.n, Bound: c.n, Exact: true}
	}
	return counting.Count{Tokens: c.n, Bound: c.bound}
}

var (
	requests = &plan.Limit{Name: "r", Unit: plan.UnitRequests, Amount: 5, Window: time.Minute}
	tokens   = &plan.Limit{Name: "t", Unit: plan.UnitTokens, Amount: 1000, Window: time.Minute}
	input    = &plan.Limit{Name: "i", Unit: plan.UnitInputTokens, Amount: 1000, Window: time.Minute}
	output   = &plan.Limit{Name: "o", Unit: plan.UnitOutputTokens, Amount: 100, Window: time.Minute}
	money    = &plan.Limit{Name: "usd", Unit: plan.UnitUSD, Amount: 10_000, Period: plan.Month, Zone: time.UTC}
	others   = &plan.Limit{Name: "x", Unit: plan.UnitTokens, Amount: 1, Window: time.Minute, Teams: map[string]bool{"others": true}}
)

const (
	plain = `{"model":"m","messages":[]}`
	given = `{"model":"m","max_tokens":50,"messages":[]}`
	much  = `{"model":"m","max_tokens":5000,"messages":[]}`
	three = `{"model":"m","n":3,"messages":[]}`
	huge  = `{"model":"m","n":999999999999999,"max_tokens":999999999999999,"messages":[]}`
	embed = `{"model":"m","input":"x"}`
)

// exchange has been routed to the pools p and q, of which q costs a nano-dollar a
// token.
func exchange(t *testing.T, kind ai.Kind, body string, c count, window int64, limits ...*plan.Limit) *pipeline.Exchange {
	t.Helper()
	ex := new(pipeline.Exchange)
	ex.Begin(&plan.Plan{Limits: limits}, "id", time.Time{}, nil, true)
	ex.In.Kind, ex.In.Body = kind, []byte(body)
	ex.Principal = us
	if fault := openai.Parse(kind, ex.In.Body, 64, &ex.In.Request); fault != nil {
		t.Fatal(fault)
	}
	ex.Estimate = pipeline.NewEstimate(c, ex)
	ex.Decision.Model = &plan.Model{Name: "m", DefaultMaxTokens: 400, MinOutputTokens: 20}
	ex.Decision.Targets = []*plan.Pool{{Name: "p"}, {Name: "q", ContextWindow: window, Prices: []plan.PricePeriod{{Price: ai.Price{Input: 1e6, CachedInput: 1e6, Output: 1e6}}}}}
	ex.Decision.Bar = func(_ *pipeline.Exchange, p *plan.Pool) ai.Reason {
		if p.Name == "barred" {
			return ai.ReasonEgressNotAllowed
		}
		return ai.ReasonNone
	}
	return ex
}

func exact(n int64) count { return count{bound: 10 * n, n: n, exact: true} }

func TestReserve(t *testing.T) {
	for _, tc := range []struct {
		name    string
		kind    ai.Kind
		body    string
		count   count
		window  int64
		taken   int64 // tokens before
		likely  int64 // output that answers are known to have
		limits  []*plan.Limit
		in, out int64 // reserved
		max     int64 // max_tokens as sent; 0 for none
		reason  ai.Reason
	}{
		{name: "no limit", body: plain, count: count{bound: 9}},
		{name: "limit of another team", body: plain, count: count{bound: 9}, limits: []*plan.Limit{others}},
		{name: "requests only: nothing is lowered", body: much, count: exact(1), limits: []*plan.Limit{requests}, in: 1, out: 5000, max: 5000},
		{name: "default ceiling", body: plain, count: count{bound: 100}, limits: []*plan.Limit{tokens}, in: 100, out: 400, max: 400},
		{name: "the client's ceiling", body: given, count: count{bound: 100}, limits: []*plan.Limit{tokens}, in: 100, out: 50, max: 50},
		{name: "never raised", body: given, count: count{bound: 100}, limits: []*plan.Limit{output}, in: 100, out: 50, max: 50},
		{name: "lowered to what the limit holds", body: much, count: exact(100), limits: []*plan.Limit{tokens}, in: 100, out: 900, max: 900},
		{name: "lowered beside a bound that cannot be counted", body: much, count: count{bound: 400, n: 100}, limits: []*plan.Limit{tokens}, in: 400, out: 600, max: 600},
		{name: "lowered to the floor when little is left", body: much, count: exact(100), taken: 500, limits: []*plan.Limit{tokens}, in: 100, out: 20, max: 20},
		{name: "lowered to what is likely when little is left", body: much, count: exact(100), taken: 500, likely: 127, limits: []*plan.Limit{tokens}, in: 100, out: 127, max: 127},
		{name: "not under the floor", body: much, count: exact(100), taken: 881, limits: []*plan.Limit{tokens}, reason: ai.ReasonLimitExceeded},
		{name: "a client that asks for less than the floor", body: `{"model":"m","max_tokens":5,"messages":[]}`, count: exact(100), taken: 895, limits: []*plan.Limit{tokens}, in: 100, out: 5, max: 5},
		{name: "not under a thinking budget", body: `{"model":"m","max_tokens":5000,"thinking_budget":300,"messages":[]}`, count: exact(100), taken: 500, limits: []*plan.Limit{tokens}, in: 100, out: 301, max: 301},
		{name: "a thinking budget that the limit cannot hold", body: `{"model":"m","max_tokens":5000,"thinking":{"budget_tokens":950},"messages":[]}`, count: exact(100), limits: []*plan.Limit{tokens}, reason: ai.ReasonLimitExceeded},
		{name: "each answer counts", body: three, count: count{bound: 100}, limits: []*plan.Limit{tokens}, in: 100, out: 900, max: 300},
		{name: "output limit over all answers", body: three, count: count{bound: 100}, limits: []*plan.Limit{output}, in: 100, out: 99, max: 33},
		{name: "a default fits the smallest window", body: plain, count: exact(100), window: 300, limits: []*plan.Limit{tokens}, in: 100, out: 200, max: 200},
		{name: "an estimate leaves some of the window free", body: plain, count: count{bound: 900, n: 80}, window: 300, limits: []*plan.Limit{input}, in: 900, out: 210},
		{name: "reserved by the count", body: given, count: exact(80), taken: 800, limits: []*plan.Limit{tokens}, in: 80, out: 50, max: 50},
		{name: "refused with the count", body: given, count: exact(300), taken: 800, limits: []*plan.Limit{tokens}, reason: ai.ReasonLimitExceeded},
		{name: "refused by the bound of an estimate", body: given, count: count{bound: 500, n: 80}, taken: 800, limits: []*plan.Limit{tokens}, reason: ai.ReasonLimitExceeded},
		{name: "input only sends no ceiling", body: plain, count: count{bound: 100}, limits: []*plan.Limit{input}, in: 100, out: 400},
		{name: "embeddings have no output", kind: ai.KindEmbedding, body: embed, count: count{bound: 100}, limits: []*plan.Limit{tokens, output}, in: 100},
		{name: "counts do not overflow", body: huge, count: count{bound: 100}, limits: []*plan.Limit{tokens}, reason: ai.ReasonLimitExceeded},
		{name: "money is that of the dearest target", body: given, count: exact(100), limits: []*plan.Limit{money}, in: 100, out: 50, max: 50},
		{name: "money lowers the ceiling", body: `{"model":"m","max_tokens":50000,"messages":[]}`, count: exact(100), limits: []*plan.Limit{money}, in: 100, out: 9900, max: 9900},
		{name: "a budget that is used up", body: given, count: exact(100), taken: 9990, limits: []*plan.Limit{money}, reason: ai.ReasonBudgetExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.kind == "" {
				tc.kind = ai.KindChat
			}
			l, outputs := newLedger(), limit.NewOutputs()
			if tc.taken > 0 {
				l.take(t, tc.taken, tc.limits...)
			}
			for range 100 {
				outputs.Observe("m", tc.likely, false)
			}
			ex := exchange(t, tc.kind, tc.body, tc.count, tc.window, tc.limits...)
			v, err := New(l, outputs).Request(t.Context(), ex)
			if err != nil || v.Reason != tc.reason {
				t.Fatalf("%+v, %v", v, err)
			}
			if ex.Reserved.Input != tc.in || ex.Reserved.Output != tc.out {
				t.Errorf("reserved %d and %d, want %d and %d", ex.Reserved.Input, ex.Reserved.Output, tc.in, tc.out)
			}
			if v.Stops() {
				if len(ex.Edits) != 0 {
					t.Errorf("refused, and edited: %v", ex.Edits)
				}
			} else if got := sent(t, ex); got != tc.max {
				t.Errorf("max_tokens %d sent, want %d", got, tc.max)
			}
		})
	}
}

// Where the client names no ceiling, the targets' and the roles' are set, with limits
// and without.
func TestCeilingsOfPoolsAndRoles(t *testing.T) {
	for _, tc := range []struct {
		name      string
		body      string
		pool      int64
		role      int64
		limits    []*plan.Limit
		out, sent int64
	}{
		{name: "nobody's", body: plain},
		{name: "a pool's", body: plain, pool: 300, sent: 300},
		{name: "a pool's, above the default", body: plain, pool: 3000, sent: 400},
		{name: "a role's", body: plain, pool: 3000, role: 70, sent: 70},
		{name: "a pool's below the role's", body: plain, pool: 30, role: 70, sent: 30},
		{name: "the client's own", body: given, pool: 30, sent: 50},
		{name: "beside a limit of requests", body: plain, pool: 30, limits: []*plan.Limit{requests}, out: 30, sent: 30},
		{name: "beside a limit of tokens", body: plain, pool: 300, limits: []*plan.Limit{tokens}, out: 300, sent: 300},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ex := exchange(t, ai.KindChat, tc.body, exact(10), 0, tc.limits...)
			ex.Decision.Targets[1].MaxOutput, ex.Grants.MaxOutput = tc.pool, tc.role
			if v, err := New(newLedger(), limit.NewOutputs()).Request(t.Context(), ex); err != nil || v.Stops() {
				t.Fatalf("%+v, %v", v, err)
			}
			if got := sent(t, ex); got != tc.sent || ex.Reserved.Output != tc.out {
				t.Errorf("max_tokens %d sent, %d reserved; want %d, %d", got, ex.Reserved.Output, tc.sent, tc.out)
			}
		})
	}
}

// A pool that bills what is given up is reserved for beside the one that answers, at
// the price of the day.
func TestReservesForWhatIsGivenUp(t *testing.T) {
	for billed, want := range map[bool]int64{false: 150, true: 150 + 2*150} {
		ex := exchange(t, ai.KindChat, given, exact(100), 0, money)
		ex.In.Time = time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
		ex.Decision.Targets[0] = &plan.Pool{Name: "p", BillsAbandoned: billed, Prices: []plan.PricePeriod{
			{Price: ai.Price{Input: 1e15, Output: 1e15}},
			{From: ex.In.Time, Price: ai.Price{Input: 2e6, Output: 2e6}},
		}}
		if !billed {
			ex.Decision.Targets[0].Prices[1].Price = ai.Price{Input: 1e6, Output: 1e6}
		}
		l := newLedger()
		if v, err := New(l, limit.NewOutputs()).Request(t.Context(), ex); err != nil || v.Stops() {
			t.Fatalf("%+v, %v", v, err)
		}
		if got := ex.Reserved.Request.Most(money, ex.Reserved.Output); got != want {
			t.Errorf("billed %v: %d reserved, want %d", billed, got, want)
		}
	}
}

// A pool whose limit has no room drops out; when none is left, the request is
// refused.
func TestPoolsDropOut(t *testing.T) {
	p := &plan.Limit{Name: "pool", Unit: plan.UnitTokens, Amount: 100, Window: time.Minute, PerPool: true}
	l := newLedger()
	l.take(t, 90, p)
	ex := exchange(t, ai.KindChat, given, exact(10), 0, p)
	if v, err := New(l, limit.NewOutputs()).Request(t.Context(), ex); err != nil || v.Stops() {
		t.Fatalf("%+v, %v", v, err)
	}
	if len(ex.Decision.Targets) != 1 || ex.Decision.Targets[0].Name != "q" || len(ex.Decision.Dropped) != 1 || ex.Decision.Dropped[0].Reason != ai.ReasonLimitExceeded {
		t.Errorf("%+v", ex.Decision)
	}
	if v, err := New(l, limit.NewOutputs()).Request(t.Context(), exchange(t, ai.KindChat, given, exact(20), 0, p)); err != nil || v.Stops() {
		t.Fatalf("%+v, %v", v, err)
	}
	again := exchange(t, ai.KindChat, given, exact(10), 0, p)
	if v, err := New(l, limit.NewOutputs()).Request(t.Context(), again); err != nil || v.Reason != ai.ReasonLimitExceeded {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestDowngrade(t *testing.T) {
	cheap := &plan.Pool{Name: "cheap"}
	l := *money
	l.OnBreach, l.DowngradeTo = plan.BreachDowngrade, []*plan.Pool{{Name: "barred"}, cheap}
	for _, tc := range []struct {
		name   string
		price  ai.Price
		reason ai.Reason
	}{
		{name: "the limit has room for it"},
		{name: "the limit has not", price: ai.Price{Input: 1e6}, reason: ai.ReasonBudgetExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cheap.Prices = []plan.PricePeriod{{Price: tc.price}}
			book := newLedger()
			book.take(t, 9990, &l)
			ex := exchange(t, ai.KindChat, given, exact(100), 0, &l)
			v, err := New(book, limit.NewOutputs()).Request(t.Context(), ex)
			if err != nil || v.Reason != tc.reason {
				t.Fatalf("%+v, %v", v, err)
			}
			if len(ex.Decision.Targets) != 1 || ex.Decision.Targets[0] != cheap || ex.Reserved.Downgraded != &l || len(ex.Decision.Dropped) != 2 {
				t.Errorf("%+v", ex.Decision)
			}
			if v, err := NewGate(book).Request(t.Context(), routed(ex)); err != nil || v.Stops() {
				t.Errorf("the gate refuses what may be downgraded: %+v, %v", v, err)
			}
		})
	}
}

// routed is the exchange as the gate sees it.
func routed(ex *pipeline.Exchange) *pipeline.Exchange {
	ex.Plan.Models = map[string]*plan.Model{"m": ex.Decision.Model}
	ex.Grants, _ = plan.Grant([]*plan.Role{{AllModels: true}})
	return ex
}

func TestQueue(t *testing.T) {
	l := *tokens
	l.OnBreach, l.QueueWait = plan.BreachQueue, time.Second
	for _, tc := range []struct {
		name   string
		frees  bool
		gone   bool
		reason ai.Reason
	}{
		{name: "somebody ends", frees: true},
		{name: "nobody does", reason: ai.ReasonLimitExceeded},
		{name: "the client leaves", gone: true, reason: ai.ReasonLimitExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			book := newLedger()
			book.take(t, 1000, &l)
			s := New(book, limit.NewOutputs())
			var slept time.Duration
			s.Sleep = func(_ context.Context, d time.Duration) bool {
				if slept += d; tc.frees && slept > time.Second/2 {
					book.Ledger.Release("before-0")
				}
				return !tc.gone
			}
			ex := exchange(t, ai.KindChat, given, exact(100), 0, &l)
			v, err := s.Request(t.Context(), ex)
			if err != nil || v.Reason != tc.reason || slept == 0 || slept > time.Second {
				t.Errorf("%+v, %v, slept %v", v, err, slept)
			}
			if s.waiting.Load() != 0 {
				t.Errorf("%d wait", s.waiting.Load())
			}
		})
	}
}

// What pools can take goes to interactive requests first: while one waits, a batch
// request waits behind it, also when it comes as room is made; and what is refused is
// told that the pools are busy.
func TestQueueByPriority(t *testing.T) {
	capacity := &plan.Limit{Name: "capacity", Unit: plan.UnitConcurrency, Amount: 1, PerPool: true, OnBreach: plan.BreachQueue, QueueWait: time.Second}
	of := func(id string, batch bool) *pipeline.Exchange {
		ex := exchange(t, ai.KindChat, given, exact(100), 0, capacity)
		ex.In.ID, ex.Decision.Model.Batch, ex.Decision.Targets = id, batch, ex.Decision.Targets[:1]
		return ex
	}
	request := func(s *Stage, ex *pipeline.Exchange) ai.Reason {
		v, err := s.Request(t.Context(), ex)
		if err != nil {
			t.Fatal(err)
		}
		return v.Reason
	}
	book := newLedger()
	s := New(book, limit.NewOutputs())
	if reason := request(s, of("first", true)); reason != ai.ReasonNone {
		t.Fatal(reason)
	}
	s.Sleep = func(context.Context, time.Duration) bool { return true }
	if reason := request(s, of("late", false)); reason != ai.ReasonPoolBusy {
		t.Errorf("with no room: %q", reason)
	}
	inner := false
	s.Sleep = func(context.Context, time.Duration) bool {
		if inner { // the batch request waits
			return false
		}
		inner = true
		book.Ledger.Release("first")
		if reason := request(s, of("batch", true)); reason != ai.ReasonPoolBusy {
			t.Errorf("a batch request goes before one that waits: %q", reason)
		}
		return true
	}
	if reason := request(s, of("interactive", false)); reason != ai.ReasonNone {
		t.Errorf("the one that waited: %q", reason)
	}
	if !inner || s.line.total.Load() != 0 || len(s.line.waiting) != 0 {
		t.Errorf("waited %v; still in line: %v", inner, s.line.waiting)
	}
	book.Ledger.Release("interactive")
	if reason := request(s, of("batch", true)); reason != ai.ReasonNone {
		t.Errorf("a batch request alone: %q", reason)
	}
}

// Whichever of a request's pools has room first takes it, in their order, and not only
// the last one that was full.
func TestFullPoolComesBack(t *testing.T) {
	capacity := &plan.Limit{Name: "capacity", Unit: plan.UnitConcurrency, Amount: 1, PerPool: true, OnBreach: plan.BreachQueue, QueueWait: time.Second}
	for _, frees := range []int{0, 1} {
		book := newLedger()
		s := New(book, limit.NewOutputs())
		for i := range 2 {
			ex := exchange(t, ai.KindChat, given, exact(100), 0, capacity)
			ex.In.ID, ex.Decision.Targets = ex.Decision.Targets[i].Name, ex.Decision.Targets[i:i+1]
			if v, _ := s.Request(t.Context(), ex); v.Stops() {
				t.Fatal(v)
			}
		}
		ex := exchange(t, ai.KindChat, given, exact(100), 0, capacity)
		ex.In.ID = "waits"
		targets := slices.Clone(ex.Decision.Targets)
		s.Sleep = func(context.Context, time.Duration) bool {
			book.Ledger.Release(targets[frees].Name)
			return true
		}
		v, err := s.Request(t.Context(), ex)
		if err != nil || v.Stops() || len(ex.Decision.Targets) != 1 || ex.Decision.Targets[0] != targets[frees] {
			t.Errorf("%s has room: %v, %v: %v", targets[frees].Name, v.Reason, err, ex.Decision.Targets)
		}
		if d := ex.Decision.Dropped; len(d) != 1 || d[0].Pool != targets[1-frees] {
			t.Errorf("dropped: %v", d)
		}
	}
}

// A ceiling of a team is the team's own matter, not a pool's capacity.
func TestCapacity(t *testing.T) {
	for _, tc := range []struct {
		l    plan.Limit
		want bool
	}{
		{plan.Limit{Unit: plan.UnitConcurrency, PerPool: true}, true},
		{plan.Limit{Unit: plan.UnitConcurrency, Pools: map[string]bool{"a": true}, Models: map[string]bool{"m": true}}, true},
		{plan.Limit{Unit: plan.UnitConcurrency}, false},
		{plan.Limit{Unit: plan.UnitRequests, PerPool: true}, false},
		{plan.Limit{Unit: plan.UnitConcurrency, PerPool: true, PerTeam: true}, false},
		{plan.Limit{Unit: plan.UnitConcurrency, PerPool: true, Keys: map[string]bool{"k": true}}, false},
	} {
		if got := tc.l.Capacity(); got != tc.want {
			t.Errorf("%+v: %v", tc.l, got)
		}
	}
}

func TestQueueIsBounded(t *testing.T) {
	l := *tokens
	l.OnBreach, l.QueueWait = plan.BreachQueue, time.Second
	book := newLedger()
	book.take(t, 1000, &l)
	s := New(book, limit.NewOutputs())
	s.waiting.Store(maxWaiting)
	s.Sleep = func(context.Context, time.Duration) bool { t.Error("it waits"); return false }
	if v, err := s.Request(t.Context(), exchange(t, ai.KindChat, given, exact(100), 0, &l)); err != nil || v.Reason != ai.ReasonLimitExceeded {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestReportLetsThrough(t *testing.T) {
	l := *tokens
	l.OnBreach = plan.BreachReport
	book := newLedger()
	book.take(t, 5000, &l)
	ex := exchange(t, ai.KindChat, given, exact(100), 0, &l)
	if v, err := New(book, limit.NewOutputs()).Request(t.Context(), ex); err != nil || v.Stops() || ex.Reserved.Result.Reported != &l {
		t.Errorf("%+v, %v, %+v", v, err, ex.Reserved.Result)
	}
}

// A shadow changes nothing: no pool drops out, nobody waits.
func TestShadowOnlyLooks(t *testing.T) {
	p := &plan.Limit{Name: "pool", Unit: plan.UnitTokens, Amount: 100, Window: time.Minute, PerPool: true, OnBreach: plan.BreachQueue, QueueWait: time.Second}
	book := newLedger()
	book.take(t, 90, p)
	ex := exchange(t, ai.KindChat, given, exact(10), 0, p)
	ex.Plan.Modes = map[string]plan.Mode{"quota": plan.Shadow}
	s := New(book, limit.NewOutputs())
	s.Sleep = func(context.Context, time.Duration) bool { t.Error("it waits"); return false }
	if v, err := s.Request(t.Context(), ex); err != nil || v.Reason != ai.ReasonLimitExceeded || len(ex.Decision.Targets) != 2 {
		t.Errorf("%+v, %v, %+v", v, err, ex.Decision)
	}
}

// sent is max_tokens in the body as the backend gets it.
func sent(t *testing.T, ex *pipeline.Exchange) int64 {
	t.Helper()
	body, err := openai.Apply(nil, ex.In.Body, ex.Edits)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		MaxTokens int64 `json:"max_tokens"`
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return got.MaxTokens
}

// Who is over a limit is refused before anything is counted.
func TestGate(t *testing.T) {
	free := &plan.Pool{Name: "p"}
	dear := &plan.Pool{Name: "q", Prices: []plan.PricePeriod{{Price: ai.Price{Input: 1e6, Output: 1e6}}}}
	for _, tc := range []struct {
		name    string
		kind    ai.Kind
		body    string
		taken   int64
		role    plan.Role
		pools   []*plan.Pool
		limits  []*plan.Limit
		reason  ai.Reason
		checked int
	}{
		{name: "no limit", body: plain},
		{name: "limit of another team", body: plain, limits: []*plan.Limit{others}},
		{name: "enough for a token in and out", body: plain, taken: 998, limits: []*plan.Limit{tokens}, checked: 1},
		{name: "too little", body: plain, taken: 999, limits: []*plan.Limit{tokens}, reason: ai.ReasonLimitExceeded, checked: 1},
		{name: "not a token for each answer", body: three, taken: 998, limits: []*plan.Limit{tokens}, reason: ai.ReasonLimitExceeded, checked: 1},
		{name: "embeddings have no output", kind: ai.KindEmbedding, body: embed, taken: 999, limits: []*plan.Limit{tokens}, checked: 1},
		{name: "no money is left", body: plain, taken: 10_000, pools: []*plan.Pool{dear}, limits: []*plan.Limit{money}, reason: ai.ReasonBudgetExceeded, checked: 1},
		{name: "no money is needed after a downgrade", body: plain, taken: 10_000, pools: []*plan.Pool{dear},
			limits: []*plan.Limit{money, {Name: "d", Unit: plan.UnitUSD, Amount: 1e9, Period: plan.Day, Zone: time.UTC, OnBreach: plan.BreachDowngrade, DowngradeTo: []*plan.Pool{free}}}, checked: 1},
		{name: "no money is needed", body: plain, taken: 10_000, pools: []*plan.Pool{dear, free}, limits: []*plan.Limit{money}, checked: 1},
		{name: "a model that may not be called", body: plain, taken: 1000, limits: []*plan.Limit{tokens}, role: plan.Role{Models: map[string]bool{"n": true}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.kind == "" {
				tc.kind = ai.KindChat
			}
			if tc.role.Models == nil {
				tc.role.AllModels = true
			}
			l := newLedger()
			if tc.taken > 0 {
				l.take(t, tc.taken, tc.limits...)
			}
			asked := 0
			ex := exchange(t, tc.kind, tc.body, count{bound: 500, asked: &asked}, 0, tc.limits...)
			ex.Decision.Model.Pools = tc.pools
			ex.Plan.Models = map[string]*plan.Model{"m": ex.Decision.Model}
			ex.Grants, _ = plan.Grant([]*plan.Role{&tc.role})
			ex.Decision = pipeline.Decision{}
			v, err := NewGate(l).Request(t.Context(), ex)
			if err != nil || v.Reason != tc.reason {
				t.Fatalf("%+v, %v", v, err)
			}
			if asked != 0 || l.checked != tc.checked || l.reserved != 0 {
				t.Errorf("counted %d times, checked %d, reserved %d", asked, l.checked, l.reserved)
			}
			if v.Stops() && (len(ex.Reserved.Limits) != len(tc.limits) || ex.Reserved.Result.Limit == nil) {
				t.Errorf("the refusal does not say by what: %+v", ex.Reserved)
			}
		})
	}
}

func TestUndoReleasesOnce(t *testing.T) {
	l := newLedger()
	s := New(l, limit.NewOutputs())
	ex := exchange(t, ai.KindChat, plain, count{bound: 1}, 0, tokens)
	s.Undo(ex)
	if _, err := s.Request(t.Context(), ex); err != nil {
		t.Fatal(err)
	}
	s.Undo(ex)
	s.Undo(ex)
	if diff := cmp.Diff([]string{"id"}, l.released); diff != "" {
		t.Errorf("released (-want +got):\n%s", diff)
	}
	if l.Held() != 0 {
		t.Errorf("%d held", l.Held())
	}
}

func TestRefusalSaysWhichLimit(t *testing.T) {
	for _, tc := range []struct {
		res  limit.Result
		want string
	}{
		{limit.Result{Limit: tokens, RetryAfter: 2500 * time.Millisecond}, `Limit "t" of 1000 tokens in 1m0s is used up: try again in 3s.`},
		{limit.Result{Limit: tokens, Impossible: true}, `The request is larger than limit "t" of 1000 tokens in 1m0s allows at all: it may take 995 input and 6 output tokens.`},
		{limit.Result{Limit: money, RetryAfter: time.Hour}, `Budget "usd" of $0.00001 a month is used up: try again in 1h0m0s.`},
		{limit.Result{Limit: &plan.Limit{Name: "c", Unit: plan.UnitConcurrency, Amount: 3}, RetryAfter: time.Second}, `Limit "c" of 3 requests at a time is used up: try again in 1s.`},
		{limit.Result{Unavailable: true}, `The gateway cannot account for this request now; try again.`},
	} {
		ex := new(pipeline.Exchange)
		ex.Reserved.Result = tc.res
		ex.Reserved.Request = limit.Request{Targets: []limit.Target{{Input: 995}}, Options: []limit.Option{{Output: 600}, {Output: 6}}}
		if v := refusal(ex); v.Message != tc.want {
			t.Errorf("%q, want %q", v.Message, tc.want)
		}
	}
}

func waiter(t *testing.T, id string, batch bool, limits ...*plan.Limit) *pipeline.Exchange {
	ex := exchange(t, ai.KindChat, given, exact(100), 0, limits...)
	ex.In.ID, ex.Decision.Model.Batch, ex.Decision.Targets = id, batch, ex.Decision.Targets[:1]
	return ex
}

// Who waits for a limit of its team must not stand in line for a pool that has room.
func TestPlaceIsLeft(t *testing.T) {
	capacity := &plan.Limit{Name: "capacity", Unit: plan.UnitConcurrency, Amount: 1, PerPool: true, OnBreach: plan.BreachQueue, QueueWait: time.Second}
	team := &plan.Limit{Name: "team", Unit: plan.UnitConcurrency, Amount: 1, Teams: map[string]bool{"us": true}, OnBreach: plan.BreachQueue, QueueWait: time.Second}
	book := newLedger()
	s := New(book, limit.NewOutputs())
	if v, _ := s.Request(t.Context(), waiter(t, "first", false, capacity)); v.Stops() {
		t.Fatal(v)
	}
	n := 0
	s.Sleep = func(context.Context, time.Duration) bool {
		switch n++; n {
		case 1: // the pool is free, and the team's own limit is not any more
			book.Ledger.Release("first")
			if r := book.Ledger.Reserve([]*plan.Limit{team}, &limit.Request{ID: "other", Principal: us, Model: "m"}); !r.OK {
				t.Fatal(r)
			}
			return true
		case 2:
			ex := waiter(t, "batch", true, capacity) // of whoever: only the capacity counts it
			if v, _ := s.Request(t.Context(), ex); v.Stops() {
				t.Errorf("the pool is idle, and batch is refused: %v", v.Reason)
			}
		}
		return false
	}
	_, _ = s.Request(t.Context(), waiter(t, "interactive", false, capacity, team))
	if n < 2 {
		t.Fatal("it did not wait twice")
	}
}

// Batch requests that wait must not take the places of interactive ones.
func TestBatchLeavesPlaces(t *testing.T) {
	capacity := &plan.Limit{Name: "capacity", Unit: plan.UnitConcurrency, Amount: 1, PerPool: true, OnBreach: plan.BreachQueue, QueueWait: time.Hour}
	book := newLedger()
	s := New(book, limit.NewOutputs())
	if v, _ := s.Request(t.Context(), waiter(t, "first", true, capacity)); v.Stops() {
		t.Fatal(v)
	}
	for _, tc := range []struct {
		before int64
		batch  bool
		waits  bool
	}{
		{maxBatchWaiting - 1, true, true},
		{maxBatchWaiting, true, false},
		{maxBatchWaiting, false, true},
		{maxWaiting - 1, false, true},
		{maxWaiting, false, false},
	} {
		waits := false
		s.Sleep = func(context.Context, time.Duration) bool { waits = true; return false }
		s.waiting.Store(tc.before)
		if _, err := s.Request(t.Context(), waiter(t, "next", tc.batch, capacity)); err != nil || waits != tc.waits {
			t.Errorf("%+v: waits %v, %v", tc, waits, err)
		}
	}
}
