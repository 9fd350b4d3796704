// Package usage keeps the record of every request: it journals each decision
// before the answer leaves weir, closes it with Envoy's access log entry, and
// carries the events into a store. It settles reservations; it never decides
// about a request.
//
// An event is written once. Whatever comes for its id afterwards (the entry
// again, an entry after the deadline, the decision after its entry) is counted
// and passed over.
package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/spool"
	"github.com/weirproxy/weir/usage/store"
)

// Settler replaces a request's reservation by what its event says was used; an
// event with the outcome unknown says that nobody knows. Settling an unknown id,
// or twice, must do nothing.
type Settler interface {
	Settle(e *usagev1.Event)
	// Forget gives back what is held for a request whose event was settled before.
	Forget(id string)
}

// Options are what a Recorder is made of.
type Options struct {
	Dir       string               // the spool's folder; made when absent
	Store     store.Store          // where events end; the caller closes it, after the recorder
	Settler   Settler              // may be nil
	Now       func() time.Time     // default: time.Now
	Deadline  time.Duration        // after which an open decision is closed; default 15 min
	Retention time.Duration        // of single events in the store; 0 keeps them
	OnEvent   func(*usagev1.Event) // called for each event, one at a time, by Run; may be nil
	OnSettled func(*usagev1.Event) // called for each event of an admitted request; must be quick; may be nil
	// OnPending is called with 1 for each decision of an admitted request that is open
	// from now on, those of before a restart too, and with -1 when it no longer is. Must
	// be quick; may be nil.
	OnPending func(d *usagev1.Decision, delta int)
	// HandOn gives an entry of the gRPC access log to the replica that the id names; it
	// is false when that is this one. Must be quick; may be nil: there are no others.
	HandOn func(id ID, entry func() ([]byte, error)) bool
	Logger *slog.Logger // default: slog.Default()

	// Grace is for how long after Open no decision is closed by its deadline, so
	// that entries of the time when weir was down can come; default 10 s.
	Grace time.Duration
	// FlushEvery is how long an event waits to be stored, so that several are
	// stored together; default 200 ms.
	FlushEvery time.Duration
	// SyncEvery is how often the spool is synced: what a power failure may lose;
	// default 200 ms.
	SyncEvery time.Duration
	// SegmentBytes is the size of a spool segment; default 16 MiB.
	SegmentBytes int64
	// MaxLogBytes is the size at which Envoy's access log file is rotated;
	// default 64 MiB.
	MaxLogBytes int64
}

