package rollout_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/control/sqlite"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/rollout"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

var (
	old    = &plan.Pool{Name: "old"}
	canary = &plan.Pool{Name: "canary"}
	ann    = control.Actor{Name: "ann"}
)

func testPlan() *plan.Plan {
	m := &plan.Model{Name: "chat", Aliases: []string{"gpt"}, Rollout: &plan.Rollout{
		From: old, To: canary, Steps: []plan.RolloutStep{{Percent: 5, Pause: time.Minute}, {Percent: 50}},
		Judge: plan.RolloutJudge{MinRequests: 100, MaxErrorRateIncrease: 0.02, MaxRefusalRateIncrease: 0.02, MaxFirstTokenRatio: 1.5},
	}}
	p := &plan.Plan{Models: map[string]*plan.Model{"chat": m, "gpt": m}, ModelList: []*plan.Model{m}}
	p.SetHashSecret([]byte("s"))
	return p
}

// site is a store, and what goes on there.
type site struct {
	t     *testing.T
	dir   string
	store control.Store
	plan  *plan.Plan
}

func newSite(t *testing.T) *site {
	s := &site{t: t, dir: t.TempDir(), plan: testPlan()}
	s.store = s.open()
	return s
}

func (s *site) open() control.Store {
	store, err := sqlite.Open(context.WithoutCancel(s.t.Context()), s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return store
}

func (s *site) manager(process string, store control.Store) *rollout.Manager {
	return rollout.New(&control.Keeper{Store: store, Plan: func() *plan.Plan { return s.plan }}, process, slog.New(slog.DiscardHandler))
}

// sends lets requests end that went to a pool first.
func sends(m *rollout.Manager, n int, pool, failure string, status int32, first time.Duration) {
	for range n {
		m.Ended(&usagev1.Event{
			Decision: &usagev1.Decision{Model: "chat"}, FirstTokenUs: first.Microseconds(),
			Attempts: []*usagev1.Attempt{{Pool: pool, Status: status, Failure: failure}},
		})
	}
}

func good(m *rollout.Manager, n int, pool string) { sends(m, n, pool, "", 200, 100*time.Millisecond) }

func (s *site) percent(want float64, of ...*rollout.Manager) {
	s.t.Helper()
	for i, m := range of {
		if got := 100 * m.Share(s.plan.Models["chat"]); math.Abs(got-want) > 1e-9 {
			s.t.Errorf("process %d: %v %% move, want %v %%", i, got, want)
		}
	}
}

// looks lets all processes look, as they do every half second.
func looks(of ...*rollout.Manager) {
	for range 3 {
		for _, m := range of {
			m.Look(context.Background())
		}
		time.Sleep(time.Second)
	}
}

func (s *site) status(m *rollout.Manager) rollout.Status {
	s.t.Helper()
	list := m.Statuses(context.Background())
	if len(list) != 1 {
		s.t.Fatal(list)
	}
	return list[0]
}

// bubble runs a test whose clock goes by itself.
func bubble(t *testing.T, f func(*site)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		f(s)
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Two processes take one step together, by what both have counted, and the last one
// when an operator says so; a restart begins where it was.
func TestRollsOut(t *testing.T) {
	bubble(t, func(s *site) {
		a, b := s.manager("a", s.store), s.manager("b", s.store)
		looks(a, b)
		s.percent(0, a, b)
		good(a, 500, "canary") // before it is started nothing counts
		if _, err := a.Promote(context.Background(), ann, "chat", false); !errors.Is(err, control.ErrState) {
			t.Error(err)
		}
		got, err := a.Start(context.Background(), ann, "gpt") // by an alias
		if err != nil || got.Phase != rollout.Running || got.Step != 1 || got.Percent != 5 {
			t.Fatal(got, err)
		}
		looks(a, b)
		s.percent(5, a, b)
		if _, err := b.Start(context.Background(), ann, "chat"); !errors.Is(err, control.ErrState) {
			t.Error(err)
		}
		good(a, 900, "old")
		good(a, 60, "canary")
		good(b, 39, "canary")
		good(b, 7, "elsewhere")
		time.Sleep(2 * time.Minute)
		looks(a, b)
		s.percent(5, a, b) // 99 of 100
		if st := s.status(b); st.Waits != "99 of 100 requests" || st.Counts.To.Requests != 99 || st.Counts.From.Requests != 900 || st.Counts.To.FirstTokenMS < 81 || st.Counts.To.FirstTokenMS > 119 {
			t.Errorf("%+v %+v", st, st.Counts)
		}
		good(b, 1, "canary")
		looks(a, b)
		s.percent(50, a, b)
		// In the second step all is counted anew, and it has no end of its own.
		good(a, 1000, "canary")
		good(a, 1000, "old")
		time.Sleep(time.Hour)
		looks(a, b)
		c := s.manager("a again", s.store)
		looks(c)
		s.percent(50, a, b, c)
		if st := s.status(c); st.Waits != "weir rollout promote" || st.Step != 2 || st.By != "weir" {
			t.Errorf("%+v", st)
		}
		if st, err := c.Promote(context.Background(), ann, "chat", false); err != nil || st.Phase != rollout.Promoted || st.Percent != 100 {
			t.Error(st, err)
		}
		looks(a, b)
		s.percent(100, a, b, c)
		if st, err := b.Abort(context.Background(), ann, "chat", "no good"); err != nil || st.Percent != 0 || st.Why != "no good" {
			t.Error(st, err)
		}
		looks(a, b)
		s.percent(0, a, b)
		var actions []string
		records, err := s.store.Audit(context.Background(), control.AuditFilter{Object: "rollout/chat"}, 10)
		for _, r := range records {
			actions = append(actions, r.Actor+" "+r.Action+" "+r.Before+" > "+r.After)
		}
		want := `ann rollout.abort phase=promoted from=old to=canary percent=100 > phase=aborted from=old to=canary percent=0
ann rollout.promote phase=running from=old to=canary percent=50 step=2 > phase=promoted from=old to=canary percent=100
weir rollout.step phase=running from=old to=canary percent=5 step=1 > phase=running from=old to=canary percent=50 step=2
ann rollout.start  > phase=running from=old to=canary percent=5 step=1`
		if got := strings.Join(actions, "\n"); err != nil || got != want {
			t.Errorf("%v\n%s\nwant\n%s", err, got, want)
		}
	})
}

// A canary that surely does worse is aborted at once, by whichever process sees it; one
// that may do worse keeps the step; one that does as well goes on.
func TestJudges(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(a, b *rollout.Manager)
		want float64 // percent after the pause
		why  string
	}{
		"as well": {func(a, b *rollout.Manager) { good(a, 100, "canary"); good(b, 900, "old") }, 50, ""},
		"fails": {func(a, b *rollout.Manager) {
			good(b, 900, "old")
			sends(a, 5, "canary", "reset", 0, 0)
		}, 0, "error rate 5 of 5, at most 2 %"},
		"fails, seen by two": {func(a, b *rollout.Manager) {
			good(b, 900, "old")
			sends(a, 3, "canary", "", 503, 0)
			sends(b, 2, "canary", "", 429, 0)
		}, 0, "error rate 5 of 5"},
		"four of the first four may be chance": {func(a, b *rollout.Manager) {
			good(b, 900, "old")
			sends(a, 4, "canary", "", 500, 0)
			good(a, 96, "canary")
		}, 5, ""},
		"both fail alike": {func(a, b *rollout.Manager) {
			for _, pool := range []string{"old", "canary"} {
				good(a, 170, pool)
				sends(b, 30, pool, "", 502, 0)
			}
		}, 50, ""},
		"nothing works": {func(a, _ *rollout.Manager) {
			sends(a, 200, "canary", "connect", 503, 0)
			sends(a, 200, "old", "connect", 503, 0)
		}, 5, ""},
		"refuses": {func(a, b *rollout.Manager) {
			good(b, 900, "old")
			good(a, 190, "canary")
			sends(a, 10, "canary", "", 400, 0)
		}, 0, "refusal rate 10 of 200"},
		"slow": {func(a, b *rollout.Manager) {
			good(b, 100, "old")
			sends(a, 100, "canary", "", 200, 200*time.Millisecond)
		}, 0, "median time to the first token"},
		"slow, but few times are known": {func(a, b *rollout.Manager) {
			good(b, 99, "old")
			sends(a, 100, "canary", "", 200, 200*time.Millisecond)
		}, 50, ""},
		"clients that go say nothing": {func(a, b *rollout.Manager) {
			sends(a, 1000, "canary", "client_gone", 0, 0)
			good(a, 100, "canary")
		}, 50, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(s *site) {
				a, b := s.manager("a", s.store), s.manager("b", s.store)
				if _, err := a.Start(context.Background(), ann, "chat"); err != nil {
					t.Fatal(err)
				}
				looks(a, b)
				c.run(a, b)
				if looks(a, b); c.want == 0 {
					s.percent(0, a, b) // not only after the pause
				} else {
					s.percent(5, a, b)
				}
				time.Sleep(time.Minute)
				looks(a, b)
				s.percent(c.want, a, b)
				if st := s.status(a); !strings.HasPrefix(st.Why, c.why) && c.want == 0 {
					t.Errorf("%+v", st)
				}
				if _, err := a.Start(context.Background(), ann, "chat"); (err == nil) != (c.want == 0) {
					t.Error("started again:", err)
				}
			})
		})
	}
}

