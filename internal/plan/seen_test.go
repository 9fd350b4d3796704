package plan

import (
	"testing"
	"time"
)

// changing is live facts that are others each time that they are read.
type changing struct{ reads int }

func (c *changing) Pool(string) (PoolState, bool) {
	c.reads++
	return PoolState{Healthy: 1, Heard: time.Unix(1, 0), Waiting: float64(c.reads)}, true
}

// One request is judged by one state of each pool and limit, whatever changes meanwhile.
func TestOneStateForOneRequest(t *testing.T) {
	for name, index := range map[string]func(int) int{
		"of one plan": func(i int) int { return i }, "of none": func(int) int { return 0 }, "of several": func(i int) int { return i / 2 },
	} {
		t.Run(name, func(t *testing.T) { oneState(t, index) })
	}
}

func oneState(t *testing.T, index func(int) int) {
	live, left := &changing{}, 0
	f := Facts{Live: live, Left: func(*Limit) (float64, bool) { left++; return 1 / float64(left), true }}
	var pools []*Pool
	for i := range 40 {
		pools = append(pools, &Pool{Name: "p", Index: index(i)})
	}
	month, day := &Limit{Name: "month"}, &Limit{Name: "day"}
	for range 3 {
		for i, p := range pools {
			if s := f.Pool(p); s.Pool != p || s.Waiting != float64(i+1) || !s.Known {
				t.Fatalf("pool %d: %+v", i, s)
			}
		}
		if a, b := f.Limit(month).Left, f.Limit(day).Left; a != 1 || b != 0.5 {
			t.Fatalf("limits: %v, %v", a, b)
		}
	}
	if live.reads != len(pools) || left != 2 {
		t.Errorf("pools were read %d times, limits %d times", live.reads, left)
	}
	s := f.Seen.Emptied()
	if len(s.Pools)+len(s.Limits) != 0 || cap(s.Pools) < len(pools) {
		t.Errorf("emptied: %d pools, room for %d", len(s.Pools), cap(s.Pools))
	}
	again := Facts{Live: live, Seen: &s}
	if is := again.Pool(pools[7]); is.Waiting != float64(len(pools)+1) {
		t.Errorf("the next request reads %v", is.Waiting)
	}
}

func TestNothingIsKnown(t *testing.T) {
	f := Facts{}
	if s := f.Pool(&Pool{Endpoints: make([]Endpoint, 3)}); s.Known || s.Healthy != 3 {
		t.Errorf("%+v", s)
	}
	if l := f.Limit(&Limit{}); l.Known || l.Left != 1 {
		t.Errorf("%+v", l)
	}
}

// Rules that read a hundred pools, twice each.
func BenchmarkSeenOfHundredPools(b *testing.B) {
	var pools []*Pool
	for i := range 100 {
		pools = append(pools, &Pool{Name: "p", Index: i})
	}
	f := Facts{Live: &changing{}, Seen: new(Seen)}
	b.ReportAllocs()
	for b.Loop() {
		*f.Seen = f.Seen.Emptied()
		for range 2 {
			for _, p := range pools {
				f.Pool(p)
			}
		}
	}
}
