package pipeline

import (
	"iter"
	"net/netip"
	"strings"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// locate finds the addresses. The peer's is what Envoy says of its connection;
// whom a trusted proxy had before it stands in x-forwarded-for, from right to
// left. What a trusted proxy says and cannot be read is not passed over: the
// client's address is then not known.
func (in *Inbound) locate(trust *plan.ProxyTrust) {
	value, lines := in.Header(ai.PeerHeader)
	if lines != 1 {
		return
	}
	in.Peer = parseAddress(value)
	in.Client = in.Peer
	if !trust.Trusts(in.Peer) {
		return
	}
	hop := -1 // the last entry is the peer's, which Envoy has appended
	for entry := range in.forwardedFor() {
		if hop++; hop == 0 {
			continue
		}
		in.Client = parseAddress(entry)
		if hop >= trust.Hops || !trust.Trusts(in.Client) {
			return
		}
	}
}

// forwardedFor are the entries of x-forwarded-for, the last one first.
func (in *Inbound) forwardedFor() iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := len(in.Headers) - 1; i >= 0; i-- {
			if in.Headers[i].Name != "x-forwarded-for" {
				continue
			}
			rest, more := in.Headers[i].Value, true
			for more {
				comma := strings.LastIndexByte(rest, ',')
				entry := strings.Trim(rest[comma+1:], " \t")
				if more = comma >= 0; more {
					rest = rest[:comma]
				}
				if !yield(entry) {
					return
				}
			}
		}
	}
}

// parseAddress reads an address, with or without a port, which some proxies
// write too. An IPv4-mapped one is its IPv4 address; a zone has a meaning on
// another machine only.
func parseAddress(s string) netip.Addr {
	const longest = len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535")
	if s == "" || len(s) > longest {
		return netip.Addr{}
	}
	var a netip.Addr
	if s[0] == '[' || strings.Count(s, ":") == 1 {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}
		}
		a = ap.Addr()
	} else {
		var err error
		if a, err = netip.ParseAddr(s); err != nil {
			return netip.Addr{}
		}
	}
	if a.Zone() != "" {
		return netip.Addr{}
	}
	return a.Unmap()
}
