package route

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// states is a plan.Live of fixed states.
type states map[string]plan.PoolState

func (s states) Pool(name string) (plan.PoolState, bool) { v, ok := s[name]; return v, ok }

func priced(name string, input, output ai.NanoUSD) *plan.Pool {
	return &plan.Pool{Name: name, Placement: ai.Private, Prices: []plan.PricePeriod{{Price: ai.Price{Input: input, Output: output}}}}
}

func anyOf(by plan.Order, pools ...*plan.Pool) plan.Step {
	s := plan.Step{By: by}
	for _, p := range pools {
		s.Choices = append(s.Choices, plan.Choice{Pool: p, Weight: 1})
	}
	return s
}

func TestOrder(t *testing.T) {
	now := time.Unix(1e9, 0)
	cheapInput, cheapOutput, dear := priced("cheap-input", 1, 10), priced("cheap-output", 6, 1), priced("dear", 20, 20)
	busy := &plan.Pool{Name: "busy", Placement: ai.Private, Saturation: &plan.Saturation{WaitingPerEndpoint: 4, KVUse: 0.9, OpenPerEndpoint: 50}}
	spare := &plan.Pool{Name: "spare", Placement: ai.Private}
	away := &plan.Pool{Name: "away", Placement: ai.Public}
	heard := func(running, waiting float64, healthy int) plan.PoolState {
		return plan.PoolState{Endpoints: 2, Healthy: healthy, Heard: now, Running: running, Waiting: waiting}
	}
	for _, tc := range []struct {
		name   string
		steps  []plan.Step
		live   states
		draw   uint64
		output int64
		input  int64
		roles  []*plan.Role
		want   []string
		behind map[string]string
	}{
		{name: "the cheapest for much input", steps: []plan.Step{anyOf(plan.ByPrice, dear, cheapOutput, cheapInput)}, input: 1000, output: 10, want: []string{"cheap-input", "cheap-output", "dear"}},
		{name: "the cheapest for much output", steps: []plan.Step{anyOf(plan.ByPrice, dear, cheapInput, cheapOutput)}, input: 10, output: 1000, want: []string{"cheap-output", "cheap-input", "dear"}},
		{name: "the cheapest without a ceiling: the default's", steps: []plan.Step{anyOf(plan.ByPrice, cheapInput, cheapOutput)}, input: 100, want: []string{"cheap-output", "cheap-input"}},
		{name: "the soonest", steps: []plan.Step{anyOf(plan.ByFirstToken, busy, spare, dear)}, draw: 1, live: states{
			"busy": {Attempts: 9, FirstToken: 900 * time.Millisecond}, "spare": {Attempts: 9, FirstToken: 80 * time.Millisecond},
		}, want: []string{"spare", "busy", "dear"}},
		{name: "the unknown is tried", steps: []plan.Step{anyOf(plan.ByFirstToken, busy, spare)}, live: states{
			"busy": {Attempts: 9, FirstToken: 900 * time.Millisecond},
		}, want: []string{"spare", "busy"}},
		{name: "the soonest is failing", steps: []plan.Step{anyOf(plan.ByFirstToken, spare, dear)}, draw: 1, live: states{
			"spare": {Attempts: 9, FirstToken: 80 * time.Millisecond, Failing: true}, "dear": {Attempts: 1, FirstToken: time.Second},
		}, want: []string{"dear", "spare"}, behind: map[string]string{"spare": pipeline.Failing}},
		{name: "the least to do", steps: []plan.Step{anyOf(plan.ByLoad, busy, spare, dear)}, draw: 1, live: states{
			"busy": heard(4, 2, 2), "spare": heard(3, 1, 1), "dear": {Endpoints: 1, Healthy: 1, Open: 9},
		}, want: []string{"busy", "spare", "dear"}},
		{name: "none is healthy", steps: []plan.Step{anyOf(plan.ByLoad, spare, dear)}, draw: 1, live: states{
			"spare": heard(0, 0, 0), "dear": {Endpoints: 1, Healthy: 1, Open: 9},
		}, want: []string{"dear", "spare"}, behind: map[string]string{"spare": pipeline.Failing}},
		{name: "nothing is known", steps: []plan.Step{anyOf(plan.ByLoad, busy, spare)}, draw: 1, want: []string{"spare", "busy"}},
		{name: "overflow by what waits", steps: to(busy, spare), live: states{"busy": heard(9, 8, 2)}, want: []string{"spare", "busy"}, behind: map[string]string{"busy": pipeline.Saturated}},
		{name: "just below", steps: to(busy, spare), live: states{"busy": heard(9, 7, 2)}, want: []string{"busy", "spare"}},
		{name: "overflow by what is open", steps: to(busy, spare), live: states{"busy": {Endpoints: 2, Healthy: 2, Open: 100}}, want: []string{"spare", "busy"}, behind: map[string]string{"busy": pipeline.Saturated}},
		{name: "stale facts overflow nothing", steps: to(busy, spare), live: states{"busy": {Healthy: 1, Heard: now, Stale: true, Waiting: 99, KVUse: 1}}, want: []string{"busy", "spare"}},
		{name: "overflow to a provider", steps: to(busy, away), roles: all, live: states{"busy": heard(0, 80, 1)}, want: []string{"away", "busy"}, behind: map[string]string{"busy": pipeline.Saturated}},
		{name: "no overflow to a provider that is not permitted", steps: to(busy, away), roles: []*plan.Role{{AllModels: true}}, live: states{"busy": heard(0, 80, 1)}, want: []string{"busy"}},
		{name: "all are busy", steps: to(busy, spare), live: states{"busy": heard(0, 80, 1), "spare": {Failing: true, Endpoints: 1, Healthy: 1}}, draw: 1, want: []string{"busy", "spare"}},
		{name: "failing is behind saturated", steps: to(spare, busy, dear), live: states{"busy": heard(0, 80, 1), "spare": {Failing: true, Endpoints: 1, Healthy: 1}}, draw: 1,
			want: []string{"dear", "busy", "spare"}, behind: map[string]string{"busy": pipeline.Saturated, "spare": pipeline.Failing}},
		{name: "a trial", steps: to(spare, dear), live: states{"spare": {Failing: true, Endpoints: 1, Healthy: 1}}, want: []string{"spare", "dear"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.roles == nil {
				tc.roles = all
			}
			m := &plan.Model{Name: "m", Targets: tc.steps, DefaultMaxTokens: 4096}
			ex := exchange(m, tc.roles, openai.Request{Model: "m", N: 1, Prompts: 1, MaxOutput: tc.output, HasMaxOutput: tc.output > 0}, &count{bound: tc.input, n: tc.input})
			s := New(NewRests())
			s.Draw = func(n uint64) uint64 { return min(tc.draw, n-1) }
			if tc.live != nil {
				s.Live = tc.live
			}
			if v, err := s.Request(t.Context(), ex); err != nil || v.Stops() {
				t.Fatal(v, err)
			}
			if diff := cmp.Diff(tc.want, names(ex.Decision.Targets)); diff != "" {
				t.Errorf("targets (-want +got):\n%s", diff)
			}
			behind := map[string]string{}
			for _, d := range ex.Decision.Demoted {
				behind[d.Pool.Name] = d.Why
			}
			if len(behind) != len(tc.behind) || len(behind) > 0 && !cmp.Equal(behind, tc.behind) {
				t.Errorf("demoted %v, want %v", behind, tc.behind)
			}
		})
	}
}

