package config

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// compileOrigins compiles from where requests are accepted, apart from keys.
func (c *compilation) compileOrigins() {
	c.proxyTrust()
	c.out.TeamNetworks = map[string]*plan.Network{}
	for i, t := range c.cfg.Teams {
		if n := c.network(index("teams", i)+".network", t.Network); n != nil {
			c.out.TeamNetworks[t.Name] = n
		}
	}
}

// networks tells whether a key or a team has a network.
func (c *compilation) networks() bool {
	return len(c.out.TeamNetworks) > 0 || slices.ContainsFunc(c.out.KeyList, func(k *plan.Key) bool { return k.Network != nil })
}

// proxyTrust compiles which proxies are believed. A number of hops alone would
// let whoever connects say where he comes from.
func (c *compilation) proxyTrust() {
	t := c.cfg.ProxyTrust
	if t == nil {
		return
	}
	if len(t.TrustedProxies) == 0 {
		c.fault("proxy_trust", "trusted_hops without trusted_proxies: whoever connects could say where it comes from")
		return
	}
	proxies := c.prefixes("proxy_trust.trusted_proxies", t.TrustedProxies)
	for i, p := range proxies {
		if p.Bits() == 0 {
			c.fault(index("proxy_trust.trusted_proxies", i), "%s is everybody: whoever connects could say where it comes from", p)
		}
	}
	c.out.Proxies = &plan.ProxyTrust{Hops: int(t.TrustedHops), Proxies: plan.NewNetwork(proxies, nil)}
	if len(proxies) == 0 {
		c.out.Proxies = nil // every entry is faulty
	}
}

// unasked reports trust that nothing asks for, and a mode for nothing.
func (c *compilation) unasked() {
	trusts := func(l *configv1.Listener) bool { return l.TrustClientCertHeader }
	roles := slices.ContainsFunc(c.cfg.Roles, func(r *configv1.Role) bool { return r.Network != nil })
	if c.out.Proxies != nil && !roles && !c.networks() && !slices.ContainsFunc(c.cfg.Listeners, trusts) {
		c.warn("proxy_trust", "no network and no listener asks where a client is")
	}
	for i, s := range c.cfg.Stages {
		if s.Stage == "network" && c.out.Mode("network") != plan.Enforce && !c.networks() && !c.under(index("stages", i)) {
			c.fault(index("stages", i), "no key and no team has a network: stage network has nothing to judge")
		}
	}
}

// keyNetwork compiles a key's network, which must meet that of its team.
func (c *compilation) keyNetwork(path string, n *configv1.Network, team string) *plan.Network {
	network := c.network(path, n)
	if network != nil && !network.Meets(c.out.TeamNetworks[team]) && !c.under(path) {
		c.fault(path, "no address of it is in the network of team %q: the key could be used from nowhere", team)
	}
	return network
}

// network compiles lists of addresses; nil for a network that is not there or faulty.
func (c *compilation) network(path string, n *configv1.Network) *plan.Network {
	if n == nil {
		return nil
	}
	if len(n.Allow)+len(n.Deny) == 0 {
		c.fault(path, "neither allow nor deny: it would say nothing")
		return nil
	}
	before := len(c.faults)
	allow, deny := c.prefixes(path+".allow", n.Allow), c.prefixes(path+".deny", n.Deny)
	if len(c.faults) > before {
		return nil
	}
	network := plan.NewNetwork(allow, deny)
	if network.Empty() {
		c.fault(path, "deny covers all that is allowed: nobody could call")
		return nil
	}
	denied := plan.NewNetwork(deny, nil)
	for i, p := range allow {
		if len(deny) > 0 && denied.Covers(p) {
			c.fault(index(path+".allow", i), "%s is denied altogether, and deny wins", p)
		}
	}
	allowed := plan.NewNetwork(allow, nil)
	for i, p := range deny {
		if !plan.NewNetwork(deny[i:i+1], nil).Meets(allowed) {
			c.fault(index(path+".deny", i), "denies nothing: no address of %s is allowed", p)
		}
	}
	return network
}

// prefixes parses a list of addresses and ranges, each once.
func (c *compilation) prefixes(path string, texts []string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(texts))
	at := make(map[netip.Prefix]int, len(texts))
	for i, text := range texts {
		p, err := parsePrefix(text)
		if err != nil {
			c.fault(index(path, i), "%s", err)
			continue
		}
		if first, again := at[p]; again {
			c.fault(index(path, i), "%s is listed already: %s", p, index(path, first))
			continue
		}
		at[p] = i
		out = append(out, p)
	}
	for _, p := range out {
		if wider, ok := widerOf(p, at); ok {
			c.warn(index(path, at[p]), "%s is within %s, which is listed too", p, wider)
		}
	}
	return out
}

// widerOf finds a wider range of the list that holds the range.
func widerOf(p netip.Prefix, list map[netip.Prefix]int) (netip.Prefix, bool) {
	for bits := p.Bits() - 1; bits >= 0; bits-- {
		wider, err := p.Addr().Prefix(bits)
		if err != nil {
			break
		}
		if _, ok := list[wider]; ok {
			return wider, true
		}
	}
	return netip.Prefix{}, false
}

// parsePrefix reads an address or a range of them.
func parsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errors.New("want an address or a range of addresses, as 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32")
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	case p.Addr().Is4In6():
		return netip.Prefix{}, errors.New("write an IPv4-mapped address as IPv4")
	case p != p.Masked():
		return netip.Prefix{}, errors.New(text + " has bits behind its prefix; the range is " + p.Masked().String())
	}
	return p, nil
}
