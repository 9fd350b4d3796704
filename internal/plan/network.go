package plan

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Network is a set of addresses: those from which something is permitted. It is
// kept as ranges that do not touch, in order, so that a look-up is one binary
// search however many prefixes there were, and denials cost nothing.
type Network struct {
	v4 []span[narrow]
	v6 []span[wide]
}

// NewNetwork is the addresses of allow without those of deny; an empty allow is
// all addresses. Prefixes are of IPv4 or IPv6, not of IPv4-mapped IPv6.
func NewNetwork(allow, deny []netip.Prefix) *Network {
	if len(allow) == 0 {
		allow = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	return &Network{
		v4: without(spansOf(allow, narrowSpan), spansOf(deny, narrowSpan)),
		v6: without(spansOf(allow, wideSpan), spansOf(deny, wideSpan)),
	}
}

// Admits tells whether the address is in the set. Nil is no condition. An address
// that is not known is in no set, and an IPv4-mapped one is its IPv4 address.
func (n *Network) Admits(a netip.Addr) bool {
	if n == nil {
		return true
	}
	a = a.Unmap()
	switch {
	case a.Is4():
		b := a.As4()
		return holds(n.v4, narrow(binary.BigEndian.Uint32(b[:])))
	case a.Is6() && a.Zone() == "":
		b := a.As16()
		return holds(n.v6, wide{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])})
	}
	return false
}

// Empty tells whether no address is in the set.
func (n *Network) Empty() bool { return n != nil && len(n.v4) == 0 && len(n.v6) == 0 }

// Meets tells whether any address is in both sets.
func (n *Network) Meets(m *Network) bool {
	if n == nil || m == nil {
		return !n.Empty() && !m.Empty()
	}
	return overlap(n.v4, m.v4) || overlap(n.v6, m.v6)
}

// number is an address of one family as a number.
type number[T any] interface {
	comparable
	less(T) bool
	next() T
	previous() T
}

// narrow is an IPv4 address.
type narrow uint32

func (n narrow) less(m narrow) bool { return n < m }
func (n narrow) next() narrow       { return n + 1 }
func (n narrow) previous() narrow   { return n - 1 }

// wide is an IPv6 address.
type wide struct{ hi, lo uint64 }

func (w wide) less(v wide) bool { return w.hi < v.hi || w.hi == v.hi && w.lo < v.lo }

func (w wide) next() wide {
	if w.lo++; w.lo == 0 {
		w.hi++
	}
	return w
}

func (w wide) previous() wide {
	if w.lo--; w.lo == ^uint64(0) {
		w.hi--
	}
	return w
}

// span is a range of addresses, both ends included.
type span[T number[T]] struct{ from, to T }

func narrowSpan(p netip.Prefix) (span[narrow], bool) {
	if !p.Addr().Is4() {
		return span[narrow]{}, false
	}
	b := p.Masked().Addr().As4()
	from := narrow(binary.BigEndian.Uint32(b[:]))
	return span[narrow]{from, from | narrow(uint64(1)<<(32-p.Bits())-1)}, true
}

func wideSpan(p netip.Prefix) (span[wide], bool) {
	if !p.Addr().Is6() {
		return span[wide]{}, false
	}
	b := p.Masked().Addr().As16()
	from := wide{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
	to := from
	if bits := p.Bits(); bits < 64 {
		to = wide{from.hi | ^uint64(0)>>bits, ^uint64(0)}
	} else if bits < 128 {
		to.lo |= ^uint64(0) >> (bits - 64)
	}
	return span[wide]{from, to}, true
}

// spansOf are the ranges of one family, in order and apart: prefixes lie within
// each other or do not meet.
func spansOf[T number[T]](prefixes []netip.Prefix, of func(netip.Prefix) (span[T], bool)) []span[T] {
	var spans []span[T]
	for _, p := range prefixes {
		if s, ok := of(p); ok {
			spans = append(spans, s)
		}
	}
	slices.SortFunc(spans, func(a, b span[T]) int {
		switch {
		case a.from.less(b.from) || a.from == b.from && b.to.less(a.to):
			return -1
		case a == b:
			return 0
		}
		return 1
	})
	out := spans[:0]
	for _, s := range spans {
		if len(out) == 0 || out[len(out)-1].to.less(s.from) {
			out = append(out, s)
		}
	}
	return out
}

// without takes the ranges of deny out of those of allow. Both are in order and
// apart.
func without[T number[T]](allow, deny []span[T]) []span[T] {
	var out []span[T]
	for _, a := range allow {
		for len(deny) > 0 && deny[0].to.less(a.from) {
			deny = deny[1:]
		}
		out = append(out, a.without(deny)...)
	}
	return out
}

// without is what is left of one range; the first of deny ends within or behind it.
func (s span[T]) without(deny []span[T]) []span[T] {
	var out []span[T]
	for _, d := range deny {
		if s.to.less(d.from) {
			break
		}
		if s.from.less(d.from) {
			out = append(out, span[T]{s.from, d.from.previous()})
		}
		if !d.to.less(s.to) {
			return out
		}
		s.from = d.to.next()
	}
	return append(out, s)
}

// holds finds v in ranges that are in order and apart.
func holds[T number[T]](spans []span[T], v T) bool {
	lo, hi := 0, len(spans)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if spans[mid].to.less(v) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(spans) && !v.less(spans[lo].from)
}

func overlap[T number[T]](a, b []span[T]) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].to.less(b[0].from):
			a = a[1:]
		case b[0].to.less(a[0].from):
			b = b[1:]
		default:
			return true
		}
	}
	return false
}

// Covers tells whether all addresses of the prefix are in the set.
func (n *Network) Covers(p netip.Prefix) bool {
	if s, ok := narrowSpan(p); ok {
		return covered(s, n.v4)
	}
	s, ok := wideSpan(p)
	return ok && covered(s, n.v6)
}

// covered tells whether the ranges, which may touch, hold all of s.
func covered[T number[T]](s span[T], spans []span[T]) bool {
	i, _ := slices.BinarySearchFunc(spans, s.from, func(r span[T], from T) int {
		if r.to.less(from) {
			return -1
		}
		return 1
	})
	return len(s.without(spans[i:])) == 0
}
