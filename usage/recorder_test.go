package usage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store"
)

func TestEntryClosesItsDecision(t *testing.T) {
	w := newWorld(t)
	w.decide(admitted(1))
	if n := len(w.Pending()); n != 1 {
		t.Errorf("%d pending", n)
	}
	w.entry(finished(1))
	want := &usagev1.Event{
		Decision: admitted(1), End: timestamppb.New(noon.Add(2 * time.Second)), DurationUs: 2e6, FirstTokenUs: 183e3, Status: 200,
		Outcome: OutcomeCompleted, Attempts: []*usagev1.Attempt{{Pool: "local-vllm", Status: 200}}, Pool: "local-vllm",
		Tokens:         &usagev1.Tokens{Input: 712, CachedInput: 100, Output: 64},
		InputCertainty: usagev1.Certainty_CERTAINTY_REPORTED, OutputCertainty: usagev1.Certainty_CERTAINTY_REPORTED,
		CostNanousd: 712*100 + 100*10 + 64*400, FinishReason: "stop", Chunks: 64, ResponseBytes: 900, Flags: "-", Details: "via_upstream",
		Costs: &usagev1.Costs{Input: 712 * 100, CachedInput: 100 * 10, Output: 64 * 400},
	}
	if diff := cmp.Diff(want, w.one(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string][]ai.Usage{testID(1): {{Input: 712, CachedInput: 100, Output: 64}}}, w.ledger.settled); diff != "" {
		t.Error(diff)
	}
	if n := len(w.Pending()); n != 0 {
		t.Errorf("%d pending", n)
	}
}

func TestRefusalIsCompleteAtOnce(t *testing.T) {
	w := newWorld(t)
	w.decide(refused(1))
	w.entry(Entry{ID: idOf(1), Start: noon, Status: 429}) // by the response header
	models := &usagev1.Decision{Id: testID(2), Time: timestamppb.New(noon), Verdict: VerdictAllowed, Kind: "models"}
	w.decide(models)
	list := w.events()
	if len(list) != 2 {
		t.Fatalf("%d events", len(list))
	}
	for i, want := range []string{"429 refused", "200 completed"} {
		if got := fmt.Sprint(list[i].Status, " ", list[i].Outcome); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if len(w.ledger.settled) != 0 {
		t.Error("a refusal was settled")
	}
}

// Whatever the order and however often: one event.
func TestOneEventAnId(t *testing.T) {
	type step func(w *world)
	decide := func(w *world) { w.decide(admitted(1)) }
	entry := func(w *world) { w.entry(finished(1)) }
	both := func(w *world) {
		if err := w.take(context.Background(), []Entry{finished(1), finished(1)}, nil); err != nil {
			w.t.Error(err)
		}
	}
	expire := func(w *world) { w.clock.add(time.Hour); w.closeExpired(context.Background()) }
	restart := func(w *world) { w.restart() }
	flush := func(w *world) { w.events() }
	lose := func(w *world) { // a spool that is gone, with a store that is not
		w.die()
		if err := os.RemoveAll(w.opt.Dir); err != nil {
			w.t.Fatal(err)
		}
		w.start()
	}
	for name, tc := range map[string]struct {
		steps   []step
		outcome string
	}{
		"twice":                      {[]step{decide, entry, entry}, OutcomeCompleted},
		"twice in one batch":         {[]step{decide, both}, OutcomeCompleted},
		"twice, restarted between":   {[]step{decide, entry, restart, entry}, OutcomeCompleted},
		"restarted before":           {[]step{decide, restart, entry}, OutcomeCompleted},
		"decided twice":              {[]step{decide, decide, entry}, OutcomeCompleted},
		"decided again after":        {[]step{decide, entry, decide, expire}, OutcomeCompleted},
		"entry first":                {[]step{entry, decide, expire}, OutcomeCompleted},
		"late":                       {[]step{decide, expire, entry}, OutcomeUnknown},
		"late, restarted between":    {[]step{decide, expire, restart, entry}, OutcomeUnknown},
		"expired twice":              {[]step{decide, expire, expire}, OutcomeUnknown},
		"the spool is lost":          {[]step{decide, entry, flush, lose, entry}, OutcomeCompleted},
		"late and the spool is lost": {[]step{decide, expire, flush, lose, entry}, OutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for _, s := range tc.steps {
				s(w)
			}
			w.clock.add(time.Hour)
			w.closeExpired(context.Background())
			if e := w.one(); e.Outcome != tc.outcome {
				t.Errorf("outcome %s, want %s", e.Outcome, tc.outcome)
			}
			if n := len(w.ledger.settled[testID(1)]); n != 1 {
				t.Errorf("settled %d times", n)
			}
		})
	}
}

