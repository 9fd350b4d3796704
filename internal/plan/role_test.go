package plan

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
)

var kinds = []ai.Kind{ai.KindChat, ai.KindCompletion, ai.KindEmbedding, ai.KindModels}

// asked is one request, as far as roles judge it.
type asked struct {
	kind    ai.Kind
	now     time.Time
	client  netip.Addr // not valid: not known
	model   *Model
	used    Features
	output  int64 // of all answers, as the client gave it; 0 for none
	answers int64
	pools   []*Pool
	input   []int64 // as each pool counts it
}

// outcome is what comes out of an evaluation.
type outcome struct {
	reason  ai.Reason
	targets string // of each pool: the roles that permit it
	max     int64
}

// evaluate judges as the stages do.
func evaluate(roles []*Role, a *asked) (o outcome) {
	g, ok := Grant(roles)
	if !ok {
		return outcome{reason: ai.ReasonInternal}
	}
	if o.reason = g.Live(a.kind, a.now, a.client); o.reason != ai.ReasonNone {
		return o
	}
	if o.reason = g.Model(a.model); o.reason != ai.ReasonNone {
		return o
	}
	if o.reason, _ = g.Features(a.used); o.reason != ai.ReasonNone {
		return o
	}
	least := a.answers
	if a.output > 0 {
		least = a.output
	}
	if o.reason = g.Output(least); o.reason != ai.ReasonNone {
		return o
	}
	for i, p := range a.pools {
		s, reason := g.Reach(p)
		if reason == ai.ReasonNone {
			if _, bounded := g.ContextBound(s); bounded {
				s, reason = g.Within(s, a.input[i])
			}
		}
		switch {
		case reason != ai.ReasonNone:
			o.targets += string(reason) + " "
			continue
		case a.output > 0:
			g.TakeGiven(s)
		default:
			g.Take(s, a.answers)
		}
		o.targets += strconv.FormatUint(uint64(s), 2) + " "
	}
	g.Settle()
	o.max = g.MaxOutput
	return o
}

// naive asks each role by itself for everything, and finds out afterwards how
// far the best one came.
func naive(roles []*Role, a *asked) (o outcome) {
	furthest, some := Check(0), false
	for _, r := range roles {
		if c, barred := r.firstBar(a); barred {
			furthest = max(furthest, c)
			continue
		}
		some = true
	}
	if !some {
		return outcome{reason: furthest.Reason()}
	}
	for i, p := range a.pools {
		s, barred, best, unbounded := RoleSet(0), CheckPool, int64(0), false
		for j, r := range roles {
			if _, no := r.firstBar(a); no {
				continue
			}
			switch {
			case r.Pools != nil && !r.Pools[p.Name]:
			case p.Placement == ai.Public && !r.AllEgress && !r.EgressPools[p.Name]:
				barred = max(barred, CheckEgress)
			case r.MaxContext > 0 && a.input[i] > r.MaxContext:
				barred = max(barred, CheckContext)
			default:
				s |= 1 << j
				best, unbounded = max(best, r.MaxOutput), unbounded || r.MaxOutput == 0
			}
		}
		if s == 0 {
			o.targets += string(barred.Reason()) + " "
			continue
		}
		o.targets += strconv.FormatUint(uint64(s), 2) + " "
		if !unbounded && a.output == 0 && (o.max == 0 || best/a.answers < o.max) {
			o.max = best / a.answers
		}
	}
	return o
}

// firstBar is the first check, before any target, at which the role bars the request.
func (r *Role) firstBar(a *asked) (Check, bool) {
	inKinds := len(r.Endpoints) == 0
	for _, k := range r.Endpoints {
		inKinds = inKinds || k == a.kind
	}
	switch {
	case !inKinds:
		return CheckEndpoint, true
	case r.Hours != nil && !r.Hours.Contain(a.now):
		return CheckHours, true
	case r.Network != nil && !(a.client.IsValid() && testNet.Contains(a.client)):
		return CheckNetwork, true
	case !r.AllModels && !r.Models[a.model.Name]:
		return CheckModel, true
	case r.Denied&a.used != 0:
		return CheckFeature, true
	case r.MaxOutput > 0 && (a.output > r.MaxOutput || a.output == 0 && a.answers > r.MaxOutput):
		return CheckOutput, true
	}
	return 0, false
}

