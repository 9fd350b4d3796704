package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/doctor"
)

// watchdog examines in the background, and keeps what it found for metrics and
// readiness.
type watchdog struct {
	mu      sync.Mutex
	last    *doctor.Report
	wrong   map[policyKey]int      // examinations in a row in which it was not in force
	success map[placeKey]time.Time // when all of a listener's policies were proved
}

// policiesCheck is the name of the watchdog's readiness.
const policiesCheck = "policies"

type placeKey struct{ proxy, listener string }

type policyKey struct {
	placeKey
	policy string
}

// patience is how many examinations in a row must prove that a policy is not in
// force before weir is not ready: one may have met a change halfway.
const patience = 2

// startDoctor examines every interval, and when a plan came into force, until weir
// stops. There must be one already.
func (a *app) startDoctor() {
	a.background("doctor", func(ctx context.Context) error {
		for {
			select {
			case <-a.changed: // it is looked at now
			default:
			}
			a.dog.note(a.examine(ctx, nil))
			select {
			case <-ctx.Done():
				return nil
			case <-a.changed:
			case <-time.After(a.plan.Load().Doctor.Interval):
			}
		}
	})
}

func (w *watchdog) note(r *doctor.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wrong, proved := map[policyKey]int{}, map[placeKey]bool{}
	for i := range r.Findings {
		f := &r.Findings[i]
		place := placeKey{f.Proxy, f.Listener}
		if _, known := proved[place]; !known {
			proved[place] = true
		}
		proved[place] = proved[place] && (f.State == doctor.InForce || f.State == doctor.Warning || f.Chosen)
		if f.Wrong() {
			key := policyKey{place, f.Policy}
			wrong[key] = w.wrong[key] + 1
		}
	}
	success := map[placeKey]time.Time{}
	for place, all := range proved {
		if all {
			success[place] = r.At
		} else if before, ok := w.success[place]; ok {
			success[place] = before
		}
	}
	w.last, w.wrong, w.success = r, wrong, success
}

// check is the readiness of the policies: it fails while one of a proxy's is proved
// not to be in force. What concerns no proxy, as a file that is refused while an
// older one is in force, is told by the doctor and keeps nobody out.
func (w *watchdog) check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return nil
	}
	for i := range w.last.Findings {
		f := &w.last.Findings[i]
		if f.Proxy != "" && f.Wrong() && w.wrong[policyKey{placeKey{f.Proxy, f.Listener}, f.Policy}] >= patience {
			return fmt.Errorf("proxy %q, listener %q: policy %q is not in force: %s", f.Proxy, f.Listener, f.Policy, f.Evidence)
		}
	}
	return nil
}

var (
	policyDesc = prometheus.NewDesc("weir_doctor_policy_in_force",
		"1 when the policy is proved to be in force on the proxy, 0 when it is not. What cannot be told is absent.", []string{"proxy", "listener", "policy"}, nil)
	successDesc = prometheus.NewDesc("weir_doctor_last_success_timestamp_seconds",
		"When every policy of the listener was proved last.", []string{"proxy", "listener"}, nil)
)

// Describe and Collect make the watchdog a prometheus.Collector.
func (w *watchdog) Describe(ch chan<- *prometheus.Desc) {
	ch <- policyDesc
	ch <- successDesc
}

// Collect gives what the last examination found.
func (w *watchdog) Collect(ch chan<- prometheus.Metric) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return
	}
	value := map[policyKey]float64{}
	for _, f := range w.last.Findings {
		key := policyKey{placeKey{f.Proxy, f.Listener}, f.Policy}
		switch f.State {
		case doctor.InForce:
			if _, told := value[key]; !told {
				value[key] = 1
			}
		case doctor.NotInForce:
			value[key] = 0
		}
	}
	for key, v := range value {
		ch <- prometheus.MustNewConstMetric(policyDesc, prometheus.GaugeValue, v, key.proxy, key.listener, key.policy)
	}
	for place, at := range w.success {
		ch <- prometheus.MustNewConstMetric(successDesc, prometheus.GaugeValue, float64(at.UnixNano())/1e9, place.proxy, place.listener)
	}
}
