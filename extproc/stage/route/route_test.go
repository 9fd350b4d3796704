package route

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/tokens"
)

var (
	small  = &plan.Pool{Name: "small", Placement: ai.Private, ContextWindow: 1000}
	large  = &plan.Pool{Name: "large", Placement: ai.Private, ContextWindow: 10000}
	anyLen = &plan.Pool{Name: "any", Placement: ai.Private}
	public = &plan.Pool{Name: "public", Placement: ai.Public}
	other  = &plan.Pool{Name: "other", Placement: ai.Public}
)

// to is a route: each pool a step of its own.
func to(pools ...*plan.Pool) []plan.Step {
	var steps []plan.Step
	for _, p := range pools {
		steps = append(steps, plan.Step{Choices: []plan.Choice{{Pool: p, Weight: 1}}})
	}
	return steps
}

// when is a condition as a function.
type when func(*plan.Facts) (bool, error)

func (w when) Holds(f *plan.Facts) (bool, error) { return w(f) }

func longerThan(n int64) when {
	return func(f *plan.Facts) (bool, error) { return f.InputTokens() > n, nil }
}

// count is a counter that bounds and counts as it is told.
type count struct {
	bound, n int64
	exact    bool
	asked    int
}

func (c *count) Bound(*pipeline.Exchange) int64 { return c.bound }

func (c *count) Count(_ *pipeline.Exchange, p *plan.Pool) tokens.Count {
	c.asked++
	n := c.n
	if p == public { // whose tokenizer makes a tenth more of a text
		n += n / 10
	}
	return tokens.Count{Tokens: n, Bound: max(n, c.bound), Exact: c.exact}
}

func exchange(m *plan.Model, g []*plan.Role, r openai.Request, c *count) *pipeline.Exchange {
	ex := new(pipeline.Exchange)
	ex.Begin(&plan.Plan{Models: map[string]*plan.Model{"m": m, "alias": m}}, "id", time.Unix(1e9, 0), nil, true)
	ex.In.Kind, ex.In.Request = ai.KindChat, r
	ex.Grants, _ = plan.Grant(g)
	ex.Estimate = pipeline.NewEstimate(c, ex)
	return ex
}

func names(pools []*plan.Pool) []string {
	var n []string
	for _, p := range pools {
		n = append(n, p.Name)
	}
	return n
}

var all = []*plan.Role{{AllModels: true, AllEgress: true}}

