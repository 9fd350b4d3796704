// Package auth is the stage that finds out who calls: from an API key, from a
// token that Envoy has verified, or from a client certificate that Envoy or a
// trusted proxy has verified. It judges the headers alone, so that nothing is
// buffered for a caller that is not known. It verifies no signature itself, and
// trusts nothing of a token but what Envoy says that it verified.
package auth

import (
	"context"
	"errors"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// Stage authenticates.
type Stage struct{}

// Name of the stage.
func (Stage) Name() string { return "auth" }

// One text for every key that does not open: a caller learns nothing about keys
// that exist.
const (
	noKey      = "No API key was given: send the header \"Authorization: Bearer <key>\", once."
	badKey     = "The API key is not valid."
	badToken   = "The token is not valid."
	noAccess   = "The token gives no access here."
	severalKey = "Several credentials were given that differ: send one."
	noIdentity = "The client certificate gives no access here, and no API key was given."
)

// Headers finds the caller. A credential that was sent decides alone: one that
// does not open is not made up for by a client certificate.
func (Stage) Headers(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	c, reason := credentialOf(&ex.In)
	switch {
	case reason == ai.ReasonAmbiguousCredential:
		return pipeline.Refuse(reason, severalKey), nil
	case reason != ai.ReasonNone && !c.bearer:
		return pipeline.Refuse(reason, noKey), nil
	case reason != ai.ReasonNone:
		return pipeline.Refuse(reason, badKey), nil
	case c.token == "":
		return byWorkload(ex), nil
	case c.bearer && len(ex.Plan.TokenIssuers) > 0 && isToken(c.token):
		if v, ok := byToken(ex, c.token); ok {
			return v, nil
		}
	}
	return byKey(ex, c), nil
}

// Request holds that nobody gets this far without having been authenticated.
func (Stage) Request(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	if !ex.Grants.Known() {
		return pipeline.Verdict{}, errors.New("the body came before the caller was known")
	}
	return pipeline.Verdict{}, nil
}

func byKey(ex *pipeline.Exchange, c credential) pipeline.Verdict {
	caller, reason := ex.Plan.KeyByToken(c.token, ex.In.Time)
	if reason == ai.ReasonInvalidKey && c.bearer && len(ex.Plan.TokenIssuers) > 0 && isToken(c.token) {
		return pipeline.Refuse(ai.ReasonInvalidToken, badToken)
	}
	ex.Principal, ex.Identity = caller.Principal, ai.IdentityKey
	if reason != ai.ReasonNone {
		return pipeline.Refuse(reason, badKey)
	}
	return enter(ex, caller.Key.Roles, caller.Key.Network)
}

// byWorkload finds the caller by its client certificate.
func byWorkload(ex *pipeline.Exchange) pipeline.Verdict {
	id, err := spiffeID(ex)
	switch {
	case err != nil:
		return pipeline.Refuse(ai.ReasonInvalidIdentity, noIdentity)
	case id == "":
		return pipeline.Refuse(ai.ReasonMissingKey, noKey)
	}
	caller, ok := ex.Plan.Workloads.Find(id)
	if !ok {
		return pipeline.Refuse(ai.ReasonUnknownWorkload, noIdentity)
	}
	ex.Principal, ex.Identity = caller.Principal, ai.IdentityWorkload
	return enter(ex, caller.Roles, caller.Network)
}

// enter notes what the caller may do.
func enter(ex *pipeline.Exchange, roles []*plan.Role, network *plan.Network) pipeline.Verdict {
	var ok bool
	if ex.Grants, ok = plan.Grant(roles); !ok { // the configuration refuses so many roles
		return pipeline.Refuse(ai.ReasonInternal, "The gateway could not decide about this request.")
	}
	ex.Network = network
	return pipeline.Verdict{}
}
