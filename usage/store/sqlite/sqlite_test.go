package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store"
)

func open(t testing.TB) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "usage store.db?x#y")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// event makes the n-th event of a small world.
func event(n int, end time.Time) *usagev1.Event {
	return &usagev1.Event{
		Decision: &usagev1.Decision{
			Id: fmt.Sprintf("%032x", n), Time: timestamppb.New(end.Add(-time.Second)),
			Key: fmt.Sprint("key-", n%5), Application: fmt.Sprint("app-", n%4), Team: fmt.Sprint("team-", n%3), Model: fmt.Sprint("model-", n%2),
			Kind: "chat", Verdict: "allowed", Rule: "default", Targets: []string{"a", "b"}, Limits: []string{"tpm/team=x", "rpm"},
			TraceId: strings.Repeat("ab", 16), InputTokens: 7, InputCertainty: usagev1.Certainty_CERTAINTY_COUNTED,
		},
		End: timestamppb.New(end), DurationUs: 1e6, Status: 200, Outcome: []string{"completed", "failed"}[n%2], Pool: []string{"a", "b"}[n%2],
		Attempts: []*usagev1.Attempt{{Pool: "a", Status: 503, Failure: "status"}, {Pool: "b", Status: 200}},
		Tokens: usagev1.TokensOf(ai.Usage{Input: int64(n), CachedInput: 1, CacheWrite: 2, AudioInput: 3, ImageInput: 4,
			Output: 20 + 2*int64(n), Reasoning: 1, AudioOutput: 2, ImageOutput: 3}),
		Costs:          usagev1.CostsOf(ai.Costs{Input: 1, AudioInput: 2, Output: 4, AudioOutput: 8, Request: 16}),
		Abandoned:      &usagev1.Abandoned{Attempts: 1, Tokens: &usagev1.Tokens{Input: 30, Output: int64(n)}, CostNanousd: 5},
		InputCertainty: usagev1.Certainty_CERTAINTY_REPORTED, OutputCertainty: usagev1.Certainty_CERTAINTY_ESTIMATED,
		CostNanousd: 10 * int64(n), FinishReason: "stop", Chunks: 3, ResponseBytes: 4, Flags: "-", Details: "via_upstream",
	}
}

// records are events as the recorder gives them.
func records(t testing.TB, events []*usagev1.Event) []store.Record {
	t.Helper()
	list := make([]store.Record, len(events))
	for i, e := range events {
		b, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		list[i] = store.Record{Event: e, Encoded: b}
	}
	return list
}

