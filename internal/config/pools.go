package config

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/dialect/profile"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
	"github.com/weirproxy/weir/tokens"
)

// compilePools compiles the pools.
func (c *compilation) compilePools() {
	c.named("pools", "pool", len(c.cfg.Pools), func(i int) string { return c.cfg.Pools[i].Name })
	c.pools = map[string]*plan.Pool{}
	for i, p := range c.cfg.Pools {
		path := index("pools", i)
		pool := &plan.Pool{
			Name:           p.Name,
			Adapter:        c.adapter(path, p),
			Placement:      ai.Placement(p.Placement),
			Model:          p.Model,
			ContextWindow:  p.ContextWindow,
			MaxOutput:      p.MaxOutputTokens,
			BillsAbandoned: p.AbandonedAttempts == billed,
			ConnectTimeout: p.ConnectTimeout.AsDuration(),
		}
		c.endpoints(path, p, pool)
		c.upstreamTLS(path, p, pool)
		pool.Credential = c.credential(path, p, pool)
		pool.Tokenizer = c.tokenizer(path, p)
		c.prices(path, p, pool)
		c.metrics(path, p, pool)
		c.saturation(path+".saturated_at", p.SaturatedAt, pool)
		c.health(path, p, pool)
		if _, again := c.pools[p.Name]; !again {
			c.pools[p.Name] = pool
			c.out.Pools = append(c.out.Pools, pool)
		}
	}
	slices.SortFunc(c.out.Pools, func(a, b *plan.Pool) int { return cmp.Compare(a.Name, b.Name) })
	for i, p := range c.out.Pools {
		p.Index = i
	}
}

// adapter is the pool's profile; the default one when the name is not known.
func (c *compilation) adapter(path string, p *configv1.Pool) *profile.Profile {
	found, ok := profile.ByName(p.Adapter)
	if !ok {
		c.fault(path+".adapter", "%s", unknownAdapter(p.Adapter))
		found, _ = profile.ByName(profile.Default)
	}
	return found
}

// How often endpoints are asked how busy they are, and for how long.
const (
	metricsInterval = 2 * time.Second
	metricsTimeout  = 2 * time.Second
)

// metrics are where the pool's endpoints tell how busy they are: where its adapter
// says, unless the configuration says otherwise. A provider's are nowhere.
func (c *compilation) metrics(path string, p *configv1.Pool, pool *plan.Pool) {
	known, given := pool.Adapter.Metrics, p.Metrics
	if given == nil {
		if pool.Placement == ai.Private && known.Path != "" {
			pool.Metrics = plan.Metrics{Path: known.Path, Port: known.Port, Interval: metricsInterval, Timeout: metricsTimeout}
		}
		return
	}
	path += ".metrics"
	switch {
	case given.Off && (given.Path != "" || given.Port != 0 || given.Interval != nil || given.Timeout != nil):
		c.fault(path+".off", "it stands alone")
	case given.Off:
	case pool.Placement == ai.Public:
		c.fault(path, "a provider does not tell how busy it is")
	case known.Path == "":
		c.fault(path, "the adapter %s knows no metrics", pool.Adapter.Name)
	default:
		pool.Metrics = plan.Metrics{
			Path: cmp.Or(given.Path, known.Path), Port: cmp.Or(given.Port, known.Port),
			Interval: given.Interval.AsDuration(), Timeout: given.Timeout.AsDuration(),
		}
	}
}

// saturation is when the pool is tried only after others.
func (c *compilation) saturation(path string, s *configv1.Saturation, pool *plan.Pool) {
	if s == nil {
		return
	}
	pool.Saturation = &plan.Saturation{WaitingPerEndpoint: s.WaitingPerEndpoint, KVUse: s.KvUse, OpenPerEndpoint: s.OpenPerEndpoint}
	switch {
	case *pool.Saturation == plan.Saturation{}:
		c.fault(path, "says nothing: give waiting_per_endpoint, kv_use or open_per_endpoint")
	case pool.Metrics.Path == "" && (s.WaitingPerEndpoint > 0 || s.KvUse > 0):
		c.fault(path, "the pool's endpoints do not tell what waits there: only open_per_endpoint is known")
	case len(pool.Adapter.Metrics.KVUse) == 0 && s.KvUse > 0:
		c.fault(path+".kv_use", "the adapter %s does not tell it", pool.Adapter.Name)
	}
}

func unknownAdapter(name string) string {
	return fmt.Sprintf("unknown adapter %q: want one of %s", name, strings.Join(profile.Names(), ", "))
}

// maxVocabularyBytes is the largest vocabulary file.
const maxVocabularyBytes = 64 << 20

