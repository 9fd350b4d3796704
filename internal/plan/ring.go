package plan

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/ai"
)

// State is what was decided about a key of the control store.
type State uint8

// The states. Expiry is no state: it follows from the time.
const (
	StateActive State = iota
	StateDisabled
	StateRevoked
)

func (s State) String() string { return [...]string{"active", "disabled", "revoked"}[s] }

// Owner is whom a key of the control store belongs to, by names of the
// configuration: an application, or a team, and roles beside theirs.
type Owner struct {
	Application string
	Team        string
	Roles       []string // sorted, without duplicates
}

// text is one string for equal owners; names hold none of these characters.
func (o Owner) text() string {
	return o.Application + "\n" + o.Team + "\n" + strings.Join(o.Roles, "\n")
}

// StoredKey is one secret of the control store, or what it says of a key of the
// configuration.
type StoredKey struct {
	Hash  KeyHash
	Name  string // at most 255 bytes
	State State
	// Owner is nil for an override, which decides nothing but the state of a key of
	// the configuration.
	Owner   *Owner
	Expires time.Time // zero is never; whole seconds count
	// Superseded is a secret that was rotated out and may still be in its overlap.
	Superseded bool
	// Remove takes the secret out.
	Remove bool
}

// Ring is the index of the keys of the control store: millions of them, changed
// one by one while requests are decided. Readers take no lock and allocate
// nothing; a change copies one shard of 16,384. A nil Ring is empty.
//
// An entry is 48 bytes and its name, without a pointer, so that the garbage
// collector has nothing to follow; owners, of which there are few, are kept once.
type Ring struct {
	shards [1 << shardBits]atomic.Pointer[shard]
	owners atomic.Pointer[[]*owner] // grows only

	writing sync.Mutex
	known   map[string]uint32 // index in owners, by text
	plan    *Plan             // the last one that was bound
}

const shardBits = 14

// shard is immutable. Entries are sorted by their hashes.
type shard struct {
	entries []entry
	names   string
}

type entry struct {
	hash    KeyHash
	expires uint32 // seconds since the epoch; 0 is never
	owner   uint32
	nameAt  uint32
	nameLen uint8
	state   State
	old     bool // superseded
}

// noOwner marks an override.
const noOwner = ^uint32(0)

// NewRing is an empty ring.
func NewRing() *Ring {
	r := &Ring{known: map[string]uint32{}}
	r.owners.Store(new([]*owner))
	return r
}

// found is what the ring has of one hash.
type found struct {
	name    string
	state   State
	expires uint32
	owner   *owner
}

func (f *found) refusal(now time.Time) ai.Reason {
	switch {
	case f.state == StateRevoked:
		return ai.ReasonKeyRevoked
	case f.state == StateDisabled:
		return ai.ReasonKeyDisabled
	case f.expires != 0 && now.Unix() >= int64(f.expires):
		return ai.ReasonKeyExpired
	}
	return ai.ReasonNone
}

func shardOf(h *KeyHash) int { return int(binary.BigEndian.Uint16(h[:2]) >> (16 - shardBits)) }

// find looks a hash up. Hashes are spread evenly, so that the place of one among
// its sorted neighbours can be guessed; the walk from there is a few steps.
func (r *Ring) find(h *KeyHash) (found, bool) {
	if r == nil {
		return found{}, false
	}
	s := r.shards[shardOf(h)].Load()
	if s == nil {
		return found{}, false
	}
	i, ok := s.search(h)
	if !ok {
		return found{}, false
	}
	e := &s.entries[i]
	f := found{name: s.name(e), state: e.state, expires: e.expires}
	if e.owner != noOwner {
		f.owner = (*r.owners.Load())[e.owner]
	}
	return f, true
}

func (s *shard) name(e *entry) string { return s.names[e.nameAt:][:e.nameLen] }

