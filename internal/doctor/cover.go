package doctor

import (
	"net/netip"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// walk is a probe that stands for a key and asks for a model: it runs through all
// stages.
type walk struct {
	key    *plan.Key
	model  *plan.Model
	limits []*plan.Limit // that count it
}

// maxWalks bounds what one examination of one listener costs.
const maxWalks = 64

// coverage is which walks, together, are counted by every limit that counts
// anything.
type coverage struct {
	walks []walk
	idle  []*plan.Limit // count no request that a key of the configuration can make
	left  []*plan.Limit // are counted by walks beyond the bound
}

// cover chooses the walks; without limits it is one.
func cover(p *plan.Plan, now time.Time) coverage {
	var c coverage
	done := map[*plan.Limit]bool{}
	for _, l := range p.Limits {
		if done[l] {
			continue
		}
		w, ok := find(p, l, now)
		switch {
		case !ok:
			c.idle = append(c.idle, l)
			continue
		case len(c.walks) == maxWalks:
			c.left = append(c.left, l)
			continue
		}
		for _, other := range p.Limits {
			if other.Applies(&w.key.Principal, w.model.Name) {
				w.limits, done[other] = append(w.limits, other), true
			}
		}
		c.walks = append(c.walks, w)
	}
	if len(c.walks) == 0 {
		if w, ok := find(p, nil, now); ok {
			c.walks = append(c.walks, w)
		}
	}
	return c
}

// find is a key and a model that it may call, whose requests the limit counts; any
// for no limit. A key that may call it at this hour, and from everywhere, comes before one that may not.
func find(p *plan.Plan, l *plan.Limit, now time.Time) (found walk, ok bool) {
	for _, k := range p.KeyList {
		g, few := plan.Grant(k.Roles)
		if k.Refusal(now) != ai.ReasonNone || !few {
			continue
		}
		later := g // at another hour
		live := k.Network == nil && p.TeamNetworks[k.Principal.Team] == nil && g.Live(ai.KindChat, now, netip.Addr{}) == ai.ReasonNone
		for _, m := range p.ModelList {
			switch {
			case l != nil && !l.Applies(&k.Principal, m.Name):
			case live && g.MayCall(m):
				return walk{key: k, model: m}, true
			case !ok && later.MayCall(m):
				found, ok = walk{key: k, model: m}, true
			}
		}
	}
	return found, ok
}
