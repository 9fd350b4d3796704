package access

import (
	"net/netip"
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

// A role that has a network permits nothing elsewhere, and others are as they were.
func TestNetworks(t *testing.T) {
	network := plan.NewNetwork([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, nil)
	near, chat := &plan.Role{Name: "near", Network: network}, &plan.Role{Name: "chat", Endpoints: []ai.Kind{ai.KindChat}}
	for _, tc := range []struct {
		name   string
		roles  []*plan.Role
		client string
		kind   ai.Kind
		want   ai.Reason
	}{
		{"within it", []*plan.Role{near}, "10.1.1.1", ai.KindChat, ai.ReasonNone},
		{"outside it", []*plan.Role{near}, "11.1.1.1", ai.KindChat, ai.ReasonNetworkNotAllowed},
		{"not known", []*plan.Role{near}, "", ai.KindChat, ai.ReasonNetworkNotAllowed},
		{"outside it, another role", []*plan.Role{near, chat}, "11.1.1.1", ai.KindChat, ai.ReasonNone},
		{"outside it, another role for something else", []*plan.Role{near, chat}, "11.1.1.1", ai.KindEmbedding, ai.ReasonNetworkNotAllowed},
	} {
		ex := new(pipeline.Exchange)
		ex.Begin(&plan.Plan{}, "id", time.Time{}, nil, true)
		ex.In.Kind = tc.kind
		if tc.client != "" {
			ex.In.Client = netip.MustParseAddr(tc.client)
		}
		ex.Grants, _ = plan.Grant(tc.roles)
		v, err := Stage{}.Headers(t.Context(), ex)
		if err != nil || v.Reason != tc.want || v.Stops() && v.Message == "" {
			t.Errorf("%s: %+v, %v, want %q", tc.name, v, err, tc.want)
		}
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
