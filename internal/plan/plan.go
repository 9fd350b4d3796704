// Package plan is the compiled configuration: immutable, with every reference
// resolved and every default filled in. It is swapped as a whole and captured
// once for each request. It reads no files and knows no wire format.
package plan

import (
	"crypto"
	"slices"
	"sync"
	"time"

	"github.com/weirproxy/weir/dialect/profile"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/probe"
	"github.com/weirproxy/weir/tokens"
)

// Plan is one configuration, ready to be evaluated. Nothing in it changes after
// it was built; the ring that it points to has a life of its own.
type Plan struct {
	// Version is a hash of the content: equal configurations have equal versions.
	Version   string
	Listeners []Listener
	Admin     string    // host:port
	AdminAPI  *AdminAPI // nil: on the unix socket only
	DataDir   string
	Pools     []*Pool           // sorted by name
	Models    map[string]*Model // by name and by alias
	ModelList []*Model          // sorted by name, aliases left out
	Roles     map[string]*Role
	Keys      map[KeyHash]*Key
	KeyList   []*Key // in the order of the file
	// Directory resolves the names of callers that the configuration does not list.
	Directory Directory
	// Stored are the keys of the control store, which come and go while the plan
	// stays; nil where there is none.
	Stored    *Ring
	Limits    []*Limit
	Calendars map[string]*Calendar
	// Who calls without a key, and from where anybody may call.
	TokenIssuers []*TokenIssuer
	Workloads    Workloads
	Proxies      *ProxyTrust         // nil: no proxy is trusted
	TeamNetworks map[string]*Network // by team; absent is no condition
	Modes        map[string]Mode     // by stage; a stage that is absent is enforced
	Bounds       Bounds
	Usage        Usage
	Probe        probe.Key // of the doctor's probes
	Doctor       Doctor
	Webhooks     []Webhook   // where alerts go
	Store        *LimitStore // where limits are counted; nil: in this process
	// Simulators are the stand-in backends that `weir up` starts itself.
	Simulators []Simulator
	hashers    *sync.Pool // of *hasher, under the secret
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
	// TrustClientCertHeader lets x-forwarded-client-cert pass to weir, which
	// believes it from trusted proxies alone.
	TrustClientCertHeader bool
}

// ServerTLS holds PEM text, read when the plan was compiled.
type ServerTLS struct {
	CertificateChain []byte
	PrivateKey       []byte
	ClientCA         []byte // authorities of client certificates; nil: none are asked for
	ClientOptional   bool   // a client may come without a certificate
}

// AdminAPI is how the admin API is served beyond this machine.
type AdminAPI struct {
	Address   string // host:port
	TLS       *ServerTLS
	ClientCAs []byte // PEM; nil when client certificates are not accepted
	Clients   []AdminClient
	OIDC      *AdminOIDC // nil when tokens are not accepted
}

// AdminClient is what a caller with a client certificate may do: one of SPIFFEID
// and CommonName is set.
type AdminClient struct {
	SPIFFEID, CommonName string
	Roles                []string
}

// AdminOIDC accepts the tokens of one provider: one of Keys and JWKSURL is set.
type AdminOIDC struct {
	Issuer, Audience string
	Keys             []crypto.PublicKey // RSA, ECDSA, Ed25519
	JWKSURL          string
	Grants           []AdminClaim
}

// AdminClaim gives roles by a claim's value.
type AdminClaim struct {
	Claim, Value string
	Roles        []string
}

// Pool is the endpoints that serve one real model.
type Pool struct {
	Name          string
	Adapter       *profile.Profile
	Placement     ai.Placement
	Endpoints     []Endpoint
	Scheme        string // http or https, the same for all endpoints
	BasePath      string // without a trailing slash, as "/v1"; may be ""
	Model         string // the real name
	ContextWindow int64  // tokens; 0 is not known
	MaxOutput     int64  // tokens of one answer; 0 is not known
	Tokenizer     *tokens.Tokenizer
	// Prices are in the order of their dates; the first one holds from ever. Empty
	// is nothing.
	Prices []PricePeriod
	// Priced says that the configuration tells what the pool costs, be it nothing.
	Priced bool
	// BillsAbandoned says that attempts are charged that were given up after they
	// were sent, without an answer.
	BillsAbandoned bool
	Credential     *Credential
	ConnectTimeout time.Duration
	CAFile         string // "" is the system's
	ServerName     string // "" is the endpoint's host
	Metrics        Metrics
	Saturation     *Saturation // nil: never
	HealthCheck    HealthCheck
	Ejection       Ejection
	SlowStart      time.Duration // 0: none
	Index          int           // its place among the plan's pools
	StreamIdle     time.Duration // that a stream may be silent; 0: as long as Envoy allows
	// PrefixLoad is the most requests that an endpoint may have open which is chosen by
	// how a request begins, in per cent of the mean; 0: it is not chosen so.
	PrefixLoad uint32
}

