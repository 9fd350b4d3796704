package simulate

import (
	"bytes"
	"net/http"
	"strconv"
	"time"

	"github.com/weirproxy/weir/dialect/profile"
)

// stream sends the answer as server-sent events.
func (j *job) stream() {
	if !j.wait(milliseconds(j.fault.StallBeforeHeadersMS)) {
		return
	}
	j.suffix = "]}"
	if j.s.kind.Provider && j.includeUsage {
		j.suffix = `],"usage":null}` // OpenAI says so in every event but the last
	}
	j.head(http.StatusOK, "text/event-stream; charset=utf-8", -1)
	o := output{x: j.exchange, flusher: http.NewResponseController(j.w), buf: make([]byte, 0, 512)}
	if !o.flush() || !j.wait(j.s.opts.FirstToken) {
		return
	}
	if j.opening(&o) && j.wait(milliseconds(j.fault.StallFirstTokenMS)) && j.content(&o) && j.closing(&o) {
		j.complete()
	}
}

// opening sends the events that tell the role, and the tool that is called.
func (j *job) opening(o *output) bool {
	for i := range j.choices {
		if j.shape.role != "" && !o.send(j.appendEvent(o.begin(), i, j.shape.role, "")) {
			return false
		}
		c := j.choices[i].call
		if c == nil {
			continue
		}
		delta := `"delta":{"tool_calls":[{"index":0,"id":"` + c.id + `","type":"function","function":{"name":"` +
			escape(c.name) + `","arguments":""}}]}`
		if !o.send(j.appendEvent(o.begin(), i, delta, "")) {
			return false
		}
	}
	return true
}

// content sends the tokens of all choices in turn.
func (j *job) content(o *output) bool {
	due := time.Now()
	for t := range j.longest {
		if d := j.delay(); t > 0 && d != 0 {
			due = due.Add(d)
			if d > 0 {
				d = max(time.Until(due), 1) // by the clock, so that waits do not add up their delays
			}
			if !j.wait(d) {
				return false
			}
		}
		for i := range j.choices {
			if t < j.choices[i].length && !j.token(o, i, t) {
				return false
			}
		}
	}
	return !j.stopHere(o)
}

// token sends the token t of choice i, unless the stream is to stop before it.
func (j *job) token(o *output, i, t int) bool {
	if j.stopHere(o) {
		return false
	}
	event := j.appendToken(o.begin(), i, t)
	if j.sent == 0 && j.fault.Garbage != "" {
		event = append(append(event[:0], "data: "...), j.fault.Garbage...)
	}
	if !o.send(event) {
		return false
	}
	j.note(1)
	now := time.Now()
	if j.sent == 1 {
		j.first = now
	} else {
		j.s.metrics.interToken.Observe(now.Sub(j.last).Seconds())
	}
	j.last = now
	return true
}

// stopHere ends the stream when a fault says so after the tokens sent so far.
func (j *job) stopHere(o *output) bool {
	at := func(n *int) bool { return n != nil && j.sent >= *n }
	switch {
	case at(j.fault.CutAfterChunks):
		if o.flush() {
			j.cut()
		}
		return true
	case at(j.fault.EndAfterChunks):
		_ = o.flush()
		return true
	case at(j.fault.ErrorAfterChunks):
		f := failure{status: http.StatusInternalServerError, message: "simulated: the engine died"}
		o.send(append(append(o.begin(), "data: "...), f.render(j.s.kind)...))
		_ = o.send(append(o.begin(), "data: [DONE]"...)) && o.flush()
		return true
	}
	return false
}

