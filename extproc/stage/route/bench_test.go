package route

import (
	"fmt"
	"testing"
	"time"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/rule"
)

// The whole stage with a hundred rules of the usual kinds, of which none holds: facts,
// rules, targets and what is known of them.
func BenchmarkStageOfHundredRules(b *testing.B) {
	c, err := rule.NewCompiler(rule.Vocabulary{
		Names: map[string][]string{"team": {"core"}, "roles": {"batch"}},
		Pools: map[string]*plan.Pool{"small": small, "large": large},
	})
	if err != nil {
		b.Fatal(err)
	}
	m := &plan.Model{Name: "m", Targets: to(small, large), Pools: []*plan.Pool{small, large}, DefaultMaxTokens: 10}
	for i := range 25 {
		for _, when := range []string{
			fmt.Sprintf(`input_tokens > %d && team == "core"`, 50_000+i), fmt.Sprintf(`pools["small"].waiting > %d`, 100+i),
			fmt.Sprintf(`reasoning_effort == "max" && thinking_budget > %d`, i), `!tools && stream && "batch" in roles`,
		} {
			cond, faults := c.Compile(when)
			if faults != nil {
				b.Fatal(faults)
			}
			m.Rules = append(m.Rules, &plan.Rule{Name: when, Source: when, When: cond, Targets: to(large)})
		}
	}
	s := New(NewRests())
	heard := plan.PoolState{Endpoints: 2, Healthy: 2, Heard: time.Unix(1e9, 0), Running: 3, Waiting: 1}
	s.Live = states{"small": heard, "large": heard}
	ex := exchange(m, all, openai.Request{Model: "m", N: 1, Prompts: 1}, &count{bound: 10, n: 10})
	b.ReportAllocs()
	for b.Loop() {
		ex.Decision.Targets, ex.Decision.Dropped = ex.Decision.Targets[:0], ex.Decision.Dropped[:0]
		if v, err := s.Request(b.Context(), ex); err != nil || v.Stops() || ex.Decision.Targets[0] != small {
			b.Fatal(v, err, ex.Decision.Rule)
		}
	}
}
