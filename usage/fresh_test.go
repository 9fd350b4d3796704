package usage

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
)

// What the sink takes from memory is what it would read in the spool.
func TestFreshEventsAreThoseOfTheSpool(t *testing.T) {
	w := newWorld(t)
	w.opt.SegmentBytes = 2 << 10 // it rotates
	w.restart()
	const n = 40
	for i := range n {
		w.decide(admitted(2 * i))
		w.decide(refused(2*i + 1))
		w.entry(finished(2 * i))
	}
	if got := len(w.sink.fresh.list); got != 2*n {
		t.Fatalf("%d events are remembered, want %d", got, 2*n)
	}
	if err := w.sink.seek(context.Background()); err != nil {
		t.Fatal(err)
	}
	records, err := w.sink.read(storeAtOnce)
	if err != nil || len(records) != 2*n {
		t.Fatal(len(records), err)
	}
	for _, r := range records {
		if diff := cmp.Diff(w.decodeEvent(kindEvent, r.Encoded), r.Event, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
	if got := len(w.sink.fresh.list); got != 0 {
		t.Errorf("%d events are remembered after they were read", got)
	}
}

// A store that is down costs no memory beyond a bound, and an event that was
// read before it was remembered is not remembered for ever.
func TestFreshIsBounded(t *testing.T) {
	w := newWorld(t)
	for i := range maxFresh + 10 {
		w.decide(refused(i))
	}
	if got := len(w.sink.fresh.list); got != maxFresh {
		t.Errorf("%d events are remembered, want %d", got, maxFresh)
	}
	if got := len(w.events()); got != maxFresh+10 {
		t.Errorf("%d events are stored, want %d", got, maxFresh+10)
	}
	w.sink.fresh.put(w.sink.stored, nil) // the next one's place: not read yet
	earlier := w.sink.stored
	earlier.Offset--
	w.sink.fresh.put(earlier, nil)
	w.sink.fresh.forget(w.sink.stored)
	if got := len(w.sink.fresh.list); got != 1 {
		t.Errorf("%d events are remembered, want the one that was not read yet", got)
	}
}
