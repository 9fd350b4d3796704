package rule

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/plan"
)

// A condition tells the live facts that it read, and how well they are known.
func TestRead(t *testing.T) {
	c := liveCompiler(t)
	for expr, want := range map[string][]plan.Reading{
		`pools["local"].waiting > 20 || pools["local"].healthy < 1`: {
			{Name: `pools["local"].waiting`, Value: int64(12), Known: true, Age: 800 * time.Millisecond}, {Name: `pools["local"].healthy`, Value: int64(1), Known: true},
		},
		`pools["local"].kv_use < 0.5 && pools["cloud"].waiting == 0`: { // the second pool was not looked up
			{Name: `pools["local"].kv_use`, Value: 0.93, Known: true, Age: 800 * time.Millisecond},
		},
		`pools["cloud"].waiting == 0 && pools["cloud"].error_rate < 0.1 && pools["cloud"].healthy > 0 && pools["cloud"].endpoints == 1`: {
			{Name: `pools["cloud"].waiting`, Value: int64(0)}, {Name: `pools["cloud"].error_rate`, Value: 0.0},
			{Name: `pools["cloud"].healthy`, Value: int64(1)}, {Name: `pools["cloud"].endpoints`, Value: int64(1), Known: true},
		},
		`limits["month"].left < 0.1 && limits["month"].known && pools["local"].resting`: {
			{Name: `limits["month"].left`, Value: 0.04, Known: true}, {Name: `limits["month"].known`, Value: true, Known: true},
			{Name: `pools["local"].resting`, Value: true, Known: true},
		},
		`now.getHours() >= 1 && pools["local"].first_token_ms / 2.0 > 100.0`: { // evaluated by CEL
			{Name: `pools["local"].first_token_ms`, Value: 450.0, Known: true},
		},
		`team == "core"`: nil,
	} {
		cond, faults := c.Compile(expr)
		if faults != nil {
			t.Fatal(expr, faults[0])
		}
		f := liveFacts()
		f.Now = f.Now.Add(800 * time.Millisecond)
		if _, err := cond.Holds(f); err != nil {
			t.Fatal(expr, err)
		}
		if f.Seen == nil {
			f.Seen = new(plan.Seen)
		}
		if diff := cmp.Diff(want, cond.Read(f.Seen)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", expr, diff)
		}
	}
}
