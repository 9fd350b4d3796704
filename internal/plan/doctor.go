package plan

import (
	"crypto/rand"
	"slices"
	"time"
)

// Doctor says where the doctor's probes go, and how often.
type Doctor struct {
	Interval time.Duration
	Proxies  []Proxy
	// Certificate is what probes show a listener that asks for one; nil for nothing.
	Certificate *ServerTLS
}

// Proxy is a way to one listener of an Envoy that somebody else runs.
type Proxy struct {
	Name       string // the node id with which it asks for its configuration
	Listener   string // of this configuration
	URL        string // scheme://host:port
	CAFile     string // "" is the system's
	ServerName string // "" is the URL's host
}

// Opening is a plan in which the token opens the key with this name, of the
// configuration or stored, and no other token opens any: production stores hashes
// only, and has to authenticate a token there as always. It is false when there is
// no such key. It is for explaining and for probes.
func (p *Plan) Opening(name, token string) (*Plan, bool) {
	secret := []byte(rand.Text())
	hash := HashKey(secret, token)
	made := *p
	made.SetHashSecret(secret)
	made.Keys, made.Stored = map[KeyHash]*Key{}, NewRing()
	if i := slices.IndexFunc(p.KeyList, func(k *Key) bool { return k.Name == name }); i >= 0 {
		made.Keys[hash] = p.KeyList[i]
		if override, ok := p.Stored.ByHash(p.KeyList[i].Hash); ok {
			override.Hash = hash
			made.Stored.Put([]StoredKey{override})
		}
		return &made, true
	}
	stored, ok := p.Stored.ByName(name)
	if !ok {
		return nil, false
	}
	stored.Hash = hash
	made.Stored.Put([]StoredKey{stored})
	return &made, true
}
