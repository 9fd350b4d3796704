package template

import (
	"github.com/weirproxy/weir/dialect"
)

// OpenAI's models. Their formats are not public; what is known is how many tokens
// they add. Until gpt-4.1: three to a message, one to a name, three for the reply
// (OpenAI cookbook, "How to count tokens with tiktoken"). The models that think:
// three to a message, two more to an answer, for its channel, and two for the reply,
// as in harmony. The marks here stand for these. Tools are shown as TypeScript; how
// exactly was found by measuring (github.com/hmarr/openai-chat-tokens, and recorded
// chats), so that chats with tools are not exact.
var (
	openaiTemplate = &Template{name: "openai", walk: func(r *renderer) { r.openai(false, 0) }, bound: openaiBound, plainText: true}
	openaiLater    = &Template{name: "openai-reasoning", walk: func(r *renderer) { r.openai(true, 0) }, bound: openaiBound, plainText: true}
	openaiGPT5     = &Template{name: "openai-gpt-5", walk: func(r *renderer) { r.openai(true, gpt5Tools) }, bound: openaiBound, plainText: true}
)

const (
	imSep = "<|im_sep|>"
	// openaiHead has as many tokens as were measured between a message and the tools.
	openaiHead = "# Tools\n\nfunctions\n\n"
	// gpt5Tools is how many more tokens gpt-5 is shown where there are tools.
	gpt5Tools = 83
)

// openai renders for a model that thinks or does not; more are tokens that come with
// tools.
func (r *renderer) openai(thinks bool, more int) {
	tools := r.offers()
	if r.set.format || tools {
		r.doubt()
	}
	told := false
	for i := range r.v.Messages {
		m := &r.v.Messages[i]
		r.openaiMessage(m, thinks)
		if tools && !told && m.Role == dialect.RoleSystem {
			told = true
			r.w.Literal("\n\n")
			r.openaiTools(more)
		}
		r.w.Special(imEnd)
	}
	if tools && !told {
		r.w.Special(imStart)
		r.w.Literal("system")
		r.w.Special(imSep)
		r.openaiTools(more)
		r.w.Special(imEnd)
	}
	if r.set.format {
		r.openaiFormat()
	}
	r.w.Special(imStart)
	r.w.Literal("assistant")
	if name := r.set.chosen; isString(name) {
		r.doubt()
		r.w.Literal(" to=functions.")
		r.text = appendString(r.text[:0], name)
		r.bytes(r.text)
		r.marks(4)
	}
	if !thinks {
		r.w.Special(imSep)
	}
}

// marks stands for n tokens.
func (r *renderer) marks(n int) {
	for range n {
		r.w.Special(imSep)
	}
}

func (r *renderer) openaiMessage(m *dialect.Message, thinks bool) {
	calls := r.toolCalls(m)
	r.w.Special(imStart)
	switch {
	case m.Role == dialect.RoleTool || m.Role == dialect.RoleFunction:
		r.doubt()
		r.w.Literal("functions.")
		r.callee(m)
	default:
		r.role(m)
	}
	if s := r.find(m, dialect.Name); s != nil {
		r.w.Special("<|name|>")
		r.w.Segment(s, false)
	}
	if thinks && m.Role == dialect.RoleAssistant {
		r.marks(2)
	}
	if len(calls) == 0 {
		r.w.Special(imSep)
	}
	r.parts(m, r.w.Media)
	if m.Parts && r.texts(m) > 1 {
		r.doubt()
	}
	r.openaiCalls(r.toolCalls(m))
}

// openaiCalls writes calls behind the name of who makes them; several are one call
// of a function that makes them side by side.
func (r *renderer) openaiCalls(calls []call) {
	for i, c := range calls {
		r.doubt()
		switch {
		case len(calls) == 1:
			r.w.Literal(" to=functions.")
			r.callName(c)
			r.w.Special(imSep)
		case i == 0:
			r.w.Literal(" to=multi_tool_use.parallel")
			r.w.Special(imSep)
			fallthrough
		default:
			r.w.Literal(`{"recipient_name":"functions.`)
			r.callName(c)
			r.w.Literal(`","parameters":`)
		}
		if c.arguments != nil {
			r.w.Segment(c.arguments, false)
		}
		if len(calls) > 1 {
			r.w.Literal("},")
		}
	}
}

