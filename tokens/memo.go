package tokens

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/dgraph-io/ristretto/v2"
)

// Memo remembers how many tokens texts have: agents send their whole context with
// every turn, and only what is new should cost time. Texts are known by a keyed hash
// of 128 bits, GMAC (NIST SP 800-38D) under a secret of the process, which the tenant
// goes into: two texts have the same with a probability of their length in blocks
// of 16 bytes by 2^128, whoever chose them without knowing a hash, and no hash is
// ever shown. No tenant can tell what another one sent.
type Memo struct {
	cache *ristretto.Cache[uint64, remembered]
	block cipher.Block
	mac   cipher.AEAD
	seed  maphash.Seed // of tenants
}

type memoKey [2]uint64

type remembered struct {
	check  uint64 // the second half of the key
	tokens int64
}

// Hashes are the hashes of the segments of one request, which several vocabularies
// look up. Its memory is used again.
type Hashes struct {
	of    []memoKey // by segment
	known []bool
}

// Reset forgets the hashes.
func (h *Hashes) Reset() { h.of, h.known = h.of[:0], h.known[:0] }

// slot is where the hash of a segment is kept, of so many, and whether it is there.
func (h *Hashes) slot(i, of int) (k *memoKey, known *bool) {
	if len(h.of) < of {
		h.of, h.known = slices.Grow(h.of[:0], of)[:of], slices.Grow(h.known[:0], of)[:of]
		clear(h.known)
	}
	return &h.of[i], &h.known[i]
}

const (
	// worthKeeping is the shortest text that is remembered, in bytes: counting a
	// shorter one takes no longer than looking it up.
	worthKeeping = 256
	// keptTexts is how many are remembered, at some 100 bytes each.
	keptTexts = 1 << 16
)

// NewMemo makes a memo. Close ends it.
func NewMemo() *Memo {
	cache, err := ristretto.NewCache(&ristretto.Config[uint64, remembered]{
		NumCounters:        10 * keptTexts,
		MaxCost:            keptTexts,
		BufferItems:        64,
		IgnoreInternalCost: true,
	})
	if err != nil {
		panic(err) // of the configuration above
	}
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		panic(err) // of the key's length
	}
	mac, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // of the block's length
	}
	return &Memo{cache: cache, block: block, mac: mac, seed: maphash.MakeSeed()}
}

// Close ends the memo's goroutines.
func (m *Memo) Close() { m.cache.Close() }

// Wait waits until what was counted is remembered.
func (m *Memo) Wait() { m.cache.Wait() }

// hash is the keyed hash of a tenant's text.
func (m *Memo) hash(tenant string, text []byte, scratch []byte) (k memoKey, grown []byte) {
	var nonce [12]byte
	binary.LittleEndian.PutUint64(nonce[:], maphash.String(m.seed, tenant))
	scratch = append(scratch[:0], nonce[:]...)
	scratch = m.mac.Seal(scratch, scratch, nil, text)
	tag := scratch[len(nonce):]
	return memoKey{binary.LittleEndian.Uint64(tag), binary.LittleEndian.Uint64(tag[8:])}, scratch
}

// of is the key of a text with that hash for a kind of count: a mask for each kind
// keeps them apart.
func (m *Memo) of(k memoKey, kind uint64, scratch []byte) (memoKey, []byte) {
	scratch = append(scratch[:0], make([]byte, aes.BlockSize)...)
	binary.LittleEndian.PutUint64(scratch, kind)
	scratch[aes.BlockSize-1] = 0xFF // no block of the hash ends so: its counter is 1
	m.block.Encrypt(scratch, scratch)
	return memoKey{k[0] ^ binary.LittleEndian.Uint64(scratch), k[1] ^ binary.LittleEndian.Uint64(scratch[8:])}, scratch
}

func (m *Memo) get(k memoKey) (int64, bool) {
	e, ok := m.cache.Get(k[0])
	return e.tokens, ok && e.check == k[1]
}

func (m *Memo) put(k memoKey, tokens int64) {
	m.cache.Set(k[0], remembered{k[1], tokens}, 1)
}