// tokenizer is how the pool's input is counted; nil when the choice is faulty.
func (c *compilation) tokenizer(path string, p *configv1.Pool) *tokens.Tokenizer {
	path += ".tokenizer"
	choice := tokens.Choice{
		Model: p.Model, Adapter: p.Adapter,
		Vocabulary: p.Tokenizer.GetVocabulary(), Template: p.Tokenizer.GetTemplate(), File: p.Tokenizer.GetFile(),
	}
	if choice.File != "" {
		var err error
		choice.Content, err = readFile(relativeTo(c.secrets.configDir, choice.File), maxVocabularyBytes)
		if err != nil {
			c.fault(path+".file", "%s", reasonOf(err))
			return nil
		}
		sum := sha256.Sum256(choice.Content)
		c.material = append(c.material, string(sum[:]))
	}
	t, err := tokens.New(choice)
	if err == nil {
		return t
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, err := range all {
		var wrong *tokens.ChoiceError
		if errors.As(err, &wrong) {
			c.fault(path+"."+wrong.Field, "%s", wrong.Err)
		} else {
			c.fault(path, "%s", err)
		}
	}
	return nil
}

// endpoints parses the endpoints, which must share scheme and base path.
func (c *compilation) endpoints(path string, p *configv1.Pool, pool *plan.Pool) {
	var first *endpoint
	seen := map[string]bool{}
	for i, e := range p.Endpoints {
		at := index(path+".endpoints", i) + ".url"
		if e.Url == "" {
			continue // the schema's rules reported it
		}
		parsed, err := parseEndpoint(e.Url, pool.Adapter.BasePath)
		if err != nil {
			c.fault(at, "%s", err)
			continue
		}
		if first == nil {
			first = &parsed
			pool.Scheme, pool.BasePath = parsed.scheme, parsed.base
		}
		if parsed.scheme != first.scheme {
			c.fault(at, "all endpoints of a pool share one scheme: %s here, %s before", parsed.scheme, first.scheme)
		}
		if parsed.base != first.base {
			c.fault(at, "all endpoints of a pool share one path: %q here, %q before", parsed.base, first.base)
		}
		address := net.JoinHostPort(parsed.host, strconv.Itoa(int(parsed.port)))
		if seen[address] {
			c.fault(at, "%s is an endpoint of this pool already", address)
		}
		seen[address] = true
		pool.Endpoints = append(pool.Endpoints, plan.Endpoint{Host: parsed.host, Port: parsed.port, Weight: e.Weight})
	}
}

func (c *compilation) upstreamTLS(path string, p *configv1.Pool, pool *plan.Pool) {
	if p.Tls == nil {
		return
	}
	if pool.Scheme == "http" {
		c.fault(path+".tls", "the endpoints are http: nothing would be verified")
	}
	if name := p.Tls.ServerName; name != "" && !validHost(strings.ToLower(name)) {
		c.fault(path+".tls.server_name", "neither an IP address nor a DNS name")
	}
	pool.CAFile = c.authorities(path+".tls.ca_file", p.Tls.CaFile)
	pool.ServerName = p.Tls.ServerName
}

// forbiddenHeaders cannot carry a credential: they are hop-by-hop (RFC 9110,
// 7.6.1), or they say how the message is to be read.
var forbiddenHeaders = set("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
	"te", "trailer", "transfer-encoding", "upgrade", "host", "content-length", "content-type", "content-encoding",
	"accept", "accept-encoding", "expect", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-request-id",
	"traceparent", "tracestate")

// secretHeaders carry a client's secrets.
var secretHeaders = set("authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-goog-api-key", "anthropic-api-key", probe.Header)

// addressHeaders tell where a client is or what its certificate is, as anybody may
// write it.
var addressHeaders = set("x-forwarded-for", "x-forwarded-client-cert", "x-real-ip", "forwarded")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// credential resolves the header that Envoy adds.
func (c *compilation) credential(path string, p *configv1.Pool, pool *plan.Pool) *plan.Credential {
	if p.Credential == nil {
		return nil
	}
	path += ".credential"
	header := p.Credential.Header
	switch {
	case forbiddenHeaders[header]:
		c.fault(path+".header", "%s cannot carry a credential", header)
	case strings.HasPrefix(header, ai.InternalPrefix), strings.HasPrefix(header, "x-envoy-"):
		c.fault(path+".header", "%s is a header of weir's or Envoy's own", header)
	}
	if !headerText(p.Credential.GetPrefix()) {
		c.fault(path+".prefix", "holds characters that a header cannot carry")
	}
	if p.Credential.Secret == nil {
		return nil
	}
	s, ok := c.secrets.resolve(path+".secret", p.Credential.Secret)
	if !ok {
		return nil
	}
	if !headerText(s.value) || strings.TrimSpace(s.value) != s.value {
		c.fault(path+".secret", "the secret holds characters that a header cannot carry")
		return nil
	}
	if pool.Scheme == "http" && !onLoopback(pool.Endpoints) {
		c.warn(path, "the credential goes over plain http")
	}
	c.material = append(c.material, s.value)
	return &plan.Credential{Header: header, Value: p.Credential.GetPrefix() + s.value}
}

// headerText tells whether a header's value may hold the text: printable ASCII.
func headerText(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

func onLoopback(endpoints []plan.Endpoint) bool {
	for _, e := range endpoints {
		ip, err := netip.ParseAddr(e.Host)
		if e.Host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// compileSimulators finds which pools each simulator stands in for.
func (c *compilation) compileSimulators() {
	for i := range c.out.Simulators {
		s := &c.out.Simulators[i]
		path := index("simulators", i)
		for _, p := range c.out.Pools {
			if !pointsTo(p, s.Address) {
				continue
			}
			s.Models = append(s.Models, p.Model)
			if base := cmp.Or(p.BasePath, "/"); s.BasePath == "" {
				s.BasePath = base
			} else if s.BasePath != base {
				c.fault(path+".listen", "pool %q has the base path %s here, and another pool has %s", p.Name, base, s.BasePath)
			}
			if s.Profile == "" {
				s.Profile = p.Adapter.Name
			}
			if s.Profile != p.Adapter.Name {
				c.fault(path+".profile", "pool %q has an endpoint here with adapter %s", p.Name, p.Adapter.Name)
			}
		}
		if len(s.Models) == 0 && !c.under(path+".listen") {
			c.fault(path+".listen", "no pool has an endpoint at http://%s", s.Address)
		}
		slices.Sort(s.Models)
		s.Models = slices.Compact(s.Models)
	}
}

func pointsTo(p *plan.Pool, address string) bool {
	return p.Scheme == "http" && slices.ContainsFunc(p.Endpoints, func(e plan.Endpoint) bool {
		host := e.Host
		if host == "localhost" {
			host = "127.0.0.1"
		}
		return net.JoinHostPort(host, strconv.Itoa(int(e.Port))) == address
	})
}
