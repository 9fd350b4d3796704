package media

import "encoding/binary"

const (
	// mp3Densest is 448 kbit/s, the most of all layers, in bytes a second.
	mp3Densest = 56000
	// mp3Thinnest is 8 kbit/s, the least that a frame can state. A file may change
	// its bit rate with each frame, so that the first proves nothing.
	mp3Thinnest = 1000
)

// skipTags passes over ID3v2 tags, pictures included.
func skipTags(s *source) bool {
	for range 4 {
		var b [10]byte
		if t := *s; !t.fill(b[:]) || string(b[:3]) != "ID3" {
			return true
		}
		n := int64(b[6]&0x7F)<<21 | int64(b[7]&0x7F)<<14 | int64(b[8]&0x7F)<<7 | int64(b[9]&0x7F)
		if b[5]&0x10 != 0 { // a footer
			n += 10
		}
		if !s.skip(10 + n) {
			return false
		}
	}
	return true
}

// mp3Frame is what a frame's header says (ISO 11172-3, 2.4.1.3; ISO 13818-3).
type mp3Frame struct {
	version1 bool
	layer    int
	mono     bool
	samples  int64 // in the frame
	rate     int64 // samples a second
	bits     int64 // a second; zero for a free format
}

var (
	mp3Rates = [3]int64{44100, 48000, 32000}
	// mp3Bits is kbit/s: version 1 in its three layers, version 2 in layer I and in
	// the others.
	mp3Bits = [5][15]int64{
		{0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448},
		{0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384},
		{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320},
		{0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256},
		{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
	}
)

func readFrame(b []byte) (f mp3Frame, ok bool) {
	version, layer := b[1]>>3&3, b[1]>>1&3
	bits, rate := int(b[2]>>4), int(b[2]>>2&3)
	if version == 1 || layer == 0 || bits == 15 || rate == 3 {
		return f, false
	}
	f = mp3Frame{version1: version == 3, layer: 4 - int(layer), mono: b[3]>>6 == 3, rate: mp3Rates[rate]}
	row := f.layer - 1
	if !f.version1 {
		row = min(row, 1) + 3
		f.rate /= 2
	}
	if version == 0 { // 2.5
		f.rate /= 2
	}
	f.bits = mp3Bits[row][bits] * 1000
	switch {
	case f.layer == 1:
		f.samples = 384
	case f.layer == 3 && !f.version1:
		f.samples = 576
	default:
		f.samples = 1152
	}
	return f, true
}

// mp3Length reads the first frame: the number of frames in it, if it is Xing's
// or VBRI's, or else its bit rate for all of the data.
func mp3Length(s *source) (l Length, ok bool) {
	size := s.left()
	var b [64]byte
	if !s.fill(b[:]) {
		return l, false
	}
	f, ok := readFrame(b[:])
	if !ok || f.bits == 0 {
		return l, false
	}
	l = Length{millis(size, f.bits/8), millis(size, mp3Thinnest)}
	if n := f.count(b[:]); n > 0 {
		l.Millis = millis(n*f.samples, f.rate)
	}
	l.Millis = min(max(l.Millis, size*1000/mp3Densest), l.Most)
	return l, true
}

// count is how many frames the first one says that there are; zero when it says
// nothing.
func (f mp3Frame) count(b []byte) int64 {
	const vbri = 4 + 32
	if string(b[vbri:vbri+4]) == "VBRI" {
		return int64(binary.BigEndian.Uint32(b[vbri+14:]))
	}
	at := 4 + 17 // the header and the side information
	switch {
	case f.version1 && !f.mono:
		at = 4 + 32
	case !f.version1 && f.mono:
		at = 4 + 9
	}
	tag := string(b[at : at+4])
	const hasFrames = 1
	if (tag == "Xing" || tag == "Info") && b[at+7]&hasFrames != 0 {
		return int64(binary.BigEndian.Uint32(b[at+8:]))
	}
	return 0
}
