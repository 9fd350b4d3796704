package build

import (
	"fmt"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// However many endpoints a pool has, all but one can be ejected, and of those that
// refuse behind them one is always left.
func TestEjectionLeavesOneThatRefuses(t *testing.T) {
	for n := 2; n <= 400; n++ {
		for _, path := range []string{"", "/health"} {
			p := &plan.Pool{Ejection: plan.Ejection{After: 5, For: time.Second, AtMost: time.Minute}, HealthCheck: plan.HealthCheck{Path: path}}
			for i := range n {
				p.Endpoints = append(p.Endpoints, plan.Endpoint{Host: fmt.Sprintf("10.0.%d.%d", i/200, i%200), Port: 80, Weight: 1})
			}
			all := n + refusing(p)
			ejected := int(outlierDetection(p).MaxEjectionPercent.GetValue()) * all / 100 // as Envoy has it
			if ejected < n-1 || ejected >= refusing(p) {
				t.Errorf("of %d endpoints and %d that refuse, %d can be ejected", n, refusing(p), ejected)
			}
			list := loadAssignment(p).Endpoints
			if len(list[0].LbEndpoints) != n || len(list[1].LbEndpoints) != refusing(p) {
				t.Errorf("%d and %d endpoints", len(list[0].LbEndpoints), len(list[1].LbEndpoints))
			}
		}
	}
}