var (
	testPools  = []*Pool{{Name: "a", Placement: ai.Private}, {Name: "b", Placement: ai.Public}, {Name: "c", Placement: ai.Public}, {Name: "d", Placement: ai.Private}}
	testModels = []*Model{{Name: "m"}, {Name: "n"}}
)

// testNet is the one network that random roles have.
var testNet = netip.MustParsePrefix("10.0.0.0/8")

func randomRole(rnd *rand.Rand) *Role {
	some := func() bool { return rnd.IntN(3) == 0 }
	r := &Role{AllModels: some(), AllEgress: some(), EgressPools: map[string]bool{"b": some(), "c": some()}, Models: map[string]bool{"m": some(), "n": some()}}
	if some() {
		r.Endpoints = []ai.Kind{kinds[rnd.IntN(4)], kinds[rnd.IntN(4)]}
	}
	if some() {
		r.Denied = Features(rnd.IntN(8))
	}
	if some() {
		r.MaxContext = rnd.Int64N(5) + 1
	}
	if some() {
		r.MaxOutput = rnd.Int64N(5) + 1
	}
	if some() {
		r.Pools = map[string]bool{"a": some(), "b": some(), "c": some()}
	}
	if some() {
		r.Network = NewNetwork([]netip.Prefix{testNet}, nil)
	}
	if some() {
		r.Hours = NewHours(time.UTC)
		r.Hours.Add(time.Weekday(rnd.IntN(7)), rnd.IntN(minutesOfDay), rnd.IntN(minutesOfDay)+1)
	}
	return r
}

func randomAsked(rnd *rand.Rand) *asked {
	a := &asked{kind: kinds[rnd.IntN(4)], now: time.Unix(rnd.Int64N(7*86400), 0), model: testModels[rnd.IntN(2)], used: Features(rnd.IntN(8)),
		output: rnd.Int64N(7), answers: rnd.Int64N(3) + 1}
	a.client = [...]netip.Addr{{}, netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("11.1.2.3"), netip.MustParseAddr("::ffff:10.1.2.3").Unmap()}[rnd.IntN(4)]
	for _, i := range rnd.Perm(4)[:1+rnd.IntN(4)] {
		a.pools, a.input = append(a.pools, testPools[i]), append(a.input, rnd.Int64N(7))
	}
	return a
}

// The mask says what asking each role by itself says.
func TestGrantsAreThoseOfEachRole(t *testing.T) {
	reasons := map[ai.Reason]int{}
	for seed := range uint64(60_000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var roles []*Role
		for range 1 + rnd.IntN(6) {
			roles = append(roles, randomRole(rnd))
		}
		a := randomAsked(rnd)
		got, want := evaluate(roles, a), naive(roles, a)
		if got != want {
			t.Fatalf("seed %d: got %+v, want %+v", seed, got, want)
		}
		reasons[got.reason]++
	}
	for c := range CheckPool {
		if reasons[c.Reason()] < 100 {
			t.Errorf("only %d requests ended with %s: the test says little", reasons[c.Reason()], c.Reason())
		}
	}
}

// What two roles permit in part is permitted by none.
func TestRolesAreNotAddedUp(t *testing.T) {
	office := NewHours(time.UTC)
	office.Add(time.Monday, 9*60, 17*60)
	roles := []*Role{
		{Name: "office", Models: map[string]bool{"m": true}, Hours: office},
		{Name: "always", Models: map[string]bool{"n": true}},
	}
	night := time.Date(2026, 6, 1, 3, 0, 0, 0, time.UTC) // a Monday
	a := &asked{kind: ai.KindChat, now: night, model: testModels[0], answers: 1}
	if got := evaluate(roles, a); got.reason != ai.ReasonModelNotAllowed {
		t.Errorf("m at night: %+v", got)
	}
	a.model = testModels[1]
	if got := evaluate(roles, a); got.reason != ai.ReasonNone {
		t.Errorf("n at night: %+v", got)
	}
	a.model, a.now = testModels[0], night.Add(8*time.Hour)
	if got := evaluate(roles, a); got.reason != ai.ReasonNone {
		t.Errorf("m by day: %+v", got)
	}
}

