package replay_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/extproc/replay"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

type when func(*plan.Facts) bool

func (w when) Holds(f *plan.Facts) (bool, error) { return w(f), nil }

var (
	local = &plan.Pool{Name: "local", Placement: ai.Private, ContextWindow: 1000}
	cloud = &plan.Pool{Name: "cloud", Placement: ai.Public}
)

func to(pools ...*plan.Pool) (steps []plan.Step) {
	for _, p := range pools {
		steps = append(steps, plan.Step{Choices: []plan.Choice{{Pool: p, Weight: 1}}})
	}
	return steps
}

// testPlan is of one model with two targets, for a key of the file and one role.
func testPlan(change func(p *plan.Plan, m *plan.Model)) *plan.Plan {
	dev := &plan.Role{Name: "dev", AllModels: true, AllEgress: true, Network: &plan.Network{}}
	m := &plan.Model{Name: "chat", Aliases: []string{"gpt"}, DefaultMaxTokens: 10, Targets: to(local, cloud), Pools: []*plan.Pool{local, cloud}}
	p := &plan.Plan{
		Models: map[string]*plan.Model{"chat": m, "gpt": m}, ModelList: []*plan.Model{m}, Pools: []*plan.Pool{cloud, local},
		Roles:     map[string]*plan.Role{"dev": dev},
		KeyList:   []*plan.Key{{Name: "ci", Principal: ai.Principal{Key: "ci", Team: "core", Roles: []string{"dev"}}, Roles: []*plan.Role{dev}}},
		Directory: plan.Directory{Teams: map[string][]string{"core": nil}},
	}
	change(p, m)
	return p
}

func decision(change func(*usagev1.Decision)) *usagev1.Decision {
	d := &usagev1.Decision{
		Id: "id", Time: timestamppb.New(time.Unix(1e9, 0)), Key: "ci", Team: "core", Identity: "key", Roles: []string{"dev"}, Model: "chat", RequestedModel: "gpt",
		Kind: "chat", Verdict: "allowed", Rule: "default", InputTokens: 100, InputCertainty: usagev1.Certainty_CERTAINTY_COUNTED,
	}
	change(d)
	return d
}

func unchanged(*plan.Plan, *plan.Model) {}

