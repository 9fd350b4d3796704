package config

import (
	"net/netip"
	"net/url"

	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// compileDoctor checks where probes go: a token of the doctor's is sent there, and a
// listener that is taken for another would be proved in its place.
func (c *compilation) compileDoctor() {
	d := c.cfg.Doctor
	c.out.Doctor.Interval = d.Interval.AsDuration()
	if cert := d.Certificate; cert != nil {
		c.out.Doctor.Certificate = c.serverTLS("doctor.certificate", &configv1.ServerTLS{
			CertificateFile: cert.CertificateFile, PrivateKeyFile: cert.PrivateKeyFile,
		})
	}
	places := map[[2]string]string{}
	for i, proxy := range d.Proxies {
		path := index("doctor.proxies", i)
		p, ok := c.doctorProxy(path, proxy)
		if !ok {
			continue
		}
		place := [2]string{p.Name, p.Listener}
		if first, again := places[place]; again {
			c.fault(path, "listener %q of %q has a place already: %s", p.Listener, p.Name, first)
			continue
		}
		places[place] = path
		c.out.Doctor.Proxies = append(c.out.Doctor.Proxies, p)
	}
}

func (c *compilation) doctorProxy(path string, proxy *configv1.DoctorProxy) (plan.Proxy, bool) {
	p := plan.Proxy{Name: proxy.Name, Listener: proxy.Listener, ServerName: proxy.ServerName, CAFile: c.authorities(path+".ca_file", proxy.CaFile)}
	listeners := map[string]bool{}
	for _, l := range c.cfg.Listeners {
		listeners[l.Name] = true
	}
	_, known := refer(c, path+".listener", "listener", p.Listener, listeners)
	switch {
	case p.Listener == "" && len(c.cfg.Listeners) == 1:
		p.Listener, known = c.cfg.Listeners[0].Name, true
	case p.Listener == "":
		c.fault(path+".listener", "there are several listeners: name the one that the URL leads to")
	}
	if proxy.Url == "" {
		return p, false // the schema's rules reported it
	}
	e, err := parseEndpoint(proxy.Url, "")
	if err != nil {
		c.fault(path+".url", "%s", err)
		return p, false
	}
	u, err := url.Parse(proxy.Url)
	if err != nil || u.Path != "" && u.Path != "/" {
		c.fault(path+".url", "want the listener's address alone: no path")
		return p, false
	}
	if e.scheme == "http" {
		c.plainProxy(path, proxy, e.host)
	}
	p.URL = e.scheme + "://" + u.Host
	return p, known
}

// plainProxy judges a probe in the clear. A token is good for one answer within a
// minute, and whoever reads along has every key of the clients' too.
func (c *compilation) plainProxy(path string, proxy *configv1.DoctorProxy, host string) {
	if proxy.CaFile != "" || proxy.ServerName != "" {
		c.fault(path+".url", "ca_file and server_name are for https")
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		c.warn(path+".url", "probes, and keys, pass in the clear there")
	}
}
