package usage

import (
	"context"
	"errors"
	"iter"
	"time"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store"
)

// pending is a decision that waits for its entry.
type pending struct {
	id         ID
	decision   *usagev1.Decision
	segment    uint64 // where it lies in the spool, which is held for it
	deadline   time.Time
	prev, next *pending
}

// pendingList finds pending decisions by id and keeps them in the order in which
// they came, which is nearly that of their deadlines.
type pendingList struct {
	byID    map[ID]*pending
	changed func(d *usagev1.Decision, delta int) // may be nil
	root    pending                              // root.next is the oldest
}

func (l *pendingList) init() {
	l.byID = map[ID]*pending{}
	l.root.prev, l.root.next = &l.root, &l.root
}

func (l *pendingList) len() int            { return len(l.byID) }
func (l *pendingList) find(id ID) *pending { return l.byID[id] }

func (l *pendingList) add(p *pending) {
	l.byID[p.id] = p
	l.link(p)
	l.tell(p, 1)
}

func (l *pendingList) link(p *pending) {
	p.prev, p.next = l.root.prev, &l.root
	p.prev.next, l.root.prev = p, p
}

func (l *pendingList) unlink(p *pending) {
	p.prev.next, p.next.prev = p.next, p.prev
	p.prev, p.next = nil, nil
}

func (l *pendingList) remove(p *pending) {
	delete(l.byID, p.id)
	l.unlink(p)
	l.tell(p, -1)
}

func (l *pendingList) tell(p *pending, delta int) {
	if l.changed != nil {
		l.changed(p.decision, delta)
	}
}

// renew gives p a new deadline and makes it the youngest.
func (l *pendingList) renew(p *pending, deadline time.Time) {
	p.deadline = deadline
	l.unlink(p)
	l.link(p)
}

// all yields from the oldest to the youngest.
func (l *pendingList) all() iter.Seq[*pending] {
	return func(yield func(*pending) bool) {
		for p := l.root.next; p != &l.root; p = p.next {
			if !yield(p) {
				return
			}
		}
	}
}

// recentIDs remembers the ids of events lately written, at least generation and
// at most twice as many, and whether their deadline closed them.
type recentIDs struct{ young, old map[ID]bool }

const generation = 1 << 16

func (s *recentIDs) add(id ID, late bool) {
	if len(s.young) >= generation {
		s.old, s.young = s.young, nil
	}
	if s.young == nil {
		s.young = make(map[ID]bool)
	}
	s.young[id] = late
}

func (s *recentIDs) has(id ID) bool {
	_, ok := s.lookup(id)
	return ok
}

func (s *recentIDs) lookup(id ID) (late, ok bool) {
	if late, ok = s.young[id]; !ok {
		late, ok = s.old[id]
	}
	return late, ok
}

func (s *recentIDs) remove(id ID) {
	delete(s.young, id)
	delete(s.old, id)
}

func (r *Recorder) deadlineLoop(ctx context.Context) {
	tick := time.NewTicker(min(time.Second, r.opt.Deadline/4+time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.closeExpired(ctx)
		}
	}
}

// closeExpired closes the decisions whose deadline has passed. It waits while
// entries of the time when weir was down may still come.
func (r *Recorder) closeExpired(ctx context.Context) {
	now := r.opt.Now()
	if now.Before(r.opened.Add(r.opt.Grace)) || r.catching.Load() > 0 {
		return
	}
	r.taking.Lock()
	defer r.taking.Unlock()
	var events []*usagev1.Event
	for _, d := range r.expiredAt(now) {
		// A spool that was damaged may show as open what is stored already.
		if _, err := r.opt.Store.Event(ctx, d.GetId()); err == nil {
			r.forget(d)
			continue
		}
		events = append(events, expired(d, now))
	}
	if err := r.close(events, nil, true); err != nil {
		r.opt.Logger.Error("usage events cannot be journalled", "error", err)
	}
}

// atOnce bounds how many decisions are closed by one write.
const atOnce = 1000

func (r *Recorder) expiredAt(now time.Time) []*usagev1.Decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*usagev1.Decision
	for p := range r.pending.all() {
		// Deadlines are nearly in order: a little slack finds those that are not.
		if p.deadline.After(now.Add(time.Minute)) || len(list) == atOnce {
			break
		}
		if !p.deadline.After(now) {
			list = append(list, p.decision)
		}
	}
	return list
}

// forget drops a pending decision whose event exists.
func (r *Recorder) forget(d *usagev1.Decision) {
	id, _ := ParseID(d.GetId())
	r.mu.Lock()
	if p := r.pending.find(id); p != nil {
		r.pending.remove(p)
		r.done.add(id, true)
		r.log.Release(p.segment)
	}
	r.mu.Unlock()
	if r.opt.Settler != nil {
		r.opt.Settler.Forget(d.GetId())
	}
	r.metrics.drop(dropStored)
}

// stored tells whether the store has the event, and whether its deadline closed
// it. A store that cannot be asked is taken to say no: it will pass over what it
// has already.
func (r *Recorder) stored(ctx context.Context, id ID) (late, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	e, err := r.opt.Store.Event(ctx, id.String())
	if err != nil {
		if !errors.Is(err, store.ErrNotFound) {
			r.metrics.storeFailed.Inc()
		}
		return false, false
	}
	return e.GetOutcome() == OutcomeUnknown, true
}
