package app

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	"github.com/weirproxy/weir/limit/redis"
	"github.com/weirproxy/weir/usage"
)

// newShared makes the ledger of the limit store; nil when limits are counted in this
// process.
func (a *app) newShared(p *plan.Plan) (*redis.Ledger, error) {
	s := p.Store
	if s == nil {
		return nil, nil
	}
	replica, err := a.replica()
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	o := storeOptions(s)
	o.Replica, o.Logger, o.Lookup = replica, a.log, a.lookup(p.Limits)
	o.Hold = p.Usage.SettleDeadline + holdBeyond
	l := redis.New(o)
	if err := a.reg.Register(l); err != nil {
		return nil, err
	}
	return l, nil
}

// replica is the name of this one.
func (a *app) replica() (string, error) {
	if a.o.Replica != "" {
		return a.o.Replica, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("this replica has no name: %w (--replica gives it one)", err)
	}
	return name, nil
}

// storeOptions say where the limit store is.
func storeOptions(s *plan.LimitStore) redis.Options {
	return redis.Options{
		Server: redis.Server{
			Addresses: s.Addresses, SentinelMaster: s.SentinelMaster, Cluster: s.Cluster,
			Username: s.Username, Password: s.Password, TLS: s.TLS,
		},
		Name: s.Name, Replicas: s.Replicas, Allowance: s.Allowance, Timeout: s.Timeout,
	}
}

// OperateStore connects to the limit store of a configuration, for somebody who looks
// after it.
func OperateStore(configPath string, timeout time.Duration) (*redis.Ledger, error) {
	p, err := config.Load(configPath, config.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	if p.Store == nil {
		return nil, fmt.Errorf("%s: no limit_store: limits are counted in one process", configPath)
	}
	o := storeOptions(p.Store)
	o.Timeout = timeout
	return redis.Operate(o)
}

// holdBeyond is how much longer the limit store holds what a replica has reserved that
// is gone than a replica that is there waits for the end of a request.
const holdBeyond = 15 * time.Minute

// runShared brings the replica into its deployment, and takes the entries that the
// others receive for it.
func (a *app) runShared(l *redis.Ledger) {
	a.background("limit store", l.Run)
	a.background("entries", func(ctx context.Context) error {
		l.TakeEntries(ctx, a.usage.TakeHanded)
		return nil
	})
}

// lookup finds a request that has ended, by its id.
func (a *app) lookup(limits []*plan.Limit) func(id string) ([]*plan.Limit, limit.Request, []limit.Used, bool) {
	return func(id string) ([]*plan.Limit, limit.Request, []limit.Used, bool) {
		e, err := a.usage.Event(context.Background(), id)
		if err != nil || e.GetOutcome() == usage.OutcomeUnknown {
			return nil, limit.Request{}, nil, false
		}
		return limits, requestOf(e.GetDecision()), usedOf(e), true
	}
}
