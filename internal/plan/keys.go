package plan

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"slices"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/ai"
)

// KeyHash is the keyed hash of an API key.
type KeyHash [sha256.Size]byte

// HashKey is HMAC-SHA256 of key under secret: how weir stores keys.
func HashKey(secret []byte, key string) KeyHash {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(key))
	return KeyHash(m.Sum(nil))
}

// Key is an API key of the configuration and what it may do.
type Key struct {
	Name      string
	Hash      KeyHash
	Principal ai.Principal
	Disabled  bool
	Revoked   bool
	Expires   time.Time // zero is never
	Roles     []*Role   // sorted by name, at most MaxRoles
	Network   *Network  // nil is no condition; the team's applies as well
	// Shown is the key itself when weir generated it for a first try, and empty
	// otherwise: `weir up` prints it.
	Shown string
}

// Refusal is why the key does not open at this time; ReasonNone when it does.
func (k *Key) Refusal(now time.Time) ai.Reason {
	switch {
	case k.Revoked:
		return ai.ReasonKeyRevoked
	case k.Disabled:
		return ai.ReasonKeyDisabled
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return ai.ReasonKeyExpired
	}
	return ai.ReasonNone
}

// Caller is who a key stands for, and what it may do. Key is nil when it is
// refused; stored keys with one owner share theirs, so that its name is the
// principal's.
type Caller struct {
	Principal ai.Principal
	Key       *Key
}

// SetHashSecret gives the plan the secret of the keyed hash. Only the compiler
// calls it, before the plan is published.
func (p *Plan) SetHashSecret(secret []byte) {
	p.hashers = &sync.Pool{New: func() any { return &hasher{mac: hmac.New(sha256.New, secret)} }}
}

// hasher keeps what hashing needs, so that it allocates nothing.
type hasher struct {
	mac hash.Hash
	in  []byte
	sum KeyHash
}

// HashToken is the keyed hash of a token under the plan's secret.
func (p *Plan) HashToken(token string) KeyHash {
	h := p.hashers.Get().(*hasher)
	h.mac.Reset()
	h.in = append(h.in[:0], token...)
	_, _ = h.mac.Write(h.in)
	h.mac.Sum(h.sum[:0])
	sum := h.sum
	clear(h.in)
	p.hashers.Put(h)
	return sum
}

// KeyByToken finds who the key stands for that a client sent, and why it is
// refused, if it is: then the caller still has the names that are known, for the
// event.
//
// What is looked up are keyed hashes, in the same steps whether the key exists or
// not, so the time that it takes tells nothing about keys that exist. A token that
// says it is weir's and has a wrong checksum is refused before any of this: that
// tells only what its sender could have computed.
func (p *Plan) KeyByToken(token string, now time.Time) (Caller, ai.Reason) {
	if Malformed(token) {
		return Caller{}, ai.ReasonInvalidKey
	}
	h := p.HashToken(token)
	static := p.Keys[h]
	stored, isStored := p.Stored.find(&h)
	switch {
	case isStored && (static == nil || stored.state != StateActive):
		return p.storedCaller(&stored, static, now)
	case static == nil:
		return Caller{}, ai.ReasonInvalidKey
	}
	if reason := static.Refusal(now); reason != ai.ReasonNone {
		return Caller{Principal: static.Principal}, reason
	}
	return Caller{Principal: static.Principal, Key: static}, ai.ReasonNone
}

// storedCaller is the caller of a key of the control store, or of a key of the
// configuration that the control store overrides.
func (p *Plan) storedCaller(e *found, static *Key, now time.Time) (Caller, ai.Reason) {
	reason := e.refusal(now)
	if e.owner == nil { // an override
		if static != nil {
			return Caller{Principal: static.Principal}, reason
		}
		return Caller{Principal: ai.Principal{Key: e.name}}, reason
	}
	b := e.owner.under(p)
	c := Caller{Principal: b.key.Principal}
	c.Principal.Key = e.name
	if reason == ai.ReasonNone {
		reason = b.refused
	}
	if reason == ai.ReasonNone {
		c.Key = &b.key
	}
	return c, reason
}

// Directory is what the configuration says of teams and applications, for callers
// that it does not list itself.
type Directory struct {
	Teams        map[string][]string    // roles of every key of the team
	Applications map[string]Application // by name
	// Organisations are those of the teams that have one.
	Organisations map[string]string
}

// Application is a caller of a team.
type Application struct {
	Team  string
	Roles []string // of every key of the application
}

// Gone names what an owner refers to and the configuration does not have: "" when
// it has everything.
func (p *Plan) Gone(o Owner) string {
	if o.Application != "" {
		if _, ok := p.Directory.Applications[o.Application]; !ok {
			return "application " + o.Application
		}
	} else if _, ok := p.Directory.Teams[o.Team]; !ok {
		return "team " + o.Team
	}
	for _, role := range o.Roles {
		if p.Roles[role] == nil {
			return "role " + role
		}
	}
	return ""
}

// PrincipalOf is who an owner is, of which nothing is gone.
func (p *Plan) PrincipalOf(o Owner) ai.Principal {
	who := ai.Principal{Application: o.Application, Team: o.Team}
	roles := slices.Clone(o.Roles)
	if app, ok := p.Directory.Applications[o.Application]; ok {
		who.Team = app.Team
		roles = append(roles, app.Roles...)
	}
	who.Organisation = p.Directory.Organisations[who.Team]
	roles = append(roles, p.Directory.Teams[who.Team]...)
	slices.Sort(roles)
	who.Roles = slices.Compact(roles)
	return who
}
