package usage

import (
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/spool"
)

// replay rebuilds what is pending, closed and read from the spool.
func (r *Recorder) replay() error {
	rd := r.log.NewReader(spool.Position{})
	defer func() { _ = rd.Close() }() // it was read only
	return r.eachRecord(rd, func(kind byte, payload []byte) error {
		r.replayRecord(kind, payload, rd.Position().Segment)
		return nil
	})
}

// eachRecord calls fn with each record up to the spool's end, or until fn returns
// io.EOF.
func (r *Recorder) eachRecord(rd *spool.Reader, fn func(kind byte, payload []byte) error) error {
	for {
		kind, payload, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(kind, payload); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// replayRecord takes one record of an earlier run. What cannot be read has a
// right checksum and so comes from another version: it is counted and passed
// over.
func (r *Recorder) replayRecord(kind byte, payload []byte, seg uint64) {
	switch kind {
	case kindDecision:
		d := &usagev1.Decision{}
		id, err := decodeDecision(payload, d)
		if err != nil {
			r.metrics.drop(dropGarbled)
			return
		}
		r.replayDecision(id, d, seg)
	case kindEvent:
		if e := r.decodeEvent(kind, payload); e != nil {
			r.markClosed(e, e.GetOutcome() == OutcomeUnknown)
		}
	case kindPosition:
		if p, err := decodePosition(payload); err == nil {
			r.setPosition(p)
		}
	}
}

func decodeDecision(payload []byte, d *usagev1.Decision) (ID, error) {
	if err := proto.Unmarshal(payload, d); err != nil {
		return ID{}, err
	}
	return ParseID(d.GetId())
}

// replayDecision makes a decision pending again. One that was carried forward
// stands twice in the spool: the later place counts.
func (r *Recorder) replayDecision(id ID, d *usagev1.Decision, seg uint64) {
	if r.done.has(id) {
		return
	}
	r.log.Hold(seg)
	if p := r.pending.find(id); p != nil {
		r.log.Release(p.segment)
		p.segment = seg
		return
	}
	r.pending.add(&pending{id: id, decision: d, segment: seg, deadline: r.deadlineOf(d)})
}