// A request of the canary that went wrong causes a look, and one that went well none: the
// store is not asked more often because something failed long ago.
func TestLooks(t *testing.T) {
	bubble(t, func(s *site) {
		store := &away{Store: s.store}
		m := s.manager("a", store)
		if _, err := m.Start(context.Background(), ann, "chat"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		lasts := func(send func()) (looks int) {
			before := store.looks.Load()
			for range 100 {
				send()
				time.Sleep(100 * time.Millisecond)
			}
			return int(store.looks.Load() - before)
		}
		sends(m, 1, "canary", "", 500, 0)
		if n := lasts(func() { good(m, 1, "canary") }); n > 25 {
			t.Errorf("%d looks in ten seconds in which all went well", n)
		}
		if n := lasts(func() { good(m, 20, "canary"); sends(m, 1, "canary", "", 500, 0) }); n < 90 {
			t.Errorf("%d looks in ten seconds with a hundred errors", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// While the store is away nothing moves on, but a canary that fails is left all the
// same, and the store is told when it is back.
func TestStoreAway(t *testing.T) {
	bubble(t, func(s *site) {
		store := &away{Store: s.store}
		m := s.manager("a", store)
		if _, err := m.Start(context.Background(), ann, "chat"); err != nil {
			t.Fatal(err)
		}
		store.away = true
		good(m, 100, "canary")
		good(m, 100, "old")
		time.Sleep(time.Hour)
		looks(m)
		s.percent(5, m)
		sends(m, 50, "canary", "timeout", 0, 0)
		looks(m)
		s.percent(0, m)
		if st := s.status(m); st.Phase != rollout.Running || !strings.HasPrefix(st.Waits, "the control store, to abort: error rate 50 of 150") {
			t.Errorf("%+v", st)
		}
		store.away = false
		looks(m)
		if st := s.status(m); st.Phase != rollout.Aborted || st.By != "weir" {
			t.Errorf("%+v", st)
		}
	})
}

// A state that is not understood, as a newer weir's, holds its own model where it is, and
// no other one's steps or commands.
func TestStrangeState(t *testing.T) {
	bubble(t, func(s *site) {
		other := *s.plan.Models["chat"]
		other.Name, other.Aliases = "embed", nil
		s.plan.Models["embed"], s.plan.ModelList = &other, append(s.plan.ModelList, &other)
		m := s.manager("a", s.store)
		for _, model := range []string{"chat", "embed"} {
			if _, err := m.Start(context.Background(), ann, model); err != nil {
				t.Fatal(err)
			}
		}
		stored, err := s.store.Rollouts(context.Background())
		if err != nil || len(stored) != 2 {
			t.Fatal(stored, err)
		}
		strange := control.Rollout{Model: "embed", State: []byte(`{"phase":"paused"}`)}
		k := control.Keeper{Store: s.store, Plan: func() *plan.Plan { return s.plan }}
		if _, err := k.PutRollout(context.Background(), ann, "rollout.pause", strange, stored[1].Revision, "", "", ""); err != nil {
			t.Fatal(err)
		}
		looks(m)
		if got := m.Share(&other); got != 0.05 {
			t.Errorf("what is not understood moves %v", got)
		}
		if _, err := m.Abort(context.Background(), ann, "embed", ""); err == nil || !strings.Contains(err.Error(), "not understood") {
			t.Error(err)
		}
		good(m, 100, "canary")
		time.Sleep(time.Minute)
		looks(m)
		s.percent(50, m)
		if st, err := m.Abort(context.Background(), ann, "chat", "why not"); err != nil || st.Phase != rollout.Aborted {
			t.Error(st, err)
		}
	})
}

var errAway = errors.New("away")

type away struct {
	control.Store
	away  bool
	looks atomic.Int64
}

func (a *away) Put(ctx context.Context, c control.Change) (control.Revision, error) {
	if a.away {
		return 0, errAway
	}
	return a.Store.Put(ctx, c)
}

func (a *away) Rollouts(ctx context.Context) ([]control.Rollout, error) {
	a.looks.Add(1)
	if a.away {
		return nil, errAway
	}
	return a.Store.Rollouts(ctx)
}

func (a *away) Count(ctx context.Context, t control.Tally) error {
	if a.away {
		return errAway
	}
	return a.Store.Count(ctx, t)
}

func (a *away) Tallies(ctx context.Context, model string) ([]control.Tally, error) {
	if a.away {
		return nil, errAway
	}
	return a.Store.Tallies(ctx, model)
}

// An operator's abort holds here while the store is away, a promoted one's too, and is
// stored when it is back.
func TestAbortWhileAway(t *testing.T) {
	bubble(t, func(s *site) {
		store := &away{Store: s.store}
		m := s.manager("a", store)
		if _, err := m.Start(context.Background(), ann, "chat"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Promote(context.Background(), ann, "chat", true); err != nil {
			t.Fatal(err)
		}
		store.away = true
		if _, err := m.Abort(context.Background(), ann, "chat", "wrong answers"); !errors.Is(err, control.ErrNotStored) || !errors.Is(err, errAway) {
			t.Error(err)
		}
		looks(m)
		s.percent(0, m)
		store.away = false
		looks(m)
		if st := s.status(m); st.Phase != rollout.Aborted || st.By != "ann" || st.Why != "wrong answers" {
			t.Errorf("%+v", st)
		}
		s.percent(0, m)
	})
}

// Other pools in the configuration are another rollout; other steps are the same one.
func TestConfigurationChanges(t *testing.T) {
	bubble(t, func(s *site) {
		m := s.manager("a", s.store)
		if _, err := m.Start(context.Background(), ann, "chat"); err != nil {
			t.Fatal(err)
		}
		good(m, 10, "canary")
		next := testPlan()
		next.Models["chat"].Rollout.Steps = []plan.RolloutStep{{Percent: 7}}
		if got := m.Share(next.Models["chat"]); got != 0.07 {
			t.Errorf("%v would move by a plan that is not in force yet, want 0.07", got)
		}
		s.plan = next
		looks(m)
		s.percent(7, m)
		if st := s.status(m); st.Counts.To.Requests != 10 {
			t.Errorf("what was counted is lost: %+v", st.Counts)
		}
		s.plan = testPlan()
		s.plan.Models["chat"].Rollout.To = &plan.Pool{Name: "newer"}
		s.percent(0, m)
		looks(m)
		s.percent(0, m)
		if st := s.status(m); st.Phase != "" || st.To != "newer" {
			t.Errorf("%+v", st)
		}
		if st, err := m.Start(context.Background(), ann, "chat"); err != nil || st.To != "newer" || st.Percent != 5 {
			t.Error(st, err)
		}
		s.plan = testPlan()
		s.plan.Models["chat"].Rollout = nil
		looks(m)
		s.percent(0, m)
		if _, err := m.Start(context.Background(), ann, "chat"); !errors.Is(err, control.ErrNotFound) {
			t.Error(err)
		}
		// What is still in the store can be ended, so that it does not go on when it is back.
		if st, err := m.Abort(context.Background(), ann, "chat", "over"); err != nil || st.Phase != rollout.Aborted || st.To != "newer" || st.Percent != 0 {
			t.Error(st, err)
		}
		if _, err := m.Abort(context.Background(), ann, "chat", ""); !errors.Is(err, control.ErrState) {
			t.Error(err)
		}
		s.plan = testPlan()
		s.plan.Models["chat"].Rollout.To = &plan.Pool{Name: "newer"}
		looks(m)
		s.percent(0, m)
		if st := s.status(m); st.Phase != rollout.Aborted || st.Why != "over" {
			t.Errorf("%+v", st)
		}
	})
}
