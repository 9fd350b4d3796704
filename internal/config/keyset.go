package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// jwk is what is checked of a key of a set (RFC 7517, 4; RFC 7518, 6).
type jwk struct {
	Kty string  `json:"kty"`
	Crv string  `json:"crv"`
	N   string  `json:"n"`
	E   string  `json:"e"`
	X   string  `json:"x"`
	Y   string  `json:"y"`
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

// curves are those of EC keys.
var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// wrong tells why tokens should not, or could not, be verified with a key: Envoy
// leaves out what it cannot read, and says so in its log only. It repeats nothing of
// the key.
func (k *jwk) wrong() string {
	switch {
	case k.Kty == "oct":
		return "a shared secret: whoever can verify a token could make one"
	case k.D != nil:
		return "a private key; keep it with the issuer"
	case k.Kty == "RSA":
		return k.wrongRSA()
	case k.Kty == "EC" && curves[k.Crv] != nil:
		return k.wrongEC(curves[k.Crv])
	case k.Kty == "OKP" && k.Crv == "Ed25519":
		if len(k.number(k.X)) != ed25519.PublicKeySize {
			return "no key: want x of 32 bytes in base64url"
		}
		return ""
	}
	return "want a key of RSA, of EC with P-256, P-384 or P-521, or of OKP with Ed25519"
}

func (k *jwk) wrongRSA() string {
	n, e := bytes.TrimLeft(k.number(k.N), "\x00"), k.number(k.E)
	switch {
	case len(n) == 0 || len(e) == 0:
		return "no key: want n and e in base64url"
	case len(n) < minRSA:
		return "an RSA key of less than 2048 bits"
	}
	return ""
}

func (k *jwk) wrongEC(curve elliptic.Curve) string {
	x, y := k.number(k.X), k.number(k.Y)
	size := (curve.Params().BitSize + 7) / 8
	if len(x) == size && len(y) == size {
		if _, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y)); err == nil {
			return ""
		}
	}
	return "no key: want x and y of a point on " + k.Crv + " in base64url"
}

// number reads base64url without padding; nil for what is not.
func (*jwk) number(text string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return b
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
	e, err := parseEndpoint(u.String(), "")
	if err != nil {
		return endpoint{}, err.Error()
	}
	return e, ""
}
