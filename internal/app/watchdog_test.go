package app

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/weirproxy/weir/internal/doctor"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds"
)

func reportAt(second int64, findings ...doctor.Finding) *doctor.Report {
	return &doctor.Report{At: time.Unix(second, 0), Findings: findings}
}

func finding(policy string, s doctor.State) doctor.Finding {
	return doctor.Finding{Proxy: "edge", Listener: "main", Policy: policy, State: s, Evidence: "because"}
}

// Twice in a row is proof; once may have met a change halfway. What cannot be told
// and what was chosen keeps nobody out.
func TestWatchdogReadiness(t *testing.T) {
	var w watchdog
	if err := w.check(); err != nil {
		t.Error(err)
	}
	good, bad := finding("decisions", doctor.InForce), finding("decisions", doctor.NotInForce)
	chosen := bad
	chosen.Chosen = true
	nowhere := bad
	nowhere.Proxy, nowhere.Listener = "", ""
	for i, step := range []struct {
		report *doctor.Report
		ready  bool
	}{
		{reportAt(1, bad), true}, {reportAt(2, bad), false}, {reportAt(3, bad), false}, {reportAt(4, good), true},
		{reportAt(5, bad), true}, {reportAt(6, good), true}, {reportAt(7, bad), true}, {reportAt(8, finding("headers", doctor.NotInForce)), true},
		{reportAt(9, chosen), true}, {reportAt(10, chosen), true}, {reportAt(11, finding("decisions", doctor.Unknown)), true},
		{reportAt(12, nowhere), true}, {reportAt(13, nowhere), true}, {reportAt(14, bad), true}, {reportAt(15), true}, {reportAt(16, bad), true}, {reportAt(17, bad), false},
	} {
		w.note(step.report)
		err := w.check()
		if (err == nil) != step.ready {
			t.Errorf("step %d: %v", i, err)
		}
		if err != nil && !strings.Contains(err.Error(), `proxy "edge", listener "main": policy "decisions" is not in force: because`) {
			t.Error(err)
		}
	}
}

func TestWatchdogMetrics(t *testing.T) {
	var w watchdog
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(&w)
	want := func(text string) {
		t.Helper()
		const head = `
# HELP weir_doctor_policy_in_force 1 when the policy is proved to be in force on the proxy, 0 when it is not. What cannot be told is absent.
# TYPE weir_doctor_policy_in_force gauge
`
		const success = `
# HELP weir_doctor_last_success_timestamp_seconds When every policy of the listener was proved last.
# TYPE weir_doctor_last_success_timestamp_seconds gauge
weir_doctor_last_success_timestamp_seconds{listener="main",proxy="edge"} 7
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(head+text+success)); err != nil {
			t.Error(err)
		}
	}
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 0 {
		t.Errorf("%d metrics before anything was examined: %v", n, err)
	}
	w.note(reportAt(7, finding("decisions", doctor.InForce), finding("headers", doctor.InForce)))
	want(`weir_doctor_policy_in_force{listener="main",policy="decisions",proxy="edge"} 1
weir_doctor_policy_in_force{listener="main",policy="headers",proxy="edge"} 1
`)
	// One row that is not in force counts, whatever the others of that name say; the
	// time of the last success stays.
	w.note(reportAt(8, finding("decisions", doctor.InForce), finding("decisions", doctor.NotInForce), finding("headers", doctor.Unknown), finding("decisions", doctor.InForce)))
	want(`weir_doctor_policy_in_force{listener="main",policy="decisions",proxy="edge"} 0
`)
	w.note(reportAt(9)) // the proxy is gone
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 0 {
		t.Errorf("%d metrics of a proxy that is gone: %v", n, err)
	}
}

// What each Envoy has accepted, and what nobody can ask it.
func TestXDSFindings(t *testing.T) {
	at := time.Unix(1000, 0)
	refusal := &xds.Rejection{At: at, Node: "held", Type: "Listener", Version: "v2", Detail: "port taken"}
	status := xds.Status{Last: refusal, Nodes: []xds.NodeStatus{
		{ID: "held", Held: refusal, Types: []xds.TypeStatus{{Type: "Listener", Wanted: "v2", Held: "v1", Since: at}}},
		{ID: "slow", Types: []xds.TypeStatus{{Type: "Cluster", Wanted: "v2", Held: "v1", Since: at}, {Type: "Listener", Wanted: "v2", Since: at.Add(time.Minute)}}},
		{ID: "well", Types: []xds.TypeStatus{{Type: "Cluster", Wanted: "v2", Held: "v2", Current: true, Since: at}}},
	}}
	p := &plan.Plan{Listeners: []plan.Listener{{Name: "main"}, {Name: "edge"}}}
	targets := []doctor.Target{{Proxy: "held", Listener: "main"}, {Proxy: "held", Listener: "edge"}, {Proxy: "slow", Listener: "main"}, {Proxy: "slow", Listener: "edge"},
		{Proxy: "well", Listener: "main"}, {Proxy: "away", Listener: "main"}, {Proxy: "away", Listener: "edge"}}
	var got strings.Builder
	for _, f := range xdsFindings(status, p, targets, at.Add(time.Minute)) {
		got.WriteString(strings.Join([]string{f.Proxy, f.Listener, f.Policy, string(f.State), f.Evidence}, "|") + "\n")
	}
	want := `held||xds Listener|NO|it refused version v2 at 1970-01-01T00:16:40Z: port taken
slow||xds Cluster|NO|it holds version "v1" and not v2, published at 1970-01-01T00:16:40Z
slow||xds Listener|could not tell|version v2 is on its way since 1970-01-01T00:17:40Z
well||xds Cluster|yes|version v2
well|edge|every policy|could not tell|not probed: doctor.proxies names no way there
away||xds|could not tell|not connected here: changes do not reach it from this weir
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	// A refusal that all were spared is told of.
	well := xds.NodeStatus{ID: "held", Types: []xds.TypeStatus{{Type: "Listener", Wanted: "v1", Held: "v1", Current: true, Since: at}}}
	if f := typeFinding(well, well.Types[0], refusal, at); f.State != doctor.Warning || !strings.Contains(f.Evidence, "port taken") {
		t.Errorf("%+v", f)
	}
}
