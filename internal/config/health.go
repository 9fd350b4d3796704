package config

import (
	"cmp"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// fillHealth gives a pool what it does not say of health checks and ejection.
func fillHealth(p *configv1.Pool) {
	if p.HealthCheck == nil {
		p.HealthCheck = &configv1.HealthCheck{}
	}
	if h := p.HealthCheck; !h.Off {
		orDuration(&h.Interval, 5*time.Second)
		orDuration(&h.Timeout, 2*time.Second)
		orValue(&h.UnhealthyAfter, 3)
		orValue(&h.HealthyAfter, 2)
	}
	if p.Ejection == nil {
		p.Ejection = &configv1.Ejection{}
	}
	if e := p.Ejection; !e.Off {
		orValue(&e.After, 5)
		orDuration(&e.For, 10*time.Second)
		orDuration(&e.AtMost, max(60*time.Second, e.For.AsDuration()))
	}
	if a := p.PrefixAffinity; a != nil {
		orValue(&a.MostLoadPercent, 125)
		orDuration(&p.SlowStart, 0)
	}
	orDuration(&p.SlowStart, 30*time.Second)
}

// health is how endpoints that are not well are found and left alone.
func (c *compilation) health(path string, p *configv1.Pool, pool *plan.Pool) {
	c.healthCheck(path+".health_check", p.HealthCheck, pool)
	c.ejection(path+".ejection", p.Ejection, pool)
	c.affinity(path, p, pool)
	pool.StreamIdle = p.StreamIdleTimeout.AsDuration()
	if pool.HealthCheck.Path != "" && len(pool.Endpoints) > 1 {
		pool.SlowStart = p.SlowStart.AsDuration()
	}
}

func (c *compilation) healthCheck(path string, h *configv1.HealthCheck, pool *plan.Pool) {
	public := pool.Placement == ai.Public
	where := cmp.Or(h.Path, pool.Adapter.Health)
	switch {
	case h.Off && (h.Path != "" || h.Interval != nil || h.Timeout != nil || h.UnhealthyAfter != 0 || h.HealthyAfter != 0):
		c.fault(path+".off", "it stands alone")
	case h.Off:
	case public && h.Path != "":
		c.fault(path+".path", "a provider is not asked whether it is well: its answers tell")
	case public || where == "":
	default:
		pool.HealthCheck = plan.HealthCheck{
			Path: where, Interval: h.Interval.AsDuration(), Timeout: h.Timeout.AsDuration(),
			UnhealthyAfter: h.UnhealthyAfter, HealthyAfter: h.HealthyAfter,
		}
	}
}

func (c *compilation) ejection(path string, e *configv1.Ejection, pool *plan.Pool) {
	switch {
	case e.Off && (e.After != 0 || e.For != nil || e.AtMost != nil):
		c.fault(path+".off", "it stands alone")
	case e.Off:
	case e.AtMost.AsDuration() < e.For.AsDuration():
		c.fault(path+".at_most", "%v is less than for, %v", e.AtMost.AsDuration(), e.For.AsDuration())
	default:
		pool.Ejection = plan.Ejection{After: e.After, For: e.For.AsDuration(), AtMost: e.AtMost.AsDuration()}
	}
}

func (c *compilation) affinity(path string, p *configv1.Pool, pool *plan.Pool) {
	a := p.PrefixAffinity
	switch {
	case a == nil:
	case a.MostLoadPercent < 100:
		c.fault(path+".prefix_affinity.most_load_percent", "%d is less than the mean: no endpoint could take a request", a.MostLoadPercent)
	case p.SlowStart.AsDuration() > 0:
		c.fault(path+".slow_start", "it cannot be together with prefix_affinity")
	case len(p.Endpoints) < 2:
		c.fault(path+".prefix_affinity", "the pool has one endpoint only: there is nothing to choose")
	default:
		pool.PrefixLoad = a.MostLoadPercent
	}
}
