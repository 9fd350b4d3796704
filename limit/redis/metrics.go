package redis

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the ledger tells Prometheus.
type metrics struct {
	asking      *prometheus.HistogramVec
	rebuilds    prometheus.Counter
	unavailable prometheus.Counter
	fromPot     prometheus.Counter
	doubtful    prometheus.Counter
	handedOn    prometheus.Counter
	taken       prometheus.Counter
	dropped     prometheus.Counter
	gauges      []prometheus.Collector
}

func newMetrics(l *Ledger) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	m := &metrics{
		asking: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weir_limit_store_requests_seconds", Help: "Time of a script at the limit store, by how it ended.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		}, []string{"outcome"}),
		rebuilds:    counter("weir_limit_store_rebuilds_total", "Times that this replica told the limit store what it knows."),
		unavailable: counter("weir_limit_store_unavailable_total", "Decisions for which the limit store had no answer, refused."),
		fromPot:     counter("weir_limit_store_allowance_total", "Requests admitted from this replica's pot while the limit store had no answer."),
		doubtful:    counter("weir_limit_store_doubtful_total", "Reservations given up because nobody knew whether they were made."),
		handedOn:    counter("weir_limit_entries_handed_on_total", "Access log entries left for the replica that decided."),
		taken:       counter("weir_limit_entries_taken_total", "Access log entries taken that another replica received."),
		dropped:     counter("weir_limit_entries_dropped_total", "Access log entries that could not be handed on: their requests are closed by the deadline."),
	}
	m.gauges = []prometheus.Collector{
		gauge("weir_limit_store_up", "1: limits are counted at the limit store; 0: it has no answer.", func() float64 {
			if l.ready() {
				return 1
			}
			return 0
		}),
		gauge("weir_limit_store_queue", "Ended reservations that the limit store does not know of yet.", func() float64 {
			l.mu.Lock()
			defer l.mu.Unlock()
			return float64(len(l.queue))
		}),
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return append([]prometheus.Collector{m.asking, m.rebuilds, m.unavailable, m.fromPot, m.doubtful, m.handedOn, m.taken, m.dropped}, m.gauges...)
}

func (m *metrics) asked(took time.Duration, err error) {
	outcome := "answered"
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		outcome = "timeout"
	case err != nil:
		outcome = "failed"
	}
	m.asking.WithLabelValues(outcome).Observe(took.Seconds())
}

// Describe implements prometheus.Collector.
func (l *Ledger) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range l.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (l *Ledger) Collect(ch chan<- prometheus.Metric) {
	for _, c := range l.metrics.all() {
		c.Collect(ch)
	}
}
