package openai

import "bytes"

// The chunks of one stream differ in little but their content: what stands
// before it (id, model, …) and what stands behind it repeat byte for byte. A
// scan of the same bytes from the same state ends in the same state, so the
// meter remembers one such stretch before the content and one behind it, with
// the state at its end, and on meeting it again skips to there. What it says
// does not depend on that.

// maxTwin bounds a remembered stretch, in bytes.
const maxTwin = 1 << 10

// twin is a stretch that was read once.
type twin struct {
	bytes []byte
	scan  scan  // at its end
	event Event // at its end
}

func (t *twin) remember(p []byte, m *Meter) {
	if len(p) > maxTwin {
		t.bytes = t.bytes[:0]
		return
	}
	t.bytes = append(t.bytes[:0], p...)
	t.scan, t.event = m.scan, m.ev
}

// begins tells whether p begins with the stretch.
func (t *twin) begins(p []byte) bool { return len(t.bytes) > 0 && bytes.HasPrefix(p, t.bytes) }

// is tells whether p is the stretch.
func (t *twin) is(p []byte) bool { return len(t.bytes) > 0 && bytes.Equal(p, t.bytes) }

// value reads the first piece of a value, which is mostly the whole of it.
func (m *Meter) value(p []byte) {
	i := len(m.head.bytes)
	if m.head.begins(p) {
		m.scan, m.ev = m.head.scan, m.head.event
	} else {
		if i = m.readTo(p, 0); i == len(p) {
			return
		}
		if !m.quiet() {
			m.read(p[i:])
			return
		}
		m.head.remember(p[:i], m)
		m.tail.bytes = m.tail.bytes[:0] // it was read behind another head
	}
	i = m.readString(p, i) // the content
	if m.inString {
		return
	}
	rest := p[i:]
	if m.tail.is(rest) {
		m.scan = m.tail.scan
		return
	}
	before := m.ev
	m.read(rest)
	if m.complete && m.ev == before {
		m.tail.remember(rest, m)
	}
}

// readTo reads from i to the first string of content, and returns where that
// begins: behind its opening quote. Without one it reads all of p.
func (m *Meter) readTo(p []byte, i int) int {
	for i < len(p) {
		switch {
		case m.inString:
			i = m.readString(p, i)
		case m.skip > 0:
			i = m.readSkipped(p, i)
		default:
			m.step(p[i])
			i++
			if m.inString && !m.isKey && m.at == atText {
				return i
			}
		}
	}
	return i
}

// quiet tells whether the value has said nothing so far that is kept beyond it.
func (m *Meter) quiet() bool {
	return !m.ev.Content && !m.ev.Finish && !m.ev.Usage && !m.ev.Error
}
