// Package sqlite keeps the counts of a ledger in one SQLite file, so that limits
// and budgets survive a restart: for one machine. It knows nothing of what limits
// mean.
package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/sqlitedb"
	"github.com/weirproxy/weir/limit"
)

// Place is how far the journal is counted in.
type Place struct {
	Segment uint64
	Offset  int64
	Time    time.Time // when that was
}

// Name knows a limit whose counts are complete.
type Name struct {
	Limit  string
	Unit   plan.Unit
	Period plan.Period
	Zone   string
}

// State is all that is kept.
type State struct {
	Counts []limit.Count
	Place  Place
	Names  []Name // of the limits that were counted up to Place
}

// Store is the open file. Its methods have one caller at a time.
type Store struct{ db *sql.DB }

// migrations: see sqlitedb.Migrate.
var migrations = []string{`
CREATE TABLE counts (
	id         TEXT PRIMARY KEY, -- JSON: limit, unit, period, zone, and the scope
	window_ns  INTEGER NOT NULL,
	broken_us  INTEGER NOT NULL, -- since the epoch, as all times; 0 for never
	alerted_us INTEGER NOT NULL,
	told       INTEGER NOT NULL,
	until_us   INTEGER NOT NULL, -- then the row is of no use
	slots      BLOB NOT NULL     -- varints: end in nanoseconds since the epoch, count; and so on
) WITHOUT ROWID;
CREATE INDEX counts_until ON counts (until_us);
CREATE TABLE names (
	name TEXT NOT NULL, unit TEXT NOT NULL, period TEXT NOT NULL, zone TEXT NOT NULL,
	PRIMARY KEY (name, unit, period, zone)
) WITHOUT ROWID;
CREATE TABLE place (
	one     INTEGER PRIMARY KEY CHECK (one = 1),
	segment INTEGER NOT NULL,
	offset  INTEGER NOT NULL,
	at_us   INTEGER NOT NULL
);`}

// Open opens the file at path, and makes it, readable by its owner only, when it is
// absent. A file that cannot be read is an error: what was used would be forgotten.
func Open(ctx context.Context, path string) (*Store, error) {
	s, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("limits %s: %w (if it is damaged, move it away: weir counts again from the usage store)", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := sqlitedb.Create(path); err != nil {
		return nil, err
	}
	db, err := sqlitedb.Open(path, sqlitedb.Immediate, "journal_mode(WAL)", "synchronous(NORMAL)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if err := prepare(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Store{db}, nil
}

func prepare(ctx context.Context, db *sql.DB) error {
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return errors.New(verdict)
	}
	return sqlitedb.Migrate(ctx, db, migrations)
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Load reads all that was kept.
func (s *Store) Load(ctx context.Context) (State, error) {
	var st State
	var at int64
	err := s.db.QueryRowContext(ctx, `SELECT segment, offset, at_us FROM place`).Scan(&st.Place.Segment, &st.Place.Offset, &at)
	switch {
	case errors.Is(err, sql.ErrNoRows): // nothing was kept yet
		return st, nil
	case err != nil:
		return st, fmt.Errorf("limits: %w", err)
	}
	st.Place.Time = time.UnixMicro(at)
	if st.Names, err = s.names(ctx); err != nil {
		return st, fmt.Errorf("limits: %w", err)
	}
	if st.Counts, err = s.counts(ctx); err != nil {
		return st, fmt.Errorf("limits: %w", err)
	}
	return st, nil
}

func (s *Store) names(ctx context.Context) ([]Name, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT name, unit, period, zone FROM names`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells
	var list []Name
	for rows.Next() {
		var n Name
		if err := rows.Scan(&n.Limit, &n.Unit, &n.Period, &n.Zone); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, rows.Err()
}

func (s *Store) counts(ctx context.Context) ([]limit.Count, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, window_ns, broken_us, alerted_us, told, until_us, slots FROM counts`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells
	var list []limit.Count
	for rows.Next() {
		var c limit.Count
		var broken, alerted, told, until int64
		var id, slots []byte
		if err := rows.Scan(&id, &c.Window, &broken, &alerted, &told, &until, &slots); err != nil {
			return nil, err
		}
		if err := readID(id, &c); err != nil {
			return nil, err
		}
		c.Broken, c.Alerted, c.Told, c.Until = fromMicros(broken), fromMicros(alerted), uint64(told), fromMicros(until)
		if c.Slots, err = decodeSlots(slots); err != nil {
			return nil, fmt.Errorf("counts of %q: %w", c.Limit, err)
		}
		list = append(list, c)
	}
	return list, rows.Err()
}

// Save keeps counts in place of those of the same scope, forgets those that are of
// no use any more, and notes how far the journal is counted in, and for which
// limits: all or nothing.
func (s *Store) Save(ctx context.Context, changed []limit.Count, names []Name, at Place) error {
	if err := s.save(context.WithoutCancel(ctx), changed, names, at); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	return nil
}

func (s *Store) save(ctx context.Context, changed []limit.Count, names []Name, at Place) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	if err := insertCounts(ctx, tx, changed); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM names`); err != nil {
		return err
	}
	for _, n := range names {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO names VALUES (?, ?, ?, ?)`, n.Limit, n.Unit, n.Period, n.Zone); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM counts WHERE until_us < ?`, at.Time.UnixMicro()); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO place VALUES (1, ?, ?, ?)`, int64(at.Segment), at.Offset, at.Time.UnixMicro()); err != nil {
		return err
	}
	return tx.Commit()
}

