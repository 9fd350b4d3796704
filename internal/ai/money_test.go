package ai

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

func TestDecimal(t *testing.T) {
	for in, want := range map[NanoUSD]string{
		0:             "0.00",
		1:             "0.000000001",
		412_000:       "0.000412",
		1_000_000_000: "1.00",
		1_500_000_000: "1.50",
		-20_000_000:   "-0.02",
		math.MaxInt64: "9223372036.854775807",
		math.MinInt64: "-9223372036.854775808",
	} {
		if got := in.Decimal(); got != want {
			t.Errorf("%d: %s, want %s", int64(in), got, want)
		}
	}
}

// prices has another price for each class, so that a class that is charged as
// another shows.
var prices = Price{
	Input: 1_000_000, CachedInput: 100_000, CacheWrite: 1_250_000, AudioInput: 32_000_000, ImageInput: 2_000_000,
	Output: 4_000_000, Reasoning: 6_000_000, AudioOutput: 64_000_000, ImageOutput: 8_000_000, Request: 5,
}

func TestCost(t *testing.T) {
	for _, tc := range []struct {
		name string
		p    Price
		u    Usage
		want NanoUSD
	}{
		{"nothing but the request", prices, Usage{}, 5},
		{"computed input", prices, Usage{Input: 10}, 5 + 10},
		{"cached input, rounded up", prices, Usage{CachedInput: 11}, 5 + 2},
		{"written into the cache, rounded up", prices, Usage{CacheWrite: 10}, 5 + 13},
		{"sound and images", prices, Usage{AudioInput: 2, ImageInput: 3}, 5 + 64 + 6},
		{"text", prices, Usage{Output: 10}, 5 + 40},
		{"reasoning is a part of output", prices, Usage{Output: 10, Reasoning: 4}, 5 + 6*4 + 4*6},
		{"each part once", prices, Usage{Output: 10, Reasoning: 1, AudioOutput: 2, ImageOutput: 3}, 5 + 4*4 + 6 + 128 + 24},
		{"all of it", prices, Usage{Input: 1, CachedInput: 10, CacheWrite: 4, AudioInput: 1, ImageInput: 1, Output: 4, Reasoning: 1, AudioOutput: 1, ImageOutput: 1},
			5 + 1 + 1 + 5 + 32 + 2 + 4 + 6 + 64 + 8},
		{"each class is rounded up", Price{Input: 1, CachedInput: 1, Output: 1, Reasoning: 1}, Usage{Input: 1, CachedInput: 1, Output: 2, Reasoning: 1}, 4},
		{"a whole one is not", Price{Input: 1}, Usage{Input: 1_000_000}, 1},
		{"negative counts are nothing", prices, Usage{Input: -5, Output: -1, Reasoning: -1}, 5},
		{"saturates", prices, Usage{Input: math.MaxInt64, Output: math.MaxInt64}, math.MaxInt64},
		{"saturates in sum", Price{Input: 1e6, Output: 1e6}, Usage{Input: math.MaxInt64, Output: 1}, math.MaxInt64},
	} {
		if got := tc.p.Cost(tc.u); got != tc.want {
			t.Errorf("%s: cost %d, want %d", tc.name, got, tc.want)
		}
		if c := tc.p.Costs(tc.u); c.Total() != tc.want || c.OfInput().Plus(c.OfOutput()).Plus(c.Request) != tc.want {
			t.Errorf("%s: costs %+v do not add up", tc.name, c)
		}
	}
}

func TestClamp(t *testing.T) {
	for _, tc := range []struct{ in, want Usage }{
		{Usage{Input: -1, CachedInput: 200, Output: 5}, Usage{CachedInput: 100, Output: 5}},
		{Usage{Output: 10, Reasoning: 8, AudioOutput: 4, ImageOutput: 3}, Usage{Output: 10, Reasoning: 3, AudioOutput: 4, ImageOutput: 3}},
		{Usage{Output: 10, Reasoning: -3, AudioOutput: 40, ImageOutput: 3}, Usage{Output: 10, AudioOutput: 10}},
		{Usage{Output: 1000, Reasoning: 900}, Usage{Output: 100, Reasoning: 100}},
	} {
		if got := tc.in.Clamp(100); got != tc.want {
			t.Errorf("%+v became %+v, want %+v", tc.in, got, tc.want)
		}
	}
}

