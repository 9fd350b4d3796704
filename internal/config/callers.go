package config

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/rule"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// compileWorkloads compiles the callers that need no key.
func (c *compilation) compileWorkloads() {
	c.named("workloads", "workload", len(c.cfg.Workloads), func(i int) string { return c.cfg.Workloads[i].Name })
	for i, w := range c.cfg.Workloads {
		path := index("workloads", i)
		caller := &plan.Key{Name: ai.WorkloadKey(w.Name)}
		caller.Principal = c.principal(path, &configv1.Key{Name: caller.Name, Application: w.Application, Team: w.Team, Roles: w.Roles})
		caller.Roles = c.held(path, caller.Principal.Roles)
		if len(caller.Principal.Roles) == 0 && !c.under(path) && !c.misspelt() {
			c.fault(path, "neither the workload nor its application or team has a role: it may call nothing")
		}
		c.workloadID(path+".spiffe_id", w.SpiffeId, caller)
		first(c.keys, caller.Name, caller)
	}
	if len(c.cfg.Workloads) > 0 && !slices.ContainsFunc(c.cfg.Listeners, identifies) {
		c.fault("workloads", "no listener learns who a workload is: set tls.client_ca_file or trust_client_cert_header")
	}
}

func (c *compilation) workloadID(path, id string, caller *plan.Key) {
	if id == "" {
		return // the schema's rules reported it
	}
	probe := id
	if below, ok := strings.CutSuffix(id, "/*"); ok {
		probe = below + "/x"
	}
	if err := plan.CheckSPIFFEID(probe); err != nil {
		c.fault(path, "%s", err)
	} else if !c.out.Workloads.Add(id, caller) {
		c.fault(path, "another workload has this ID already")
	}
}

// identifies tells whether a listener learns who a workload is.
func identifies(l *configv1.Listener) bool {
	return l.TrustClientCertHeader || l.GetTls().GetClientCaFile() != ""
}

// keyless tells whether a name stands for callers without a key, and whether there
// are such.
func (c *compilation) keyless(name string) (keyless, exists bool) {
	if workload, ok := strings.CutPrefix(name, ai.WorkloadKey("")); ok {
		return true, slices.ContainsFunc(c.cfg.Workloads, func(w *configv1.Workload) bool { return w.Name == workload })
	}
	if issuer, ok := strings.CutPrefix(name, ai.IssuerKey("")); ok {
		return true, slices.ContainsFunc(c.cfg.TokenIssuers, func(t *configv1.TokenIssuer) bool { return t.Name == issuer })
	}
	return false, false
}

// clientCertHeader checks that a listener's trust is in somebody and of some use.
func (c *compilation) clientCertHeader(path string, l *configv1.Listener) bool {
	path += ".trust_client_cert_header"
	switch {
	case !l.TrustClientCertHeader:
		return false
	case len(c.cfg.ProxyTrust.GetTrustedProxies()) == 0:
		c.fault(path, "no proxy is trusted: name those that send the header in proxy_trust.trusted_proxies")
	case len(c.cfg.Workloads) == 0:
		c.fault(path, "there are no workloads that it could tell of")
	}
	return true
}

// compileIssuers compiles the token issuers.
func (c *compilation) compileIssuers() {
	c.named("token_issuers", "token issuer", len(c.cfg.TokenIssuers), func(i int) string { return c.cfg.TokenIssuers[i].Name })
	issuers := map[string]string{}
	for i, t := range c.cfg.TokenIssuers {
		path := index("token_issuers", i)
		if other, again := issuers[t.Issuer]; again && t.Issuer != "" {
			c.fault(path+".issuer", "%q has this issuer already", other)
		}
		issuers[t.Issuer] = t.Name
		c.distinct(path+".audiences", t.Audiences)
		issuer := &plan.TokenIssuer{Name: t.Name, Issuer: t.Issuer, Audiences: t.Audiences}
		switch set := t.KeySet.(type) {
		case *configv1.TokenIssuer_JwksFile:
			issuer.KeySet = c.keySet(path+".jwks_file", set.JwksFile)
		case *configv1.TokenIssuer_Jwks:
			issuer.Remote = c.remoteKeySet(path+".jwks", set.Jwks)
		}
		b := &binder{name: ai.IssuerKey(t.Name), resolve: c.caller, known: map[string]*plan.Key{}}
		for j, binding := range t.Bindings {
			b.bindings = append(b.bindings, c.binding(index(path+".bindings", j), binding))
			if j+1 < len(t.Bindings) && b.bindings[j].when == nil && binding.When == "" {
				c.fault(index(path+".bindings", j+1), "never reached: bindings[%d] takes every token", j)
			}
		}
		issuer.Binding = b
		first(c.keys, b.name, &plan.Key{Name: b.name})
		c.out.TokenIssuers = append(c.out.TokenIssuers, issuer)
	}
}

// binding is a compiled claim binding.
type binding struct {
	when, team, application, roles, user *rule.Claim // nil where there is none
}

func (c *compilation) binding(path string, b *configv1.ClaimBinding) (out binding) {
	switch {
	case b.Team != "" && b.Application != "":
		c.fault(path, "either application or team, not both: an application has its team")
	case b.Team == "" && b.Application == "" && !c.under(path):
		c.fault(path, "application or team is required")
	}
	compile := func(field, source string, want int) *rule.Claim {
		if source == "" {
			return nil
		}
		claim, faults := rule.CompileClaim(source, claimTypes[want])
		c.expressionFaults(path+"."+field, faults)
		return claim
	}
	out.when = compile("when", b.When, claimBool)
	out.team = compile("team", b.Team, claimString)
	out.application = compile("application", b.Application, claimString)
	out.roles = compile("roles", b.Roles, claimStrings)
	out.user = compile("user", b.User, claimString)
	c.constants(path, out)
	return out
}