func insertCounts(ctx context.Context, tx *sql.Tx, changed []limit.Count) error {
	if len(changed) == 0 {
		return nil
	}
	stmt, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO counts VALUES (?, ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer func() { _ = stmt.Close() }()
	slots := make([]byte, 0, 64) // nil would be NULL
	for i := range changed {
		c := &changed[i]
		id, err := writeID(c)
		if err != nil {
			return err
		}
		slots = appendSlots(slots[:0], c.Slots)
		if _, err := stmt.ExecContext(ctx, string(id), int64(c.Window), micros(c.Broken), micros(c.Alerted), int64(c.Told), micros(c.Until), slots); err != nil {
			return err
		}
	}
	return nil
}

// writeID and readID are the identity of a count, as JSON.
func writeID(c *limit.Count) ([]byte, error) {
	p := &c.Scope
	return json.Marshal([...]string{
		c.Limit, string(c.Unit), string(c.Period), c.Zone, p.Organisation, p.Team, p.Application, p.Key, p.User, p.Model, p.Pool,
	})
}

func readID(id []byte, c *limit.Count) error {
	var f []string
	if err := json.Unmarshal(id, &f); err != nil || len(f) != 11 {
		return fmt.Errorf("counts: %q: %w", id, errors.Join(err, errUnreadable))
	}
	c.Limit, c.Unit, c.Period, c.Zone = f[0], plan.Unit(f[1]), plan.Period(f[2]), f[3]
	c.Scope = limit.Scope{Organisation: f[4], Team: f[5], Application: f[6], Key: f[7], User: f[8], Model: f[9], Pool: f[10]}
	return nil
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
	return time.UnixMicro(us)
}

func appendSlots(b []byte, slots []limit.Slot) []byte {
	for _, s := range slots {
		b = binary.AppendVarint(b, s.End.UnixNano())
		b = binary.AppendVarint(b, s.N)
	}
	return b
}

var errUnreadable = errors.New("cannot be read")

func decodeSlots(b []byte) ([]limit.Slot, error) {
	var slots []limit.Slot
	for len(b) > 0 {
		end, n := binary.Varint(b)
		if n <= 0 {
			return nil, errUnreadable
		}
		count, m := binary.Varint(b[n:])
		if m <= 0 || count < 0 {
			return nil, errUnreadable
		}
		slots = append(slots, limit.Slot{End: time.Unix(0, end), N: count})
		b = b[n+m:]
	}
	return slots, nil
}
