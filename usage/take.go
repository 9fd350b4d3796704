package usage

import (
	"context"
	"time"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/spool"
)

// Entry takes what Envoy logged about one request and closes its decision. An
// entry may come twice, late or in any order. An error means that nothing was
// taken: it may be given again.
func (r *Recorder) Entry(ctx context.Context, e Entry) error {
	return r.take(ctx, []Entry{e}, nil)
}

// withdraw closes an admitted request whose answer never left weir: Envoy did
// not wait for it, and its entry will not know the decision. It used nothing.
func (r *Recorder) withdraw(id ID) error {
	r.taking.Lock()
	defer r.taking.Unlock()
	r.mu.Lock()
	p := r.pending.find(id)
	r.mu.Unlock()
	if p == nil {
		return nil
	}
	return r.close([]*usagev1.Event{withdrawn(p.decision, r.opt.Now())}, nil, false)
}

// take closes what the entries close and journals, with the events and after
// them, how far the file they come from was read.
func (r *Recorder) take(ctx context.Context, entries []Entry, at *position) error {
	r.taking.Lock()
	defer r.taking.Unlock()
	events := make([]*usagev1.Event, 0, len(entries))
	seen := make(map[ID]bool, len(entries))
	for i := range entries {
		e := &entries[i]
		ev, id := r.eventOf(ctx, e)
		switch {
		case ev == nil:
		case seen[id]:
			r.metrics.drop(dropDuplicate)
		default:
			seen[id] = true
			events = append(events, ev)
		}
	}
	if len(events) == 0 && at == nil {
		return nil
	}
	return r.close(events, at, false)
}

// eventOf makes the event that an entry closes, or none.
func (r *Recorder) eventOf(ctx context.Context, e *Entry) (*usagev1.Event, ID) {
	id := e.Digest
	if e.ID != nil {
		id = *e.ID
	}
	r.mu.Lock()
	p := r.pending.find(id)
	late, known := r.done.lookup(id)
	if p != nil && e.Periodic {
		r.pending.renew(p, r.opt.Now().Add(r.opt.Deadline))
	}
	r.mu.Unlock()
	switch {
	case e.Periodic:
		return nil, id
	case p != nil:
		return closed(p.decision, e), id
	case e.isProbe():
		r.metrics.drop(dropProbe)
		return nil, id
	case e.ID == nil && !e.Bypass && e.clientGone():
		// It left before weir was asked: neither admitted nor refused.
		r.metrics.drop(dropUndecided)
		return nil, id
	}
	if !known {
		late, known = r.stored(ctx, id)
	}
	if known {
		why := dropDuplicate
		if late {
			why = dropLate
		}
		r.metrics.drop(why)
		return nil, id
	}
	if e.Bypass {
		r.alarm(e)
		return bypass(id, e), id
	}
	if e.ID != nil {
		r.metrics.orphans.Inc()
	}
	return orphan(id, e), id
}

// bypassLogEvery bounds how often the log tells of bypasses: whoever can make one
// can make many.
const bypassLogEvery = time.Second

// alarm tells of a request that came past weir. It is called with taking
// held.
func (r *Recorder) alarm(e *Entry) {
	r.metrics.bypasses.Inc()
	now := r.opt.Now()
	if now.Sub(r.toldBypass) < bypassLogEvery {
		return
	}
	r.toldBypass = now
	r.opt.Logger.Error("a request came past weir: some route or listener of Envoy leads to a pool without ext_proc",
		"cluster", e.Cluster, "status", e.Status, "details", e.Details)
}

// close journals events, with a position behind them, in one write; then it
// settles them. It is called with taking held.
func (r *Recorder) close(events []*usagev1.Event, at *position, late bool) error {
	buf := frames.Get().(*[]byte)
	defer frames.Put(buf)
	b := (*buf)[:0]
	kept, offsets := events[:0], make([]int64, 0, len(events))
	for _, e := range events {
		next, err := appendFrame(b, kindEvent, e)
		if err != nil { // its text is not UTF-8, or it is too large
			r.metrics.drop(dropGarbled)
			r.opt.Logger.Warn("a usage event cannot be written", "id", e.GetDecision().GetId(), "error", err)
			continue
		}
		kept, offsets = append(kept, e), append(offsets, int64(len(b)))
		b = next
	}
	if at != nil {
		b = at.appendFrame(b)
	}
	if cap(b) <= 1<<20 {
		*buf = b
	}
	if len(b) == 0 {
		return nil
	}
	first, err := r.log.Append(b, 0)
	if err != nil {
		return err
	}
	if at != nil {
		r.setPosition(*at)
	}
	for i, e := range kept {
		r.markClosed(e, late)
		r.written(e, spool.Position{Segment: first.Segment, Offset: first.Offset + offsets[i]}, true)
	}
	return nil
}

func (r *Recorder) markClosed(e *usagev1.Event, late bool) {
	id, err := ParseID(e.GetDecision().GetId())
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.add(id, late)
	if p := r.pending.find(id); p != nil {
		r.pending.remove(p)
		r.log.Release(p.segment)
	}
}

// carryForward writes the decisions of the oldest segment that are still open
// into the newest one, so that a request that runs for long does not keep all
// segments behind it.
func (r *Recorder) carryForward(seg uint64) error {
	r.taking.Lock() // no event may be written between, or its decision could outlive it
	defer r.taking.Unlock()
	for _, p := range r.pendingIn(seg) {
		next, err := r.append(kindDecision, p.decision, 1)
		if err != nil {
			return err
		}
		r.mu.Lock()
		p.segment = next.Segment
		r.mu.Unlock()
		r.log.Release(seg)
	}
	return nil
}

func (r *Recorder) pendingIn(seg uint64) []*pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*pending
	for p := range r.pending.all() {
		if p.segment == seg {
			list = append(list, p)
		}
	}
	return list
}

// positionFrames stand at the beginning of each segment of the spool.
func (r *Recorder) positionFrames() []byte {
	r.posMu.Lock()
	defer r.posMu.Unlock()
	var b []byte
	for _, p := range r.positions {
		b = p.appendFrame(b)
	}
	return b
}

func (r *Recorder) setPosition(p position) {
	r.posMu.Lock()
	defer r.posMu.Unlock()
	r.positions[p.Path] = p
}