// HealthCheck is how Envoy asks a pool's endpoints whether they are well.
type HealthCheck struct {
	Path              string // "": it does not ask
	Interval, Timeout time.Duration
	UnhealthyAfter    uint32 // times without an answer in a row
	HealthyAfter      uint32 // answers in a row
}

// Ejection is when an endpoint that fails is left alone.
type Ejection struct {
	After       uint32 // failures in a row; 0: never
	For, AtMost time.Duration
}

// Metrics are where a pool's endpoints tell how busy they are.
type Metrics struct {
	Path     string        // "" is nowhere
	Port     uint32        // 0 is the port that serves
	Interval time.Duration // from one time that they are asked to the next
	Timeout  time.Duration
}

// PricePeriod is a price that holds from a time on, until the next one does.
type PricePeriod struct {
	From  time.Time
	Price ai.Price
}

// PriceAt is the price in force at a time.
func (p *Pool) PriceAt(t time.Time) ai.Price {
	for i := len(p.Prices) - 1; i >= 0; i-- {
		if !t.Before(p.Prices[i].From) {
			return p.Prices[i].Price
		}
	}
	return ai.Price{}
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
	Pools             []*Pool // all that the rules, the targets and the rollout name, each once
	DefaultMaxTokens  int64
	MinOutputTokens   int64 // under which no limit lowers an answer's ceiling
	FirstTokenTimeout time.Duration
	AttemptTimeout    time.Duration
	MaxAttempts       int      // of one request, over all its targets
	Rollout           *Rollout // nil: none
	// Batch says that its requests wait behind others for the capacity of pools.
	Batch bool
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

// Step is one step of a route: one pool, a split of which one is drawn, or several in
// an order that is found for each request.
type Step struct {
	Choices []Choice // at least one
	By      Order
	Sticky  Sticky
}

// Sticky is what keeps to its pool where pools are drawn by weight.
type Sticky string

// What is sticky; the zero value is nothing.
const (
	StickyPrincipal    Sticky = "principal"
	StickyConversation Sticky = "conversation"
)

// Order is how the pools of a step are put in order.
type Order uint8

// The orders.
const (
	ByWeight     Order = iota // one is drawn, the others follow, heaviest first
	ByPrice                   // the cheapest for this request first
	ByFirstToken              // the one that answers soonest first
	ByLoad                    // the one with the least to do for each endpoint first
)

// Saturation is when a pool has so much to do that others are tried first. What is 0
// is never reached.
type Saturation struct {
	WaitingPerEndpoint float64
	KVUse              float64
	OpenPerEndpoint    float64
}

// Reached tells whether a pool is saturated.
func (s *Saturation) Reached(now *PoolState) bool {
	each := func(n float64) float64 { return n / float64(max(1, now.Healthy)) }
	if s.OpenPerEndpoint > 0 && each(float64(now.Open)) >= s.OpenPerEndpoint {
		return true
	}
	if now.Heard.IsZero() || now.Stale {
		return false
	}
	return s.WaitingPerEndpoint > 0 && each(now.Waiting) >= s.WaitingPerEndpoint || s.KVUse > 0 && now.KVUse >= s.KVUse
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
	Holds(*Facts) (bool, error)
}

// Facts are what conditions may read of one request.
type Facts struct {
	Principal ai.Principal
	Model     string // the virtual model's name
	Kind      ai.Kind
	Stream    bool
	Tools     bool
	Vision    bool
	Audio     bool
	Batch     bool  // the model is for batch work, or the client says that it can wait
	MaxOutput int64 // as the client gave it; 0 when it gave none
	// Effort is how much the client wants the model to think: none, minimal, low,
	// medium, high, xhigh or max, or "" when it does not say.
	Effort         string
	ThinkingBudget int64 // the tokens that it allows for that; 0 when it does not say
	// InputTokens is called only when a condition reads input_tokens, since
	// counting costs time.
	InputTokens func() int64
	Headers     map[string]string // only those that the configuration names
	Now         time.Time
	// Live is what is known of the pools; nil: nothing is.
	Live Live
	// Left is which part of a limit, 0 to 1, is left for the caller; ok is false when
	// that is not known. It never waits. It may be nil.
	Left func(*Limit) (part float64, ok bool)
	// Seen is filled with what is read of both; nil: nobody else wants to know.
	Seen *Seen

	counted bool
	tokens  int64
}

// Tokens are the input tokens, counted the first time that somebody asks.
func (f *Facts) Tokens() int64 {
	if !f.counted && f.InputTokens != nil {
		f.counted, f.tokens = true, f.InputTokens()
	}
	return f.tokens
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
	Name     string
	Address  string   // host:port, loopback
	Profile  string   // the name of the adapter profile that it stands in for
	BasePath string   // of the pools that point to it; "/" for none
	Models   []string // real names of the models of the pools that point to it, sorted
}
