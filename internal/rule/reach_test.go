package rule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// testWorld is teams core and data, of which the latter has an application and a
// role that all its keys have.
var testWorld = World{
	Model: "chat",
	Callers: []Caller{
		{Team: "core"},
		{Team: "data", Roles: []string{"plain"}},
		{Team: "data", Application: "notebook", Roles: []string{"plain", "egress"}},
	},
}

func reach(t *testing.T, w World, expressions ...string) ([]Reach, []*Condition) {
	t.Helper()
	c := compiler(t).ForModel("chat")
	var rules []*Condition
	for _, e := range expressions {
		cond, faults := c.Compile(e)
		if faults != nil {
			t.Fatalf("%s: %v", e, faults)
		}
		rules = append(rules, cond)
	}
	return c.Reach(rules, w), rules
}

func TestReach(t *testing.T) {
	yes, never := Reach{}, Reach{Never, -1}
	behind := func(i int) Reach { return Reach{Shadowed, i} }
	for _, tc := range []struct {
		rules []string
		want  []Reach // of each, and of what no rule takes
	}{
		{nil, []Reach{yes}},
		{[]string{`stream`}, []Reach{yes, yes}},
		{[]string{`false`}, []Reach{never, yes}},
		{[]string{`true`, `stream`}, []Reach{yes, behind(0), behind(0)}},
		{[]string{`kind == "chat" && kind == "embedding"`}, []Reach{never, yes}},
		{[]string{`kind != "chat" || kind != "embedding"`}, []Reach{yes, behind(0)}},
		{[]string{`kind.startsWith("chat") && kind.endsWith("ing")`}, []Reach{never, yes}},
		{[]string{`model != "chat"`}, []Reach{never, yes}},
		{[]string{`team == "core" && team == "data" && input_tokens > 5`}, []Reach{never, yes}},
		{[]string{`team == "core" && application == "notebook"`}, []Reach{never, yes}},
		{[]string{`team == "core" && application != ""`}, []Reach{never, yes}},
		{[]string{`team == "data" && !("plain" in roles)`}, []Reach{never, yes}},
		{[]string{`team == "core" && !("plain" in roles)`}, []Reach{yes, yes}},
		{[]string{`application == "notebook"`, `application == "notebook" && "egress" in roles`}, []Reach{yes, behind(0), yes}},
		{[]string{`input_tokens > 10 && input_tokens < 5`}, []Reach{never, yes}},
		{[]string{`input_tokens > 10 && input_tokens < 12`}, []Reach{yes, yes}},
		{[]string{`input_tokens > 10 && input_tokens < 11`}, []Reach{never, yes}},
		{[]string{`input_tokens > 1000`, `input_tokens > 5000`}, []Reach{yes, behind(0), yes}},
		{[]string{`input_tokens > 5000`, `input_tokens > 1000`}, []Reach{yes, yes, yes}},
		{[]string{`input_tokens > 10`, `input_tokens <= 10`}, []Reach{yes, yes, {Shadowed, -1}}},
		{[]string{`input_tokens in [5, 6] && input_tokens > 6`}, []Reach{never, yes}},
		{[]string{`stream`, `!stream`, `tools`}, []Reach{yes, yes, {Shadowed, -1}, {Shadowed, -1}}},
		{[]string{`stream`, `tools && stream`}, []Reach{yes, behind(0), yes}},
		{[]string{`team in ["core", "data"]`, `vision`}, []Reach{yes, behind(0), behind(0)}},
		{[]string{`headers["x-tier"] == "gold" && headers["x-tier"] == "silver"`}, []Reach{never, yes}},
		{[]string{`headers["x-tier"] == "gold" && !("x-tier" in headers)`}, []Reach{never, yes}},
		{[]string{`headers["x-tier"] == "" && "x-tier" in headers`}, []Reach{yes, yes}},
		{[]string{`headers["x-tier"] == "gold" && headers["x-region"] == "eu"`, `headers["x-tier"] == "gold"`}, []Reach{yes, yes, yes}},
		{[]string{`headers["x-tier"] == "gold"`, `headers["x-tier"] == "gold" && headers["x-region"] == "eu"`}, []Reach{yes, behind(0), yes}},
		{[]string{`key == "a" && key == "b"`}, []Reach{never, yes}},
		{[]string{`key != "a" && key != "b"`}, []Reach{yes, yes}},
		// What is not known is taken for possible.
		{[]string{`now.getHours() > 5 && now.getHours() < 3`}, []Reach{yes, yes}},
		{[]string{`input_tokens + max_output_tokens > 5 && input_tokens < 0 + 1`}, []Reach{yes, yes}},
		{[]string{`roles.exists(r, r == "egress") && !("egress" in roles)`}, []Reach{yes, yes}},
		{[]string{`headers["x-tier"].startsWith("a") && headers["x-tier"] == "b"`}, []Reach{yes, yes}},
		{[]string{`[1, 2].exists(stream, stream > 1) && stream`}, []Reach{yes, yes}},
		{[]string{`1 / max_output_tokens == 1`}, []Reach{yes, yes}},
		// And still what is known is looked at.
		{[]string{`now.getHours() > 5 && kind == "chat" && kind == "embedding"`}, []Reach{never, yes}},
		{[]string{`stream || now.getHours() > 5`, `stream && tools`}, []Reach{yes, behind(0), yes}},
	} {
		got, _ := reach(t, testWorld, tc.rules...)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%q: got %v, want %v", tc.rules, got, tc.want)
		}
	}
}

