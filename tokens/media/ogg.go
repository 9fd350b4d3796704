package media

import (
	"bytes"
	"encoding/binary"
)

// flacLength reads STREAMINFO (RFC 9639, 8.2). A constant takes a dozen bytes for
// 65,535 samples, so that the size of the data proves nothing.
func flacLength(s *source, size int64) (l Length, ok bool) {
	var b [26]byte // the mark, a block's head, and STREAMINFO to its number of samples
	if !s.fill(b[:]) {
		return l, false
	}
	rate := int64(b[18])<<12 | int64(b[19])<<4 | int64(b[20])>>4
	samples := int64(b[21]&0x0F)<<32 | int64(binary.BigEndian.Uint32(b[22:]))
	if rate == 0 {
		return l, false
	}
	return stated(millis(samples, rate), size)
}

const (
	// opusRate is that of Opus' granules, whatever was recorded (RFC 7845, 4).
	opusRate = 48000
	// opusPerByte is the most that a byte can be, in milliseconds: a packet of
	// 120 ms has one byte (RFC 6716, 3.2), and its page one for its length.
	opusPerByte = 60
)

// oggLength reads the first page's codec and the last page's position.
func oggLength(s *source, size int64) (l Length, ok bool) {
	var b [64]byte
	if t := *s; !t.fill(b[:]) {
		return l, false
	}
	packet := 27 + int(b[26]) // behind the page's head and the lengths of its packets
	if packet+16 > len(b) {
		return l, false
	}
	switch p := b[packet:]; {
	case string(p[:8]) == "OpusHead":
		granule := lastGranule(s) - le16(p[10:]) // less what is skipped at the start
		if l, ok = stated(millis(max(granule, 0), opusRate), size); !ok {
			l.Millis = millis(size, usualDensity)
		}
		l.Most = min(size*opusPerByte, maxMillis)
		return Length{min(l.Millis, l.Most), l.Most}, true
	case string(p[:7]) == "\x01vorbis":
		if rate := int64(binary.LittleEndian.Uint32(p[12:])); rate > 0 {
			return stated(millis(lastGranule(s), rate), size)
		}
	}
	return l, false
}

// The search for the last page goes backwards through windows, as far as a page
// can be long. A page's head that one window cuts lies whole in the one before.
const (
	oggWindow  = 12 << 10
	oggOverlap = 24
	oggWindows = 6
)

// lastGranule is the last page's position, zero when it is not found.
func lastGranule(s *source) int64 {
	var b [oggWindow]byte
	for i := range oggWindows {
		n := s.tail(b[:], i*(oggWindow-oggOverlap))
		if v := lastPage(b[:n]); v > 0 || n < oggWindow {
			return v
		}
	}
	return 0
}

func lastPage(b []byte) int64 {
	for {
		i := bytes.LastIndex(b, []byte("OggS"))
		if i < 0 {
			return 0
		}
		// A position of -1 is for a page on which no packet ends.
		if len(b)-i >= 14 {
			if v := int64(binary.LittleEndian.Uint64(b[i+6:])); v > 0 {
				return v
			}
		}
		b = b[:i]
	}
}

// tail decodes what lies before the last back bytes of base64 without escapes
// and white space, into p, and answers how many bytes that is. Both lengths are
// multiples of three; an incomplete group at the end does not count.
func (s *source) tail(p []byte, back int) int {
	if s.percent || s.n != s.at {
		return 0
	}
	rest := unpadded(s.all[s.pos:])
	end := len(rest)&^3 - back/3*4
	if end <= 0 {
		return 0
	}
	rest = rest[max(0, end-len(p)/3*4):end]
	t := source{text: text{lit: rest}}
	return t.direct(p)
}
