package config

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/url"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// adminAPI compiles how the admin API is served. It is never served to callers who
// do not prove who they are.
func (c *compilation) adminAPI(taken []bound) []bound {
	api := c.cfg.Admin.Api
	if api == nil {
		return taken
	}
	const path = "admin.api"
	out := &plan.AdminAPI{TLS: c.serverTLS(path+".tls", api.Tls)}
	if address, ok := c.listenAddress(path+".address", api.Address, true); ok {
		taken = c.take(taken, path+".address", address)
		out.Address = address.String()
	}
	if api.ClientCaFile == "" && api.Oidc == nil {
		c.fault(path, "client_ca_file or oidc is required: the admin API is not served to callers who do not prove who they are")
	}
	if c.authorities(path+".client_ca_file", api.ClientCaFile) != "" {
		out.ClientCAs, _ = c.file(path+".client_ca_file", api.ClientCaFile)
	}
	out.Clients = c.adminClients(path+".clients", api)
	out.OIDC = c.adminOIDC(path+".oidc", api.Oidc)
	c.out.AdminAPI = out
	return taken
}

func (c *compilation) adminClients(path string, api *configv1.AdminAPI) []plan.AdminClient {
	switch {
	case api.ClientCaFile == "" && len(api.Clients) > 0:
		c.fault(path, "grants nothing without client_ca_file: no client certificate is accepted")
	case api.ClientCaFile != "" && len(api.Clients) == 0:
		c.fault(path, "is required with client_ca_file: no caller could do anything")
	}
	var list []plan.AdminClient
	first := map[string]int{}
	for i, client := range api.Clients {
		one := plan.AdminClient{SPIFFEID: client.GetSpiffeId(), CommonName: client.GetCommonName(), Roles: client.Roles}
		who := one.SPIFFEID + "\n" + one.CommonName
		if before, again := first[who]; again {
			c.fault(index(path, i), "the same caller as %s", index(path, before))
		} else {
			first[who] = i
		}
		list = append(list, one)
	}
	return list
}

func (c *compilation) adminOIDC(path string, o *configv1.AdminOIDC) *plan.AdminOIDC {
	if o == nil {
		return nil
	}
	out := &plan.AdminOIDC{Issuer: o.Issuer, Audience: o.Audience, JWKSURL: o.GetJwksUrl()}
	if u, err := url.Parse(out.JWKSURL); out.JWKSURL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil) {
		c.fault(path+".jwks_url", "want an https URL without user and password: whoever can change the keys can do everything")
	}
	if name := o.GetJwksFile(); name != "" {
		if content, ok := c.file(path+".jwks_file", name); ok {
			var err error
			if out.Keys, err = parseJWKS(content); err != nil {
				c.fault(path+".jwks_file", "%s", err)
			}
		}
	}
	for _, g := range o.Grants {
		out.Grants = append(out.Grants, plan.AdminClaim{Claim: g.Claim, Value: g.Value, Roles: g.Roles})
	}
	return out
}

// parseJWKS reads the public keys of a provider that may sign.
func parseJWKS(content []byte) ([]crypto.PublicKey, error) {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(content, &set); err != nil {
		return nil, errors.New("want a JSON Web Key Set: {\"keys\": […]}")
	}
	var keys []crypto.PublicKey
	for _, k := range set.Keys {
		if k.Use != "" && k.Use != "sig" {
			continue
		}
		if !k.IsPublic() {
			return nil, errors.New("it holds a private or a symmetric key: whoever reads it could sign")
		}
		switch key := k.Key.(type) {
		case *rsa.PublicKey:
			if key.N.BitLen() < 2048 {
				return nil, errors.New("it holds an RSA key of less than 2048 bits")
			}
			keys = append(keys, key)
		case *ecdsa.PublicKey, ed25519.PublicKey:
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no public key for signatures (RSA, ECDSA, Ed25519)")
	}
	return keys, nil
}
