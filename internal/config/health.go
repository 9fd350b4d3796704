package config

import (
	"cmp"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// health compiles how it is found out that endpoints are ill, and what becomes of them.
func (c *compilation) health(path string, p *configv1.Pool, pool *plan.Pool) {
	pool.SlowStart = p.SlowStart.AsDuration()
	if e := p.Ejection; !e.Off {
		pool.Ejection = &plan.Ejection{Errors: e.Errors, Time: e.Time.AsDuration()}
	} else if e.Errors > 0 || e.Time != nil {
		c.fault(path+".ejection.off", "it stands alone")
	}
	h := p.HealthCheck
	path += ".health_check"
	switch {
	case h == nil && (pool.Placement == ai.Public || pool.Adapter.Health == ""):
	case h == nil:
		h = &configv1.HealthCheck{}
		fillHealthCheck(h)
		pool.HealthCheck = healthCheck(h, pool)
	case h.Off && (h.Path != "" || h.Interval != nil || h.Timeout != nil || h.UnhealthyAfter > 0 || h.HealthyAfter > 0):
		c.fault(path+".off", "it stands alone")
	case h.Off:
	case h.Path == "" && pool.Adapter.Health == "":
		c.fault(path+".path", "the adapter %s has no health path: say which", pool.Adapter.Name)
	default:
		pool.HealthCheck = healthCheck(h, pool)
	}
}

func healthCheck(h *configv1.HealthCheck, pool *plan.Pool) *plan.HealthCheck {
	return &plan.HealthCheck{
		Path: cmp.Or(h.Path, pool.Adapter.Health), Interval: h.Interval.AsDuration(), Timeout: h.Timeout.AsDuration(),
		UnhealthyAfter: h.UnhealthyAfter, HealthyAfter: h.HealthyAfter,
	}
}
