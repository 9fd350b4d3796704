package template

import (
	"bytes"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/jsonscan"
	"github.com/weirproxy/weir/internal/ai"
)

// call is a call that an assistant made.
type call struct{ id, name, arguments *dialect.Segment }

// field is where a segment of that kind belongs; nil for none.
func (c *call) field(k dialect.Kind) **dialect.Segment {
	switch k {
	case dialect.ToolCallID:
		return &c.id
	case dialect.ToolCallName:
		return &c.name
	case dialect.ToolArguments:
		return &c.arguments
	}
	return nil
}

// toolCalls are the calls in m, of an assistant. They hold until the next ones.
// The view has the fields of all calls in a row: where one comes again, the next
// call begins.
func (r *renderer) toolCalls(m *dialect.Message) []call {
	r.calls = r.calls[:0]
	if m.ToolCalls == 0 || m.Role != dialect.RoleAssistant {
		return nil
	}
	if r.o.Backend == Hosted {
		r.doubt()
	}
	var c call
	last := 0
	for i := m.First; i < m.End; i++ {
		s := &r.v.Segments[i]
		field := c.field(s.Kind)
		if field == nil {
			continue
		}
		if *field != nil {
			r.addCall(c)
			c = call{}
			field = c.field(s.Kind)
		} else if (c.name != nil || c.arguments != nil) && s.Kind != dialect.ToolCallID && bytes.IndexByte(r.v.Body[last:s.Off], '{') >= 0 {
			r.doubt() // a name and arguments of two calls
		}
		if s.Raw {
			r.doubt()
		}
		*field, last = s, s.End()
	}
	if c != (call{}) {
		r.addCall(c)
	}
	if len(r.calls) != m.ToolCalls {
		r.doubt()
	}
	return r.calls
}

func (r *renderer) addCall(c call) {
	if c.id == nil || c.name == nil || c.arguments == nil {
		r.doubt() // a call in the form before tools, or an incomplete one
	}
	r.calls = append(r.calls, c)
}

// callName writes the name of the function that was called.
func (r *renderer) callName(c call) {
	if c.name != nil {
		r.w.Segment(c.name, false)
	}
}

// maxDepth is how deep the JSON in arguments and in results of tools may be nested.
const maxDepth = 128

// arguments are the arguments of c as JSON after the backend parsed them, and
// whether they are a string. They hold until the next JSON is put together.
func (r *renderer) arguments(c call) (b []byte, isString bool) {
	text := []byte("{}")
	switch s := c.arguments; {
	case s == nil:
	case s.Raw:
		text = r.v.Bytes(s)
	default:
		text, r.text = r.v.Decode(s, r.text)
		if text = r.parsed(text); text == nil {
			text = []byte("{}") // vLLM's stand-in for what is no JSON
		}
	}
	isString = text[0] == '"'
	b = r.dumped(text)
	if r.out.full {
		b, isString = r.v.Bytes(c.arguments), false
	}
	return b, isString
}

// parsed is the JSON in text, or nil when Python's json.loads would find none.
func (r *renderer) parsed(text []byte) []byte {
	s := jsonscan.Acquire(text, maxDepth)
	defer s.Release()
	s.Value()
	s.End()
	fault := s.Fault()
	if fault == nil {
		return bytes.Trim(text, " \t\r\n")
	}
	// Python accepts a little more than JSON: these, half a surrogate, and the
	// same name twice.
	if fault.Reason != ai.ReasonInvalidJSON || bytes.Contains(text, []byte("NaN")) || bytes.Contains(text, []byte("Infinity")) ||
		bytes.Contains(text, []byte(`\ud`)) || bytes.Contains(text, []byte(`\uD`)) {
		r.doubt()
	}
	return nil
}

// begin begins JSON or another text that is written anew; indent is in spaces a level.
func (r *renderer) begin(indent int) *types {
	o := &r.out
	o.b, o.indent, o.compact, o.doubt = o.b[:0], indent, false, false
	o.required, o.searched, o.null = o.required[:0], 0, -1
	return o
}

// written is what was written since begin; or, where there was no room for it, else.
func (r *renderer) written(or []byte) []byte {
	o := &r.out
	if o.doubt || o.full {
		r.doubt()
	}
	if o.full {
		o.room = 0 // nor is there for others
		return or
	}
	return o.b
}

// dumped is the JSON b as json.dumps writes it; as it stands where there is no room.
// It holds until the next text is begun.
func (r *renderer) dumped(b []byte) []byte {
	r.begin(0).value(b, 0)
	return r.written(b)
}

// tools calls f for every tool that is offered, and answers how many there are.
func (r *renderer) tools(f func(i int, tool []byte)) int {
	n := 0
	for i := range r.v.Segments {
		if s := &r.v.Segments[i]; s.Kind == dialect.Tool {
			if f != nil {
				f(n, r.v.Bytes(s))
			}
			n++
		}
	}
	return n
}

// offers reports whether tools are offered to the template. Backends do not agree
// about the older functions, nor about tools that must not be called.
func (r *renderer) offers() bool {
	if r.set.functions || r.set.choice == choiceNone && r.set.tools {
		r.doubt()
	}
	return r.tools(nil) > 0
}

// function are the fields of a tool's function; nil for those that are not there.
type function struct{ name, description, parameters, strict []byte }

// function reads a tool. What a backend would refuse, or drop in one version and
// keep in another, raises doubt.
func (r *renderer) function(tool []byte) (f function) {
	m, ok := object(tool)
	if !ok {
		r.doubt()
		return f
	}
	var inner []byte
	for m.next() {
		switch string(m.key()) {
		case "type":
			if string(m.value()) != `"function"` {
				r.doubt()
			}
		case "function":
			inner = m.value()
		default:
			r.doubt()
		}
	}
	if m, ok = object(inner); !ok {
		r.doubt()
		return f
	}
	for m.next() {
		v := m.value()
		switch string(m.key()) {
		case "name":
			f.name = v
		case "description":
			f.description = v
		case "parameters":
			f.parameters = v
		case "strict":
			f.strict = v
		default:
			r.doubt()
		}
	}
	r.checkFunction(f)
	return f
}

func (r *renderer) checkFunction(f function) {
	if f.name == nil || f.name[0] != '"' ||
		f.description != nil && f.description[0] != '"' && f.description[0] != 'n' ||
		f.parameters != nil && f.parameters[0] != '{' && f.parameters[0] != 'n' ||
		f.strict != nil && f.strict[0] != 't' && f.strict[0] != 'f' {
		r.doubt()
	}
}

// tool writes a tool as vLLM hands it to templates: the fields in the order of its
// model, null where there is none.
func (r *renderer) tool(tool []byte, indent int) {
	f := r.function(tool)
	d := r.begin(indent)
	if f.name == nil {
		d.value(tool, 0)
		r.bytes(r.written(tool))
		return
	}
	d.byte('{')
	d.field(true, 1, `"type": `, []byte(`"function"`))
	d.separator(false, 1)
	d.literal(`"function": {`)
	d.field(true, 2, `"name": `, f.name)
	d.field(false, 2, `"description": `, f.description)
	d.field(false, 2, `"parameters": `, f.parameters)
	if f.strict != nil {
		d.field(false, 2, `"strict": `, f.strict)
	}
	d.newline(1)
	d.byte('}')
	d.newline(0)
	d.byte('}')
	r.bytes(r.written(tool))
}

// field writes a member of a tool.
func (d *dumper) field(first bool, depth int, name string, value []byte) {
	d.separator(first, depth)
	d.literal(name)
	if value == nil {
		value = []byte("null")
	}
	d.value(value, depth)
}