// search finds the index of a hash, or where it would stand.
func (s *shard) search(h *KeyHash) (int, bool) {
	want := binary.BigEndian.Uint64(h[:8])
	guess, _ := bits.Mul64(want<<shardBits, uint64(len(s.entries)))
	i := int(guess)
	for i < len(s.entries) && s.prefix(i) < want {
		i++
	}
	for i > 0 && s.prefix(i-1) >= want {
		i--
	}
	for i < len(s.entries) && s.prefix(i) == want {
		switch bytes.Compare(s.entries[i].hash[:], h[:]) {
		case 0:
			return i, true
		case 1:
			return i, false
		}
		i++
	}
	return i, false
}

func (s *shard) prefix(i int) uint64 { return binary.BigEndian.Uint64(s.entries[i].hash[:8]) }

// Put adds secrets, replaces those with the same hash, and takes out those marked
// so. Of several with one hash the last counts. The list is sorted.
func (r *Ring) Put(keys []StoredKey) {
	r.writing.Lock()
	defer r.writing.Unlock()
	slices.SortStableFunc(keys, func(a, b StoredKey) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
	for len(keys) > 0 {
		at, n := shardOf(&keys[0].Hash), 1
		for n < len(keys) && shardOf(&keys[n].Hash) == at {
			n++
		}
		r.shards[at].Store(r.merge(r.shards[at].Load(), keys[:n]))
		keys = keys[n:]
	}
}

// merge is a new shard of an old one and sorted changes; nil when nothing is left.
func (r *Ring) merge(old *shard, changes []StoredKey) *shard {
	if old == nil {
		old = &shard{}
	}
	out := &shard{entries: make([]entry, 0, len(old.entries)+len(changes))}
	names := make([]byte, 0, len(old.names)+32*len(changes))
	add := func(e entry, name string) {
		name = name[:min(len(name), 255)]
		e.nameAt, e.nameLen = uint32(len(names)), uint8(len(name))
		names = append(names, name...)
		out.entries = append(out.entries, e)
	}
	i := 0
	for j := range changes {
		c := &changes[j]
		for ; i < len(old.entries) && bytes.Compare(old.entries[i].hash[:], c.Hash[:]) < 0; i++ {
			add(old.entries[i], old.name(&old.entries[i]))
		}
		if i < len(old.entries) && old.entries[i].hash == c.Hash {
			i++
		}
		again := j+1 < len(changes) && changes[j+1].Hash == c.Hash
		if !c.Remove && !again {
			add(r.entry(c), c.Name)
		}
	}
	for ; i < len(old.entries); i++ {
		add(old.entries[i], old.name(&old.entries[i]))
	}
	if len(out.entries) == 0 {
		return nil
	}
	out.entries, out.names = slices.Clip(out.entries), string(names)
	return out
}

func (r *Ring) entry(k *StoredKey) entry {
	e := entry{hash: k.Hash, state: k.State, old: k.Superseded, owner: noOwner}
	if k.Owner != nil {
		e.owner = r.intern(*k.Owner)
	}
	if !k.Expires.IsZero() { // 0 would be never
		e.expires = uint32(min(max(k.Expires.Unix(), 1), int64(^uint32(0))))
	}
	return e
}

// owner is an Owner, and what it means under the plan in force.
type owner struct {
	Owner
	now atomic.Pointer[binding]
}

// binding is an owner under one plan.
type binding struct {
	plan    *Plan
	key     Key // without a name
	refused ai.Reason
}

// intern finds or adds an owner.
func (r *Ring) intern(o Owner) uint32 {
	text := o.text()
	if i, ok := r.known[text]; ok {
		return i
	}
	list := *r.owners.Load()
	added := &owner{Owner: Owner{strings.Clone(o.Application), strings.Clone(o.Team), slices.Clone(o.Roles)}}
	if r.plan != nil {
		added.now.Store(bind(r.plan, o))
	}
	// Readers see the old length or the new one; what is within is never changed.
	list = append(list, added)
	r.owners.Store(&list)
	r.known[text] = uint32(len(list) - 1)
	return r.known[text]
}

// under is the owner under a plan: kept for the one in force, made anew for a
// request that began under another.
func (o *owner) under(p *Plan) *binding {
	if b := o.now.Load(); b != nil && b.plan == p {
		return b
	}
	return bind(p, o.Owner)
}

func bind(p *Plan, o Owner) *binding {
	b := &binding{plan: p}
	if p.Gone(o) != "" {
		b.key.Principal = ai.Principal{Application: o.Application, Team: o.Team}
		b.refused = ai.ReasonKeyOrphaned
		return b
	}
	b.key.Principal = p.PrincipalOf(o)
	b.key.Roles = p.RolesOf(b.key.Principal.Roles)
	return b
}

// Bind resolves every owner under a plan that is about to come into force. It
// returns what the plan does not have and how many keys name it, which are refused
// from then on: sorted.
func (r *Ring) Bind(p *Plan) []Orphans {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.plan = p
	owners := *r.owners.Load()
	gone := make([]string, len(owners))
	some := false
	for i, o := range owners {
		o.now.Store(bind(p, o.Owner))
		gone[i] = p.Gone(o.Owner)
		some = some || gone[i] != ""
	}
	if !some {
		return nil
	}
	counts := map[string]int{}
	r.each(func(_ *shard, e *entry) {
		if e.owner != noOwner && gone[e.owner] != "" && e.state == StateActive && !e.old {
			counts[gone[e.owner]]++
		}
	})
	var list []Orphans
	for what, n := range counts {
		list = append(list, Orphans{what, n})
	}
	slices.SortFunc(list, func(a, b Orphans) int { return cmp.Compare(a.Gone, b.Gone) })
	return list
}

// Orphans are active keys that name something that the configuration does not have.
type Orphans struct {
	Gone string // as "team research"
	Keys int
}

// ByName finds the newest secret of a key by the key's name. It walks through all of
// them: for a person's question, not for a request.
func (r *Ring) ByName(name string) (StoredKey, bool) {
	return r.first(func(s *shard, e *entry) bool { return !e.old && e.owner != noOwner && s.name(e) == name })
}

// ByHash finds a secret, or an override, in the same way.
func (r *Ring) ByHash(h KeyHash) (StoredKey, bool) {
	return r.first(func(_ *shard, e *entry) bool { return e.hash == h })
}

func (r *Ring) first(wanted func(*shard, *entry) bool) (k StoredKey, ok bool) {
	if r == nil {
		return k, false
	}
	r.each(func(s *shard, e *entry) {
		if ok || !wanted(s, e) {
			return
		}
		ok = true
		k = StoredKey{Hash: e.hash, Name: s.name(e), State: e.state, Superseded: e.old}
		if e.expires != 0 {
			k.Expires = time.Unix(int64(e.expires), 0)
		}
		if e.owner != noOwner {
			k.Owner = &(*r.owners.Load())[e.owner].Owner
		}
	})
	return k, ok
}

func (r *Ring) each(fn func(*shard, *entry)) {
	for i := range r.shards {
		if s := r.shards[i].Load(); s != nil {
			for j := range s.entries {
				fn(s, &s.entries[j])
			}
		}
	}
}

// Census counts the stored keys by what becomes of a request with one: active,
// disabled, revoked, expired, orphaned. Secrets that were rotated out and overrides
// are not counted.
func (r *Ring) Census(now time.Time) map[string]int {
	counts := map[string]int{"active": 0, "disabled": 0, "revoked": 0, "expired": 0, "orphaned": 0}
	owners := *r.owners.Load()
	r.each(func(_ *shard, e *entry) {
		if e.old || e.owner == noOwner || int(e.owner) >= len(owners) { // of a change under way
			return
		}
		switch {
		case e.state != StateActive:
			counts[e.state.String()]++
		case e.expires != 0 && now.Unix() >= int64(e.expires):
			counts["expired"]++
		case refused(owners[e.owner]):
			counts["orphaned"]++
		default:
			counts["active"]++
		}
	})
	return counts
}

func refused(o *owner) bool {
	b := o.now.Load()
	return b == nil || b.refused != ai.ReasonNone
}
