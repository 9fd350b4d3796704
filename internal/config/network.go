package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/dialect/profile"
	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// bound is an address that something of this configuration listens on.
type bound struct {
	path    string
	address netip.AddrPort
}

// addresses compiles what listens, apart from simulators.
func (c *compilation) addresses() {
	c.named("listeners", "listener", len(c.cfg.Listeners), func(i int) string { return c.cfg.Listeners[i].Name })
	var taken []bound
	for i, l := range c.cfg.Listeners {
		path := index("listeners", i)
		address, ok := c.listenAddress(path+".address", l.Address, true)
		if ok {
			taken = c.take(taken, path+".address", address)
		}
		c.out.Listeners = append(c.out.Listeners, plan.Listener{
			Name: l.Name, Address: address.String(), TLS: c.serverTLS(path+".tls", l.Tls),
			TrustClientCertHeader: c.clientCertHeader(path, l),
		})
	}
	if address, ok := c.listenAddress("admin.address", c.cfg.Admin.Address, true); ok {
		if !address.Addr().IsLoopback() {
			c.warn("admin.address", "the admin address has no authentication; keep it on loopback")
		}
		taken = c.take(taken, "admin.address", address)
		c.out.Admin = address.String()
	}
	taken = c.adminAPI(taken)
	c.named("simulators", "simulator", len(c.cfg.Simulators), func(i int) string { return c.cfg.Simulators[i].Name })
	for i, s := range c.cfg.Simulators {
		if _, known := profile.ByName(s.Profile); s.Profile != "" && !known {
			c.fault(index("simulators", i)+".profile", "%s", unknownAdapter(s.Profile))
		}
		path := index("simulators", i) + ".listen"
		address, ok := c.listenAddress(path, s.Listen, false)
		if ok && !address.Addr().IsLoopback() {
			c.fault(path, "a simulator listens on loopback only")
		} else if ok {
			taken = c.take(taken, path, address)
		}
		c.out.Simulators = append(c.out.Simulators, plan.Simulator{Name: s.Name, Address: address.String(), Profile: s.Profile})
	}
}