func checkClamped(t *testing.T, u Usage) {
	t.Helper()
	u = u.Clamp(1 << 32)
	for _, n := range []int64{u.Input, u.CachedInput, u.CacheWrite, u.AudioInput, u.ImageInput, u.Output, u.Reasoning, u.AudioOutput, u.ImageOutput} {
		if n < 0 || n > 1<<32 {
			t.Fatalf("%+v", u)
		}
	}
	if u.Reasoning+u.AudioOutput+u.ImageOutput > u.Output {
		t.Fatalf("the parts are more than the output: %+v", u)
	}
}

// exact is what u costs, by arithmetic that cannot overflow, without rounding: a
// numerator over a million.
func exact(p Price, u Usage) *big.Int {
	sum := new(big.Int).Mul(big.NewInt(int64(p.Request)), big.NewInt(1_000_000))
	text := u.Output - u.Reasoning - u.AudioOutput - u.ImageOutput
	for _, c := range []struct {
		n     int64
		price NanoUSD
	}{
		{u.Input, p.Input}, {u.CachedInput, p.CachedInput}, {u.CacheWrite, p.CacheWrite}, {u.AudioInput, p.AudioInput}, {u.ImageInput, p.ImageInput},
		{text, p.Output}, {u.Reasoning, p.Reasoning}, {u.AudioOutput, p.AudioOutput}, {u.ImageOutput, p.ImageOutput},
	} {
		sum.Add(sum, new(big.Int).Mul(big.NewInt(c.n), big.NewInt(int64(c.price))))
	}
	return sum
}

// A cost is never less than the exact one, at most a nano-dollar for each class
// more, never negative, and never more than the bound of as many tokens.
func checkCost(t *testing.T, p Price, u Usage) {
	t.Helper()
	cost, bound := p.Cost(u), p.Bound(u.TotalInput(), u.Output)
	if cost < 0 || cost > bound {
		t.Fatalf("%+v of %+v costs %d, and at most %d", u, p, cost, bound)
	}
	million := big.NewInt(1_000_000)
	got := new(big.Int).Mul(big.NewInt(int64(cost)), million)
	want := exact(p, u)
	if limit := new(big.Int).Mul(big.NewInt(math.MaxInt64), million); want.Cmp(limit) > 0 {
		want = limit
	}
	if got.Cmp(want) < 0 {
		t.Fatalf("%+v of %+v costs %d, less than exactly", u, p, cost)
	}
	if more := new(big.Int).Sub(got, want); more.Cmp(big.NewInt(9_000_000)) > 0 {
		t.Fatalf("%+v of %+v costs %d, a class more than exactly", u, p, cost)
	}
	if grown := p.Bound(u.TotalInput()+1, u.Output+1); grown < bound {
		t.Fatalf("the bound fell from %d to %d with a token more", bound, grown)
	}
}

func TestCostsAreRightAndBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tokens := func() int64 { return r.Int64N(1 << r.IntN(33)) }
	money := func() NanoUSD { return NanoUSD(r.Int64N(1 << r.IntN(51))) } // up to a dollar a token
	for range 200_000 {
		u := Usage{Input: tokens(), CachedInput: tokens(), CacheWrite: tokens(), AudioInput: tokens(), ImageInput: tokens(),
			Output: tokens(), Reasoning: tokens(), AudioOutput: tokens(), ImageOutput: tokens()}.Clamp(1 << 32)
		p := Price{money(), money(), money(), money(), money(), money(), money(), money(), money(), money()}
		checkCost(t, p, u)
	}
}

func FuzzCost(f *testing.F) {
	f.Add(int64(10), int64(7), int64(1), int64(2), int64(3), int64(4), int64(1e15), int64(1), int64(3))
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, p1, p2, p3 int64) {
		u := Usage{Input: a, CachedInput: b, CacheWrite: c, AudioInput: d, Output: e, Reasoning: g, AudioOutput: a, ImageOutput: b}.Clamp(1 << 40)
		abs := func(n int64) NanoUSD { return NanoUSD(max(n, -(n + 1))) }
		checkCost(t, Price{Input: abs(p1), CachedInput: abs(p2), CacheWrite: abs(p3), AudioInput: abs(p2), Output: abs(p3), Reasoning: abs(p1), AudioOutput: abs(p2), Request: abs(p3)}, u)
	})
}

func TestBoundOfNothing(t *testing.T) {
	if got := prices.Bound(-1, 0); got != 5 {
		t.Errorf("%d, want what the request costs", got)
	}
	if got := prices.Bound(math.MaxInt64, math.MaxInt64); got != math.MaxInt64 {
		t.Errorf("%d does not saturate", got)
	}
	if got := prices.Bound(1, 1); got != 5+32+64 {
		t.Errorf("one token of each: %d", got)
	}
}
