package template

import (
	"bytes"

	"github.com/weirproxy/weir/dialect"
)

// Mistral's formats, as the instruct tokenizers of mistral-common encode them.
// Messages of one role that follow each other are one. Before v7 the system's
// messages stand before the last message of the user; v11 writes calls with marks in
// place of JSON, and v13 without their ids, and shows the tools before the first
// message of the user.
var (
	mistralV3  = &Template{name: "mistral-v3", walk: func(r *renderer) { r.mistral(3) }, bound: mistralBound, plainText: true}
	mistralV7  = &Template{name: "mistral-v7", walk: func(r *renderer) { r.mistral(7) }, bound: mistralBound, plainText: true}
	mistralV11 = &Template{name: "mistral-v11", walk: func(r *renderer) { r.mistral(11) }, bound: mistralBound, plainText: true}
	mistralV13 = &Template{name: "mistral-v13", walk: func(r *renderer) { r.mistral(13) }, bound: mistralBound, plainText: true}
)

const mistralJoin = "\n\n"

// run is a run of messages of one role: Messages[first:end].
type run struct {
	role       dialect.Role
	first, end int
}

func (r *renderer) nextRun(from int) run {
	ms := r.v.Messages
	n := run{role: ms[from].Role, first: from, end: from + 1}
	for n.end < len(ms) && ms[n.end].Role == n.role {
		n.end++
	}
	return n
}

func (r *renderer) mistral(version int) {
	ms := r.v.Messages
	r.w.Special("<s>")
	if len(ms) == 0 {
		return
	}
	if last := ms[len(ms)-1].Role; last != dialect.RoleUser && last != dialect.RoleTool || r.set.effort != nil {
		r.doubt()
	}
	lastUser := len(ms) - 1
	for lastUser >= 0 && ms[lastUser].Role != dialect.RoleUser {
		lastUser--
	}
	v7 := version >= 7
	if !v7 {
		r.mistralOpening(lastUser)
	}
	first := true
	for i := 0; i < len(ms); {
		n := r.nextRun(i)
		i = n.end
		switch n.role {
		case dialect.RoleUser:
			tools := lastUser < n.end
			if version >= 13 {
				tools = first
			}
			first = false
			r.mistralUser(n, tools, lastUser < n.end, v7)
		case dialect.RoleSystem:
			if v7 {
				r.mistralSystem(n)
			}
		case dialect.RoleAssistant:
			r.mistralAssistant(n, version)
		case dialect.RoleTool:
			r.mistralResults(n, version)
		default:
			r.doubt()
		}
	}
}

// mistralOpening writes an empty message of the user where another speaks first.
func (r *renderer) mistralOpening(lastUser int) {
	for i := range r.v.Messages {
		switch r.v.Messages[i].Role {
		case dialect.RoleSystem:
			continue
		case dialect.RoleUser:
			return
		}
		break
	}
	r.mistralUser(run{}, lastUser < 0, lastUser < 0, false)
}

// runText writes the text of the messages n: what is not empty, joined.
func (r *renderer) runText(n run, role dialect.Role) content {
	var only *dialect.Segment
	count := 0
	for i := n.first; i < n.end; i++ {
		m := &r.v.Messages[i]
		if m.Role != role {
			continue
		}
		if r.check(m); m.FirstMedia < m.EndMedia {
			r.doubt()
		}
		for j := m.First; j < m.End; j++ {
			if s := &r.v.Segments[j]; s.Kind == dialect.Content && s.Text > 0 {
				only = s
				count++
			}
		}
	}
	if count <= 1 {
		return content{segment: only}
	}
	r.text = r.text[:0]
	for i := n.first; i < n.end; i++ {
		m := &r.v.Messages[i]
		for j := m.First; j < m.End && m.Role == role; j++ {
			if s := &r.v.Segments[j]; s.Kind == dialect.Content && s.Text > 0 {
				if len(r.text) > 0 {
					r.text = append(r.text, mistralJoin...)
				}
				r.text = r.appendText(r.text, s)
			}
		}
	}
	return content{bytes: r.text}
}

func (r *renderer) mistralSystem(n run) {
	for i := n.first; i < n.end; i++ {
		r.w.Special("[SYSTEM_PROMPT]")
		r.emit(r.runText(run{first: i, end: i + 1}, dialect.RoleSystem), false)
		r.w.Special("[/SYSTEM_PROMPT]")
	}
}

// mistralUser writes the user's messages n; before the last ones stands what the
// system says, until v7.
func (r *renderer) mistralUser(n run, tools, last, v7 bool) {
	if tools && r.offers() {
		r.w.Special("[AVAILABLE_TOOLS]")
		r.w.Literal("[")
		r.tools(func(i int, tool []byte) {
			if i > 0 {
				r.w.Literal(", ")
			}
			r.mistralTool(tool)
		})
		r.w.Literal("]")
		r.w.Special("[/AVAILABLE_TOOLS]")
	}
	r.w.Special("[INST]")
	if last && !v7 {
		if c := r.runText(run{end: len(r.v.Messages)}, dialect.RoleSystem); !c.empty() {
			r.emit(c, false)
			r.w.Literal(mistralJoin)
		}
	}
	r.emit(r.runText(n, dialect.RoleUser), false)
	r.w.Special("[/INST]")
}

// mistralTool writes a tool as mistral-common's model of one has it.
func (r *renderer) mistralTool(tool []byte) {
	f := r.function(tool)
	d := r.begin(0)
	if f.name == nil {
		d.value(tool, 0)
		r.bytes(r.written(tool))
		return
	}
	if f.description == nil || f.description[0] == 'n' {
		f.description = []byte(`""`)
	}
	if f.parameters == nil || f.parameters[0] == 'n' {
		f.parameters = []byte("{}")
	}
	d.literal(`{"type": "function", "function": {"name": `)
	d.value(f.name, 0)
	d.literal(`, "description": `)
	d.value(f.description, 0)
	d.literal(`, "parameters": `)
	d.value(f.parameters, 0)
	d.literal("}}")
	r.bytes(r.written(tool))
}

