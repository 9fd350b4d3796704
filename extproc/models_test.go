package extproc_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
)

func get(path, token string) (h []string) {
	return []string{":method", "GET", ":path", path, "authorization", "Bearer " + token}
}

func TestModelsAreThoseOfTheKey(t *testing.T) {
	for token, want := range map[string][]string{"sk-private": {"chat", "gpt-4o"}, "sk-open": {"away", "chat", "gpt-4o"}} {
		g := start(t, testPlan())
		im := g.ask(t, hdr(get("/v1/models", token)...), "").GetImmediateResponse()
		var list struct{ Data []struct{ ID, Object string } }
		if err := json.Unmarshal(im.GetBody(), &list); err != nil || im.GetStatus().GetCode() != 200 {
			t.Fatalf("%v: %v", im, err)
		}
		var got []string
		for _, m := range list.Data {
			got = append(got, m.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", token, diff)
		}
		if d := g.journal.only(t); d.Verdict != "allowed" || d.Status != 200 || d.Kind != "models" || d.Id != setHeaders(im.GetHeaders())[ai.DecisionHeader] {
			t.Errorf("decision %v", d)
		}
	}
}

func TestOneModel(t *testing.T) {
	g := start(t, testPlan())
	im := g.ask(t, hdr(get("/v1/models/gpt%2D4o", "sk-private")...), "").GetImmediateResponse()
	var model struct{ ID string }
	if err := json.Unmarshal(im.GetBody(), &model); err != nil || model.ID != "gpt-4o" {
		t.Errorf("%v: %v", im, err)
	}
	// A model that may not be called is one that is not there.
	for _, path := range []string{"/v1/models/away", "/v1/models/none", "/v1/models/%zz"} {
		g := start(t, testPlan())
		g.refused(t, g.ask(t, hdr(get(path, "sk-private")...), ""), ai.ReasonUnknownModel, "models")
	}
}
