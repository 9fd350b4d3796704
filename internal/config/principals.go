package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// namePrincipals learns the names of teams, applications and roles, and checks
// what they refer to among each other.
func (c *compilation) namePrincipals() {
	c.teams, c.apps, c.roles = map[string]*configv1.Team{}, map[string]*configv1.Application{}, map[string]*configv1.Role{}
	c.named("teams", "team", len(c.cfg.Teams), func(i int) string { return c.cfg.Teams[i].Name })
	c.named("applications", "application", len(c.cfg.Applications), func(i int) string { return c.cfg.Applications[i].Name })
	c.named("roles", "role", len(c.cfg.Roles), func(i int) string { return c.cfg.Roles[i].Name })
	for _, r := range c.cfg.Roles {
		first(c.roles, r.Name, r)
	}
	for i, t := range c.cfg.Teams {
		first(c.teams, t.Name, t)
		c.roleNames(index("teams", i)+".roles", t.Roles)
	}
	for i, a := range c.cfg.Applications {
		first(c.apps, a.Name, a)
		c.roleNames(index("applications", i)+".roles", a.Roles)
		if team, ok := refer(c, index("applications", i)+".team", "team", a.Team, c.teams); ok {
			c.countRoles(index("applications", i)+".roles", len(team.Roles)+len(a.Roles))
		}
	}
}

// first keeps the first of several objects with one name.
func first[T any](among map[string]T, name string, value T) {
	if _, again := among[name]; !again {
		among[name] = value
	}
}

func (c *compilation) roleNames(path string, names []string) {
	c.distinct(path, names)
	for i, name := range names {
		refer(c, index(path, i), "role", name, c.roles)
	}
}

// modelName checks a reference to a model: by its name, "*" for all.
func (c *compilation) modelName(path, name string) {
	if name == "*" {
		return
	}
	if m, ok := c.out.Models[name]; ok && m.Name != name {
		c.fault(path, "%q is an alias; the model's name is %q", name, m.Name)
		return
	}
	refer(c, path, "model", name, c.models)
}

// compileKeys compiles the API keys with all that their roles grant.
func (c *compilation) compileKeys(hashKey []byte) {
	c.named("keys", "key", len(c.cfg.Keys), func(i int) string { return c.cfg.Keys[i].Name })
	c.keys, c.out.Keys = map[string]*plan.Key{}, map[plan.KeyHash]*plan.Key{}
	if len(c.cfg.Keys)+len(c.cfg.Workloads)+len(c.cfg.TokenIssuers) == 0 && !c.misspelt() {
		c.warn("", "no keys in this file: only keys that `weir key create` makes, tokens and workloads are let in")
	}
	for i, k := range c.cfg.Keys {
		path := index("keys", i)
		key := &plan.Key{Name: k.Name, Disabled: k.Disabled, Revoked: k.Revoked, Principal: c.principal(path, k)}
		key.Expires = c.expiry(path+".expires_at", k)
		key.Roles = c.held(path, key.Principal.Roles)
		key.Network = c.keyNetwork(path+".network", k.Network, key.Principal.Team)
		if len(key.Principal.Roles) == 0 && !k.Disabled && !k.Revoked && !c.under(path) && !c.misspelt() {
			c.fault(path, "neither the key nor its application or team has a role: it may call nothing")
		}
		if hash, ok := c.keyHash(path, k, key, hashKey); ok {
			key.Hash = hash
			if other, again := c.out.Keys[hash]; again {
				c.fault(path, "the same key as %q", other.Name)
			}
			c.out.Keys[hash] = key
		}
		first(c.keys, k.Name, key)
		c.out.KeyList = append(c.out.KeyList, key)
	}
}

// principal resolves who a key stands for.
func (c *compilation) principal(path string, k *configv1.Key) ai.Principal {
	p := ai.Principal{Key: k.Name, Application: k.Application, Team: k.Team}
	c.roleNames(path+".roles", k.Roles)
	roles := slices.Clone(k.Roles)
	switch {
	case k.Application != "" && k.Team != "":
		c.fault(path, "either application or team, not both: an application has its team")
	case k.Application == "" && k.Team == "":
		c.fault(path, "application or team is required")
	case k.Application != "":
		if app, ok := refer(c, path+".application", "application", k.Application, c.apps); ok {
			p.Team = app.Team
			roles = append(roles, app.Roles...)
		}
	default:
		refer(c, path+".team", "team", k.Team, c.teams)
	}
	p.Organisation = c.teams[p.Team].GetOrganisation()
	roles = append(roles, c.teams[p.Team].GetRoles()...)
	slices.Sort(roles)
	p.Roles = slices.Compact(roles)
	return p
}

// expiry is when a key expires; zero is never.
func (c *compilation) expiry(path string, k *configv1.Key) time.Time {
	if k.ExpiresAt == nil {
		return time.Time{}
	}
	if err := k.ExpiresAt.CheckValid(); err != nil {
		c.fault(path, "want a time, as 2027-01-01T00:00:00Z")
		return time.Time{}
	}
	at := k.ExpiresAt.AsTime()
	if !c.opts.Now().Before(at) {
		c.warn(path, "the key expired on %s", at.Format("2006-01-02"))
	}
	return at
}

// compileDirectory keeps who exists, for keys that the file does not list.
func (c *compilation) compileDirectory() {
	d := plan.Directory{Teams: map[string][]string{}, Applications: map[string]plan.Application{}, Organisations: map[string]string{}}
	for name, t := range c.teams {
		d.Teams[name] = t.Roles
		if t.Organisation != "" {
			d.Organisations[name] = t.Organisation
		}
	}
	for name, a := range c.apps {
		d.Applications[name] = plan.Application{Team: a.Team, Roles: a.Roles}
	}
	c.out.Directory = d
}

func malformed(key string) string {
	if len(key) > plan.MaxToken {
		return fmt.Sprintf("the key is longer than %d characters", plan.MaxToken)
	}
	return "the key begins with weir_ and its checksum is wrong: it would always be refused"
}

// keyHash is the keyed hash of a key, given or made from the key itself.
func (c *compilation) keyHash(path string, k *configv1.Key, key *plan.Key, hashKey []byte) (plan.KeyHash, bool) {
	if line, ok := k.Material.(*configv1.Key_Hash); ok {
		hash, err := ParseHash(line.Hash)
		return hash, err == nil // the schema's rules reported it
	}
	ref := k.GetSecret()
	if ref == nil {
		return plan.KeyHash{}, false
	}
	s, ok := c.secrets.resolve(path+".secret", ref)
	if !ok {
		return plan.KeyHash{}, false
	}
	if !headerText(s.value) || strings.ContainsAny(s.value, " ,") {
		c.fault(path+".secret", "the key holds characters that a client cannot send")
		return plan.KeyHash{}, false
	}
	switch {
	case plan.Malformed(s.value):
		c.fault(path+".secret", "%s", malformed(s.value))
		return plan.KeyHash{}, false
	case len(s.value) < 8:
		c.fault(path+".secret", "the key is shorter than 8 characters: it can be guessed")
		return plan.KeyHash{}, false
	case len(s.value) < 16:
		c.warn(path+".secret", "the key is shorter than 16 characters")
	}
	if _, generated := ref.Source.(*configv1.SecretRef_Generated); generated && s.shown {
		key.Shown = s.value
	}
	hash := plan.HashKey(hashKey, s.value)
	c.material = append(c.material, string(hash[:]))
	return hash, true
}
