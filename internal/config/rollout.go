package config

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

func fillRollout(r *configv1.Rollout) {
	if r == nil {
		return
	}
	orValue(&r.Sticky, string(plan.StickyPrincipal))
	if len(r.Steps) == 0 {
		for _, percent := range []float64{5, 25, 50} {
			r.Steps = append(r.Steps, &configv1.RolloutStep{Percent: percent, Pause: durationpb.New(10 * time.Minute)})
		}
	}
	orMessage(&r.Judge)
	orValue(&r.Judge.MinRequests, 100)
	orOptional(&r.Judge.MaxErrorRateIncrease, 0.02)
	orOptional(&r.Judge.MaxRefusalRateIncrease, 0.02)
	orOptional(&r.Judge.MaxFirstTokenRatio, 1.5)
}

// rollout compiles the canary of a model whose routes name these pools.
func (c *compilation) rollout(path string, r *configv1.Rollout, routes []*plan.Pool) *plan.Rollout {
	if r == nil || r.To == "" {
		return nil // the schema's rules reported it
	}
	j := r.Judge
	out := &plan.Rollout{
		Judge: plan.RolloutJudge{
			MinRequests: j.MinRequests, MaxErrorRateIncrease: j.GetMaxErrorRateIncrease(),
			MaxRefusalRateIncrease: j.GetMaxRefusalRateIncrease(), MaxFirstTokenRatio: j.GetMaxFirstTokenRatio(),
		},
	}
	if out.Sticky = plan.Sticky(r.Sticky); r.Sticky == "request" {
		out.Sticky = ""
	}
	for i, s := range r.Steps {
		step := plan.RolloutStep{Percent: s.Percent, Pause: s.Pause.AsDuration()}
		if i > 0 && step.Percent <= out.Steps[i-1].Percent {
			c.fault(index(path+".steps", i)+".percent", "%v %% is not more than the %v %% of the step before", step.Percent, out.Steps[i-1].Percent)
		}
		out.Steps = append(out.Steps, step)
	}
	to, known := refer(c, path+".to", "pool", r.To, c.pools)
	var from *plan.Pool
	switch {
	case r.From != "":
		pool, ok := refer(c, path+".from", "pool", r.From, c.pools)
		if ok && pool != to && !slices.Contains(routes, pool) {
			c.fault(path+".from", "pool %q is no target of the model: no request would move", r.From)
		}
		from, known = pool, known && ok
	case len(routes) == 1:
		from = routes[0]
	case len(routes) > 1:
		c.fault(path, "from is required: the model has several pools")
	}
	switch {
	case to == nil:
	case from == to:
		c.fault(path+".to", "it is the pool that the requests move from")
	case slices.Contains(routes, to):
		c.fault(path+".to", "pool %q is a target of the model already: a canary is none until it has taken over", r.To)
	}
	if !known || from == nil {
		return nil
	}
	out.From, out.To = from, to
	return out
}
