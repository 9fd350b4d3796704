// Package sqlitedb is what weir's SQLite files have in common: how one is made,
// opened and brought to the newest schema. It knows nothing of what is in them.
package sqlitedb

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// The kinds of transactions that database/sql begins.
const (
	Immediate = "immediate" // for writers: they wait at the beginning and not in the middle
	Deferred  = "deferred"
)

// Open opens the file at path, which must be absolute, with these pragmas beside a
// busy timeout of five seconds. It connects with the first statement.
func Open(path, transactions string, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_pragma": append([]string{"busy_timeout(5000)"}, pragmas...), "_txlock": {transactions}}
	return sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}).String())
}

// Create makes the file, readable by its owner only, when it is absent: SQLite would
// make it readable by all.
func Create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// Migrate brings the database to the newest version: the first migration makes it,
// the others lead from one version to the next, and those that were released are
// never changed. It refuses a database that is newer than this program.
func Migrate(ctx context.Context, db *sql.DB, migrations []string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)`); err != nil {
		return err
	}
	var version int
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`).Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("the database has schema version %d; this program knows %d", version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
			return fmt.Errorf("schema version %d: %w", version+1, err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO schema_version VALUES (?)`, version+1); err != nil {
			return err
		}
	}
	return tx.Commit()
}
