package media

// The extensions of GIF (GIF89a, 23 to 26) that Pillow reads in ways of its own.
const (
	gifControl     = 0xF9
	gifComment     = 0xFE
	gifApplication = 0xFF
)

// gifSize reads on to the first frame: Pillow widens the screen to it. Where
// Pillow and the format part ways, so that one could see another frame than the
// other, no size is known.
func gifSize(s *source) Size {
	var b [13]byte
	if !s.fill(b[:]) || !s.skip(gifColours(b[10])) {
		return Size{}
	}
	screen := sized(le16(b[6:]), le16(b[8:]))
	for blocks := 0; screen.Known && blocks < maxChunks; {
		kind, ok := s.u8()
		switch {
		case !ok:
			return Size{}
		case kind == ',':
			return gifFrame(s, screen)
		case kind != '!' || !gifExtension(s, &blocks):
			return Size{}
		}
	}
	return Size{}
}

// gifColours is how many bytes of colours follow, by the flags before them.
func gifColours(flags byte) int64 {
	if flags&0x80 == 0 {
		return 0
	}
	return 3 << (flags&7 + 1)
}

// gifFrame reads a frame to where its pixels begin.
func gifFrame(s *source, screen Size) Size {
	var f [9]byte
	if !s.fill(f[:]) || !s.skip(gifColours(f[8])+1) {
		return Size{}
	}
	return sized(
		max(screen.Width, le16(f[:])+le16(f[4:])),
		max(screen.Height, le16(f[2:])+le16(f[6:])),
	)
}

// gifExtension passes over the blocks of an extension. Pillow reads past the end
// of one that has no block, comments aside, and of NETSCAPE's when it has one
// only.
func gifExtension(s *source, blocks *int) bool {
	label, _ := s.u8()
	needed := 1
	switch label {
	case gifComment:
		needed = 0
	case gifApplication:
		needed = 2
	}
	for have := 0; *blocks < maxChunks; have++ {
		*blocks++
		n, ok := s.u8()
		if !ok || n == 0 {
			return ok && have >= needed
		}
		if label == gifControl && have == 0 && n != 4 || !s.skip(int64(n)) {
			return false
		}
	}
	return false
}