func TestRoute(t *testing.T) {
	private := []*plan.Role{{AllModels: true}}
	some := []*plan.Role{{Models: map[string]bool{"m": true}, EgressPools: map[string]bool{"other": true}}}
	routed := &plan.Model{Name: "m", Targets: to(small, public), Pools: []*plan.Pool{small, public, large}, Rules: []*plan.Rule{
		{Name: "long", When: longerThan(500), Targets: to(large)},
		{Name: "never", When: when(func(*plan.Facts) (bool, error) { return false, nil }), Targets: to(other)},
	}}
	for _, tc := range []struct {
		name    string
		model   *plan.Model
		ask     string
		max     int64
		grants  []*plan.Role
		count   count
		want    []string
		rule    string
		refused ai.Reason
		asked   int // how often tokens were counted
	}{
		{name: "default", model: &plan.Model{Name: "m", Targets: to(small, public)}, grants: all, count: count{bound: 10}, want: []string{"small", "public"}, rule: "default"},
		{name: "alias", model: &plan.Model{Name: "m", Targets: to(small)}, ask: "alias", grants: all, want: []string{"small"}, rule: "default"},
		{name: "rule", model: routed, grants: all, count: count{bound: 4000, n: 600, exact: true}, want: []string{"large"}, rule: "long", asked: 3},
		{name: "the largest count among the pools", model: routed, grants: all, count: count{bound: 4000, n: 460, exact: true}, want: []string{"large"}, rule: "long", asked: 3},
		{name: "no rule holds", model: routed, grants: all, count: count{bound: 400, n: 60, exact: true}, want: []string{"small", "public"}, rule: "default", asked: 3},
		{name: "rules and no default", model: &plan.Model{Name: "m", Pools: []*plan.Pool{large}, Rules: routed.Rules}, grants: all, refused: ai.ReasonNoRoute, asked: 1},
		{name: "a pool is tried once", model: &plan.Model{Name: "m", Targets: to(small, public, small)}, grants: all, want: []string{"small", "public"}, rule: "default"},
		{name: "unknown", model: routed, ask: "x", grants: all, refused: ai.ReasonUnknownModel},
		{name: "case counts", model: routed, ask: "M", grants: all, refused: ai.ReasonUnknownModel},
		{name: "not allowed", model: routed, grants: []*plan.Role{{Models: map[string]bool{"n": true}}}, refused: ai.ReasonModelNotAllowed},
		{name: "no egress", model: &plan.Model{Name: "m", Targets: to(small, public)}, grants: private, want: []string{"small"}, rule: "default"},
		{name: "gated egress", model: &plan.Model{Name: "m", Targets: to(public, other)}, grants: some, want: []string{"other"}, rule: "default"},
		{name: "only egress", model: &plan.Model{Name: "m", Targets: to(public)}, grants: private, refused: ai.ReasonEgressNotAllowed, rule: "default"},
		{name: "fits by bound", model: &plan.Model{Name: "m", Targets: to(small)}, grants: all, max: 900, count: count{bound: 100}, want: []string{"small"}, rule: "default"},
		{name: "fits by count", model: &plan.Model{Name: "m", Targets: to(small)}, grants: all, max: 900, count: count{bound: 400, n: 100, exact: true}, want: []string{"small"}, rule: "default", asked: 1},
		{name: "does not fit", model: &plan.Model{Name: "m", Targets: to(small, large)}, grants: all, max: 900, count: count{bound: 400, n: 101, exact: true}, want: []string{"large"}, rule: "default", asked: 1},
		{name: "may not fit", model: &plan.Model{Name: "m", Targets: to(small)}, grants: all, max: 900, count: count{bound: 400, n: 200}, want: []string{"small"}, rule: "default", asked: 1},
		{name: "fits nowhere", model: &plan.Model{Name: "m", Targets: to(small)}, grants: all, count: count{bound: 4000, n: 1000, exact: true}, refused: ai.ReasonContextTooLong, rule: "default", asked: 1},
		{name: "a window that is not known", model: &plan.Model{Name: "m", Targets: to(anyLen)}, grants: all, count: count{bound: 1 << 40}, want: []string{"any"}, rule: "default"},
		{name: "too long here, egress there", model: &plan.Model{Name: "m", Targets: to(small, public)}, grants: private, count: count{bound: 4000, n: 2000, exact: true}, refused: ai.ReasonContextTooLong, rule: "default", asked: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.ask == "" {
				tc.ask = "m"
			}
			ex := exchange(tc.model, tc.grants, openai.Request{Model: tc.ask, MaxOutput: tc.max, HasMaxOutput: tc.max > 0}, &tc.count)
			v, err := New(NewRests()).Request(t.Context(), ex)
			if err != nil || v.Reason != tc.refused {
				t.Fatalf("%+v, %v, want %q", v, err, tc.refused)
			}
			if diff := cmp.Diff(tc.want, names(ex.Decision.Targets)); diff != "" {
				t.Errorf("targets (-want +got):\n%s", diff)
			}
			if ex.Decision.Rule != tc.rule || tc.count.asked != tc.asked {
				t.Errorf("rule %q, counted %d times; want %q, %d", ex.Decision.Rule, tc.count.asked, tc.rule, tc.asked)
			}
		})
	}
}