func TestDeadlineClosesAtTheReservation(t *testing.T) {
	w := newWorld(t)
	w.decide(admitted(1))
	w.closeExpired(context.Background())
	if len(w.events()) != 0 {
		t.Fatal("closed before the deadline")
	}
	w.clock.add(time.Minute)
	w.closeExpired(context.Background())
	e := w.one()
	est := usagev1.Certainty_CERTAINTY_ESTIMATED
	if e.Outcome != OutcomeUnknown || e.InputCertainty != est || e.OutputCertainty != est {
		t.Errorf("%v", e)
	}
	want := ai.Usage{Input: 800, Output: 4096}
	if Used(e) != want || e.CostNanousd != 800*1000+4096*4000 {
		t.Errorf("used %+v, cost %d", Used(e), e.CostNanousd)
	}
	if diff := cmp.Diff([]ai.Usage{want}, w.ledger.settled[testID(1)]); diff != "" {
		t.Error(diff)
	}
	w.entry(finished(1))
	if w.metric("weir_usage_dropped_total", dropLate) != 1 {
		t.Error("the late entry was not counted")
	}
}

// After a restart entries of the meantime may still come: no deadline closes
// anything within the grace, nor while a file is read for the first time.
func TestDeadlinesWaitAfterARestart(t *testing.T) {
	w := newWorld(t)
	w.decide(admitted(1))
	w.die()
	w.opt.Grace = 10 * time.Second
	w.clock.add(time.Hour)
	w.start()
	w.closeExpired(context.Background())
	if len(w.events()) != 0 {
		t.Error("closed within the grace")
	}
	w.clock.add(10 * time.Second)
	w.catching.Add(1)
	w.closeExpired(context.Background())
	if len(w.events()) != 0 {
		t.Error("closed while the log was being read")
	}
	w.catching.Add(-1)
	w.entry(finished(1))
	if e := w.one(); e.Outcome != OutcomeCompleted {
		t.Error(e.Outcome)
	}
}

func TestPeriodicEntryRenewsTheDeadline(t *testing.T) {
	w := newWorld(t)
	w.decide(admitted(1))
	w.clock.add(59 * time.Second)
	p := finished(1)
	p.Periodic = true
	w.entry(p)
	w.clock.add(30 * time.Second)
	w.closeExpired(context.Background())
	if len(w.events()) != 0 {
		t.Fatal("closed")
	}
	w.clock.add(time.Minute)
	w.closeExpired(context.Background())
	if e := w.one(); e.Outcome != OutcomeUnknown {
		t.Error(e.Outcome)
	}
}

// What an Envoy that died had open is closed when its log was read, and what came
// after it keeps its deadline.
func TestLostAreClosedSoon(t *testing.T) {
	w := newWorld(t)
	w.decide(admitted(1))
	w.clock.add(59 * time.Second)
	w.Lost(w.clock.Now())
	d := admitted(2)
	d.Time = timestamppb.New(w.clock.Now())
	w.decide(d)
	w.closeExpired(context.Background())
	if len(w.events()) != 0 {
		t.Fatal("closed before the rest of the log can have been read")
	}
	w.clock.add(3 * time.Second)
	w.closeExpired(context.Background())
	if e := w.one(); e.Outcome != OutcomeUnknown || e.Decision.Id != admitted(1).Id {
		t.Errorf("%v", e)
	}
}

