package template

import (
	"bytes"
	"slices"
)

// maxSchema is how large a tool may be to be shown as TypeScript, in bytes: it is the
// bound of the tree's memory.
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
	dumper
	tree
	one, other []byte  // texts to compare
	required   []int32 // the required names of the objects that are being written, sorted

	searched, null int // how far a null was sought in what is written, and where the last one stands
}

// schema writes the type that the schema at at describes; indent is in spaces.
func (h *types) schema(at, indent int) { h.typeOf(h.fields(at), indent) }

func (h *types) typeOf(f fields, indent int) {
	if h.is(f.oneOf, '[') {
		for v := range h.in(f.oneOf) {
			h.byte('\n')
			h.spaces(indent)
			h.literal(" | ")
			of := h.fields(v)
			h.variant(of, indent+3)
			h.trailing(of.description, of, true)
		}
		return
	}
	if h.is(f.kind, '[') && h.kinds(f.kind) {
		return
	}
	var kind []byte
	if f.kind != none {
		kind = h.raw(f.kind)
	}
	switch string(kind) {
	case `"object"`:
		h.object(f, indent)
	case `"string"`:
		h.strings(f.enum)
	case `"number"`, `"integer"`:
		h.literal("number")
	case `"boolean"`:
		h.literal("boolean")
	case `"array"`:
		if f.items == none {
			h.literal("Array<any>")
			return
		}
		h.schema(f.items, indent)
		h.literal("[]")
	default:
		h.literal("any")
	}
}

// kinds writes a list of types; false when it has none.
func (h *types) kinds(list int) (some bool) {
	for i := range h.in(list) {
		v := unquoted(h.raw(i))
		if v == nil {
			continue
		}
		if some {
			h.literal(" | ")
		}
		some = some || len(v) > 0
		if string(v) == "integer" {
			h.literal("number")
		} else {
			h.bytes(v)
		}
	}
	return some
}

// variant writes a type, and that it may be null.
func (h *types) variant(f fields, indent int) {
	n := len(h.b)
	h.typeOf(f, indent)
	if f.nullable != none && string(h.raw(f.nullable)) == "true" && !h.nullSince(n) {
		h.literal(" | null")
	}
}

// nullSince reports whether a null was written at n or behind it. What is written is
// searched once.
func (h *types) nullSince(n int) bool {
	const null = "null"
	from := max(h.searched-len(null)+1, 0)
	if i := bytes.LastIndex(h.b[from:], []byte(null)); i >= 0 {
		h.null = from + i
	}
	h.searched = len(h.b)
	return h.null >= n
}

// strings writes the values of an enumeration of strings, or else string.
func (h *types) strings(enum int) {
	some := false
	if h.is(enum, '[') {
		for i := range h.in(enum) {
			if !h.is(i, '"') {
				continue
			}
			if some {
				h.literal(" | ")
			}
			some = true
			h.inQuotes(i)
		}
	}
	if !some {
		h.literal("string")
	}
}

// inQuotes writes a string between quotes, without escapes.
func (h *types) inQuotes(at int) {
	h.byte('"')
	h.text(at)
	h.byte('"')
}

// text writes the text of the string at at.
func (h *types) text(at int) { h.dumper.text(h.raw(at)) }

// isString reports whether b is a JSON string.
func isString(b []byte) bool { return len(b) > 1 && b[0] == '"' }

// comment writes a line of comment.
func (h *types) comment(text, indent int) {
	h.spaces(indent)
	h.literal("// ")
	h.text(text)
	h.byte('\n')
}

func (h *types) object(f fields, indent int) {
	if h.is(f.description, '"') {
		h.comment(f.description, indent)
	}
	h.literal("{\n")
	if h.is(f.properties, '{') {
		from := h.require(f.required)
		for p := range h.in(f.properties) {
			if h.full {
				break
			}
			h.property(p, !h.requires(from, h.called(p)), indent)
		}
		h.required = h.required[:from]
	}
	h.spaces(indent)
	h.byte('}')
}

// require notes the names that an object requires, in order, and answers where they
// begin. They hold until the caller cuts them off.
func (h *types) require(list int) (from int) {
	from = len(h.required)
	if !h.is(list, '[') {
		return from
	}
	for i := range h.in(list) {
		h.required = append(h.required, int32(i))
	}
	slices.SortFunc(h.required[from:], func(a, b int32) int { return bytes.Compare(h.raw(int(a)), h.raw(int(b))) })
	return from
}

