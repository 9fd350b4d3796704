package redis

import (
	"context"
	"sync"
	"time"
)

// Envoy's access log may reach another replica than the one that decided. The
// receiver leaves such an entry in a list at the server, from where its owner takes
// it. An owner reads the head of its list, journals it, and drops it from the list with
// the next look: an entry may be taken twice, which changes nothing, but is not
// lost by a crash of the owner, nor by a server that comes back with its data.

const (
	// maxWaiting bounds the entries that wait here for the server, and maxWaitingBytes
	// their size: what is beyond is dropped.
	maxWaiting      = 1 << 16
	maxWaitingBytes = 64 << 20
	// maxListed bounds the entries that wait at the server for one replica.
	maxListed = 100_000
	// entryBatch and entryBytes bound what is sent or taken in one go.
	entryBatch = 256
	entryBytes = 1 << 20
	// lookEvery is how often a replica looks for entries of its own.
	lookEvery = 50 * time.Millisecond
	// sendEvery is how long entries wait to be sent together.
	sendEvery = 20 * time.Millisecond
)

// handed is one entry on its way.
type handed struct {
	to    Mark
	entry []byte
}

// outbox holds entries that the server does not have yet.
type outbox struct {
	mu     sync.Mutex
	list   []handed
	bytes  int
	filled chan struct{}
}

// HandOn leaves an entry for the replica that the id names. It does not wait for
// the server. It is false when that is this replica, or none that has a place, as far as
// is known yet: the entry is the caller's.
func (l *Ledger) HandOn(id [16]byte, entry func() ([]byte, error)) bool {
	to := Mark(id[12:])
	if to == l.mark {
		return false
	}
	if members := *l.members.Load(); len(members) > 0 {
		if _, ok := members[to]; !ok {
			return false
		}
	}
	b, err := entry()
	if err != nil {
		return false
	}
	o := &l.outbox
	o.mu.Lock()
	full := len(o.list) >= maxWaiting || o.bytes+len(b) > maxWaitingBytes
	if !full {
		o.list, o.bytes = append(o.list, handed{to, b}), o.bytes+len(b)
	}
	o.mu.Unlock()
	if full {
		l.metrics.dropped.Inc()
		return true
	}
	select {
	case o.filled <- struct{}{}:
	default:
	}
	return true
}

// sendLoop leaves entries at the server until ctx ends.
func (l *Ledger) sendLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.outbox.filled:
		}
		if !pause(ctx, sendEvery) {
			return
		}
		for more := true; more && ctx.Err() == nil; {
			var sent bool
			if sent, more = l.sendSome(ctx); !sent && !pause(ctx, retryEvery) {
				return
			}
		}
	}
}

// pause is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// sendSome leaves some entries, and tells whether it could, and whether there are
// more. Where nobody knows whether they arrived they are left again.
func (l *Ledger) sendSome(ctx context.Context) (sent, more bool) {
	o := &l.outbox
	o.mu.Lock()
	n, bytes := 0, 0
	for n < len(o.list) && n < entryBatch && bytes < entryBytes {
		bytes += len(o.list[n].entry)
		n++
	}
	list := o.list[:n]
	o.mu.Unlock()
	if n == 0 {
		return true, false
	}
	c := l.client.Load()
	if c == nil {
		return false, true
	}
	args := make([]string, 0, 2+2*n)
	args = append(args, number(maxListed), number(l.opt.Hold.Milliseconds()))
	for _, h := range list {
		args = append(args, h.to.String(), string(h.entry))
	}
	ctx, cancel := context.WithTimeout(ctx, 4*l.opt.Timeout)
	defer cancel()
	left, err := entriesScript.run(ctx, *c, l.meta, args).AsInt64()
	if err != nil {
		return false, true
	}
	l.metrics.handedOn.Add(float64(left))
	l.metrics.dropped.Add(float64(int64(n) - left))
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list, o.bytes = o.list[n:], o.bytes-bytes
	if len(o.list) == 0 {
		o.list = nil
	}
	return true, len(o.list) > 0
}

// TakeEntries gives take the entries that other replicas have left for this one,
// until ctx ends. What take returns an error for is given again.
func (l *Ledger) TakeEntries(ctx context.Context, take func(context.Context, [][]byte) error) {
	var at reading
	for pause(ctx, lookEvery) {
		for l.ready() && l.takeSome(ctx, &at, take) {
		}
	}
}

// reading is how far a replica has read its list.
type reading struct {
	gen     string // in this generation of the server's counts
	dropped int64  // from the list, as far as is known
	done    int64  // of those that were read last
}

// takeSome takes what is at the head of the list, and tells whether anything was.
func (l *Ledger) takeSome(ctx context.Context, at *reading, take func(context.Context, [][]byte) error) bool {
	list, err := l.look(ctx, at)
	if err != nil {
		l.lost(err)
		return false
	}
	if len(list) == 0 {
		return false
	}
	if err := take(ctx, list); err != nil {
		l.opt.Logger.Error("usage: entries that other replicas received cannot be taken", "err", err)
		return false
	}
	at.done = int64(len(list))
	l.metrics.taken.Add(float64(len(list)))
	return true
}

// look drops what was taken, and reads what comes then.
func (l *Ledger) look(ctx context.Context, at *reading) ([][]byte, error) {
	if at.gen != l.view.Load().gen {
		at.done = 0 // the list may be another
	}
	rep, err := l.ask(ctx, takeScript, []string{number(at.dropped), number(at.done), number(entryBatch)})
	if err != nil {
		return nil, err
	}
	if rep.status != statusOK || len(rep.rest) == 0 {
		l.turn(rep)
		return nil, nil
	}
	if at.dropped, err = integer(&rep.rest[0]); err != nil {
		return nil, err
	}
	at.gen, at.done = rep.gen, 0
	list := make([][]byte, 0, len(rep.rest)-1)
	for i := range rep.rest[1:] {
		b, err := rep.rest[1+i].ToString()
		if err != nil {
			return nil, err
		}
		list = append(list, []byte(b))
	}
	return list, nil
}
