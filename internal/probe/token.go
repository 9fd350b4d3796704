// Package probe is what the doctor and the external processor say to each other
// through Envoy, so that the one can prove what the other did: a token that marks a
// request as a probe, and a signed answer. Both rest on one key, which all replicas
// of a configuration derive from its secret and nobody else can. It judges nothing,
// sends nothing and imports nothing of weir.
package probe

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"
)

// Header carries the token of a request and the answer of a response. Its name is
// outside weir's internal prefix, whose headers Envoy drops before weir sees them.
const Header = "weir-probe"

// Key signs. The zero Key opens nothing.
type Key struct{ secret []byte }

// KeyOf derives the key from the secret under which API keys are hashed. What is
// signed with the one is of no use with the other.
func KeyOf(secret []byte) Key {
	return Key{sum(secret, "weir probe key")}
}

// Nonce tells probes apart.
type Nonce [16]byte

func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// NewNonce draws one.
func NewNonce() (n Nonce) {
	rand.Read(n[:]) // never fails: see crypto/rand
	return n
}

// Token marks one request as a probe: it is judged as every request is, takes
// nothing, makes no event, and is answered by weir whatever comes of it.
type Token struct {
	Nonce Nonce
	At    time.Time // to the second
	// As is the name of the API key for which the bearer token of this request
	// stands; "" for a request that is to be judged by what it carries.
	As string
}

// Validity is how long a token may be under way, and by how much the clocks of the
// replicas may differ.
const Validity = time.Minute

const (
	version   = 1
	fixed     = 1 + 8 + len(Nonce{}) // version, seconds, nonce
	maxAs     = 512
	maxToken  = (fixed+maxAs)*4/3 + 64
	maxAnswer = 48 << 10
)

// encoding refuses what has two ways to be written.
var encoding = base64.RawURLEncoding.Strict()

// Mint writes the token.
func (k Key) Mint(t Token) string {
	b := make([]byte, 0, fixed+len(t.As))
	b = append(b, version)
	b = binary.BigEndian.AppendUint64(b, uint64(t.At.Unix()))
	b = append(b, t.Nonce[:]...)
	return k.seal("token", append(b, t.As...))
}

// Read reads what Mint wrote; false for anything else, and for a token that is not
// of this minute. It tells nobody why.
func (k Key) Read(s string, now time.Time) (Token, bool) {
	if len(s) > maxToken {
		return Token{}, false
	}
	b, ok := k.open("token", s)
	if !ok || len(b) < fixed || b[0] != version {
		return Token{}, false
	}
	t := Token{At: time.Unix(int64(binary.BigEndian.Uint64(b[1:])), 0), As: string(b[fixed:])}
	copy(t.Nonce[:], b[9:])
	if off := now.Sub(t.At); off > Validity || off < -Validity {
		return Token{}, false
	}
	return t, true
}

// seal is "<content>.<mac>", each in base64.
func (k Key) seal(purpose string, content []byte) string {
	return encoding.EncodeToString(content) + "." + encoding.EncodeToString(sum(k.secret, purpose, content))
}

// open compares in constant time.
func (k Key) open(purpose, s string) ([]byte, bool) {
	content, mac, ok := strings.Cut(s, ".")
	if !ok || len(k.secret) == 0 {
		return nil, false
	}
	b, err1 := encoding.DecodeString(content)
	m, err2 := encoding.DecodeString(mac)
	if err1 != nil || err2 != nil || !hmac.Equal(m, sum(k.secret, purpose, b)) {
		return nil, false
	}
	return b, true
}

// sum is HMAC-SHA256 over a purpose and parts, each with its length before it.
func sum(secret []byte, purpose string, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, secret)
	var length [8]byte
	for _, p := range append([][]byte{[]byte(purpose)}, parts...) {
		binary.BigEndian.PutUint64(length[:], uint64(len(p)))
		m.Write(length[:])
		m.Write(p)
	}
	return m.Sum(nil)
}