// closing sends the finish reasons, the usage and the end.
func (j *job) closing(o *output) bool {
	for i := range j.choices {
		if !o.send(j.appendEvent(o.begin(), i, j.shape.end, j.choices[i].finish)) {
			return false
		}
	}
	if j.includeUsage && j.s.kind.StreamUsage == profile.OnRequest && j.fault.Usage != "missing" {
		b := append(append(o.begin(), "data: "...), j.prefix...)
		b = j.appendUsage(append(b, `],"usage":`...), j.sent)
		if !o.send(append(b, '}')) {
			return false
		}
	}
	return (j.fault.NoDone || o.send(append(o.begin(), "data: [DONE]"...))) && o.flush()
}

// appendEvent appends an event with one choice; finish is "" for null.
func (j *job) appendEvent(b []byte, i int, delta, finish string) []byte {
	b = j.appendOpen(b, i)
	b = append(b, delta...)
	return j.appendClose(b, finish)
}

func (j *job) appendToken(b []byte, i, t int) []byte {
	c := &j.choices[i]
	b = j.appendOpen(b, i)
	if c.call == nil {
		b = append(b, j.shape.beforePiece...)
		b = append(b, c.piece(t)...)
		b = append(b, j.shape.afterPiece...)
	} else {
		b = append(b, `"delta":{"tool_calls":[{"index":0,"function":{"arguments":"`...)
		b = append(b, c.piece(t)...)
		b = append(b, `"}}]}`...)
	}
	return j.appendClose(b, "")
}

func (j *job) appendOpen(b []byte, i int) []byte {
	b = append(b, "data: "...)
	b = append(b, j.prefix...)
	b = append(b, `{"index":`...)
	b = strconv.AppendInt(b, int64(i), 10)
	return append(b, ',')
}

func (j *job) appendClose(b []byte, finish string) []byte {
	b = append(b, `,"logprobs":null,"finish_reason":`...)
	if finish == "" {
		b = append(b, "null}"...)
	} else {
		b = append(b, '"')
		b = append(b, finish...)
		b = append(b, '"')
		if j.tellsUsage(profile.InChoice) {
			b = j.appendUsage(append(b, `,"usage":`...), j.sent)
		}
		b = append(b, '}')
	}
	if j.continuousUsage || finish != "" && j.tellsUsage(profile.LastChunk) || j.tellsUsage(profile.EveryChunk) {
		return append(j.appendUsage(append(b, `],"usage":`...), j.sent), '}')
	}
	return append(b, j.suffix...)
}

// tellsUsage tells that streams say what was used in this way.
func (j *job) tellsUsage(way profile.StreamUsage) bool {
	return j.s.kind.StreamUsage == way && j.fault.Usage != "missing"
}

// output writes events as the fault has it: each flushed, in pieces, or all
// in one.
type output struct {
	x       *exchange
	flusher *http.ResponseController
	buf     []byte // of the event in the making
	held    []byte // events that were not written yet
}

// begin returns an empty buffer for an event.
func (o *output) begin() []byte { return o.buf[:0] }

// send ends the event and writes it. It returns false when the client is gone.
func (o *output) send(event []byte) bool {
	f := o.x.fault
	event = append(event, "\n\n"...)
	o.buf = event
	if f.Comments {
		event = append([]byte(": keep-alive\n\n"), event...)
	}
	if f.CRLF {
		event = bytes.ReplaceAll(event, []byte("\n"), []byte("\r\n"))
	}
	if f.Coalesce || f.SplitBytes > 0 {
		o.held = append(o.held, event...)
		return f.Coalesce || o.flush()
	}
	return o.write(event)
}

// flush writes what is held.
func (o *output) flush() bool {
	held := o.held
	o.held = o.held[:0]
	for len(held) > 0 {
		n := len(held)
		if split := o.x.fault.SplitBytes; split > 0 {
			n = min(n, split)
		}
		if !o.write(held[:n]) {
			return false
		}
		held = held[n:]
	}
	return o.write(nil)
}

func (o *output) write(b []byte) bool {
	_, err := o.x.w.Write(b)
	if err == nil {
		err = o.flusher.Flush()
	}
	if err != nil {
		o.x.outcome = Aborted
	}
	return err == nil
}
