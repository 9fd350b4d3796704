package media

import "encoding/binary"

// The fields of TIFF (TIFF 6.0, section 8) that say the size, and the types that
// they may have.
const (
	tiffWidth  = 256
	tiffHeight = 257
	tiffShort  = 3
	tiffLong   = 4
)

// tiffSize reads the first directory of fields. A directory behind the pixels,
// where some encoders put it, is mostly out of reach.
func tiffSize(s *source) Size {
	var b [8]byte
	if !s.fill(b[:]) {
		return Size{}
	}
	var order binary.ByteOrder = binary.LittleEndian
	if b[0] == 'M' {
		order = binary.BigEndian
	}
	if !s.skip(int64(order.Uint32(b[4:])) - 8) {
		return Size{}
	}
	var count [2]byte
	if !s.fill(count[:]) || order.Uint16(count[:]) > maxChunks {
		return Size{}
	}
	var sides [2]int64
	for range order.Uint16(count[:]) {
		var f [12]byte
		if !s.fill(f[:]) {
			return Size{}
		}
		tag := order.Uint16(f[:])
		if tag != tiffWidth && tag != tiffHeight {
			continue
		}
		side := &sides[tag-tiffWidth]
		if *side != 0 { // the field stands here twice
			return Size{}
		}
		*side = tiffValue(order, f[2:])
	}
	return sized(sides[0], sides[1])
}

// tiffValue is the one number of a field; zero when it is none.
func tiffValue(order binary.ByteOrder, f []byte) int64 {
	switch {
	case order.Uint32(f[2:]) != 1:
	case order.Uint16(f) == tiffShort:
		return int64(order.Uint16(f[6:]))
	case order.Uint16(f) == tiffLong:
		return int64(order.Uint32(f[6:]))
	}
	return 0
}
