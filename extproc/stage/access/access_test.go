package access

import (
	"testing"
	"time"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

func TestHeaders(t *testing.T) {
	office := plan.NewHours(time.UTC)
	office.Add(time.Monday, 9*60, 17*60)
	var (
		chat   = &plan.Role{Name: "chat", Endpoints: []ai.Kind{ai.KindChat}}
		day    = &plan.Role{Name: "day", Hours: office}
		always = &plan.Role{Name: "always"}
	)
	noon, night := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), time.Date(2026, 6, 1, 20, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name  string
		roles []*plan.Role
		kind  ai.Kind
		now   time.Time
		want  ai.Reason
	}{
		{"no role", nil, ai.KindChat, noon, ai.ReasonEndpointNotAllowed},
		{"its endpoint", []*plan.Role{chat}, ai.KindChat, night, ai.ReasonNone},
		{"another endpoint", []*plan.Role{chat}, ai.KindModels, night, ai.ReasonEndpointNotAllowed},
		{"within its hours", []*plan.Role{day}, ai.KindModels, noon, ai.ReasonNone},
		{"outside them", []*plan.Role{day}, ai.KindModels, night, ai.ReasonOutsideHours},
		{"the endpoint of one, the hours of another", []*plan.Role{chat, day}, ai.KindEmbedding, night, ai.ReasonOutsideHours},
		{"one permits", []*plan.Role{chat, day, always}, ai.KindEmbedding, night, ai.ReasonNone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ex := new(pipeline.Exchange)
			ex.Begin(&plan.Plan{}, "id", tc.now, nil, true)
			ex.In.Kind = tc.kind
			ex.Grants, _ = plan.Grant(tc.roles)
			v, err := Stage{}.Headers(t.Context(), ex)
			if err != nil || v.Reason != tc.want || v.Stops() && v.Message == "" {
				t.Errorf("%+v, %v, want %q", v, err, tc.want)
			}
		})
	}
}

// Nothing is judged for a caller who is not known.
func TestCallerIsKnown(t *testing.T) {
	ex := new(pipeline.Exchange)
	ex.Begin(&plan.Plan{}, "id", time.Time{}, nil, true)
	if v, err := (Stage{}).Headers(t.Context(), ex); err == nil {
		t.Errorf("%+v", v)
	}
}