// requires reports whether the name, with its quotes, is among those from from on.
func (h *types) requires(from int, name []byte) bool {
	_, found := slices.BinarySearchFunc(h.required[from:], name, func(a int32, name []byte) int { return bytes.Compare(h.raw(int(a)), name) })
	return found
}

func (h *types) property(p int, optional bool, indent int) {
	f := h.fields(p)
	if h.is(f.title, '"') {
		h.comment(f.title, indent)
		h.spaces(indent)
		h.literal("//\n")
	}
	if f.oneOf == none && h.is(f.description, '"') {
		h.comment(f.description, indent)
	}
	h.listed(f.examples, indent)
	if h.is(f.oneOf, '[') {
		h.alternatives(p, f, optional, indent)
		return
	}
	h.named(p, optional, indent)
	h.byte(' ')
	h.variant(f, indent+4)
	h.byte(',')
	if f.initial != none && f.oneOf == none {
		h.literal(" // default: ")
		h.initial(f, false)
	}
	h.byte('\n')
}

// named writes the name of a property.
func (h *types) named(p int, optional bool, indent int) {
	h.spaces(indent)
	h.dumper.text(h.called(p))
	if optional {
		h.byte('?')
	}
	h.byte(':')
}

// listed writes examples, one a line.
func (h *types) listed(examples, indent int) {
	if !h.is(examples, '[') {
		return
	}
	first := true
	for i := range h.in(examples) {
		if first {
			h.spaces(indent)
			h.literal("// Examples:\n")
		}
		first = false
		if h.is(i, '"') {
			h.spaces(indent)
			h.literal("// - ")
			h.inQuotes(i)
			h.byte('\n')
		}
	}
}

// alternatives writes a property that has one of several types, one a line.
func (h *types) alternatives(p int, f fields, optional bool, indent int) {
	described := h.is(f.description, '"')
	above := described
	for v := range h.in(f.oneOf) {
		above = described && !h.same(f.description, h.fields(v).description)
		break
	}
	if above {
		h.comment(f.description, indent)
	}
	if f.initial != none {
		h.spaces(indent)
		h.literal("// default: ")
		h.initial(f, false)
		h.byte('\n')
	}
	h.named(p, optional, indent)
	h.byte('\n')
	first := true
	for v := range h.in(f.oneOf) {
		if h.full {
			break
		}
		of := h.fields(v)
		h.spaces(indent)
		h.literal(" | ")
		h.variant(of, indent+3)
		description := of.description
		if first && above || described && h.same(f.description, description) {
			description = none
		}
		first = false
		h.trailing(description, of, false)
		h.byte('\n')
	}
	h.spaces(indent)
	h.literal(",\n")
}

// same reports whether the strings at i and at j have the same text.
func (h *types) same(i, j int) bool {
	if !h.is(j, '"') {
		return false
	}
	a, b := h.raw(i), h.raw(j)
	const longest = len(`\u0041`) // of what stands for one byte
	if len(a) > longest*len(b) || len(b) > longest*len(a) {
		return false
	}
	h.one, h.other = appendString(h.one[:0], a), appendString(h.other[:0], b)
	return bytes.Equal(h.one, h.other)
}

// trailing writes a description and the default of a type as a comment behind it.
func (h *types) trailing(description int, f fields, quoted bool) {
	sep := " // "
	if h.is(description, '"') {
		h.literal(sep)
		h.text(description)
		sep = " "
	}
	if f.initial != none {
		h.literal(sep)
		h.literal("default: ")
		h.initial(f, quoted)
	}
}

// initial writes a default. That of an enumeration is bare, or JSON with quoted.
func (h *types) initial(f fields, quoted bool) {
	among := h.is(f.enum, '[') && h.nodes[f.enum].behind > int32(f.enum)+1
	switch {
	case !h.is(f.initial, '"') || among && quoted:
		h.compact = true
		h.value(h.raw(f.initial), 0)
	case among:
		h.text(f.initial)
	default:
		h.inQuotes(f.initial)
	}
}
