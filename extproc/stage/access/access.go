// Package access is the stage that judges, from the headers alone, whether any
// role of the caller permits the request: what it asks for, when, and from where. What roles
// say about models, features, sizes and pools is judged by the stage that knows
// these.
package access

import (
	"context"
	"errors"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
)

// Stage takes out the roles that bar the request.
type Stage struct{}

// Name of the stage.
func (Stage) Name() string { return "access" }

// The texts tell nothing about what would be permitted.
var messages = map[ai.Reason]string{
	ai.ReasonEndpointNotAllowed: "You may not use this endpoint.",
	ai.ReasonOutsideHours:       "You may not make this request at this time.",
	ai.ReasonNetworkNotAllowed:  "You may not make this request from your network.",
}

// Headers judges; auth comes before it. Without a role nothing is permitted.
func (Stage) Headers(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	if !ex.Grants.Known() {
		return pipeline.Verdict{}, errors.New("access is judged before the caller is known")
	}
	if reason := ex.Grants.Live(ex.In.Kind, ex.In.Time, ex.In.Client); reason != ai.ReasonNone {
		return pipeline.Refuse(reason, messages[reason]), nil
	}
	return pipeline.Verdict{}, nil
}

// Request has nothing more to judge.
func (Stage) Request(context.Context, *pipeline.Exchange) (pipeline.Verdict, error) {
	return pipeline.Verdict{}, nil
}
