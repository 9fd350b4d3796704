package tokens

import (
	"hash/maphash"

	"github.com/dgraph-io/ristretto/v2"
)

// Memo remembers how many tokens texts have: agents send their whole context with
// every turn, and only what is new should cost time. Texts are known by a keyed hash
// of 128 bits under a secret of the process, which the tenant and the vocabulary go
// into: no tenant can tell what another one sent.
type Memo struct {
	cache *ristretto.Cache[uint64, remembered]
	seeds [2]maphash.Seed
}

type memoKey [2]uint64

type remembered struct {
	check  uint64 // the second half of the key
	tokens int64
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
	return &Memo{cache: cache, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

// Close ends the memo's goroutines.
func (m *Memo) Close() { m.cache.Close() }

// Wait waits until what was counted is remembered.
func (m *Memo) Wait() { m.cache.Wait() }

func (m *Memo) key(tenant string, kind uint64, text []byte) (k memoKey) {
	for i, seed := range m.seeds {
		var h maphash.Hash
		h.SetSeed(seed)
		maphash.WriteComparable(&h, kind)
		maphash.WriteComparable(&h, len(tenant))
		_, _ = h.WriteString(tenant) // a hash takes all
		_, _ = h.Write(text)
		k[i] = h.Sum64()
	}
	return k
}

func (m *Memo) get(k memoKey) (int64, bool) {
	e, ok := m.cache.Get(k[0])
	return e.tokens, ok && e.check == k[1]
}

func (m *Memo) put(k memoKey, tokens int64) {
	m.cache.Set(k[0], remembered{k[1], tokens}, 1)
}
