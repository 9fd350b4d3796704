package extproc_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// withRole gives the key sk-open one role, which the change narrows.
func withRole(change func(*plan.Role)) *plan.Plan {
	p := testPlan()
	for _, k := range p.KeyList {
		if k.Name == "open" {
			r := &plan.Role{Name: "narrow", AllModels: true, AllEgress: true}
			change(r)
			k.Roles = []*plan.Role{r}
		}
	}
	return p
}

// never are hours that begin in two days and end an hour later.
func never() *plan.Hours {
	h := plan.NewHours(time.UTC)
	h.Add(time.Now().UTC().Add(48*time.Hour).Weekday(), 0, 60)
	return h
}

// What the headers tell is judged before a body is asked for.
func TestRolesAreJudgedByHeaders(t *testing.T) {
	for reason, change := range map[ai.Reason]func(*plan.Role){
		ai.ReasonEndpointNotAllowed: func(r *plan.Role) { r.Endpoints = []ai.Kind{ai.KindEmbedding} },
		ai.ReasonOutsideHours:       func(r *plan.Role) { r.Hours = never() },
	} {
		g := start(t, withRole(change))
		answers, err := g.exchange(t, headersMessage(post("/v1/chat/completions", "sk-open"), false))
		if err != nil || len(answers) != 1 {
			t.Fatalf("%s: %v, %v", reason, answers, err)
		}
		g.refused(t, answers[0], reason, "access")
	}
}

// A role's bound on output reaches the backend, whatever limits there are.
func TestRoleBoundsOutput(t *testing.T) {
	for _, limits := range [][]*plan.Limit{
		nil,
		{{Name: "many", Unit: plan.UnitRequests, Amount: 10, Window: time.Hour}},
		{{Name: "input", Unit: plan.UnitInputTokens, Amount: 10_000, Window: time.Hour}},
		{{Name: "output", Unit: plan.UnitOutputTokens, Amount: 10_000, Window: time.Hour}},
	} {
		p := withRole(func(r *plan.Role) { r.MaxOutput = 20 })
		p.Limits = limits
		g := start(t, p)
		a := g.ask(t, post("/v1/chat/completions", "sk-open"), `{"model":"chat","n":2,"messages":[{"role":"user","content":"x"}]}`)
		var sent struct {
			MaxTokens int64 `json:"max_tokens"`
		}
		if err := json.Unmarshal(a.GetRequestBody().GetResponse().GetBodyMutation().GetBody(), &sent); err != nil || sent.MaxTokens != 10 {
			t.Errorf("limits %v: max_tokens %d, %v in %v", limits, sent.MaxTokens, err, a)
		}
		if d := g.journal.only(t); d.MaxOutputTokens != 10 {
			t.Errorf("limits %v: the decision has %d", limits, d.MaxOutputTokens)
		}
	}
}

// GET /v1/models shows what some role permits now.
func TestModelsAreThoseOfNow(t *testing.T) {
	p := testPlan()
	for _, k := range p.KeyList {
		if k.Name == "private" {
			// away has public pools only; night would permit it, and is over.
			k.Roles = []*plan.Role{
				{Name: "night", AllModels: true, AllEgress: true, Hours: never()},
				{Name: "day", AllModels: true},
			}
		}
	}
	g := start(t, p)
	im := g.ask(t, hdr(get("/v1/models", "sk-private")...), "").GetImmediateResponse()
	var list struct{ Data []struct{ ID string } }
	if err := json.Unmarshal(im.GetBody(), &list); err != nil || len(list.Data) != 2 || list.Data[0].ID != "chat" {
		t.Errorf("%v: %v", im, err)
	}
}
