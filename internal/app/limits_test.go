package app

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/extproc"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage"
	storedb "github.com/weirproxy/weir/usage/store/sqlite"
)

// limitWorld is a keeper with its journal and store, which can be stopped and started
// again: under test is what a reload and a restart make of the counts.
type limitWorld struct {
	t   *testing.T
	dir string
	k   *keeper
	s   *storedb.Store
}

func (w *limitWorld) start(p *plan.Plan) {
	log := slog.New(slog.DiscardHandler)
	var err error
	if w.s, err = storedb.Open(context.Background(), filepath.Join(w.dir, "usage.db")); err != nil {
		w.t.Fatal(err)
	}
	if w.k, err = newKeeper(context.Background(), w.dir, nil, prometheus.NewRegistry(), log); err != nil {
		w.t.Fatal(err)
	}
	if w.k.usage, err = usage.Open(usage.Options{Dir: filepath.Join(w.dir, "spool"), Store: w.s, Settler: w.k, Logger: log}); err != nil {
		w.t.Fatal(err)
	}
	if err := w.k.restore(context.Background(), p); err != nil {
		w.t.Fatal(err)
	}
}

func (w *limitWorld) stop() {
	w.k.close()
	if err := w.k.usage.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.k.closeStores()
	w.s.Close()
}

