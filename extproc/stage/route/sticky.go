package route

import (
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/plan"
)

// stickyKey is equal for the requests that keep to one pool of a split. It differs from
// model to model, so that it is not always the same callers who come first.
func stickyKey(ex *pipeline.Exchange, by plan.Sticky) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(ex.Decision.Model.Name) // a hash's Write does not fail
	if by == plan.StickyConversation {
		if key, ok := ex.In.Request.PrefixKey(); ok {
			return mix(d.Sum64() ^ key)
		}
	}
	for _, part := range [...]string{ex.Principal.Key, ex.Principal.Application, ex.Principal.Team, ex.Principal.User} {
		_, _ = d.Write([]byte{0})
		_, _ = d.WriteString(part)
	}
	return d.Sum64()
}

// kept is the index of the pool that a key keeps to: each pool is as likely as its
// weight, and when weights change, no key leaves a pool whose share did not shrink for
// another whose share did not grow. It is weighted rendezvous hashing: of exponential
// times with the weights as rates, one for each pool, the least.
func kept(key uint64, pools []*plan.Pool, weights []uint32) (at int) {
	least := math.Inf(1)
	for i, p := range pools {
		u := (float64(mix(key^xxhash.Sum64String(p.Name))>>11) + 0.5) / (1 << 53)
		if t := -math.Log(u) / float64(weights[i]); t < least {
			at, least = i, t
		}
	}
	return at
}

// mix spreads a number over all bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