// listenAddress parses host:port with an IP address for host, or localhost.
func (c *compilation) listenAddress(path, text string, anyPort bool) (netip.AddrPort, bool) {
	if text == "" {
		return netip.AddrPort{}, false // the schema's rules reported it
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		c.fault(path, "want host:port, as 127.0.0.1:10080")
		return netip.AddrPort{}, false
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" {
		c.fault(path, "want an IP address to listen on, as 127.0.0.1, or 0.0.0.0 for all of IPv4")
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || (n == 0 && !anyPort) {
		c.fault(path, "want a port from %d to 65535", map[bool]int{true: 0, false: 1}[anyPort])
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ip, uint16(n)), true
}

// take notes an address, and reports one that cannot be listened on beside
// those taken before.
func (c *compilation) take(taken []bound, path string, a netip.AddrPort) []bound {
	for _, b := range taken {
		overlap := a.Addr() == b.address.Addr() || a.Addr().IsUnspecified() || b.address.Addr().IsUnspecified()
		if a.Port() != 0 && a.Port() == b.address.Port() && overlap {
			c.fault(path, "%s listens on port %d already", parent(b.path), a.Port())
			break
		}
	}
	return append(taken, bound{path, a})
}

// serverTLS reads a listener's certificate and key and checks that they belong
// together.
func (c *compilation) serverTLS(path string, t *configv1.ServerTLS) *plan.ServerTLS {
	if t == nil {
		return nil
	}
	certificate, ok1 := c.file(path+".certificate_file", t.CertificateFile)
	key, ok2 := c.file(path+".private_key_file", t.PrivateKeyFile)
	if !ok1 || !ok2 {
		return nil
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		c.fault(path, "the certificate and its key cannot be used: %s", strings.TrimPrefix(err.Error(), "tls: "))
		return nil
	}
	if pair.Leaf != nil && c.opts.Now().After(pair.Leaf.NotAfter) {
		c.warn(path+".certificate_file", "the certificate expired on %s", pair.Leaf.NotAfter.Format("2006-01-02"))
	}
	out := &plan.ServerTLS{CertificateChain: certificate, PrivateKey: key}
	c.clientCertificates(path, t, out)
	return out
}

// clientCertificates reads whose certificates of clients are accepted.
func (c *compilation) clientCertificates(path string, t *configv1.ServerTLS, out *plan.ServerTLS) {
	switch {
	case t.ClientCaFile == "" && t.ClientCertificate != "":
		c.fault(path+".client_certificate", "without client_ca_file no certificate is asked for")
	case t.ClientCaFile == "":
	case t.ClientCertificate == "optional" && len(c.cfg.Workloads) == 0:
		c.fault(path+".client_certificate", "there are no workloads: a certificate that is optional would open nothing")
	default:
		out.ClientCA = c.certificates(path+".client_ca_file", t.ClientCaFile)
		out.ClientOptional = t.ClientCertificate == "optional"
	}
}

// authorities checks a file of trusted certificates and returns its path.
func (c *compilation) authorities(path, name string) string {
	if name == "" {
		return ""
	}
	c.certificates(path, name)
	return relativeTo(c.secrets.configDir, name)
}

// certificates reads a file of certificates.
func (c *compilation) certificates(path, name string) []byte {
	content, ok := c.file(path, name)
	if ok && !x509.NewCertPool().AppendCertsFromPEM(content) {
		c.fault(path, "%s holds no PEM certificate", name)
	}
	return content
}

// file reads a file that the configuration refers to.
func (c *compilation) file(path, name string) ([]byte, bool) {
	if name == "" {
		return nil, false // the schema's rules reported it
	}
	content, err := readFile(relativeTo(c.secrets.configDir, name), maxFileBytes)
	if err != nil {
		c.fault(path, "%s", reasonOf(err))
		return nil, false
	}
	c.material = append(c.material, string(content))
	return content, true
}

// endpoint is a parsed endpoint URL.
type endpoint struct {
	scheme, host, base string
	port               uint32
}

// parseEndpoint reads http(s)://host[:port][/base/path]; base is the path where there
// is none. Its errors do not
// repeat the URL, which may hold a password.
func parseEndpoint(text, base string) (endpoint, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "":
		return endpoint{}, fmt.Errorf("want a URL, as http://host:8000/v1")
	case u.Scheme != "http" && u.Scheme != "https":
		return endpoint{}, fmt.Errorf("the URL must begin with http:// or https://")
	case u.User != nil:
		return endpoint{}, fmt.Errorf("a URL carries no user or password; use credential")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(text, "#"):
		return endpoint{}, fmt.Errorf("a URL ends with its path: no query, no fragment")
	}
	e := endpoint{scheme: u.Scheme, host: strings.ToLower(u.Hostname()), port: 80}
	if !validHost(e.host) {
		return endpoint{}, fmt.Errorf("the URL's host is neither an IP address nor a DNS name")
	}
	if u.Scheme == "https" {
		e.port = 443
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return endpoint{}, fmt.Errorf("the URL's port must be from 1 to 65535")
		}
		e.port = uint32(n)
	}
	e.base, err = basePath(u, base)
	return e, err
}

const (
	digits = "0123456789"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// only tells whether all characters of s are among those given.
func only(s, characters string) bool { return strings.Trim(s, characters) == "" }

// basePath is the URL's path without a trailing slash; otherwise when there is none.
func basePath(u *url.URL, otherwise string) (string, error) {
	base := u.EscapedPath() // as it was written: Envoy compares paths as text
	switch base {
	case "":
		return otherwise, nil
	case "/":
		return "", nil
	}
	base = strings.TrimSuffix(base, "/")
	if !only(base, digits+lower+upper+"/-_.~") || path.Clean(base) != base {
		return "", fmt.Errorf("the URL's path may hold letters, digits, '-', '_', '.', '~' and single slashes")
	}
	return base, nil
}

// validHost accepts IP addresses without zone, and DNS names (RFC 1123;
// underscores too, which service names have).
func validHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Zone() == "" && !ip.IsUnspecified()
	}
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || !only(label, digits+lower+"-_") ||
			strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	return !only(last, digits) // 10.0.0.256 is no name
}
