package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/rollout"
)

// What may be done to a rollout.
const (
	RolloutStatus  = "status"
	RolloutStart   = "start"
	RolloutPromote = "promote"
	RolloutAbort   = "abort"
)

// RolloutRequest asks for something to be done to the rollout of a model. A status may
// be that of all.
type RolloutRequest struct {
	Do    string `json:"do"`
	Model string `json:"model,omitempty"`
	Full  bool   `json:"full,omitempty"` // promote: all steps
	Why   string `json:"why,omitempty"`  // abort
	By    string `json:"by"`             // who asks, for the audit
}

// RolloutReport has the rollouts that were asked for.
type RolloutReport struct {
	Rollouts []rollout.Status `json:"rollouts"`
}

// newRollouts makes the manager of the control store's rollouts. Its name among all
// processes is another one at each start: what it counted before stays counted.
func (a *app) newRollouts() (*rollout.Manager, error) {
	name, err := a.replica()
	if err != nil {
		return nil, fmt.Errorf("rollouts: %w", err)
	}
	return rollout.New(a.controls.keeper, name+"/"+rand.Text(), a.log), nil
}

// maxWhy bounds what an operator says of a change, in bytes.
const maxWhy = 256

// rollout answers the command line.
func (a *app) rollout(ctx context.Context, in RolloutRequest) (*RolloutReport, error) {
	if a.controls == nil || a.plan.Load() == nil {
		return nil, errors.New("this weir decides about no requests: ask one with the role extproc")
	}
	if len(in.Why) > maxWhy || len(in.By) > maxWhy {
		return nil, fmt.Errorf("more than %d bytes of text", maxWhy)
	}
	if strings.ContainsFunc(in.Why+in.By, unicode.IsControl) {
		return nil, errors.New("want one line of text, without control characters") // terminals show it: status and audit
	}
	m, by := a.controls.rollouts, control.Actor{Name: in.By}
	var s rollout.Status
	var err error
	switch in.Do {
	case RolloutStart:
		s, err = m.Start(ctx, by, in.Model)
	case RolloutPromote:
		s, err = m.Promote(ctx, by, in.Model, in.Full)
	case RolloutAbort:
		s, err = m.Abort(ctx, by, in.Model, in.Why)
	default:
		all := m.Statuses(ctx)
		if in.Model == "" {
			return &RolloutReport{Rollouts: all}, nil
		}
		model := a.plan.Load().Models[in.Model]
		for _, s := range all {
			if model != nil && s.Model == model.Name {
				return &RolloutReport{Rollouts: []rollout.Status{s}}, nil
			}
		}
		return nil, fmt.Errorf("model %q: the configuration has no rollout of it (models[].rollout)", in.Model)
	}
	if err != nil {
		return nil, err
	}
	return &RolloutReport{Rollouts: []rollout.Status{s}}, nil
}
