package usage

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// billing is a decision whose provider bills what was given up: 800 input tokens and
// twice 100 of output are allowed, for $0.0016 there and $0.00016 at local-vllm.
func billing(n int) *usagev1.Decision {
	d := admitted(n)
	d.AllowedOutputTokens, d.ReservedOutputTokens, d.MaxOutputTokens = 200, 200, 100
	d.Prices[1].BillsAbandoned = true
	return d
}

// shares writes what UsedByPool says, as "pool input/output cost".
func shares(e *usagev1.Event) string {
	var list []string
	for _, s := range UsedByPool(e) {
		list = append(list, fmt.Sprintf("%s %d/%d %d", s.Pool, s.Usage.TotalInput(), s.Usage.Output, s.Cost))
	}
	return strings.Join(list, ", ")
}

// What each end of a request is charged, as "answer's tokens, cost; failures that
// are charged with their tokens and costs; what fell to each pool".
func TestAbandonedAttempts(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(e *Entry, d *usagev1.Decision)
		want string
	}{
		"none": {
			func(e *Entry, d *usagev1.Decision) {},
			"812/64 97800; ; local-vllm 812/64 97800",
		},
		"given up without a response": {
			func(e *Entry, d *usagev1.Decision) { e.Attempts = "provider:0;local-vllm:200" },
			"812/64 1697800; no_response 800/200 1600000; local-vllm 812/64 97800, provider 800/200 1600000",
		},
		"given up before its first content": {
			func(e *Entry, d *usagev1.Decision) { e.Attempts = "provider:200;local-vllm:200" },
			"812/64 1697800; no_content 800/200 1600000; local-vllm 812/64 97800, provider 800/200 1600000",
		},
		"twice at the same pool": {
			func(e *Entry, d *usagev1.Decision) {
				e.Attempts, e.Usage = "provider:0;provider:200", "in=800 out=10 reported finish=stop"
			},
			"800/10 2440000; no_response 800/200 1600000; provider 1600/210 2440000",
		},
		"a pool that bills nothing": {
			func(e *Entry, d *usagev1.Decision) {
				e.Attempts, e.Usage = "local-vllm:0;provider:200", "in=800 out=10 reported finish=stop"
			},
			"800/10 840000; ; provider 800/10 840000",
		},
		"a pool that was no target": {
			func(e *Entry, d *usagev1.Decision) { e.Attempts = "other:0;local-vllm:200" },
			"812/64 97800; ; local-vllm 812/64 97800",
		},
		"an error is no work": {
			func(e *Entry, d *usagev1.Decision) { e.Attempts = "provider:503;local-vllm:200" },
			"812/64 97800; ; local-vllm 812/64 97800",
		},
		"timeout of the last": {
			func(e *Entry, d *usagev1.Decision) {
				e.Status, e.Flags, e.Attempts, e.Usage = 504, "UT", "local-vllm:503;provider:0", ""
			},
			"0/0 1600000; timeout 800/200 1600000; provider 800/200 1600000",
		},
		"first token of the last too late": {
			func(e *Entry, d *usagev1.Decision) {
				e.Status, e.Flags, e.Attempts, e.Usage = 504, "UT", "provider:200", ""
			},
			"0/0 1600000; first_token_timeout 800/200 1600000; provider 800/200 1600000",
		},
		"refused connection": {
			func(e *Entry, d *usagev1.Decision) {
				e.Status, e.Flags, e.Attempts, e.Usage = 503, "UF,URX", "provider:0", ""
			},
			"0/0 0; ; ",
		},
		"timeout of an error": {
			func(e *Entry, d *usagev1.Decision) {
				e.Status, e.Flags, e.Attempts, e.Usage = 500, "UT", "provider:500", ""
			},
			"0/0 0; ; ",
		},
		"reset before an answer": {
			func(e *Entry, d *usagev1.Decision) {
				e.Status, e.Flags, e.Attempts, e.Usage = 503, "UC", "provider:0", ""
			},
			"0/0 1600000; reset 800/200 1600000; provider 800/200 1600000",
		},
		"reset midway: what was streamed, and the rest": {
			func(e *Entry, d *usagev1.Decision) {
				e.Flags, e.Attempts, e.Usage = "UC", "provider:200", "chunks=10 text=50"
			},
			"800/13 1600000; reset 0/187 748000; provider 800/200 1600000",
		},
		"reset midway, reported as it went": {
			func(e *Entry, d *usagev1.Decision) {
				e.Flags, e.Attempts, e.Usage = "UC", "provider:200", "in=700 out=9 chunks=10 text=50 reported"
			},
			"700/9 1600000; reset 100/191 864000; provider 800/200 1600000",
		},
		"reset midway, more reported than was allowed": {
			func(e *Entry, d *usagev1.Decision) {
				e.Flags, e.Attempts, e.Usage = "UC", "provider:200", "in=900 out=500 reported"
			},
			"900/500 2900000; ; provider 900/500 2900000",
		},
		"reset behind the end": {
			func(e *Entry, d *usagev1.Decision) {
				e.Flags, e.Attempts, e.Usage = "UC", "provider:200", "in=800 out=10 reported finish=stop"
			},
			"800/10 840000; ; provider 800/10 840000",
		},
		"client gone before an answer": {
			func(e *Entry, d *usagev1.Decision) {
				e.Status, e.Flags, e.Attempts, e.Usage = 0, "DC", "provider:0", ""
			},
			"0/0 1600000; client_gone 800/200 1600000; provider 800/200 1600000",
		},
		"client gone before the first content": {
			func(e *Entry, d *usagev1.Decision) {
				e.Status, e.Flags, e.Attempts, e.Usage = 0, "DC", "provider:200", ""
			},
			"0/0 1600000; client_gone 800/200 1600000; provider 800/200 1600000",
		},
		"client gone midway: what was streamed": {
			func(e *Entry, d *usagev1.Decision) {
				e.Flags, e.Attempts, e.Usage = "DC", "provider:200", "chunks=10 text=50"
			},
			"800/13 852000; ; provider 800/13 852000",
		},
		"for each request": {
			func(e *Entry, d *usagev1.Decision) {
				d.Prices[0].Request, d.Prices[1].Request = 3, 50
				e.Attempts = "provider:0;provider:503;local-vllm:200"
			},
			"812/64 1697853; no_response 800/200 1600050; local-vllm 812/64 97803, provider 800/200 1600050",
		},
		"at the dearest classes": {
			func(e *Entry, d *usagev1.Decision) {
				d.Prices[1].CacheWrite, d.Prices[1].Reasoning = proto.Int64(1250e6), proto.Int64(6000e6)
				e.Attempts = "provider:0;local-vllm:200"
			},
			"812/64 2297800; no_response 800/200 2200000; local-vllm 812/64 97800, provider 800/200 2200000",
		},
		"of before the allowance was recorded": {
			func(e *Entry, d *usagev1.Decision) {
				d.AllowedOutputTokens, d.ReservedOutputTokens = 0, 0
				e.Attempts = "provider:0;local-vllm:200"
			},
			"812/64 1297800; no_response 800/100 1200000; local-vllm 812/64 97800, provider 800/100 1200000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, d := finished(1), billing(1)
			tc.edit(&e, d)
			ev := closed(d, &e)
			got := fmt.Sprintf("%d/%d %d; ", Served(ev).TotalInput(), ev.Tokens.Output, ev.CostNanousd)
			var list []string
			for _, a := range ev.Attempts {
				if a.Certainty == usagev1.Certainty_CERTAINTY_ESTIMATED {
					list = append(list, fmt.Sprintf("%s %d/%d %d", a.Failure, a.Tokens.Input, a.Tokens.Output, a.CostNanousd))
				}
			}
			got += strings.Join(list, ", ") + "; " + shares(ev)
			if got != tc.want {
				t.Errorf("\n%s, want\n%s", got, tc.want)
			}
			if n := ev.GetAbandoned().GetAttempts(); int(n) != len(list) {
				t.Errorf("%d attempts are said to be charged, of %v", n, list)
			}
			checkSums(t, ev)
		})
	}
}

