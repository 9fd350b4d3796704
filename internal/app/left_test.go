package app

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

func TestLeftHere(t *testing.T) {
	ledger := limit.New(time.Now)
	month := &plan.Limit{Name: "month", Unit: plan.UnitRequests, Amount: 10, Window: time.Hour, PerTeam: true}
	other := &plan.Limit{Name: "other", Unit: plan.UnitRequests, Amount: 10, Window: time.Hour, Teams: map[string]bool{"others": true}}
	ex := &pipeline.Exchange{Principal: ai.Principal{Team: "research"}, Decision: pipeline.Decision{Model: &plan.Model{Name: "m"}}}
	left := leftHere(ledger)
	if part, ok := left(month, ex); !ok || part != 1 {
		t.Errorf("of what nobody used: %v, %v", part, ok)
	}
	for i := range 4 {
		ledger.Reserve([]*plan.Limit{month}, &limit.Request{ID: string(rune('a' + i)), Principal: ex.Principal, Model: "m"})
	}
	if part, ok := left(month, ex); !ok || part != 0.6 {
		t.Errorf("after four of ten: %v, %v", part, ok)
	}
	if _, ok := left(other, ex); ok {
		t.Error("a limit that does not count the caller is known")
	}
}

// slowStore answers when it is let.
type slowStore struct {
	let   chan int64
	asked atomic.Int64
}

func (s *slowStore) States(limits []*plan.Limit, _ *limit.Request) []limit.State {
	s.asked.Add(1)
	return []limit.State{{Limit: limits[0], Left: <-s.let}}
}

// What a store says late is gone by later, and nobody waits for it.
func TestLeftThere(t *testing.T) {
	store := &slowStore{let: make(chan int64)}
	there := newLeftThere(store)
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	there.now = func() time.Time { return now }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = there.run(ctx) }()
	defer func() { cancel(); close(store.let); <-done }()
	month := &plan.Limit{Name: "month", Unit: plan.UnitRequests, Amount: 100, Window: time.Hour}
	ex := &pipeline.Exchange{Principal: ai.Principal{Team: "research"}, Decision: pipeline.Decision{Model: &plan.Model{Name: "m"}}}

	for range 10 {
		if part, ok := there.left(month, ex); ok {
			t.Fatalf("known before anybody answered: %v", part)
		}
	}
	store.let <- 40
	heard := func() (part float64, ok bool) {
		for range 500 {
			if part, ok = there.left(month, ex); ok {
				return part, ok
			}
			time.Sleep(time.Millisecond)
		}
		return part, ok
	}
	if part, ok := heard(); !ok || part != 0.4 {
		t.Fatalf("after the answer: %v, %v", part, ok)
	}
	if n := store.asked.Load(); n != 1 {
		t.Errorf("asked %d times within half a second", n)
	}
	there.mu.Lock()
	now = now.Add(leftTrusted + time.Second)
	there.mu.Unlock()
	if _, ok := there.left(month, ex); ok {
		t.Error("an answer of long ago is gone by")
	}
	store.let <- 10
	if part, ok := heard(); !ok || part != 0.1 {
		t.Errorf("after the second answer: %v, %v", part, ok)
	}
}

// sometimes is a store that answers, or not.
type sometimes struct{ left int64 }

func (s *sometimes) States(limits []*plan.Limit, _ *limit.Request) []limit.State {
	if s.left < 0 {
		return nil
	}
	return []limit.State{{Limit: limits[0], Left: s.left}}
}

// A look that fails forgets nothing; what is known is given up when it is old.
func TestLeftThereOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &sometimes{left: 40}
		there := newLeftThere(store)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = there.run(ctx) }()
		defer func() { cancel(); <-done }()
		month := &plan.Limit{Name: "month", Unit: plan.UnitRequests, Amount: 100, Window: time.Hour}
		ex := &pipeline.Exchange{Principal: ai.Principal{Team: "research"}, Decision: pipeline.Decision{Model: &plan.Model{Name: "m"}}}
		look := func(after time.Duration) (float64, bool) {
			time.Sleep(after)
			there.left(month, ex) // asks
			synctest.Wait()
			return there.left(month, ex)
		}
		if part, ok := look(0); !ok || part != 0.4 {
			t.Errorf("%v, %v", part, ok)
		}
		store.left = -1
		if part, ok := look(time.Second); !ok || part != 0.4 {
			t.Errorf("after a look that failed: %v, %v", part, ok)
		}
		if part, ok := look(leftTrusted); ok {
			t.Errorf("after %v without an answer: %v", leftTrusted, part)
		}
	})
}

// What nobody asks for any more makes room first.
func TestLeftThereRoom(t *testing.T) {
	there := newLeftThere(&sometimes{})
	now := time.Now()
	for i := range leftKept {
		asked := now
		if i%4 == 0 {
			asked = now.Add(-2 * leftTrusted)
		}
		there.known[strconv.Itoa(i)] = leftAnswer{part: 1, ok: true, at: asked, asked: asked}
	}
	there.forget(now)
	if n := len(there.known); n != leftKept*3/4 {
		t.Errorf("%d are left of %d", n, leftKept)
	}
	for i := range leftKept {
		there.known[strconv.Itoa(i)] = leftAnswer{asked: now}
	}
	there.forget(now)
	if n := len(there.known); n != leftKept-1 {
		t.Errorf("%d are left where all are in use", n)
	}
}
