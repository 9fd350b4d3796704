package plan

import (
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/ai"
)

// MaxRoles is how many roles a caller may have: a request keeps one bit for each.
const MaxRoles = 64

// Role permits. A request is let through if one role of its caller permits all
// of it.
type Role struct {
	Name      string
	AllModels bool
	Models    map[string]bool
	Endpoints []ai.Kind // nil is all
	Denied    Features
	// The longest input and the most output of all answers together, in tokens; 0
	// is no bound.
	MaxContext, MaxOutput int64
	Hours                 *Hours          // nil is always
	Network               *Network        // nil is everywhere
	Pools                 map[string]bool // nil is all
	AllEgress             bool
	EgressPools           map[string]bool
}

// RolesOf are the roles of these names. A name that is no role's permits nothing.
func (p *Plan) RolesOf(names []string) []*Role {
	roles := make([]*Role, 0, len(names))
	for _, name := range names {
		if r := p.Roles[name]; r != nil {
			roles = append(roles, r)
		}
	}
	return roles
}

// MayCall tells whether the role permits the model.
func (r *Role) MayCall(m *Model) bool { return r.AllModels || r.Models[m.Name] }

// MayUse tells whether the pool is among those that the role permits at all.
func (r *Role) MayUse(p *Pool) bool { return r.Pools == nil || r.Pools[p.Name] }

// MayLeave tells whether the role permits the egress that the pool is, if it is.
func (r *Role) MayLeave(p *Pool) bool {
	return p.Placement == ai.Private || r.AllEgress || r.EgressPools[p.Name]
}

// MayReach tells whether the role permits the pool.
func (r *Role) MayReach(p *Pool) bool { return r.MayUse(p) && r.MayLeave(p) }

// Features are what a request can use beside text.
type Features uint8

// The features.
const (
	Tools Features = 1 << iota
	Vision
	Streaming
)

// AllFeatures in the order in which they are checked, with their names.
var AllFeatures = []struct {
	Feature Features
	Name    string
}{{Tools, "tools"}, {Vision, "vision"}, {Streaming, "streaming"}}

// Check is one thing that a role may bar. Checks are made in this order.
type Check uint8

// The checks.
const (
	CheckEndpoint Check = iota
	CheckHours
	CheckNetwork
	CheckModel
	CheckFeature
	CheckOutput
	CheckPool
	CheckEgress
	CheckContext
	checks
)

var checkReasons = [checks]ai.Reason{
	CheckEndpoint: ai.ReasonEndpointNotAllowed,
	CheckHours:    ai.ReasonOutsideHours,
	CheckNetwork:  ai.ReasonNetworkNotAllowed,
	CheckModel:    ai.ReasonModelNotAllowed,
	CheckFeature:  ai.ReasonFeatureNotAllowed,
	CheckOutput:   ai.ReasonOutputNotAllowed,
	CheckPool:     ai.ReasonPoolNotAllowed,
	CheckEgress:   ai.ReasonEgressNotAllowed,
	CheckContext:  ai.ReasonContextNotAllowed,
}

// RoleSet is a set of a caller's roles, by their places in its list.
type RoleSet uint64

// Grants is what a caller's roles permit of one request, as far as is known of
// it: each check takes out the roles that bar it, and the check that takes out
// the last one is why the request is refused. A role is never taken back in.
type Grants struct {
	roles   []*Role
	known   bool
	live    RoleSet
	ended   [checks]RoleSet // what each check took out, or found barred at a target
	reached RoleSet         // permit one of the targets
	settled bool            // all targets of the route were looked at
	// MaxOutput is the ceiling, in tokens for each answer, of a request that names
	// none: what the roles permit at every target. 0 is no ceiling.
	MaxOutput int64
}

// Grant is the grants of a caller with these roles, before anything is checked.
// It is false for more than MaxRoles.
func Grant(roles []*Role) (Grants, bool) {
	if len(roles) > MaxRoles {
		return Grants{}, false
	}
	return Grants{roles: roles, known: true, live: RoleSet(1)<<len(roles) - 1}, true
}

// Known tells whether the caller is known.
func (g *Grants) Known() bool { return g.known }

// Roles are all roles of the caller.
func (g *Grants) Roles() []*Role { return g.roles }

// Ended tells which check ended the role at this place of the list, if one did.
func (g *Grants) Ended(role int) (Check, bool) {
	bit := RoleSet(1) << role
	if g.live&bit != 0 && (!g.settled || g.reached&bit != 0) {
		return 0, false
	}
	for c := range checks {
		if g.ended[c]&bit != 0 {
			return c, true
		}
	}
	return 0, false
}

// Reason is why a request is refused that the check leaves no role for.
func (c Check) Reason() ai.Reason { return checkReasons[c] }

