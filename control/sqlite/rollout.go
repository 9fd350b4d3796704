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
func (s *Store) Rollouts(ctx context.Context) (list []control.Rollout, err error) {
	rows, err := s.r.QueryContext(ctx, `SELECT model, state, revision FROM rollouts ORDER BY model`)
	if err != nil {
		return nil, wrap(err)
	}
	defer func() { _ = rows.Close() }() // the error is that of reading
	for rows.Next() {
		var r control.Rollout
		if err := rows.Scan(&r.Model, &r.State, &r.Revision); err != nil {
			return nil, wrap(err)
		}
		list = append(list, r)
	}
	return list, wrap(rows.Err())
}

// Count implements control.Store.
func (s *Store) Count(ctx context.Context, t control.Tally) error {
	_, err := s.w.ExecContext(ctx, `INSERT OR REPLACE INTO tallies (model, process, counts) VALUES (?, ?, ?)`, t.Model, t.Process, string(t.Counts))
	return wrap(err)
}

// Tallies implements control.Store.
func (s *Store) Tallies(ctx context.Context, model string) (list []control.Tally, err error) {
	rows, err := s.r.QueryContext(ctx, `SELECT model, process, counts FROM tallies WHERE model = ? ORDER BY process`, model)
	if err != nil {
		return nil, wrap(err)
	}
	defer func() { _ = rows.Close() }() // the error is that of reading
	for rows.Next() {
		var t control.Tally
		if err := rows.Scan(&t.Model, &t.Process, &t.Counts); err != nil {
			return nil, wrap(err)
		}
		list = append(list, t)
	}
	return list, wrap(rows.Err())
}
