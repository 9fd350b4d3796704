package usage

import (
	"sync"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/spool"
)

// fresh remembers events by where they were journalled, so that the sink, which
// reads the spool a moment later, need not decode them. It may forget any: the
// spool is what counts.
type fresh struct {
	mu   sync.Mutex
	list map[spool.Position]*usagev1.Event
}

// maxFresh bounds what is remembered while events cannot be stored.
const maxFresh = 4096

func (f *fresh) put(at spool.Position, e *usagev1.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.list == nil {
		f.list = map[spool.Position]*usagev1.Event{}
	}
	if len(f.list) < maxFresh {
		f.list[at] = e
	}
}

// take returns the event at a position, once, or nil.
func (f *fresh) take(at spool.Position) *usagev1.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.list[at]
	delete(f.list, at)
	return e
}

// forget drops the events before a position: those that the sink read before
// they were put here.
func (f *fresh) forget(before spool.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for at := range f.list {
		if at.Segment < before.Segment || at.Segment == before.Segment && at.Offset < before.Offset {
			delete(f.list, at)
		}
	}
}
