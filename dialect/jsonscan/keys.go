package jsonscan

import (
	"bytes"
	"hash/maphash"

	"github.com/weirproxy/weir/internal/ai"
)

// keySet holds the keys of all open objects, the innermost object's last.
//
// An object with few keys is searched from end to end. One with many has its
// keys in a table with linear probing. Objects close in the reverse order in
// which they open, so that keys leave the table in the reverse order in which
// they came, and the table needs no tombstones. The hash is seeded anew in each
// process: no client can know which keys collide.
type keySet struct {
	keys  []key
	slots []uint32 // index into keys plus one; 0 is free; a power of two long
	used  int      // slots that are not free
	other []byte   // a decoded key that another is compared with
}

type key struct {
	hash    uint64
	off     uint32
	len     uint32
	escaped bool
}

// fewKeys is up to how many keys an object is searched from end to end.
const fewKeys = 12

var seed = maphash.MakeSeed()

// reset empties the set. After a walk that ended well it is empty already.
func (k *keySet) reset() {
	k.keys = k.keys[:0]
	if k.used > 0 {
		clear(k.slots)
		k.used = 0
	}
}

// addKey notes a key of the innermost object; a fault when it is there already.
func (s *Scanner) addKey(v Value) bool {
	name := s.Text(v)
	top := &s.frames[len(s.frames)-1]
	// Equal keys of nested objects must not pile up in the table.
	hash := maphash.Bytes(seed, name) ^ uint64(len(s.frames))*0x9E3779B97F4A7C15
	if s.keys.has(top, hash, name, s.body) {
		return s.fail(ai.ReasonDuplicateKey, v.Off, "an object has the same key twice")
	}
	s.keys.keys = append(s.keys.keys, key{hash: hash, off: uint32(v.Off), len: uint32(v.Len), escaped: v.Escaped})
	switch count := len(s.keys.keys) - top.first; {
	case top.hashed:
		s.keys.insert(len(s.keys.keys)-1, s.frames)
	case count > fewKeys:
		top.hashed = true
		for i := top.first; i < len(s.keys.keys); i++ {
			s.keys.insert(i, s.frames)
		}
	}
	return true
}

func (k *keySet) has(top *frame, hash uint64, name, body []byte) bool {
	if !top.hashed {
		for i := top.first; i < len(k.keys); i++ {
			if k.keys[i].hash == hash && k.same(i, name, body) {
				return true
			}
		}
		return false
	}
	mask := uint64(len(k.slots) - 1)
	for p := hash & mask; k.slots[p] != 0; p = (p + 1) & mask {
		i := int(k.slots[p]) - 1
		if i >= top.first && k.keys[i].hash == hash && k.same(i, name, body) {
			return true
		}
	}
	return false
}

func (k *keySet) same(i int, name, body []byte) bool {
	literal := body[k.keys[i].off : k.keys[i].off+k.keys[i].len]
	if !k.keys[i].escaped {
		return string(literal[1:len(literal)-1]) == string(name)
	}
	k.other = AppendText(k.other[:0], literal)
	return bytes.Equal(k.other, name)
}

// insert puts the key with this index, the last one, into the table, which grows
// at half full.
func (k *keySet) insert(index int, frames []frame) {
	if 2*(k.used+1) > len(k.slots) {
		k.grow(index, frames)
	}
	k.put(index)
}

func (k *keySet) put(index int) {
	mask := uint64(len(k.slots) - 1)
	p := k.keys[index].hash & mask
	for k.slots[p] != 0 {
		p = (p + 1) & mask
	}
	k.slots[p] = uint32(index) + 1
	k.used++
}

// grow doubles the table and puts the keys before index in again, in their order.
func (k *keySet) grow(index int, frames []frame) {
	k.slots = make([]uint32, max(128, 2*len(k.slots)))
	k.used = 0
	for f, fr := range frames {
		end := index
		if f+1 < len(frames) {
			end = min(index, frames[f+1].first)
		}
		for i := fr.first; fr.hashed && i < end; i++ {
			k.put(i)
		}
	}
}

// drop forgets the keys from first on: those of the object that is left.
func (k *keySet) drop(first int, hashed bool) {
	if hashed {
		mask := uint64(len(k.slots) - 1)
		for i := len(k.keys) - 1; i >= first; i-- {
			p := k.keys[i].hash & mask
			for k.slots[p] != uint32(i)+1 {
				p = (p + 1) & mask
			}
			k.slots[p] = 0
			k.used--
		}
	}
	k.keys = k.keys[:first]
}
