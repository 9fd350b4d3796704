package template

import (
	"bytes"

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
		r.harmonyCallee(r.v.Messages, m)
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
		f := tool
		if inner := member(tool, "function"); inner != nil {
			f = inner
		}
		r.json = appendType(r.json[:0], f)
		r.bytes(r.json)
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
			var h types
			r.json = h.compact(r.json[:0], schema)
			r.bytes(r.json)
		}
	}
}

// appendType appends a function as the models are shown it.
func appendType(dst, f []byte) []byte {
	if d := member(f, "description"); len(d) > 2 && d[0] == '"' {
		dst = appendString(append(dst, "// "...), d)
		dst = append(dst, '\n')
	}
	if string(member(f, "strict")) == "true" {
		dst = append(dst, "// strict true\n"...) // four tokens, as measured
	}
	dst = appendString(append(dst, "type "...), member(f, "name"))
	n := len(dst)
	dst = append(dst, " = (_: {\n"...)
	before := len(dst)
	if dst = openaiProperties(dst, member(f, "parameters"), 0); len(dst) > before {
		return append(dst, "}) => any;\n\n"...)
	}
	return append(dst[:n], " = () => any;\n\n"...)
}

// openaiProperties appends the properties of a schema, one a line.
func openaiProperties(dst, schema []byte, indent int) []byte {
	required := member(schema, "required")
	m, ok := object(member(schema, "properties"))
	if !ok {
		return dst
	}
	for m.next() {
		v := m.value()
		if t := member(v, "title"); isString(t) {
			dst = append(appendString(append(dst, ' '), t), '\n') // its words and one more token, as measured
		}
		if d := member(v, "description"); len(d) > 2 && d[0] == '"' && indent < 2 {
			dst = appendString(append(spaces(dst, indent), "// "...), d)
			dst = append(dst, '\n')
		}
		dst = appendString(spaces(dst, indent), m.name)
		if !contains(required, m.name) {
			dst = append(dst, '?')
		}
		dst = append(openaiType(append(dst, ": "...), v, indent), ",\n"...)
	}
	return dst
}

func openaiType(dst, schema []byte, indent int) []byte {
	switch string(member(schema, "type")) {
	case `"string"`:
		return enum(dst, schema, "string")
	case `"number"`, `"integer"`:
		return enum(dst, schema, "number")
	case `"boolean"`:
		return append(dst, "boolean"...)
	case `"null"`:
		return append(dst, "null"...)
	case `"array"`:
		if items := member(schema, "items"); items != nil {
			return append(openaiType(dst, items, indent), "[]"...)
		}
		return append(dst, "any[]"...)
	case `"object"`:
		dst = openaiProperties(append(dst, "{\n"...), schema, indent+2)
		return append(spaces(dst, indent), '}')
	}
	return append(dst, "any"...)
}

// enum appends the values of an enumeration, or else the name of the type.
func enum(dst, schema []byte, or string) []byte {
	m, ok := array(member(schema, "enum"))
	n := 0
	for ; ok && m.next(); n++ {
		if n > 0 {
			dst = append(dst, " | "...)
		}
		if v := m.value(); v[0] == '"' {
			dst = append(appendString(append(dst, '"'), v), '"')
		} else {
			dst = append(dst, v...)
		}
	}
	if n == 0 {
		return append(dst, or...)
	}
	return dst
}

// contains reports whether the array b has the item.
func contains(b, item []byte) bool {
	m, ok := array(b)
	for ok && m.next() {
		if bytes.Equal(m.value(), item) {
			return true
		}
	}
	return false
}

func spaces(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, ' ')
	}
	return dst
}
