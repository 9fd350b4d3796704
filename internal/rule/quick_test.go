package rule

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weirproxy/weir/dialect/profile"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// known is a plan.Live of fixed states.
type known map[string]plan.PoolState

func (k known) Pool(name string) (plan.PoolState, bool) { s, ok := k[name]; return s, ok }

// liveCompiler knows pools, limits and calendars.
func liveCompiler(t testing.TB) *Compiler {
	t.Helper()
	kind, _ := profile.ByName("vllm")
	price := []plan.PricePeriod{{Price: ai.Price{Input: 2_000_000_000, Output: 8_000_000_000}}}
	night := plan.NewHours(time.UTC)
	for day := range time.Saturday + 1 {
		night.Add(day, 22*60, 6*60)
	}
	c, err := NewCompiler(Vocabulary{
		HeaderFacts: []string{"x-tier"},
		Names:       map[string][]string{"team": {"core", "data"}, "roles": {"plain", "egress"}, "model": {"chat"}},
		Pools: map[string]*plan.Pool{
			"local": {Name: "local", Adapter: kind, Prices: price, Endpoints: make([]plan.Endpoint, 2)},
			"cloud": {Name: "cloud", Adapter: kind, Endpoints: make([]plan.Endpoint, 1)},
		},
		Limits: map[string]*plan.Limit{"month": {Name: "month"}},
		Calendars: map[string]*plan.Calendar{
			"night":    {Name: "night", Zone: time.UTC, Hours: night, Except: map[plan.Date]bool{{Year: 2026, Month: 3, Day: 2}: true}},
			"holidays": {Name: "holidays", Zone: time.UTC, Dates: map[plan.Date]bool{{Year: 2026, Month: 3, Day: 1}: true}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func liveFacts() *plan.Facts {
	f := facts()
	f.Effort, f.ThinkingBudget = "high", 9000
	f.Live = known{"local": {
		Endpoints: 2, Healthy: 1, Open: 7, Heard: f.Now, Running: 5, Waiting: 12, KVUse: 0.93,
		Attempts: 20, ErrorRate: 0.25, FirstToken: 450 * time.Millisecond, RestUntil: f.Now.Add(time.Second),
	}}
	f.Left = func(l *plan.Limit) (float64, bool) { return 0.04, l.Name == "month" }
	return &f
}

func TestLiveFacts(t *testing.T) {
	c := liveCompiler(t)
	for expr, want := range map[string]bool{
		`pools["local"].waiting > 10`:                                        true,
		`pools["local"].waiting_per_endpoint >= 12.0`:                        true,
		`pools["local"].kv_use > 0.9 && pools["local"].known`:                true,
		`pools["local"].healthy < pools["local"].endpoints`:                  true,
		`pools["local"].resting`:                                             true,
		`pools["local"].error_rate >= 0.25 && pools["local"].attempts >= 20`: true,
		`pools["local"].first_token_ms > 400`:                                true,
		`pools["local"].input_price < pools["local"].output_price`:           true,
		`pools["local"].output_price == 8.0`:                                 true,
		`pools["cloud"].known || pools["cloud"].stale`:                       false,
		`pools["cloud"].waiting > 0`:                                         false,
		`pools["cloud"].healthy == 1`:                                        true,
		`limits["month"].left < 0.05 && limits["month"].known`:               true,
		`calendars["night"]`:                                                 false,
		`calendars["holidays"] && !calendars["night"]`:                       true,
		`reasoning_effort in ["high", "xhigh", "max"]`:                       true,
		`reasoning_effort == "high" && thinking_budget > 8000`:               true,
	} {
		cond, faults := c.Compile(expr)
		if faults != nil {
			t.Errorf("%s: %v", expr, faults[0])
			continue
		}
		if got, err := cond.Holds(liveFacts()); err != nil || got != want {
			t.Errorf("%s: %v, %v", expr, got, err)
		}
		if got, err := cond.evaluate(liveFacts()); err != nil || got != want {
			t.Errorf("%s by CEL: %v, %v", expr, got, err)
		}
		if _, constant := cond.Constant(); constant {
			t.Errorf("%s is called constant", expr)
		}
	}
}

// What is stale or unknown has the value that is documented.
func TestStaleFacts(t *testing.T) {
	c := liveCompiler(t)
	f := liveFacts()
	s := f.Live.(known)["local"]
	s.Stale = true
	f.Live = known{"local": s}
	f.Left = func(*plan.Limit) (float64, bool) { return 0, false }
	for _, expr := range []string{
		`pools["local"].stale && !pools["local"].known`, `pools["local"].waiting == 0`, `pools["local"].kv_use == 0.0`,
		`pools["local"].running == pools["local"].open`, `limits["month"].left == 1.0 && !limits["month"].known`,
	} {
		cond, faults := c.Compile(expr)
		if faults != nil {
			t.Fatal(expr, faults[0])
		}
		if got, err := cond.Holds(f); err != nil || !got {
			t.Errorf("%s: %v, %v", expr, got, err)
		}
	}
	f.Live, f.Left, f.Seen = nil, nil, nil
	cond, _ := c.Compile(`pools["local"].healthy == 2 && pools["local"].running == 0 && limits["month"].left == 1.0`)
	if got, err := cond.Holds(f); err != nil || !got {
		t.Errorf("with nothing known: %v, %v", got, err)
	}
}

func TestLiveFaults(t *testing.T) {
	c := liveCompiler(t)
	for expr, want := range map[string]string{
		`pools["locl"].waiting > 1`:            `1:7: unknown pool "locl"`,
		`pools["local"].wating > 1`:            `1:15: undefined field 'wating'`,
		`pools["local"]`:                       `1:1: the condition is of type pool; want bool`,
		`pools.local.waiting > 1`:              `1:6: write pools["local"]`,
		`pools[team].waiting > 1`:              `1:7: the name of a pool must be a constant`,
		`"local" in pools`:                     `1:12: pools is read as pools["name"]`,
		`limits["day"].left < 0.1`:             `1:8: unknown limit "day"`,
		`calendars["weekend"]`:                 `1:11: unknown calendar "weekend"`,
		`reasoning_effort == "hgih"`:           `1:21: reasoning_effort is never "hgih"`,
		`thinking_budget < 0`:                  `1:17: this never holds: thinking_budget is at least 0`,
		`pools["local"].known > 1`:             `1:22: found no matching overload for '_>_' applied to '(bool, int)'`,
		`pool{}.waiting > 1.0`:                 "",
		`has(pools["local"].waiting)`:          "",
		`pools["local"] == pools["cloud"]`:     "",
		`type(pools["local"]) == type(limits)`: "",
	} {
		cond, faults := c.Compile(expr)
		switch {
		case want != "" && (len(faults) == 0 || faults[0].Error() != want):
			t.Errorf("%s: %v, want %s", expr, faults, want)
		case want == "" && faults == nil: // odd, and not harmful
			_, _ = cond.Holds(liveFacts())
		}
	}
}

// A quick look never says what CEL does not.
func TestQuickLooksAgree(t *testing.T) {
	c := liveCompiler(t)
	r := rand.New(rand.NewPCG(3, 4))
	atoms := []string{
		"stream", "tools", "vision", "audio", "batch", "true", "false", `kind == "chat"`, `"embedding" != kind`, `kind in ["chat", "completion"]`, `team == "core"`, `key == "k1"`,
		`"egress" in roles`, `roles.exists(stream, stream == "plain")`, `headers["x-tier"] == "gold"`, `headers["x-tier"].startsWith("g")`, `input_tokens > 1000`,
		`1000 >= input_tokens`, `max_output_tokens == 512`, `input_tokens + max_output_tokens > 5000`, `pools["local"].waiting > 3`, `2.5 < pools["cloud"].kv_use`,
		`pools["local"].known`, `pools["cloud"].stale`, `limits["month"].left <= 0.5`, `calendars["night"]`, `now.getHours() < 12`, `reasoning_effort != "low"`, `thinking_budget >= 8000`,
		`input_tokens * 2 < max_output_tokens - 512`, `input_tokens + 9223372036854775000 > 0`, `max_output_tokens * 36028797018963968 > 0`,
		`pools["local"].waiting > pools["cloud"].waiting`, `pools["local"].waiting + pools["cloud"].open >= input_tokens`, `pools["cloud"].kv_use * 2.0 <= limits["month"].left + 3.5`,
		`pools["local"].waiting < pools["cloud"].kv_use`, `pools["cloud"].kv_use / limits["month"].left > max_output_tokens`, `pools["local"].error_rate / 0.0 == 1.0`,
		`headers["x-tier"] in ["gold", ""]`, `"x-tier" in headers`, `team.startsWith("co")`, `key.endsWith("2")`, `!headers["x-tier"].contains("il")`,
		`input_tokens / max_output_tokens > 3`, `roles[1] == "plain"`, `1 / max_output_tokens == 0`,
	}
	var build func(depth int) string
	build = func(depth int) string {
		if depth == 0 || r.IntN(4) == 0 {
			return atoms[r.IntN(len(atoms))]
		}
		switch r.IntN(4) {
		case 0:
			return "!(" + build(depth-1) + ")"
		case 1:
			return "(" + build(depth-1) + " || " + build(depth-1) + ")"
		}
		return "(" + build(depth-1) + " && " + build(depth-1) + ")"
	}
	quickly, n := 0, 0
	for range 600 {
		expr := build(3)
		cond, faults := c.Compile(expr)
		if faults != nil {
			t.Fatalf("%s: %v", expr, faults)
		}
		for range 20 {
			f := someFacts(r)
			want, err := cond.evaluate(f)
			switch v := cond.quick(f); {
			case v == unsure:
			case err != nil || want != (v == yes):
				t.Fatalf("%s: a quick look says %v, CEL %v, %v, of %+v", expr, v == yes, want, err, f)
			default:
				quickly++
			}
			n++
		}
	}
	if quickly*10 < n*7 {
		t.Errorf("only %d of %d were seen at a quick look", quickly, n)
	}
}

func someFacts(r *rand.Rand) *plan.Facts {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	f := plan.Facts{
		Principal: ai.Principal{Key: pick("k1", "k2"), Team: pick("core", "data")},
		Kind:      ai.Kind(pick("chat", "completion", "embedding")), Stream: r.IntN(2) == 0, Tools: r.IntN(2) == 0, Vision: r.IntN(2) == 0, Audio: r.IntN(2) == 0, Batch: r.IntN(2) == 0,
		MaxOutput: int64(r.IntN(3)) * 256, Effort: pick("", "low", "high"), ThinkingBudget: int64(r.IntN(2)) * 9000,
		Headers: map[string]string{}, Now: time.Date(2026, 3, 1+r.IntN(3), r.IntN(24), 0, 0, 0, time.UTC),
	}
	for _, role := range []string{"plain", "egress"} {
		if r.IntN(2) == 0 {
			f.Principal.Roles = append(f.Principal.Roles, role)
		}
	}
	if r.IntN(2) == 0 {
		f.Headers["x-tier"] = pick("gold", "silver")
	}
	tokens := int64(r.IntN(4000))
	f.InputTokens = func() int64 { return tokens }
	if r.IntN(3) > 0 {
		f.Live = known{"local": {Waiting: float64(r.IntN(8)), Heard: f.Now, Stale: r.IntN(2) == 0}, "cloud": {KVUse: r.Float64() * 5, Heard: f.Now}}
		part := r.Float64()
		f.Left = func(*plan.Limit) (float64, bool) { return part, true }
	}
	return &f
}

// A hundred rules of the usual kinds, of which none holds.
func BenchmarkHundredRules(b *testing.B) {
	c := liveCompiler(b)
	var rules []*Condition
	for i := range 20 {
		for _, expr := range []string{
			fmt.Sprintf(`input_tokens > %d && team == "core"`, 50_000+i), fmt.Sprintf(`headers["x-tier"] == "t%d"`, i),
			fmt.Sprintf(`pools["local"].waiting > %d`, 100+i), fmt.Sprintf(`reasoning_effort == "max" && thinking_budget > %d`, i),
			`calendars["night"] && !tools && "egress" in roles`,
		} {
			cond, faults := c.Compile(expr)
			if faults != nil {
				b.Fatal(faults)
			}
			rules = append(rules, cond)
		}
	}
	f := liveFacts()
	for name, holds := range map[string]func(*Condition, *plan.Facts) (bool, error){"quick": (*Condition).Holds, "cel": (*Condition).evaluate} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for _, r := range rules {
					if held, err := holds(r, f); held || err != nil {
						b.Fatal(held, err)
					}
				}
			}
		})
	}
}
