package app

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/tokens"
	"github.com/weirproxy/weir/usage"
)

// lessons is what the backends' reports teach about counting, and its metrics.
type lessons struct {
	*tokens.Learned
	log    *slog.Logger
	ratio  *prometheus.HistogramVec
	factor *prometheus.Desc
	doubts *prometheus.Desc
}

func newLessons(reg prometheus.Registerer, log *slog.Logger) *lessons {
	l := &lessons{
		Learned: tokens.NewLearned(),
		log:     log,
		ratio: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "weir_tokens_reported_ratio",
			Help:    "Input tokens that a pool's backend reported, for each that weir had told before.",
			Buckets: []float64{0.5, 0.8, 0.9, 0.95, 0.99, 0.9999, 1, 1.01, 1.05, 1.1, 1.25, 2},
		}, []string{"pool", "certainty"}),
		factor: prometheus.NewDesc("weir_tokens_correction_factor", "By what a pool's estimates of input tokens are corrected.", []string{"pool"}, nil),
		doubts: prometheus.NewDesc("weir_tokens_doubted", "1 when a pool's backend reported more input tokens than weir had counted exactly.", []string{"pool"}, nil),
	}
	reg.MustRegister(l.ratio, l)
	return l
}

// Describe and Collect make lessons a prometheus.Collector.
func (l *lessons) Describe(c chan<- *prometheus.Desc) {
	c <- l.factor
	c <- l.doubts
}

// Collect tells of the pools of which something was learnt.
func (l *lessons) Collect(c chan<- prometheus.Metric) {
	l.Each(func(pool string, factor float64, doubts bool) {
		doubted := 0.0
		if doubts {
			doubted = 1
		}
		c <- prometheus.MustNewConstMetric(l.factor, prometheus.GaugeValue, factor, pool)
		c <- prometheus.MustNewConstMetric(l.doubts, prometheus.GaugeValue, doubted, pool)
	})
}

// settled learns from what the backend that served a request reported of its input.
// What was told was told of the first target.
func (l *lessons) settled(e *usagev1.Event) {
	d := e.GetDecision()
	if e.GetInputCertainty() != usagev1.Certainty_CERTAINTY_REPORTED || len(d.GetTargets()) == 0 || e.GetPool() != d.GetTargets()[0] {
		return
	}
	told, certainty := d.GetInputTokens(), "estimated"
	exact := d.GetInputCertainty() == usagev1.Certainty_CERTAINTY_COUNTED
	if exact {
		certainty = "counted"
	}
	reported := usage.Served(e).TotalInput()
	if told > 0 && reported > 0 {
		l.ratio.WithLabelValues(e.GetPool(), certainty).Observe(float64(reported) / float64(told))
	}
	if l.Observe(e.GetPool(), told, exact, reported) {
		l.log.Warn("a backend counts more input tokens than weir: limits of the pool are reserved by the length of the text from now on (does its tokenizer fit the model?)",
			"pool", e.GetPool(), "counted", told, "reported", reported, "decision", d.GetId())
	}
}
