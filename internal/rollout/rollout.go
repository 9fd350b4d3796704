// Package rollout moves a model's requests from one pool to another in steps, and
// back at once where the new pool does worse. What is in force it has in memory, for
// the request path; the control store has it for all replicas and over restarts.
// Every replica counts its own requests and judges by what all have counted: there is
// no leader, and a step is taken once, as each change rests on the one before it.
package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

const (
	// lookEvery is how often the store is asked, while the plan has a rollout.
	lookEvery   = 500 * time.Millisecond
	lookTimeout = 5 * time.Second
	// soonest is how soon after a look a request that went wrong causes another.
	soonest = 50 * time.Millisecond
	// countEvery is how often a process tells the store what it has counted.
	countEvery = time.Second
	// actionAbort is the action in the audit.
	actionAbort = "rollout.abort"
)

// Weir is who takes steps and aborts by itself.
var Weir = control.Actor{Name: "weir"}

// Manager keeps the rollouts of the plan in force. It is safe for concurrent use.
type Manager struct {
	keeper  *control.Keeper
	process string // unique among all that share the store, at every start anew
	log     *slog.Logger
	now     func() time.Time

	wrong chan struct{} // has an element when a canary's request went wrong

	models atomic.Pointer[map[string]*rollout] // by name; those that have a state

	mu      sync.Mutex // of a look, or a change
	counted time.Time  // when the store was told last
	failing bool       // the store, at the last look
	// strange are the models whose state the store had in words that are not understood,
	// at the last look: by a newer weir, while replicas are upgraded.
	strange map[string]error

	percent, requests, errors *prometheus.Desc
	aborts                    *prometheus.CounterVec
}

// rollout is a model's, as it is in force in this process.
type rollout struct {
	state    state
	revision control.Revision
	pulled   bool // all requests have gone back here, before the store knows

	mu   sync.Mutex
	own  arms // what this process counted at this revision
	told int64

	all     atomic.Pointer[arms] // what all have counted; of the last look, nil before
	verdict verdict
	// pending is an operator's abort that holds here and that the store does not have yet.
	pending *pending
}

// New makes a manager of what the keeper's store has; process must differ from that of
// every other process, this one's before a restart too.
func New(keeper *control.Keeper, process string, log *slog.Logger) *Manager {
	m := &Manager{
		keeper: keeper, process: process, log: log, now: time.Now, wrong: make(chan struct{}, 1),
		percent:  prometheus.NewDesc("weir_rollout_percent", "Percent of the requests that a model's rollout moves now.", []string{"model", "from", "to"}, nil),
		requests: prometheus.NewDesc("weir_rollout_requests", "Requests that all replicas have counted in the present step, by the pool that they went to first.", []string{"model", "pool"}, nil),
		errors:   prometheus.NewDesc("weir_rollout_errors", "Of weir_rollout_requests, those whose pool failed.", []string{"model", "pool"}, nil),
		aborts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_rollout_aborts_total", Help: "Rollouts that this replica aborted because the new pool did worse.",
		}, []string{"model"}),
	}
	m.models.Store(&map[string]*rollout{})
	return m
}

// Share is which part of a model's requests moves, 0 to 1, by the steps of the model's
// own plan: that may be another one than the plan in force.
func (m *Manager) Share(of *plan.Model) float64 {
	r := (*m.models.Load())[of.Name]
	if r == nil || of.Rollout == nil {
		return 0
	}
	return r.percent(of.Rollout) / 100
}

// pending is a state that is to be stored.
type pending struct {
	by    control.Actor
	state state
}

// percent is how many of the requests move.
func (r *rollout) percent(conf *plan.Rollout) float64 {
	if r.pulled {
		return 0
	}
	return r.state.percent(conf)
}

// Ended counts a request that has ended.
func (m *Manager) Ended(e *usagev1.Event) {
	if len(e.GetAttempts()) == 0 {
		return
	}
	r := (*m.models.Load())[e.GetDecision().GetModel()]
	if r == nil || r.state.Phase != Running {
		return
	}
	var arm *Arm
	switch e.GetAttempts()[0].GetPool() {
	case r.state.To:
		arm = &r.own.To
	case r.state.From:
		arm = &r.own.From
	default:
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	bad := arm.Errors + arm.Refusals
	if arm.take(e); arm == &r.own.To && arm.Errors+arm.Refusals > bad {
		select {
		case m.wrong <- struct{}{}:
		default:
		}
	}
}

// Run looks at the store until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		m.Look(ctx)
		wait := time.After(soonest)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-m.wrong:
			<-wait
		}
	}
}

