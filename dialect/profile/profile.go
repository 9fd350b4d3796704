// Package profile is what weir knows of the backends that speak OpenAI's API: where
// their paths are, how they tell that they are well and how busy they are, and how
// they say what was used. It is data, one row a backend, each with its source; code
// begins where the wire differs. It decides nothing.
package profile

import "slices"

// Profile is one kind of backend.
type Profile struct {
	// Name is what pools[].adapter says.
	Name string
	// Title is the name as its makers write it.
	Title string
	// Provider says that it is somebody else's service: it is not checked and not
	// asked how busy it is, and its answers tell limits (x-ratelimit-*).
	Provider bool
	// BasePath stands where OpenAI's /v1 stands, when an endpoint's URL has no path.
	BasePath string
	// Header carries the credential.
	Header string
	// Health is the path, beside the base path and not below it, that answers 200 while
	// the backend can serve; "" is none.
	Health  string
	Metrics Metrics
	// PrefixCache says that it keeps the KV cache of prompts and uses it for prompts that
	// begin alike: which of its endpoints is asked makes a difference.
	PrefixCache bool
	// StreamUsage is how a stream says what was used.
	StreamUsage StreamUsage
	// Notes are what an operator must know, each a sentence.
	Notes []string
	// Sources say where each of this was read. What was not seen in a source is marked
	// unverified.
	Sources []string
}

// Metrics are where and how a backend says how busy it is, in Prometheus' text
// format. Of several names the first that is there counts: they are of several
// versions. A backend without a path tells nothing.
type Metrics struct {
	Path string
	// Port, when it is not 0, is another port than the one that serves.
	Port uint32
	// Running and Waiting count requests; the series of one name are added up.
	Running, Waiting []string
	// KVUse is the use of the KV cache, 0 to 1; of several series the mean counts.
	KVUse []string
	// PrefixQueries and PrefixHits count prompt tokens that were looked up in the prefix
	// cache and found there.
	PrefixQueries, PrefixHits []string
}

// StreamUsage is how a stream says what was used.
type StreamUsage uint8

// The ways. The adapter's meter reads them all, and the last figure counts.
const (
	// OnRequest: in a last event of its own, when stream_options.include_usage asks.
	OnRequest StreamUsage = iota
	// LastChunk: in the last event, whatever was asked.
	LastChunk
	// InChoice: in the last event's choice.
	InChoice
	// EveryChunk: in every event, growing.
	EveryChunk
)

func (u StreamUsage) String() string {
	return [...]string{"last event, on request", "last event, always", "last event's choice", "every event"}[u]
}

// Default is the profile of pools that name none.
const Default = "openai"

// ByName finds a profile.
func ByName(name string) (*Profile, bool) {
	i := slices.IndexFunc(table, func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return nil, false
	}
	return &table[i], true
}

// Names lists the profiles, backends of one's own first.
func Names() []string {
	names := make([]string, len(table))
	for i := range table {
		names[i] = table[i].Name
	}
	return names
}

// All lists the profiles, in the order of Names.
func All() []Profile { return slices.Clone(table) }
