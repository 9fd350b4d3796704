package network_test

import (
	"net/netip"
	"testing"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/extproc/stage/network"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

func allow(prefixes ...string) *plan.Network {
	var all []netip.Prefix
	for _, p := range prefixes {
		all = append(all, netip.MustParsePrefix(p))
	}
	return plan.NewNetwork(all, nil)
}

func TestHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		key, team *plan.Network
		client    string
		admitted  bool
	}{
		"no networks":               {nil, nil, "203.0.113.9", true},
		"no networks, no address":   {nil, nil, "", true},
		"the key's":                 {allow("10.0.0.0/8"), nil, "10.1.1.1", true},
		"not the key's":             {allow("10.0.0.0/8"), nil, "11.1.1.1", false},
		"the team's":                {nil, allow("10.0.0.0/8"), "10.1.1.1", true},
		"not the team's":            {nil, allow("10.0.0.0/8"), "11.1.1.1", false},
		"the key's, not the team's": {allow("10.0.0.0/8"), allow("10.2.0.0/16"), "10.1.1.1", false},
		"the team's, not the key's": {allow("10.2.0.0/16"), allow("10.0.0.0/8"), "10.1.1.1", false},
		"both":                      {allow("10.2.0.0/16"), allow("10.0.0.0/8"), "10.2.1.1", true},
		"IPv4-mapped":               {allow("10.0.0.0/8"), nil, "::ffff:10.1.1.1", true},
		"not known":                 {allow("0.0.0.0/0", "::/0"), nil, "", false},
	} {
		ex := &pipeline.Exchange{Plan: &plan.Plan{}, Network: tc.key, Principal: ai.Principal{Team: "t"}}
		if tc.team != nil {
			ex.Plan.TeamNetworks = map[string]*plan.Network{"t": tc.team}
		}
		if tc.client != "" {
			ex.In.Client = netip.MustParseAddr(tc.client)
		}
		v, err := network.Stage{}.Headers(t.Context(), ex)
		want := ai.ReasonNetworkNotAllowed
		if tc.admitted {
			want = ai.ReasonNone
		}
		if err != nil || v.Reason != want {
			t.Errorf("%s: %q, %v", name, v.Reason, err)
		}
	}
}
