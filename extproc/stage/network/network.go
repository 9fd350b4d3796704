// Package network is the stage that judges from where a request comes: by the
// networks of the key and of the team. It judges the headers alone, right after
// the caller is known. How a client's address is found is not its matter.
package network

import (
	"context"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
)

// Stage judges the client's address.
type Stage struct{}

// Name of the stage.
func (Stage) Name() string { return "network" }

// refused names neither the address nor the rule: who was refused learns nothing
// of where to come from.
const refused = "Requests with this key are not accepted from your network."

// Headers refuses an address that the key's network or the team's does not admit.
// An address that is not known is admitted by none.
func (Stage) Headers(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	if !ex.Network.Admits(ex.In.Client) || !ex.Plan.TeamNetworks[ex.Principal.Team].Admits(ex.In.Client) {
		return pipeline.Refuse(ai.ReasonNetworkNotAllowed, refused), nil
	}
	return pipeline.Verdict{}, nil
}

// Request has nothing to add: the headers were judged.
func (Stage) Request(context.Context, *pipeline.Exchange) (pipeline.Verdict, error) {
	return pipeline.Verdict{}, nil
}
