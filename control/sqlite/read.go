package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
)

const columns = `name, application, team, roles, state, note, expires_us, created_us, creator, rotated_us, secrets, revision`

// Key implements control.Store.
func (s *Store) Key(ctx context.Context, name string) (control.Key, error) {
	list, err := s.keys(ctx, `SELECT `+columns+` FROM keys WHERE name = ?`, name)
	if err == nil && len(list) == 0 {
		err = control.ErrNotFound
	}
	if err != nil {
		return control.Key{}, wrap(err)
	}
	return list[0], nil
}

// Keys implements control.Store.
func (s *Store) Keys(ctx context.Context, f control.KeyFilter, after string, limit int) ([]control.Key, error) {
	owners, args := []string{}, []any{after}
	if f.Team != "" {
		owners, args = append(owners, `team = ?`), append(args, f.Team)
	}
	if len(f.Applications) > 0 {
		owners = append(owners, `application IN (?`+strings.Repeat(`, ?`, len(f.Applications)-1)+`)`)
		for _, name := range f.Applications {
			args = append(args, name)
		}
	}
	query := `SELECT ` + columns + ` FROM keys WHERE name > ?`
	if len(owners) > 0 {
		query += ` AND (` + strings.Join(owners, ` OR `) + `)`
	}
	list, err := s.keys(ctx, query+` ORDER BY name LIMIT ?`, append(args, limit)...)
	return list, wrap(err)
}

func (s *Store) keys(ctx context.Context, query string, args ...any) (list []control.Key, err error) {
	rows, err := s.r.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	err = eachKey(rows, func(k *control.Key) error {
		list = append(list, *k)
		return nil
	})
	return list, err
}

// eachKey reads keys from rows that it closes.
func eachKey(rows *sql.Rows, fn func(*control.Key) error) error {
	defer func() { _ = rows.Close() }() // the error is that of reading
	for rows.Next() {
		var k control.Key
		var roles string
		var secrets sql.RawBytes
		var expires, created, rotated int64
		if err := rows.Scan(&k.Name, &k.Owner.Application, &k.Owner.Team, &roles, &k.State, &k.Note, &expires, &created,
			&k.Creator, &rotated, &secrets, &k.Revision); err != nil {
			return err
		}
		k.Owner.Roles = split(roles)
		k.Expires, k.Created, k.Rotated = fromMicros(expires), fromMicros(created), fromMicros(rotated)
		var ok bool
		if k.Secrets, ok = decodeSecrets(secrets); !ok || k.State > plan.StateRevoked {
			return fmt.Errorf("key %q: the store is damaged", k.Name)
		}
		if err := fn(&k); err != nil {
			return err
		}
	}
	return rows.Err()
}

// KeyByHash implements control.Store.
func (s *Store) KeyByHash(ctx context.Context, h plan.KeyHash) (name string, err error) {
	err = s.r.QueryRowContext(ctx, `SELECT key FROM hashes WHERE hash = ?`, h[:]).Scan(&name)
	return name, wrap(err)
}

// Override implements control.Store.
func (s *Store) Override(ctx context.Context, h plan.KeyHash) (control.Override, error) {
	o := control.Override{Hash: h}
	err := s.r.QueryRowContext(ctx, `SELECT name, state, revision FROM overrides WHERE hash = ?`, h[:]).Scan(&o.Name, &o.State, &o.Revision)
	return o, wrap(err)
}

// Changes implements control.Store.
func (s *Store) Changes(ctx context.Context, since control.Revision, fn func(*control.Key, *control.Override) error) (control.Revision, error) {
	tx, err := s.r.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // one moment for all
	if err != nil {
		return 0, wrap(err)
	}
	defer func() { _ = tx.Rollback() }() // it changed nothing
	var revision int64
	if err := tx.QueryRowContext(ctx, `SELECT revision FROM meta`).Scan(&revision); err != nil {
		return 0, wrap(err)
	}
	query, args := `SELECT `+columns+` FROM keys`, []any{}
	if since > 0 { // else in the order of the table: an index would cost more than it spares
		query, args = query+` WHERE revision > ?`, append(args, since)
	}
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return 0, wrap(err)
	}
	if err := eachKey(rows, func(k *control.Key) error { return fn(k, nil) }); err != nil {
		return 0, wrap(err)
	}
	rows, err = tx.QueryContext(ctx, `SELECT hash, name, state, revision FROM overrides WHERE revision > ? ORDER BY revision`, since)
	if err != nil {
		return 0, wrap(err)
	}
	return control.Revision(revision), wrap(eachOverride(rows, func(o *control.Override) error { return fn(nil, o) }))
}

func eachOverride(rows *sql.Rows, fn func(*control.Override) error) error {
	defer func() { _ = rows.Close() }() // the error is that of reading
	for rows.Next() {
		var o control.Override
		var hash []byte
		if err := rows.Scan(&hash, &o.Name, &o.State, &o.Revision); err != nil {
			return err
		}
		if len(hash) != len(o.Hash) || o.State > plan.StateRevoked {
			return fmt.Errorf("override of key %q: the store is damaged", o.Name)
		}
		o.Hash = plan.KeyHash(hash)
		if err := fn(&o); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Audit implements control.Store.
func (s *Store) Audit(ctx context.Context, f control.AuditFilter, limit int) ([]control.Record, error) {
	where, args := []string{`time_us >= ?`}, []any{micros(f.Since)}
	for _, w := range []struct{ column, value string }{
		{"actor", f.Actor}, {"action", f.Action}, {"object", f.Object}, {"outcome", string(f.Outcome)},
	} {
		if w.value != "" {
			where, args = append(where, w.column+` = ?`), append(args, w.value)
		}
	}
	if f.Before > 0 {
		where, args = append(where, `id < ?`), append(args, f.Before)
	}
	return query(ctx, s, func(rows *sql.Rows, r *control.Record) error {
		var at int64
		var roles string
		err := rows.Scan(&r.ID, &at, &r.Actor, &roles, &r.Action, &r.Object, &r.Before, &r.After, &r.Outcome, &r.Detail)
		r.Time, r.Roles = fromMicros(at), split(roles)
		return err
	}, `SELECT id, time_us, actor, roles, action, object, before, after, outcome, detail FROM audit
		WHERE `+strings.Join(where, ` AND `)+` ORDER BY id DESC LIMIT ?`, append(args, limit)...)
}

// query lists what a query selects, as scan reads each row.
func query[T any](ctx context.Context, s *Store, scan func(*sql.Rows, *T) error, text string, args ...any) (list []T, err error) {
	rows, err := s.r.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, wrap(err)
	}
	defer func() { _ = rows.Close() }() // the error is that of reading
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, wrap(err)
		}
		list = append(list, v)
	}
	return list, wrap(rows.Err())
}