// Pools that are equal get equal shares, wherever they stand among the others.
func TestOrderSharesEvenly(t *testing.T) {
	var pools []*plan.Pool
	for _, name := range []string{"a", "b", "c", "dear-1", "dear-2", "dear-3", "dear-4", "dear-5"} {
		price := ai.NanoUSD(1)
		if len(name) > 1 {
			price = 9
		}
		pools = append(pools, priced(name, price, price))
	}
	r := rand.New(rand.NewPCG(7, 8))
	s := New(NewRests())
	s.Draw = r.Uint64N
	m := &plan.Model{Name: "m", Targets: []plan.Step{anyOf(plan.ByPrice, pools...)}, DefaultMaxTokens: 10}
	const runs = 6000
	at := map[string]int{} // how often each is at each place
	for range runs {
		ex := exchange(m, all, openai.Request{Model: "m", N: 1, Prompts: 1}, &count{bound: 10, n: 10})
		if _, err := s.Request(t.Context(), ex); err != nil {
			t.Fatal(err)
		}
		for i, name := range names(ex.Decision.Targets) {
			at[name+" at "+strconv.Itoa(i)]++
		}
	}
	// Five standard deviations of a third are 183 of 6000, of a fifth 155.
	for _, name := range []string{"a", "b", "c"} {
		for i := range 3 {
			if n := at[name+" at "+strconv.Itoa(i)]; n < runs/3-183 || n > runs/3+183 {
				t.Errorf("%s is at place %d %d times of %d", name, i, n, runs)
			}
		}
	}
	for i := range 5 {
		if n := at["dear-1 at "+strconv.Itoa(3+i)]; n < runs/5-155 || n > runs/5+155 {
			t.Errorf("dear-1 is at place %d %d times of %d", 3+i, n, runs)
		}
	}
}

// Whatever is known of pools, the same ones are targets, each once, and none that is
// barred.
func TestOrderKeepsTargets(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	pools := []*plan.Pool{small, public, large, anyLen, other}
	orders := []plan.Order{plan.ByWeight, plan.ByPrice, plan.ByFirstToken, plan.ByLoad}
	for range 2000 {
		var steps []plan.Step
		for range 1 + r.IntN(3) {
			s := plan.Step{By: orders[r.IntN(len(orders))]}
			for range 1 + r.IntN(4) {
				s.Choices = append(s.Choices, plan.Choice{Pool: pools[r.IntN(len(pools))], Weight: 1 + uint32(r.IntN(3))})
			}
			steps = append(steps, s)
		}
		live := states{}
		for _, p := range pools {
			if r.IntN(3) > 0 {
				live[p.Name] = plan.PoolState{Endpoints: 2, Healthy: r.IntN(3), Failing: r.IntN(3) == 0, Open: r.Int64N(9), FirstToken: time.Duration(r.IntN(2)) * time.Second, Heard: time.Unix(1e9, 0)}
			}
		}
		grants := [][]*plan.Role{all, {{AllModels: true}}}[r.IntN(2)]
		n := int64(r.IntN(3000))
		run := func(l plan.Live) []string {
			ex := exchange(&plan.Model{Name: "m", Targets: steps}, grants, openai.Request{Model: "m", N: 1, Prompts: 1}, &count{bound: n, n: n, exact: true})
			s := New(NewRests())
			s.Live = l
			if _, err := s.Request(t.Context(), ex); err != nil {
				t.Fatal(err)
			}
			got := names(ex.Decision.Targets)
			slices.Sort(got)
			return got
		}
		with, without := run(live), run(nil)
		if !slices.Equal(with, without) || len(slices.Compact(slices.Clone(with))) != len(with) {
			t.Fatalf("targets %v, and %v with nothing known", with, without)
		}
	}
}
