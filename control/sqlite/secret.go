package sqlite

import (
	"encoding/binary"

	"github.com/weirproxy/weir/control"
)

// secretSize is a hash, and when it was made and when it expires, in microseconds.
const secretSize = 32 + 8 + 8

func encodeSecrets(list []control.Secret) []byte {
	b := make([]byte, 0, secretSize*len(list))
	for _, s := range list {
		b = append(b, s.Hash[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(micros(s.Created)))
		b = binary.BigEndian.AppendUint64(b, uint64(micros(s.Expires)))
	}
	return b
}

// decodeSecrets is false for what encodeSecrets does not make of one secret or more.
func decodeSecrets(b []byte) ([]control.Secret, bool) {
	if len(b) == 0 || len(b)%secretSize != 0 {
		return nil, false
	}
	list := make([]control.Secret, len(b)/secretSize)
	for i := range list {
		s := b[i*secretSize:]
		copy(list[i].Hash[:], s)
		created, expires := int64(binary.BigEndian.Uint64(s[32:])), int64(binary.BigEndian.Uint64(s[40:]))
		if created < 0 || expires < 0 { // before 1970
			return nil, false
		}
		list[i].Created, list[i].Expires = fromMicros(created), fromMicros(expires)
	}
	return list, true
}