func (o *Options) fill() {
	set(&o.Deadline, 15*time.Minute)
	set(&o.Grace, 10*time.Second)
	set(&o.FlushEvery, 200*time.Millisecond)
	set(&o.SyncEvery, 200*time.Millisecond)
	set(&o.MaxLogBytes, 64<<20)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

func set[T time.Duration | int64](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// The kinds of records in the spool.
const (
	kindDecision byte = 'd' // usagev1.Decision: an admitted request, open
	kindEvent    byte = 'e' // usagev1.Event: closed
	kindPosition byte = 'p' // a tailer's position, JSON
)

// Recorder is the life of usage events, from decision to store. Its methods are
// safe for concurrent use.
type Recorder struct {
	opt     Options
	log     *spool.Log
	sink    *sink
	metrics *metrics
	notify  chan *usagev1.Event
	opened  time.Time

	mu      sync.Mutex // guards pending and done
	pending pendingList
	done    recentIDs

	// taking is held by whoever closes decisions: one at a time, so that an
	// event is in the spool before anybody else may find its decision open.
	taking     sync.Mutex
	toldBypass time.Time // when the log told last of a bypass; guarded by taking

	posMu     sync.Mutex
	positions map[string]position // by the path of the file
	keep      atomic.Uint64       // from this segment on the journal is kept; 0 for none
	catching  atomic.Int32        // tailers that have not read up to the end once
	quiet     time.Duration       // how long a replaced log file must be so
}

// Open reads back what the spool holds. Decisions without an event are pending
// again. The recorder works once Run runs.
func Open(opt Options) (*Recorder, error) {
	opt.fill()
	if opt.Store == nil {
		return nil, errors.New("usage: no store")
	}
	r := &Recorder{
		opt:       opt,
		notify:    make(chan *usagev1.Event, 1024),
		positions: map[string]position{},
		opened:    opt.Now(),
		quiet:     settleAfter,
	}
	r.pending.init()
	r.pending.changed = opt.OnPending
	r.metrics = newMetrics(r)
	log, err := spool.Open(opt.Dir, spool.Options{SegmentBytes: opt.SegmentBytes, Head: r.positionFrames, Now: opt.Now})
	if err != nil {
		return nil, err
	}
	r.log = log
	r.sink = newSink(r)
	if err := r.replay(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	// The new segment must not depend on the older ones for what was read.
	if _, err := log.Append(r.positionFrames(), 0); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if d := log.Damage(); d != (spool.Damage{}) {
		opt.Logger.Warn("usage spool was damaged", "torn_bytes", d.Torn, "corrupt_bytes", d.Corrupt)
	}
	return r, nil
}

// Run does the work that no request waits for, until ctx ends: it stores events,
// syncs the spool, closes decisions at their deadline, deletes what is past its
// retention, and calls OnEvent.
func (r *Recorder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { r.syncLoop(ctx) })
	wg.Go(func() { r.deadlineLoop(ctx) })
	wg.Go(func() { r.notifyLoop(ctx) })
	wg.Go(func() { r.sink.run(ctx) })
	wg.Go(func() { r.retentionLoop(ctx) })
	wg.Wait()
	return nil
}

// Close stores what it can within a few seconds and closes the spool; the rest
// is stored after the next Open. Run must have returned. Nothing may be recorded
// afterwards.
func (r *Recorder) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r.notifyRest()
	if err := r.sink.flush(ctx); err != nil {
		r.opt.Logger.Warn("usage events stay in the spool", "error", err)
	}
	return errors.Join(r.sink.close(), r.log.Close())
}

var frames = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// maxRequestedModel bounds what is kept of the model name that a client wrote.
const maxRequestedModel = 256

// Decided journals a decision: when it returns nil, a death of the process does
// not lose it. A refusal, or an answer of weir's own, is a complete event. A
// request whose decision could not be journalled must not be admitted. A refusal
// with the id of an admitted request that is open withdraws that one: its answer
// never left, it used nothing. The decision is the recorder's from then on; a
// longer requested_model than 256 bytes is cut.
func (r *Recorder) Decided(d *usagev1.Decision) error {
	id, err := ParseID(d.GetId())
	if err != nil {
		return err
	}
	if len(d.GetRequestedModel()) > maxRequestedModel {
		d.RequestedModel = clip(d.GetRequestedModel(), maxRequestedModel)
	}
	if d.GetVerdict() != VerdictAllowed || len(d.GetTargets()) == 0 {
		return r.decidedWhole(id, d)
	}
	at, err := r.append(kindDecision, d, 1)
	if err != nil {
		return err
	}
	seg := at.Segment
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending.find(id) != nil || r.done.has(id) {
		r.log.Release(seg)
		r.metrics.drop(dropDecidedTwice)
		return nil
	}
	r.pending.add(&pending{id: id, decision: d, segment: seg, deadline: r.deadlineOf(d)})
	return nil
}

func (r *Recorder) deadlineOf(d *usagev1.Decision) time.Time {
	return d.GetTime().AsTime().Add(r.opt.Deadline)
}

// decidedWhole journals a decision that is an event already.
func (r *Recorder) decidedWhole(id ID, d *usagev1.Decision) error {
	r.mu.Lock()
	open, known := r.pending.find(id) != nil, r.done.has(id)
	if !open && !known {
		r.done.add(id, false)
	}
	r.mu.Unlock()
	switch {
	case open && d.GetVerdict() == VerdictRefused:
		return r.withdraw(id)
	case open || known:
		r.metrics.drop(dropDecidedTwice)
		return nil
	}
	e := answered(d, r.opt.Now())
	at, err := r.append(kindEvent, e, 0)
	if err != nil {
		r.mu.Lock()
		r.done.remove(id)
		r.mu.Unlock()
		return err
	}
	r.written(e, at, false)
	return nil
}

func (r *Recorder) append(kind byte, m proto.Message, holds int) (at spool.Position, err error) {
	buf := frames.Get().(*[]byte)
	defer frames.Put(buf)
	*buf, err = appendFrame((*buf)[:0], kind, m)
	if err != nil {
		return spool.Position{}, err
	}
	return r.log.Append(*buf, holds)
}

func appendFrame(b []byte, kind byte, m proto.Message) ([]byte, error) {
	start := len(b)
	out, err := proto.MarshalOptions{}.MarshalAppend(spool.Begin(b, kind), m)
	if err != nil {
		return b, fmt.Errorf("usage: %w", err)
	}
	return spool.End(out, start)
}

// written is called once for each event, after it was journalled at this
// position.
func (r *Recorder) written(e *usagev1.Event, at spool.Position, settle bool) {
	if settle && r.opt.Settler != nil {
		r.opt.Settler.Settle(e)
	}
	if settle && r.opt.OnSettled != nil {
		r.opt.OnSettled(e)
	}
	r.metrics.event(e)
	r.sink.fresh.put(at, e)
	r.sink.wake()
	if r.opt.OnEvent == nil {
		return
	}
	select {
	case r.notify <- e:
	default:
		r.metrics.drop(dropLine)
	}
}

func (r *Recorder) notifyLoop(ctx context.Context) {
	for {
		select {
		case e := <-r.notify:
			r.opt.OnEvent(e)
		case <-ctx.Done():
			return
		}
	}
}

// notifyRest tells of the events that are left when Run has returned.
func (r *Recorder) notifyRest() {
	for {
		select {
		case e := <-r.notify:
			r.opt.OnEvent(e)
		default:
			return
		}
	}
}

func (r *Recorder) syncLoop(ctx context.Context) {
	tick := time.NewTicker(r.opt.SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.log.Sync(); err != nil {
			r.metrics.syncFailed.Inc()
			r.opt.Logger.Error("usage spool cannot be synced", "error", err)
		}
	}
}

// Pending are the decisions that are open, oldest first: after Open, those whose
// reservations the ledger must hold again.
func (r *Recorder) Pending() []*usagev1.Decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*usagev1.Decision, 0, r.pending.len())
	for p := range r.pending.all() {
		list = append(list, p.decision)
	}
	return list
}
