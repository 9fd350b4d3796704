package adapter

import (
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/dialect/sse"
	"github.com/weirproxy/weir/internal/ai"
)

// maxWithheld bounds what is kept of an event of which it is not known yet
// whether it is removed, in bytes. A longer event is passed on.
const maxWithheld = 64 << 10

// stream meters a response of server-sent events while it passes, and removes
// the extra usage event where weir asked for one that the client did not want.
// It knows nothing of the host. Its zero value removes nothing.
type stream struct {
	strip bool

	split sse.Splitter
	meter openai.Meter
	event eventHead

	// Of the event that is being read: whether its bytes are passed on as they
	// come, and those that are withheld until more of it is known.
	passing  bool
	withheld []byte
	lineFeed lineFeed

	out []byte // what the last feed returned; used again

	// started says that what was read is more than a beginning: content, the end
	// of a choice, an error, or the end of the stream.
	started bool
	content bool // content was read
	done    bool // [DONE] was read
	failed  bool // an error of the backend's was read
	chunks  int64
	text    int64 // bytes
}

// lineFeed says what to do with a line feed that begins the next piece: an event
// that ended in CR may have ended in CRLF.
type lineFeed uint8

const (
	lfOrdinary lineFeed = iota
	lfKept              // it belongs to the event before, which was passed on
	lfRemoved           // it belongs to the event before, which was removed
)

// eventHead is the beginning of an event's data, enough to know [DONE] by.
type eventHead struct {
	text [8]byte
	size int // of all data
}

func (h *eventHead) write(p []byte) {
	if h.size < len(h.text) {
		copy(h.text[h.size:], p)
	}
	h.size += len(p)
}

func (h *eventHead) isDone() bool { return h.size == 6 && string(h.text[:6]) == "[DONE]" }

// interruption is what a client gets behind a stream that broke off. If that was in the
// middle of an event, the two line ends before this one end it; otherwise they say nothing.
var interruption = []byte("\n\ndata: " + string(openai.ErrorBody(ai.ReasonStreamInterrupted,
	"The backend's answer broke off: what came before is not all of it.", "")) + "\n\n")

// feed reads the next piece of the response; end says that it is the last. It
// returns what to pass on in the place of p, and whether that differs from p.
// The bytes are valid until the next feed.
func (s *stream) feed(p []byte, end bool) (out []byte, differs bool) {
	w := pass{p: p, out: s.out[:0]}
	start := 0 // of the event that is being read, in p
	if s.lineFeed != lfOrdinary && len(p) > 0 {
		if p[0] == '\n' {
			start = 1
			if s.lineFeed == lfRemoved {
				w.cut(0, 1)
			}
		}
		s.lineFeed = lfOrdinary
	}
	for i := 0; i < len(p); {
		n, tok := s.split.Next(p[i:])
		if tok == sse.Data {
			s.meter.Write(p[i : i+n])
			s.event.write(p[i : i+n])
		} else if tok == sse.Break {
			s.meter.Write([]byte{'\n'})
			s.event.write([]byte{'\n'})
		}
		i += n
		if tok == sse.End {
			removed := s.endEvent(&w, start, i)
			s.lineFeed = s.afterEnd(removed)
			start = i
		}
	}
	switch {
	case end:
		s.endEvent(&w, start, len(p))
	case s.strip && !s.passing:
		s.withhold(&w, start)
	}
	s.out = w.out
	return w.result()
}

func (s *stream) afterEnd(removed bool) lineFeed {
	switch {
	case !s.split.OnLineFeed():
		return lfOrdinary
	case removed:
		return lfRemoved
	}
	return lfKept
}

// endEvent takes note of what the event said that p[:i] ends, whose bytes from
// start on are in p, and removes it if it is the extra usage event.
func (s *stream) endEvent(w *pass, start, i int) (removed bool) {
	ev := s.meter.Event()
	removed = s.strip && !s.passing && s.event.size > 0 && ev.UsageOnly()
	if removed {
		w.cut(start, i)
	} else {
		w.prepend(s.withheld)
	}
	s.withheld = s.withheld[:0]
	s.note(ev)
	s.passing = false
	s.event = eventHead{}
	s.meter.Begin()
	return removed
}

func (s *stream) note(ev *openai.Event) {
	if s.event.isDone() {
		s.done, s.started = true, true
		return
	}
	if ev.Content {
		s.content = true
		s.chunks++
		s.text += ev.TextBytes
	}
	if ev.Content || ev.Finish || ev.Error {
		s.started = true
	}
	s.failed = s.failed || ev.Error
}

// whole tells whether the client can see by what was read how the stream ended: a choice
// ended, or the backend said [DONE] or what went wrong.
func (s *stream) whole() bool { return s.done || s.failed || s.meter.Finish() != "" }

// withhold keeps back the event that begins at start in p and is not read to
// its end, unless it is known already that it is not the usage event.
func (s *stream) withhold(w *pass, start int) {
	ev := s.meter.Event()
	if ev.Choice || ev.Error || len(s.withheld)+len(w.p)-start > maxWithheld {
		s.passing = true
		w.prepend(s.withheld)
		s.withheld = s.withheld[:0]
		return
	}
	if start < len(w.p) {
		s.withheld = append(s.withheld, w.p[start:]...)
		w.cut(start, len(w.p))
	}
}

// usage is what the response has used so far.
func (s *stream) usage(u *ai.AdapterUsage) {
	u.Usage, u.Reported = s.meter.Usage()
	u.Chunks, u.TextBytes = s.chunks, s.text
	u.Finish, u.Done = s.meter.Finish(), s.done
}

// pass builds what is passed on of p. As long as nothing is cut and nothing is
// put before it, that is p itself and nothing is copied.
type pass struct {
	p       []byte
	kept    int // p[:kept] is in out, or was cut
	out     []byte
	differs bool
}

// prepend puts bytes that were withheld earlier before p. No cut was made.
func (w *pass) prepend(b []byte) {
	if len(b) > 0 {
		w.out = append(w.out, b...)
		w.differs = true
	}
}

// cut leaves p[i:j] out. Cuts come in order.
func (w *pass) cut(i, j int) {
	w.out = append(w.out, w.p[w.kept:i]...)
	w.kept = j
	w.differs = true
}

func (w *pass) result() ([]byte, bool) {
	if !w.differs {
		return w.p, false
	}
	return append(w.out, w.p[w.kept:]...), true
}
