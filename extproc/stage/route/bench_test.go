package route

import (
	"fmt"
	"testing"
	"time"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/rule"
)

// usualRules are a hundred rules of the kinds that operators write, of which none holds
// for the request of the benchmarks, most only at their last word.
func usualRules() (conditions []string) {
	for i := range 5 {
		conditions = append(conditions,
			// Who calls, and what for.
			fmt.Sprintf(`input_tokens > %d && team == "core"`, 50_000+i),
			fmt.Sprintf(`team in ["core", "data"] && kind == "chat" && max_output_tokens > %d`, 4000+i),
			fmt.Sprintf(`application.startsWith("lab%d-")`, i),
			`!tools && stream && "batch" in roles`,
			fmt.Sprintf(`headers["x-tier"] == "gold%d" || headers["x-tier"] == "platinum"`, i),
			`"x-debug" in headers && "operators" in roles`,
			`vision && (team == "data" || key.endsWith("-vision"))`,
			// How much.
			fmt.Sprintf(`input_tokens + max_output_tokens > %d && "plain" in roles`, 100_000+i),
			fmt.Sprintf(`reasoning_effort == "max" && thinking_budget > %d`, i),
			fmt.Sprintf(`input_tokens * 2 < max_output_tokens - %d`, i),
			// How busy, and how well.
			fmt.Sprintf(`pools["small"].waiting > %d`, 100+i),
			`pools["small"].known && pools["small"].waiting_per_endpoint > 4.0 && pools["large"].waiting == 0`,
			`pools["large"].waiting < pools["small"].waiting`,
			`pools["small"].error_rate > 0.2 || pools["small"].resting`,
			`pools["small"].kv_use > 0.9 && !pools["large"].stale`,
			`pools["small"].healthy < pools["small"].endpoints`,
			// What is left, and when.
			fmt.Sprintf(`limits["month"].left < 0.%d1`, i),
			`limits["month"].known && limits["month"].left < 0.2 && team != "core"`,
			`calendars["night"] && input_tokens > 2000`,
			`calendars["night"] && !pools["large"].known`,
		)
	}
	return conditions
}

// The whole stage with a hundred rules: facts, rules, targets and what is known of
// them. It may cost 5 µs.
func BenchmarkStageOfHundredRules(b *testing.B) {
	month := &plan.Limit{Name: "month"}
	c, err := rule.NewCompiler(rule.Vocabulary{
		HeaderFacts: []string{"x-tier", "x-debug"},
		Names:       map[string][]string{"team": {"core", "data"}, "roles": {"batch", "plain", "operators"}},
		Pools:       map[string]*plan.Pool{"small": small, "large": large},
		Limits:      map[string]*plan.Limit{"month": month},
		Calendars:   map[string]*plan.Calendar{"night": night(b)},
	})
	if err != nil {
		b.Fatal(err)
	}
	m := &plan.Model{Name: "m", Targets: to(small, large), Pools: []*plan.Pool{small, large}, DefaultMaxTokens: 10}
	for _, when := range usualRules() {
		cond, faults := c.Compile(when)
		if faults != nil {
			b.Fatal(when, faults[0])
		}
		m.Rules = append(m.Rules, &plan.Rule{Name: when, Source: when, When: cond, Targets: to(large)})
	}
	if len(m.Rules) != 100 {
		b.Fatal(len(m.Rules))
	}
	s := New(NewRests())
	heard := plan.PoolState{Endpoints: 2, Healthy: 2, Heard: time.Unix(1e9, 0), Running: 3, Waiting: 1}
	s.Live = states{"small": heard, "large": heard}
	s.Left = func(*plan.Limit, *pipeline.Exchange) (float64, bool) { return 0.7, true }
	ex := exchange(m, all, openai.Request{Model: "m", N: 1, Prompts: 1, MaxOutput: 10}, &count{bound: 10, n: 10})
	ex.Plan.Bounds.HeaderFacts = []string{"x-tier", "x-debug"}
	ex.Principal = ai.Principal{Key: "k", Application: "notebook", Team: "core", Roles: []string{"plain"}}
	b.ReportAllocs()
	for b.Loop() {
		ex.Decision.Targets, ex.Decision.Dropped = ex.Decision.Targets[:0], ex.Decision.Dropped[:0]
		ex.Decision.Seen = ex.Decision.Seen.Emptied()
		if v, err := s.Request(b.Context(), ex); err != nil || v.Stops() || ex.Decision.Targets[0] != small {
			b.Fatal(v, err, ex.Decision.Rule)
		}
	}
}

// night is from 22 to 6 h, but for a holiday; the requests of the benchmarks come then.
func night(b *testing.B) *plan.Calendar {
	zone, err := time.LoadLocation("Asia/Shanghai")
	if err != nil {
		b.Fatal(err)
	}
	hours := plan.NewHours(zone)
	for day := range time.Weekday(7) {
		hours.Add(day, 8*60, 22*60) // 1e9 is at 9:46 there
	}
	return &plan.Calendar{Name: "night", Zone: zone, Hours: hours, Except: map[plan.Date]bool{{Year: 2001, Month: 10, Day: 1}: true}}
}
