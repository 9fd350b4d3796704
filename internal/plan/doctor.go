package plan

import (
	"crypto/rand"
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

// Opening is a plan in which the token opens the key, and no other token opens
// any: production stores hashes only, and has to authenticate a token there as
// always. It is for explaining and for probes.
func (p *Plan) Opening(key *Key, token string) *Plan {
	secret := []byte(rand.Text())
	made := *p
	made.SetHashSecret(secret)
	made.Keys = map[KeyHash]*Key{HashKey(secret, token): key}
	return &made
}
