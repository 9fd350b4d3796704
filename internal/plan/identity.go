package plan

import (
	"errors"
	"net/netip"
	"strings"
	"time"
)

// ProxyTrust says whom to believe about a client's address.
type ProxyTrust struct {
	Hops    int      // the most proxies before weir, at least 1
	Proxies *Network // never nil
}

// Trusts tells whether the address is a trusted proxy's. Without a configuration
// none is.
func (t *ProxyTrust) Trusts(a netip.Addr) bool { return t != nil && t.Proxies.Admits(a) }

// TokenIssuer is an identity provider whose tokens Envoy verifies.
type TokenIssuer struct {
	Name      string
	Issuer    string // the claim iss
	Audiences []string
	KeySet    []byte        // the JWKS; nil when it is fetched
	Remote    *RemoteKeySet // where it is fetched
	Binding   Binding
}

// RemoteKeySet is where Envoy fetches a JWKS.
type RemoteKeySet struct {
	URL      string
	Scheme   string // http or https
	Endpoint Endpoint
	CAFile   string // "" is the system's
	Refresh  time.Duration
}

// Binding says whom a token stands for.
type Binding interface {
	// Bind answers the caller, whose key's name is the issuer's, and the user. An
	// error says why the token stands for nobody; it holds no claim's value.
	Bind(claims map[string]any) (caller *Key, user string, err error)
}

// IssuerOf finds the issuer by the claim iss.
func (p *Plan) IssuerOf(iss string) (*TokenIssuer, bool) {
	for _, t := range p.TokenIssuers {
		if t.Issuer == iss {
			return t, true
		}
	}
	return nil, false
}

// Workloads are the callers that are known by their SPIFFE ID. What stands for a
// workload is a key that nobody can send.
type Workloads struct {
	exact map[string]*Key
	below map[string]*Key // by the path that they are below, with its last slash
}

// Add adds the workload of an ID, or of all IDs below it for one that ends in /*.
// It answers false when there is one already.
func (w *Workloads) Add(id string, caller *Key) bool {
	if w.exact == nil {
		w.exact, w.below = map[string]*Key{}, map[string]*Key{}
	}
	among := w.exact
	if path, ok := strings.CutSuffix(id, "*"); ok {
		among, id = w.below, path
	}
	if among[id] != nil {
		return false
	}
	among[id] = caller
	return true
}

// Find finds the workload of an ID: the one that has it, or else the one with
// the longest path that it is below.
func (w *Workloads) Find(id string) (*Key, bool) {
	if caller, ok := w.exact[id]; ok {
		return caller, true
	}
	if len(w.below) == 0 {
		return nil, false
	}
	for path := id; ; path = path[:len(path)-1] {
		slash := strings.LastIndexByte(path, '/')
		if slash < len(spiffeScheme) {
			return nil, false
		}
		path = path[:slash+1]
		if caller, ok := w.below[path]; ok && len(path) < len(id) {
			return caller, true
		}
	}
}

const (
	spiffeScheme = "spiffe://"
	maxSPIFFEID  = 2048
)

// CheckSPIFFEID tells what is wrong with a SPIFFE ID of a workload
// (https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, 2). It holds
// nothing that could be read in two ways: no percent-encoding, no "..", no comma.
func CheckSPIFFEID(id string) error {
	rest, ok := strings.CutPrefix(id, spiffeScheme)
	switch {
	case !ok:
		return errors.New("a SPIFFE ID begins with spiffe://")
	case len(id) > maxSPIFFEID:
		return errors.New("longer than 2048 bytes")
	}
	domain, path, ok := strings.Cut(rest, "/")
	if domain == "" || len(domain) > 255 || !each(domain, domainByte) {
		return errors.New("the trust domain is lower-case letters, digits, '.', '-' and '_'")
	}
	if !ok {
		return errors.New("a workload's SPIFFE ID has a path")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." || !each(segment, pathByte) {
			return errors.New("the path is segments of letters, digits, '.', '-' and '_' between single slashes")
		}
	}
	return nil
}

func domainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
}

func pathByte(c byte) bool { return domainByte(c) || c >= 'A' && c <= 'Z' }

func each(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}
