package rule

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

func compiler(t testing.TB) *Compiler {
	t.Helper()
	c, err := NewCompiler(Vocabulary{
		HeaderFacts: []string{"x-tier", "x-region"},
		Names: map[string][]string{
			"team": {"core", "data"}, "roles": {"plain", "egress"}, "model": {"chat"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pointer(f plan.Facts) *plan.Facts { return &f }

func facts() plan.Facts {
	return plan.Facts{
		Principal:   ai.Principal{Key: "k1", Application: "notebook", Team: "data", Roles: []string{"egress", "plain"}},
		Model:       "chat",
		Kind:        ai.KindChat,
		Stream:      true,
		Vision:      true,
		MaxOutput:   512,
		InputTokens: func() int64 { return 40_000 },
		Headers:     map[string]string{"x-tier": "gold", "x-secret": "s"},
		Now:         time.Date(2026, 3, 1, 20, 30, 0, 0, time.UTC),
	}
}

func TestHolds(t *testing.T) {
	c := compiler(t)
	for _, tt := range []struct {
		expr string
		want bool
	}{
		{`input_tokens > 32768`, true},
		{`input_tokens + max_output_tokens == 40512`, true},
		{`kind == "chat" && stream && !tools && vision`, true},
		{`kind in ["embedding", "completion"]`, false},
		{`team == "data" && application == "notebook" && key == "k1" && model == "chat"`, true},
		{`"egress" in roles`, true},
		{`roles.exists(r, r.startsWith("eg"))`, true},
		{`roles.all(r, r == "plain")`, false},
		{`size(roles) == 2`, true},
		{`headers["x-tier"] == "gold"`, true},
		{`headers["x-region"] == ""`, true},
		{`headers["x-region"] == "eu"`, false},
		{`"x-tier" in headers`, true},
		{`"x-region" in headers`, false},
		{`headers["x-tier"].matches("^g.*d$")`, true},
		{`size(headers) == 1`, true},
		{`headers.exists(h, h == "x-secret")`, false},
		{`now.getHours() == 20`, true},
		{`now.getHours("Asia/Shanghai") == 4`, true},
		{`now.getHours("+05:30") == 2`, true},
		{`now > timestamp("2026-01-01T00:00:00Z")`, true},
		{`stream ? input_tokens > 50000 : true`, false},
		{`"aaaa" < team && key > "a"`, true}, // by order, any text will do
		{`duration("48h").getHours() == 48`, true},
		{`now.getHours() <= 22 && now.getHours() > 0`, true},
	} {
		cond, faults := c.Compile(tt.expr)
		if faults != nil {
			t.Errorf("%s: %v", tt.expr, faults)
			continue
		}
		got, err := cond.Holds(pointer(facts()))
		if err != nil || got != tt.want {
			t.Errorf("%s: got %v, %v; want %v", tt.expr, got, err, tt.want)
		}
	}
}

func TestInputTokensAreCountedOnlyWhenRead(t *testing.T) {
	c := compiler(t)
	for _, tt := range []struct {
		expr  string
		reads bool
		calls int
	}{
		{`stream`, false, 0},
		{`tools && input_tokens > 5`, true, 0},
		{`stream && input_tokens > 5`, true, 1},
		{`input_tokens > 5 && input_tokens < 50000 && input_tokens != 7`, true, 1},
	} {
		cond, faults := c.Compile(tt.expr)
		if faults != nil {
			t.Fatalf("%s: %v", tt.expr, faults)
		}
		f, calls := facts(), 0
		f.InputTokens = func() int64 { calls++; return 10 }
		if _, err := cond.Holds(&f); err != nil {
			t.Errorf("%s: %v", tt.expr, err)
		}
		if calls != tt.calls || cond.ReadsInputTokens() != tt.reads {
			t.Errorf("%s: counted %d times, reads %v; want %d, %v", tt.expr, calls, cond.ReadsInputTokens(), tt.calls, tt.reads)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	c := compiler(t)
	for _, tt := range []struct {
		expr string
		want []string
	}{
		{`input_tokens`, []string{"1:1: the condition is of type int; want bool"}},
		{`dyn(true)`, []string{"1:1: the condition is of type dyn; want bool"}},
		{`input_token > 1`, []string{"1:1: undeclared reference to 'input_token' (did you mean 'input_tokens'?)"}},
		{`input_tokens > "1"`, []string{"1:14: found no matching overload for '_>_' applied to '(int, string)'"}},
		{"stream &&\n  wrong && other", []string{"2:3: undeclared reference to 'wrong'", "2:12: undeclared reference to 'other'"}},
		{`stream &&`, []string{"1:10: Syntax error: mismatched input '<EOF>'"}},
		{`headers["x-teir"] == "a"`, []string{`1:9: header "x-teir" is not in request_bounds.header_facts`}},
		{`headers["X-Tier"] == "a"`, []string{`1:9: header names are in lower case: write headers["x-tier"]`}},
		{`headers[model] == "a"`, []string{`1:9: the name of a header must be a constant`}},
		{`"x-other" in headers`, []string{`1:1: header "x-other" is not in request_bounds.header_facts`}},
		{`has(headers.tier)`, []string{`1:4: write headers["tier"]`}},
		{`headers.tier == "a"`, []string{`1:8: write headers["tier"]`}},
		{`team == "cor" || "dtaa" != team`, []string{`1:9: team is never "cor"`, `1:18: team is never "dtaa"`}},
		{`team in ["core", "deta"]`, []string{`1:18: team is never "deta"`}},
		{`"admin" in roles`, []string{`1:1: role is never "admin"`}},
		{`input_tokens < 0`, []string{`1:14: this never holds: input_tokens is at least 0`}},
		{`stream || 0 <= max_output_tokens`, []string{`1:13: this always holds: max_output_tokens is at least 0`}},
		{`max_output_tokens != -1 || input_tokens > 9223372036854775807`, []string{`1:19: this always holds: max_output_tokens is at least 0`, `1:41: this never holds: input_tokens is at least 0`}},
		{`now.getHours("UTC") >= 24 || now.getDayOfWeek() == 7`, []string{`1:21: this never holds: getHours is from 0 to 23`, `1:49: this never holds: getDayOfWeek is from 0 to 6`}},
		{`kind == "chats"`, []string{`1:9: kind is never "chats"`}},
		{`now.getHours("Asia/Shangai") > 3`, []string{`1:14: unknown time zone "Asia/Shangai"`}},
		{`now.getHours(headers["x-tier"]) > 3`, []string{`1:21: the time zone must be a constant`}},
		{`headers["x-tier"].matches("[")`, []string{"1:27: invalid matches argument"}},
		{`now > timestamp("tomorrow")`, []string{"1:17: invalid timestamp argument"}},
		{strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200), []string{"expression recursion limit exceeded: 64"}},
		{`true ||` + strings.Repeat(" ", 9000) + `true`, []string{"the expression is longer than 8192 bytes"}},
	} {
		cond, faults := c.Compile(tt.expr)
		got := make([]string, 0, len(faults))
		for _, f := range faults {
			got = append(got, f.Error())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || cond != nil {
			t.Errorf("%.60s: (-want +got)\n%s", tt.expr, diff)
		}
	}
}

func TestConstant(t *testing.T) {
	c := compiler(t)
	for _, tt := range []struct {
		expr            string
		value, constant bool
	}{
		{`true`, true, true},
		{`1 > 2`, false, true},
		{`true || stream`, true, true},
		{`stream && false`, false, true},
		{`stream`, false, false},
		{`input_tokens > 0`, false, false},
		{`headers["x-tier"] == ""`, false, false},
		{`roles.exists(r, true)`, false, false},
	} {
		cond, faults := c.Compile(tt.expr)
		if faults != nil {
			t.Fatalf("%s: %v", tt.expr, faults)
		}
		if value, constant := cond.Constant(); value != tt.value || constant != tt.constant {
			t.Errorf("%s: got %v %v, want %v %v", tt.expr, value, constant, tt.value, tt.constant)
		}
	}
}

func TestHoldsErrors(t *testing.T) {
	c := compiler(t)
	for _, tt := range []struct {
		expr string
		want error
	}{
		{`1 / (max_output_tokens - 512) == 0`, ErrNoValue},
		{`int(headers["x-tier"]) == 0`, ErrNoValue},
		{`headers["x-region"].matches("(a|b|c|d|e|f)+(a|b|c|d|e|f)+$") && headers["x-region"].matches("(a|b|c|d|e|f)+(a|b|c|d|e)+(a|b|c|d|e|f)+$")`, ErrCost},
	} {
		cond, faults := c.Compile(tt.expr)
		if faults != nil {
			t.Fatalf("%s: %v", tt.expr, faults)
		}
		f := facts()
		f.Headers["x-region"] = strings.Repeat("abcdef", 10_000)
		holds, err := cond.Holds(&f)
		if holds || !errors.Is(err, tt.want) || strings.Contains(err.Error(), "gold") {
			t.Errorf("%s: got %v, %v; want %v", tt.expr, holds, err, tt.want)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`stream`, `headers["x-tier"] == "gold"`, `roles.exists(r, r == "a")`, `now.getHours("UTC") < 3`, `(((`, `headers[`, `"\u0000"`} {
		f.Add(s)
	}
	c := compiler(f)
	f.Fuzz(func(t *testing.T, expr string) {
		cond, faults := c.Compile(expr)
		if (cond == nil) == (len(faults) == 0) {
			t.Fatalf("condition %v with faults %v", cond, faults)
		}
		if cond != nil {
			_, _ = cond.Holds(pointer(facts()))
		}
	})
}

func BenchmarkHolds(b *testing.B) {
	c := compiler(b)
	for name, expr := range map[string]string{
		"tokens":  `input_tokens > 32768`,
		"stream":  `stream`,
		"typical": `input_tokens > 32768 && team == "data" && "egress" in roles`,
		"header":  `headers["x-tier"] == "gold"`,
		"zone":    `now.getHours("Asia/Shanghai") < 6`,
		"exists":  `roles.exists(r, r == "egress")`,
	} {
		cond, faults := c.Compile(expr)
		if faults != nil {
			b.Fatal(faults)
		}
		f := facts()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if holds, err := cond.Holds(&f); err != nil || !holds {
					b.Fatal(holds, err)
				}
			}
		})
	}
}

func TestHoldsConcurrently(t *testing.T) {
	cond, faults := compiler(t).Compile(`input_tokens > 10 && roles.exists(r, r == "plain") && headers["x-tier"] == "gold"`)
	if faults != nil {
		t.Fatal(faults)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		f := facts()
		f.InputTokens = func() int64 { return int64(i * 5) }
		wg.Go(func() {
			for range 200 {
				if holds, err := cond.Holds(&f); err != nil || holds != (i*5 > 10) {
					t.Errorf("%d: %v, %v", i, holds, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
