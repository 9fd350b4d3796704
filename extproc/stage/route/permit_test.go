package route

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

func TestPermits(t *testing.T) {
	m := &plan.Model{Name: "m", Targets: to(small, public)}
	role := func(change func(*plan.Role)) *plan.Role {
		r := &plan.Role{AllModels: true, AllEgress: true}
		change(r)
		return r
	}
	plain := openai.Request{Model: "m", N: 1, Prompts: 1}
	with := func(change func(*openai.Request)) openai.Request { r := plain; change(&r); return r }
	noTools, noStreams := role(func(r *plan.Role) { r.Denied = plan.Tools }), role(func(r *plan.Role) { r.Denied = plan.Streaming | plan.Vision })
	out100, out50 := role(func(r *plan.Role) { r.MaxOutput = 100 }), role(func(r *plan.Role) { r.MaxOutput = 50 })
	in500 := role(func(r *plan.Role) { r.MaxContext = 500 })
	both := with(func(r *openai.Request) { r.Tools, r.Stream = true, true })
	for _, tc := range []struct {
		name    string
		roles   []*plan.Role
		kind    ai.Kind
		ask     openai.Request
		count   count
		want    []string
		ceiling int64
		refused ai.Reason
		param   string
		asked   int
	}{
		{name: "no bounds", roles: all, ask: both, want: []string{"small", "public"}},
		{name: "tools", roles: []*plan.Role{noTools}, ask: both, refused: ai.ReasonFeatureNotAllowed, param: "tools"},
		{name: "stream", roles: []*plan.Role{noStreams}, ask: both, refused: ai.ReasonFeatureNotAllowed, param: "stream"},
		{name: "vision", roles: []*plan.Role{noStreams}, ask: with(func(r *openai.Request) { r.Vision = true }), refused: ai.ReasonFeatureNotAllowed, param: "messages"},
		{name: "each role denies another", roles: []*plan.Role{noTools, noStreams}, ask: both, refused: ai.ReasonFeatureNotAllowed, param: "stream"},
		{name: "one of them is enough", roles: []*plan.Role{noTools, noStreams}, ask: with(func(r *openai.Request) { r.Stream = true }), want: []string{"small", "public"}},
		{name: "no model, whatever else", roles: []*plan.Role{{Models: map[string]bool{"n": true}, Denied: plan.Tools}}, ask: both, refused: ai.ReasonModelNotAllowed, param: "model"},

		{name: "output as permitted", roles: []*plan.Role{out100}, ask: with(func(r *openai.Request) { r.MaxOutput, r.HasMaxOutput = 100, true }), want: []string{"small", "public"}},
		{name: "more output", roles: []*plan.Role{out50, out100}, ask: with(func(r *openai.Request) { r.MaxOutput, r.HasMaxOutput = 101, true }), refused: ai.ReasonOutputNotAllowed, param: "max_tokens"},
		{name: "output of all answers", roles: []*plan.Role{out100}, ask: with(func(r *openai.Request) { r.MaxOutput, r.HasMaxOutput, r.N = 51, true, 2 }), refused: ai.ReasonOutputNotAllowed, param: "max_tokens"},
		{name: "output beyond numbers", roles: []*plan.Role{out100}, ask: with(func(r *openai.Request) { r.MaxOutput, r.HasMaxOutput, r.N = math.MaxInt64/2+1, true, 2 }), refused: ai.ReasonOutputNotAllowed, param: "max_tokens"},
		{name: "a ceiling is set", roles: []*plan.Role{out50, out100}, ask: plain, want: []string{"small", "public"}, ceiling: 100},
		{name: "a ceiling for each answer", roles: []*plan.Role{out100}, ask: with(func(r *openai.Request) { r.N = 3 }), want: []string{"small", "public"}, ceiling: 33},
		{name: "more answers than tokens", roles: []*plan.Role{out50}, ask: with(func(r *openai.Request) { r.N = 51 }), refused: ai.ReasonOutputNotAllowed, param: "max_tokens"},
		{name: "a role without a bound", roles: []*plan.Role{out50, all[0]}, ask: plain, want: []string{"small", "public"}},
		{name: "embeddings have no output", roles: []*plan.Role{out50}, kind: ai.KindEmbedding, ask: with(func(r *openai.Request) { r.Prompts = 51 }), want: []string{"small", "public"}},
		{name: "a ceiling that holds at every target", ask: plain, want: []string{"small", "public"}, ceiling: 50,
			roles: []*plan.Role{role(func(r *plan.Role) { r.MaxOutput, r.Pools = 100, map[string]bool{"small": true} }), out50}},

		{name: "input below the bound without counting", roles: []*plan.Role{in500}, ask: plain, count: count{bound: 500}, want: []string{"small", "public"}},
		{name: "input as permitted", roles: []*plan.Role{in500}, ask: plain, count: count{bound: 900, n: 450, exact: true}, want: []string{"small", "public"}, asked: 2},
		{name: "too long for one target as it counts", roles: []*plan.Role{in500}, ask: plain, count: count{bound: 900, n: 460, exact: true}, want: []string{"small"}, asked: 2},
		{name: "too long an estimate", roles: []*plan.Role{in500}, ask: plain, count: count{bound: 900, n: 501}, refused: ai.ReasonContextNotAllowed, param: "messages", asked: 2},
		{name: "too long to embed", roles: []*plan.Role{in500}, kind: ai.KindEmbedding, ask: plain, count: count{bound: 900, n: 501}, refused: ai.ReasonContextNotAllowed, param: "input", asked: 2},
		{name: "long input by another role", roles: []*plan.Role{in500, {AllModels: true}}, ask: plain, count: count{bound: 900, n: 501, exact: true}, want: []string{"small"}, asked: 2},

		{name: "a pool that is not the role's", roles: []*plan.Role{role(func(r *plan.Role) { r.Pools = map[string]bool{"public": true} })}, ask: plain, want: []string{"public"}},
		{name: "no pool", roles: []*plan.Role{role(func(r *plan.Role) { r.Pools = map[string]bool{"large": true} })}, ask: plain, refused: ai.ReasonPoolNotAllowed, param: "model"},
		{name: "pools of one role, egress of another", ask: plain, refused: ai.ReasonEgressNotAllowed, param: "model",
			roles: []*plan.Role{{AllModels: true, Pools: map[string]bool{"public": true}}, {AllModels: true, AllEgress: true, Pools: map[string]bool{"large": true}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ex := exchange(m, tc.roles, tc.ask, &tc.count)
			if tc.kind != "" {
				ex.In.Kind = tc.kind
			}
			v, err := New(NewRests()).Request(t.Context(), ex)
			if err != nil || v.Reason != tc.refused || v.Param != tc.param {
				t.Fatalf("%+v, %v, want %q of %q", v, err, tc.refused, tc.param)
			}
			if diff := cmp.Diff(tc.want, names(ex.Decision.Targets)); diff != "" {
				t.Errorf("targets (-want +got):\n%s", diff)
			}
			if ex.Grants.MaxOutput != tc.ceiling || tc.count.asked != tc.asked {
				t.Errorf("ceiling %d, counted %d times; want %d, %d", ex.Grants.MaxOutput, tc.count.asked, tc.ceiling, tc.asked)
			}
		})
	}
}

// Where nothing is counted, no bound on the input is kept, so none permits.
func TestContextThatIsNotCounted(t *testing.T) {
	ex := exchange(&plan.Model{Name: "m", Targets: to(small)}, []*plan.Role{{AllModels: true, MaxContext: 1 << 40}}, openai.Request{Model: "m"}, &count{})
	ex.Estimate = pipeline.Estimate{}
	if v, err := New(NewRests()).Request(t.Context(), ex); err != nil || v.Reason != ai.ReasonContextNotAllowed {
		t.Errorf("%+v, %v", v, err)
	}
}

// A model that does not exist and one that is not permitted look alike.
func TestModelsTellNothing(t *testing.T) {
	roles := []*plan.Role{{Models: map[string]bool{"other": true}}}
	ask := func(name string) (pipeline.Verdict, ai.Answer) {
		v, err := New(NewRests()).Request(t.Context(), exchange(&plan.Model{Name: "m", Targets: to(small)}, roles, openai.Request{Model: name}, &count{}))
		if err != nil {
			t.Fatal(err)
		}
		answer := v.Reason.Answer()
		v.Reason = ""
		return v, answer
	}
	verdict1, answer1 := ask("m")
	verdict2, answer2 := ask("no such model")
	if verdict1 != verdict2 || answer1 != answer2 {
		t.Errorf("a model that may not be called: %+v %+v; one that is not there: %+v %+v", verdict1, answer1, verdict2, answer2)
	}
}

func TestEgressRefused(t *testing.T) {
	steps := func(list ...plan.Step) []plan.Step { return list }
	one := func(p *plan.Pool) plan.Step { return to(p)[0] }
	split := func(pools ...*plan.Pool) plan.Step {
		var s plan.Step
		for _, p := range pools {
			s.Choices = append(s.Choices, plan.Choice{Pool: p, Weight: 1})
		}
		return s
	}
	private, gated := []*plan.Role{{AllModels: true}}, []*plan.Role{{AllModels: true, EgressPools: map[string]bool{"other": true}}}
	for _, tc := range []struct {
		name  string
		roles []*plan.Role
		steps []plan.Step
		next  []string // targets when refused egress leads to the next
		fails bool     // with refuse
	}{
		{"the first is permitted", all, steps(one(public), one(small)), []string{"public", "small"}, false},
		{"egress behind the first", private, steps(one(small), one(public), one(large)), []string{"small", "large"}, false},
		{"egress before it", private, steps(one(public), one(small)), []string{"small"}, true},
		{"one egress barred, the next not", gated, steps(one(public), one(other)), []string{"other"}, true},
		{"a split of which one is left", private, steps(split(public, small), one(large)), []string{"small", "large"}, false},
		{"a split of which none is left", private, steps(split(public, other), one(large)), []string{"large"}, true},
		{"nothing is left", private, steps(one(public), one(other)), nil, true},
	} {
		for _, rule := range []bool{false, true} {
			for _, refuse := range []bool{false, true} {
				m := &plan.Model{Name: "m", Targets: tc.steps, RefuseEgress: refuse}
				if rule {
					m.Rules = []*plan.Rule{{Name: "r", When: when(func(*plan.Facts) (bool, error) { return true, nil }), Targets: tc.steps, RefuseEgress: refuse}}
					m.Targets, m.RefuseEgress = to(large), !refuse
				}
				ex := exchange(m, tc.roles, openai.Request{Model: "m"}, &count{})
				s := New(NewRests())
				s.Draw = func(uint64) uint64 { return 0 }
				v, err := s.Request(t.Context(), ex)
				if err != nil {
					t.Fatal(err)
				}
				if fails := tc.fails && refuse || tc.next == nil; fails != (v.Reason == ai.ReasonEgressNotAllowed) || !fails && v.Stops() {
					t.Errorf("%s, refuse %v, by rule %v: %+v", tc.name, refuse, rule, v)
				}
				if !v.Stops() && !slices.Equal(names(ex.Decision.Targets), tc.next) {
					t.Errorf("%s, refuse %v, by rule %v: targets %v, want %v", tc.name, refuse, rule, names(ex.Decision.Targets), tc.next)
				}
				if ex.Decision.RefuseEgress != refuse {
					t.Errorf("%s, refuse %v, by rule %v: the decision says otherwise", tc.name, refuse, rule)
				}
			}
		}
	}
}