func TestReplay(t *testing.T) {
	effort := func(p *plan.Plan, m *plan.Model) {
		m.Rules = []*plan.Rule{{Name: "hard", When: when(func(f *plan.Facts) bool {
			return f.Effort == "high" && f.Tools && f.Audio && f.Batch && f.ThinkingBudget == 7 && f.MaxOutput == 0 && f.InputTokens() == 100
		}), Targets: to(cloud)}}
	}
	hard := func(d *usagev1.Decision) {
		d.Facts = &usagev1.Facts{ReasoningEffort: "high", Tools: true, Audio: true, Flex: true, ThinkingBudget: 7, AskedOutputTokens: proto.Int64(0)}
	}
	for name, c := range map[string]struct {
		is     func(*plan.Plan, *plan.Model)
		d      func(*usagev1.Decision)
		want   string // what becomes of it; "" for the same
		passed string
	}{
		"the same":             {is: unchanged, d: func(*usagev1.Decision) {}},
		"another order":        {is: func(_ *plan.Plan, m *plan.Model) { m.Targets = to(cloud, local) }, want: "default: cloud, local"},
		"a rule that holds":    {is: effort, d: hard, want: "hard: cloud"},
		"a rule that does not": {is: effort, d: func(*usagev1.Decision) {}},
		"no such model":        {is: func(p *plan.Plan, _ *plan.Model) { delete(p.Models, "gpt") }, want: "refused: unknown_model"},
		"no egress":            {is: func(p *plan.Plan, _ *plan.Model) { p.Roles["dev"] = &plan.Role{Name: "dev", AllModels: true} }, want: "default: local"},
		"no such endpoint": {is: func(p *plan.Plan, _ *plan.Model) {
			p.Roles["dev"] = &plan.Role{Name: "dev", AllModels: true, Endpoints: []ai.Kind{ai.KindEmbedding}}
		}, want: "refused: endpoint_not_allowed"},
		"a smaller window": {is: func(_ *plan.Plan, m *plan.Model) {
			m.Targets = to(&plan.Pool{Name: "tiny", Placement: ai.Private, ContextWindow: 100}, cloud)
		}, want: "default: cloud"},
		"the key is gone": {is: func(p *plan.Plan, _ *plan.Model) { p.KeyList = nil }, want: "refused: the configuration has no key ci"},
		"a stored key's team is gone": {is: func(p *plan.Plan, _ *plan.Model) { p.Directory.Teams = nil }, d: func(d *usagev1.Decision) { d.Key = "stored" },
			want: "refused: the configuration has no team core"},
		"a role of a token is gone": {is: func(p *plan.Plan, _ *plan.Model) { p.Roles = nil }, d: func(d *usagev1.Decision) { d.Identity = "jwt" },
			want: "refused: the configuration has no role dev"},
		"a rollout begins": {is: func(_ *plan.Plan, m *plan.Model) {
			m.Rollout = &plan.Rollout{From: local, To: &plan.Pool{Name: "new", Placement: ai.Private}}
		}, want: "default: new, local, cloud"},
		"no roles":         {is: unchanged, d: func(d *usagev1.Decision) { d.Roles = nil }, passed: "recorded without roles, by an earlier weir"},
		"no caller":        {is: unchanged, d: func(d *usagev1.Decision) { d.Team = "" }, passed: "the caller was not known"},
		"no model":         {is: unchanged, d: func(d *usagev1.Decision) { d.RequestedModel = "" }, passed: "no model was asked for"},
		"refused at once":  {is: unchanged, d: func(d *usagev1.Decision) { d.Verdict, d.Stage = "refused", "decode" }, passed: "refused by decode"},
		"refused by quota": {is: func(_ *plan.Plan, m *plan.Model) { m.Targets = to(local) }, d: func(d *usagev1.Decision) { d.Verdict, d.Stage = "refused", "quota" }, want: "default: local"},
	} {
		t.Run(name, func(t *testing.T) {
			r := replay.New(testPlan(unchanged), testPlan(c.is), replay.Known{Share: func(*plan.Model) float64 { return 1 }})
			if c.d == nil {
				c.d = func(*usagev1.Decision) {}
			}
			if err := r.Add(t.Context(), decision(c.d)); err != nil {
				t.Fatal(err)
			}
			want := &replay.Report{Replayed: 1, Passed: map[string]int{}}
			if c.passed != "" {
				want = &replay.Report{Passed: map[string]int{c.passed: 1}}
			}
			if c.want != "" {
				want.Changed = 1
				want.Changes = []replay.Change{{Model: "chat", Team: "core", Was: "default: local, cloud", Is: c.want, Count: 1, Examples: []string{"id"}}}
			}
			if diff := cmp.Diff(want, r.Report()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// A split's draw changes only where its shares do; what changes alike is one line, the
// most frequent first.
func TestReplayOfSplits(t *testing.T) {
	split := func(weight uint32) func(*plan.Plan, *plan.Model) {
		return func(_ *plan.Plan, m *plan.Model) {
			m.Targets = []plan.Step{{Choices: []plan.Choice{{Pool: local, Weight: 100 - weight}, {Pool: cloud, Weight: weight}}}}
			m.Rules = []*plan.Rule{{Name: "h", Source: `headers["x"] == "y"`, When: when(func(f *plan.Facts) bool { return f.Headers["x"] == "y" }), Targets: to(cloud)}}
		}
	}
	r := replay.New(testPlan(split(10)), testPlan(split(20)), replay.Known{})
	const n = 2000
	for i := range n {
		if err := r.Add(t.Context(), decision(func(d *usagev1.Decision) { d.Id = time.Unix(int64(i), 0).String() })); err != nil {
			t.Fatal(err)
		}
	}
	got := r.Report()
	if len(got.Changes) != 1 || got.Changes[0].Was != "default: local, cloud" || got.Changes[0].Is != "default: cloud, local" ||
		got.Changed < n/10-60 || got.Changed > n/10+60 || len(got.Changes[0].Examples) != 3 || !got.Headers {
		t.Errorf("%+v", got)
	}
}
