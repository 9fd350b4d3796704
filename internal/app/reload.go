package app

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds/build"
)

// ackTimeout bounds how long a change waits for Envoy to accept it.
const ackTimeout = 15 * time.Second

// reloadState is what status tells of the last change.
type reloadState struct {
	mu      sync.Mutex
	applied time.Time
	refused error // the last file's fault; nil when the last file is in force
	// warnings are of the last file that has no fault.
	warnings []config.Fault
}

func (r *reloadState) warn(list []config.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = list
}

// note keeps how the last file was taken; it returns whether the one before was
// refused.
func (r *reloadState) note(err error, now time.Time) (refused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	refused = r.refused != nil
	if r.refused = err; err == nil {
		r.applied = now
	}
	return refused
}

// apply brings a plan into force: first Envoy gets what the plan needs and
// accepts it, then requests are decided by it. When Envoy refuses, the previous
// plan stays in force on both sides.
func (a *app) apply(ctx context.Context, p *plan.Plan) (err error) {
	a.applying.Lock()
	defer a.applying.Unlock()
	if err := a.checkControl(ctx, p); err != nil {
		return err
	}
	for _, pool := range p.Pools { // the first request is not to wait for it
		pool.Tokenizer.Load()
	}
	// Before Envoy is told of anything, since it may fail.
	finish := func() error { return nil }
	if a.limits != nil {
		begun, cancel, err := a.limits.begin(ctx, p)
		if err != nil {
			return fmt.Errorf("limits: %w", err)
		}
		defer cancel()
		finish = begun
	}
	if a.xds != nil {
		res, err := build.Build(p, a.options)
		if err != nil {
			return err
		}
		version, err := a.xds.Publish(res)
		if err != nil {
			return err
		}
		if err := a.accepted(ctx, version); err != nil {
			return err
		}
		if a.warm != nil {
			a.warm(ctx)
		}
	}
	a.bindControl(p)
	a.live.Follow(p)
	old := a.plan.Swap(p)
	if a.controls != nil {
		a.controls.rollouts.Look(ctx) // before the first request by it
	}
	select {
	case a.changed <- struct{}{}:
	default: // nobody has looked since the last change
	}
	a.forget(old, p)
	if err := finish(); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	return nil
}

// forget forgets what was learnt of pools that are gone or are counted otherwise.
func (a *app) forget(old, now *plan.Plan) {
	if old == nil || a.learned == nil {
		return
	}
	for _, was := range old.Pools {
		if is, ok := now.Pool(was.Name); !ok || is.Model != was.Model || !is.Tokenizer.Alike(was.Tokenizer) {
			a.learned.Forget(was.Name)
		}
	}
}

// accepted waits for the Envoys that are connected. Only a refusal keeps the
// plan back: an Envoy that is slow or gone must not freeze the others.
func (a *app) accepted(ctx context.Context, version string) error {
	if len(a.xds.Status().Nodes) == 0 {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	err := a.xds.WaitACK(wait, version)
	if errors.Is(err, context.DeadlineExceeded) {
		a.log.Warn("not every Envoy has accepted the configuration; it is in force all the same", "version", version, "waited", ackTimeout)
		return nil
	}
	return err
}

// watch applies every good change of the configuration file.
func (a *app) watch(ctx context.Context) error {
	a.watcher.Run(ctx, func() { a.change(ctx) })
	return nil
}

func (a *app) change(ctx context.Context) {
	a.changing.Lock()
	defer a.changing.Unlock()
	s, err := readSource(a.versions, a.o.ConfigPath)
	var p *plan.Plan
	if err == nil {
		p, err = a.compile(s.text)
	}
	if err != nil {
		a.refuse(err)
		return
	}
	current := a.plan.Load() // there is one: the start applied it before anything is watched
	if current.Version == p.Version {
		a.settlePin(s.pin)
		if a.reload.note(nil, time.Now()) {
			a.log.Info("configuration: what is in force is again what is to be", "version", p.Version)
		}
		return
	}
	err = a.apply(ctx, p)
	by := "file"
	if s.pin != nil { // a credential or a certificate that the pinned version names is another
		by = fmt.Sprintf("files that %d names", s.pin.Number)
	}
	a.record(p, s.text, by, err)
	if err != nil {
		a.refuse(err)
		return
	}
	a.settlePin(s.pin)
	for _, field := range needsRestart(current, p) {
		a.log.Warn("configuration: this change takes effect when weir is started again", "field", field)
	}
	a.reload.note(nil, time.Now())
	a.log.Info("configuration applied", "version", p.Version)
}

// needsRestart names what differs and is read at the start only.
func needsRestart(old, now *plan.Plan) []string {
	var fields []string
	if old.Admin != now.Admin {
		fields = append(fields, "admin.address")
	}
	if !old.Store.Alike(now.Store) {
		fields = append(fields, "limit_store")
	}
	if apiAddress(old) != apiAddress(now) {
		fields = append(fields, "admin.api.address")
	}
	if old.Usage != now.Usage {
		fields = append(fields, "usage")
	}
	if !reflect.DeepEqual(old.Simulators, now.Simulators) {
		fields = append(fields, "simulators")
	}
	return fields
}

func apiAddress(p *plan.Plan) string {
	if p.AdminAPI == nil {
		return ""
	}
	return p.AdminAPI.Address
}

// refuse says that a changed file is not in force, each fault on a line.
func (a *app) refuse(err error) {
	a.reload.note(err, time.Now())
	var faults config.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			a.log.Error("configuration refused; the last good one stays in force", "fault", f.String())
		}
		return
	}
	a.log.Error("configuration refused; the last good one stays in force", "err", err)
}
