package route

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// A request makes no more attempts than its model permits, and no second one at a pool
// that is dead.
func TestBound(t *testing.T) {
	two := &plan.Pool{Name: "two", Placement: ai.Private, Endpoints: []plan.Endpoint{{Host: "10.0.0.1"}, {Host: "10.0.0.2"}}}
	for _, tc := range []struct {
		name    string
		most    int
		steps   []plan.Step
		live    states
		want    []string
		dropped int
		tries   int
	}{
		{name: "as many as there are", most: 2, steps: to(two, other), want: []string{"two", "other"}, tries: 1},
		{name: "more targets than attempts", most: 1, steps: to(two, other), want: []string{"two"}, dropped: 1, tries: 1},
		{name: "the failing one is left out", most: 1, steps: to(two, other), live: states{"two": {Endpoints: 2}}, want: []string{"other"}, dropped: 1, tries: 1},
		{name: "room for one more", most: 3, steps: to(two, other), want: []string{"two", "other"}, tries: 2},
		{name: "room, and it fails", most: 3, steps: to(other, two), live: states{"two": {Endpoints: 2, Healthy: 2, Failing: true}}, want: []string{"other", "two"}, tries: 1},
		{name: "the only target", most: 4, steps: to(two), want: []string{"two"}, tries: 2},
		{name: "a part of it fails", most: 4, steps: to(two), live: states{"two": {Endpoints: 2, Healthy: 1, Failing: true}}, want: []string{"two"}, tries: 2},
		{name: "it is dead", most: 4, steps: to(two), live: states{"two": {Endpoints: 2, Healthy: 2, Failing: true, Dead: true}}, want: []string{"two"}, tries: 1},
		{name: "dead, with another behind it", most: 4, steps: to(two, other), live: states{"two": {Dead: true, Healthy: 2, Endpoints: 2}}, want: []string{"two", "other"}, tries: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &plan.Model{Name: "m", Targets: tc.steps, MaxAttempts: tc.most}
			ex := exchange(m, all, openai.Request{Model: "m", N: 1, Prompts: 1}, &count{})
			s := New(NewRests())
			if tc.live != nil {
				s.Live = tc.live
			}
			if v, err := s.Request(t.Context(), ex); err != nil || v.Stops() {
				t.Fatal(v, err)
			}
			d := &ex.Decision
			if diff := cmp.Diff(tc.want, names(d.Targets)); diff != "" || len(d.Dropped) != tc.dropped || d.Tries(d.Targets[0]) != tc.tries {
				t.Errorf("%d dropped, %d tries, targets (-want +got):\n%s", len(d.Dropped), d.Tries(d.Targets[0]), diff)
			}
			if tc.dropped > 0 && d.Dropped[0].Reason != ai.ReasonAttemptsUsed {
				t.Errorf("dropped for %q", d.Dropped[0].Reason)
			}
		})
	}
}
