package app

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	"github.com/weirproxy/weir/limit/sqlite"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage"
	"github.com/weirproxy/weir/usage/spool"
)

// LimitsFile holds what limits have counted, in the data directory.
const LimitsFile = "limits.db"

// saveEvery is how often the counts are kept. What was counted since is in the
// journal.
const saveEvery = time.Second

// keeper keeps the ledger's counts on disk, and settles what has ended.
type keeper struct {
	ledger  *limit.Ledger
	outputs *limit.Outputs
	store   *sqlite.Store
	usage   *usage.Recorder
	log     *slog.Logger
	failed  prometheus.Counter

	saving sync.Mutex // one at a time

	mu    sync.Mutex // guards names
	names []sqlite.Name
}

func newKeeper(ctx context.Context, path string, reg prometheus.Registerer, log *slog.Logger) (*keeper, error) {
	store, err := sqlite.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	k := &keeper{
		ledger: limit.New(time.Now), outputs: limit.NewOutputs(), store: store, log: log,
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_limit_save_failures_total", Help: "Times that the counts of the limits could not be kept; what they count stays in the journal.",
		}),
	}
	reg.MustRegister(k.failed, newLimitMetrics(k.ledger, k.outputs))
	return k, nil
}

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
	n := sqlite.Name{Limit: l.Name, Unit: l.Unit, Period: l.Period}
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
	for _, l := range p.Limits {
		k.names = append(k.names, nameOf(l))
	}
}

// fresh are the limits of a plan that are not counted yet.
func (k *keeper) fresh(p *plan.Plan) []*plan.Limit {
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
// middle. What ends until then is counted by the function that is returned, to be
// called when the plan is in force.
func (k *keeper) begin(ctx context.Context, p *plan.Plan) (finish func() error, err error) {
	fresh := k.fresh(p)
	if len(fresh) == 0 {
		return func() error { k.follow(p); return nil }, nil
	}
	for _, l := range fresh { // what is left of one that was there before is not whole
		k.ledger.Reset(l.Name, func(limit.Scope) bool { return true })
	}
	at, err := k.count(ctx, fresh)
	if err != nil {
		return nil, err
	}
	return func() (err error) {
		k.follow(p)
		k.usage.Checkpoint(func(spool.Position) {
			_, err = k.usage.After(at, func(e *usagev1.Event) error {
				if missing := without(fresh, e.GetDecision().GetLimits()); len(missing) > 0 {
					k.add(missing, e)
				}
				return nil
			})
			for _, d := range k.usage.Pending() {
				if missing := without(fresh, d.GetLimits()); len(missing) > 0 {
					k.hold(missing, d)
				}
			}
		})
		return err
	}, nil
}

// without leaves out the limits with these names.
func without(limits []*plan.Limit, names []string) []*plan.Limit {
	var list []*plan.Limit
	for _, l := range limits {
		if !slices.Contains(names, l.Name) {
			list = append(list, l)
		}
	}
	return list
}

// save keeps what changed. Until it is kept, the journal is.
func (k *keeper) save(ctx context.Context) error {
	k.saving.Lock()
	defer k.saving.Unlock()
	var changed []limit.Count
	var at spool.Position
	k.usage.Checkpoint(func(end spool.Position) { changed, at = k.ledger.Changed(), end })
	k.mu.Lock()
	names := k.names
	k.mu.Unlock()
	if err := k.store.Save(ctx, changed, names, sqlite.Place{Segment: at.Segment, Offset: at.Offset, Time: time.Now()}); err != nil {
		k.ledger.Unsaved(changed)
		k.failed.Inc()
		return err
	}
	k.usage.Keep(at.Segment)
	return nil
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
	ledger  *limit.Ledger
	outputs *limit.Outputs
	debt    *prometheus.Desc
	overrun *prometheus.Desc
	held    *prometheus.Desc
}

func newLimitMetrics(l *limit.Ledger, o *limit.Outputs) *limitMetrics {
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
