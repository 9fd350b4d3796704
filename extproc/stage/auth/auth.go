// Package auth is the stage that finds out who calls, from the API key in the
// Authorization header. It judges the headers alone, so that nothing is buffered
// for a caller that is not known.
package auth

import (
	"context"
	"errors"
	"fmt"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// Stage authenticates by API key.
type Stage struct{}

// Name of the stage.
func (Stage) Name() string { return "auth" }

// One text for every key that does not open: a caller learns nothing about keys
// that exist.
const (
	noKey  = "No API key was given: send the header \"Authorization: Bearer <key>\", once."
	badKey = "The API key is not valid."
)

// Headers looks the key up. Exactly one Authorization header is accepted: with
// several, another reader might take another one.
func (Stage) Headers(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	value, lines := ex.In.Header("authorization")
	if lines == 0 {
		return pipeline.Refuse(ai.ReasonMissingKey, noKey), nil
	}
	token, ok := ai.BearerToken(value)
	if lines > 1 || !ok {
		return pipeline.Refuse(ai.ReasonInvalidKey, noKey), nil
	}
	caller, reason := ex.Plan.KeyByToken(token, ex.In.Time)
	ex.Principal = caller.Principal
	if reason != ai.ReasonNone {
		return pipeline.Refuse(reason, badKey), nil
	}
	if ex.Grants, ok = plan.Grant(caller.Key.Roles); !ok {
		return pipeline.Verdict{}, fmt.Errorf("key %q has more than %d roles", ex.Principal.Key, plan.MaxRoles)
	}
	return pipeline.Verdict{}, nil
}

// Request holds that nobody gets this far without having been authenticated.
func (Stage) Request(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	if !ex.Grants.Known() {
		return pipeline.Verdict{}, errors.New("the body came before the caller was known")
	}
	return pipeline.Verdict{}, nil
}
