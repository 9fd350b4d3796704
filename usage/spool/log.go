// Package spool is an append-only log of checksummed records in segment files.
//
// A record that Append took survives the death of the process: it was handed to
// the kernel. It survives a power failure once Sync returned. The spool knows
// nothing of what the records mean; it never changes one.
package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Position is a place between two records.
type Position struct {
	Segment uint64
	Offset  int64
}

// Options are what a Log is made of.
type Options struct {
	// SegmentBytes is the size at which a new segment begins; default 16 MiB.
	SegmentBytes int64
	// Head returns frames to stand at the beginning of each new segment: what
	// must not go when old segments go. It may be nil.
	Head func() []byte
	Now  func() time.Time // default time.Now
}

// Damage is what was found unreadable, in bytes that were passed over.
type Damage struct {
	Torn    int64 // a tail that a crash cut short
	Corrupt int64 // from a record that fails its checksum to the segment's end
}

// Log is the open spool. All methods are safe for concurrent use.
type Log struct {
	dir  string
	opt  Options
	lock *os.File

	mu  sync.Mutex // guards cur and spare
	cur *batch     // what the next write will carry
	// spare is a batch that nobody holds any more.
	spare *batch

	io     sync.Mutex // held while writing or rotating
	file   *os.File
	tail   *segment
	closed bool

	segMu sync.Mutex // guards segs; taken inside io
	segs  []*segment // oldest first; the last is tail

	dirty  atomic.Bool
	syncMu sync.Mutex
	old    []*os.File // rotated out, not yet synced; guarded by io

	torn, corrupt atomic.Int64 // bytes: see Damage
}

type segment struct {
	seq   uint64
	path  string
	size  atomic.Int64 // readable bytes
	holds atomic.Int64
}

// batch is what several callers write with one system call.
type batch struct {
	buf   []byte
	holds int
	done  chan struct{} // nil until somebody waits beside the leader
	at    Position      // where buf went
	err   error
}

// Open opens the spool in dir, which it makes when absent, and begins a new
// segment. A tail that was cut short is removed. Only one process may have the
// spool open.
func Open(dir string, opt Options) (*Log, error) {
	if opt.SegmentBytes <= 0 {
		opt.SegmentBytes = 16 << 20
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("usage spool: %w", err)
	}
	l := &Log{dir: dir, opt: opt, cur: &batch{}}
	if err := l.open(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Log) open() error {
	f, err := os.OpenFile(filepath.Join(l.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("usage spool: %w", err)
	}
	l.lock = f
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("usage spool %s: another process has it open: %w", l.dir, err)
	}
	if err := l.load(); err != nil {
		return err
	}
	l.io.Lock()
	defer l.io.Unlock()
	return l.rotate()
}

// Append writes frames made by Begin and End, in order and together, and
// returns where the first of them stands. That segment is then held holds times:
// it stays until as many calls of Release. The frames are the caller's again
// when Append returns.
//
// Callers that come while another one writes are written together by the first
// of them; a caller that comes alone writes at once.
func (l *Log) Append(frames []byte, holds int) (at Position, err error) {
	if len(frames) == 0 {
		return Position{}, nil
	}
	l.mu.Lock()
	b := l.cur
	before := int64(len(b.buf))
	leader := before == 0
	b.buf = append(b.buf, frames...)
	b.holds += holds
	if !leader {
		if b.done == nil {
			b.done = make(chan struct{})
		}
		done := b.done
		l.mu.Unlock()
		<-done
		return Position{b.at.Segment, b.at.Offset + before}, b.err
	}
	l.mu.Unlock()

	l.io.Lock()
	l.mu.Lock() // from here on, others join the next batch
	l.cur = l.spare
	if l.cur == nil {
		l.cur = &batch{}
	}
	l.spare = nil
	l.mu.Unlock()
	b.at, b.err = l.write(b.buf, b.holds)
	l.io.Unlock()

	at, err = b.at, b.err
	if b.done != nil {
		close(b.done) // the others still read b: it is not used again
		return at, err
	}
	if cap(b.buf) <= 1<<20 {
		*b = batch{buf: b.buf[:0]}
		l.mu.Lock()
		l.spare = b
		l.mu.Unlock()
	}
	return at, err
}

// write is called with io held.
func (l *Log) write(frames []byte, holds int) (Position, error) {
	if l.closed {
		return Position{}, errors.New("usage spool: closed")
	}
	size := l.tail.size.Load()
	if size > int64(len(magic)) && size+int64(len(frames)) > l.opt.SegmentBytes {
		if err := l.rotate(); err != nil {
			return Position{}, err
		}
		size = l.tail.size.Load()
	}
	if n, err := l.file.WriteAt(frames, size); err != nil {
		return Position{}, l.undo(n, size, err)
	}
	l.tail.holds.Add(int64(holds))
	l.tail.size.Store(size + int64(len(frames)))
	l.dirty.Store(true)
	return Position{l.tail.seq, size}, nil
}

// undo takes back what a failed write left behind, so that a restart does not
// find records that their writers were told had failed.
func (l *Log) undo(n int, size int64, cause error) error {
	if n > 0 {
		if err := l.file.Truncate(size); err != nil {
			cause = errors.Join(cause, err, l.rotate())
		}
	}
	return fmt.Errorf("usage spool: %w", cause)
}

// rotate begins a new segment; it is called with io held. The old one is synced
// by the next Sync and not here, where requests wait.
func (l *Log) rotate() error {
	seq := uint64(max(l.opt.Now().UnixMilli(), 1))
	l.segMu.Lock()
	if n := len(l.segs); n > 0 {
		seq = max(seq, l.segs[n-1].seq+1)
	}
	l.segMu.Unlock()
	s := &segment{seq: seq, path: filepath.Join(l.dir, segmentName(seq))}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("usage spool: %w", err)
	}
	head := []byte(magic)
	if l.opt.Head != nil {
		head = append(head, l.opt.Head()...)
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return errors.Join(fmt.Errorf("usage spool: %w", err), f.Close(), os.Remove(s.path))
	}
	s.size.Store(int64(len(head)))
	if l.file != nil {
		l.old = append(l.old, l.file)
	}
	l.file, l.tail = f, s
	l.segMu.Lock()
	l.segs = append(l.segs, s)
	l.segMu.Unlock()
	l.dirty.Store(true)
	return nil
}

// Sync makes everything appended so far survive a power failure. It costs
// nothing when nothing was appended since the last call.
func (l *Log) Sync() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if !l.dirty.Swap(false) {
		return nil
	}
	l.io.Lock()
	old, file := l.old, l.file
	l.old = nil
	l.io.Unlock()
	var errs []error
	for _, f := range old {
		errs = append(errs, f.Sync(), f.Close())
	}
	if file != nil {
		errs = append(errs, file.Sync())
	}
	errs = append(errs, syncDir(l.dir))
	if err := errors.Join(errs...); err != nil {
		l.dirty.Store(true)
		return fmt.Errorf("usage spool: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close syncs and closes the spool. No Append may follow.
func (l *Log) Close() error {
	err := l.Sync()
	l.io.Lock()
	defer l.io.Unlock()
	l.closed = true
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
		l.lock = nil
	}
	return err
}
