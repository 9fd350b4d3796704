package extproc

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync/atomic"
	"time"
)

// NewID is a decision's id: a UUID of version 7 (RFC 9562, 5.7) as 32 hex digits,
// so that ids sort by time, which stores like.
func NewID(now time.Time) string {
	id := newID(now)
	return hex.EncodeToString(id[:])
}

// MarkedIDs makes ids that end with a replica's mark, so that each replica knows
// whose decision an entry is about. Twelve bits are counted, so that those of one
// replica and one millisecond differ, and thirty are random.
func MarkedIDs(mark [4]byte) func(now time.Time) string {
	var count atomic.Uint32
	return func(now time.Time) string {
		id := newID(now)
		n := count.Add(1)
		id[6], id[7] = 0x70|byte(n>>8)&0x0f, byte(n)
		copy(id[12:], mark[:])
		return hex.EncodeToString(id[:])
	}
}

func newID(now time.Time) (id [16]byte) {
	rand.Read(id[:]) // never fails: see crypto/rand
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint16(id[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(ms))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}
