// Package simulate is a deterministic stand-in for an inference server: vLLM,
// or a public provider with OpenAI's API. It answers chat, completion and
// embedding requests as they do, JSON and SSE, breaks on demand (Fault), and
// records what it received (Request), so that tests can ask.
//
// It runs no model. The words of an answer and their number follow from a hash
// of the prompt, and tokens are counted by rule, so that a test can predict both:
//
//   - where weir knows how the model's backend counts a prompt, it is counted so;
//     otherwise:
//   - a text of n bytes (UTF-8, JSON escapes undone) has ⌈n/4⌉ tokens;
//   - a chat prompt has, for each message, 4 tokens, those of its texts (content,
//     text parts, name, arguments of its tool calls) and 256 for each part that is
//     not text; and those of the JSON text of "tools";
//   - each content event of a stream is one token, and so the completion tokens
//     are the content events, of all choices together;
//   - an answer has 16 to 64 tokens, at least min_tokens, at most max_tokens
//     (max_completion_tokens goes first), exactly that many with ignore_eos.
//
// It is for tests, benchmarks and first tries: it keeps the headers that it
// receives, credentials included, where anyone who can connect may read them.
package simulate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/dialect/profile"
)

// The profiles that are known best; every other one of package profile is copied as
// far as that tells: paths, health, metrics, where usage stands, how errors look.
const (
	VLLM   = "vllm"   // vLLM 0.33: also /version, /load, /tokenize
	OpenAI = "openai" // a public provider: the API under the base path and nothing else
)

// Options say what is simulated. The zero value is a vLLM that serves any model
// as fast as it can.
type Options struct {
	// Whose paths, errors and habits are copied: the name of an adapter profile.
	// Default: VLLM
	Profile string
	// The name of the server, sent as the header "x-simulator", so that a client
	// can tell who answered. Empty: no such header.
	Name string
	// The model that is served, and its other names. With an empty Model any
	// model is served.
	Model   string
	Aliases []string
	// What the clients must send as bearer token. Empty: nobody is asked.
	APIKey string
	// What stands where OpenAI's /v1 stands. Default: the profile's
	BasePath string
	// Tokens of context, prompt and answer together. Default: 131072
	MaxModelLen int
	// How long the first token takes, and each one after it. An answer that is
	// not streamed takes as long as its stream would.
	FirstToken, PerToken time.Duration
	// How many bytes of prompts the prefix cache holds, the newest ones; about four
	// are a token. 0: there is no cache.
	PrefixCache int
	// How many requests are kept for Requests, the newest ones. Default: 1000;
	// negative: none.
	Record int
	// How many bytes of each body are kept. Default: 64 KiB
	RecordBody int
	// The clock of "created" and of the records; pacing uses the system's.
	// Default: time.Now
	Now func() time.Time
}

func (o *Options) setDefaults() {
	if o.Profile == "" {
		o.Profile = VLLM
	}
	if o.BasePath == "" {
		o.BasePath = "/v1"
		if kind, ok := profile.ByName(o.Profile); ok {
			o.BasePath = kind.BasePath
		}
	}
	o.BasePath = strings.TrimSuffix(o.BasePath, "/")
	if o.MaxModelLen <= 0 {
		o.MaxModelLen = 131072
	}
	if o.Record == 0 {
		o.Record = 1000
	}
	if o.RecordBody <= 0 {
		o.RecordBody = 64 << 10
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Validate tells what is wrong with the options, for those who take them from
// a command line.
func (o *Options) Validate() error {
	if _, ok := profile.ByName(o.Profile); o.Profile != "" && !ok {
		return fmt.Errorf("unknown profile %q: want one of %s", o.Profile, strings.Join(profile.Names(), ", "))
	}
	if o.BasePath != "" && o.BasePath[0] != '/' {
		return errors.New("base path \"" + o.BasePath + "\" does not begin with a slash")
	}
	if o.FirstToken < 0 || o.PerToken < 0 {
		return errors.New("a token's time is negative")
	}
	return nil
}

// Server is one simulated inference server. It is an http.Handler; all methods
// may be called at any time, also while it serves.
type Server struct {
	opts    Options
	kind    *profile.Profile
	routes  map[string]route
	metrics *metrics
	prefix  *PrefixCache // nil: none
	faults  faults
	log     recorder
	served  atomic.Int64

	tokenizers sync.Map // *tokens.Tokenizer by model
}

// route is one endpoint: the method that it takes, and who answers.
type route struct {
	method string
	handle func(*exchange)
	model  bool // asks the model: it is recorded, and faults and auth apply
}

// New makes a server from valid options.
func New(o Options) *Server {
	o.setDefaults()
	kind, ok := profile.ByName(o.Profile)
	if !ok {
		panic("simulate: unknown profile " + o.Profile) // the options are not valid
	}
	s := &Server{opts: o, kind: kind, metrics: newMetrics(o.Model, kind)}
	if o.PrefixCache > 0 {
		s.prefix = NewPrefixCache(o.PrefixCache)
	}
	s.log.init(o.Record, o.RecordBody)
	base := o.BasePath
	s.routes = map[string]route{
		base + "/chat/completions": {http.MethodPost, (*exchange).chat, true},
		base + "/completions":      {http.MethodPost, (*exchange).completion, true},
		base + "/embeddings":       {http.MethodPost, (*exchange).embeddings, true},
		base + "/models":           {http.MethodGet, (*exchange).models, true},
	}
	if kind.Health != "" {
		s.routes[kind.Health] = route{http.MethodGet, (*exchange).health, false}
	}
	if kind.Metrics.Path != "" {
		s.routes[kind.Metrics.Path] = route{http.MethodGet, (*exchange).scrape, false}
	}
	if s.vllm() {
		s.routes["/tokenize"] = route{http.MethodPost, (*exchange).tokenize, true}
		s.routes["/ping"] = route{http.MethodGet, (*exchange).health, false}
		s.routes["/version"] = route{http.MethodGet, (*exchange).version, false}
		s.routes["/load"] = route{http.MethodGet, (*exchange).load, false}
	}
	return s
}

// vllm tells that it is vLLM, with or without its plugin for Ascend.
func (s *Server) vllm() bool { return s.kind.Name == VLLM || s.kind.Name == "vllm-ascend" }

// Served is how many requests were answered to their end with a model's answer.
func (s *Server) Served() int64 { return s.served.Load() }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/_control":
		s.control(w, r)
	case "/_requests":
		s.requests(w, r)
	default:
		s.exchange(w, r)
	}
}

// Serve answers requests on ln until ctx ends; then it closes ln and every
// connection and returns nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 30 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ListenAndServe is Serve on host:port.
func (s *Server) ListenAndServe(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return s.Serve(ctx, ln)
}
