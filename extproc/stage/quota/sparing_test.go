package quota

import (
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// A probe sees what is used and takes nothing; anybody else takes.
func TestProbesTakeNothing(t *testing.T) {
	counts := limit.New(func() time.Time { return time.Unix(1000, 0) })
	l := New(counts, limit.NewOutputs()).ledger
	limits := []*plan.Limit{{Name: "one", Unit: plan.UnitRequests, Amount: 1, Window: time.Minute}}
	probe := &limit.Request{ID: ai.ProbeID(strings.Repeat("0", 32))}
	for range 3 {
		if r := l.Reserve(limits, probe); !r.OK || r.Held || counts.Held() != 0 {
			t.Fatalf("%+v, %d reservations", r, counts.Held())
		}
	}
	if r := l.Reserve(limits, &limit.Request{ID: strings.Repeat("0", 32)}); !r.OK || !r.Held || counts.Held() != 1 {
		t.Fatalf("%+v, %d reservations", r, counts.Held())
	}
	if r := l.Reserve(limits, probe); r.OK || r.Limit != limits[0] || counts.Held() != 1 {
		t.Errorf("%+v, %d reservations", r, counts.Held())
	}
}
