package extproc_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// withLimit adds two limits: 3 requests and 1000 tokens an hour for each key.
func withLimit(p *plan.Plan) *plan.Plan {
	p.Limits = []*plan.Limit{
		{Name: "few", Unit: plan.UnitRequests, Amount: 3, Window: time.Hour, PerKey: true},
		{Name: "small", Unit: plan.UnitTokens, Amount: 1000, Window: time.Hour, PerKey: true},
	}
	return p
}

func TestOutputIsLoweredToTheReservation(t *testing.T) {
	g := start(t, withLimit(testPlan()))
	a := g.ask(t, post("/v1/chat/completions", "sk-open"), chatBody)
	var sent struct {
		MaxTokens int64 `json:"max_tokens"`
	}
	if err := json.Unmarshal(a.GetRequestBody().GetResponse().GetBodyMutation().GetBody(), &sent); err != nil || sent.MaxTokens != 256 {
		t.Fatalf("max_tokens %d, %v in %v", sent.MaxTokens, err, a)
	}
	d := g.journal.only(t)
	if d.MaxOutputTokens != 256 || d.ReservedOutputTokens != 256 || d.ReservedInputTokens < 2 || len(d.Limits) != 2 || d.Limits[1] != "small" {
		t.Errorf("decision %v", d)
	}
	if g.ledger.Held() != 1 {
		t.Errorf("%d reservations held, want 1", g.ledger.Held())
	}
}

func TestLimitExceeded(t *testing.T) {
	g := start(t, withLimit(testPlan()))
	for i := range 3 {
		if a := g.ask(t, post("/v1/chat/completions", "sk-open"), `{"model":"chat","max_tokens":1,"messages":[{"role":"user","content":"a"}]}`); a.GetRequestBody() == nil {
			t.Fatalf("request %d: %v", i, a)
		}
	}
	g.journal.decisions = nil
	_, set := g.refused(t, g.ask(t, post("/v1/chat/completions", "sk-open"), chatBody), ai.ReasonLimitExceeded, "quota")
	if set["x-ratelimit-limit-requests"] != "3" || set["x-ratelimit-remaining-requests"] != "0" || set["x-ratelimit-reset-requests"] == "" ||
		set["x-ratelimit-limit-tokens"] != "1000" || set["retry-after"] == "" || set["x-should-retry"] != "" {
		t.Errorf("headers %v", set)
	}
	if g.ledger.Held() != 3 {
		t.Errorf("%d reservations held, want 3", g.ledger.Held())
	}
}

func TestImpossibleRequestIsNotToBeRetried(t *testing.T) {
	p := withLimit(testPlan())
	p.Limits[1].Amount = 2
	g := start(t, p)
	_, set := g.refused(t, g.ask(t, post("/v1/chat/completions", "sk-open"), chatBody), ai.ReasonLimitExceeded, "quota")
	if set["x-should-retry"] != "false" || set["retry-after"] != "" {
		t.Errorf("headers %v", set)
	}
}

func TestShadowedLimitLetsThrough(t *testing.T) {
	p := withLimit(testPlan())
	p.Limits[1].Amount = 2
	p.Modes = map[string]plan.Mode{"quota": plan.Shadow}
	g := start(t, p)
	a := g.ask(t, post("/v1/chat/completions", "sk-open"), chatBody)
	if a.GetRequestBody().GetResponse().GetBodyMutation() != nil || a.GetImmediateResponse() != nil {
		t.Errorf("a shadow changed the request: %v", a)
	}
	d := g.journal.only(t)
	if d.Verdict != "allowed" || d.Reason != string(ai.ReasonLimitExceeded) || d.Stage != "quota" || d.Status != 0 {
		t.Errorf("decision %v", d)
	}
}
