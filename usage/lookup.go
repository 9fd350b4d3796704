package usage

import (
	"context"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// Event finds the event of a decision in the store, where it is some moments after it
// was journalled.
func (r *Recorder) Event(ctx context.Context, id string) (*usagev1.Event, error) {
	return r.opt.Store.Event(ctx, id)
}