func TestEventComesBackAsItWent(t *testing.T) {
	s, _ := open(t)
	want := []*usagev1.Event{
		event(1, noon),
		{Decision: &usagev1.Decision{Id: fmt.Sprintf("%032x", 2), Time: timestamppb.New(noon)}, End: timestamppb.New(noon), Tokens: &usagev1.Tokens{}},
	}
	if n, err := s.Write(t.Context(), records(t, want), store.Cursor{Segment: 3, Offset: 4}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	for _, w := range want {
		got, err := s.Event(t.Context(), w.Decision.Id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(w, got, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := s.Event(t.Context(), fmt.Sprintf("%032x", 3)); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if c, err := s.Cursor(t.Context()); err != nil || c != (store.Cursor{Segment: 3, Offset: 4}) {
		t.Error(c, err)
	}
}

// An event that is written again changes nothing: no row, no roll-up.
func TestWritingAgainChangesNothing(t *testing.T) {
	s, _ := open(t)
	batch := []*usagev1.Event{event(1, noon), event(2, noon), event(1, noon)}
	for i, want := range []int{2, 0} {
		if n, err := s.Write(t.Context(), records(t, batch), store.Cursor{}); n != want || err != nil {
			t.Errorf("write %d: %d added, want %d; %v", i, n, want, err)
		}
	}
	for _, table := range []string{"events", "usage_minute", "usage_hour"} {
		sum := "count(*)"
		if table != "events" {
			sum = "sum(requests)"
		}
		var n int
		if err := s.db.QueryRow("SELECT " + sum + " FROM " + table).Scan(&n); err != nil || n != 2 {
			t.Errorf("%s: %d, %v", table, n, err)
		}
	}
}

func TestWriteIsAllOrNothing(t *testing.T) {
	s, _ := open(t)
	bad := event(2, noon)
	bad.Decision.Id = "no id"
	if _, err := s.Write(t.Context(), records(t, []*usagev1.Event{event(1, noon), bad}), store.Cursor{Segment: 1}); err == nil {
		t.Fatal("no error")
	}
	if _, err := s.Event(t.Context(), event(1, noon).Decision.Id); !errors.Is(err, store.ErrNotFound) {
		t.Error("half a batch was kept")
	}
	if c, _ := s.Cursor(t.Context()); c != (store.Cursor{}) {
		t.Error("the cursor was kept")
	}
}

// Whatever the grouping and the bounds, roll-ups say what the events say.
func TestUsageEqualsTheEvents(t *testing.T) {
	s, _ := open(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var all []*usagev1.Event
	for n := range 600 {
		all = append(all, event(n, noon.Add(time.Duration(rng.Int64N(int64(5*time.Hour))))))
	}
	if _, err := s.Write(t.Context(), records(t, all), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	groupings := [][]store.Dimension{{}, {store.Team}, {store.Team, store.Model, store.Key}, {store.Pool, store.Outcome},
		{store.Application, store.Hour}, {store.Key, store.Outcome}, {store.Reason, store.Kind, store.Rule}, {store.Day, store.Model}}
	for _, by := range groupings {
		for range 20 {
			since := noon.Add(time.Duration(rng.Int64N(int64(3 * time.Hour))))
			until := since.Add(time.Duration(rng.Int64N(int64(3 * time.Hour))))
			got, err := s.Usage(t.Context(), store.Query{Since: since, Until: until, By: by})
			if err != nil {
				t.Fatal(by, err)
			}
			slices.SortFunc(got, func(a, b store.Row) int { return slices.Compare(a.By, b.By) })
			if diff := cmp.Diff(sum(all, since, until, by), got); diff != "" {
				t.Fatalf("by %v from %v to %v: %s", by, since, until, diff)
			}
		}
	}
}

// sum is Usage by hand.
func sum(all []*usagev1.Event, since, until time.Time, by []store.Dimension) []store.Row {
	rows := map[string]*store.Row{}
	for _, e := range all {
		end := e.End.AsTime()
		if end.Before(since.Truncate(time.Microsecond)) || !end.Before(until.Truncate(time.Microsecond)) {
			continue
		}
		key := []string{}
		d := e.Decision
		for _, dim := range by {
			key = append(key, map[store.Dimension]string{store.Team: d.Team, store.Model: d.Model, store.Key: d.Key, store.Application: d.Application,
				store.Pool: e.Pool, store.Outcome: e.Outcome, store.Reason: d.Reason, store.Kind: d.Kind, store.Rule: d.Rule,
				store.Hour: end.Format("2006-01-02T15:00Z"), store.Day: end.Format(time.DateOnly)}[dim])
		}
		r := rows[strings.Join(key, "\x00")]
		if r == nil {
			r = &store.Row{By: key}
			rows[strings.Join(key, "\x00")] = r
		}
		r.Requests++
		r.Tokens = r.Tokens.Add(e.Tokens.Usage())
		r.Cost += ai.NanoUSD(e.CostNanousd)
		r.InputCost += 3
		r.OutputCost += 12
		r.AbandonedCost += 5
		r.Abandoned += 30 + e.Abandoned.Tokens.Output
		r.Estimated += e.Tokens.Output
	}
	var list []store.Row
	for _, r := range rows {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b store.Row) int { return slices.Compare(a.By, b.By) })
	return list
}

func TestTrimKeepsRollups(t *testing.T) {
	s, _ := open(t)
	var batch []*usagev1.Event
	for n := range 10 {
		batch = append(batch, event(n, noon.Add(time.Duration(n)*10*time.Minute)))
	}
	if _, err := s.Write(t.Context(), records(t, batch), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	cut := noon.Add(45 * time.Minute)
	for i, want := range []int{3, 2, 0} {
		if n, err := s.Trim(t.Context(), cut, 3); n != want || err != nil {
			t.Errorf("step %d: %d, want %d; %v", i, n, want, err)
		}
	}
	var left []string
	err := s.Since(t.Context(), time.Time{}, func(e *usagev1.Event) error {
		left = append(left, e.Decision.Id[30:])
		return nil
	})
	if want := []string{"05", "06", "07", "08", "09"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("%v, %v", left, err)
	}
	// From the middle of an hour whose events are gone: the whole hour.
	rows, err := s.Usage(t.Context(), store.Query{Since: noon.Add(30 * time.Minute), Until: noon.Add(2 * time.Hour), By: []store.Dimension{store.Hour, store.Key}})
	var requests int64
	for _, r := range rows {
		requests += r.Requests
	}
	if err != nil || requests != 10 {
		t.Errorf("%d requests, want 10; %v", requests, err)
	}
}

func TestAnotherReader(t *testing.T) {
	s, path := open(t)
	if _, err := s.Write(t.Context(), records(t, []*usagev1.Event{event(1, noon)}), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		r, err := OpenReader(t.Context(), path)
		if err != nil {
			t.Fatal(when, err)
		}
		defer r.Close()
		if _, err := r.Event(t.Context(), event(1, noon).Decision.Id); err != nil {
			t.Error(when, err)
		}
		if _, err := r.db.Exec(`DELETE FROM events`); err == nil {
			t.Error(when, "a reader can write")
		}
	}
	check("while the writer has it open")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("after the writer closed it")
	if _, err := OpenReader(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a store that is absent was opened")
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	s, path := open(t)
	if _, err := s.w.Exec(`INSERT INTO schema_version VALUES (99)`); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Error(err)
	}
	if _, err := OpenReader(t.Context(), path); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Error(err)
	}
}

// The contract's default query over a long time reads no single events but at
// its ends.
func TestLongQueriesReadRollups(t *testing.T) {
	s, _ := open(t)
	q := store.Query{Since: noon, Until: noon.AddDate(0, 3, 0), By: []store.Dimension{store.Team, store.Model, store.Key}}
	text, args := usageSQL(q, time.UnixMicro(0))
	rows, err := s.db.Query(`EXPLAIN QUERY PLAN `+text, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	if text := strings.Join(plan, "\n"); !strings.Contains(text, "SEARCH usage_hour USING PRIMARY KEY (hour>") || strings.Contains(text, "SCAN events") {
		t.Errorf("%s", text)
	}
}

func TestSyncSaysSo(t *testing.T) {
	s, path := open(t)
	if _, err := s.Write(t.Context(), records(t, []*usagev1.Event{event(1, noon)}), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	// The database alone, without its write-ahead log, has the event now.
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: "immutable=1"}).String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRow(`SELECT count(*) FROM events`).Scan(&n); err != nil || n != 1 {
		t.Error(n, err)
	}
}

func BenchmarkWrite(b *testing.B) {
	s, _ := open(b)
	n := 0
	list := make([]*usagev1.Event, 500)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i := range list {
			list[i] = event(n, noon.Add(time.Duration(n)*time.Millisecond))
			n++
		}
		batch := records(b, list)
		b.StartTimer()
		if _, err := s.Write(context.Background(), batch, store.Cursor{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
}