// Look brings what is in force to what the store has, and judges. While the store
// fails, shares stay as they are, but for a canary that surely does worse by what is
// known here: its requests go back.
func (m *Manager) Look(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.keeper.Plan()
	if p == nil || !some(p) {
		m.models.Store(&map[string]*rollout{})
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err := m.look(ctx, p)
	if gone := errors.Is(err, context.Canceled); err == nil || gone || m.failing {
		if err == nil && m.failing {
			m.log.Info("rollouts: the control store can be read again")
		}
		m.failing = err != nil && !gone
		return
	}
	m.failing = true
	m.log.Error("rollouts: no step is taken while the control store cannot be used; a canary that does worse is left all the same", "err", err)
}

func some(p *plan.Plan) bool {
	for _, model := range p.ModelList {
		if model.Rollout != nil {
			return true
		}
	}
	return false
}

func (m *Manager) look(ctx context.Context, p *plan.Plan) error {
	failure := m.take(ctx, p)
	for _, model := range p.ModelList {
		if failure == nil {
			failure = m.strange[model.Name]
		}
	}
	tell := m.now().Sub(m.counted) >= countEvery
	if tell {
		m.counted = m.now()
	}
	for _, model := range p.ModelList {
		r := (*m.models.Load())[model.Name]
		if r == nil || model.Rollout == nil || !r.state.of(model.Rollout) {
			continue
		}
		if r.pending != nil {
			if err := m.put(ctx, model, r, r.pending.by, actionAbort, r.pending.state); err != nil && failure == nil {
				failure = err
			}
			continue
		}
		if r.state.Phase != Running {
			continue
		}
		if err := m.judge(ctx, model, r, tell); err != nil && failure == nil {
			failure = err
		}
	}
	return failure
}

// take takes in what the store has. What is not understood stays as it is in force, and
// the rollouts of other models go on.
func (m *Manager) take(ctx context.Context, p *plan.Plan) error {
	stored, err := m.keeper.Store.Rollouts(ctx)
	if err != nil {
		return err
	}
	old := *m.models.Load()
	next := make(map[string]*rollout, len(stored))
	m.strange = map[string]error{}
	for _, s := range stored {
		model := p.Models[s.Model]
		if model == nil || model.Rollout == nil {
			continue
		}
		st, err := decodeState(s.State)
		if err != nil {
			m.strange[s.Model] = notUnderstood(s.Model, err)
			if r := old[s.Model]; r != nil {
				next[s.Model] = r
			}
			continue
		}
		r := old[s.Model]
		if r == nil || r.revision != s.Revision {
			r = &rollout{state: st, revision: s.Revision}
			m.log.Info("rollout", "model", s.Model, "from", st.From, "to", st.To, "phase", st.Phase, "percent", st.percent(model.Rollout), "by", st.By, "why", st.Why)
		} else if r.pulled && r.verdict.abort == "" && r.pending == nil { // by what all have counted, it does not do worse
			r = r.copied(false)
		}
		next[s.Model] = r
	}
	m.models.Store(&next)
	return nil
}

func notUnderstood(model string, err error) error {
	return fmt.Errorf("the rollout of model %q, as the control store has it, is not understood: %w", model, err)
}

// copied is the rollout as it is, pulled or not.
func (r *rollout) copied(pulled bool) *rollout {
	c := &rollout{state: r.state, revision: r.revision, pulled: pulled, own: r.counts(), told: r.told, verdict: r.verdict, pending: r.pending}
	c.all.Store(r.all.Load())
	return c
}

func (r *rollout) counts() arms {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.own
}

// judge shares what was counted, and takes a step or aborts where it is due.
func (m *Manager) judge(ctx context.Context, model *plan.Model, r *rollout, tell bool) error {
	conf := model.Rollout
	all, failure := m.sum(ctx, model, r, tell)
	r.all.Store(&all)
	r.verdict = judge(&conf.Judge, &all)
	now := m.now().UTC()
	step := conf.Steps[r.state.step(conf)]
	switch {
	case r.verdict.abort != "":
		if !r.pulled {
			m.pull(model.Name, r, r.verdict.abort)
			m.aborts.WithLabelValues(model.Name).Inc()
		}
		aborted := r.state
		aborted.Phase, aborted.Step, aborted.Since, aborted.By, aborted.Why = Aborted, 0, now, Weir.Name, r.verdict.abort
		return m.put(ctx, model, r, Weir, actionAbort, aborted)
	case failure != nil:
		return failure
	case r.verdict.hold == "" && step.Pause > 0 && now.Sub(r.state.Since) >= step.Pause:
		return m.put(ctx, model, r, Weir, "rollout.step", r.state.next(conf, now, Weir.Name, "it did as well in the step before"))
	}
	return nil
}

// sum adds what the other processes have counted to what this one has.
func (m *Manager) sum(ctx context.Context, model *plan.Model, r *rollout, tell bool) (arms, error) {
	all := r.counts()
	if n := all.To.Requests + all.From.Requests; tell && n != r.told {
		b, err := json.Marshal(tally{Revision: int64(r.revision), To: tallyOf(&all.To), From: tallyOf(&all.From)})
		if err == nil {
			err = m.keeper.Store.Count(ctx, control.Tally{Model: model.Name, Process: m.process, Counts: b})
		}
		if err != nil {
			return all, err
		}
		r.told = n
	}
	others, err := m.keeper.Store.Tallies(ctx, model.Name)
	if err != nil {
		return all, err
	}
	for _, other := range others {
		if other.Process == m.process {
			continue
		}
		var t tally
		if err := json.Unmarshal(other.Counts, &t); err != nil || t.Revision != int64(r.revision) {
			continue // of before the last change, or of a process that counts otherwise
		}
		to, ok := t.To.arm()
		from, well := t.From.arm()
		if ok && well {
			all.merge(&arms{To: to, From: from})
		}
	}
	return all, nil
}

// pull sends all requests back here, before the store knows.
func (m *Manager) pull(model string, r *rollout, why string) {
	pulled := r.copied(true)
	next := map[string]*rollout{}
	for name, other := range *m.models.Load() {
		next[name] = other
	}
	next[model] = pulled
	m.models.Store(&next)
	m.log.Warn("rollout: all requests go back", "model", model, "from", r.state.From, "to", r.state.To, "why", why)
}

// put stores a state that rests on the one in force, and brings it into force. Where
// another replica was sooner, what it stored is taken in instead.
func (m *Manager) put(ctx context.Context, model *plan.Model, r *rollout, by control.Actor, action string, to state) error {
	change := control.Rollout{Model: model.Name, State: to.encode()}
	was, before := control.Revision(0), ""
	if r != nil {
		was, before = r.revision, r.state.summary(model.Rollout)
	}
	_, err := m.keeper.PutRollout(ctx, by, action, change, was, before, to.summary(model.Rollout), to.Why)
	if err != nil && !errors.Is(err, control.ErrConflict) && !errors.Is(err, control.ErrExists) {
		return err
	}
	if took := m.take(ctx, m.keeper.Plan()); took != nil {
		return took
	}
	if err != nil && by.Name != Weir.Name {
		return control.ErrConflict
	}
	return nil
}

// Describe and Collect make a manager a prometheus.Collector.
func (m *Manager) Describe(c chan<- *prometheus.Desc) {
	c <- m.percent
	c <- m.requests
	c <- m.errors
	m.aborts.Describe(c)
}

// Collect reports the rollouts of the plan in force.
func (m *Manager) Collect(c chan<- prometheus.Metric) {
	m.aborts.Collect(c)
	p := m.keeper.Plan()
	if p == nil {
		return
	}
	for _, model := range p.ModelList {
		if model.Rollout == nil {
			continue
		}
		from, to := model.Rollout.From.Name, model.Rollout.To.Name
		c <- prometheus.MustNewConstMetric(m.percent, prometheus.GaugeValue, 100*m.Share(model), model.Name, from, to)
		r := (*m.models.Load())[model.Name]
		if r == nil || r.state.Phase != Running || !r.state.of(model.Rollout) {
			continue
		}
		all := r.all.Load()
		if all == nil { // nobody has looked since the step
			continue
		}
		for pool, arm := range map[string]*Arm{from: &all.From, to: &all.To} {
			c <- prometheus.MustNewConstMetric(m.requests, prometheus.GaugeValue, float64(arm.Requests), model.Name, pool)
			c <- prometheus.MustNewConstMetric(m.errors, prometheus.GaugeValue, float64(arm.Errors), model.Name, pool)
		}
	}
}