// texts is how many parts of m are text.
func (r *renderer) texts(m *dialect.Message) (n int) {
	for i := m.First; i < m.End; i++ {
		if r.v.Segments[i].Kind == dialect.Content {
			n++
		}
	}
	return n
}

func (r *renderer) openaiTools(more int) {
	r.marks(more)
	r.w.Literal(openaiHead)
	r.w.Literal("namespace functions {\n\n")
	r.tools(func(_ int, tool []byte) {
		if r.tooLarge(tool) {
			return
		}
		r.begin(0).function(tool)
		r.bytes(r.written(tool))
	})
	r.w.Literal("} // namespace functions")
}

// openaiFormat writes the schema that the answer must follow.
func (r *renderer) openaiFormat() {
	for i := range r.v.Segments {
		s := &r.v.Segments[i]
		if s.Kind != dialect.Schema {
			continue
		}
		if schema := member(member(r.v.Bytes(s), "json_schema"), "schema"); schema != nil {
			r.w.Literal("\n\n# Response Formats\n\n## name\n\n// description\n")
			h := r.begin(0)
			h.compact = true
			h.value(schema, 0)
			r.bytes(r.written(schema))
		}
	}
}

// function writes a function as the models are shown it.
func (h *types) function(tool []byte) {
	h.read(tool)
	f := h.fields(0)
	if f.function != none {
		f = h.fields(f.function)
	}
	if h.said(f.description) {
		h.comment(f.description, 0)
	}
	if f.strict != none && string(h.raw(f.strict)) == "true" {
		h.literal("// strict true\n") // four tokens, as measured
	}
	h.literal("type ")
	if f.name != none {
		h.text(f.name)
	}
	n := len(h.b)
	h.literal(" = (_: {\n")
	before := len(h.b)
	if f.parameters != none {
		h.members(f.parameters, 0)
	}
	if len(h.b) > before {
		h.literal("}) => any;\n\n")
		return
	}
	h.b = h.b[:n]
	h.literal(" = () => any;\n\n")
}

// said reports whether at is a string that is not empty.
func (h *types) said(at int) bool { return h.is(at, '"') && len(h.raw(at)) > len(`""`) }

// members writes the properties of a schema, one a line.
func (h *types) members(schema, indent int) {
	f := h.fields(schema)
	if !h.is(f.properties, '{') {
		return
	}
	from := h.require(f.required)
	for p := range h.in(f.properties) {
		if h.full {
			break
		}
		of := h.fields(p)
		if h.is(of.title, '"') {
			h.byte(' ')
			h.text(of.title)
			h.byte('\n') // its words and one more token, as measured
		}
		if h.said(of.description) && indent < 2 {
			h.comment(of.description, indent)
		}
		h.named(p, !h.requires(from, h.called(p)), indent)
		h.byte(' ')
		h.memberType(p, of, indent)
		h.literal(",\n")
	}
	h.required = h.required[:from]
}

func (h *types) memberType(at int, f fields, indent int) {
	var kind []byte
	if f.kind != none {
		kind = h.raw(f.kind)
	}
	switch string(kind) {
	case `"string"`:
		h.values(f.enum, "string")
	case `"number"`, `"integer"`:
		h.values(f.enum, "number")
	case `"boolean"`:
		h.literal("boolean")
	case `"null"`:
		h.literal("null")
	case `"array"`:
		if f.items == none {
			h.literal("any[]")
			return
		}
		h.memberType(f.items, h.fields(f.items), indent)
		h.literal("[]")
	case `"object"`:
		h.literal("{\n")
		h.members(at, indent+2)
		h.spaces(indent)
		h.byte('}')
	default:
		h.literal("any")
	}
}

// values writes the values of an enumeration, or else the name of the type.
func (h *types) values(enum int, or string) {
	some := false
	if h.is(enum, '[') {
		for i := range h.in(enum) {
			if some {
				h.literal(" | ")
			}
			some = true
			if h.is(i, '"') {
				h.inQuotes(i)
			} else {
				h.bytes(h.raw(i))
			}
		}
	}
	if !some {
		h.literal(or)
	}
}
