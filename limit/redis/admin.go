package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// adminBound is how long a person waits for an answer.
const adminBound = 10 * time.Second

// Condition is how a deployment stands.
type Condition struct {
	Open    bool
	Why     string   // why its counts had to be put together, the last time
	Members []string // replicas that have said what they know, in order
	Partly  []string // those that have begun to
}

// Operate connects to a deployment for somebody who looks after it. The ledger takes
// part in nothing.
func Operate(o Options) (*Ledger, error) {
	l := New(o)
	if err := l.dial(); err != nil {
		return nil, fmt.Errorf("the limit store cannot be reached: %w", err)
	}
	return l, nil
}

// Close ends what Operate began.
func (l *Ledger) Close() { (*l.client.Load()).Close() }

// Condition tells how the deployment stands.
func (l *Ledger) Condition(ctx context.Context) (Condition, error) {
	c := *l.client.Load()
	facts, err := c.Do(ctx, c.B().Hgetall().Key(l.meta).Build()).AsStrMap()
	if err != nil {
		return Condition{}, err
	}
	if len(facts) == 0 {
		return Condition{Why: reasons["empty"]}, nil
	}
	d := Condition{Open: facts["state"] == "open", Why: reasons[facts["why"]]}
	for k, name := range facts {
		mark, ok := strings.CutPrefix(k, "name:")
		switch {
		case !ok:
		case facts["boot:"+mark] != "":
			d.Members = append(d.Members, name)
		default:
			d.Partly = append(d.Partly, name)
		}
	}
	slices.Sort(d.Members)
	slices.Sort(d.Partly)
	return d, nil
}

// AcceptLoss opens a deployment whose counts are incomplete because replicas are gone
// for good: what those reserved and used is not counted any more. It tells how
// many are missing. Where time stands still because the server's clock is far behind
// what it was, it begins anew with that clock.
func (l *Ledger) AcceptLoss(ctx context.Context) (missing int, err error) {
	rep, err := l.ask(ctx, acceptScript, nil)
	if err != nil {
		return 0, err
	}
	if rep.status != statusOK || len(rep.rest) != 1 {
		return 0, errors.New("no replica has told the limit store what it knows: nothing would be counted that was used before; start one")
	}
	l.poke()
	n, err := integer(&rep.rest[0])
	return int(n), err
}

// ForgetReplica gives the place of a replica away that is gone for good. What it
// used stays counted.
func (l *Ledger) ForgetReplica(ctx context.Context, name string) error {
	rep, err := l.ask(ctx, forgetScript, []string{MarkOf(name).String()})
	switch {
	case err != nil:
		return err
	case rep.status == "unknown":
		return fmt.Errorf("no replica %q has a place", name)
	case rep.status == "alive":
		return fmt.Errorf("replica %q was there within the last 10 seconds", name)
	case rep.status != statusOK:
		return fmt.Errorf("the limit store answered %q", rep.status)
	}
	l.poke()
	return nil
}

