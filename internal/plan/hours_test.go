package plan

import (
	"math/rand/v2"
	"testing"
	"time"
	_ "time/tzdata"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// window is one window as it is written.
type window struct {
	day      time.Weekday
	from, to int
}

// within reads the windows off a clock and a calendar: of the day itself, and of
// the day before for those that pass midnight.
func within(windows []window, local time.Time) bool {
	m := local.Hour()*60 + local.Minute()
	yesterday := time.Date(local.Year(), local.Month(), local.Day()-1, 12, 0, 0, 0, time.UTC).Weekday()
	for _, w := range windows {
		switch over := w.to <= w.from; {
		case w.day == local.Weekday() && m >= w.from && (over || m < w.to):
			return true
		case w.day == yesterday && over && m < w.to:
			return true
		}
	}
	return false
}

// Every quarter of an hour of a year, and every minute about the changes of summer
// time, by the time package's clocks.
func TestHoursOfAYear(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu", "Africa/Casablanca"} {
		z := zone(t, name)
		rnd := rand.New(rand.NewPCG(uint64(len(name)), 7))
		h, windows := NewHours(z), []window{}
		for range 5 {
			w := window{time.Weekday(rnd.IntN(7)), rnd.IntN(minutesOfDay), 1 + rnd.IntN(minutesOfDay)}
			windows = append(windows, w)
			h.Add(w.day, w.from, w.to)
		}
		inside, at, end := 0, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 2, 0, 0, 0, 0, time.UTC)
		for at.Before(end) {
			local := at.In(z)
			got := h.Contain(at)
			if want := within(windows, local); got != want {
				t.Fatalf("%s: %s: got %v, want %v", name, local, got, want)
			}
			if got {
				inside++
			}
			_, before := at.Add(-3 * time.Hour).In(z).Zone()
			_, after := at.Add(3 * time.Hour).In(z).Zone()
			if before != after {
				at = at.Add(time.Minute)
			} else {
				at = at.Add(15 * time.Minute)
			}
		}
		if inside == 0 {
			t.Errorf("%s: no time is inside", name)
		}
	}
}

func TestHours(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	h := NewHours(berlin)
	for d := time.Monday; d <= time.Friday; d++ {
		h.Add(d, 9*60, 17*60+30)
	}
	h.Add(time.Saturday, 22*60, 2*60) // over midnight into Sunday
	for _, tc := range []struct {
		at   string
		want bool
	}{
		{"2026-06-01T06:59:59Z", false}, {"2026-06-01T07:00:00Z", true}, // 9:00 in summer
		{"2026-01-05T07:59:59Z", false}, {"2026-01-05T08:00:00Z", true}, // 9:00 in winter
		{"2026-01-05T16:29:59Z", true}, {"2026-01-05T16:30:00Z", false},
		{"2026-01-10T20:59:59Z", false}, {"2026-01-10T21:00:00Z", true}, {"2026-01-11T00:59:59Z", true}, {"2026-01-11T01:00:00Z", false},
		// Summer time begins on Sunday, 29 March, at 2:00: the window ends where 2:00 would be.
		{"2026-03-29T00:59:59Z", true}, {"2026-03-29T01:00:00Z", false},
	} {
		at, err := time.Parse(time.RFC3339, tc.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Contain(at); got != tc.want {
			t.Errorf("%s (%s): got %v", tc.at, at.In(berlin), got)
		}
	}
	if want := "Europe/Berlin Mon Tue Wed Thu Fri 09:00-17:30, Sat 22:00-02:00"; h.String() != want {
		t.Errorf("%q, want %q", h, want)
	}
	h.Add(time.Sunday, 2*60, 24*60)
	h.Add(time.Monday, 0, 60)
	if want := "Europe/Berlin Mon Tue Wed Thu Fri 09:00-17:30, Sat 22:00-Mon 01:00"; h.String() != want {
		t.Errorf("%q, want %q", h, want)
	}
	if h.Always() {
		t.Error("always")
	}
	whole := NewHours(time.UTC)
	for d := range time.Weekday(7) {
		if !whole.Add(d, 0, minutesOfDay) || whole.Add(d, 60, 120) {
			t.Error("what is added is not told")
		}
	}
	if !whole.Always() {
		t.Error("a whole week is not always")
	}
}

// Any window of any day agrees with the clock.
func FuzzHours(f *testing.F) {
	f.Add(int64(1_774_746_000), uint8(0), uint16(120), uint16(60), uint8(1)) // about the beginning of summer time
	f.Add(int64(1_792_890_000), uint8(6), uint16(0), uint16(1440), uint8(2))
	zones := []*time.Location{time.UTC, zone(f, "Europe/Berlin"), zone(f, "America/New_York"), zone(f, "Australia/Lord_Howe")}
	f.Fuzz(func(t *testing.T, at int64, day uint8, from, to uint16, z uint8) {
		w := window{time.Weekday(day % 7), int(from) % minutesOfDay, 1 + int(to)%minutesOfDay}
		h := NewHours(zones[int(z)%len(zones)])
		h.Add(w.day, w.from, w.to)
		now := time.Unix(at%(1<<33), 0)
		if got, want := h.Contain(now), within([]window{w}, now.In(h.zone)); got != want {
			t.Errorf("%+v at %s: got %v, want %v", w, now.In(h.zone), got, want)
		}
	})
}
