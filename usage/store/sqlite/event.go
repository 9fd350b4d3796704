package sqlite

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store"
)

// eventColumns are id, end_us, labels, the figures, and event.
const eventColumns = figureCount + 4

// rowsAtOnce is how many events one statement inserts: what it costs beside its
// rows is a few microseconds.
const rowsAtOnce = 25

// insertEvents is the statement that inserts n events.
func insertEvents(n int) string {
	row := parameters(eventColumns)
	return `INSERT OR IGNORE INTO events (id, end_us, labels, ` + columnList("", "") + `, event) VALUES ` + row + strings.Repeat(","+row, n-1)
}

// appendArgs appends the columns of an event, and its id to ids.
func appendArgs(args []any, ids []byte, r *store.Record, labels int64) ([]any, []byte, error) {
	e := r.Event
	d := e.GetDecision()
	start := len(ids)
	ids, err := hex.AppendDecode(ids, []byte(d.GetId()))
	if err != nil || len(ids)-start != 16 {
		return args, ids, fmt.Errorf("event %q: an id is 32 hex digits", d.GetId())
	}
	f := figuresOf(e)
	args = append(args, ids[start:], micros(e.GetEnd()), labels)
	return append(f.appendTo(args), r.Encoded), ids, nil
}

func micros(t *timestamppb.Timestamp) int64 { return t.AsTime().UnixMicro() }

func decodeEvent(b []byte) (*usagev1.Event, error) {
	e := &usagev1.Event{}
	if err := proto.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	return e, nil
}

// Event implements store.Reader.
func (r *Reader) Event(ctx context.Context, id string) (*usagev1.Event, error) {
	key, err := hex.DecodeString(id)
	if err != nil {
		return nil, store.ErrNotFound
	}
	var b []byte
	err = r.db.QueryRowContext(ctx, `SELECT event FROM events WHERE id = ?`, key).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	return decodeEvent(b)
}

// Since implements store.Reader.
func (r *Reader) Since(ctx context.Context, t time.Time, fn func(*usagev1.Event) error) error {
	return r.each(ctx, fn, `SELECT event FROM events WHERE end_us >= ? ORDER BY end_us`, t.UnixMicro())
}

// Last implements store.Reader.
func (r *Reader) Last(ctx context.Context, n int, fn func(*usagev1.Event) error) error {
	return r.each(ctx, fn, `SELECT event FROM events ORDER BY end_us DESC LIMIT ?`, n)
}

func (r *Reader) each(ctx context.Context, fn func(*usagev1.Event) error, query string, args ...any) error {
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("usage store: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells
	var b sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&b); err != nil {
			return fmt.Errorf("usage store: %w", err)
		}
		e, err := decodeEvent(b)
		if err != nil {
			return err
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("usage store: %w", err)
	}
	return nil
}
