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
	live, left := &changing{}, 0
	f := Facts{Live: live, Left: func(*Limit) (float64, bool) { left++; return 1 / float64(left), true }}
	var pools []*Pool
	for range 40 {
		pools = append(pools, &Pool{Name: "p"})
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
	if s := f.Seen.Emptied(); len(s.Pools)+len(s.Limits) != 0 || cap(s.Pools) < len(pools) {
		t.Errorf("emptied: %d pools, room for %d", len(s.Pools), cap(s.Pools))
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