// checkSums checks that an event's figures agree with each other.
func checkSums(t *testing.T, e *usagev1.Event) {
	t.Helper()
	var used ai.Usage
	var cost ai.NanoUSD
	seen := map[string]bool{}
	for _, s := range UsedByPool(e) {
		if seen[s.Pool] {
			t.Fatalf("pool %q stands twice in %+v", s.Pool, UsedByPool(e))
		}
		seen[s.Pool] = true
		used, cost = used.Add(s.Usage), cost+s.Cost
	}
	if used != Used(e) || int64(cost) != e.GetCostNanousd() {
		t.Fatalf("the pools' shares are %+v for %d, together %+v for %d", used, cost, Used(e), e.GetCostNanousd())
	}
	classes := int64(e.GetCosts().Nouns().Total())
	if whole := classes + e.GetAbandoned().GetCostNanousd(); e.GetOutcome() != OutcomeUnknown && classes <= int64(maxCost) && whole != e.GetCostNanousd() {
		t.Fatalf("the classes cost %d, and with the abandoned attempts %d, not %d", classes, whole, e.GetCostNanousd())
	}
	for _, u := range []ai.Usage{Served(e), Used(e)} {
		if u != u.Clamp(math.MaxInt64) {
			t.Fatalf("%+v", u)
		}
	}
}

