package app

import (
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// A thousand pools take Envoy 11 s of CPU; on a machine that others use, of which it
// gets a tenth of a core, it must not be given up.
func TestManyPoolsHaveTime(t *testing.T) {
	if got := timeToReady(1); got < 2*time.Minute || got > 3*time.Minute {
		t.Errorf("with one pool: %v", got)
	}
	if got := timeToReady(1000); got < 3*time.Minute {
		t.Errorf("with a thousand pools: %v", got)
	}
}

func TestDescriptors(t *testing.T) {
	p := &plan.Plan{}
	for range 1000 {
		p.Pools = append(p.Pools, &plan.Pool{Endpoints: make([]plan.Endpoint, 10)})
	}
	if got := descriptors(p); got != 1024+20_000 {
		t.Errorf("ten thousand endpoints: %d", got)
	}
}