// The file says of a request that still runs that it does.
func TestPeriodicLine(t *testing.T) {
	e, err := DecodeLine([]byte(`{"start":"1.5","type":"DownstreamPeriodic","id":"` + admitted(1).Id + `"}`))
	if err != nil || !e.Periodic {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err = DecodeLine([]byte(`{"start":"1.5","type":"DownstreamEnd"}`)); err != nil || e.Periodic {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestWithdrawn(t *testing.T) {
	w := newWorld(t)
	w.decide(admitted(1))
	for range 2 {
		w.decide(refused(1))
	}
	w.restart()
	if n := len(w.Pending()); n != 0 {
		t.Errorf("%d pending", n)
	}
	if e := w.one(); e.Outcome != OutcomeClientGone || Used(e) != (ai.Usage{}) {
		t.Errorf("%v", e)
	}
	if diff := cmp.Diff([]ai.Usage{{}}, w.ledger.settled[testID(1)]); diff != "" {
		t.Error(diff)
	}
}

func TestEntriesWithoutADecision(t *testing.T) {
	w := newWorld(t)
	for i, line := range []string{
		`{"id":null,"start":"1772366400.000001","dur_us":900,"status":503,"flags":"UAEX","details":"ext_proc_error_gRPC_error_14"}`,
		`{"start":"1772366400.000002","status":413,"details":"request_payload_too_large"}`,
		`{"start":"1772366400.000003","status":404,"flags":"NR","details":"route_not_found"}`,
		`{"start":"1772366400.000004","status":500,"details":"internal"}`,
		`{"start":"1772366400.000005","status":0,"flags":"DC","details":"downstream_remote_disconnect"}`,
		`{"id":"000000000000000000000000000000aa","start":"1772366400.000006","status":200,"att":"local-vllm:200","use":"in=5 out=6 reported"}`,
		`{"rid":"000000000000000000000000000000ab","start":"1772366400.000007","status":401}`,
	} {
		e, err := DecodeLine([]byte(line))
		if err != nil {
			t.Fatal(i, err)
		}
		w.entry(e)
		w.entry(e) // read again
	}
	var got []string
	for _, e := range w.events() {
		got = append(got, fmt.Sprint(e.Status, " ", e.Outcome, " ", e.Decision.Reason, " ", e.Decision.Stage, " ", e.Tokens.Output))
	}
	want := []string{"503 unavailable unavailable envoy 0", "413 refused body_too_large envoy 0", "404 refused unknown_path envoy 0",
		"500 failed internal_error envoy 0", "200 completed   6", "401 refused   0"}
	// Those without a duration ended when they began.
	want[0], want = "", append(want[1:], want[0])
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The store cannot be written: events stay in the spool, then all are stored.
func TestStoreFails(t *testing.T) {
	w := newWorld(t)
	broken := &brokenStore{Store: w.store, err: errors.New("disk full")}
	w.opt.Store, w.Recorder.opt.Store = broken, broken
	for n := range 10 {
		w.decide(admitted(n))
		w.entry(finished(n))
	}
	w.clock.add(3 * time.Second)
	if err := w.sink.flush(context.Background()); err == nil {
		t.Fatal("no error")
	}
	if lag := w.metric("weir_usage_store_lag_seconds"); lag < 3 {
		t.Errorf("lag %v", lag)
	}
	broken.err = nil
	if n := len(w.events()); n != 10 {
		t.Errorf("%d events", n)
	}
	if lag := w.metric("weir_usage_store_lag_seconds"); lag != 0 {
		t.Errorf("lag %v", lag)
	}
}

type brokenStore struct {
	store.Store
	err error
}

func (s *brokenStore) Write(ctx context.Context, e []store.Record, c store.Cursor) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return s.Store.Write(ctx, e, c)
}

// A commit whose answer was lost is written again, and counts once.
func TestCommitUnknown(t *testing.T) {
	w := newWorld(t)
	w.decide(refused(1))
	lost := &lostAnswer{Store: w.store}
	w.Recorder.opt.Store = lost
	if err := w.sink.flush(context.Background()); err == nil {
		t.Fatal("no error")
	}
	if n := len(w.events()); n != 1 {
		t.Errorf("%d events", n)
	}
	rows, err := w.store.Usage(context.Background(), store.Query{Since: noon.Add(-time.Hour), Until: noon.Add(time.Hour)})
	if err != nil || rows[0].Requests != 1 {
		t.Errorf("%+v, %v", rows, err)
	}
}

type lostAnswer struct {
	store.Store
	done bool
}

func (s *lostAnswer) Write(ctx context.Context, e []store.Record, c store.Cursor) (int, error) {
	n, err := s.Store.Write(ctx, e, store.Cursor{}) // the cursor is as it was
	if !s.done {
		s.done = true
		return 0, errors.New("connection lost")
	}
	return n, err
}

// Segments go when all in them is stored and closed; a request that stays open
// is carried forward and survives, with its reservation.
func TestSegmentsGo(t *testing.T) {
	w := newWorld(t)
	w.die()
	w.opt.SegmentBytes = 4096
	w.start()
	w.decide(admitted(1 << 20))
	for n := range 300 {
		w.decide(admitted(n))
		w.entry(finished(n))
	}
	if n := len(w.log.Segments()); n < 10 {
		t.Fatalf("%d segments", n)
	}
	if n := len(w.events()); n != 300 {
		t.Fatalf("%d events", n)
	}
	if n := len(w.log.Segments()); n > maxSegments+1 {
		t.Errorf("%d segments are left", n)
	}
	w.restart()
	if p := w.Pending(); len(p) != 1 || p[0].GetId() != testID(1<<20) {
		t.Errorf("pending: %v", p)
	}
	w.entry(finished(1 << 20))
	if n := len(w.events()); n != 301 {
		t.Errorf("%d events", n)
	}
	w.restart()
	if n := len(w.Pending()); n != 0 {
		t.Errorf("%d pending", n)
	}
}

func TestRecentHasStoredAndUnstored(t *testing.T) {
	w := newWorld(t)
	for n := range 5 {
		w.decide(admitted(n))
		w.entry(finished(n))
	}
	w.events()
	for n := 5; n < 8; n++ {
		w.decide(admitted(n))
		w.entry(finished(n))
	}
	w.restart()
	for window, want := range map[time.Duration]int{time.Hour: 8, -time.Hour: 0} {
		seen := map[string]int{}
		_, err := w.Recent(context.Background(), window, func(e *usagev1.Event) error {
			seen[e.GetDecision().GetId()]++
			return nil
		})
		if err != nil || len(seen) != want {
			t.Errorf("%v: %d events, want %d; %v", window, len(seen), want, err)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s: %d times", id, n)
			}
		}
	}
}

func TestRunStoresAndTells(t *testing.T) {
	w := newWorld(t)
	w.die()
	told := make(chan *usagev1.Event, 10)
	w.opt.OnEvent = func(e *usagev1.Event) { told <- e }
	w.opt.FlushEvery, w.opt.SyncEvery = time.Millisecond, time.Millisecond
	w.opt.Retention = 30 * time.Minute
	w.start()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	w.decide(refused(1))
	if e := <-told; e.GetDecision().GetId() != testID(1) {
		t.Error(e)
	}
	for {
		if _, err := w.store.Event(ctx, testID(1)); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.decide(refused(2))
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.store.Event(context.Background(), testID(2)); err != nil {
		t.Error("Close did not store:", err)
	}
	if len(told) != 1 {
		t.Error("Close did not tell")
	}
}

func TestRetentionDeletesInSteps(t *testing.T) {
	w := newWorld(t)
	w.Recorder.opt.Retention = time.Hour
	for n := range 2*trimAtOnce + 10 {
		w.decide(refused(n))
	}
	w.events()
	w.clock.add(30 * time.Minute)
	w.decide(refused(1 << 20))
	w.clock.add(31 * time.Minute)
	w.events()
	if err := w.sink.deleteOld(context.Background()); err != nil {
		t.Fatal(err)
	}
	if e := w.one(); e.GetDecision().GetId() != testID(1<<20) {
		t.Error(e)
	}
}

func TestDecidedRefusesWhatItCannotKeep(t *testing.T) {
	w := newWorld(t)
	bad := admitted(1)
	bad.Id = "x"
	notText := admitted(2)
	notText.Model = "\xff"
	for _, d := range []*usagev1.Decision{bad, notText, {}} {
		if err := w.Decided(d); err == nil {
			t.Errorf("%v: no error", d)
		}
	}
	long := admitted(3)
	long.RequestedModel = strings.Repeat("ü", 1<<20)
	w.decide(long)
	if n := len(w.Pending()[0].GetRequestedModel()); n > maxRequestedModel {
		t.Errorf("%d bytes", n)
	}
	if n := len(w.Pending()); n != 1 {
		t.Errorf("%d pending", n)
	}
	w.log.Close()
	if err := w.Decided(admitted(4)); err == nil {
		t.Error("a decision that was not journalled was accepted")
	}
	if err := w.Decided(refused(5)); err == nil {
		t.Error("a refusal that was not journalled was accepted")
	}
}
