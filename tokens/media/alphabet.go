package media

import (
	"encoding/binary"
	"math/bits"
)

// What a character means in base64: below 64 its value, urlSafe with the value
// for the two characters that only the URL alphabet has (RFC 4648, 5).
const (
	urlSafe = 0x40
	blank   = 0x80 // white space, which the WHATWG's forgiving decoder drops
	pad     = 0x81
	strange = 0x82
)

var alphabet = makeAlphabet()

func makeAlphabet() (a [256]byte) {
	for i := range a {
		a[i] = strange
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		a[c] = byte(i)
	}
	for _, c := range []byte(" \t\n\f\r") {
		a[c] = blank
	}
	a['-'], a['_'], a['='] = urlSafe|62, urlSafe|63, pad
	return a
}

const (
	low  = 0x0101010101010101
	high = 0x8080808080808080
)

// plain is how many characters of the standard alphabet b begins with.
//
// It tests eight at once. In bytes below 0x80, adding 0x80-n carries into the
// high bit of those that are n or more, and into no other byte.
func plain(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		if w&high != 0 {
			break
		}
		lower := w | low*0x20
		letter := (lower + low*(0x80-'a')) &^ (lower + low*(0x7F-'z'))
		digit := (w + low*(0x80-'/')) &^ (w + low*(0x7F-'9')) // the slash stands before them
		plus := ^((w ^ low*'+') + low*0x7F)
		if good := (letter | digit | plus) & high; good != high {
			return i + bits.TrailingZeros64(^good&high)/8
		}
	}
	for ; i < len(b) && alphabet[b[i]] < urlSafe; i++ {
	}
	return i
}
