package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/plan"
)

// PoolsRequest asks what is known of the pools: of one by its name, or of all.
type PoolsRequest struct {
	Pool string `json:"pool,omitempty"`
}

// PoolsReport is what is known of the pools now, by one replica of weir.
type PoolsReport struct {
	Pools []PoolReport `json:"pools"`
}

// PoolReport is what is known of one pool. What is absent is not known.
type PoolReport struct {
	Pool      string `json:"pool"`
	Adapter   string `json:"adapter"`
	Placement string `json:"placement"`
	Endpoints int    `json:"endpoints"`
	Healthy   int    `json:"healthy"` // that are not known to be down
	Open      int64  `json:"open"`    // requests that this replica decided and that have not ended

	// As the backends say.
	AgeSeconds *float64 `json:"age_s,omitempty"` // of the oldest of it
	Stale      bool     `json:"stale,omitempty"`
	Running    *float64 `json:"running,omitempty"`
	Waiting    *float64 `json:"waiting,omitempty"`
	KVUse      *float64 `json:"kv_use,omitempty"` // 0 to 1

	// As this replica saw the attempts of the last minute.
	Attempts     int64    `json:"attempts"`
	ErrorRate    *float64 `json:"error_rate,omitempty"`     // 0 to 1
	RefusedRate  *float64 `json:"refused_rate,omitempty"`   // 0 to 1, by 429
	FirstTokenMS *float64 `json:"first_token_ms,omitempty"` // the median

	RestsSeconds *float64         `json:"rests_s,omitempty"` // for how long it still asked to be left alone
	Each         []EndpointReport `json:"each,omitempty"`
}

// EndpointReport is what is known of one endpoint.
type EndpointReport struct {
	Endpoint   string   `json:"endpoint"`
	Down       bool     `json:"down,omitempty"`
	AgeSeconds *float64 `json:"age_s,omitempty"`
	Stale      bool     `json:"stale,omitempty"`
	Running    *float64 `json:"running,omitempty"`
	Waiting    *float64 `json:"waiting,omitempty"`
	KVUse      *float64 `json:"kv_use,omitempty"`
	Error      string   `json:"error,omitempty"` // why it was not heard of the last time
}

// poolsNow tells what is known of the pools.
func (a *app) poolsNow(_ context.Context, in PoolsRequest) (*PoolsReport, error) {
	p := a.plan.Load()
	if a.pipe == nil || p == nil {
		return nil, errors.New("this weir decides about no requests: ask one with the role extproc")
	}
	pools := p.Pools
	if in.Pool != "" {
		one, ok := p.Pool(in.Pool)
		if !ok {
			return nil, fmt.Errorf("no pool is called %q", in.Pool)
		}
		pools = []*plan.Pool{one}
	}
	out := &PoolsReport{}
	for _, pool := range pools {
		out.Pools = append(out.Pools, a.poolReport(pool, time.Now()))
	}
	return out, nil
}

func (a *app) poolReport(p *plan.Pool, now time.Time) PoolReport {
	s, _ := a.live.Pool(p.Name)
	r := PoolReport{
		Pool: p.Name, Adapter: p.Adapter.Name, Placement: string(p.Placement),
		Endpoints: s.Endpoints, Healthy: s.Healthy, Open: s.Open, Attempts: s.Attempts,
	}
	if !s.Heard.IsZero() {
		r.AgeSeconds, r.Stale = seconds(now.Sub(s.Heard)), s.Stale
		r.Running, r.Waiting, r.KVUse = &s.Running, &s.Waiting, &s.KVUse
		if len(p.Adapter.Metrics.KVUse) == 0 {
			r.KVUse = nil
		}
	}
	if s.Attempts > 0 {
		r.ErrorRate, r.RefusedRate = &s.ErrorRate, &s.RefusedRate
	}
	if s.FirstToken > 0 {
		ms := float64(s.FirstToken) / float64(time.Millisecond)
		r.FirstTokenMS = &ms
	}
	if !s.RestUntil.IsZero() {
		r.RestsSeconds = seconds(s.RestUntil.Sub(now))
	}
	for _, e := range a.live.Endpoints(p.Name) {
		r.Each = append(r.Each, endpointReport(p, &e, now))
	}
	return r
}

func endpointReport(p *plan.Pool, e *plan.EndpointState, now time.Time) EndpointReport {
	r := EndpointReport{Endpoint: e.Address, Down: e.Down, Error: e.Error}
	if !e.Heard.IsZero() {
		r.AgeSeconds, r.Stale = seconds(now.Sub(e.Heard)), e.Stale
		r.Running, r.Waiting, r.KVUse = &e.Running, &e.Waiting, &e.KVUse
		if len(p.Adapter.Metrics.KVUse) == 0 {
			r.KVUse = nil
		}
	}
	return r
}

func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

// poolMetrics show what is known of the pools of the plan in force.
type poolMetrics struct{ a *app }

func poolGauge(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("weir_pool_"+name, help, []string{"pool"}, nil)
}

var (
	poolEndpoints  = poolGauge("endpoints", "Endpoints of a pool.")
	poolHealthy    = poolGauge("endpoints_healthy", "Endpoints of a pool that are not known to be down.")
	poolOpen       = poolGauge("requests_open", "Requests of which the pool was the first target and that have not ended.")
	poolRunning    = poolGauge("requests_running", "Requests that a pool's backends say they work on.")
	poolWaiting    = poolGauge("requests_waiting", "Requests that wait at a pool's backends, as they say.")
	poolKVUse      = poolGauge("kv_cache_use_ratio", "Use of the KV cache of a pool's backends, their mean, as they say.")
	poolStale      = poolGauge("metrics_stale", "1 when what a pool's backends said last is too old to go by.")
	poolErrors     = poolGauge("attempt_error_ratio", "Part of the attempts of the last minute at a pool that failed.")
	poolRefused    = poolGauge("attempt_refused_ratio", "Part of the attempts of the last minute at a pool that were answered with 429.")
	poolFirstToken = poolGauge("first_token_seconds", "Median time to the first token of the last minute's attempts at a pool.")
)

// Describe describes the metrics.
func (poolMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		poolEndpoints, poolHealthy, poolOpen, poolRunning, poolWaiting, poolKVUse, poolStale, poolErrors, poolRefused, poolFirstToken,
	} {
		ch <- d
	}
}

// Collect tells what is known; what is not is absent.
func (m poolMetrics) Collect(ch chan<- prometheus.Metric) {
	p := m.a.plan.Load()
	if p == nil {
		return
	}
	now := time.Now()
	for _, pool := range p.Pools {
		r := m.a.poolReport(pool, now)
		gauge := func(d *prometheus.Desc, v *float64) {
			if v != nil {
				ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, *v, r.Pool)
			}
		}
		count := func(n int64) *float64 { v := float64(n); return &v }
		gauge(poolEndpoints, count(int64(r.Endpoints)))
		gauge(poolHealthy, count(int64(r.Healthy)))
		gauge(poolOpen, count(r.Open))
		gauge(poolRunning, r.Running)
		gauge(poolWaiting, r.Waiting)
		gauge(poolKVUse, r.KVUse)
		if r.AgeSeconds != nil {
			stale := int64(0)
			if r.Stale {
				stale = 1
			}
			gauge(poolStale, count(stale))
		}
		gauge(poolErrors, r.ErrorRate)
		gauge(poolRefused, r.RefusedRate)
		if r.FirstTokenMS != nil {
			s := *r.FirstTokenMS / 1000
			gauge(poolFirstToken, &s)
		}
	}
}
