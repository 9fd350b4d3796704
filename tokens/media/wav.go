package media

import "encoding/binary"

// The formats of WAVE whose samples have one size each (RFC 2361).
const (
	wavPCM        = 0x0001
	wavFloat      = 0x0003
	wavALaw       = 0x0006
	wavMuLaw      = 0x0007
	wavExtensible = 0xFFFE
)

// wavFormat is what the fmt chunk says.
type wavFormat struct {
	tag      uint16
	channels int64
	rate     int64 // frames a second
	density  int64 // bytes a second
	block    int64 // bytes a frame
	bits     int64 // bits a sample
}

// wavLength walks over the chunks to the data. The length that the data chunk
// states is not believed: encoders that stream leave it at zero or at the
// largest number, and what is behind the chunk could be meant to be read. It is
// all the bytes from there on that count, the few of metadata behind included.
func wavLength(s *source) (l Length, ok bool) {
	if !s.skip(12) {
		return l, false
	}
	var f wavFormat
	for range maxChunks {
		kind, n, ok := riffChunk(s)
		switch {
		case !ok:
			return l, false
		case kind == "data":
			return f.length(s.left())
		case kind == "fmt ":
			if f.rate != 0 { // it stands here twice
				return l, false
			}
			if f, ok = readFormat(s, n); !ok {
				return l, false
			}
		case !s.skip(n):
			return l, false
		}
	}
	return l, false
}

func readFormat(s *source, n int64) (f wavFormat, ok bool) {
	var b [40]byte
	k := min(n, int64(len(b)))
	if k < 16 || !s.fill(b[:k]) || !s.skip(n-k) {
		return f, false
	}
	f = wavFormat{
		tag:      binary.LittleEndian.Uint16(b[:]),
		channels: le16(b[2:]),
		rate:     int64(binary.LittleEndian.Uint32(b[4:])),
		density:  int64(binary.LittleEndian.Uint32(b[8:])),
		block:    le16(b[12:]),
		bits:     le16(b[14:]),
	}
	if f.tag == wavExtensible {
		f.tag = binary.LittleEndian.Uint16(b[24:])
	}
	return f, true
}

// length is how long size bytes of the format are.
func (f wavFormat) length(size int64) (l Length, ok bool) {
	switch f.tag {
	case wavALaw, wavMuLaw:
		f.bits = 8
	case wavPCM, wavFloat:
	default:
		return Length{Millis: millis(size, f.density)}, f.density > 0
	}
	frame := f.channels * ceilDiv(f.bits, 8)
	if frame == 0 || f.rate == 0 {
		return l, false
	}
	// Decoders go by the samples' size or by the block's; the bound is for either.
	least := frame
	if f.block > 0 {
		least = min(frame, f.block)
	}
	return Length{millis(size, frame*f.rate), millis(size, least*f.rate)}, true
}
