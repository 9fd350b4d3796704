package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Reader reads records in the order in which they were written, while others
// write. It is not safe for concurrent use.
type Reader struct {
	log  *Log
	at   Position
	last Position
	file *os.File
	seg  *segment
	buf  []byte // bytes of the file from at on; lies in mem
	mem  []byte
}

// NewReader begins at a position. One in a segment that is gone begins at the
// next segment.
func (l *Log) NewReader(at Position) *Reader { return &Reader{log: l, at: at} }

// Position is behind the last record that Next returned.
func (r *Reader) Position() Position { return r.at }

// Last is where the record stands that Next returned.
func (r *Reader) Last() Position { return r.last }

// Next returns the next record, or io.EOF when there is none yet. The payload
// holds until the next call. Where a record is found bad, the rest of what its
// segment holds is passed over.
func (r *Reader) Next() (kind byte, payload []byte, err error) {
	for {
		if r.seg == nil {
			if err := r.enter(); err != nil {
				return 0, nil, err
			}
		}
		sealed := r.sealed() // before size: a sealed segment grows no more
		if size := r.seg.size.Load(); r.at.Offset < size {
			kind, payload, n, err := r.decode(size)
			if err == nil {
				r.buf = r.buf[n:]
				r.last = r.at
				r.at.Offset += int64(n)
				return kind, payload, nil
			}
			if !errors.Is(err, errCorrupt) && !errors.Is(err, errTorn) {
				return 0, nil, err
			}
			r.log.corrupt.Add(size - r.at.Offset)
			r.at.Offset, r.buf = size, nil
			continue
		}
		if !sealed {
			return 0, nil, io.EOF
		}
		if err := r.Close(); err != nil {
			return 0, nil, fmt.Errorf("usage spool: %w", err)
		}
		r.at = Position{Segment: r.at.Segment + 1}
	}
}

func (r *Reader) sealed() bool {
	r.log.segMu.Lock()
	defer r.log.segMu.Unlock()
	return r.log.segs[len(r.log.segs)-1] != r.seg
}

// enter opens the segment of r.at, or the first one after it.
func (r *Reader) enter() error {
	r.log.segMu.Lock()
	i := slices.IndexFunc(r.log.segs, func(s *segment) bool { return s.seq >= r.at.Segment })
	var s *segment
	if i >= 0 {
		s = r.log.segs[i]
	}
	r.log.segMu.Unlock()
	if s == nil {
		return io.EOF
	}
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("usage spool: %w", err)
	}
	if s.seq != r.at.Segment {
		r.at = Position{Segment: s.seq}
	}
	r.at.Offset = max(r.at.Offset, int64(len(magic)))
	r.seg, r.file, r.buf = s, f, nil
	return nil
}

// decode decodes the frame at r.at, reading more of the file as it needs.
func (r *Reader) decode(size int64) (byte, []byte, int, error) {
	kind, payload, n, err := decode(r.buf)
	for tries := 0; errors.Is(err, errTorn) && tries < 2; tries++ {
		want := size - r.at.Offset
		if tries == 0 {
			want = min(want, readAhead)
		} else {
			want = min(want, frameHead+MaxRecord)
		}
		r.mem = slices.Grow(r.mem[:0], int(want))[:want]
		m, rerr := r.file.ReadAt(r.mem, r.at.Offset)
		if rerr != nil && rerr != io.EOF {
			return 0, nil, 0, fmt.Errorf("usage spool: %w", rerr)
		}
		r.buf = r.mem[:m]
		kind, payload, n, err = decode(r.buf)
	}
	return kind, payload, n, err
}

const readAhead = 256 << 10

// Close lets go of the open file; Next opens it again.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file, r.seg, r.buf = nil, nil, nil
	return err
}
