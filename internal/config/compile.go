package config

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
	"github.com/weirproxy/weir/internal/rule"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// compilation turns one message into a plan. Each step reports what is wrong
// and goes on, so that every fault is found at once; the plan counts only if
// there was none.
type compilation struct {
	*report
	cfg     *configv1.Config
	out     *plan.Plan
	secrets *secrets
	opts    Options
	// What a name refers to, by kind; an entry is nil where the object is faulty.
	pools  map[string]*plan.Pool
	models map[string]*plan.Model // by name, without aliases
	teams  map[string]*configv1.Team
	apps   map[string]*configv1.Application
	roles  map[string]*configv1.Role
	keys   map[string]*plan.Key
	limits []*plan.Limit // in the order of the file; compileLimits fills them in
	kinds  []rule.Caller // whatever keys there are or will be
	// material is the content of secrets and files, for the version.
	material []string
}

func newCompilation(cfg *configv1.Config, r *report, o Options) *compilation {
	fill(cfg)
	dataDir := cfg.DataDir
	if o.DataDir != "" {
		dataDir = o.DataDir
	}
	return &compilation{
		report: r, cfg: cfg, opts: o,
		out: &plan.Plan{DataDir: dataDir},
		secrets: &secrets{
			Options: o, report: r, configDir: filepath.Dir(r.doc.file), dataDir: dataDir,
			generated: map[string]secret{},
		},
	}
}

// run runs every step. Later steps refer to what earlier ones named.
func (c *compilation) run() {
	hashKey := c.hashSecret()
	c.out.SetHashSecret(hashKey)
	c.out.Probe = probe.KeyOf(hashKey)
	c.addresses()
	c.compilePools()
	c.compileSimulators()
	c.namePrincipals()
	c.nameCallers()
	c.compileBounds()
	c.nameLimits()
	c.compileCalendars()
	c.compileModels()
	c.compileRoles()
	c.compileOrigins()
	c.compileDirectory()
	c.compileKeys(hashKey)
	c.compileWorkloads()
	c.compileIssuers()
	c.compileLimits()
	c.pricesForBudgets()
	c.compileAlerts()
	c.compileModes()
	c.compileStore()
	c.unasked()
	c.compileDoctor()
	if len(c.faults) == 0 {
		c.costless()
		c.reach()
	}
	c.out.Version = c.version(hashKey)
}

func (c *compilation) hashSecret() []byte {
	s, _ := c.secrets.resolve("key_hash_secret", c.cfg.KeyHashSecret)
	if s.value != "" && len(s.value) < 16 {
		c.fault("key_hash_secret", "shorter than 16 characters")
	}
	return []byte(s.value)
}

// version is a hash of all that the plan is made of, secrets included. It stands
// in logs and metrics, so it is a keyed one.
func (c *compilation) version(key []byte) string {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.cfg)
	if err != nil {
		c.fault("", "%s", err)
		return ""
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(content)
	for _, m := range c.material {
		mac.Write(fmt.Appendf(nil, "%d:%s", len(m), m))
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

func (c *compilation) compileBounds() {
	b := c.cfg.RequestBounds
	facts := slices.Clone(b.HeaderFacts)
	for i, name := range b.HeaderFacts {
		path := index("request_bounds.header_facts", i)
		switch {
		case slices.Contains(b.HeaderFacts[:i], name):
			c.fault(path, "%s is listed twice", name)
		case secretHeaders[name]:
			c.fault(path, "%s carries secrets; rules cannot read it", name)
		case addressHeaders[name]:
			c.fault(path, "%s is what a client says of itself; use networks, workloads and proxy_trust", name)
		case strings.HasPrefix(name, ai.InternalPrefix):
			c.fault(path, "%s is one of weir's own headers, which clients cannot send", name)
		}
	}
	slices.Sort(facts)
	c.out.Bounds = plan.Bounds{MaxBodyBytes: b.MaxBodyBytes, MaxDepth: int(b.MaxDepth), HeaderFacts: slices.Compact(facts)}
	c.out.Usage = plan.Usage{
		SettleDeadline: c.cfg.Usage.SettleDeadline.AsDuration(),
		Retention:      c.cfg.Usage.Retention.AsDuration(),
	}
}

// compileModes sets the modes of the stages.
func (c *compilation) compileModes() {
	modes := map[string]plan.Mode{"enforce": plan.Enforce, "shadow": plan.Shadow, "off": plan.Off}
	c.out.Modes = map[string]plan.Mode{}
	for i, s := range c.cfg.Stages {
		path := index("stages", i)
		mode := modes[s.Mode]
		if _, again := c.out.Modes[s.Stage]; again {
			c.fault(path+".stage", "stage %s has a mode already", s.Stage)
		}
		if s.Stage == "network" && mode == plan.Off && c.networks() {
			c.warn(path+".mode", "networks are configured, and none of them has any effect")
		}
		if s.Stage != "quota" && s.Stage != "network" && mode != plan.Enforce {
			c.fault(path+".mode", "stage %s can only be enforced: later stages rest on it", s.Stage)
		}
		c.out.Modes[s.Stage] = mode
	}
}

// named checks that the names of a list differ.
func (c *compilation) named(list, kind string, n int, name func(int) string) {
	places := make(map[string]int, n)
	for i := range n {
		if first, again := places[name(i)]; again && name(i) != "" {
			c.fault(index(list, i)+".name", "%s %q exists already: %s", kind, name(i), index(list, first))
			continue
		}
		places[name(i)] = i
	}
}

// refer checks that a name exists. It is silent about an empty name, which the
// schema's rules report, and about a list that is not there at all when the
// file has a field that is not known: that is likely the list, misspelt.
func refer[T any](c *compilation, path, kind, name string, among map[string]T) (T, bool) {
	value, ok := among[name]
	if ok || name == "" || c.faulty[path] || (len(among) == 0 && c.misspelt()) {
		return value, ok
	}
	c.fault(path, "unknown %s %q%s", kind, name, closest(name, among))
	return value, false
}

func (c *compilation) misspelt() bool {
	for path := range c.faulty {
		if path != "" && parent(path) == "" {
			return true
		}
	}
	return false
}

// closest suggests the name that was probably meant.
func closest[T any](name string, among map[string]T) string {
	best, distance := "", 1+len(name)/4
	for candidate := range among {
		d := editDistance(name, candidate)
		if d < distance || (d == distance && (best == "" || candidate < best)) {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distinct checks that a list of names has none twice.
func (c *compilation) distinct(path string, names []string) {
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			c.fault(index(path, i), "%q is listed twice", name)
		}
	}
}
