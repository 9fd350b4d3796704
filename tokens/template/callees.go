package template

import (
	"bytes"
	"slices"

	"github.com/weirproxy/weir/dialect"
)

// callees are the functions that were called in a chat, by the ids of the calls: read
// once a rendering, by the first result of a tool that is shown with its function.
type callees struct {
	read  bool
	calls []callee // in order of their ids, and of the body
	text  []byte   // ids that were decoded
}

// callee is a call: its id is text[start:end], or, where it has no escapes, that of the
// body. The name is nil when it has none.
type callee struct {
	start, end int
	decoded    bool
	name       *dialect.Segment
}

// callee writes the name of the function that a result answers: of the last call by
// that id. The name is one more copy of what stands in the body once.
func (r *renderer) callee(result *dialect.Message) {
	id := r.find(result, dialect.ToolCallID)
	if id == nil {
		return
	}
	if !r.callees.read {
		r.readCallees()
	}
	var want []byte
	want, r.text = r.v.Decode(id, r.text)
	calls := r.callees.calls
	i, _ := slices.BinarySearchFunc(calls, want, func(c callee, want []byte) int {
		if bytes.Compare(r.callID(&c), want) <= 0 {
			return -1 // what is sought is the last one
		}
		return 1
	})
	if i == 0 || calls[i-1].name == nil || !bytes.Equal(r.callID(&calls[i-1]), want) {
		return
	}
	name := calls[i-1].name
	if !r.out.take(name.Len) {
		r.doubt()
		return
	}
	r.w.Segment(name, false)
}

func (r *renderer) callID(c *callee) []byte {
	if c.decoded {
		return r.callees.text[c.start:c.end]
	}
	return r.v.Body[c.start:c.end]
}

// readCallees reads all calls of the chat.
func (r *renderer) readCallees() {
	x := &r.callees
	x.read, x.calls, x.text = true, x.calls[:0], x.text[:0]
	for i := range r.v.Messages {
		for _, c := range r.toolCalls(&r.v.Messages[i]) {
			s := c.id
			switch {
			case s == nil:
			case s.Raw:
				x.calls = append(x.calls, callee{start: s.Off, end: s.End(), name: c.name})
			case s.Escaped:
				start := len(x.text)
				x.text = r.appendText(x.text, s)
				x.calls = append(x.calls, callee{start: start, end: len(x.text), decoded: true, name: c.name})
			default:
				x.calls = append(x.calls, callee{start: s.Off + 1, end: s.End() - 1, name: c.name})
			}
		}
	}
	// The calls are in the order of the body before they are sorted by their ids.
	slices.SortStableFunc(x.calls, func(a, b callee) int { return bytes.Compare(r.callID(&a), r.callID(&b)) })
}
