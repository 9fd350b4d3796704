package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"

	"github.com/weirproxy/weir/control"
)

// Put implements control.Store.
func (s *Store) Put(ctx context.Context, c control.Change) (control.Revision, error) {
	revision, err := s.put(ctx, c)
	return revision, wrap(err)
}

func (s *Store) put(ctx context.Context, c control.Change) (control.Revision, error) {
	tx, err := s.w.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	var revision int64
	var check []byte
	if err := tx.QueryRowContext(ctx, `UPDATE meta SET revision = revision + 1, hash_check = coalesce(hash_check, ?)
		RETURNING revision, hash_check`, c.HashCheck).Scan(&revision, &check); err != nil {
		return 0, err
	}
	if !bytes.Equal(check, c.HashCheck) {
		return 0, control.ErrHashSecret
	}
	switch {
	case c.Key != nil:
		err = putKey(ctx, tx, c.Key, c.Was, revision)
	case c.Override != nil:
		err = putOverride(ctx, tx, c.Override, c.Was, revision)
	default:
		err = putRollout(ctx, tx, c.Rollout, c.Was, revision)
	}
	if err == nil {
		err = note(ctx, tx, c.Record)
	}
	if err != nil {
		return 0, err
	}
	return control.Revision(revision), tx.Commit()
}

// rests holds that an object is at the revision that a change rests on.
func rests(row *sql.Row, was control.Revision) error {
	var now int64
	err := row.Scan(&now)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		now = 0
	case err != nil:
		return err
	case was == 0:
		return control.ErrExists
	}
	if now != int64(was) {
		return control.ErrConflict
	}
	return nil
}

func putKey(ctx context.Context, tx *sql.Tx, k *control.Key, was control.Revision, revision int64) error {
	if err := rests(tx.QueryRowContext(ctx, `SELECT revision FROM keys WHERE name = ?`, k.Name), was); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO keys
		(name, application, team, roles, state, note, expires_us, created_us, creator, rotated_us, secrets, revision)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		k.Name, k.Owner.Application, k.Owner.Team, joined(k.Owner.Roles), int(k.State), k.Note,
		micros(k.Expires), micros(k.Created), k.Creator, micros(k.Rotated), encodeSecrets(k.Secrets), revision); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM hashes WHERE key = ?`, k.Name); err != nil {
		return err
	}
	for _, secret := range k.Secrets { // a hash that another key has is a constraint's error
		if _, err := tx.ExecContext(ctx, `INSERT INTO hashes (hash, key) VALUES (?, ?)`, secret.Hash[:], k.Name); err != nil {
			return err
		}
	}
	return nil
}

func putOverride(ctx context.Context, tx *sql.Tx, o *control.Override, was control.Revision, revision int64) error {
	err := rests(tx.QueryRowContext(ctx, `SELECT revision FROM overrides WHERE hash = ?`, o.Hash[:]), was)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO overrides (hash, name, state, revision) VALUES (?, ?, ?, ?)`,
		o.Hash[:], o.Name, int(o.State), revision)
	return err
}

// Note implements control.Store.
func (s *Store) Note(ctx context.Context, r control.Record) error {
	tx, err := s.w.BeginTx(ctx, nil)
	if err != nil {
		return wrap(err)
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	if err := note(ctx, tx, r); err != nil {
		return wrap(err)
	}
	return wrap(tx.Commit())
}

func note(ctx context.Context, tx *sql.Tx, r control.Record) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO audit (time_us, actor, roles, action, object, before, after, outcome, detail)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		micros(r.Time), r.Actor, joined(r.Roles), r.Action, r.Object, r.Before, r.After, string(r.Outcome), r.Detail)
	return err
}
