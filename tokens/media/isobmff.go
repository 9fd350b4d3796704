package media

import "encoding/binary"

// box is the head of a box (ISO 14496-12, 4.2): its kind, and the offset where it
// ends.
type box struct {
	kind [4]byte
	end  int64
}

// endless is the end of a box that goes to the end of the file.
const endless = 1 << 62

func readBox(s *source) (b box, ok bool) {
	start := s.offset
	size, ok := s.u32()
	if !ok || !s.fill(b.kind[:]) {
		return box{}, false
	}
	switch size {
	case 0:
		b.end = endless
		return b, true
	case 1:
		var long [8]byte
		if !s.fill(long[:]) {
			return box{}, false
		}
		size = int64(binary.BigEndian.Uint64(long[:]))
	}
	if size < s.offset-start || size > endless {
		return box{}, false
	}
	b.end = start + size
	return b, true
}

// enter passes over boxes up to the first of a kind and answers where that ends;
// none that begins at end or behind it is entered.
func enter(s *source, kind string, end int64) (int64, bool) {
	for range maxChunks {
		if s.offset >= end {
			return 0, false
		}
		b, ok := readBox(s)
		if !ok {
			return 0, false
		}
		if string(b.kind[:]) == kind {
			return min(b.end, end), true
		}
		if !s.skip(b.end - s.offset) {
			return 0, false
		}
	}
	return 0, false
}

// heifSize reads the sizes among the properties of a HEIC's or AVIF's items
// (ISO 23008-12, 6.5.3). Of several, tiles and previews beside the picture, it
// takes the largest sides; what a picture is cut to is not looked at.
func heifSize(s *source) Size {
	var brand [12]byte
	if t := *s; !t.fill(brand[:]) || !isStill(string(brand[8:])) {
		return Size{}
	}
	end, ok := enter(s, "meta", endless)
	if !ok || !s.skip(4) { // its version
		return Size{}
	}
	for _, kind := range [...]string{"iprp", "ipco"} {
		if end, ok = enter(s, kind, end); !ok {
			return Size{}
		}
	}
	var width, height int64
	for range maxChunks {
		if s.offset >= end {
			return sized(width, height)
		}
		property, ok := readBox(s)
		if !ok {
			return Size{}
		}
		if string(property.kind[:]) == "ispe" {
			var b [12]byte // the version, the width, the height
			if !s.fill(b[:]) {
				return Size{}
			}
			width = max(width, int64(binary.BigEndian.Uint32(b[4:])))
			height = max(height, int64(binary.BigEndian.Uint32(b[8:])))
		}
		if !s.skip(property.end - s.offset) {
			return Size{}
		}
	}
	return Size{}
}

// isStill says that a brand is that of single pictures; films have another way to
// say their size.
func isStill(brand string) bool {
	switch brand {
	case "heic", "heix", "mif1", "avif":
		return true
	}
	return false
}

// filmMillis is the duration that an MP4 or M4A states (ISO 14496-12, 8.2.2), in
// milliseconds; zero when it states none near its beginning.
func filmMillis(s *source) int64 {
	end, ok := enter(s, "moov", endless)
	if !ok {
		return 0
	}
	if _, ok = enter(s, "mvhd", end); !ok {
		return 0
	}
	version, _ := s.u8()
	times := int64(8) // made and changed
	if version == 1 {
		times = 16
	}
	if !s.skip(3 + times) {
		return 0
	}
	scale, _ := s.u32()
	above := int64(0)
	if version == 1 {
		above, _ = s.u32()
	}
	units, ok := s.u32()
	if !ok || scale == 0 {
		return 0
	}
	return millis(above<<32|units, scale)
}