// Only callers with a role that permits the model come.
func TestReachOfAModelThatNotAllMayCall(t *testing.T) {
	w := testWorld
	w.Granting = []string{"egress"}
	for expression, want := range map[string]Outcome{`!("egress" in roles)`: Never, `"egress" in roles`: Reached, `!("plain" in roles)`: Reached} {
		if got, _ := reach(t, w, expression); got[0].Outcome != want {
			t.Errorf("%s: %v, want %v", expression, got[0], want)
		}
	}
}

// A space that is too large is looked at in part.
func TestReachIsBounded(t *testing.T) {
	var terms []string
	for i := range 200 {
		terms = append(terms, fmt.Sprintf("input_tokens != %d && max_output_tokens != %d && headers[\"x-tier\"] != \"v%d\"", 3*i+1, 5*i+1, i))
	}
	start := time.Now()
	got, _ := reach(t, testWorld, strings.Join(terms[:40], " && ")+` && kind == "chat" && kind == "embedding" && team == "core" && stream`, `stream`)
	if got[0].Outcome != Never || got[1].Outcome != Reached {
		t.Errorf("%v", got)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

// Of many rules, each is compared with some before it.
func TestReachOfManyRules(t *testing.T) {
	var rules []string
	for i := range 300 {
		rules = append(rules, fmt.Sprintf("input_tokens == %d", 10+i))
	}
	rules = append(rules, "input_tokens == 300 && stream", "input_tokens == 10 && stream")
	start := time.Now()
	got, _ := reach(t, testWorld, rules...)
	for i, r := range got {
		want := Reach{}
		if i == 300 {
			want = Reach{Shadowed, 290}
		}
		if r != want {
			t.Errorf("rule %d: %v, want %v", i, r, want)
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
}

// generator makes expressions.
type generator struct {
	*rand.Rand
	finite bool // compares only, so that everything can be known
}

func (g generator) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g generator) atom() string {
	n := func() int { return g.IntN(4) }
	switch g.IntN(12) {
	case 0:
		return g.pick("stream", "tools")
	case 1:
		return fmt.Sprintf("kind %s %q", g.pick("==", "!="), g.pick("chat", "embedding"))
	case 2:
		return fmt.Sprintf("team %s %q", g.pick("==", "!="), g.pick("core", "data"))
	case 3:
		return fmt.Sprintf("application %s %q", g.pick("==", "!="), g.pick("", "notebook"))
	case 4, 5:
		return fmt.Sprintf("%q in roles", g.pick("plain", "egress"))
	case 6, 7:
		return fmt.Sprintf("input_tokens %s %d", g.pick(">", "=="), n())
	case 8:
		return fmt.Sprintf("%d %s max_output_tokens", 1+n(), g.pick(">", "<="))
	case 9:
		return fmt.Sprintf("headers[\"x-tier\"] %s %q", g.pick("==", "!="), g.pick("", "gold", "silver"))
	case 10:
		return g.pick(`"x-tier" in headers`, `key == "k1"`, `key in ["k1", "k2"]`, `input_tokens in [1, 3]`)
	}
	if g.finite {
		return g.pick("true", "false")
	}
	return g.pick(`input_tokens + max_output_tokens > 3`, `headers["x-tier"].startsWith("g")`, `roles.exists(r, r == "plain")`,
		`now.getHours() < 7`, `input_tokens > max_output_tokens`, `key.startsWith("k")`, `size(roles) == 1`, `team.startsWith("c")`)
}

func (g generator) expression(depth int) string {
	if depth == 0 || g.IntN(4) == 0 {
		return g.atom()
	}
	a, b := g.expression(depth-1), g.expression(depth-1)
	switch g.IntN(5) {
	case 0:
		return "!(" + a + ")"
	case 1:
		return "(" + a + " || " + b + ")"
	case 2:
		return "(" + a + " ? " + b + " : " + g.atom() + ")"
	}
	return "(" + a + " && " + b + ")"
}

// every calls f with every request of a small world in which all that the
// generator's expressions tell apart exists.
func every(f func(plan.Facts)) {
	subsets := [][]string{nil, {"egress"}, {"plain"}, {"egress", "plain"}}
	for _, caller := range testWorld.Callers {
		for _, roles := range subsets {
			if slices.ContainsFunc(caller.Roles, func(r string) bool { return !slices.Contains(roles, r) }) {
				continue
			}
			// Each remainder is one fact: 3 kinds, stream, tools, 3 keys, 5 headers, 5
			// numbers each.
			for i := range 3 * 2 * 2 * 3 * 5 * 5 * 5 {
				of := func(n int) int { r := i % n; i /= n; return r }
				now := time.Date(2026, 1, 1, i%24, 0, 0, 0, time.UTC)
				p := ai.Principal{Key: []string{"k1", "k2", "z"}[of(3)], Team: caller.Team, Application: caller.Application, Roles: roles}
				kind, stream, tools := []ai.Kind{ai.KindChat, ai.KindCompletion, ai.KindEmbedding}[of(3)], of(2) == 0, of(2) == 0
				headers := []map[string]string{{}, {"x-tier": ""}, {"x-tier": "gold"}, {"x-tier": "silver"}, {"x-tier": "x"}}[of(5)]
				input, output := int64(of(5)), int64(of(5))
				f(plan.Facts{Principal: p, Model: "chat", Kind: kind, Stream: stream, Tools: tools, MaxOutput: output, Headers: headers, Now: now,
					InputTokens: func() int64 { return input }})
			}
		}
	}
}

// No rule that some request reaches is called unreachable; and in rules that only
// compare, what no request reaches is found.
func TestReachAgreesWithTryingEverything(t *testing.T) {
	count := map[Outcome]int{}
	for seed := range uint64(40) {
		g := generator{rand.New(rand.NewPCG(seed, 3)), seed%2 == 0}
		expressions := []string{g.expression(2), g.expression(2), g.expression(3)}
		got, rules := reach(t, testWorld, expressions...)
		holds, reached := make([]bool, 4), make([]bool, 4)
		every(func(f plan.Facts) {
			taken := false
			for i, r := range rules {
				h, err := r.Holds(&f)
				if err != nil {
					t.Fatalf("%s: %v", expressions[i], err)
				}
				holds[i] = holds[i] || h
				reached[i] = reached[i] || h && !taken
				taken = taken || h
			}
			holds[3], reached[3] = true, reached[3] || !taken
		})
		for i, r := range got {
			count[r.Outcome]++
			switch {
			case r.Outcome == Never && holds[i], r.Outcome == Shadowed && reached[i]:
				t.Errorf("seed %d: %q: rule %d is said to be %v, and a request reaches it", seed, expressions, i, r)
			case g.finite && !reached[i] && r.Outcome == Reached:
				t.Errorf("seed %d: %q: no request reaches rule %d, and that is not found", seed, expressions, i)
			}
		}
	}
	if count[Never] < 3 || count[Shadowed] < 3 || count[Reached] < 40 {
		t.Errorf("outcomes %v: the test says little", count)
	}
}

// Every expression can be looked at, and one that holds for some facts is never
// said to hold for none.
func FuzzReach(f *testing.F) {
	for _, s := range []string{`stream`, `team == "core" && "plain" in roles`, `headers["x-tier"] in ["a", ""] && "x-tier" in headers`, `input_tokens in [9223372036854775807]`,
		`roles.exists(team, team == "plain")`, `key == "k1" ? input_tokens > 39999 : vision`, `max_output_tokens - 1 == 511`} {
		f.Add(s)
	}
	c := compiler(f).ForModel("chat")
	f.Fuzz(func(t *testing.T, expression string) {
		cond, faults := c.Compile(expression)
		if faults != nil {
			return
		}
		got := c.Reach([]*Condition{cond}, testWorld)
		if holds, err := cond.Holds(pointer(facts())); err == nil && holds && got[0].Outcome != Reached {
			t.Errorf("%s holds, and is said to be %v", expression, got[0])
		} else if err == nil && !holds && got[1].Outcome != Reached {
			t.Errorf("%s does not hold, and is said to hold always", expression)
		}
	})
}

// A model of twenty rules, as a load of the configuration looks at it.
func BenchmarkReach(b *testing.B) {
	c := compiler(b).ForModel("chat")
	var rules []*Condition
	for i := range 20 {
		cond, faults := c.Compile(fmt.Sprintf(`input_tokens > %d && (team == "core" || "egress" in roles) && headers["x-tier"] == "t%d" && now.getHours("Asia/Shanghai") < 7`, 1000*i, i))
		if faults != nil {
			b.Fatal(faults)
		}
		rules = append(rules, cond)
	}
	for b.Loop() {
		for i, r := range c.Reach(rules, testWorld) {
			if r.Outcome != Reached {
				b.Fatal(i, r)
			}
		}
	}
}
