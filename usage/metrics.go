package usage

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// Why an entry, a record or a line was passed over.
const (
	dropGarbled      = "garbled"       // not an entry, or not a record
	dropTooLong      = "too_long"      // a line longer than the reader's buffer
	dropDuplicate    = "duplicate"     // its event exists
	dropLate         = "late"          // its event was closed by the deadline
	dropStored       = "stored"        // pending in a damaged spool, but stored
	dropUndecided    = "undecided"     // the client left before weir was asked
	dropDecidedTwice = "decided_twice" // a decision whose id is known
	dropLine         = "line"          // the line for people, not the event
	dropLogLost      = "log_lost"      // the rest of a log file that is gone
	dropProbe        = "probe"         // a probe of the doctor's
)

var dropReasons = []string{dropGarbled, dropTooLong, dropDuplicate, dropLate, dropStored, dropUndecided, dropDecidedTwice, dropLine, dropLogLost, dropProbe}

// metrics are what the recorder tells Prometheus. Labels hold names of the
// configuration and words of bounded sets only. Where OpenTelemetry's semantic
// conventions for generative AI name a metric, it has that name.
type metrics struct {
	events      *prometheus.CounterVec
	tokens      *prometheus.CounterVec
	cost        *prometheus.CounterVec
	abandoned   *prometheus.CounterVec
	givenUp     *prometheus.CounterVec
	firstToken  *prometheus.HistogramVec
	duration    *prometheus.HistogramVec
	dropped     *prometheus.CounterVec
	orphans     prometheus.Counter
	bypasses    prometheus.Counter
	stored      prometheus.Counter
	storedTwice prometheus.Counter
	storeFailed prometheus.Counter
	syncFailed  prometheus.Counter
	behind      prometheus.Gauge
	gauges      []prometheus.Collector
}

func newMetrics(r *Recorder) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"gen_ai_request_model", "gen_ai_operation_name"})
	}
	m := &metrics{
		events:      counters("weir_usage_events_total", "Usage events, by how the request ended.", "outcome"),
		tokens:      counters("weir_usage_tokens_total", "Tokens used. Each class of input excludes the others.", "team", "model", "gen_ai_token_type"),
		cost:        counters("weir_usage_cost_usd_total", "What requests cost, in US dollars.", "team", "model"),
		abandoned:   counters("weir_usage_abandoned_cost_usd_total", "What of the cost is for attempts that were given up without an answer, in US dollars, an upper bound.", "pool"),
		givenUp:     counters("weir_usage_abandoned_attempts_total", "Attempts that are charged though they were given up without an answer.", "pool"),
		firstToken:  histogram("gen_ai_server_time_to_first_token_seconds", "From a request's first byte to its first content.", firstTokenBuckets),
		duration:    histogram("gen_ai_server_request_duration_seconds", "From a request's first byte to its end.", durationBuckets),
		dropped:     counters("weir_usage_dropped_total", "Access log entries, spool records and lines that were passed over.", "why"),
		orphans:     counter("weir_usage_orphans_total", "Entries whose decision is not known, recorded without it."),
		bypasses:    counter("weir_bypass_total", "Requests that came past weir."),
		stored:      counter("weir_usage_stored_total", "Events written to the store."),
		storedTwice: counter("weir_usage_stored_again_total", "Events that the store had already."),
		storeFailed: counter("weir_usage_store_failures_total", "Failed calls of the store."),
		syncFailed:  counter("weir_usage_spool_sync_failures_total", "Failed syncs of the spool."),
		behind:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_usage_log_behind_bytes", Help: "Bytes of Envoy's access log that are not read yet."}),
	}
	m.gauges = []prometheus.Collector{
		gauge("weir_usage_pending", "Admitted requests whose end is not known yet.", func() float64 {
			r.mu.Lock()
			defer r.mu.Unlock()
			return float64(r.pending.len())
		}),
		gauge("weir_usage_spool_bytes", "Size of the spool on disk.", func() float64 { return float64(r.log.Bytes()) }),
		gauge("weir_usage_spool_corrupt_bytes", "Bytes of the spool that could not be read.", func() float64 { return float64(r.log.Damage().Corrupt) }),
		gauge("weir_usage_store_lag_seconds", "How long the oldest event that is not stored has waited.", func() float64 { return r.sink.lag().Seconds() }),
	}
	for _, o := range Outcomes {
		m.events.WithLabelValues(o)
	}
	for _, why := range dropReasons {
		m.dropped.WithLabelValues(why)
	}
	return m
}

// The bucket boundaries that OpenTelemetry advises, in seconds.
var (
	firstTokenBuckets = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	durationBuckets   = []float64{0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
)

func (m *metrics) drop(why string) { m.dropped.WithLabelValues(why).Inc() }

func (m *metrics) event(e *usagev1.Event) {
	m.events.WithLabelValues(e.GetOutcome()).Inc()
	d := e.GetDecision()
	if d.GetVerdict() != VerdictAllowed || len(d.GetTargets()) == 0 {
		return
	}
	team, model := d.GetTeam(), d.GetModel()
	u := Served(e)
	for _, c := range [...]struct {
		kind string
		n    int64
	}{{"input", u.Input}, {"cached_input", u.CachedInput}, {"cache_write", u.CacheWrite}, {"audio_input", u.AudioInput}, {"image_input", u.ImageInput}, {"output", u.Output}} {
		if c.n > 0 {
			m.tokens.WithLabelValues(team, model, c.kind).Add(float64(c.n))
		}
	}
	if e.GetCostNanousd() > 0 {
		m.cost.WithLabelValues(team, model).Add(float64(e.GetCostNanousd()) / 1e9)
	}
	for _, a := range e.GetAttempts() {
		if a.GetTokens() != nil {
			m.givenUp.WithLabelValues(a.GetPool()).Inc()
			m.abandoned.WithLabelValues(a.GetPool()).Add(float64(a.GetCostNanousd()) / 1e9)
		}
	}
	operation := operationName(d.GetKind())
	if us := e.GetFirstTokenUs(); us > 0 {
		m.firstToken.WithLabelValues(model, operation).Observe(micros(us))
	}
	if e.GetOutcome() != OutcomeUnknown {
		m.duration.WithLabelValues(model, operation).Observe(micros(e.GetDurationUs()))
	}
}

func micros(us int64) float64 { return (time.Duration(us) * time.Microsecond).Seconds() }

// operationName is the kind in the words of gen_ai.operation.name.
func operationName(kind string) string {
	switch kind {
	case "completion":
		return "text_completion"
	case "embedding":
		return "embeddings"
	}
	return kind
}

func (m *metrics) all() []prometheus.Collector {
	return append([]prometheus.Collector{m.events, m.tokens, m.cost, m.abandoned, m.givenUp, m.firstToken, m.duration, m.dropped, m.orphans, m.bypasses,
		m.stored, m.storedTwice, m.storeFailed, m.syncFailed, m.behind}, m.gauges...)
}

// Describe and Collect make the recorder a prometheus.Collector.
func (r *Recorder) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range r.metrics.all() {
		c.Describe(ch)
	}
}

// Collect gives the current values.
func (r *Recorder) Collect(ch chan<- prometheus.Metric) {
	for _, c := range r.metrics.all() {
		c.Collect(ch)
	}
}
