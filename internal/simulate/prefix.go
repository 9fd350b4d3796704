package simulate

import (
	"container/list"
	"encoding/binary"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/tidwall/gjson"
)

// prefixBlock is how many bytes of a prompt are kept or forgotten together: some
// sixteen tokens, the size of vLLM's blocks.
const prefixBlock = 64

// PrefixCache knows which prompts were prefilled, block by block, as vLLM's automatic
// prefix caching does: a block is found only behind all the blocks that were before it.
// The least recently used blocks are forgotten first. It is safe for concurrent use.
type PrefixCache struct {
	most int // blocks

	mu     sync.Mutex
	blocks map[uint64]*list.Element
	recent list.List // of hashes, the newest first
}

// NewPrefixCache makes a cache that holds so many bytes of prompts.
func NewPrefixCache(size int) *PrefixCache {
	return &PrefixCache{most: max(1, size/prefixBlock), blocks: map[uint64]*list.Element{}}
}

// Prefill takes a prompt in and returns how many of its leading bytes were there.
func (c *PrefixCache) Prefill(prompt string) (cached int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var chain [8]byte
	found := true
	for len(prompt) >= prefixBlock {
		var d xxhash.Digest
		d.Reset()
		_, _ = d.Write(chain[:])
		_, _ = d.WriteString(prompt[:prefixBlock])
		prompt = prompt[prefixBlock:]
		hash := d.Sum64()
		binary.LittleEndian.PutUint64(chain[:], hash)
		if found = c.touch(hash) && found; found {
			cached += prefixBlock
		}
	}
	return cached
}

// touch makes a block the newest, and tells whether it was there.
func (c *PrefixCache) touch(hash uint64) bool {
	if e, ok := c.blocks[hash]; ok {
		c.recent.MoveToFront(e)
		return true
	}
	c.blocks[hash] = c.recent.PushFront(hash)
	if len(c.blocks) > c.most {
		oldest := c.recent.Back()
		delete(c.blocks, c.recent.Remove(oldest).(uint64))
	}
	return false
}

// prefill is how many tokens of the job's prompt the cache had.
func (j *job) prefill() int {
	if j.s.prefix == nil {
		return 0
	}
	text := gjson.Get(j.body, "messages").Raw + gjson.Get(j.body, "prompt").Raw // it has one of them
	if text == "" {
		return 0
	}
	tokens := j.promptTokens()
	cached := tokens * j.s.prefix.Prefill(text) / len(text)
	j.s.metrics.prefixQueries.Add(float64(tokens))
	j.s.metrics.prefixHits.Add(float64(cached))
	return cached
}
