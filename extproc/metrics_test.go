package extproc_test

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weirproxy/weir/extproc"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
)

func TestMetrics(t *testing.T) {
	p := withLimit(testPlan())
	p.Limits[0].Amount = 1
	p.Limits[1].Amount = 1 << 30
	p.Modes = map[string]plan.Mode{"quota": plan.Shadow}
	p.Probe = probeKey
	g := start(t, p)
	_, token := marked("open") // the doctor's probes are counted apart, and measured not at all
	g.ask(t, post("/v1/chat/completions", "made-up", probe.Header, token), chatBody)
	g.ask(t, post("/v1/chat/completions", "sk-open"), chatBody)
	g.ask(t, post("/v1/chat/completions", "sk-open"), chatBody)
	g.ask(t, post("/v1/chat/completions", "sk-wrong"), chatBody)
	g.ask(t, post("/v1/chat/completions", "sk-open"), strings.Replace(chatBody, "gpt-4o", "made-up-"+strings.Repeat("x", 99), 1))
	g.ask(t, hdr(get("/v1/models", "sk-open")...), "")
	want := []string{
		`weir_requests_total{kind="chat",model="",reason="invalid_key",verdict="refused"} 1`,
		`weir_requests_total{kind="chat",model="",reason="unknown_model",verdict="refused"} 1`,
		`weir_requests_total{kind="chat",model="chat",reason="",verdict="allowed"} 2`,
		`weir_requests_total{kind="models",model="",reason="",verdict="allowed"} 1`,
		`weir_requests_total{kind="probe",model="",reason="",verdict="allowed"} 1`,
		`weir_shadowed_refusals_total{reason="limit_exceeded",stage="quota"} 1`,
	}
	// What was let through is counted after its answer.
	var got []string
	for range 1000 {
		if got = samples(t, g.registry, "weir_requests_total", "weir_shadowed_refusals_total"); slices.Equal(got, want) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
	if n := len(samples(t, g.registry, "weir_stage_duration_seconds_count")); n != 8 {
		t.Errorf("%d stages measured, want 8", n)
	}
}

// samples are the lines of the metrics with these names.
func samples(t *testing.T, reg *prometheus.Registry, names ...string) []string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		name, _, _ := strings.Cut(line, "{")
		if slices.Contains(names, name) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	reg := prometheus.NewRegistry()
	extproc.NewMetrics(reg, []string{"auth"})
	defer func() {
		if recover() == nil {
			t.Error("registered twice")
		}
	}()
	extproc.NewMetrics(reg, []string{"auth"})
}

func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	last := ""
	for i := range 1000 {
		id := extproc.NewID(time.UnixMilli(1700000000000 + int64(i)))
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || id[12] != '7' || !strings.Contains("89ab", id[16:17]) {
			t.Fatalf("id %q is no UUID of version 7", id)
		}
		if seen[id] || id <= last {
			t.Fatalf("id %q after %q", id, last)
		}
		seen[id], last = true, id
	}
	if extproc.NewID(time.UnixMilli(5)) == extproc.NewID(time.UnixMilli(5)) {
		t.Error("two ids of one moment are the same")
	}
}
