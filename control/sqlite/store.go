// Package sqlite is the control store of one machine: one SQLite file. Several
// processes may have it open.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/sqlitedb"
)

// File is the store's name in the data directory; idFile says that there is one.
const (
	File   = "control.db"
	idFile = "control.id"
)

// Store is a control store.
type Store struct {
	path   string
	opened fs.FileInfo
	r, w   *sql.DB // the writer has one connection
}

var _ control.Store = (*Store)(nil)

// Open opens the store of a data directory, and makes it, readable by its owner
// only, in a directory that never had one. Where there was one and is none now, or
// another one, keys and revocations would be gone without a word: that is an error.
//
// A commit survives a power failure (journal_mode WAL, synchronous FULL).
func Open(ctx context.Context, dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("control store: %w", err)
	}
	s := &Store{path: filepath.Join(dir, File)}
	if err := s.open(ctx, filepath.Join(dir, idFile)); err != nil {
		return nil, fmt.Errorf("control store %s: %w", s.path, errors.Join(err, s.Close()))
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, marker string) error {
	id, err := readMarker(marker)
	if err != nil {
		return err
	}
	if err := s.prepareFile(id, marker); err != nil {
		return err
	}
	if s.w, err = sqlitedb.Open(s.path, sqlitedb.Immediate, "journal_mode(WAL)", "synchronous(FULL)"); err != nil {
		return err
	}
	s.w.SetMaxOpenConns(1)
	if err := sqlitedb.Migrate(ctx, s.w, migrations); err != nil {
		return err
	}
	if s.r, err = sqlitedb.Open(s.path, sqlitedb.Deferred, "query_only(1)"); err != nil {
		return err
	}
	s.r.SetMaxOpenConns(4)
	var own string
	if err := s.r.QueryRowContext(ctx, `SELECT id FROM meta`).Scan(&own); err != nil {
		return err
	}
	if id != "" && id != own {
		return fmt.Errorf("it is not the store of this data directory: %s names another one. Put the right one back, or, to go on with this one, delete %s", marker, marker)
	}
	if id == "" {
		return writeMarker(marker, own)
	}
	return nil
}

// prepareFile makes the file where there may be none, and refuses to where there
// was one.
func (s *Store) prepareFile(id, marker string) error {
	info, err := os.Stat(s.path)
	switch {
	case err == nil && id != "" && info.Size() == 0:
		return lost("is empty", marker)
	case errors.Is(err, fs.ErrNotExist) && id != "":
		return lost("is missing", marker)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600) // SQLite would make it readable by all
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()       // nothing was written
	if err := f.Chmod(0o600); err != nil { // a backup may have come back otherwise
		return err
	}
	s.opened, err = f.Stat()
	return err
}

func lost(what, marker string) error {
	return fmt.Errorf("it %s: stored keys would not open and revoked ones would. Put a backup back, or, to begin anew without them, delete %s", what, marker)
}

// readMarker is the id of the store that the directory has; "" when it never had one.
func readMarker(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	id := strings.TrimSpace(string(b))
	if err == nil && id == "" {
		err = fmt.Errorf("%s is empty", path)
	}
	return id, err
}

func writeMarker(path, id string) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(id + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Close closes the store.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.r, s.w} { // the writer last: it tidies the WAL up
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// wrap says where an error comes from, but for those that callers branch on.
func wrap(err error) error {
	switch {
	case err == nil, errors.Is(err, control.ErrNotFound), errors.Is(err, control.ErrExists), errors.Is(err, control.ErrConflict), errors.Is(err, control.ErrHashSecret):
		return err
	case errors.Is(err, sql.ErrNoRows):
		return control.ErrNotFound
	}
	return fmt.Errorf("control store: %w", err)
}

// Revision implements control.Store. A file that was replaced or deleted is still
// open here and would look as ever, so the name is looked at too.
func (s *Store) Revision(ctx context.Context) (control.Revision, error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0, wrap(err)
	}
	if !os.SameFile(info, s.opened) {
		return 0, fmt.Errorf("control store %s: another file took its place: start weir again", s.path)
	}
	var r int64
	err = s.r.QueryRowContext(ctx, `SELECT revision FROM meta`).Scan(&r)
	return control.Revision(r), wrap(err)
}

// HashCheck implements control.Store.
func (s *Store) HashCheck(ctx context.Context) (check []byte, err error) {
	err = s.r.QueryRowContext(ctx, `SELECT hash_check FROM meta`).Scan(&check)
	return check, wrap(err)
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func joined(names []string) string { return strings.Join(names, ",") }

func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}
