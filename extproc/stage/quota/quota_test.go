package quota

import (
	"encoding/json"
	"math"
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

// ledger admits up to room tokens and notes what it was asked for.
type ledger struct {
	room     int64
	checked  int
	asked    []limit.Request
	released []string
}

func (l *ledger) Check(limits []*plan.Limit, r limit.Request) limit.Result {
	l.checked++
	return l.judge(limits, r)
}

func (l *ledger) Reserve(limits []*plan.Limit, r limit.Request) limit.Result {
	l.asked = append(l.asked, r)
	res := l.judge(limits, r)
	res.Held = res.OK
	return res
}

func (l *ledger) judge(limits []*plan.Limit, r limit.Request) limit.Result {
	if sum := r.Input + r.Output; sum < 0 || sum > l.room {
		return limit.Result{Limit: limits[0], RetryAfter: 3 * time.Second, Tokens: limit.Figure{Limit: limits[0].Amount, Remaining: l.room}}
	}
	return limit.Result{OK: true}
}

func (l *ledger) Release(id string) { l.released = append(l.released, id) }

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
	requests = &plan.Limit{Name: "r", Unit: plan.UnitRequests, Amount: 5}
	tokens   = &plan.Limit{Name: "t", Unit: plan.UnitTokens, Amount: 1000}
	input    = &plan.Limit{Name: "i", Unit: plan.UnitInputTokens, Amount: 1000}
	output   = &plan.Limit{Name: "o", Unit: plan.UnitOutputTokens, Amount: 100}
	others   = &plan.Limit{Name: "x", Unit: plan.UnitTokens, Amount: 1, Teams: map[string]bool{"others": true}}
)

func exchange(t *testing.T, kind ai.Kind, body string, c count, window int64, limits ...*plan.Limit) *pipeline.Exchange {
	t.Helper()
	ex := new(pipeline.Exchange)
	ex.Begin(&plan.Plan{Limits: limits}, "id", time.Time{}, nil, true)
	ex.In.Kind, ex.In.Body = kind, []byte(body)
	ex.Principal = ai.Principal{Key: "k", Team: "us"}
	if fault := openai.Parse(kind, ex.In.Body, 64, &ex.In.Request); fault != nil {
		t.Fatal(fault)
	}
	ex.Estimate = pipeline.NewEstimate(c, ex)
	ex.Decision.Model = &plan.Model{Name: "m", DefaultMaxTokens: 400}
	ex.Decision.Targets = []*plan.Pool{{Name: "p"}, {Name: "q", ContextWindow: window}}
	return ex
}

