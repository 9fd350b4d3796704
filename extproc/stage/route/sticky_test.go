package route

import (
	"math"
	"strconv"
	"testing"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// A split keeps its shares; a caller keeps to its pool, and as the canary's weight grows,
// callers go there and none comes back.
func TestSticky(t *testing.T) {
	stable, canary := &plan.Pool{Name: "stable", Placement: ai.Private}, &plan.Pool{Name: "canary", Placement: ai.Private}
	s := New(NewRests())
	s.Draw = func(n uint64) uint64 { t.Error("it draws"); return 0 }
	goes := func(user string, percent uint32) string {
		m := &plan.Model{Name: "m", Targets: []plan.Step{{Sticky: plan.StickyPrincipal, Choices: []plan.Choice{{Pool: stable, Weight: 100 - percent}, {Pool: canary, Weight: percent}}}}}
		ex := exchange(m, all, openai.Request{Model: "m", N: 1, Prompts: 1}, &count{})
		ex.Principal = ai.Principal{Key: "k", User: user}
		if v, err := s.Request(t.Context(), ex); err != nil || v.Stops() || len(ex.Decision.Targets) != 2 {
			t.Fatal(v, err, names(ex.Decision.Targets))
		}
		return ex.Decision.Targets[0].Name
	}
	const users = 4000
	was := map[string]bool{}
	for _, percent := range []uint32{1, 10, 50, 51, 90, 99} {
		n := 0
		for i := range users {
			user := strconv.Itoa(i)
			on := goes(user, percent) == "canary"
			if on != (goes(user, percent) == "canary") {
				t.Fatalf("user %s does not stay", user)
			}
			if was[user] && !on {
				t.Fatalf("at %d %% user %s comes back from the canary", percent, user)
			}
			if was[user] = on; on {
				n++
			}
		}
		p := float64(percent) / 100
		if want, deviation := p*users, math.Sqrt(p*(1-p)*users); math.Abs(float64(n)-want) > 5*deviation {
			t.Errorf("%d of %d users at %d %%", n, users, percent)
		}
	}
}

// The turns of a conversation keep to a pool, whoever calls; what has no text goes by who
// calls; and what may not be used takes no part.
func TestStickyConversation(t *testing.T) {
	m := &plan.Model{Name: "m"}
	key := func(kind ai.Kind, body, user string) uint64 {
		ex := exchange(m, all, openai.Request{}, &count{})
		if f := openai.Parse(kind, []byte(body), 64, &ex.In.Request); f != nil {
			t.Fatal(f)
		}
		ex.Decision.Model, ex.Principal.User = m, user
		return stickyKey(ex, plan.StickyConversation)
	}
	const first, second, another = `{"model":"m","messages":[{"role":"user","content":"a"}]}`,
		`{"model":"m","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}`,
		`{"model":"m","messages":[{"role":"user","content":"b"}]}`
	if a, b := key(ai.KindChat, first, "x"), key(ai.KindChat, second, "y"); a != b {
		t.Error("two turns of a conversation differ")
	}
	if key(ai.KindChat, first, "x") == key(ai.KindChat, another, "x") {
		t.Error("two conversations are the same")
	}
	const ids = `{"model":"m","prompt":[1,2]}`
	if key(ai.KindCompletion, ids, "x") == key(ai.KindCompletion, ids, "y") || key(ai.KindCompletion, ids, "x") != key(ai.KindCompletion, ids, "x") {
		t.Error("token ids do not go by who calls")
	}
	barred := []*plan.Role{{AllModels: true}}
	m.Targets = []plan.Step{{Sticky: plan.StickyConversation, Choices: []plan.Choice{{Pool: public, Weight: 99}, {Pool: small, Weight: 1}, {Pool: large, Weight: 1}}}}
	for i := range 50 {
		ex := exchange(m, barred, openai.Request{Model: "m", N: 1, Prompts: 1}, &count{})
		ex.Principal.User = strconv.Itoa(i)
		if v, err := New(NewRests()).Request(t.Context(), ex); err != nil || v.Stops() || len(ex.Decision.Targets) != 2 || ex.Decision.Targets[0] == public {
			t.Fatal(v, err, names(ex.Decision.Targets))
		}
	}
}

func BenchmarkSticky(b *testing.B) {
	pools := []*plan.Pool{{Name: "stable"}, {Name: "canary"}}
	ex := exchange(&plan.Model{Name: "m"}, all, openai.Request{}, &count{})
	ex.Decision.Model, ex.Principal = &plan.Model{Name: "m"}, ai.Principal{Key: "key", Team: "team", User: "user"}
	b.ReportAllocs()
	for b.Loop() {
		kept(stickyKey(ex, plan.StickyPrincipal), pools, []uint32{95, 5})
	}
}
