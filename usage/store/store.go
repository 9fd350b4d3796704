// Package store says what a store of usage events must do, so that the recorder
// and the queries do not depend on which one it is. It never decides anything
// about a request.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// ErrNotFound says that no such event is stored.
var ErrNotFound = errors.New("no such usage event")

// Cursor is how far the spool has been stored: a segment's number and the byte
// offset in it. The zero value is the beginning.
type Cursor struct {
	Segment uint64
	Offset  int64
}

// Record is an event and its encoding as a protobuf message. The encoding is the
// caller's again when it is stored.
type Record struct {
	Event   *usagev1.Event
	Encoded []byte
}

// Writer takes events in. It has one caller at a time.
type Writer interface {
	// Write stores those events whose id is not stored yet, adds these and only
	// these to the roll-ups, and notes the cursor, all or nothing. It returns how
	// many were new.
	Write(ctx context.Context, events []Record, c Cursor) (added int, err error)
	// Cursor is the cursor of the last Write that was kept.
	Cursor(ctx context.Context) (Cursor, error)
	// Sync makes what was written survive a power failure.
	Sync(ctx context.Context) error
	// Trim deletes single events that ended before t, at most limit of them, and
	// keeps the roll-ups. It returns how many it deleted.
	Trim(ctx context.Context, before time.Time, limit int) (deleted int, err error)
}

// Reader answers questions. It is safe for concurrent use, beside a Writer.
type Reader interface {
	// Event finds one event by its id, or returns ErrNotFound.
	Event(ctx context.Context, id string) (*usagev1.Event, error)
	// Since calls fn with each event that ended at t or later, oldest first,
	// until fn returns an error.
	Since(ctx context.Context, t time.Time, fn func(*usagev1.Event) error) error
	// Last calls fn with each of the n events that ended last, the newest first, until
	// fn returns an error.
	Last(ctx context.Context, n int, fn func(*usagev1.Event) error) error
	// Usage sums events up. Rows come in no particular order.
	Usage(ctx context.Context, q Query) ([]Row, error)
}

// Store is both.
type Store interface {
	Writer
	Reader
}

// Dimension is what usage can be grouped by.
type Dimension string

// The dimensions. Day and hour are those of UTC in which the request ended.
const (
	Team        Dimension = "team"
	Application Dimension = "application"
	Key         Dimension = "key"
	Model       Dimension = "model"
	Pool        Dimension = "pool"
	Outcome     Dimension = "outcome"
	Reason      Dimension = "reason"
	Kind        Dimension = "kind"
	Rule        Dimension = "rule"
	Hour        Dimension = "hour"
	Day         Dimension = "day"
)

// Dimensions are all of them, in the order in which help lists them.
var Dimensions = []Dimension{Team, Application, Key, Model, Pool, Outcome, Reason, Kind, Rule, Hour, Day}

// Query asks for sums over the requests that ended in [Since, Until), for each
// combination of By. An empty By is one sum over all.
type Query struct {
	Since, Until time.Time
	By           []Dimension
}

// Row is one sum.
type Row struct {
	By       []string // the values of Query.By, in its order
	Requests int64
	Tokens   ai.Usage
	// Cost is that of the input, that of the output, that of the attempts that were
	// given up without an answer, and what each request costs.
	Cost                                 ai.NanoUSD
	InputCost, OutputCost, AbandonedCost ai.NanoUSD
	// Abandoned is how many tokens such attempts are charged; they are not in Tokens.
	Abandoned int64
	// Estimated is how many of the tokens were estimated, and neither reported
	// by the backend nor counted.
	Estimated int64
}
