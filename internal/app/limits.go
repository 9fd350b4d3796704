package app

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/extproc/stage/quota"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	"github.com/weirproxy/weir/limit/redis"
	"github.com/weirproxy/weir/limit/sqlite"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage"
	"github.com/weirproxy/weir/usage/spool"
)

// LimitsFile holds what limits have counted, in the data directory.
const LimitsFile = "limits.db"

const quotaStage = "quota"

// saveEvery is how often the counts are kept. What was counted since is in the
// journal.
const saveEvery = time.Second

// PotFile holds what was admitted while the limit store was away, where there is one.
const PotFile = "limits-pot.db"

// ledger is where limits are counted: in this process, or at the limit store together
// with other replicas.
type ledger interface {
	quota.Ledger
	Settle(id string, used []limit.Used)
	SettleHeld(id string)
	Restore(limits []*plan.Limit, r *limit.Request, admitted time.Time)
	Count(limits []*plan.Limit, r *limit.Request, used []limit.Used, admitted, ended time.Time)
	States(limits []*plan.Limit, r *limit.Request) []limit.State
	All(ctx context.Context, limits []*plan.Limit) ([]limit.State, error)
	Reset(ctx context.Context, l *plan.Limit, match func(limit.Scope) bool) ([]limit.State, error)
	Held() int
	Debts(fn func(limit string, n int64))
	// Fresh says that a limit is new, and Introduce that all was counted that the new
	// ones have behind them.
	Fresh(l *plan.Limit)
	Introduce(ctx context.Context)
}

// alone is a ledger that counts for this process only.
type alone struct{ *limit.Ledger }

// Fresh drops what is left of a limit that was there before: it is not whole.
func (a alone) Fresh(l *plan.Limit) { a.Ledger.Reset(l, func(limit.Scope) bool { return true }) }

// All and Reset cannot fail.
func (a alone) All(_ context.Context, limits []*plan.Limit) ([]limit.State, error) {
	return a.Ledger.All(limits), nil
}

// Reset is described at limit.Ledger.
func (a alone) Reset(_ context.Context, l *plan.Limit, match func(limit.Scope) bool) ([]limit.State, error) {
	return a.Ledger.Reset(l, match), nil
}

// Introduce has nobody to tell.
func (alone) Introduce(context.Context) {}

// tally counts what a request used that has ended.
type tally func(limits []*plan.Limit, r *limit.Request, used []limit.Used, admitted, ended time.Time)

// account is what is kept on disk of what this process has counted.
type account struct {
	ledger *limit.Ledger
	store  *sqlite.Store
	count  tally
	// whole says that a limit of which nothing was kept is counted from the usage
	// store. Of a pot nothing was used that was not kept.
	whole bool
}

// keeper keeps what was counted on disk, and settles what has ended.
type keeper struct {
	ledger   ledger
	accounts []account
	outputs  *limit.Outputs
	usage    *usage.Recorder
	log      *slog.Logger
	failed   prometheus.Counter

	check     keptCheck
	saving    sync.Mutex    // one at a time; guards what follows
	kept      uint64        // the journal's segment of the last save; 0 before it
	keptNames []sqlite.Name // of the last save

	// needs is the segment from which new limits are being counted; 0 when none are.
	needs atomic.Uint64

	mu    sync.Mutex // guards names
	names []sqlite.Name
}

// newKeeper makes a keeper of a ledger at the limit store, or of one of this process
// if that is nil.
func newKeeper(ctx context.Context, dir string, shared *redis.Ledger, reg prometheus.Registerer, log *slog.Logger) (*keeper, error) {
	k := &keeper{
		outputs: limit.NewOutputs(), log: log,
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_limit_save_failures_total", Help: "Times that the counts of the limits could not be kept; what they count stays in the journal.",
		}),
	}
	if shared == nil {
		own := alone{limit.New(time.Now)}
		k.ledger, k.accounts = own, []account{{ledger: own.Ledger, count: own.Count, whole: true}}
	} else {
		pot := func(limits []*plan.Limit, r *limit.Request, used []limit.Used, admitted, ended time.Time) {
			shared.Pot().Count(shared.Pots(limits), r, used, admitted, ended)
		}
		k.ledger, k.accounts = shared, []account{
			{ledger: shared.Own(), count: shared.Count, whole: true},
			{ledger: shared.Pot(), count: pot},
		}
	}
	for i, file := range []string{LimitsFile, PotFile}[:len(k.accounts)] {
		store, err := sqlite.Open(ctx, filepath.Join(dir, file))
		if err != nil {
			k.closeStores()
			return nil, err
		}
		k.accounts[i].store = store
	}
	reg.MustRegister(k.failed, newLimitMetrics(k.ledger, k.outputs))
	return k, nil
}

