package media

// The markers of JPEG (ITU T.81, table B.1) that the search tells apart.
const (
	jpegDHT  = 0xC4
	jpegJPG  = 0xC8
	jpegDAC  = 0xCC
	jpegSOS  = 0xDA
	jpegDQT  = 0xDB
	jpegDNL  = 0xDC
	jpegDRI  = 0xDD
	jpegAPP0 = 0xE0
	jpegCOM  = 0xFE
)

// jpegSize walks over the segments to the first scan. Between two of them it
// passes over whole segments, Exif and colour profiles, by their lengths. A
// second frame header names a second size: Pillow takes the last one.
func jpegSize(s *source) Size {
	if !s.skip(2) {
		return Size{}
	}
	var size Size
	for range maxChunks {
		marker, ok := jpegMarker(s)
		if !ok {
			return Size{}
		}
		if marker == jpegSOS {
			return size
		}
		one, ok := jpegSegment(s, marker)
		if !ok || one.Known && size.Known && one != size {
			return Size{}
		}
		if one.Known {
			size = one
		}
	}
	return Size{}
}

// jpegMarker reads a marker and the bytes that may fill the room before it.
func jpegMarker(s *source) (marker byte, ok bool) {
	const maxFill = 64
	if b, ok := s.u8(); !ok || b != 0xFF {
		return 0, false
	}
	for range maxFill {
		b, ok := s.u8()
		if !ok || b == 0 {
			return 0, false
		}
		if b != 0xFF {
			return b, true
		}
	}
	return 0, false
}

// jpegSegment passes over a segment. What decoders refuse or pass over in other
// ways is not read on: markers of other processes, a frame of other than eight
// bits or of a number of components that Pillow does not know, a side of zero,
// which a later segment may state.
func jpegSegment(s *source, marker byte) (size Size, ok bool) {
	n, ok := s.u16()
	if n -= 2; !ok || n < 0 || !isSegment(marker) {
		return Size{}, false
	}
	if isFrame(marker) {
		var b [6]byte // the precision, the height, the width, the components
		if n < 6 || !s.fill(b[:]) || b[0] != 8 || b[5] != 1 && b[5] != 3 && b[5] != 4 {
			return Size{}, false
		}
		n -= 6
		size = sized(int64(b[3])<<8|int64(b[4]), int64(b[1])<<8|int64(b[2]))
		if !size.Known {
			return Size{}, false
		}
	}
	return size, s.skip(n)
}

func isSegment(marker byte) bool {
	switch marker {
	case jpegDHT, jpegDAC, jpegDQT, jpegDNL, jpegDRI, jpegCOM:
		return true
	}
	return isFrame(marker) || marker >= jpegAPP0 && marker <= jpegAPP0+15
}

func isFrame(marker byte) bool {
	return marker >= 0xC0 && marker <= 0xCF && marker != jpegDHT && marker != jpegJPG && marker != jpegDAC
}
