package extproc_test

import (
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// The price in force is recorded, with who bills what is given up; classes only
// where they cost something else than their nearest.
func TestPricesOfTheDay(t *testing.T) {
	p := testPlan()
	now := time.Now()
	dated := ai.Price{Input: 7, CachedInput: 6, CacheWrite: 9, AudioInput: 7, ImageInput: 7, Output: 8, Reasoning: 8, AudioOutput: 5, ImageOutput: 8, Request: 3}
	far, _ := p.Pool("far")
	far.Prices = append(far.Prices, plan.PricePeriod{From: now.Add(-time.Hour), Price: dated}, plan.PricePeriod{From: now.Add(time.Hour), Price: ai.Price{Input: 1000}})
	g := start(t, p)
	g.ask(t, post("/v1/chat/completions", "sk-open"), `{"model":"chat","messages":[]}`)
	d := g.journal.only(t)
	if got := d.Prices[1].Price(); got != dated || !d.Prices[1].BillsAbandoned {
		t.Errorf("%+v, want %+v", d.Prices[1], dated)
	}
	if x := d.Prices[1]; x.CacheWrite == nil || x.AudioOutput == nil || x.AudioInput != nil || x.Reasoning != nil {
		t.Errorf("%+v tells what needs not be told, or does not tell what does", x)
	}
	if got := d.Prices[0]; got.Input != 1 || got.BillsAbandoned {
		t.Errorf("%+v", got)
	}
}

func TestAllowedOutputIsRecorded(t *testing.T) {
	for body, want := range map[string]int64{
		`{"model":"chat","messages":[]}`:                                            256,
		`{"model":"chat","messages":[],"n":3}`:                                      768,
		`{"model":"chat","messages":[],"n":3,"max_tokens":10}`:                      30,
		`{"model":"chat","messages":[],"max_tokens":10,"max_completion_tokens":50}`: 50,
		`{"model":"chat","messages":[],"n":999999999999999,"max_tokens":99999}`:     1<<63 - 1,
	} {
		g := start(t, testPlan())
		g.ask(t, post("/v1/chat/completions", "sk-open"), body)
		if got := g.journal.only(t).AllowedOutputTokens; got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
}

// What is reserved and sent as the ceiling is what is allowed; in shadow mode the
// client's own ceiling stands.
func TestAllowedOutputOfALimit(t *testing.T) {
	for _, mode := range []plan.Mode{plan.Enforce, plan.Shadow} {
		p := testPlan()
		p.Limits = []*plan.Limit{{Name: "few", Unit: plan.UnitOutputTokens, Amount: 90, Window: time.Minute}}
		p.Modes = map[string]plan.Mode{"quota": mode}
		g := start(t, p)
		g.ask(t, post("/v1/chat/completions", "sk-open"), `{"model":"chat","messages":[],"n":2,"max_tokens":60}`)
		d := g.journal.only(t)
		want := int64(2 * 60)
		if mode == plan.Enforce {
			want = d.ReservedOutputTokens
		}
		if d.AllowedOutputTokens != want || d.ReservedOutputTokens < 2 || d.ReservedOutputTokens > 90 {
			t.Errorf("%s: %d are allowed and %d reserved, want %d", mode, d.AllowedOutputTokens, d.ReservedOutputTokens, want)
		}
	}
}
