package sqlite

import (
	"context"
	"database/sql"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

type minuteKey struct {
	minute                     int64
	team, model, pool, outcome string
}

type hourKey struct {
	hour                          int64
	key, application, team, model string
}

// sums are what roll-ups add up.
type sums struct{ requests, input, cached, output, reasoning, cost, estimated int64 }

func (s *sums) add(e *usagev1.Event) {
	t := e.GetTokens()
	s.requests++
	s.input += t.GetInput()
	s.cached += t.GetCachedInput()
	s.output += t.GetOutput()
	s.reasoning += t.GetReasoning()
	s.cost += e.GetCostNanousd()
	s.estimated += estimated(e)
}

// estimated is how many of an event's tokens are estimated.
func estimated(e *usagev1.Event) (n int64) {
	t := e.GetTokens()
	if e.GetInputCertainty() == usagev1.Certainty_CERTAINTY_ESTIMATED {
		n += t.GetInput() + t.GetCachedInput()
	}
	if e.GetOutputCertainty() == usagev1.Certainty_CERTAINTY_ESTIMATED {
		n += t.GetOutput()
	}
	return n
}

// rollups add up one batch, so that each row is touched once in a transaction.
type rollups struct {
	minutes map[minuteKey]*sums
	hours   map[hourKey]*sums
}

func newRollups() *rollups {
	return &rollups{minutes: map[minuteKey]*sums{}, hours: map[hourKey]*sums{}}
}

func (r *rollups) add(e *usagev1.Event) {
	d, end := e.GetDecision(), e.GetEnd().AsTime().Unix()
	m := minuteKey{end - mod(end, 60), d.GetTeam(), d.GetModel(), e.GetPool(), e.GetOutcome()}
	if r.minutes[m] == nil {
		r.minutes[m] = &sums{}
	}
	r.minutes[m].add(e)
	h := hourKey{end - mod(end, 3600), d.GetKey(), d.GetApplication(), d.GetTeam(), d.GetModel()}
	if r.hours[h] == nil {
		r.hours[h] = &sums{}
	}
	r.hours[h].add(e)
}

// mod is never negative.
func mod(a, b int64) int64 { return ((a % b) + b) % b }

const addSums = ` DO UPDATE SET requests = requests + excluded.requests, input = input + excluded.input,
	cached_input = cached_input + excluded.cached_input, output = output + excluded.output,
	reasoning = reasoning + excluded.reasoning, cost_nanousd = cost_nanousd + excluded.cost_nanousd,
	estimated = estimated + excluded.estimated`

const (
	addMinute = `INSERT INTO usage_minute VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (minute, team, model, pool, outcome)` + addSums
	addHour   = `INSERT INTO usage_hour VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (hour, key, application, team, model)` + addSums
)

// write executes addMinute and addHour.
func (r *rollups) write(ctx context.Context, minute, hour *sql.Stmt) error {
	for k, s := range r.minutes {
		_, err := minute.ExecContext(ctx, k.minute, k.team, k.model, k.pool, k.outcome,
			s.requests, s.input, s.cached, s.output, s.reasoning, s.cost, s.estimated)
		if err != nil {
			return err
		}
	}
	for k, s := range r.hours {
		_, err := hour.ExecContext(ctx, k.hour, k.key, k.application, k.team, k.model,
			s.requests, s.input, s.cached, s.output, s.reasoning, s.cost, s.estimated)
		if err != nil {
			return err
		}
	}
	return nil
}