func (k *keeper) closeStores() {
	for _, a := range k.accounts {
		if a.store != nil {
			_ = a.store.Close()
		}
	}
}

// Forget implements usage.Settler: what a decision holds is given back, as what it
// used was counted before.
func (k *keeper) Forget(id string) { k.ledger.Release(id) }

// Settle implements usage.Settler.
func (k *keeper) Settle(e *usagev1.Event) {
	id := e.GetDecision().GetId()
	if e.GetOutcome() == usage.OutcomeUnknown {
		k.ledger.SettleHeld(id)
		return
	}
	k.ledger.Settle(id, usedOf(e))
}

// learn takes in how long an answer was.
func (k *keeper) learn(e *usagev1.Event) {
	d, output := e.GetDecision(), e.GetTokens().GetOutput()
	if e.GetOutcome() != usage.OutcomeCompleted || output <= 0 {
		return
	}
	answers := int64(1)
	if most := d.GetMaxOutputTokens(); most > 0 && d.GetReservedOutputTokens() > most {
		answers = d.GetReservedOutputTokens() / most
	}
	k.outputs.Observe(d.GetModel(), output/answers, e.GetFinishReason() == "length")
	if e.GetOutputCertainty() == usagev1.Certainty_CERTAINTY_REPORTED {
		k.outputs.Ended(e.GetPool(), output, d.GetMaxOutputTokens()*answers)
	}
}

func nameOf(l *plan.Limit) sqlite.Name {
	n := sqlite.Name{Limit: l.Ident(), Unit: l.Unit, Period: l.Period}
	if l.Period != "" {
		n.Zone = l.Zone.String()
	}
	return n
}

// follow says that the limits of a plan are counted from now on, and no others.
func (k *keeper) follow(p *plan.Plan) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.names = nil
	if p.Mode(quotaStage) != plan.Enforce {
		return // not all that is used is counted: that is caught up when the stage is enforced
	}
	for _, l := range p.Limits {
		k.names = append(k.names, nameOf(l))
	}
}

