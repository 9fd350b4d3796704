package sqlite

import (
	"context"
	"maps"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// labels are what an event can be grouped by, beside its time.
type labels struct{ key, application, team, model, pool, outcome, reason, kind, rule string }

// maxLabels bounds how many rows of the table labels are remembered.
const maxLabels = 1 << 14

// labelsOf is the id of an event's labels.
func (b *batch) labelsOf(ctx context.Context, e *usagev1.Event) (int64, error) {
	d := e.GetDecision()
	l := labels{d.GetKey(), d.GetApplication(), d.GetTeam(), d.GetModel(), e.GetPool(), e.GetOutcome(), d.GetReason(), d.GetKind(), d.GetRule()}
	if id, ok := b.known[l]; ok {
		return id, nil
	}
	if id, ok := b.labels[l]; ok {
		return id, nil
	}
	args := []any{l.key, l.application, l.team, l.model, l.pool, l.outcome, l.reason, l.kind, l.rule}
	if _, err := b.tx.ExecContext(ctx, `INSERT OR IGNORE INTO labels VALUES (NULL,?,?,?,?,?,?,?,?,?)`, args...); err != nil {
		return 0, err
	}
	var id int64
	err := b.tx.QueryRowContext(ctx, `SELECT id FROM labels WHERE key = ? AND application = ? AND team = ? AND model = ?
		AND pool = ? AND outcome = ? AND reason = ? AND kind = ? AND rule = ?`, args...).Scan(&id)
	b.labels[l] = id
	return id, err
}

// keep remembers labels that were committed.
func (s *Store) keep(list map[labels]int64) {
	if len(s.known)+len(list) > maxLabels {
		clear(s.known)
	}
	maps.Copy(s.known, list)
}
