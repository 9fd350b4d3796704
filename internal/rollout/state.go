package rollout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// Phase is what a rollout does.
type Phase string

// The phases. A rollout that was never started has none.
const (
	Running  Phase = "running"
	Promoted Phase = "promoted" // all requests have moved
	Aborted  Phase = "aborted"  // all have gone back
)

// state is how far a rollout is, as it is stored. It is of two pools: it says nothing
// of others that the configuration names later.
type state struct {
	From  string    `json:"from"`
	To    string    `json:"to"`
	Phase Phase     `json:"phase"`
	Step  int       `json:"step"`  // while it runs, from 0
	Since time.Time `json:"since"` // of the phase or the step
	By    string    `json:"by"`    // who brought it there: an actor, or weir
	Why   string    `json:"why,omitempty"`
}

// of tells whether the state is of the pools of a configured rollout.
func (s *state) of(r *plan.Rollout) bool { return s.From == r.From.Name && s.To == r.To.Name }

// step is the step that the state is at: the last one where the configuration has fewer
// now.
func (s *state) step(r *plan.Rollout) int { return min(s.Step, len(r.Steps)-1) }

// percent is how many of the requests move.
func (s *state) percent(r *plan.Rollout) float64 {
	switch {
	case !s.of(r):
		return 0
	case s.Phase == Promoted:
		return 100
	case s.Phase == Running:
		return r.Steps[s.step(r)].Percent
	}
	return 0
}

// next is the state after a step.
func (s *state) next(r *plan.Rollout, now time.Time, by, why string) state {
	n := *s
	n.Since, n.By, n.Why = now, by, why
	if n.Step = s.step(r) + 1; n.Step >= len(r.Steps) {
		n.Step, n.Phase = 0, Promoted
	}
	return n
}

// summary is the state in the words of the audit.
func (s *state) summary(r *plan.Rollout) string {
	if s.Phase == "" || !s.of(r) {
		return ""
	}
	text := fmt.Sprintf("phase=%s from=%s to=%s percent=%g", s.Phase, s.From, s.To, s.percent(r))
	if s.Phase == Running {
		text += fmt.Sprintf(" step=%d", s.step(r)+1)
	}
	return text
}

func (s *state) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings, numbers and times of this process
	}
	return b
}

// decodeState refuses what it does not know: what a newer weir says must not be left out.
func decodeState(b []byte) (s state, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err = d.Decode(&s)
	if err == nil && (s.Step < 0 || s.Phase != Running && s.Phase != Promoted && s.Phase != Aborted) {
		err = fmt.Errorf("phase %q, step %d", s.Phase, s.Step)
	}
	return s, err
}