// fresh are the limits of a plan that are not counted yet.
func (k *keeper) fresh(p *plan.Plan) []*plan.Limit {
	if p.Mode(quotaStage) != plan.Enforce {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []*plan.Limit
	for _, l := range p.Limits {
		if !contains(k.names, l) {
			list = append(list, l)
		}
	}
	return list
}

// begin counts what limits that a plan brings have behind them, before the plan is
// in force: a budget for the month counts the month, though it is set in its
// middle. What ends until then is counted by finish, to be called when the plan is
// in force; cancel is to be called at last, whether it came into force or not.
func (k *keeper) begin(ctx context.Context, p *plan.Plan) (finish func() error, cancel func(), err error) {
	fresh := k.fresh(p)
	if len(fresh) == 0 {
		return func() error { k.follow(p); return nil }, func() {}, nil
	}
	k.needs.Store(1) // all of the journal, until it is known from where on
	cancel = func() { k.needs.Store(0) }
	for _, l := range fresh { // what is left of one that was there before is not whole
		k.ledger.Fresh(l)
	}
	at, err := k.count(ctx, k.ledger.Count, fresh)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	k.needs.Store(at.Segment)
	k.ledger.Introduce(ctx)
	return func() error { return k.catchUp(p, fresh, at) }, cancel, nil
}

// catchUp counts what has ended since a place in the journal, and holds what is open,
// of requests that were not judged by limits that are new.
func (k *keeper) catchUp(p *plan.Plan, fresh []*plan.Limit, at spool.Position) (err error) {
	k.usage.Checkpoint(func(spool.Position) {
		var whole bool
		whole, err = k.usage.After(at, func(e *usagev1.Event) error {
			if missing := without(fresh, e.GetDecision()); len(missing) > 0 {
				k.add(k.ledger.Count, missing, e)
			}
			return nil
		})
		if err == nil && !whole {
			err = errors.New("the usage journal does not reach back to where new limits were counted")
		}
		for _, d := range k.usage.Pending() {
			k.adopt(fresh, d)
		}
		if err == nil {
			k.follow(p)
		}
	})
	return err
}

// adopt holds what an open request may use, of those limits that it was not judged by.
func (k *keeper) adopt(limits []*plan.Limit, d *usagev1.Decision) {
	if missing := without(limits, d); len(missing) > 0 {
		k.hold(missing, d)
	}
}

// without leaves out the limits that a decision was judged by.
func without(limits []*plan.Limit, d *usagev1.Decision) []*plan.Limit {
	var list []*plan.Limit
	for _, l := range limits {
		if !slices.Contains(d.GetLimits(), l.Ident()) {
			list = append(list, l)
		}
	}
	return list
}

// save keeps what changed. Until it is kept, the journal is.
func (k *keeper) save(ctx context.Context) (err error) {
	k.saving.Lock()
	defer k.saving.Unlock()
	defer func() { k.check.note(err, time.Now()) }()
	changed := make([][]limit.Count, len(k.accounts))
	var at spool.Position
	var names []sqlite.Name
	k.usage.Checkpoint(func(end spool.Position) {
		at = end
		for i := range k.accounts {
			changed[i] = k.accounts[i].ledger.Changed()
		}
		k.mu.Lock()
		names = k.names
		k.mu.Unlock()
	})
	if k.kept == at.Segment && slices.Equal(k.keptNames, names) && !slices.ContainsFunc(changed, func(c []limit.Count) bool { return len(c) > 0 }) {
		return nil // what was kept is as good: nothing was counted since
	}
	var failed error
	for i, a := range k.accounts {
		err := a.store.Save(ctx, changed[i], names, sqlite.Place{Segment: at.Segment, Offset: at.Offset, Time: time.Now()})
		if err != nil {
			a.ledger.Unsaved(changed[i])
			failed = err
		}
	}
	if failed != nil {
		k.failed.Inc()
		return failed
	}
	k.usage.Keep(k.oldest(at.Segment))
	k.kept, k.keptNames = at.Segment, names
	return nil
}

// oldest is the segment from which on the journal is needed: that of the last save, or
// an older one that new limits are being counted from.
func (k *keeper) oldest(saved uint64) uint64 {
	if needs := k.needs.Load(); needs != 0 {
		return min(needs, saved)
	}
	return saved
}

// budgets are the counts as the admin API shows and resets them.
type budgets struct {
	*keeper
	plan func() *plan.Plan
}

// Limit implements api.Budgets.
func (b budgets) Limit(name string) *plan.Limit {
	for _, l := range b.plan().Limits {
		if l.Name == name {
			return l
		}
	}
	return nil
}

// All implements api.Budgets.
func (b budgets) All(ctx context.Context) ([]limit.State, error) {
	return b.ledger.All(ctx, b.plan().Limits)
}

// Reset implements api.Budgets: it is kept when it returns, so that a restart does
// not count again what was given back.
func (b budgets) Reset(ctx context.Context, l *plan.Limit, match func(limit.Scope) bool) ([]limit.State, error) {
	was, err := b.ledger.Reset(ctx, l, match)
	return was, errors.Join(err, b.save(ctx))
}

// run keeps the counts until ctx ends.
func (k *keeper) run(ctx context.Context) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := k.save(ctx); err != nil {
			k.log.Error("limits cannot be kept; the journal has what they count", "err", err)
		}
	}
}

// close keeps the counts a last time.
func (k *keeper) close() {
	if err := k.save(context.Background()); err != nil {
		k.log.Error("limits cannot be kept; the journal has what they count", "err", err)
	}
}

// limitMetrics are what the ledger tells.
type limitMetrics struct {
	ledger  ledger
	outputs *limit.Outputs
	debt    *prometheus.Desc
	overrun *prometheus.Desc
	held    *prometheus.Desc
}

func newLimitMetrics(l ledger, o *limit.Outputs) *limitMetrics {
	return &limitMetrics{
		ledger: l, outputs: o,
		debt:    prometheus.NewDesc("weir_limit_debt_total", "What requests used beyond their reservation, in the limit's unit (nano-dollars for money): it refuses others until the window has passed.", []string{"limit"}, nil),
		overrun: prometheus.NewDesc("weir_pool_output_overrun_ratio", "By what part answers of the pool have passed the ceiling that they were given: so much more is reserved.", []string{"pool"}, nil),
		held:    prometheus.NewDesc("weir_limit_reservations", "Reservations that are not settled yet.", nil, nil),
	}
}

// Describe and Collect make limitMetrics a prometheus.Collector.
func (m *limitMetrics) Describe(c chan<- *prometheus.Desc) {
	c <- m.debt
	c <- m.overrun
	c <- m.held
}

// Collect tells what the ledger knows.
func (m *limitMetrics) Collect(c chan<- prometheus.Metric) {
	m.ledger.Debts(func(name string, n int64) {
		c <- prometheus.MustNewConstMetric(m.debt, prometheus.CounterValue, float64(n), name)
	})
	m.outputs.Overruns(func(pool string, percent int64) {
		c <- prometheus.MustNewConstMetric(m.overrun, prometheus.GaugeValue, float64(percent)/100, pool)
	})
	c <- prometheus.MustNewConstMetric(m.held, prometheus.GaugeValue, float64(m.ledger.Held()))
}