func TestReserve(t *testing.T) {
	const (
		plain = `{"model":"m","messages":[]}`
		given = `{"model":"m","max_tokens":50,"messages":[]}`
		much  = `{"model":"m","max_tokens":5000,"messages":[]}`
		three = `{"model":"m","n":3,"messages":[]}`
		huge  = `{"model":"m","n":999999999999999,"max_tokens":999999999999999,"messages":[]}`
		embed = `{"model":"m","input":"x"}`
	)
	for _, tc := range []struct {
		name    string
		kind    ai.Kind
		body    string
		count   count
		window  int64
		room    int64
		limits  []*plan.Limit
		asked   []limit.Request // input and output only
		max     int64           // max_tokens as sent; 0 for none
		refused bool
	}{
		{name: "no limit", body: plain, count: count{bound: 9}},
		{name: "limit of another team", body: plain, count: count{bound: 9}, limits: []*plan.Limit{others}},
		{name: "requests only: nothing is lowered", body: much, count: count{bound: 90, n: 1, exact: true}, room: 9999,
			limits: []*plan.Limit{requests}, asked: []limit.Request{{Input: 1, Output: 5000}}, max: 5000},
		{name: "default ceiling", body: plain, count: count{bound: 100}, room: 1000, limits: []*plan.Limit{tokens}, asked: []limit.Request{{Input: 100, Output: 400}}, max: 400},
		{name: "the client's ceiling", body: given, count: count{bound: 100}, room: 1000, limits: []*plan.Limit{tokens}, asked: []limit.Request{{Input: 100, Output: 50}}, max: 50},
		{name: "never raised", body: given, count: count{bound: 100}, room: 1000, limits: []*plan.Limit{output}, asked: []limit.Request{{Input: 100, Output: 50}}, max: 50},
		{name: "lowered to what the limit holds", body: much, count: count{bound: 400, n: 100, exact: true}, room: 1000, limits: []*plan.Limit{tokens},
			asked: []limit.Request{{Input: 100, Output: 900}}, max: 900},
		{name: "lowered beside a bound that cannot be counted", body: much, count: count{bound: 400, n: 100}, room: 1000, limits: []*plan.Limit{tokens},
			asked: []limit.Request{{Input: 400, Output: 600}}, max: 600},
		{name: "each answer counts", body: three, count: count{bound: 100}, room: 1000, limits: []*plan.Limit{tokens}, asked: []limit.Request{{Input: 100, Output: 900}}, max: 300},
		{name: "output limit over all answers", body: three, count: count{bound: 100}, room: 1000, limits: []*plan.Limit{output}, asked: []limit.Request{{Input: 100, Output: 99}}, max: 33},
		{name: "a default fits the smallest window", body: plain, count: count{bound: 100, n: 100, exact: true}, window: 300, room: 1000, limits: []*plan.Limit{tokens}, asked: []limit.Request{{Input: 100, Output: 200}}, max: 200},
		{name: "an estimate leaves some of the window free", body: plain, count: count{bound: 900, n: 80}, window: 300, room: 2000, limits: []*plan.Limit{input}, asked: []limit.Request{{Input: 900, Output: 210}}},
		{name: "reserved by the count", body: given, count: count{bound: 500, n: 80, exact: true}, room: 200, limits: []*plan.Limit{tokens}, asked: []limit.Request{{Input: 80, Output: 50}}, max: 50},
		{name: "refused with the count", body: given, count: count{bound: 500, n: 300, exact: true}, room: 200, limits: []*plan.Limit{tokens}, asked: []limit.Request{{Input: 300, Output: 50}}, refused: true},
		{name: "refused by the bound of an estimate", body: given, count: count{bound: 500, n: 80}, room: 200, limits: []*plan.Limit{tokens}, asked: []limit.Request{{Input: 500, Output: 50}}, refused: true},
		{name: "input only sends no ceiling", body: plain, count: count{bound: 100}, room: 1000, limits: []*plan.Limit{input}, asked: []limit.Request{{Input: 100, Output: 400}}},
		{name: "embeddings have no output", kind: ai.KindEmbedding, body: embed, count: count{bound: 100}, room: 1000, limits: []*plan.Limit{tokens, output}, asked: []limit.Request{{Input: 100}}},
		{name: "counts do not overflow", body: huge, count: count{bound: 100}, room: math.MaxInt64 - 1, limits: []*plan.Limit{requests}, asked: []limit.Request{{Input: 100, Output: math.MaxInt64}}, refused: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.kind == "" {
				tc.kind = ai.KindChat
			}
			l := &ledger{room: tc.room}
			ex := exchange(t, tc.kind, tc.body, tc.count, tc.window, tc.limits...)
			v, err := New(l).Request(t.Context(), ex)
			if err != nil || v.Stops() != tc.refused || tc.refused && v.Reason != ai.ReasonLimitExceeded {
				t.Fatalf("%+v, %v", v, err)
			}
			for i := range tc.asked {
				tc.asked[i].ID, tc.asked[i].Model, tc.asked[i].Principal = "id", "m", ex.Principal
			}
			if diff := cmp.Diff(tc.asked, l.asked); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
			if tc.refused {
				if ex.Reserved.Input != 0 || ex.Reserved.Output != 0 || len(ex.Edits) != 0 {
					t.Errorf("refused, and reserved %+v, edits %v", ex.Reserved, ex.Edits)
				}
				return
			}
			if got := sent(t, ex); got != tc.max {
				t.Errorf("max_tokens %d sent, want %d", got, tc.max)
			}
			if last := len(l.asked) - 1; last >= 0 && (ex.Reserved.Input != l.asked[last].Input || ex.Reserved.Output != l.asked[last].Output) {
				t.Errorf("reserved %+v, want %+v", ex.Reserved, l.asked[last])
			}
		})
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
	const (
		plain = `{"model":"m","messages":[]}`
		three = `{"model":"m","n":3,"messages":[]}`
		embed = `{"model":"m","input":"x"}`
	)
	for _, tc := range []struct {
		name    string
		kind    ai.Kind
		body    string
		room    int64
		role    plan.Role
		limits  []*plan.Limit
		refused bool
		checked int
	}{
		{name: "no limit", body: plain},
		{name: "limit of another team", body: plain, limits: []*plan.Limit{others}},
		{name: "enough for a token in and out", body: plain, room: 2, limits: []*plan.Limit{tokens}, checked: 1},
		{name: "too little", body: plain, room: 1, limits: []*plan.Limit{tokens}, refused: true, checked: 1},
		{name: "not a token for each answer", body: three, room: 3, limits: []*plan.Limit{output}, refused: true, checked: 1},
		{name: "embeddings have no output", kind: ai.KindEmbedding, body: embed, room: 1, limits: []*plan.Limit{tokens}, checked: 1},
		{name: "a model that may not be called", body: plain, limits: []*plan.Limit{tokens}, role: plan.Role{Models: map[string]bool{"n": true}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.kind == "" {
				tc.kind = ai.KindChat
			}
			if tc.role.Models == nil {
				tc.role.AllModels = true
			}
			l := &ledger{room: tc.room}
			asked := 0
			ex := exchange(t, tc.kind, tc.body, count{bound: 500, asked: &asked}, 0, tc.limits...)
			ex.Plan.Models = map[string]*plan.Model{"m": ex.Decision.Model}
			ex.Grants, _ = plan.Grant([]*plan.Role{&tc.role})
			ex.Decision = pipeline.Decision{}
			v, err := NewGate(l).Request(t.Context(), ex)
			if err != nil || v.Stops() != tc.refused || tc.refused && v.Reason != ai.ReasonLimitExceeded {
				t.Fatalf("%+v, %v", v, err)
			}
			if asked != 0 || l.checked != tc.checked || len(l.asked) != 0 {
				t.Errorf("counted %d times, checked %d, reserved %d", asked, l.checked, len(l.asked))
			}
			if tc.refused && (len(ex.Reserved.Limits) != len(tc.limits) || ex.Reserved.Result.Limit == nil) {
				t.Errorf("the refusal does not say by what: %+v", ex.Reserved)
			}
		})
	}
}

func TestUndoReleasesOnce(t *testing.T) {
	l := &ledger{room: 1000}
	s := New(l)
	ex := exchange(t, ai.KindChat, `{"model":"m","messages":[]}`, count{bound: 1}, 0, tokens)
	s.Undo(ex)
	if _, err := s.Request(t.Context(), ex); err != nil {
		t.Fatal(err)
	}
	s.Undo(ex)
	s.Undo(ex)
	if diff := cmp.Diff([]string{"id"}, l.released); diff != "" {
		t.Errorf("released (-want +got):\n%s", diff)
	}
}

func TestRefusalSaysWhichLimit(t *testing.T) {
	v := refusal(&limit.Result{Limit: tokens, RetryAfter: 3 * time.Second}, 5, 6)
	if want := `Limit "t" of 1000 tokens in 0s is used up: try again in 3s.`; v.Message != want {
		t.Errorf("%q, want %q", v.Message, want)
	}
	v = refusal(&limit.Result{Limit: tokens, Impossible: true}, 995, 6)
	if want := `The request is larger than limit "t" of 1000 tokens in 0s allows at all: it may take 995 input and 6 output tokens.`; v.Message != want {
		t.Errorf("%q, want %q", v.Message, want)
	}
}