func TestClassesAreCharged(t *testing.T) {
	e, d := finished(1), admitted(1)
	d.Prices[0].CacheWrite, d.Prices[0].AudioInput, d.Prices[0].Reasoning, d.Prices[0].AudioOutput, d.Prices[0].Request =
		proto.Int64(125e6), proto.Int64(3200e6), proto.Int64(600e6), proto.Int64(6400e6), 7
	e.Usage = "in=10 cached=20 in.write=30 in.audio=40 in.image=50 out=60 reasoning=5 out.audio=6 out.image=7 reported finish=stop"
	ev := closed(d, &e)
	want := &usagev1.Costs{
		Input: 10 * 100, CachedInput: 20 * 10, CacheWrite: 30 * 125, AudioInput: 40 * 3200, ImageInput: 50 * 100,
		Output: 42 * 400, Reasoning: 5 * 600, AudioOutput: 6 * 6400, ImageOutput: 7 * 400, Request: 7,
	}
	if diff := cmp.Diff(want.Nouns(), ev.Costs.Nouns()); diff != "" {
		t.Error(diff)
	}
	if got := Used(ev); got != (ai.Usage{Input: 10, CachedInput: 20, CacheWrite: 30, AudioInput: 40, ImageInput: 50, Output: 60, Reasoning: 5, AudioOutput: 6, ImageOutput: 7}) {
		t.Errorf("%+v", got)
	}
	checkSums(t, ev)
}

// An end that nobody reported is charged at every target that may have been paid.
func TestExpiredAtEveryTarget(t *testing.T) {
	price := func(pool string, output int64, bills bool) *usagev1.TargetPrice {
		return &usagev1.TargetPrice{Pool: pool, Output: output * 1e6, BillsAbandoned: bills}
	}
	for name, tc := range map[string]struct {
		prices []*usagev1.TargetPrice
		want   string
	}{
		"none":                       {nil, " 800/200 0"},
		"the dearest":                {[]*usagev1.TargetPrice{price("a", 1, false), price("b", 3, false), price("c", 2, false)}, "b 800/200 600"},
		"all that bill":              {[]*usagev1.TargetPrice{price("a", 1, true), price("b", 3, true), price("c", 2, true)}, "b 800/200 600, a 800/200 200, c 800/200 400"},
		"those that bill and one":    {[]*usagev1.TargetPrice{price("a", 1, true), price("b", 3, false), price("c", 4, false), price("d", 9, true)}, "c 800/200 800, a 800/200 200, d 800/200 1800"},
		"the only one bills nothing": {[]*usagev1.TargetPrice{price("a", 1, false)}, "a 800/200 200"},
		"free ones":                  {[]*usagev1.TargetPrice{price("a", 0, false), price("b", 0, true)}, "a 800/200 0, b 800/200 0"},
	} {
		d := billing(1)
		d.Prices = tc.prices
		ev := expired(d, noon)
		if got := shares(ev); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
		checkSums(t, ev)
	}
}

// Whatever the attempts, the flags and the figures, no event costs less than the
// work that its provider may bill, or more than all of its attempts at their most.
func TestEventsCostWhatTheyMay(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	for range 20_000 {
		d := billing(1)
		d.Prices[1].CacheWrite, d.Prices[1].Reasoning, d.Prices[1].Request = proto.Int64(1300e6), proto.Int64(7_000_000_001), 9
		e := finished(1)
		e.Flags = pick("", "-", "DC", "UT", "UF", "UC", "UR,URX", "SI", "DPE")
		e.Status = []int{0, 200, 200, 503, 504}[r.IntN(5)]
		var attempts []string
		for range r.IntN(4) {
			attempts = append(attempts, pick("provider", "local-vllm", "other")+":"+pick("0", "200", "503"))
		}
		e.Attempts = strings.Join(attempts, ";")
		e.Usage = pick("", "chunks=3 text=9", "in=5 cached=795 out=150 reasoning=100 reported", "in=800 out=200 reported finish=length")
		ev := closed(d, &e)
		checkSums(t, ev)
		var least, most int64
		for i, a := range ev.Attempts {
			p := terms(d, a.Pool).Price()
			bound := int64(p.Bound(800, 200))
			most += max(bound, int64(p.Cost(Served(ev))))
			if abandoned(d, a) && i < len(ev.Attempts)-1 {
				least += bound
			}
		}
		if ev.CostNanousd < least || ev.CostNanousd > most {
			if len(ev.Attempts) > 0 {
				t.Fatalf("costs %d, not between %d and %d: %v", ev.CostNanousd, least, most, ev)
			}
		}
	}
}

// A pool that may be tried twice, and bills what is given up, is charged for both where
// nobody knows how it ended: that was reserved.
func TestUnknownEndOfAPoolTriedTwice(t *testing.T) {
	d := &usagev1.Decision{
		Id: "x", Targets: []string{"p"}, ReservedInputTokens: 100, ReservedOutputTokens: 100,
		Prices: []*usagev1.TargetPrice{{Pool: "p", BillsAbandoned: true, Tries: 2, ReservedInputTokens: 100}},
	}
	d.Prices[0].SetPrice(ai.Price{Input: 1e6, Output: 1e6})
	e := expired(d, noon)
	var n int64
	for _, s := range UsedByPool(e) {
		n += s.Usage.Total()
	}
	if n != 400 {
		t.Errorf("%d used of 400 held", n)
	}
}
