package template

import (
	"bytes"
	"strconv"
)

// maxSchema is how large a tool may be to be shown as TypeScript, in bytes: schemas
// are read once for each level of their nesting.
const maxSchema = 1 << 16

// tooLarge writes a tool that is larger as it stands.
func (r *renderer) tooLarge(tool []byte) bool {
	if len(tool) <= maxSchema {
		return false
	}
	r.doubt()
	r.bytes(tool)
	return true
}

// types writes JSON schemas as the TypeScript that openai-harmony shows to models.
type types struct {
	text  []byte
	doubt bool
}

// schema appends the type that schema describes; indent is in spaces.
func (h *types) schema(dst, schema []byte, indent int) []byte {
	if m, ok := array(member(schema, "oneOf")); ok {
		for m.next() {
			dst = append(spaces(append(dst, '\n'), indent), " | "...)
			dst = h.variant(dst, m.value(), indent+3)
			dst = h.trailing(dst, m.value(), m.value(), true)
		}
		return dst
	}
	t := member(schema, "type")
	if m, ok := array(t); ok {
		n := len(dst)
		for m.next() {
			v := unquoted(m.value())
			if v == nil {
				continue
			}
			if len(dst) > n {
				dst = append(dst, " | "...)
			}
			if string(v) == "integer" {
				v = []byte("number")
			}
			dst = append(dst, v...)
		}
		if len(dst) > n {
			return dst
		}
	}
	switch string(t) {
	case `"object"`:
		return h.object(dst, schema, indent)
	case `"string"`:
		return h.strings(dst, schema)
	case `"number"`, `"integer"`:
		return append(dst, "number"...)
	case `"boolean"`:
		return append(dst, "boolean"...)
	case `"array"`:
		if items := member(schema, "items"); items != nil {
			return append(h.schema(dst, items, indent), "[]"...)
		}
		return append(dst, "Array<any>"...)
	}
	return append(dst, "any"...)
}

// variant appends a type, and that it may be null.
func (h *types) variant(dst, schema []byte, indent int) []byte {
	n := len(dst)
	dst = h.schema(dst, schema, indent)
	if string(member(schema, "nullable")) == "true" && !bytes.Contains(dst[n:], []byte("null")) {
		dst = append(dst, " | null"...)
	}
	return dst
}

// strings appends the values of an enumeration of strings, or else string.
func (h *types) strings(dst, schema []byte) []byte {
	m, ok := array(member(schema, "enum"))
	n := len(dst)
	for ok && m.next() {
		if v := m.value(); v[0] == '"' {
			if len(dst) > n {
				dst = append(dst, " | "...)
			}
			dst = append(appendString(append(dst, '"'), v), '"')
		}
	}
	if len(dst) == n {
		dst = append(dst, "string"...)
	}
	return dst
}

// isString reports whether b is a JSON string.
func isString(b []byte) bool { return len(b) > 1 && b[0] == '"' }

// comment appends a line of comment.
func comment(dst, text []byte, indent int) []byte {
	dst = append(spaces(dst, indent), "// "...)
	return append(appendString(dst, text), '\n')
}

func (h *types) object(dst, schema []byte, indent int) []byte {
	if d := member(schema, "description"); isString(d) {
		dst = comment(dst, d, indent)
	}
	dst = append(dst, "{\n"...)
	required := member(schema, "required")
	m, ok := object(member(schema, "properties"))
	for ok && m.next() {
		dst = h.property(dst, &m, !contains(required, m.name), indent)
	}
	return append(spaces(dst, indent), '}')
}

func (h *types) property(dst []byte, m *members, optional bool, indent int) []byte {
	v := m.value()
	variants := member(v, "oneOf")
	if t := member(v, "title"); isString(t) {
		dst = append(spaces(comment(dst, t, indent), indent), "//\n"...)
	}
	if d := member(v, "description"); isString(d) && variants == nil {
		dst = comment(dst, d, indent)
	}
	dst = examples(dst, v, indent)
	if _, ok := array(variants); ok {
		return h.oneOf(dst, m, optional, indent)
	}
	dst = append(name(dst, m, optional, indent), ' ')
	dst = append(h.variant(dst, v, indent+4), ',')
	if d := member(v, "default"); d != nil && variants == nil {
		dst = h.value(append(dst, " // default: "...), d, v, false)
	}
	return append(dst, '\n')
}

