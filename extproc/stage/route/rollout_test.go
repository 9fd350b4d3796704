package route

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// A rollout's share goes to the canary first and to the old pool behind it; as the share
// grows, callers move and none comes back.
func TestRollout(t *testing.T) {
	old, canary := &plan.Pool{Name: "old", Placement: ai.Private}, &plan.Pool{Name: "canary", Placement: ai.Private}
	m := &plan.Model{
		Name: "m", Targets: to(old, large), Pools: []*plan.Pool{old, large, canary},
		Rollout: &plan.Rollout{From: old, To: canary, Sticky: plan.StickyPrincipal},
	}
	s := New(NewRests())
	share := 0.0
	s.Share = func(of *plan.Model) float64 {
		if of != m {
			t.Errorf("it asks for model %q", of.Name)
		}
		return share
	}
	moved := func(user string) bool {
		ex := exchange(m, all, openai.Request{Model: "m", N: 1, Prompts: 1}, &count{})
		ex.Principal = ai.Principal{Key: "k", User: user}
		if v, err := s.Request(t.Context(), ex); err != nil || v.Stops() {
			t.Fatal(v, err)
		}
		want := "old large"
		if ex.Decision.Moved {
			want = "canary old large"
		}
		if got := strings.Join(names(ex.Decision.Targets), " "); got != want || ex.Decision.Share != share {
			t.Fatalf("it goes to %s, want %s; share %v", got, want, ex.Decision.Share)
		}
		return ex.Decision.Moved
	}
	const users = 4000
	was := map[string]bool{}
	for _, share = range []float64{0, 0.001, 0.05, 0.25, 0.5, 0.999, 1} {
		n := 0
		for i := range users {
			user := strconv.Itoa(i)
			on := moved(user)
			if was[user] && !on {
				t.Fatalf("at %v user %s comes back", share, user)
			}
			if was[user] = on; on {
				n++
			}
		}
		if want, deviation := share*users, math.Sqrt(share*(1-share)*users); math.Abs(float64(n)-want) > 5*deviation {
			t.Errorf("%d of %d users at %v", n, users, share)
		}
	}
}

// What moves where is drawn without stickiness; what may not use the canary, or does not
// go to the old pool, stays.
func TestRolloutStays(t *testing.T) {
	old, canary := &plan.Pool{Name: "old", Placement: ai.Private}, &plan.Pool{Name: "canary", Placement: ai.Public}
	m := &plan.Model{Name: "m", Targets: to(old), Pools: []*plan.Pool{old, canary}, Rollout: &plan.Rollout{From: old, To: canary}}
	private := []*plan.Role{{AllModels: true}}
	s := New(NewRests())
	share, drawn := 0.5, uint64(0)
	s.Share = func(*plan.Model) float64 { return share }
	s.Draw = func(n uint64) uint64 { return drawn * (n / 10) }
	for _, c := range []struct {
		name    string
		share   float64
		drawn   uint64 // tenths
		targets []plan.Step
		roles   []*plan.Role
		want    string
	}{
		{"drawn below", 0.5, 4, to(old), all, "canary old"},
		{"drawn above", 0.5, 6, to(old), all, "old"},
		{"all", 1, 9, to(old), all, "canary old"},
		{"behind another", 1, 0, to(large, old), all, "large canary old"},
		{"elsewhere", 1, 0, to(large), all, "large"},
		{"not permitted", 1, 0, to(old), private, "old"},
	} {
		share, drawn, m.Targets = c.share, c.drawn, c.targets
		ex := exchange(m, c.roles, openai.Request{Model: "m", N: 1, Prompts: 1}, &count{})
		if v, err := s.Request(t.Context(), ex); err != nil || v.Stops() || strings.Join(names(ex.Decision.Targets), " ") != c.want {
			t.Errorf("%s: %v %v: %s, want %s", c.name, v, err, names(ex.Decision.Targets), c.want)
		}
		if barred := len(ex.Decision.Dropped) == 1 && ex.Decision.Dropped[0].Pool == canary; barred != (c.name == "not permitted") {
			t.Errorf("%s: dropped %v", c.name, ex.Decision.Dropped)
		}
	}
}

// That the old pool rests, or its context is too short, keeps nothing from the canary: it
// is tried where the old pool would have been.
func TestRolloutWithoutTheOldPool(t *testing.T) {
	old := &plan.Pool{Name: "old", Placement: ai.Private, ContextWindow: 100}
	canary := &plan.Pool{Name: "canary", Placement: ai.Private}
	m := &plan.Model{Name: "m", Rollout: &plan.Rollout{From: old, To: canary}}
	split := []plan.Step{{Choices: []plan.Choice{{Pool: old, Weight: 1}, {Pool: small, Weight: 1}}}}
	for _, c := range []struct {
		name    string
		share   float64
		rests   bool
		input   int64
		targets []plan.Step
		want    string
	}{
		{"it rests", 1, true, 10, to(old), "canary"},
		{"its context is too short", 1, false, 200, to(old), "canary"},
		{"between others", 1, true, 10, to(large, old, small), "large canary small"},
		{"behind those of its split", 1, true, 10, append(split, to(large)...), "small canary large"},
		{"it does not move", 0, true, 10, to(old, large), "large"},
	} {
		rests := NewRests()
		m.Targets = c.targets
		ex := exchange(m, all, openai.Request{Model: "m", N: 1, Prompts: 1}, &count{bound: c.input, n: c.input, exact: true})
		if c.rests {
			rests.Rest(old.Name, ex.In.Time.Add(time.Minute))
		}
		s := New(rests)
		s.Share = func(*plan.Model) float64 { return c.share }
		if v, err := s.Request(t.Context(), ex); err != nil || v.Stops() || strings.Join(names(ex.Decision.Targets), " ") != c.want {
			t.Errorf("%s: %v %v: %s, want %s", c.name, v, err, names(ex.Decision.Targets), c.want)
		}
	}
}

func BenchmarkRollout(b *testing.B) {
	old, canary := &plan.Pool{Name: "old", Placement: ai.Private}, &plan.Pool{Name: "canary", Placement: ai.Private}
	m := &plan.Model{Name: "m", Targets: to(old, large), Rollout: &plan.Rollout{From: old, To: canary, Sticky: plan.StickyPrincipal}}
	s := New(NewRests())
	s.Share = func(*plan.Model) float64 { return 0.25 }
	ex := exchange(m, all, openai.Request{}, &count{})
	ex.Decision.Model, ex.Principal = m, ai.Principal{Key: "key", Team: "team", User: "user"}
	targets := make([]*plan.Pool, 0, 4)
	b.ReportAllocs()
	for b.Loop() {
		ex.Decision.Targets = append(targets[:0], old, large)
		s.shift(ex, m.Targets)
	}
}
