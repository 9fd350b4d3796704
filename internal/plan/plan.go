// Package plan is the compiled configuration: immutable, with every reference
// resolved and every default filled in. It is swapped as a whole and captured
// once for each request. It reads no files and knows no wire format.
package plan

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/tokens"
)

// Plan is one configuration, ready to be evaluated. Nothing in it changes after
// it was built.
type Plan struct {
	// Version is a hash of the content: equal configurations have equal versions.
	Version   string
	Listeners []Listener
	Admin     string // host:port
	DataDir   string
	Pools     []*Pool           // sorted by name
	Models    map[string]*Model // by name and by alias
	ModelList []*Model          // sorted by name, aliases left out
	Roles     map[string]*Role
	Keys      map[KeyHash]*Key
	KeyList   []*Key // in the order of the file
	Limits    []*Limit
	Modes     map[string]Mode // by stage; a stage that is absent is enforced
	Bounds    Bounds
	Usage     Usage
	Webhooks  []Webhook   // where alerts go
	Store     *LimitStore // where limits are counted; nil: in this process
	// Simulators are the stand-in backends that `weir up` starts itself.
	Simulators []Simulator
	hashers    *sync.Pool // of hash.Hash: HMACs under the secret
}

// KeyHash is the keyed hash of an API key.
type KeyHash [sha256.Size]byte

// HashKey is HMAC-SHA256 of key under secret: how weir stores keys.
func HashKey(secret []byte, key string) KeyHash {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(key))
	return KeyHash(m.Sum(nil))
}

// SetHashSecret gives the plan the secret of the keyed hash. Only the compiler
// calls it, before the plan is published.
func (p *Plan) SetHashSecret(secret []byte) {
	p.hashers = &sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}
}

// KeyByToken finds the key that a client sent. The look-up compares keyed
// hashes, so its timing tells nothing about the keys that exist.
func (p *Plan) KeyByToken(token string) (*Key, bool) {
	m := p.hashers.Get().(hash.Hash)
	defer p.hashers.Put(m)
	m.Reset()
	_, _ = io.WriteString(m, token) // a hash takes all
	var h KeyHash
	m.Sum(h[:0])
	k, ok := p.Keys[h]
	return k, ok
}

// Pool finds a pool by name.
func (p *Plan) Pool(name string) (*Pool, bool) {
	for _, pool := range p.Pools {
		if pool.Name == name {
			return pool, true
		}
	}
	return nil, false
}

// CredentialHeaders are the headers that carry the credentials of the pools,
// sorted, each once. Headers persist from one attempt to the next, so every
// pool drops all of them before it adds its own.
func (p *Plan) CredentialHeaders() []string {
	var headers []string
	for _, pool := range p.Pools {
		if pool.Credential != nil {
			headers = append(headers, pool.Credential.Header)
		}
	}
	slices.Sort(headers)
	return slices.Compact(headers)
}

// Mode of a stage; enforced unless the configuration says otherwise.
func (p *Plan) Mode(stage string) Mode { return p.Modes[stage] }

// Listener is one address that clients connect to.
type Listener struct {
	Name    string
	Address string // host:port
	TLS     *ServerTLS
}

// ServerTLS holds PEM text, read when the plan was compiled.
type ServerTLS struct {
	CertificateChain []byte
	PrivateKey       []byte
}

// Pool is the endpoints that serve one real model.
type Pool struct {
	Name           string
	Adapter        string
	Placement      ai.Placement
	Endpoints      []Endpoint
	Scheme         string // http or https, the same for all endpoints
	BasePath       string // without a trailing slash, as "/v1"; may be ""
	Model          string // the real name
	ContextWindow  int64  // tokens; 0 is not known
	MaxOutput      int64  // tokens of one answer; 0 is not known
	Tokenizer      *tokens.Tokenizer
	Price          ai.Price
	Credential     *Credential
	ConnectTimeout time.Duration
	CAFile         string // "" is the system's
	ServerName     string // "" is the endpoint's host
}

// Endpoint is one address of a pool.
type Endpoint struct {
	Host   string // IP address or DNS name
	Port   uint32
	Weight uint32 // at least 1
}

// Credential is the header that Envoy injects for a pool, value resolved.
type Credential struct {
	Header string
	Value  string // prefix and secret; never logged
}

// Model is a virtual model.
type Model struct {
	Name              string
	Aliases           []string
	Rules             []*Rule
	Targets           []Step  // the default; may be empty
	RefuseEgress      bool    // of Targets: see Rule
	Pools             []*Pool // all that the rules and targets name, each once
	DefaultMaxTokens  int64
	MinOutputTokens   int64 // under which no limit lowers an answer's ceiling
	FirstTokenTimeout time.Duration
	AttemptTimeout    time.Duration
}

// Rule routes the requests for which its condition holds.
type Rule struct {
	Name    string
	Source  string // the CEL text
	When    Condition
	Targets []Step
	// RefuseEgress refuses a request whose next target is egress that its caller's
	// roles bar, where otherwise the target after it is tried.
	RefuseEgress bool
}

// Step is one step of a route: one pool, or a split of which one is drawn.
type Step struct {
	Choices []Choice // at least one
}

// Choice is a pool with its weight in a split.
type Choice struct {
	Pool   *Pool
	Weight uint32
}

// Condition is a compiled rule condition.
type Condition interface {
	// Holds evaluates the condition. An error is a fault of the rule on these
	// facts (a missing map key, say), and refuses the request.
	Holds(Facts) (bool, error)
}

// Facts are what conditions may read of one request.
type Facts struct {
	Principal ai.Principal
	Model     string // the virtual model's name
	Kind      ai.Kind
	Stream    bool
	Tools     bool
	Vision    bool
	MaxOutput int64 // as the client gave it; 0 when it gave none
	// InputTokens is called only when a condition reads input_tokens, since
	// counting costs time.
	InputTokens func() int64
	Headers     map[string]string // only those that the configuration names
	Now         time.Time
}

// Key is an API key and what it may do.
type Key struct {
	Name      string
	Principal ai.Principal
	Disabled  bool
	Roles     []*Role // sorted by name, at most MaxRoles
	// Shown is the key itself when weir generated it for a first try, and empty
	// otherwise: `weir up` prints it.
	Shown string
}

// Mode is how a stage works.
type Mode uint8

// The modes; the zero value is the safe one.
const (
	Enforce Mode = iota
	Shadow
	Off
)

func (m Mode) String() string { return [...]string{"enforce", "shadow", "off"}[m] }

// Bounds bound what a client may send.
type Bounds struct {
	MaxBodyBytes int64
	MaxDepth     int
	HeaderFacts  []string // sorted, lower case
}

// Usage says how usage events are kept.
type Usage struct {
	SettleDeadline time.Duration
	Retention      time.Duration
}

// Webhook is an address that takes alerts.
type Webhook struct {
	URL    string
	Secret []byte // signs; nil for none
}

// Simulator is a stand-in backend.
type Simulator struct {
	Name    string
	Address string   // host:port, loopback
	Profile string   // adapter profile that it stands in for
	Models  []string // real names of the models of the pools that point to it, sorted
}
