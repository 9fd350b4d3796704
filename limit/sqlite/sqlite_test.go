package sqlite

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

func openStore(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

var t0 = time.UnixMicro(1_800_000_000_000_000)

func TestKeepsWhatItWasGiven(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.db")
	s := openStore(t, path)
	if st, err := s.Load(t.Context()); err != nil || len(st.Counts) != 0 || st.Place != (Place{}) {
		t.Fatalf("%+v, %v", st, err)
	}
	month := limit.Count{
		Limit: "month", Unit: plan.UnitUSD, Period: plan.Month, Zone: "Europe/Berlin",
		Scope: limit.Scope{Organisation: "o", Team: "t", Application: "a", Key: "k", User: "u", Model: "m", Pool: "p"},
		Slots: []limit.Slot{{End: t0.Add(time.Hour), N: math.MaxInt64}}, Broken: t0.Add(time.Hour), Alerted: t0.Add(time.Minute), Told: 5, Until: t0.Add(time.Hour),
	}
	minute := limit.Count{
		Limit: "minute", Unit: plan.UnitTokens, Window: time.Minute,
		Slots: []limit.Slot{{End: t0.Add(-time.Second), N: 1}, {End: t0, N: 2}}, Until: t0.Add(time.Minute),
	}
	empty := limit.Count{Limit: "empty", Unit: plan.UnitTokens, Window: time.Minute, Until: t0.Add(time.Minute)} // it was reset
	names := []Name{{"minute", plan.UnitTokens, "", ""}, {"month", plan.UnitUSD, plan.Month, "Europe/Berlin"}}
	if err := s.Save(t.Context(), []limit.Count{empty, minute, month}, names, Place{3, 4, t0}); err != nil {
		t.Fatal(err)
	}
	minute.Slots = minute.Slots[1:]
	if err := s.Save(t.Context(), []limit.Count{minute}, names, Place{math.MaxInt64, 5, t0.Add(time.Second)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path)
	want := State{Counts: []limit.Count{empty, minute, month}, Names: names, Place: Place{math.MaxInt64, 5, t0.Add(time.Second)}}
	if got, err := s.Load(t.Context()); err != nil || !cmp.Equal(want, got) {
		t.Errorf("%v (-want +got):\n%s", err, cmp.Diff(want, got))
	}
	// What is of no use any more goes.
	if err := s.Save(t.Context(), nil, names[1:], Place{3, 4, t0.Add(2 * time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context()); err != nil || len(got.Counts) != 1 || got.Counts[0].Limit != "month" || len(got.Names) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What cannot be read must not pass for nothing that was used.
func TestDamageIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.db")
	if err := os.WriteFile(path, []byte("this is not a database, and long enough to be looked at as one: "+string(make([]byte, 4096))), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), path); err == nil {
		s.Close()
		t.Error("opened")
	}
	path = filepath.Join(t.TempDir(), "limits.db")
	s := openStore(t, path)
	if err := s.Save(t.Context(), []limit.Count{{Limit: "l", Unit: plan.UnitTokens, Slots: []limit.Slot{{End: t0, N: 1}}, Until: t0}}, nil, Place{1, 1, t0}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.ExecContext(context.Background(), `UPDATE counts SET slots = x'ff'`); err != nil {
		t.Fatal(err)
	}
	if st, err := s.Load(t.Context()); err == nil {
		t.Errorf("%+v", st)
	}
	if _, err := s.db.ExecContext(context.Background(), `INSERT INTO schema_version VALUES (99)`); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err := Open(t.Context(), path); err == nil {
		s.Close()
		t.Error("a file of a later version is opened")
	}
}

func FuzzSlots(f *testing.F) {
	f.Add(appendSlots(nil, []limit.Slot{{End: t0, N: 5}, {End: time.Unix(0, math.MinInt64), N: math.MaxInt64}}))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		slots, err := decodeSlots(b)
		if err != nil {
			return
		}
		again, err := decodeSlots(appendSlots(nil, slots))
		if err != nil || !cmp.Equal(slots, again) {
			t.Errorf("%v, %v", again, err)
		}
	})
}

// One operation keeps a thousand counts that changed.
func BenchmarkSave(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "limits.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	counts := make([]limit.Count, 1000)
	for i := range counts {
		counts[i] = limit.Count{
			Limit: "tokens-per-key", Unit: plan.UnitTokens, Window: time.Minute, Until: t0.Add(time.Hour),
			Scope: limit.Scope{Key: string(rune('a'+i%26)) + time.Duration(i).String()}, Slots: make([]limit.Slot, 60),
		}
		for j := range counts[i].Slots {
			counts[i].Slots[j] = limit.Slot{End: t0.Add(time.Duration(j) * time.Second), N: 12345}
		}
	}
	for b.Loop() {
		if err := s.Save(b.Context(), counts, nil, Place{1, 1, t0}); err != nil {
			b.Fatal(err)
		}
	}
}
