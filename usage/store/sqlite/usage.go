package sqlite

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weirproxy/weir/usage/store"
)

// source is a table that usage can be summed from.
type source struct {
	table    string // SQL
	bucket   int64  // seconds that one row covers; 0 for single events
	bound    string // the column that the bounds are compared with
	seconds  string // SQL: the row's time in seconds
	requests string // SQL: how many requests the row stands for
	by       map[store.Dimension]bool
}

func dims(d ...store.Dimension) map[store.Dimension]bool {
	m := map[store.Dimension]bool{store.Hour: true, store.Day: true}
	for _, d := range d {
		m[d] = true
	}
	return m
}

var (
	minutes = source{"usage_minute", 60, "minute", "minute", "requests",
		dims(store.Team, store.Model, store.Pool, store.Outcome)}
	hours = source{"usage_hour", 3600, "hour", "hour", "requests",
		dims(store.Key, store.Application, store.Team, store.Model)}
	events = source{"events JOIN labels ON labels.id = events.labels", 0, "end_us", "end_us / 1000000", "1",
		dims(store.Dimensions...)}
)

func (s *source) covers(by []store.Dimension) bool {
	for _, d := range by {
		if !s.by[d] {
			return false
		}
	}
	return true
}

// column is the SQL for a dimension.
func (s *source) column(d store.Dimension) string {
	switch d {
	case store.Hour:
		return `strftime('%Y-%m-%dT%H:00Z', ` + s.seconds + `, 'unixepoch')`
	case store.Day:
		return `strftime('%Y-%m-%d', ` + s.seconds + `, 'unixepoch')`
	}
	return string(d) // one of a fixed set that covers has checked
}

// Usage implements store.Reader. It sums roll-ups where they have the
// dimensions, and single events where they have not and at the two ends, where
// the bounds cut a roll-up's minute or hour. Where single events were deleted
// already, the lower bound is rounded down to a whole minute or hour.
func (r *Reader) Usage(ctx context.Context, q store.Query) ([]store.Row, error) {
	if !events.covers(q.By) {
		return nil, fmt.Errorf("usage store: no such dimension in %v", q.By)
	}
	if !q.Since.Before(q.Until) {
		return nil, nil
	}
	var trimmed int64
	if err := r.db.QueryRowContext(ctx, `SELECT trimmed_us FROM progress`).Scan(&trimmed); err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	text, args := usageSQL(q, time.UnixMicro(trimmed))
	rows, err := r.db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells
	var list []store.Row
	for rows.Next() {
		row := store.Row{By: make([]string, len(q.By))}
		dst := make([]any, 0, len(q.By)+1+figureCount)
		for i := range row.By {
			dst = append(dst, &row.By[i])
		}
		var f figures
		dst = append(dst, &row.Requests)
		for i := range f {
			dst = append(dst, &f[i])
		}
		if err := rows.Scan(dst...); err != nil {
			return nil, fmt.Errorf("usage store: %w", err)
		}
		f.into(&row)
		list = append(list, row)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	return list, nil
}

// usageSQL is one statement over all parts, so that it sees one state.
func usageSQL(q store.Query, trimmed time.Time) (string, []any) {
	var parts []string
	var args []any
	part := func(s *source, from, to int64) { // in the source's units
		if from >= to {
			return
		}
		var cols strings.Builder
		for i, d := range q.By {
			fmt.Fprintf(&cols, "%s AS d%d, ", s.column(d), i)
		}
		parts = append(parts, fmt.Sprintf(`SELECT %s%s AS requests, %s FROM %s WHERE %s >= ? AND %s < ?`,
			cols.String(), s.requests, columnList("", ""), s.table, s.bound, s.bound))
		args = append(args, from, to)
	}
	since, until := q.Since.UnixMicro(), q.Until.UnixMicro()
	roll := rollFor(q.By)
	if roll == nil {
		part(&events, since, until)
	} else {
		span := roll.bucket * 1_000_000
		first, last := ceil(since, span), until-mod(until, span)
		if since < trimmed.UnixMicro() {
			first = since - mod(since, span)
		}
		if first >= last {
			part(&events, since, until)
		} else {
			part(&events, since, first)
			part(roll, first/1_000_000, last/1_000_000)
			part(&events, last, until)
		}
	}
	var keys strings.Builder
	for i := range q.By {
		fmt.Fprintf(&keys, "d%d, ", i)
	}
	text := `SELECT ` + keys.String() + `sum(requests), ` + columnList("sum(", ")") + `
		FROM (` + strings.Join(parts, " UNION ALL ") + `)`
	if len(q.By) > 0 {
		text += ` GROUP BY ` + strings.TrimSuffix(keys.String(), ", ")
	}
	return text + ` HAVING count(*) > 0`, args
}

// rollFor is the smallest roll-up that has the dimensions; nil is none.
func rollFor(by []store.Dimension) *source {
	for _, s := range []*source{&minutes, &hours} {
		if s.covers(by) {
			return s
		}
	}
	return nil
}

// ceil rounds up to a multiple of span.
func ceil(n, span int64) int64 { return n + mod(-n, span) }