func TestRuleThatFailsIsAnError(t *testing.T) {
	broken := errors.New("no such header")
	m := &plan.Model{Name: "m", Targets: to(small), Rules: []*plan.Rule{{Name: "r", When: when(func(*plan.Facts) (bool, error) { return false, broken })}}}
	_, err := New(NewRests()).Request(t.Context(), exchange(m, all, openai.Request{Model: "m"}, &count{}))
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func TestFacts(t *testing.T) {
	var got plan.Facts
	m := &plan.Model{Name: "m", Targets: to(small), Pools: []*plan.Pool{small}, Rules: []*plan.Rule{{When: when(func(f *plan.Facts) (bool, error) { got = *f; return false, nil })}}}
	ex := exchange(m, all, openai.Request{Model: "alias", Stream: true, Tools: true, Vision: true, Audio: true, Flex: true, MaxOutput: 7}, &count{bound: 9, n: 5})
	ex.Principal = ai.Principal{Key: "k", Team: "t", Roles: []string{"r"}}
	ex.Plan.Bounds.HeaderFacts = []string{"x-absent", "x-tier"}
	ex.In.Headers = []pipeline.Header{{Name: "x-tier", Value: "gold"}, {Name: "authorization", Value: "Bearer secret"}}
	if _, err := New(NewRests()).Request(t.Context(), ex); err != nil {
		t.Fatal(err)
	}
	if got.InputTokens() != 5 {
		t.Errorf("input tokens %d: want the estimate", got.InputTokens())
	}
	got.InputTokens = nil
	want := plan.Facts{Principal: ex.Principal, Model: "m", Kind: ai.KindChat, Stream: true, Tools: true, Vision: true, Audio: true, Batch: true, MaxOutput: 7,
		Headers: map[string]string{"x-tier": "gold"}, Now: time.Unix(1e9, 0).UTC(), Seen: &plan.Seen{}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(plan.Facts{}, plan.Seen{})); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
}

// One of a split is drawn by weight; the others follow, heaviest first.
func TestSplit(t *testing.T) {
	split := plan.Step{Choices: []plan.Choice{{Pool: small, Weight: 1}, {Pool: public, Weight: 3}, {Pool: large, Weight: 2}, {Pool: anyLen, Weight: 2}}}
	m := &plan.Model{Name: "m", Targets: []plan.Step{split, to(other)[0]}}
	drawn := map[uint64][]string{
		0: {"public", "large", "any", "small", "other"}, 2: {"public", "large", "any", "small", "other"},
		3: {"large", "public", "any", "small", "other"}, 5: {"any", "public", "large", "small", "other"},
		7: {"small", "public", "large", "any", "other"},
	}
	for r, want := range drawn {
		s := New(NewRests())
		s.Draw = func(n uint64) uint64 {
			if n != 8 {
				t.Errorf("drawn of %d, want 8", n)
			}
			return r
		}
		ex := exchange(m, all, openai.Request{Model: "m"}, &count{})
		if _, err := s.Request(t.Context(), ex); err != nil || !slices.Equal(names(ex.Decision.Targets), want) {
			t.Errorf("draw %d: %v, %v, want %v", r, names(ex.Decision.Targets), err, want)
		}
	}
	// What may not be used takes no part in the draw.
	s := New(NewRests())
	s.Draw = func(n uint64) uint64 {
		if n != 5 {
			t.Errorf("drawn of %d, want 5", n)
		}
		return 4
	}
	ex := exchange(m, []*plan.Role{{AllModels: true}}, openai.Request{Model: "m"}, &count{})
	if _, err := s.Request(t.Context(), ex); err != nil || !slices.Equal(names(ex.Decision.Targets), []string{"small", "large", "any"}) {
		t.Errorf("%v, %v", names(ex.Decision.Targets), err)
	}
	want := []pipeline.Drop{{Pool: public, Reason: ai.ReasonEgressNotAllowed}, {Pool: other, Reason: ai.ReasonEgressNotAllowed}}
	if diff := cmp.Diff(want, ex.Decision.Dropped); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}

// The shares of a split are its weights.
func TestSplitShares(t *testing.T) {
	m := &plan.Model{Name: "m", Targets: []plan.Step{{Choices: []plan.Choice{{Pool: small, Weight: 1}, {Pool: large, Weight: 3}}}}}
	next := uint64(0)
	s := New(NewRests())
	s.Draw = func(n uint64) uint64 { next++; return next % n }
	first := map[string]int{}
	for range 400 {
		ex := exchange(m, all, openai.Request{Model: "m"}, &count{})
		if _, err := s.Request(t.Context(), ex); err != nil {
			t.Fatal(err)
		}
		first[ex.Decision.Targets[0].Name]++
	}
	if first["small"] != 100 || first["large"] != 300 {
		t.Errorf("first targets %v, want 100 and 300", first)
	}
}

// A pool that asked to be left alone is passed over until then; when all have, the
// client is told when to come again.
func TestRestingPools(t *testing.T) {
	now := time.Unix(1000, 0)
	rests := NewRests()
	rests.Rest("small", now.Add(20*time.Second))
	rests.Rest("small", now.Add(5*time.Second)) // is not shorter for it
	s := New(rests)
	ask := func(at time.Time) *pipeline.Exchange {
		ex := exchange(&plan.Model{Name: "m", Targets: to(small, large)}, all, openai.Request{Model: "m"}, &count{})
		ex.In.Time = at
		return ex
	}
	ex := ask(now.Add(19 * time.Second))
	if v, err := s.Request(t.Context(), ex); err != nil || v.Stops() || names(ex.Decision.Targets)[0] != "large" || ex.Decision.Dropped[0].Reason != ai.ReasonPoolResting {
		t.Errorf("%+v, %v, %+v", v, err, ex.Decision)
	}
	rests.Rest("large", now.Add(25*time.Second))
	ex = ask(now.Add(19 * time.Second))
	if v, err := s.Request(t.Context(), ex); err != nil || v.Reason != ai.ReasonPoolResting || ex.Decision.RestsFor != time.Second {
		t.Errorf("%+v, %v, rests for %v", v, err, ex.Decision.RestsFor)
	}
	ex = ask(now.Add(20 * time.Second))
	if v, err := s.Request(t.Context(), ex); err != nil || v.Stops() || len(ex.Decision.Targets) != 1 || names(ex.Decision.Targets)[0] != "small" {
		t.Errorf("%+v, %v, %+v", v, err, ex.Decision)
	}
	if s.Request(t.Context(), ask(now.Add(time.Minute))); rests.any.Load() {
		t.Error("it still looks for pools that rest")
	}
}
