package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

func TestNetworkAdmits(t *testing.T) {
	n := NewNetwork(prefixes("10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32", "255.255.255.0/24"), prefixes("10.1.2.0/24", "10.255.255.255/32", "2001:db8:1::/48"))
	for address, want := range map[string]bool{
		"10.0.0.0": true, "10.1.1.255": true, "10.1.2.0": false, "10.1.2.255": false, "10.1.3.0": true, "10.255.255.254": true, "10.255.255.255": false,
		"11.0.0.0": false, "9.255.255.255": false, "192.0.2.7": true, "192.0.2.6": false, "192.0.2.8": false, "255.255.255.255": true,
		"2001:db8::": true, "2001:db8:0:ffff:ffff:ffff:ffff:ffff": true, "2001:db8:1::": false, "2001:db8:1:ffff::": false, "2001:db8:2::": true,
		"2001:db9::": false, "::1": false, "::ffff:10.0.0.1": true, "::ffff:10.1.2.1": false, "2001:db8::1%eth0": false, "::10.0.0.1": false,
	} {
		if got := n.Admits(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	if n.Admits(netip.Addr{}) {
		t.Error("an address that is not known is admitted")
	}
	if !(*Network)(nil).Admits(netip.Addr{}) {
		t.Error("no network is a condition")
	}
}

func TestNetworkSets(t *testing.T) {
	all := NewNetwork(nil, nil)
	none := NewNetwork(nil, prefixes("0.0.0.0/0", "::/0"))
	halves := NewNetwork(prefixes("10.0.0.0/8"), prefixes("10.0.0.0/9", "10.128.0.0/9"))
	a, b, six := NewNetwork(prefixes("10.0.0.0/8"), nil), NewNetwork(prefixes("10.3.0.0/16"), nil), NewNetwork(prefixes("fd00::/8"), nil)
	for name, tc := range map[string]struct{ got, want bool }{
		"all": {all.Empty(), false}, "none": {none.Empty(), true}, "halves": {halves.Empty(), true}, "nil": {(*Network)(nil).Empty(), false},
		"nested": {a.Meets(b), true}, "families": {a.Meets(six), false}, "none meets": {none.Meets(all), false}, "all meets": {all.Meets(six), true},
		"nil meets": {(*Network)(nil).Meets(a), true}, "nil meets none": {none.Meets(nil), false},
		"denied": {b.Meets(NewNetwork(nil, prefixes("10.3.0.0/16"))), false},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %v", name, tc.got)
		}
	}
	if !all.Admits(netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")) || !all.Admits(netip.MustParseAddr("255.255.255.255")) {
		t.Error("the last addresses are not in the set of all")
	}
}

// Any lists, in a small corner of the address space, agree with looking at each prefix.
func TestNetworkAgreesWithEachPrefix(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	corner := func() netip.Prefix {
		last := byte(r.UintN(256))
		if r.UintN(2) == 0 {
			p, _ := netip.AddrFrom4([4]byte{255, 255, 255, last}).Prefix(24 + int(r.UintN(9)))
			return p
		}
		six := [16]byte{0: 0xfd, 7: 0xff, 8: last}
		p, _ := netip.AddrFrom16(six).Prefix(60 + int(r.UintN(13)))
		return p
	}
	contains := func(list []netip.Prefix, a netip.Addr) bool {
		for _, p := range list {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	for range 2000 {
		var allow, deny []netip.Prefix
		for range r.UintN(6) {
			allow = append(allow, corner())
		}
		for range r.UintN(6) {
			deny = append(deny, corner())
		}
		n := NewNetwork(allow, deny)
		for i := range 256 {
			four := netip.AddrFrom4([4]byte{255, 255, 255, byte(i)})
			six := netip.AddrFrom16([16]byte{0: 0xfd, 7: 0xff, 8: byte(i), 15: byte(i)})
			for _, a := range []netip.Addr{four, six} {
				if want := (len(allow) == 0 || contains(allow, a)) && !contains(deny, a); n.Admits(a) != want {
					t.Fatalf("%s: %v; allow %v, deny %v", a, !want, allow, deny)
				}
			}
		}
	}
}

func BenchmarkAdmits(b *testing.B) {
	for _, size := range []int{1, 100, 10_000} {
		var allow []netip.Prefix
		for i := range size {
			allow = append(allow, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), 0}), 24))
			allow = append(allow, netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 4: byte(i >> 7), 5: byte(i << 1)}), 48))
		}
		n := NewNetwork(allow, nil)
		for name, a := range map[string]netip.Addr{"IPv4": netip.MustParseAddr("10.20.30.40"), "IPv6": netip.MustParseAddr("fd00::2020:0:1")} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					n.Admits(a)
				}
			})
		}
	}
}
