// Package usage keeps the record of every request: it journals each decision
// before the answer leaves weir, closes it with Envoy's access log entry, and
// carries the events into a store. It settles reservations; it never decides
// about a request.
package usage

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store"
)

// Settler replaces a reservation by what was used. Settling an unknown id, or
// twice, must do nothing.
type Settler interface {
	Settle(id string, used ai.Usage)
}

// Options are what a Recorder is made of.
type Options struct {
	Dir       string               // the spool's folder; made when absent
	Store     store.Store          // where events end; the caller closes it
	Settler   Settler              // may be nil
	Now       func() time.Time     // default: time.Now
	Deadline  time.Duration        // after which an open decision is closed; default 15 min
	Retention time.Duration        // of single events in the store; 0 keeps them
	OnEvent   func(*usagev1.Event) // called for each event, one at a time; may be nil
	Logger    *slog.Logger         // default: slog.Default()
}

// Recorder is the life of usage events, from decision to store.
type Recorder struct{ opt Options }

// Open reads back what the spool holds.
func Open(opt Options) (*Recorder, error) { return &Recorder{opt: opt}, nil }

// Run does the work that no request waits for, until ctx ends.
func (r *Recorder) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Close stores what it can and ends the recorder.
func (r *Recorder) Close() error { return nil }

// Decided journals a decision.
func (r *Recorder) Decided(d *usagev1.Decision) error { return nil }

// Pending are the decisions that no entry has closed.
func (r *Recorder) Pending() []*usagev1.Decision { return nil }

// Recent calls fn with each event that ended within the window.
func (r *Recorder) Recent(ctx context.Context, window time.Duration, fn func(*usagev1.Event) error) error {
	return nil
}

// TailFile follows Envoy's access log file until ctx ends.
func (r *Recorder) TailFile(ctx context.Context, path string, reopen func() error) error {
	<-ctx.Done()
	return nil
}

// RegisterALS takes entries from Envoy's gRPC access log.
func (r *Recorder) RegisterALS(s *grpc.Server) {}
