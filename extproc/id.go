package extproc

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// NewID is a decision's id: a UUID of version 7 (RFC 9562, 5.7) as 32 hex digits,
// so that ids sort by time, which stores like.
func NewID(now time.Time) string {
	var id [16]byte
	rand.Read(id[:]) // never fails: see crypto/rand
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint16(id[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(ms))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return hex.EncodeToString(id[:])
}
