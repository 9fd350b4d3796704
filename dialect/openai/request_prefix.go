package openai

import (
	"github.com/cespare/xxhash/v2"

	"github.com/weirproxy/weir/dialect"
)

// leadingText is how much of a completion's prompt says which conversation it goes on:
// what an agent puts before its turns is mostly longer than that.
const leadingText = 1024

// PrefixKey is equal for requests that begin alike, so that one endpoint can answer them
// from its prefix cache: a hash of prompt_cache_key, if the client names one; or else of
// a chat's messages up to the first user's, which are the same in each turn of a
// conversation, or of the beginning of a completion's prompt. It is not ok where there is
// no text to begin with. Whoever works it out gets the same.
func (r *Request) PrefixKey() (key uint64, ok bool) {
	for _, f := range r.Fields {
		if name, value := r.Field(f); string(name) == "prompt_cache_key" && len(value) > 2 && value[0] == '"' {
			return xxhash.Sum64(value), true
		}
	}
	if len(r.Messages) == 0 {
		return r.promptKey()
	}
	last := 0
	for last < len(r.Messages)-1 && r.Messages[last].Role != dialect.RoleUser {
		last++
	}
	var d xxhash.Digest
	d.Reset()
	for i := range r.Messages[:last+1] {
		m := &r.Messages[i]
		_, _ = d.Write([]byte{0, byte(m.Role)}) // a hash's Write does not fail
		for j := m.First; j < m.End; j++ {
			_, _ = d.Write(r.Bytes(&r.Segments[j]))
		}
		for j := m.FirstMedia; j < m.EndMedia; j++ {
			_, _ = d.Write(r.Body[r.Media[j].Off : r.Media[j].Off+r.Media[j].Len])
		}
	}
	return d.Sum64(), true
}

func (r *Request) promptKey() (key uint64, ok bool) {
	for i := range r.Segments {
		if s := &r.Segments[i]; s.Kind == dialect.Prompt {
			text := r.Bytes(s)
			return xxhash.Sum64(text[:min(len(text), leadingText)]), len(text) > 0
		}
	}
	return 0, false
}
