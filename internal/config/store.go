package config

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// compileStore compiles where limits are counted that several replicas share.
func (c *compilation) compileStore() {
	r := c.cfg.LimitStore.GetRedis()
	if r == nil {
		return
	}
	const path = "limit_store.redis"
	s := &plan.LimitStore{
		Addresses: r.Addresses, SentinelMaster: r.SentinelMaster, Cluster: r.Cluster, Username: r.Username,
		Name: r.Name, Replicas: int(r.Replicas), Allowance: int(r.AllowancePercent), Timeout: r.Timeout.AsDuration(),
	}
	if r.Cluster && r.SentinelMaster != "" {
		c.fault(path+".cluster", "a cluster needs no sentinels: cluster or sentinel_master, not both")
	}
	if r.WhenAway == "refuse" && r.AllowancePercent > 0 {
		c.fault(path+".allowance_percent", "nothing is admitted while the server is away: when_away is refuse")
	}
	c.distinct(path+".addresses", r.Addresses)
	beyond := false
	for i, a := range r.Addresses {
		beyond = c.storeAddress(index(path+".addresses", i), a, r) || beyond
	}
	switch {
	case beyond && r.Tls == nil && !r.Plaintext:
		c.fault(path, "beyond this machine TLS is required: tls, or plaintext when the network is trusted")
	case r.Tls != nil && r.Plaintext:
		c.fault(path+".plaintext", "tls is given: nothing goes in the clear")
	}
	s.TLS = c.storeTLS(path+".tls", r.Tls)
	if r.Password != nil {
		secret, _ := c.secrets.resolve(path+".password", r.Password)
		s.Password = secret.value
	} else if r.Username != "" {
		c.fault(path+".username", "a user has a password")
	}
	c.shared(int(r.Replicas))
	c.out.Store = s
}

// storeAddress checks an address, and tells whether it is beyond this machine.
func (c *compilation) storeAddress(path, address string, r *configv1.RedisStore) bool {
	if socket, ok := strings.CutPrefix(address, "unix:"); ok {
		switch {
		case !filepath.IsAbs(socket):
			c.fault(path, "want an absolute path, as unix:/run/redis.sock")
		case r.Cluster || r.SentinelMaster != "":
			c.fault(path, "a socket is one server: no cluster and no sentinel")
		case r.Tls != nil:
			c.fault(path, "nothing is encrypted on a socket: leave tls out")
		case len(r.Addresses) > 1:
			c.fault(path, "a socket is one server: name it alone")
		}
		return false
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || !validHost(strings.ToLower(host)) {
		c.fault(path, "want host:port, as redis:6379, or unix:/path")
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		c.fault(path, "want a port from 1 to 65535")
		return false
	}
	if len(r.Addresses) > 1 && !r.Cluster && r.SentinelMaster == "" {
		c.fault(path, "several addresses are sentinels or nodes of a cluster: say sentinel_master or cluster")
	}
	ip, err := netip.ParseAddr(host)
	return host != "localhost" && (err != nil || !ip.IsLoopback())
}

// storeTLS reads the files; nil is none.
func (c *compilation) storeTLS(path string, t *configv1.RedisTLS) *tls.Config {
	if t == nil {
		return nil
	}
	if t.ServerName != "" && !validHost(strings.ToLower(t.ServerName)) {
		c.fault(path+".server_name", "neither an IP address nor a DNS name")
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CaFile != "" {
		if pem, ok := c.file(path+".ca_file", t.CaFile); ok {
			out.RootCAs = x509.NewCertPool()
			if !out.RootCAs.AppendCertsFromPEM(pem) {
				c.fault(path+".ca_file", "%s holds no PEM certificate", t.CaFile)
			}
		}
	}
	if (t.CertificateFile == "") != (t.PrivateKeyFile == "") {
		c.fault(path, "certificate_file and private_key_file belong together")
		return out
	}
	if t.CertificateFile != "" {
		own := c.serverTLS(path, &configv1.ServerTLS{CertificateFile: t.CertificateFile, PrivateKeyFile: t.PrivateKeyFile})
		if own != nil {
			if pair, err := tls.X509KeyPair(own.CertificateChain, own.PrivateKey); err == nil {
				out.Certificates = []tls.Certificate{pair}
			}
		}
	}
	return out
}

// shared checks that nothing differs between replicas that each would make for
// itself.
func (c *compilation) shared(replicas int) {
	if replicas < 2 {
		return
	}
	if _, own := c.cfg.KeyHashSecret.GetSource().(*configv1.SecretRef_Generated); own {
		c.fault("key_hash_secret", "each of %d replicas would generate another one, and none would know the keys of the others: give them one by env or file", replicas)
	}
	for i, k := range c.cfg.Keys {
		ref, _ := k.Material.(*configv1.Key_Secret)
		if ref == nil {
			continue
		}
		if _, own := ref.Secret.GetSource().(*configv1.SecretRef_Generated); own {
			c.fault(index("keys", i)+".secret.generated", "each of %d replicas would generate another key", replicas)
		}
	}
}