const (
	claimBool = iota
	claimString
	claimStrings
)

var claimTypes = [...]*rule.ClaimType{claimBool: rule.ClaimBool, claimString: rule.ClaimString, claimStrings: rule.ClaimStrings}

// constants checks the names in expressions that read no claim.
func (c *compilation) constants(path string, b binding) {
	if value, ok := b.when.Constant().(bool); ok {
		if value {
			c.fault(path+".when", "holds for every token: leave it out")
		} else {
			c.fault(path+".when", "never holds")
		}
	}
	if name, ok := b.team.Constant().(string); ok {
		refer(c, path+".team", "team", name, c.teams)
	}
	if name, ok := b.application.Constant().(string); ok {
		refer(c, path+".application", "application", name, c.apps)
	}
	if names, ok := b.roles.Constant().([]string); ok {
		for _, name := range names {
			refer(c, path+".roles", "role", name, c.roles)
		}
	}
	if b.user.Constant() != nil {
		c.fault(path+".user", "is the same for every token")
	}
}

// The errors of bindings. They hold no claim's value.
var (
	errNoBinding   = errors.New("no binding takes the token")
	errNoTeam      = errors.New("the binding's team is none that is configured")
	errNoApp       = errors.New("the binding's application is none that is configured")
	errNoRole      = errors.New("a role of the binding is none that is configured")
	errWithoutRole = errors.New("the binding gives no role")
	errManyRoles   = errors.New("the binding gives more roles than a caller can have")
	errUser        = errors.New("the binding's user is not a name of 1 to 256 bytes")
)

// caller makes what stands for a caller that is known by a token.
func (c *compilation) caller(name, application, team string, roles []string) (*plan.Key, error) {
	if application != "" {
		app, ok := c.apps[application]
		if !ok {
			return nil, errNoApp
		}
		team, roles = app.Team, append(roles, app.Roles...)
	}
	t, ok := c.teams[team]
	if !ok {
		return nil, errNoTeam
	}
	roles = append(roles, t.Roles...)
	slices.Sort(roles)
	roles = slices.Compact(roles)
	for _, r := range roles {
		if c.roles[r] == nil {
			return nil, errNoRole
		}
	}
	switch {
	case len(roles) == 0:
		return nil, errWithoutRole
	case len(roles) > plan.MaxRoles:
		return nil, errManyRoles
	}
	return &plan.Key{
		Name:      name,
		Principal: ai.Principal{Key: name, Application: application, Team: team, Organisation: t.Organisation, Roles: roles},
		Roles:     c.out.RolesOf(roles),
	}, nil
}

// binder binds an issuer's tokens. It makes what stands for a caller once for each
// team and set of roles, of which there are few beside users.
type binder struct {
	name     string
	bindings []binding
	resolve  func(name, application, team string, roles []string) (*plan.Key, error)

	mu    sync.RWMutex
	known map[string]*plan.Key
}

var _ plan.Binding = (*binder)(nil)

// maxKnown bounds what is kept: roles may be any of those that are configured.
const maxKnown = 4096

// Bind implements plan.Binding.
func (b *binder) Bind(claims map[string]any) (*plan.Key, string, error) {
	for i := range b.bindings {
		one := &b.bindings[i]
		if one.when != nil {
			if holds, err := one.when.Holds(claims); err != nil {
				return nil, "", err
			} else if !holds {
				continue
			}
		}
		return b.bind(one, claims)
	}
	return nil, "", errNoBinding
}

func (b *binder) bind(one *binding, claims map[string]any) (*plan.Key, string, error) {
	user, err := one.userOf(claims)
	if err != nil {
		return nil, "", err
	}
	var application, team string
	if one.application != nil {
		application, err = one.application.Text(claims)
	} else {
		team, err = one.team.Text(claims)
	}
	if err != nil {
		return nil, "", err
	}
	var roles []string
	if one.roles != nil {
		if roles, err = one.roles.Texts(claims); err != nil {
			return nil, "", err
		}
	}
	caller, err := b.caller(application, team, roles)
	return caller, user, err
}

// userOf is the user; "" where the claims name none.
func (b *binding) userOf(claims map[string]any) (string, error) {
	user, ok := claims["sub"].(string)
	if b.user != nil {
		var err error
		if user, err = b.user.Text(claims); err != nil {
			return "", err
		}
	} else if !ok {
		return "", nil
	}
	if user == "" || len(user) > 256 || !utf8.ValidString(user) || strings.ContainsFunc(user, unicode.IsControl) {
		return "", errUser
	}
	return user, nil
}

func (b *binder) caller(application, team string, roles []string) (*plan.Key, error) {
	slices.Sort(roles)
	roles = slices.Compact(roles)
	id := strings.Join(append([]string{application, team}, roles...), "\x00")
	b.mu.RLock()
	caller, ok := b.known[id]
	b.mu.RUnlock()
	if ok {
		return caller, nil
	}
	caller, err := b.resolve(b.name, application, team, roles)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	if len(b.known) < maxKnown {
		b.known[id] = caller
	}
	b.mu.Unlock()
	return caller, nil
}
