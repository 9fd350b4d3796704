package media

import (
	"bytes"
	"encoding/binary"
)

// disguised says that Pillow could open a file as one of the formats that it
// does not tell by a mark at the beginning. It tries them before WebP, and after
// a JPEG, PNG or GIF that it could not open; each has its own place for a size.
// An image of a usual encoder is hardly ever such a file.
//
// Source: Pillow 13.0, the plugins without a test of the prefix (IM, PCD,
// SPIDER) and FLI, whose mark stands further on. TGA, IMT and IPTC have none
// either, but begin as no format does that is read here.
func disguised(s *source) bool {
	var b [108]byte
	n := s.some(b[:])
	return isIM(b[:n]) || isSpider(b[:n]) || isFLI(b[:n]) || isPCD(s, int64(n))
}

// isIM says that two lines may begin the file, the first of them with a colon.
func isIM(b []byte) bool {
	const longest = 100
	end := bytes.IndexByte(b[:min(len(b), longest)], '\n')
	if end < 0 || end+1 >= len(b) || bytes.IndexByte(b[:end], ':') < 0 {
		return false
	}
	letter := func(c byte) bool { return fold(c) >= 'a' && fold(c) <= 'z' }
	return letter(b[0]) && (letter(b[end+1]) || b[end+1] == '\r')
}

// isSpider says that the fifth number of the head is one, in either order of its
// bytes: the form of a plane image.
func isSpider(b []byte) bool {
	const one = 0x3F800000
	return len(b) >= 20 && (binary.BigEndian.Uint32(b[16:]) == one || binary.LittleEndian.Uint32(b[16:]) == one)
}

func isFLI(b []byte) bool {
	return len(b) >= 6 && (le16(b[4:]) == 0xAF11 || le16(b[4:]) == 0xAF12)
}

// isPCD looks for the mark of a Photo CD, behind n bytes that are read already.
func isPCD(s *source, n int64) bool {
	const place = 2048
	var b [4]byte
	return s.skip(place-n) && s.fill(b[:]) && string(b[:]) == "PCD_"
}
