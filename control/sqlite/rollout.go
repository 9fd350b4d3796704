package sqlite

import (
	"context"
	"database/sql"

	"github.com/weirproxy/weir/control"
)

func putRollout(ctx context.Context, tx *sql.Tx, r *control.Rollout, was control.Revision, revision int64) error {
	err := rests(tx.QueryRowContext(ctx, `SELECT revision FROM rollouts WHERE model = ?`, r.Model), was)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO rollouts (model, state, revision) VALUES (?, ?, ?)`, r.Model, string(r.State), revision); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM tallies WHERE model = ?`, r.Model)
	return err
}

// Rollouts implements control.Store.
func (s *Store) Rollouts(ctx context.Context) ([]control.Rollout, error) {
	return query(ctx, s, func(rows *sql.Rows, r *control.Rollout) error {
		return rows.Scan(&r.Model, &r.State, &r.Revision)
	}, `SELECT model, state, revision FROM rollouts ORDER BY model`)
}

// Count implements control.Store.
func (s *Store) Count(ctx context.Context, t control.Tally) error {
	_, err := s.w.ExecContext(ctx, `INSERT OR REPLACE INTO tallies (model, process, counts) VALUES (?, ?, ?)`, t.Model, t.Process, string(t.Counts))
	return wrap(err)
}

// Tallies implements control.Store.
func (s *Store) Tallies(ctx context.Context, model string) ([]control.Tally, error) {
	return query(ctx, s, func(rows *sql.Rows, t *control.Tally) error {
		return rows.Scan(&t.Model, &t.Process, &t.Counts)
	}, `SELECT model, process, counts FROM tallies WHERE model = ? ORDER BY process`, model)
}
