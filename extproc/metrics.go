package extproc

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/extproc/pipeline"
)

// Metrics are what the server counts. Labels take values from bounded sets only:
// kinds, verdicts, reasons, stages, and the models of the configuration.
type Metrics struct {
	requests *prometheus.CounterVec
	shadowed *prometheus.CounterVec
	limits   *prometheus.CounterVec
	stages   map[string]prometheus.Observer
}

// NewMetrics registers the metrics; stages are those of the pipeline.
func NewMetrics(reg prometheus.Registerer, stages []string) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_requests_total",
			Help: "Requests decided, by kind, model, verdict and the reason of a refusal.",
		}, []string{"kind", "model", "verdict", "reason"}),
		shadowed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_shadowed_refusals_total",
			Help: "Refusals by stages in shadow mode, whose requests went on.",
		}, []string{"stage", "reason"}),
		limits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_limit_breaches_total",
			Help: "Requests for which a limit had no room: refused, downgraded, or reported and let through.",
		}, []string{"limit", "action"}),
		stages: make(map[string]prometheus.Observer, len(stages)),
	}
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "weir_stage_duration_seconds",
		Help:    "Time that a stage took to judge a request.",
		Buckets: []float64{1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1},
	}, []string{"stage"})
	for _, s := range stages {
		m.stages[s] = seconds.WithLabelValues(s)
	}
	reg.MustRegister(m.requests, m.shadowed, m.limits, seconds)
	return m
}

// kindProbe is the kind of the doctor's probes, whatever they ask for.
const kindProbe = "probe"

// observe counts one decided exchange. A nil Metrics counts nothing.
func (m *Metrics) observe(ex *pipeline.Exchange, v *pipeline.Verdict) {
	if m == nil {
		return
	}
	verdict, model := Allowed, ""
	if v.Reply == nil && v.Stops() {
		verdict = Refused
	}
	if ex.Probe != nil {
		m.requests.WithLabelValues(kindProbe, "", verdict, string(v.Reason)).Inc()
		return
	}
	if ex.Decision.Model != nil {
		model = ex.Decision.Model.Name
	}
	m.requests.WithLabelValues(string(ex.In.Kind), model, verdict, string(v.Reason)).Inc()
	m.breaches(&ex.Reserved)
	for i := range ex.Trace.Steps {
		step := &ex.Trace.Steps[i]
		if o := m.stages[step.Stage]; o != nil {
			o.Observe(step.Took.Seconds())
		}
	}
	if step, ok := ex.Trace.Shadowed(); ok {
		m.shadowed.WithLabelValues(step.Stage, string(step.Verdict.Reason)).Inc()
	}
}

func (m *Metrics) breaches(r *pipeline.Reservation) {
	if l := r.Result.Limit; l != nil {
		m.limits.WithLabelValues(l.Name, "refuse").Inc()
	}
	if l := r.Result.Reported; l != nil {
		m.limits.WithLabelValues(l.Name, "report").Inc()
	}
	if l := r.Downgraded; l != nil && r.Result.OK {
		m.limits.WithLabelValues(l.Name, "downgrade").Inc()
	}
}