// Live takes out the roles that bar what is known from the headers, and returns
// why the request is refused, if no role is left.
func (g *Grants) Live(kind ai.Kind, now time.Time, client netip.Addr) ai.Reason {
	if reason := g.narrow(CheckEndpoint, func(r *Role) bool {
		return r.Endpoints == nil || slices.Contains(r.Endpoints, kind)
	}); reason != ai.ReasonNone {
		return reason
	}
	if reason := g.narrow(CheckHours, func(r *Role) bool { return r.Hours == nil || r.Hours.Contain(now) }); reason != ai.ReasonNone {
		return reason
	}
	return g.narrow(CheckNetwork, func(r *Role) bool { return r.Network.Admits(client) })
}

// Model takes out the roles that bar the model.
func (g *Grants) Model(m *Model) ai.Reason {
	return g.narrow(CheckModel, func(r *Role) bool { return r.MayCall(m) })
}

// Features takes out the roles that deny any of the features. Beside the reason
// it returns the feature that took out the last role.
func (g *Grants) Features(used Features) (ai.Reason, Features) {
	for i := range AllFeatures {
		f := AllFeatures[i].Feature
		if used&f == 0 {
			continue
		}
		if reason := g.narrow(CheckFeature, func(r *Role) bool { return r.Denied&f == 0 }); reason != ai.ReasonNone {
			return reason, f
		}
	}
	return ai.ReasonNone, 0
}

// Output takes out the roles that bar so much output: tokens of all answers
// together, at the least.
func (g *Grants) Output(tokens int64) ai.Reason {
	return g.narrow(CheckOutput, func(r *Role) bool { return r.MaxOutput == 0 || tokens <= r.MaxOutput })
}

// MayCall tells whether a role that is left permits the model.
func (g *Grants) MayCall(m *Model) bool {
	for s := g.live; s != 0; s &= s - 1 {
		if g.roles[bits.TrailingZeros64(uint64(s))].MayCall(m) {
			return true
		}
	}
	return false
}

// MayGet tells whether a role that is left permits the model and a pool of it.
func (g *Grants) MayGet(m *Model) bool {
	for s := g.live; s != 0; s &= s - 1 {
		r := g.roles[bits.TrailingZeros64(uint64(s))]
		if r.MayCall(m) && slices.ContainsFunc(m.Pools, r.MayReach) {
			return true
		}
	}
	return false
}

// Reach is the roles that permit the request at the pool, or why none does. It
// takes out no role: another target may be permitted.
func (g *Grants) Reach(p *Pool) (RoleSet, ai.Reason) {
	s, reason := g.among(g.live, CheckPool, func(r *Role) bool { return r.MayUse(p) })
	if reason == ai.ReasonNone && p.Placement != ai.Private {
		return g.among(s, CheckEgress, func(r *Role) bool { return r.MayLeave(p) })
	}
	return s, reason
}

// ContextBound is the smallest bound on the input that one of the roles sets;
// false if none does.
func (g *Grants) ContextBound(s RoleSet) (bound int64, ok bool) {
	bound = math.MaxInt64
	for ; s != 0; s &= s - 1 {
		if n := g.roles[bits.TrailingZeros64(uint64(s))].MaxContext; n > 0 {
			bound, ok = min(bound, n), true
		}
	}
	return bound, ok
}

// Within is those of the roles that permit an input of so many tokens, or why
// none does.
func (g *Grants) Within(s RoleSet, tokens int64) (RoleSet, ai.Reason) {
	return g.among(s, CheckContext, func(r *Role) bool { return r.MaxContext == 0 || tokens <= r.MaxContext })
}

// Take notes a target that these roles permit, for a request of so many answers
// that names no ceiling of its output. The ceiling is then one that each target
// has a role for.
func (g *Grants) Take(s RoleSet, answers int64) {
	g.reached |= s
	most := int64(0)
	for ; s != 0; s &= s - 1 {
		n := g.roles[bits.TrailingZeros64(uint64(s))].MaxOutput
		if n == 0 {
			return
		}
		most = max(most, n)
	}
	if most /= max(1, answers); g.MaxOutput == 0 || most < g.MaxOutput {
		g.MaxOutput = most
	}
}

// TakeGiven is Take for a request that names its own ceiling.
func (g *Grants) TakeGiven(s RoleSet) { g.reached |= s }

// Settle tells that all targets of the route were looked at: roles that permit none
// of them have ended. Another target may still be asked for, and rest on one of these.
func (g *Grants) Settle() { g.settled = true }

func (g *Grants) narrow(c Check, permits func(*Role) bool) (reason ai.Reason) {
	g.live, reason = g.among(g.live, c, permits)
	return reason
}

// among is those of the roles that permit what is checked, or why none does.
func (g *Grants) among(s RoleSet, c Check, permits func(*Role) bool) (RoleSet, ai.Reason) {
	for rest := s; rest != 0; rest &= rest - 1 {
		if i := bits.TrailingZeros64(uint64(rest)); !permits(g.roles[i]) {
			s &^= 1 << i
			g.ended[c] |= 1 << i
		}
	}
	if s == 0 {
		return 0, checkReasons[c]
	}
	return s, ai.ReasonNone
}