// Members are the names of the replicas that have a place, in order.
func (l *Ledger) Members() []string {
	var names []string
	for _, name := range *l.members.Load() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// found is a count that the server has.
type found struct {
	id   identity
	text string
}

// scan calls fn with the counts that the server has, some at a time. A count may
// come twice.
func (l *Ledger) scan(ctx context.Context, match func(identity) bool, fn func([]found) error) error {
	c := l.client.Load()
	if c == nil || !l.ready() {
		return errAway
	}
	prefix := strings.TrimSuffix(l.meta, "meta") + l.view.Load().gen + ":c:"
	return eachKey(ctx, *c, prefix+"*", func(keys []string) error {
		var list []found
		for _, k := range keys {
			text := strings.TrimPrefix(k, prefix)
			if id, err := parseIdentity(text); err == nil && match(id) {
				list = append(list, found{id, text})
			}
		}
		if len(list) == 0 {
			return nil
		}
		return fn(list)
	})
}

// eachKey scans the node that has the pattern's slot: brackets stand for
// themselves in no name of a deployment.
func eachKey(ctx context.Context, c rueidis.Client, pattern string, fn func([]string) error) error {
	for _, node := range c.Nodes() {
		var cursor uint64
		for {
			page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(pattern).Count(1000).Build()).AsScanEntry()
			if err != nil {
				return err
			}
			if err := fn(page.Elements); err != nil {
				return err
			}
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	return nil
}

// counts asks a script about counts: four values for each.
func (l *Ledger) counts(ctx context.Context, s *script, list []found, limits func(identity) *plan.Limit) ([]count, int64, error) {
	args := make([]string, 0, 2*len(list))
	for _, f := range list {
		args = append(args, f.text, strconv.FormatInt(windowOf(limits(f.id)), 10))
	}
	rep, err := l.ask(ctx, s, args)
	if err != nil {
		return nil, 0, err
	}
	if rep.status != statusOK || len(rep.rest) < 4*len(list) {
		return nil, 0, errAway
	}
	out := make([]count, len(list))
	for i := range out {
		for j, v := range []*int64{&out[i].used, &out[i].held, &out[i].last, &out[i].broken} {
			if *v, err = integer(&rep.rest[4*i+j]); err != nil {
				return nil, 0, err
			}
		}
	}
	return out, rep.now, nil
}

// All tells of every count of the limits that is not empty, in no order.
func (l *Ledger) All(ctx context.Context, limits []*plan.Limit) ([]limit.State, error) {
	ctx, cancel := context.WithTimeout(ctx, adminBound)
	defer cancel()
	of := func(id identity) *plan.Limit {
		for _, lim := range limits {
			if lim.Ident() == id.limit && lim.Unit == id.unit && lim.Period == id.period {
				return lim
			}
		}
		return nil
	}
	seen := map[string]bool{}
	var states []limit.State
	err := l.scan(ctx, func(id identity) bool { return of(id) != nil }, func(list []found) error {
		counts, now, err := l.counts(ctx, readScript, list, of)
		if err != nil {
			return err
		}
		for i, c := range counts {
			if seen[list[i].text] || c.used == 0 && c.held == 0 && c.broken <= now {
				continue
			}
			seen[list[i].text] = true
			lim := of(list[i].id)
			states = append(states, c.state(lim, l.split(lim).share.Amount, list[i].id.scope, now))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the counts cannot be read: %w", err)
	}
	return states, nil
}

// longest is the window of a limit that is not known here: nothing of it is past.
const longest = 366 * 24 * time.Hour

// Reset gives back all that was used of a limit in the scopes that match, and
// closes their breakers; what open requests hold stays held. It returns what the
// counts were. The other replicas take it over within a second.
func (l *Ledger) Reset(ctx context.Context, lim *plan.Limit, match func(limit.Scope) bool) ([]limit.State, error) {
	ctx, cancel := context.WithTimeout(ctx, adminBound)
	defer cancel()
	of := func(id identity) *plan.Limit {
		if lim.Unit == id.unit && lim.Period == id.period {
			return lim
		}
		return &plan.Limit{Name: id.limit, Unit: id.unit, Period: id.period, Window: longest} // it was another one before
	}
	var states []limit.State
	err := l.scan(ctx, func(id identity) bool { return id.limit == lim.Ident() && match(id.scope) }, func(list []found) error {
		counts, now, err := l.counts(ctx, resetScript, list, of)
		if err != nil {
			return err
		}
		for i, c := range counts {
			if c.used > 0 || c.broken > now {
				states = append(states, c.state(lim, l.split(lim).share.Amount, list[i].id.scope, now))
			}
		}
		return l.publishReset(ctx, list)
	})
	if err != nil {
		return states, fmt.Errorf("not everything was reset: %w", err)
	}
	l.own.Reset(lim, match)
	l.pot.Reset(lim, match)
	return states, nil
}

// resets is the stream of what was reset.
func (l *Ledger) resets() string { return strings.TrimSuffix(l.meta, "meta") + "resets" }

// publishReset tells the other replicas, whose accounts would bring back what was
// reset if the server lost its counts.
func (l *Ledger) publishReset(ctx context.Context, list []found) error {
	c := *l.client.Load()
	for _, f := range list {
		cmd := c.B().Xadd().Key(l.resets()).Maxlen().Almost().Threshold("10000").Id("*").FieldValue().FieldValue("count", f.text).FieldValue("by", l.boot).Build()
		if err := c.Do(ctx, cmd).Error(); err != nil {
			return err
		}
	}
	return nil
}

// takeResets resets in this replica's accounts what another one was asked to reset.
func (k *keeper) takeResets(ctx context.Context) {
	l := k.l
	c := *l.client.Load()
	ctx, cancel := context.WithTimeout(ctx, l.opt.Timeout)
	defer cancel()
	if k.resets == "" {
		list, err := c.Do(ctx, c.B().Xrevrange().Key(l.resets()).End("+").Start("-").Count(1).Build()).AsXRange()
		if err != nil {
			return
		}
		if k.resets = "0-0"; len(list) > 0 {
			k.resets = list[0].ID
		}
		return
	}
	list, err := c.Do(ctx, c.B().Xrange().Key(l.resets()).Start(k.resets).End("+").Count(1000).Build()).AsXRange()
	if err != nil {
		return
	}
	for _, e := range list {
		if e.ID == k.resets || e.FieldValues["by"] == l.boot { // the start is included; its own it knows
			k.resets = e.ID
			continue
		}
		k.resets = e.ID
		id, err := parseIdentity(e.FieldValues["count"])
		if err != nil {
			continue
		}
		same := func(s limit.Scope) bool { return s == id.scope }
		lim := &plan.Limit{Name: id.limit}
		l.own.Reset(lim, same)
		l.pot.Reset(lim, same)
	}
}

// housekeeping does what is to be done now and then: it takes over resets, and drops
// what is left of earlier generations.
func (k *keeper) housekeeping(ctx context.Context, gen string) {
	k.takeResets(ctx)
	if now := k.l.opt.Now(); now.Sub(k.swept) > time.Minute || k.swept.IsZero() {
		k.swept = now
		if err := k.dropOld(ctx, gen); err != nil && ctx.Err() == nil {
			k.l.opt.Logger.Warn("limits: old counts are left in the limit store", "err", err)
		}
	}
}

func (k *keeper) dropOld(ctx context.Context, gen string) error {
	c := *k.l.client.Load()
	base := strings.TrimSuffix(k.l.meta, "meta")
	ctx, cancel := context.WithTimeout(ctx, adminBound)
	defer cancel()
	old, err := c.Do(ctx, c.B().Lrange().Key(base+"old").Start(0).Stop(10).Build()).AsStrSlice()
	if err != nil {
		return err
	}
	for _, g := range old {
		if g == gen || g == "" {
			continue
		}
		err := eachKey(ctx, c, base+g+":*", func(keys []string) error {
			if len(keys) == 0 {
				return nil
			}
			return c.Do(ctx, c.B().Unlink().Key(keys...).Build()).Error()
		})
		if err != nil {
			return err
		}
		if err := c.Do(ctx, c.B().Lrem().Key(base+"old").Count(0).Element(g).Build()).Error(); err != nil {
			return err
		}
	}
	return nil
}