// decide reserves under the plan and journals as ext_proc does.
func (w *limitWorld) decide(p *plan.Plan, in, out int64) *usagev1.Decision {
	id := extproc.NewID(time.Now())
	r := limit.Request{ID: id, Model: "m", Targets: []limit.Target{{Pool: "p", Input: in}}, Options: []limit.Option{{Output: out}}}
	d := &usagev1.Decision{
		Id: id, Time: timestamppb.Now(), Model: "m", Verdict: usage.VerdictAllowed, Targets: []string{"p"}, InputTokens: in, AllowedOutputTokens: out,
		Prices: []*usagev1.TargetPrice{{Pool: "p"}},
	}
	res := w.k.ledger.Reserve(p.Limits, &r)
	if res.Held {
		d.ReservedInputTokens, d.ReservedOutputTokens = in, out
		d.Prices[0].ReservedInputTokens = in
		for _, l := range p.Limits {
			d.Limits = append(d.Limits, l.Ident())
		}
	}
	if !res.OK {
		w.t.Fatal("refused")
	}
	if err := w.k.usage.Decided(d); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *limitWorld) end(d *usagev1.Decision, in, out int64) {
	id, _ := usage.ParseID(d.GetId())
	err := w.k.usage.Entry(context.Background(), usage.Entry{
		ID: &id, Start: d.GetTime().AsTime(), Duration: time.Since(d.GetTime().AsTime()), Status: 200, Cluster: "p", Bytes: 10,
		Usage: string((&ai.AdapterUsage{Reported: true, Usage: ai.Usage{Input: in, Output: out}, Finish: "stop", Chunks: 1, Done: true}).AppendTo(nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *limitWorld) state(p *plan.Plan) []limit.State {
	s, err := w.k.ledger.All(context.Background(), p.Limits)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, x := range s {
		w.t.Logf("%s %s: used %d reserved %d", x.Limit.Name, x.Limit.Unit, x.Used, x.Reserved)
	}
	return s
}

func (w *limitWorld) reload(p *plan.Plan) {
	finish, cancel, err := w.k.begin(context.Background(), p)
	if err != nil {
		w.t.Fatal(err)
	}
	defer cancel()
	if err := finish(); err != nil {
		w.t.Fatal(err)
	}
}

func planOf(ls ...*plan.Limit) *plan.Plan {
	for _, l := range ls {
		l.SetBasis()
	}
	return &plan.Plan{Limits: ls}
}

func day(name string, unit plan.Unit) *plan.Limit {
	return &plan.Limit{Name: name, Unit: unit, Amount: 1e6, Period: plan.Day, Zone: time.UTC}
}

// removed, started without, added again
func TestLimitTakenOutAndAddedAgain(t *testing.T) {
	w := &limitWorld{t: t, dir: t.TempDir()}
	with, without := planOf(day("a", plan.UnitTokens)), planOf()
	w.start(with)
	w.end(w.decide(with, 100, 100), 100, 0)
	w.state(with)
	w.reload(without)
	w.stop()
	w.start(with)
	defer w.stop()
	if s := w.state(with); len(s) != 1 || s[0].Used != 100 {
		t.Error("want 100 used")
	}
}

// same name, other unit: open requests
func TestLimitOfAnotherUnit(t *testing.T) {
	w := &limitWorld{t: t, dir: t.TempDir()}
	old, now := planOf(day("a", plan.UnitTokens)), planOf(day("a", plan.UnitOutputTokens))
	w.start(old)
	defer w.stop()
	d := w.decide(old, 100, 500)
	w.reload(now)
	s := w.state(now)
	if len(s) != 1 || s[0].Reserved != 500 {
		t.Error("want 500 reserved")
	}
	w.end(d, 100, 400)
	if s := w.state(now); len(s) != 1 || s[0].Used != 400 {
		t.Error("want 400 used")
	}
}

// the first limit is added: what open requests hold
func TestFirstLimit(t *testing.T) {
	w := &limitWorld{t: t, dir: t.TempDir()}
	old, now := planOf(), planOf(day("a", plan.UnitTokens))
	w.start(old)
	defer w.stop()
	w.decide(old, 100, 500)
	w.reload(now)
	if s := w.state(now); len(s) != 1 || s[0].Reserved != 600 {
		t.Error("want 600 reserved")
	}
}

// per and filters change
func TestScopeChanges(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := &limitWorld{t: t, dir: t.TempDir()}
		a, b := day("a", plan.UnitTokens), day("a", plan.UnitTokens)
		b.PerModel = true
		old, now := planOf(a), planOf(b)
		w.start(old)
		w.end(w.decide(old, 100, 100), 100, 0)
		if restart {
			w.stop()
			w.start(now)
		} else {
			w.reload(now)
		}
		w.decide(now, 10, 10)
		if s := w.state(now); len(s) != 1 || s[0].Used != 100 {
			t.Errorf("restart %t: want 100 used of the model", restart)
		}
		w.stop()
	}
}

func TestFilterChanges(t *testing.T) {
	w := &limitWorld{t: t, dir: t.TempDir()}
	a, b := day("a", plan.UnitTokens), day("a", plan.UnitTokens)
	a.Models = map[string]bool{"other": true}
	old, now := planOf(a), planOf(b)
	w.start(old)
	defer w.stop()
	w.end(w.decide(old, 100, 100), 100, 0)
	w.reload(now)
	if s := w.state(now); len(s) != 1 || s[0].Used != 100 {
		t.Error("want 100 used")
	}
}

// quota off for a while
func TestQuotaOffForAWhile(t *testing.T) {
	w := &limitWorld{t: t, dir: t.TempDir()}
	on := planOf(day("a", plan.UnitTokens))
	off := planOf(on.Limits...)
	off.Modes = map[string]plan.Mode{"quota": plan.Off}
	w.start(off)
	defer w.stop()
	d := w.decide(planOf(), 100, 100) // the stage does not run
	w.end(d, 100, 0)
	w.reload(on)
	if s := w.state(on); len(s) != 1 || s[0].Used != 100 {
		t.Error("want 100 used")
	}
}

// begin fails: the plan in force
func TestNewLimitsThatCannotBeCounted(t *testing.T) {
	w := &limitWorld{t: t, dir: t.TempDir()}
	old := planOf(day("a", plan.UnitTokens))
	l := day("a", plan.UnitTokens)
	l.Period = plan.Month
	w.start(old)
	w.end(w.decide(old, 100, 100), 100, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := w.k.begin(ctx, planOf(l))
	t.Log(err)
	if s := w.state(old); err != nil && (len(s) != 1 || s[0].Used != 100) {
		t.Error("refused, and the limit in force has forgotten 100")
	}
	w.stop()
}

// a crash between begin and finish, after a save
func TestCrashWhileNewLimitsAreCounted(t *testing.T) {
	w := &limitWorld{t: t, dir: t.TempDir()}
	old, now := planOf(), planOf(day("a", plan.UnitTokens))
	w.start(old)
	w.end(w.decide(old, 100, 100), 100, 0)
	if _, _, err := w.k.begin(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if err := w.k.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start(now)
	if s := w.state(now); len(s) != 1 || s[0].Used != 100 {
		t.Error("want 100 used")
	}
	w.stop()
}

// admitted under the old plan after finish
func TestDecisionUnderTheOldPlan(t *testing.T) {
	w := &limitWorld{t: t, dir: t.TempDir()}
	old, now := planOf(), planOf(day("a", plan.UnitTokens))
	w.start(old)
	defer w.stop()
	w.reload(now)
	d := w.decide(old, 100, 100)
	w.k.adopt(now.Limits, d) // as ext_proc tells of it
	w.end(d, 100, 0)         // its exchange captured the old plan: its body came slowly, or it was queued
	if s := w.state(now); len(s) != 1 || s[0].Used != 100 {
		t.Error("want 100 used")
	}
}
