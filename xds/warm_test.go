package xds_test

import (
	"fmt"
	"testing"
	"time"
)

// TestChangedClusterWarmsAtOnce: Envoy makes a changed cluster anew and wants its
// endpoints again, although they did not change; until then it takes no other
// cluster. Endpoints that change in the same push must not come before the
// cluster.
func TestChangedClusterWarmsAtOnce(t *testing.T) {
	t.Parallel()
	for _, sotw := range []bool{false, true} {
		t.Run(fmt.Sprintf("sotw=%t", sotw), func(t *testing.T) {
			one, two := startBackend(t, answering(200, "ok")), startBackend(t, answering(200, "ok"))
			r := startRig(t, planOf(pool("a", one.endpoint(t))), sotw)
			for i := range 20 {
				p := pool("a", one.endpoint(t))
				if i%4 == 3 {
					p = pool("a", two.endpoint(t))
				}
				p.Model = fmt.Sprintf("model-%d", i)
				start := time.Now()
				r.accepted(r.publish(planOf(p)))
				if d := time.Since(start); d > 2*time.Second {
					t.Errorf("push %d took %v", i, d)
				}
			}
		})
	}
}
