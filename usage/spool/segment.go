package spool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func segmentName(seq uint64) string { return fmt.Sprintf("%020d.log", seq) }

func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".log")
	seq, err := strconv.ParseUint(digits, 10, 64)
	return seq, ok && err == nil && name == segmentName(seq)
}

// load finds the segments and how much of each can be read.
func (l *Log) load() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("usage spool: %w", err)
	}
	for _, e := range entries {
		if seq, ok := parseSegmentName(e.Name()); ok {
			l.segs = append(l.segs, &segment{seq: seq, path: filepath.Join(l.dir, e.Name())})
		}
	}
	slices.SortFunc(l.segs, func(a, b *segment) int { return cmp.Compare(a.seq, b.seq) })
	for i, s := range l.segs {
		if err := l.check(s, i == len(l.segs)-1); err != nil {
			return err
		}
	}
	return nil
}

// check finds how much of a segment is good. What follows a bad record cannot
// be told from garbage and is passed over. In the last segment a bad tail is
// what a crash leaves behind and is cut off; elsewhere it is left as it is, for
// whoever wants to look.
func (l *Log) check(s *segment, last bool) error {
	b, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("usage spool: %w", err)
	}
	good, cause := readable(b)
	s.size.Store(int64(good))
	rest := int64(len(b) - good)
	switch {
	case rest == 0:
	case last && (errors.Is(cause, errTorn) || zeros(b[good:])):
		l.torn.Add(rest)
		if err := os.Truncate(s.path, int64(good)); err != nil {
			return fmt.Errorf("usage spool: %w", err)
		}
	default:
		l.corrupt.Add(rest)
	}
	return nil
}

// readable tells how many bytes of a segment hold good frames, and what stopped
// it there.
func readable(b []byte) (int, error) {
	if !bytes.HasPrefix(b, []byte(magic)) {
		if strings.HasPrefix(magic, string(b)) {
			return 0, errTorn
		}
		return 0, errCorrupt
	}
	at := len(magic)
	for at < len(b) {
		_, _, n, err := decode(b[at:])
		if err != nil {
			return at, err
		}
		at += n
	}
	return at, nil
}

// zeros is what some file systems leave where a write did not arrive.
func zeros(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// Damage is what was found unreadable since Open began.
func (l *Log) Damage() Damage { return Damage{Torn: l.torn.Load(), Corrupt: l.corrupt.Load()} }

// Bytes is how much the spool holds on disk.
func (l *Log) Bytes() int64 {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	var n int64
	for _, s := range l.segs {
		n += s.size.Load()
	}
	return n
}

// Segments are the numbers of the segments, oldest first. The last is the one
// that is being written.
func (l *Log) Segments() []uint64 {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	seqs := make([]uint64, len(l.segs))
	for i, s := range l.segs {
		seqs[i] = s.seq
	}
	return seqs
}

// End is the place behind all that was appended.
func (l *Log) End() Position {
	l.io.Lock()
	defer l.io.Unlock()
	return Position{l.tail.seq, l.tail.size.Load()}
}

func (l *Log) find(seq uint64) *segment {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	i, ok := slices.BinarySearchFunc(l.segs, seq, func(s *segment, seq uint64) int { return cmp.Compare(s.seq, seq) })
	if !ok {
		return nil
	}
	return l.segs[i]
}

// Hold keeps a segment until Release.
func (l *Log) Hold(seq uint64) {
	if s := l.find(seq); s != nil {
		s.holds.Add(1)
	}
}

// Release takes one hold back.
func (l *Log) Release(seq uint64) {
	if s := l.find(seq); s != nil {
		s.holds.Add(-1)
	}
}

// Holds tells how often a segment is held.
func (l *Log) Holds(seq uint64) int64 {
	if s := l.find(seq); s != nil {
		return s.holds.Load()
	}
	return 0
}

// Remove deletes the oldest segment. It refuses when that is not seq, is held,
// or is being written.
func (l *Log) Remove(seq uint64) error {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	if len(l.segs) < 2 || l.segs[0].seq != seq || l.segs[0].holds.Load() != 0 {
		return fmt.Errorf("usage spool: segment %d is in use", seq)
	}
	if err := os.Remove(l.segs[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("usage spool: %w", err)
	}
	l.segs = l.segs[1:]
	return nil
}
