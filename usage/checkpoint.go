package usage

import (
	"context"
	"io"
	"time"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/spool"
)

// Checkpoint calls fn with a place in the journal such that each event before it
// has been settled, and none behind it. No event is closed meanwhile: fn must be
// quick.
func (r *Recorder) Checkpoint(fn func(at spool.Position)) {
	r.taking.Lock()
	defer r.taking.Unlock()
	fn(r.log.End())
}

// Lost says that no entry comes any more of requests that were decided before: their
// Envoy is no more. They are closed as soon as its log was read to the end, and not
// only at their deadline.
func (r *Recorder) Lost(before time.Time) {
	const read = 2 * time.Second // for the rest of the log
	r.mu.Lock()
	defer r.mu.Unlock()
	soon := r.opt.Now().Add(read)
	for p := range r.pending.all() {
		if p.decision.GetTime().AsTime().Before(before) && p.deadline.After(soon) {
			p.deadline = soon
		}
	}
}

// Keep keeps what is journalled from this segment on, even when it is stored: what
// somebody else has yet to count. Without it, nothing is kept for that.
func (r *Recorder) Keep(segment uint64) { r.keep.Store(segment) }

// kept tells whether a segment is kept for somebody else.
func (r *Recorder) kept(segment uint64) bool {
	from := r.keep.Load()
	return from != 0 && segment >= from
}

// After calls fn with each event behind a place in the journal, as Checkpoint gave
// it. It is false, and calls nothing, when the journal does not reach back to it.
func (r *Recorder) After(at spool.Position, fn func(*usagev1.Event) error) (bool, error) {
	if at.Segment < r.log.Segments()[0] {
		return false, nil
	}
	return true, r.between(at, r.log.End(), fn)
}

// between calls fn with each event between two places in the journal.
func (r *Recorder) between(from, to spool.Position, fn func(*usagev1.Event) error) error {
	rd := r.log.NewReader(from)
	defer func() { _ = rd.Close() }() // it was read only
	return r.eachRecord(rd, func(kind byte, payload []byte) error {
		if at := rd.Last(); at.Segment > to.Segment || at.Segment == to.Segment && at.Offset >= to.Offset {
			return io.EOF
		}
		if e := r.decodeEvent(kind, payload); e != nil {
			return fn(e)
		}
		return nil
	})
}

// Recent calls fn with each event that ended within the window before now, those
// of the store first, and returns the place in the journal up to which it did.
func (r *Recorder) Recent(ctx context.Context, window time.Duration, fn func(*usagev1.Event) error) (spool.Position, error) {
	return r.sink.recent(ctx, r.opt.Now().Add(-window), fn)
}