func name(dst []byte, m *members, optional bool, indent int) []byte {
	dst = appendString(spaces(dst, indent), m.name)
	if optional {
		dst = append(dst, '?')
	}
	return append(dst, ':')
}

func examples(dst, schema []byte, indent int) []byte {
	m, ok := array(member(schema, "examples"))
	for first := true; ok && m.next(); first = false {
		if first {
			dst = append(spaces(dst, indent), "// Examples:\n"...)
		}
		if v := m.value(); v[0] == '"' {
			dst = append(spaces(dst, indent), "// - \""...)
			dst = append(appendString(dst, v), "\"\n"...)
		}
	}
	return dst
}

// oneOf appends a property that has one of several types, one a line.
func (h *types) oneOf(dst []byte, m *members, optional bool, indent int) []byte {
	v := m.value()
	variants, _ := array(member(v, "oneOf"))
	description := member(v, "description")
	first := variants
	above := isString(description) && !(first.next() && h.same(description, member(first.value(), "description")))
	if above {
		dst = comment(dst, description, indent)
	}
	if d := member(v, "default"); d != nil {
		dst = h.value(append(spaces(dst, indent), "// default: "...), d, v, false)
		dst = append(dst, '\n')
	}
	dst = append(name(dst, m, optional, indent), '\n')
	for i := 0; variants.next(); i++ {
		one := variants.value()
		dst = append(spaces(dst, indent), " | "...)
		dst = h.variant(dst, one, indent+3)
		described := one
		if i == 0 && above || isString(description) && h.same(description, member(one, "description")) {
			described = nil
		}
		dst = append(h.trailing(dst, described, one, false), '\n')
	}
	return append(spaces(dst, indent), ",\n"...)
}

func (h *types) same(a, b []byte) bool {
	h.text = appendString(h.text[:0], a)
	n := len(h.text)
	h.text = appendString(h.text, b)
	return isString(b) && bytes.Equal(h.text[:n], h.text[n:])
}

// trailing appends the description and the default of a type as a comment behind it.
func (h *types) trailing(dst, described, schema []byte, quoted bool) []byte {
	sep := " // "
	if d := member(described, "description"); isString(d) {
		dst = appendString(append(dst, sep...), d)
		sep = " "
	}
	if d := member(schema, "default"); d != nil {
		dst = h.value(append(append(dst, sep...), "default: "...), d, schema, quoted)
	}
	return dst
}

// value appends a default. That of an enumeration is bare, or JSON with quoted.
func (h *types) value(dst, v, schema []byte, quoted bool) []byte {
	if v[0] != '"' {
		return h.compact(dst, v)
	}
	m, ok := array(member(schema, "enum"))
	if ok && m.next() {
		if quoted {
			return h.compact(dst, v)
		}
		return appendString(dst, v)
	}
	return append(appendString(append(dst, '"'), v), '"')
}

// compact appends JSON without white space, as serde_json writes it.
func (h *types) compact(dst, b []byte) []byte {
	switch b[0] {
	case '{', '[':
		m, isArray := array(b)
		if !isArray {
			m, _ = object(b)
		}
		dst = append(dst, b[0])
		for first := true; m.next(); first = false {
			if !first {
				dst = append(dst, ',')
			}
			if !isArray {
				dst = append(h.compact(dst, m.name), ':')
			}
			dst = h.compact(dst, m.value())
		}
		return append(dst, b[0]+2)
	case '"':
		h.text = appendString(h.text[:0], b)
		return appendQuoted(dst, h.text)
	case 't', 'f', 'n':
		return append(dst, b...)
	}
	if bytes.ContainsAny(b, "eE") || len(b) > 15 {
		h.doubt = true // how Rust prints it is not known here
		return append(dst, b...)
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		h.doubt = true
	}
	if bytes.IndexByte(b, '.') < 0 {
		return append(dst, b...)
	}
	n := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	if bytes.IndexByte(dst[n:], '.') < 0 {
		dst = append(dst, ".0"...)
	}
	return dst
}
