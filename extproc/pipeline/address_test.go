package pipeline

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/plan"
)

func trusted(hops int) *plan.ProxyTrust {
	return &plan.ProxyTrust{Hops: hops, Proxies: plan.NewNetwork([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}, nil)}
}

func located(peer string, trust *plan.ProxyTrust, forwarded ...string) string {
	in := Inbound{}
	if peer != "" {
		in.Headers = append(in.Headers, Header{"x-weir-peer", peer})
	}
	for _, f := range forwarded {
		in.Headers = append(in.Headers, Header{"x-forwarded-for", f})
	}
	in.locate(trust)
	if !in.Client.IsValid() {
		return ""
	}
	return in.Client.String()
}

func TestClientAddress(t *testing.T) {
	for name, tc := range map[string]struct {
		peer      string
		hops      int // 0: nobody is trusted
		forwarded []string
		want      string
	}{
		"no proxies are trusted":                {"10.0.0.1", 0, []string{"203.0.113.9, 10.0.0.1"}, "10.0.0.1"},
		"the peer is no trusted proxy":          {"198.51.100.1", 5, []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1"},
		"one hop":                               {"10.0.0.1", 1, []string{"203.0.113.9, 10.0.0.1"}, "203.0.113.9"},
		"the client's own entry is passed over": {"10.0.0.1", 1, []string{"10.9.9.9, 203.0.113.9, 10.0.0.1"}, "203.0.113.9"},
		"two hops":                              {"10.0.0.1", 2, []string{"203.0.113.9, 10.0.0.2, 10.0.0.1"}, "203.0.113.9"},
		"more proxies than hops":                {"10.0.0.1", 1, []string{"203.0.113.9, 10.0.0.2, 10.0.0.1"}, "10.0.0.2"},
		"spoofed before an untrusted hop":       {"10.0.0.1", 5, []string{"10.0.0.7, 198.51.100.1, 10.0.0.2, 10.0.0.1"}, "198.51.100.1"},
		"the proxy itself calls":                {"10.0.0.1", 3, []string{"10.0.0.1"}, "10.0.0.1"},
		"several lines":                         {"10.0.0.1", 2, []string{"203.0.113.9", "10.0.0.2,10.0.0.1"}, "203.0.113.9"},
		"loopback, as Envoy appends it":         {"127.0.0.1", 1, []string{"192.168.1.7"}, "127.0.0.1"},
		"IPv4-mapped peer":                      {"::ffff:10.0.0.1", 1, []string{"203.0.113.9, 10.0.0.1"}, "203.0.113.9"},
		"IPv4-mapped client":                    {"10.0.0.1", 1, []string{"::ffff:203.0.113.9, 10.0.0.1"}, "203.0.113.9"},
		"IPv4-mapped proxy":                     {"10.0.0.1", 2, []string{"203.0.113.9, ::ffff:10.0.0.2, 10.0.0.1"}, "203.0.113.9"},
		"IPv6":                                  {"fd00::1", 1, []string{"2001:db8::1, fd00::1"}, "2001:db8::1"},
		"a port":                                {"10.0.0.1", 1, []string{"203.0.113.9:4711, 10.0.0.1"}, "203.0.113.9"},
		"an IPv6 port":                          {"10.0.0.1", 1, []string{"[2001:db8::1]:4711, 10.0.0.1"}, "2001:db8::1"},
		"a zone":                                {"10.0.0.1", 1, []string{"fe80::1%eth0, 10.0.0.1"}, ""},
		"a name":                                {"10.0.0.1", 1, []string{"unknown, 10.0.0.1"}, ""},
		"nothing":                               {"10.0.0.1", 1, []string{", 10.0.0.1"}, ""},
		"octal":                                 {"10.0.0.1", 1, []string{"010.0.0.2, 10.0.0.1"}, ""},
		"garbage is not passed over":            {"10.0.0.1", 5, []string{"203.0.113.9, x, 10.0.0.1"}, ""},
		"no peer":                               {"", 5, []string{"203.0.113.9, 10.0.0.1"}, ""},
		"a peer that is no address":             {"@", 5, []string{"203.0.113.9, 10.0.0.1"}, ""},
	} {
		var trust *plan.ProxyTrust
		if tc.hops > 0 {
			trust = trusted(tc.hops)
		}
		if got := located(tc.peer, trust, tc.forwarded...); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// Whatever stands in the header, the address comes from an entry that follows a
// trusted one, at most as many to the left as there are hops.
func FuzzClientAddress(f *testing.F) {
	f.Add("203.0.113.9, 10.0.0.2, 10.0.0.1")
	f.Add(",,10.0.0.1")
	f.Add("[::1]:1,10.0.0.1")
	f.Fuzz(func(t *testing.T, forwarded string) {
		const hops = 2
		got := located("10.0.0.1", trusted(hops), forwarded)
		entries := strings.Split(forwarded, ",")
		possible := map[string]bool{"10.0.0.1": true}
		for i := 1; i <= hops && i < len(entries); i++ {
			entry := parseAddress(strings.Trim(entries[len(entries)-1-i], " \t"))
			if !entry.IsValid() {
				possible[""] = true
				break
			}
			possible[entry.String()] = true
			if !trusted(hops).Trusts(entry) {
				break
			}
		}
		if !possible[got] {
			t.Errorf("%q from %q", got, forwarded)
		}
	})
}

func BenchmarkLocate(b *testing.B) {
	in := Inbound{Headers: []Header{
		{":method", "POST"}, {":path", "/v1/chat/completions"}, {":authority", "x"}, {"authorization", "Bearer x"}, {"content-type", "application/json"},
		{"x-forwarded-for", "203.0.113.9, 10.0.0.2, 10.0.0.1"}, {"x-forwarded-proto", "https"}, {"x-request-id", "x"}, {"x-weir-peer", "10.0.0.1"},
	}}
	for name, trust := range map[string]*plan.ProxyTrust{"peer": nil, "two hops": trusted(2)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				in.locate(trust)
			}
		})
	}
}
