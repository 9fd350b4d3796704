package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A segment begins with magic. After it come frames:
//
//	4 bytes  length of what follows the checksum, little endian; at least 1
//	4 bytes  CRC-32C of the length's four bytes and of what follows
//	1 byte   kind
//	n bytes  payload
const (
	magic     = "weirlog\x01"
	frameHead = 8
	// MaxRecord is the largest kind and payload together, in bytes.
	MaxRecord = 1 << 20
)

// ErrTooLarge refuses a record over MaxRecord.
var ErrTooLarge = errors.New("usage spool: record too large")

var (
	errTorn    = errors.New("usage spool: record cut short")
	errCorrupt = errors.New("usage spool: record fails its checksum")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Begin appends the head of a frame; the caller appends the payload and calls
// End with the length that b had before Begin.
func Begin(b []byte, kind byte) []byte {
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0, kind)
}

// End fills in the head of the frame that began at start.
func End(b []byte, start int) ([]byte, error) {
	f := b[start:]
	if len(f)-frameHead > MaxRecord {
		return b[:start], ErrTooLarge
	}
	binary.LittleEndian.PutUint32(f, uint32(len(f)-frameHead))
	binary.LittleEndian.PutUint32(f[4:], checksum(f))
	return b, nil
}

func checksum(f []byte) uint32 {
	return crc32.Update(crc32.Checksum(f[:4], castagnoli), castagnoli, f[frameHead:])
}

// decode takes the first frame off b. errTorn says that b ends before the frame
// does, errCorrupt that these bytes are no frame.
func decode(b []byte) (kind byte, payload []byte, size int, err error) {
	if len(b) < frameHead {
		return 0, nil, 0, errTorn
	}
	n := int64(binary.LittleEndian.Uint32(b))
	if n < 1 || n > MaxRecord {
		return 0, nil, 0, errCorrupt
	}
	if int64(len(b)) < frameHead+n {
		return 0, nil, 0, errTorn
	}
	f := b[:frameHead+n]
	if checksum(f) != binary.LittleEndian.Uint32(b[4:]) {
		return 0, nil, 0, errCorrupt
	}
	return f[frameHead], f[frameHead+1:], len(f), nil
}
