package plan

import (
	"testing"
	"time"
)

// Each moment lies in its period, and the period's neighbours meet it.
func TestPeriodBounds(t *testing.T) {
	for _, name := range []string{"UTC", "Asia/Shanghai", "America/Sao_Paulo", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Apia", "Africa/Cairo", "America/Havana"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []Period{Day, Week, Month} {
			for at := time.Date(2008, 1, 1, 0, 30, 0, 0, time.UTC); at.Year() < 2027; at = at.Add(7*time.Hour + 13*time.Minute) {
				start, end := p.Bounds(at.In(zone))
				if at.Before(start) || !at.Before(end) {
					t.Fatalf("%s, %s: %s is not in [%s, %s)", name, p, at.In(zone), start, end)
				}
				if before, meets := p.Bounds(start.Add(-time.Nanosecond)); !meets.Equal(start) || !before.Before(start) {
					t.Fatalf("%s, %s: the period before %s ends at %s", name, p, start, meets)
				}
				if next, _ := p.Bounds(end); !next.Equal(end) {
					t.Fatalf("%s, %s: the period after %s begins at %s", name, p, end, next)
				}
				if p == Week && start.Weekday() != time.Monday || p == Month && start.Day() != 1 {
					t.Fatalf("%s, %s: begins on %s", name, p, start)
				}
			}
		}
	}
}
