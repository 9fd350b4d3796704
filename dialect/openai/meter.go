package openai

import "github.com/weirproxy/weir/internal/ai"

// Meter reads what responses of the OpenAI family say of themselves: usage,
// content, finish reason. It reads one JSON value after another, each in any
// pieces, keeps nothing of them, and never fails: bytes that are not JSON say
// nothing.
//
// Usage may come once or grow with every chunk: the last one holds. usageFields
// has the forms of it that the meter knows.
type Meter struct {
	usage    ai.Usage
	reported bool // usage was seen
	atTop    bool // usage was seen beside choices, which outranks one in them
	finish   [finishMax]byte
	finishN  int

	ev  Event
	cur usageFields
	scan
	begun      bool // the value's first piece was read
	head, tail twin
}

// Event is what one JSON value said: a chunk of a stream, or a whole response.
type Event struct {
	// Content says that the value carries generated content: text, reasoning, a
	// refusal, or a piece of a tool call.
	Content bool
	// TextBytes is the length of that content, JSON escapes as they stand.
	TextBytes int64
	// Finish says that a choice ended.
	Finish bool
	// Usage says that the value carries usage.
	Usage bool
	// Error says that the value is an error.
	Error bool
	// Choices says that the value has a list of choices, and Choice that there
	// is one in it.
	Choices, Choice bool
	// Complete says that the value was an object that ended.
	Complete bool
}

// UsageOnly tells whether the value is the extra one that include_usage asks
// for: an empty list of choices, and usage.
func (e *Event) UsageOnly() bool {
	return e.Complete && e.Usage && e.Choices && !e.Choice && !e.Error
}

// finishMax bounds a finish reason; the known ones have up to 14 letters.
const finishMax = 32

// Begin starts the next value.
func (m *Meter) Begin() {
	m.ev = Event{}
	m.scan = scan{}
	m.begun = false
}

// Write reads the next piece of the value.
func (m *Meter) Write(p []byte) {
	if m.begun {
		m.read(p)
		return
	}
	m.begun = true
	m.value(p)
}

// Event tells what the value has said so far.
func (m *Meter) Event() *Event {
	m.ev.Complete = m.complete
	return &m.ev
}

// Usage is what was reported last, over all values; false when nothing was.
func (m *Meter) Usage() (ai.Usage, bool) { return m.usage, m.reported }

// Partial tells whether an object has begun that has not ended.
func (m *Meter) Partial() bool { return m.depth > 0 }

// Finish is the finish reason that was seen last, or "".
func (m *Meter) Finish() string { return string(m.finish[:m.finishN]) }

// opened takes note of a container that begins.
func (m *Meter) opened(at place) {
	switch at {
	case atUsage, atChoiceUsage:
		m.cur = usageFields{}
	case atChoices:
		m.ev.Choices = true
	case atChoice:
		m.ev.Choice = true
	case atText: // content in parts, where a string is usual
		m.ev.Content = true
	case atError:
		m.ev.Error = true
	}
}

// closed takes note of a container that ends.
func (m *Meter) closed(at place) {
	if at != atUsage && at != atChoiceUsage || !m.cur.says() {
		return
	}
	m.ev.Usage = true
	if at == atChoiceUsage && m.atTop {
		return
	}
	m.atTop = at == atUsage
	m.usage, m.reported = m.cur.classes(), true
}

// text takes a piece of a string.
func (m *Meter) text(at place, p []byte) {
	switch {
	case len(p) == 0:
	case at == atText:
		m.ev.Content = true
		m.ev.TextBytes += int64(len(p))
	case at == atFinish:
		if !m.ev.Finish {
			m.finishN = 0
		}
		m.ev.Finish = true
		for _, c := range p {
			if m.finishN < finishMax && (c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z') {
				m.finish[m.finishN] = c
				m.finishN++
			}
		}
	case at == atError:
		m.ev.Error = true
	}
}
