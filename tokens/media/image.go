package media

import "encoding/binary"

// Size is what an image's header says, in pixels, before any orientation is
// applied.
type Size struct {
	Width, Height int64
	// Known says that the header was understood and names one size. Without it
	// both sides are zero.
	Known bool
	// Sure says that decoders of base64 cannot have read other bytes, and that
	// Pillow, which vLLM and SGLang read images with, cannot take the file for
	// another format.
	Sure bool
}

// maxSide is above what any decoder takes, and keeps products of two sides far
// from the end of int64.
const maxSide = 1 << 24

func sized(width, height int64) Size {
	if width < 1 || height < 1 || width > maxSide || height > maxSide {
		return Size{}
	}
	return Size{Width: width, Height: height, Known: true}
}

// ImageSize reads the size of the image in a JSON string, without the string's
// quotes: a data URI of a PNG, JPEG, GIF, WebP, BMP, TIFF, HEIC or AVIF. What
// the URI says of its type is not looked at, as decoders do not look at it.
//
// A header that names two sizes, where one decoder would take the first and
// another the last, names none.
func ImageSize(literal []byte) Size {
	s, ok := open(literal, false)
	if !ok {
		return Size{}
	}
	start := s
	size := readSize(&s)
	size.Sure = size.Known && !s.doubt && !disguised(&start)
	return size
}

// readSize tells the formats apart by how they begin. It is sure of those alone
// that requests are made of; of the others, what makes a decoder refuse one is
// not followed, and with it not what that would be taken for instead.
func readSize(s *source) Size {
	var b [12]byte
	if t := *s; !t.fill(b[:]) {
		return Size{}
	}
	switch head := string(b[:]); {
	case head[:8] == "\x89PNG\r\n\x1a\n":
		return pngSize(s)
	case head[:3] == "\xff\xd8\xff":
		return jpegSize(s)
	case head[:6] == "GIF87a" || head[:6] == "GIF89a":
		return gifSize(s)
	case head[:4] == "RIFF" && head[8:] == "WEBP":
		return webpSize(s)
	}
	s.doubt = true
	switch head := string(b[:]); {
	case head[:2] == "BM":
		return bmpSize(s)
	case head[:4] == "II*\x00" || head[:4] == "MM\x00*":
		return tiffSize(s)
	case head[4:8] == "ftyp":
		return heifSize(s)
	}
	return Size{}
}

// maxChunks is how many chunks, segments or blocks of a file are passed over in
// search of the one with the size.
const maxChunks = 1024

// pngSize reads on to the first IDAT: a decoder may take the last IHDR before it.
func pngSize(s *source) Size {
	if !s.skip(8) {
		return Size{}
	}
	var size Size
	for range maxChunks {
		var b [8]byte
		if !s.fill(b[:]) {
			return Size{}
		}
		n := int64(binary.BigEndian.Uint32(b[:]))
		switch string(b[4:]) {
		case "IHDR":
			width, _ := s.u32()
			height, ok := s.u32()
			if !ok || size.Known || n != 13 {
				return Size{}
			}
			size = sized(width, height)
			n -= 8
		case "IDAT":
			return size
		}
		if !s.skip(n + 4) { // the checksum behind it
			return Size{}
		}
	}
	return Size{}
}

// webpSize reads the first chunk (RFC 9649, 2). A canvas that is not the size of
// its only picture is refused by libwebp, and names no size here.
func webpSize(s *source) Size {
	if !s.skip(12) {
		return Size{}
	}
	kind, n, ok := riffChunk(s)
	if !ok {
		return Size{}
	}
	if kind != "VP8X" {
		return webpPicture(s, kind, n)
	}
	var b [10]byte
	if !s.fill(b[:]) || !s.skip(n-int64(len(b))) {
		return Size{}
	}
	canvas := sized(le24(b[4:])+1, le24(b[7:])+1)
	const animated = 0x02
	if b[0]&animated != 0 {
		return canvas
	}
	for range maxChunks {
		kind, n, ok := riffChunk(s)
		if !ok {
			return Size{}
		}
		if kind == "VP8 " || kind == "VP8L" {
			if webpPicture(s, kind, n) != canvas {
				return Size{}
			}
			return canvas
		}
		if !s.skip(n) {
			return Size{}
		}
	}
	return Size{}
}

func webpPicture(s *source, kind string, n int64) Size {
	var b [10]byte
	switch kind {
	case "VP8 ": // RFC 6386, 9.1: a tag, a start code, two sides of 14 bits
		if n >= 10 && s.fill(b[:10]) && b[0]&1 == 0 && string(b[3:6]) == "\x9d\x01\x2a" {
			return sized(le16(b[6:])&0x3FFF, le16(b[8:])&0x3FFF)
		}
	case "VP8L": // RFC 9649, 3.4: a signature, two sides of 14 bits less one
		if n >= 5 && s.fill(b[:5]) && b[0] == 0x2F {
			v := int64(binary.LittleEndian.Uint32(b[1:]))
			return sized(v&0x3FFF+1, v>>14&0x3FFF+1)
		}
	}
	return Size{}
}

// riffChunk reads the head of a chunk; n is the length of the rest, the byte of
// padding included.
func riffChunk(s *source) (kind string, n int64, ok bool) {
	var b [8]byte
	if !s.fill(b[:]) {
		return "", 0, false
	}
	n = int64(binary.LittleEndian.Uint32(b[4:]))
	return fourCC(b[:4]), n + n&1, true
}

// fourCC is a chunk's name without an allocation, "" for one that is of no use.
func fourCC(b []byte) string {
	for _, known := range [...]string{"VP8 ", "VP8L", "VP8X", "fmt ", "data", "ds64"} {
		if string(b) == known {
			return known
		}
	}
	return ""
}

// bmpSize reads the second header; a height below zero means that the rows stand
// from top to bottom.
func bmpSize(s *source) Size {
	var b [12]byte
	if !s.skip(14) || !s.fill(b[:]) {
		return Size{}
	}
	switch n := binary.LittleEndian.Uint32(b[:]); {
	case n == 12:
		return sized(le16(b[4:]), le16(b[6:]))
	case n >= 40 && n <= 124:
		width := int64(int32(binary.LittleEndian.Uint32(b[4:])))
		height := int64(int32(binary.LittleEndian.Uint32(b[8:])))
		return sized(width, max(height, -height))
	}
	return Size{}
}

func le16(b []byte) int64 { return int64(binary.LittleEndian.Uint16(b)) }

func le24(b []byte) int64 { return int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16 }
