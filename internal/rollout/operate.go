package rollout

import (
	"context"
	"fmt"
	"time"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
)

// Status is a model's rollout.
type Status struct {
	Model   string    `json:"model"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	Phase   Phase     `json:"phase,omitempty"` // empty: it was never started
	Percent float64   `json:"percent"`
	Step    int       `json:"step,omitempty"` // from 1, while it runs
	Steps   int       `json:"steps"`
	Since   time.Time `json:"since,omitzero"` // of the step or the phase
	By      string    `json:"by,omitempty"`
	Why     string    `json:"why,omitempty"`
	// While it runs: what the next step waits for, and what all replicas have counted.
	Waits  string  `json:"waits,omitempty"`
	Counts *Counts `json:"counts,omitempty"`
}

// Counts are those of a step, by the pool that the requests went to first.
type Counts struct {
	From Count `json:"from"`
	To   Count `json:"to"`
}

// Count is what was counted of one pool.
type Count struct {
	Requests     int64   `json:"requests"`
	Errors       int64   `json:"errors"`
	Refusals     int64   `json:"refusals"`
	FirstTokenMS float64 `json:"first_token_ms,omitempty"` // the median
}

// Statuses are the rollouts of the plan in force, as the store has them now.
func (m *Manager) Statuses(ctx context.Context) []Status {
	m.Look(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.keeper.Plan()
	if p == nil {
		return nil
	}
	var list []Status
	for _, model := range p.ModelList {
		if model.Rollout != nil {
			list = append(list, m.status(model))
		}
	}
	return list
}

func (m *Manager) status(model *plan.Model) Status {
	conf := model.Rollout
	s := Status{Model: model.Name, From: conf.From.Name, To: conf.To.Name, Steps: len(conf.Steps)}
	r := (*m.models.Load())[model.Name]
	if r == nil || !r.state.of(conf) {
		return s
	}
	s.Phase, s.Percent, s.Since, s.By, s.Why = r.state.Phase, r.percent(conf), r.state.Since, r.state.By, r.state.Why
	if s.Phase != Running {
		return s
	}
	at := r.state.step(conf)
	s.Step, s.Waits = at+1, r.verdict.hold
	left := conf.Steps[at].Pause - m.now().Sub(s.Since)
	switch {
	case r.verdict.abort != "":
		s.Waits = "the control store, to abort: " + r.verdict.abort
	case conf.Steps[at].Pause == 0:
		s.Waits = joined("weir rollout promote", s.Waits)
	case left > 0:
		s.Waits = joined(fmt.Sprintf("the pause, %s more", left.Round(time.Second)), s.Waits)
	}
	if all := r.all.Load(); all != nil {
		s.Counts = &Counts{From: count(&all.From), To: count(&all.To)}
	} else {
		s.Counts = &Counts{}
	}
	return s
}

func joined(a, b string) string {
	if b == "" {
		return a
	}
	return a + "; " + b
}

func count(a *Arm) Count {
	first, _ := a.First.Median()
	return Count{Requests: a.Requests, Errors: a.Errors, Refusals: a.Refusals, FirstTokenMS: float64(first.Microseconds()) / 1000}
}

// Start begins a model's rollout at its first step.
func (m *Manager) Start(ctx context.Context, by control.Actor, name string) (Status, error) {
	return m.change(ctx, by, name, "rollout.start", func(now state, model *plan.Model) (state, error) {
		switch now.Phase {
		case Running:
			return now, fmt.Errorf("%w: it runs already, at step %d", control.ErrState, now.step(model.Rollout)+1)
		case Promoted:
			return now, fmt.Errorf("%w: it is promoted: pool %q has all requests. To begin anew, abort it first", control.ErrState, now.To)
		}
		return state{From: model.Rollout.From.Name, To: model.Rollout.To.Name, Phase: Running, Since: m.now().UTC(), By: by.Name}, nil
	})
}

// Promote takes the next step, whatever was counted; with full, all steps.
func (m *Manager) Promote(ctx context.Context, by control.Actor, name string, full bool) (Status, error) {
	return m.change(ctx, by, name, "rollout.promote", func(now state, model *plan.Model) (state, error) {
		if now.Phase != Running {
			return now, fmt.Errorf("%w: it does not run: begin with weir rollout start %s", control.ErrState, model.Name)
		}
		if full {
			now.Step = len(model.Rollout.Steps) - 1
		}
		return now.next(model.Rollout, m.now().UTC(), by.Name, ""), nil
	})
}

// Abort sends all requests back to the old pool, also after it was promoted. One that is
// in the store and not in the configuration any more is ended, so that it does not go on
// where it was when it is put back.
func (m *Manager) Abort(ctx context.Context, by control.Actor, name, why string) (Status, error) {
	return m.change(ctx, by, name, actionAbort, func(now state, model *plan.Model) (state, error) {
		if now.Phase != Running && now.Phase != Promoted {
			return now, fmt.Errorf("%w: it does not run: all requests go to pool %q", control.ErrState, model.Rollout.From.Name)
		}
		now.Phase, now.Step, now.Since, now.By, now.Why = Aborted, 0, m.now().UTC(), by.Name, why
		return now, nil
	})
}

// change changes a rollout as the store has it now.
func (m *Manager) change(ctx context.Context, by control.Actor, name, action string, to func(state, *plan.Model) (state, error)) (Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.keeper.Plan()
	if p == nil {
		return Status{}, fmt.Errorf("%w: no configuration is in force yet", control.ErrState)
	}
	model := p.Models[name]
	switch {
	case model == nil:
		return Status{}, fmt.Errorf("model %q: %w", name, control.ErrNotFound)
	case model.Rollout == nil && action != actionAbort:
		return Status{}, noRollout(model)
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var left *rollout
	if model.Rollout == nil {
		var err error
		if model, left, err = m.left(ctx, model); err != nil {
			return Status{}, err
		}
	}
	if err := m.take(ctx, p); err != nil {
		if action == actionAbort && left == nil {
			return m.abortHere(model, by, err, to)
		}
		return Status{}, err
	}
	if err := m.strange[model.Name]; err != nil {
		return Status{}, err
	}
	r := (*m.models.Load())[model.Name]
	if left != nil {
		r = left
	}
	var now state
	if r != nil && r.state.of(model.Rollout) {
		now = r.state
	}
	next, err := to(now, model)
	if err == nil {
		err = m.put(ctx, model, r, by, action, next)
	}
	if err != nil {
		return Status{}, fmt.Errorf("rollout of model %q: %w", model.Name, err)
	}
	s := m.status(model)
	if left != nil {
		s.Phase, s.Since, s.By, s.Why = next.Phase, next.Since, next.By, next.Why
	}
	return s, nil
}

// abortHere sends all requests back here while the store cannot be used, which is told as
// soon as it can. An abort must not wait for it.
func (m *Manager) abortHere(model *plan.Model, by control.Actor, away error, to func(state, *plan.Model) (state, error)) (Status, error) {
	r := (*m.models.Load())[model.Name]
	if r == nil || !r.state.of(model.Rollout) {
		return Status{}, away
	}
	next, err := to(r.state, model)
	if err != nil {
		return Status{}, err
	}
	r.pending = &pending{by, next}
	m.pull(model.Name, r, next.Why)
	return Status{}, fmt.Errorf("rollout of model %q: %w: all requests go to pool %q again, and other replicas go on until the control store can be used: %w",
		model.Name, control.ErrNotStored, r.state.From, away)
}

// left is what the store still has of a model's rollout that the configuration has no
// more, and the model as if it had.
func (m *Manager) left(ctx context.Context, model *plan.Model) (*plan.Model, *rollout, error) {
	stored, err := m.keeper.Store.Rollouts(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range stored {
		if s.Model != model.Name {
			continue
		}
		st, err := decodeState(s.State)
		if err != nil {
			return nil, nil, notUnderstood(model.Name, err)
		}
		had := *model
		had.Rollout = &plan.Rollout{From: &plan.Pool{Name: st.From}, To: &plan.Pool{Name: st.To}, Steps: make([]plan.RolloutStep, 1)}
		return &had, &rollout{state: st, revision: s.Revision}, nil
	}
	return nil, nil, noRollout(model)
}

func noRollout(model *plan.Model) error {
	return fmt.Errorf("model %q: %w: the configuration has no rollout of it (models[].rollout)", model.Name, control.ErrNotFound)
}
