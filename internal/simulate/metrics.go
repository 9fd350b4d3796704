package simulate

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weirproxy/weir/dialect/profile"
)

// kvTokens is how many tokens the KV cache is said to hold.
const kvTokens = 1_000_000

// vLLM's buckets (v1/metrics/buckets.py), in seconds.
var (
	firstTokenBuckets = []float64{
		0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
	}
	interTokenBuckets = []float64{
		0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
	}
	requestBuckets = []float64{
		0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
	}
)

// metrics are those of vLLM 0.33, names and labels; of other servers there are the load
// and what package profile names.
type metrics struct {
	handler  http.Handler
	ids      atomic.Int64
	inFlight atomic.Int64

	running, waiting, kvCache      prometheus.Gauge
	promptTokens, generationTokens prometheus.Counter
	succeeded                      map[string]prometheus.Counter // by finish reason
	prefixQueries, prefixHits      prometheus.Counter
	firstToken, interToken         prometheus.Observer
	perToken, endToEnd             prometheus.Observer
}

func newMetrics(model string, kind *profile.Profile) *metrics {
	reg := prometheus.NewRegistry()
	labels := prometheus.Labels{"model_name": model, "engine": "0"}
	m := &metrics{
		handler:   promhttp.HandlerFor(reg, promhttp.HandlerOpts{}),
		succeeded: map[string]prometheus.Counter{},
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
		reg.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
		reg.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Observer {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, ConstLabels: labels, Buckets: buckets})
		reg.MustRegister(h)
		return h
	}
	m.running = gauge(nameOf(kind.Metrics.Running, "vllm:num_requests_running"), "Number of requests in model execution batches.")
	m.waiting = gauge(nameOf(kind.Metrics.Waiting, "vllm:num_requests_waiting"), "Number of requests waiting to be processed.")
	m.kvCache = gauge(nameOf(kind.Metrics.KVUse, "vllm:kv_cache_usage_perc"), "KV-cache usage. 1 means 100 percent usage.")
	m.promptTokens = counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.")
	m.generationTokens = counter("vllm:generation_tokens_total", "Number of generation tokens processed.")
	m.prefixQueries = counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens.")
	m.prefixHits = counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.")
	m.firstToken = histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", firstTokenBuckets)
	m.interToken = histogram("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", interTokenBuckets)
	m.perToken = histogram("vllm:request_time_per_output_token_seconds", "Histogram of time per output token in seconds per request.", interTokenBuckets)
	m.endToEnd = histogram("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", requestBuckets)
	finished := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vllm:request_success_total", Help: "Count of successfully processed requests.", ConstLabels: labels,
	}, []string{"finished_reason"})
	reg.MustRegister(finished)
	for _, reason := range []string{"stop", "length", "abort", "tool_calls"} {
		m.succeeded[reason] = finished.WithLabelValues(reason)
	}
	return m
}

// nameOf is the newest of a signal's names, or vLLM's where the server has none: what
// nobody looks for.
func nameOf(names []string, otherwise string) string {
	if len(names) > 0 {
		return names[0]
	}
	return otherwise
}

// begin counts a request that runs, and returns what counts its end.
func (m *metrics) begin(j *job) (end func()) {
	state := m.running
	if j.fault.StallBeforeHeadersMS != 0 {
		state = m.waiting
	}
	m.inFlight.Add(1)
	state.Inc()
	share := float64(j.promptTokens()) / kvTokens
	m.kvCache.Add(share)
	return func() {
		m.inFlight.Add(-1)
		state.Dec()
		m.kvCache.Sub(share)
		m.end(j, time.Now())
	}
}

func (m *metrics) end(j *job, now time.Time) {
	m.promptTokens.Add(float64(j.promptTokens()))
	m.generationTokens.Add(float64(j.sent))
	if j.first.IsZero() {
		return
	}
	m.firstToken.Observe(j.first.Sub(j.start).Seconds())
	if j.outcome != Completed {
		m.succeeded["abort"].Inc()
		return
	}
	m.endToEnd.Observe(now.Sub(j.start).Seconds())
	if j.sent > 1 {
		m.perToken.Observe(now.Sub(j.first).Seconds() / float64(j.sent-1))
	}
	m.succeeded[j.choices[0].finish].Inc()
}