func TestEnded(t *testing.T) {
	roles := []*Role{
		{Name: "models", Models: map[string]bool{"n": true}},
		{Name: "private", AllModels: true},
		{Name: "open", AllModels: true, AllEgress: true},
		{Name: "short", AllModels: true, AllEgress: true, MaxContext: 1},
	}
	g, _ := Grant(roles)
	g.Live(ai.KindChat, time.Unix(0, 0), netip.Addr{})
	g.Model(testModels[0])
	s, _ := g.Reach(testPools[1])
	s, reason := g.Within(s, 5)
	if reason != ai.ReasonNone {
		t.Fatal(reason)
	}
	g.TakeGiven(s)
	g.Settle()
	if s, _ := g.Reach(testPools[0]); s != 0b1110 {
		t.Errorf("another target rests on %b: a role that permits none of the others may permit it", s)
	}
	want := []ai.Reason{ai.ReasonModelNotAllowed, ai.ReasonEgressNotAllowed, "", ai.ReasonContextNotAllowed}
	for i := range roles {
		c, ended := g.Ended(i)
		if ended != (want[i] != "") || ended && c.Reason() != want[i] {
			t.Errorf("role %s: ended %v by %s, want %q", roles[i].Name, ended, c.Reason(), want[i])
		}
	}
}

func TestManyRoles(t *testing.T) {
	roles := make([]*Role, MaxRoles)
	for i := range roles {
		roles[i] = &Role{Models: map[string]bool{}}
	}
	roles[MaxRoles-1].AllModels = true
	a := &asked{kind: ai.KindChat, model: testModels[0], answers: 1}
	if got := evaluate(roles, a); got.reason != ai.ReasonNone {
		t.Errorf("the last of %d roles is not asked: %+v", MaxRoles, got)
	}
	if _, ok := Grant(append(roles, &Role{AllModels: true})); ok {
		t.Error("a role more than there are bits for")
	}
	if got := evaluate(nil, a); got.reason != ai.ReasonEndpointNotAllowed {
		t.Errorf("a caller without roles: %+v", got)
	}
}

// Evaluating roles allocates nothing.
func BenchmarkGrants(b *testing.B) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{1, 5, 20} {
		roles := make([]*Role, n)
		for i := range roles {
			h := NewHours(berlin)
			for d := time.Sunday; d <= time.Saturday; d++ {
				h.Add(d, 8*60, 20*60)
			}
			roles[i] = &Role{
				Models: map[string]bool{"m": true, "n": true, "o": true}, Endpoints: kinds, Hours: h, MaxContext: 1000, MaxOutput: 4096,
				Pools: map[string]bool{"a": true, "b": true}, EgressPools: map[string]bool{"b": true},
			}
		}
		now, m, pools := time.Date(2026, 6, 1, 10, 0, 0, 0, time.UTC), testModels[0], testPools[:2]
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				g, _ := Grant(roles)
				ok := g.Live(ai.KindChat, now, netip.Addr{}) == ai.ReasonNone && g.Model(m) == ai.ReasonNone && g.Output(1) == ai.ReasonNone
				if reason, _ := g.Features(Tools | Streaming); reason != ai.ReasonNone || !ok {
					b.Fatal(reason)
				}
				for _, p := range pools {
					s, _ := g.Reach(p)
					g.ContextBound(s)
					if s, _ = g.Within(s, 500); s == 0 {
						b.Fatal("barred")
					}
					g.Take(s, 1)
				}
				g.Settle()
			}
		})
	}
}
