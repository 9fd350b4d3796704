package plan

import (
	"math"
	"time"
)

// Seen is what conditions have read of live facts for one request, in the order in
// which they did. Each is read once: whatever changes meanwhile, one request is judged by
// one state.
type Seen struct {
	Pools  []PoolSeen
	Limits []LimitSeen
	// at is, by the index of a pool, where it stands in Pools, from 1; 0: not yet.
	at []uint16
}

// PoolSeen is the state of a pool when a condition first read it.
type PoolSeen struct {
	PoolState
	Pool     *Pool
	Now      time.Time
	Followed bool // somebody follows the pool; otherwise the state is made up
	Known    bool // the backends' load is known, and not stale
}

// LimitSeen is what was left of a limit when a condition first read it.
type LimitSeen struct {
	Limit *Limit
	Left  float64 // 0 to 1; 1 where it is not known
	Known bool
}

// Reading is one live fact as a condition names it, with what it read.
type Reading struct {
	Name  string        // as pools["local"].waiting
	Value any           // int64, float64 or bool
	Known bool          // it was measured; otherwise the value is what stands for not known
	Age   time.Duration // since the backends said so; 0 where nobody says when
}

// Reader is a condition that can tell what live facts it read. Not every one can.
type Reader interface {
	Read(*Seen) []Reading
}

// Emptied keeps the memory alone.
func (s *Seen) Emptied() Seen {
	for i := range s.Pools {
		if at := s.Pools[i].Pool.Index; at < len(s.at) {
			s.at[at] = 0
		}
	}
	return Seen{Pools: s.Pools[:0], Limits: s.Limits[:0], at: s.at}
}

// pool finds a pool that was read; nil if it was not.
func (s *Seen) pool(p *Pool) *PoolSeen {
	if p.Index >= len(s.at) || s.at[p.Index] == 0 {
		return nil
	}
	if first := &s.Pools[s.at[p.Index]-1]; first.Pool == p {
		return first
	}
	for i := range s.Pools { // two pools that are of no plan, or not of one
		if s.Pools[i].Pool == p {
			return &s.Pools[i]
		}
	}
	return nil
}

func (s *Seen) addPool(seen PoolSeen) *PoolSeen {
	s.Pools = append(s.Pools, seen)
	i := seen.Pool.Index
	if i >= len(s.at) {
		s.at = append(s.at, make([]uint16, i+1-len(s.at))...)
	}
	if n := len(s.Pools); s.at[i] == 0 && n <= math.MaxUint16 {
		s.at[i] = uint16(n)
	}
	return &s.Pools[len(s.Pools)-1]
}

// Pool is the state of a pool. It is good until the next call.
func (f *Facts) Pool(p *Pool) *PoolSeen {
	s := f.seen()
	if is := s.pool(p); is != nil {
		return is
	}
	is := s.addPool(PoolSeen{Pool: p, Now: f.Now})
	if f.Live != nil {
		if state, ok := f.Live.Pool(p.Name); ok {
			is.PoolState, is.Followed, is.Known = state, true, !state.Heard.IsZero() && !state.Stale
			return is
		}
	}
	is.PoolState = PoolState{Endpoints: len(p.Endpoints), Healthy: len(p.Endpoints)}
	return is
}

// Limit is what is left of a limit. All is taken to be left where that is not known: the
// limit itself sees to it that it is kept. It is good until the next call.
func (f *Facts) Limit(l *Limit) *LimitSeen {
	s := f.seen()
	for i := range s.Limits {
		if s.Limits[i].Limit == l {
			return &s.Limits[i]
		}
	}
	is := LimitSeen{Limit: l, Left: 1}
	if f.Left != nil {
		if part, ok := f.Left(l); ok {
			is.Left, is.Known = part, true
		}
	}
	s.Limits = append(s.Limits, is)
	return &s.Limits[len(s.Limits)-1]
}

func (f *Facts) seen() *Seen {
	if f.Seen == nil {
		f.Seen = new(Seen)
	}
	return f.Seen
}
