package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/weirproxy/weir/usage/store"
)

// Write implements store.Writer.
func (s *Store) Write(ctx context.Context, events []store.Record, c store.Cursor) (int, error) {
	// A context that can end costs a goroutine for each statement. A batch takes
	// milliseconds: it is waited for.
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("usage store: %w", err)
	}
	ctx = context.WithoutCancel(ctx)
	added, err := s.write(ctx, events, c, rowsAtOnce)
	if errors.Is(err, errKnown) { // rare: what is new is found one by one
		added, err = s.write(ctx, events, c, 1)
	}
	if err != nil {
		return 0, fmt.Errorf("usage store: %w", err)
	}
	return added, nil
}

// errKnown says that a statement of several rows left some out.
var errKnown = errors.New("some events are stored already")

// batch is one transaction.
type batch struct {
	*Store
	tx     *sql.Tx
	many   *sql.Stmt // inserts rowsAtOnce events
	one    *sql.Stmt
	labels map[labels]int64 // new ones, known to the others once they are committed
	rolls  *rollups
	added  int
}

// write writes the events in statements of so many rows at most.
func (s *Store) write(ctx context.Context, events []store.Record, c store.Cursor, rows int) (added int, err error) {
	tx, err := s.w.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	b := batch{
		Store: s, tx: tx, many: tx.StmtContext(ctx, s.many), one: tx.StmtContext(ctx, s.one),
		labels: map[labels]int64{}, rolls: newRollups(),
	}
	for rest := events; len(rest) > 0; {
		n := 1
		if len(rest) >= rows {
			n = rows
		}
		if err := b.insert(ctx, rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	if err := b.rolls.write(ctx, tx.StmtContext(ctx, s.minute), tx.StmtContext(ctx, s.hour)); err != nil {
		return 0, err
	}
	if _, err := tx.StmtContext(ctx, s.progress).ExecContext(ctx, int64(c.Segment), c.Offset); err != nil {
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	s.keep(b.labels)
	return b.added, nil
}

// insert inserts one event or rowsAtOnce by one statement.
func (b *batch) insert(ctx context.Context, events []store.Record) (err error) {
	b.args, b.ids = b.args[:0], b.ids[:0]
	for _, e := range events {
		id, err := b.labelsOf(ctx, e.Event)
		if err != nil {
			return err
		}
		if b.args, b.ids, err = appendArgs(b.args, b.ids, &e, id); err != nil {
			return err
		}
	}
	stmt := b.one
	if len(events) > 1 {
		stmt = b.many
	}
	res, err := stmt.ExecContext(ctx, b.args...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	switch {
	case err != nil:
		return err
	case n == 0 && len(events) == 1:
		return nil
	case int(n) != len(events):
		return errKnown
	}
	for _, e := range events {
		b.rolls.add(e.Event)
	}
	b.added += len(events)
	return nil
}