func (r *renderer) mistralAssistant(n run, version int) {
	v7 := version >= 7
	c := r.runText(n, dialect.RoleAssistant)
	calls := 0
	for i := n.first; i < n.end; i++ {
		m := &r.v.Messages[i]
		calls += m.ToolCalls
		if r.find(m, dialect.Reasoning) != nil {
			r.doubt()
		}
	}
	if !v7 && calls > 0 && !c.empty() || calls == 0 && c.empty() {
		r.doubt() // refused
	}
	if v7 || calls == 0 {
		r.rightTrimmed(c)
	}
	switch {
	case calls == 0:
	case version < 11:
		r.mistralCalls(n)
	default:
		r.markedCalls(n, version)
	}
	r.w.Special("</s>")
}

// mistralCalls writes the calls in n as JSON.
func (r *renderer) mistralCalls(n run) {
	r.w.Special("[TOOL_CALLS]")
	r.w.Literal("[")
	first := true
	for i := n.first; i < n.end; i++ {
		for _, t := range r.toolCalls(&r.v.Messages[i]) {
			if !first {
				r.w.Literal(", ")
			}
			first = false
			r.mistralCall(t)
		}
	}
	r.w.Literal("]")
}

// markedCalls writes the calls in n with marks.
func (r *renderer) markedCalls(n run, version int) {
	for i := n.first; i < n.end; i++ {
		for _, t := range r.toolCalls(&r.v.Messages[i]) {
			r.w.Special("[TOOL_CALLS]")
			r.callName(t)
			if id := r.mistralID(t.id); version < 13 {
				r.w.Special("[CALL_ID]")
				r.bytes(id)
			}
			r.w.Special("[ARGS]")
			r.bytes(r.mistralArguments(t))
		}
	}
}

// rightTrimmed writes c without the spaces at its end.
func (r *renderer) rightTrimmed(c content) {
	if s := c.segment; s != nil && !s.Escaped {
		if b := r.v.Bytes(s); len(b) > 0 && b[len(b)-1] != ' ' {
			r.w.Segment(s, false)
			return
		}
	}
	r.bytes(bytes.TrimRight(r.decoded(c), " "))
}

func (r *renderer) mistralCall(c call) {
	r.w.Literal(`{"name": `)
	if c.name != nil {
		r.quoted(content{segment: c.name})
	}
	r.w.Literal(`, "arguments": `)
	b := r.mistralArguments(c)
	r.bytes(b)
	if id := r.mistralID(c.id); id != nil {
		r.w.Literal(`, "id": "`)
		r.bytes(id)
		r.w.Literal(`"`)
	}
	r.w.Literal("}")
}

// mistralArguments are the arguments as JSON; those that are none are a string.
func (r *renderer) mistralArguments(c call) []byte {
	if c.arguments == nil || c.arguments.Raw {
		b, _ := r.arguments(c)
		return b
	}
	return r.mistralJSON(content{segment: c.arguments})
}

// mistralJSON is c after a try to parse it: JSON, or a string.
func (r *renderer) mistralJSON(c content) []byte {
	text := r.decoded(c)
	if len(text) == 0 {
		text = []byte("{}")
	}
	if parsed := r.parsed(text); parsed != nil {
		return r.dumped(parsed)
	}
	r.json = appendQuoted(r.json[:0], text)
	return r.json
}

// mistralID is the id of a call: vLLM cuts it to its last nine characters, which
// must be letters and digits.
func (r *renderer) mistralID(s *dialect.Segment) []byte {
	const size = 9
	if s == nil || s.Raw {
		r.doubt()
		return nil
	}
	var b []byte
	b, r.text = r.v.Decode(s, r.text)
	if len(b) > size {
		b = b[len(b)-size:]
	}
	for _, c := range b {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			r.doubt()
		}
	}
	if len(b) < size {
		r.doubt()
	}
	return b
}

func (r *renderer) mistralResults(n run, version int) {
	if version >= 13 && n.end > n.first+1 && !r.inOrder(n) {
		r.doubt() // results are sorted by their calls
	}
	for i := n.first; i < n.end; i++ {
		m := &r.v.Messages[i]
		id := r.find(m, dialect.ToolCallID)
		one := run{first: i, end: i + 1}
		r.w.Special("[TOOL_RESULTS]")
		if version >= 7 {
			if b := r.mistralID(id); version < 13 {
				r.bytes(b)
				r.w.Special("[TOOL_CONTENT]")
			}
			r.emit(r.runText(one, dialect.RoleTool), false)
		} else {
			r.w.Literal(`{"content": `)
			r.bytes(r.mistralJSON(r.runText(one, dialect.RoleTool)))
			r.w.Literal(`, "call_id": "`)
			r.bytes(r.mistralID(id))
			r.w.Literal(`"}`)
		}
		r.w.Special("[/TOOL_RESULTS]")
	}
}

// inOrder reports whether the results n are in the order of the calls before them.
func (r *renderer) inOrder(n run) bool {
	if n.first == 0 {
		return false
	}
	calls := r.toolCalls(&r.v.Messages[n.first-1])
	if len(calls) != n.end-n.first {
		return false
	}
	for i, c := range calls {
		id := r.find(&r.v.Messages[n.first+i], dialect.ToolCallID)
		if id == nil || c.id == nil || !bytes.Equal(r.v.Bytes(id), r.v.Bytes(c.id)) {
			return false
		}
	}
	return true
}
