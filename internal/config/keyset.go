package config

import (
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"net/url"
	"strings"

	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// jwk is what is checked of a key of a set (RFC 7517, 4; RFC 7518, 6).
type jwk struct {
	Kty string  `json:"kty"`
	Crv string  `json:"crv"`
	N   string  `json:"n"`
	D   *string `json:"d"`
}

// minRSA is the smallest modulus in bytes.
const minRSA = 2048 / 8

// keySet reads a file of public keys.
func (c *compilation) keySet(path, name string) []byte {
	content, ok := c.file(path, name)
	if !ok {
		return nil
	}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(content, &set); err != nil {
		c.fault(path, "%s is no JSON Web Key Set", name)
		return nil
	}
	if len(set.Keys) == 0 {
		c.fault(path, "%s has no keys", name)
	}
	for i, k := range set.Keys {
		if wrong := k.wrong(); wrong != "" {
			c.fault(path, "%s: keys[%d]: %s", name, i, wrong)
		}
	}
	return content
}

// wrong tells why tokens should not be verified with a key. It repeats nothing of it.
func (k *jwk) wrong() string {
	n, err := base64.RawURLEncoding.DecodeString(k.N)
	switch {
	case k.Kty == "oct":
		return "a shared secret: whoever can verify a token could make one"
	case k.D != nil:
		return "a private key; keep it with the issuer"
	case k.Kty == "RSA" && (err != nil || len(strings.TrimLeft(string(n), "\x00")) < minRSA):
		return "an RSA key of less than 2048 bits"
	case k.Kty == "RSA",
		k.Kty == "EC" && (k.Crv == "P-256" || k.Crv == "P-384" || k.Crv == "P-521"),
		k.Kty == "OKP" && k.Crv == "Ed25519":
		return ""
	}
	return "want a key of RSA, of EC with P-256, P-384 or P-521, or of OKP with Ed25519"
}

// remoteKeySet checks where keys are fetched.
func (c *compilation) remoteKeySet(path string, r *configv1.RemoteKeySet) *plan.RemoteKeySet {
	if r.GetUrl() == "" {
		return nil // the schema's rules reported it
	}
	e, err := parseKeySetURL(r.Url)
	if err != "" {
		c.fault(path+".url", "%s", err)
		return nil
	}
	address, parsed := netip.ParseAddr(e.host)
	loopback := e.host == "localhost" || parsed == nil && address.IsLoopback()
	if e.scheme == "http" && !loopback {
		c.fault(path+".url", "keys are fetched over https: whoever could change them on the way could make tokens")
	}
	if r.CaFile != "" && e.scheme == "http" {
		c.fault(path+".ca_file", "the URL is http: nothing would be verified")
	}
	return &plan.RemoteKeySet{
		URL: r.Url, Scheme: e.scheme, Endpoint: plan.Endpoint{Host: e.host, Port: e.port, Weight: 1},
		CAFile: c.authorities(path+".ca_file", r.CaFile), Refresh: r.Refresh.AsDuration(),
	}
}

// parseKeySetURL reads http(s)://host[:port]/path, with a query if need be.
func parseKeySetURL(text string) (endpoint, string) {
	u, err := url.Parse(text)
	if err != nil || u.Fragment != "" || strings.Contains(text, "#") {
		return endpoint{}, "want a URL, as https://idp.example.com/keys"
	}
	u.Path, u.RawPath, u.RawQuery, u.ForceQuery = "", "", "", false
	e, err := parseEndpoint(u.String())
	if err != nil {
		return endpoint{}, err.Error()
	}
	return e, ""
}
