package sqlite

import (
	"context"
	"database/sql"
	"strings"

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
type sums struct {
	requests int64
	figures  figures
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
	d, end, f := e.GetDecision(), e.GetEnd().AsTime().Unix(), figuresOf(e)
	m := minuteKey{end - mod(end, 60), d.GetTeam(), d.GetModel(), e.GetPool(), e.GetOutcome()}
	if r.minutes[m] == nil {
		r.minutes[m] = &sums{}
	}
	r.minutes[m].add(&f)
	h := hourKey{end - mod(end, 3600), d.GetKey(), d.GetApplication(), d.GetTeam(), d.GetModel()}
	if r.hours[h] == nil {
		r.hours[h] = &sums{}
	}
	r.hours[h].add(&f)
}

// mod is never negative.
func mod(a, b int64) int64 { return ((a % b) + b) % b }

func (s *sums) add(f *figures) {
	s.requests++
	s.figures.add(f)
}

// addTo is the statement that adds sums to the roll-up with such a key.
func addTo(table string, key ...string) string {
	names := strings.Join(key, ", ")
	sets := make([]string, len(figureColumns))
	for i, c := range figureColumns {
		sets[i] = c + " = " + c + " + excluded." + c
	}
	return `INSERT INTO ` + table + ` (` + names + `, requests, ` + columnList("", "") + `) VALUES ` + parameters(len(key)+1+figureCount) +
		` ON CONFLICT (` + names + `) DO UPDATE SET requests = requests + excluded.requests, ` + strings.Join(sets, ", ")
}

var (
	addMinute = addTo("usage_minute", "minute", "team", "model", "pool", "outcome")
	addHour   = addTo("usage_hour", "hour", "key", "application", "team", "model")
)

// write executes addMinute and addHour.
func (r *rollups) write(ctx context.Context, minute, hour *sql.Stmt) error {
	var args []any
	for k, s := range r.minutes {
		args = append(args[:0], k.minute, k.team, k.model, k.pool, k.outcome, s.requests)
		if _, err := minute.ExecContext(ctx, s.figures.appendTo(args)...); err != nil {
			return err
		}
	}
	for k, s := range r.hours {
		args = append(args[:0], k.hour, k.key, k.application, k.team, k.model, s.requests)
		if _, err := hour.ExecContext(ctx, s.figures.appendTo(args)...); err != nil {
			return err
		}
	}
	return nil
}
