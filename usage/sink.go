package usage

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/spool"
	"github.com/weirproxy/weir/usage/store"
)

// sink carries events from the spool into the store, in the order of the spool,
// and lets segments go that are stored. What cannot be stored stays in the
// spool.
type sink struct {
	r    *Recorder
	work chan struct{}
	// waiting is when the oldest event that is not stored was written, in
	// nanoseconds since the epoch; 0 when all are stored.
	waiting atomic.Int64
	fresh   fresh

	mu     sync.Mutex // guards what follows, and the store's Writer
	reader *spool.Reader
	stored spool.Position // all before it is stored
	// Memory of a batch, used again: the events, and their encodings.
	events   []store.Record
	payloads []byte
}

const (
	storeAtOnce = 1000 // events in one transaction
	maxBackoff  = 10 * time.Second
	// Above so many segments, decisions that stay open are carried forward.
	maxSegments = 4
	// What is kept for the next batch of the memory of one, in bytes.
	maxPayloads = 4 << 20
)

func newSink(r *Recorder) *sink { return &sink{r: r, work: make(chan struct{}, 1)} }

// wake tells the sink that there is an event to store.
func (s *sink) wake() {
	if s.waiting.Load() == 0 {
		s.waiting.CompareAndSwap(0, s.r.opt.Now().UnixNano())
	}
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// lag is for how long the oldest event that is not stored has waited.
func (s *sink) lag() time.Duration {
	if since := s.waiting.Load(); since != 0 {
		return max(0, s.r.opt.Now().Sub(time.Unix(0, since)))
	}
	return 0
}

// StoreLag is how long the oldest event that is not stored yet has waited.
func (r *Recorder) StoreLag() time.Duration { return r.sink.lag() }

func (s *sink) run(ctx context.Context) {
	wait := s.r.opt.FlushEvery
	for {
		if err := s.flush(ctx); err == nil {
			wait = s.r.opt.FlushEvery
			select {
			case <-ctx.Done():
				return
			case <-s.work:
			}
		} else if ctx.Err() == nil {
			s.r.metrics.storeFailed.Inc()
			s.r.opt.Logger.Error("usage events cannot be stored yet", "error", err, "retry_in", wait)
			wait = min(2*wait, maxBackoff)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// flush stores all events that are in the spool.
func (s *sink) flush(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := s.waiting.Swap(0)
	err := s.drain(ctx)
	if err != nil {
		if since == 0 {
			since = s.r.opt.Now().UnixNano()
		}
		s.waiting.Store(since)
		s.forgetReader()
		return err
	}
	return s.trim(ctx)
}

// forgetReader makes the next flush read again from what is stored.
func (s *sink) forgetReader() {
	if s.reader != nil {
		_ = s.reader.Close() // it was read only
		s.reader = nil
	}
}

func (s *sink) drain(ctx context.Context) error {
	if err := s.seek(ctx); err != nil {
		return err
	}
	for {
		events, err := s.read(storeAtOnce)
		if err != nil {
			return err
		}
		at := s.reader.Position()
		s.fresh.forget(at)
		if len(events) > 0 {
			added, err := s.r.opt.Store.Write(ctx, events, store.Cursor(at))
			if err != nil {
				return err
			}
			clear(events)
			s.r.metrics.stored.Add(float64(added))
			s.r.metrics.storedTwice.Add(float64(len(events) - added))
		}
		s.stored = at
		if len(events) < storeAtOnce {
			return nil
		}
	}
}

// seek begins where the store says that it is.
func (s *sink) seek(ctx context.Context) error {
	if s.reader != nil {
		return nil
	}
	c, err := s.r.opt.Store.Cursor(ctx)
	if err != nil {
		return err
	}
	if at := spool.Position(c); at.Segment > s.stored.Segment || at.Segment == s.stored.Segment && at.Offset > s.stored.Offset {
		s.stored = at
	}
	// A cursor behind the spool's end is that of a spool that is no more.
	segs := s.r.log.Segments()
	if s.stored.Segment > segs[len(segs)-1] {
		s.stored = spool.Position{}
	}
	s.reader = s.r.log.NewReader(s.stored)
	return nil
}

// read returns the next events, at most limit, fewer when the spool has no more.
func (s *sink) read(limit int) ([]store.Record, error) {
	events := s.events[:0]
	if s.payloads = s.payloads[:0]; cap(s.payloads) > maxPayloads {
		s.payloads = nil
	}
	defer func() { s.events = events }()
	for len(events) < limit {
		kind, payload, err := s.reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if kind != kindEvent {
			continue
		}
		e := s.fresh.take(s.reader.Last())
		if e == nil {
			if e = s.r.decodeEvent(kind, payload); e == nil {
				continue
			}
		}
		n := len(s.payloads)
		s.payloads = append(s.payloads, payload...) // earlier ones stay where they are
		events = append(events, store.Record{Event: e, Encoded: s.payloads[n:]})
	}
	return events, nil
}

// decodeEvent is the event of a record, nil where it holds none.
func (r *Recorder) decodeEvent(kind byte, payload []byte) *usagev1.Event {
	if kind != kindEvent {
		return nil
	}
	e := &usagev1.Event{}
	if err := proto.Unmarshal(payload, e); err != nil {
		r.metrics.drop(dropGarbled)
		return nil
	}
	return e
}

// trim removes the oldest segments while all their events are stored and none of
// their decisions is open. Both logs are synced first: from then on the store is
// the only place where these events are.
func (s *sink) trim(ctx context.Context) error {
	log := s.r.log
	segs := log.Segments()
	for i, seg := range segs[:len(segs)-1] {
		if seg >= s.stored.Segment || s.r.kept(seg) {
			return nil
		}
		if log.Holds(seg) > 0 {
			if len(segs)-i <= maxSegments {
				return nil
			}
			if err := s.r.carryForward(seg); err != nil {
				return err
			}
			if log.Holds(seg) > 0 {
				return nil // a decision that is being taken in just now
			}
		}
		if err := errors.Join(s.r.opt.Store.Sync(ctx), log.Sync()); err != nil {
			return err
		}
		if err := log.Remove(seg); err != nil {
			return err
		}
	}
	return nil
}

// recent yields the events that ended at t or later: those stored, then those
// that are not, up to the place in the journal that it returns.
func (s *sink) recent(ctx context.Context, t time.Time, fn func(*usagev1.Event) error) (end spool.Position, err error) {
	s.mu.Lock() // nothing is stored meanwhile, so the store holds nothing behind the place
	defer s.mu.Unlock()
	if err := s.seek(ctx); err != nil {
		return end, err
	}
	s.r.Checkpoint(func(at spool.Position) { end = at })
	if err := s.r.opt.Store.Since(ctx, t, fn); err != nil {
		return end, err
	}
	return end, s.r.between(s.stored, end, func(e *usagev1.Event) error {
		if e.GetEnd().AsTime().Before(t) {
			return nil
		}
		return fn(e)
	})
}

// trimAtOnce bounds a step of deletion, so that storing waits for a short time
// only.
const trimAtOnce = 1000

func (r *Recorder) retentionLoop(ctx context.Context) {
	if r.opt.Retention <= 0 {
		return
	}
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if err := r.sink.deleteOld(ctx); err != nil && ctx.Err() == nil {
			r.metrics.storeFailed.Inc()
			r.opt.Logger.Error("old usage events cannot be deleted", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *sink) deleteOld(ctx context.Context) error {
	before := s.r.opt.Now().Add(-s.r.opt.Retention)
	for {
		s.mu.Lock()
		n, err := s.r.opt.Store.Trim(ctx, before, trimAtOnce)
		s.mu.Unlock()
		if err != nil || n < trimAtOnce {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *sink) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetReader()
	return nil
}
