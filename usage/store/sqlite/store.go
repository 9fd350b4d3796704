// Package sqlite stores usage events in one SQLite file: the default, for one
// machine. Another process may read it at the same time.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/internal/sqlitedb"
	"github.com/weirproxy/weir/usage/store"
)

// Reader reads a store of usage events.
type Reader struct{ db *sql.DB }

// Store writes and reads.
type Store struct {
	Reader
	w *sql.DB // one connection

	many, one, minute, hour, progress *sql.Stmt

	known map[labels]int64
	args  []any  // of a statement; used again
	ids   []byte // what args refer to
}

var (
	_ store.Store  = (*Store)(nil)
	_ store.Reader = (*Reader)(nil)
)

// Open opens the store at path for writing and reading, and makes it, readable
// by its owner only, when it is absent.
//
// A commit survives the death of the process; it survives a power failure after
// Sync (journal_mode WAL, synchronous NORMAL).
func Open(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	if err := sqlitedb.Create(path); err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	s := &Store{known: map[labels]int64{}}
	if err := s.open(ctx, path); err != nil {
		return nil, fmt.Errorf("usage store %s: %w", path, errors.Join(err, s.Close()))
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, path string) (err error) {
	if s.w, err = sqlitedb.Open(path, sqlitedb.Immediate, "journal_mode(WAL)", "synchronous(NORMAL)"); err != nil {
		return err
	}
	s.w.SetMaxOpenConns(1)
	if err := sqlitedb.Migrate(ctx, s.w, migrations); err != nil {
		return err
	}
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&s.many, insertEvents(rowsAtOnce)}, {&s.one, insertEvents(1)}, {&s.minute, addMinute}, {&s.hour, addHour},
		{&s.progress, `UPDATE progress SET segment = ?, offset = ?`},
	} {
		if *p.stmt, err = s.w.PrepareContext(ctx, p.text); err != nil {
			return err
		}
	}
	s.db, err = sqlitedb.Open(path, sqlitedb.Immediate, "query_only(1)")
	if err != nil {
		return err
	}
	s.db.SetMaxOpenConns(2)
	return nil
}

// OpenReader opens the store at path for reading only, while another process may
// have it open for writing.
func OpenReader(ctx context.Context, path string) (*Reader, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	db, err := sqlitedb.Open(path, sqlitedb.Immediate, "query_only(1)")
	if err != nil {
		return nil, fmt.Errorf("usage store %s: %w", path, err)
	}
	var version int
	if err := db.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`).Scan(&version); err != nil {
		return nil, fmt.Errorf("usage store %s: %w", path, errors.Join(err, db.Close()))
	}
	if version != len(migrations) {
		return nil, errors.Join(fmt.Errorf("usage store %s: schema version %d; this program reads %d", path, version, len(migrations)), db.Close())
	}
	return &Reader{db: db}, nil
}

// Close closes the store.
func (r *Reader) Close() error {
	if r.db == nil {
		return nil
	}
	return r.db.Close()
}

// Close closes the store.
func (s *Store) Close() error {
	var errs []error
	for _, stmt := range []*sql.Stmt{s.many, s.one, s.minute, s.hour, s.progress} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	errs = append(errs, s.Reader.Close()) // first, so that the writer is the last and tidies the WAL up
	if s.w != nil {
		errs = append(errs, s.w.Close())
	}
	return errors.Join(errs...)
}

// Cursor implements store.Writer.
func (s *Store) Cursor(ctx context.Context) (store.Cursor, error) {
	var segment, offset int64
	err := s.w.QueryRowContext(ctx, `SELECT segment, offset FROM progress`).Scan(&segment, &offset)
	if err != nil {
		return store.Cursor{}, fmt.Errorf("usage store: %w", err)
	}
	return store.Cursor{Segment: uint64(segment), Offset: offset}, nil
}

// Sync implements store.Writer: a checkpoint syncs the write-ahead log first.
func (s *Store) Sync(ctx context.Context) error {
	var busy, frames, done int
	if err := s.w.QueryRowContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &frames, &done); err != nil {
		return fmt.Errorf("usage store: %w", err)
	}
	if busy != 0 {
		return errors.New("usage store: another checkpoint runs")
	}
	return nil
}

// Trim implements store.Writer.
func (s *Store) Trim(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := s.trim(ctx, before.UnixMicro(), limit)
	if err != nil {
		return 0, fmt.Errorf("usage store: %w", err)
	}
	return n, nil
}

func (s *Store) trim(ctx context.Context, before int64, limit int) (int, error) {
	tx, err := s.w.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	res, err := tx.ExecContext(ctx, `DELETE FROM events WHERE id IN
		(SELECT id FROM events WHERE end_us < ? ORDER BY end_us LIMIT ?)`, before, limit)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	if err != nil || n == 0 {
		return 0, err
	}
	// Sums over single events are whole from here on.
	if _, err := tx.ExecContext(ctx, `UPDATE progress SET trimmed_us = max(trimmed_us, ?)`, before); err != nil {
		return 0, err
	}
	return int(n), tx.Commit()
}
