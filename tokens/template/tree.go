package template

import "iter"

// tree is JSON that was read once: its values in the order of the text, so that what
// is nested need not be read again at every level. On what is no JSON it is some tree.
type tree struct {
	src   []byte
	nodes []node
}

// node is a value. Those in it follow it, up to behind.
type node struct{ nameStart, nameEnd, start, end, behind int32 }

// none is no value: the first node is nobody's member.
const none = 0

// read reads b, whose value is the first node, and of which there is one at the least
// when b has more than white space.
func (t *tree) read(b []byte) {
	t.src, t.nodes = b, t.nodes[:0]
	if i := skipSpace(b, 0); i < len(b) {
		t.add(i, 0, 0)
	}
}

// add reads the value at i, and answers the offset behind it.
func (t *tree) add(i, nameStart, nameEnd int) int {
	n := len(t.nodes)
	t.nodes = append(t.nodes, node{nameStart: int32(nameStart), nameEnd: int32(nameEnd), start: int32(i)})
	switch c := t.src[i]; {
	case c == '{' || c == '[':
		i = t.addAll(i+1, c == '{')
	case c == '"':
		i = skipString(t.src, i)
	default:
		for i++; i < len(t.src) && isScalar(t.src[i]); {
			i++
		}
	}
	t.nodes[n].end, t.nodes[n].behind = int32(i), int32(len(t.nodes))
	return i
}

// addAll reads what is in a container, from behind its bracket.
func (t *tree) addAll(i int, object bool) int {
	b := t.src
	for {
		if i = skipSpace(b, i); i < len(b) && b[i] == ',' {
			i = skipSpace(b, i+1)
		}
		if i >= len(b) || b[i] == '}' || b[i] == ']' {
			return min(i+1, len(b))
		}
		start, end := 0, 0
		if object {
			if b[i] != '"' {
				return len(b)
			}
			start, end = i, skipString(b, i)
			if i = skipSpace(b, end); i >= len(b) || b[i] != ':' {
				return len(b)
			}
			if i = skipSpace(b, i+1); i >= len(b) {
				return len(b)
			}
		}
		i = t.add(i, start, end)
	}
}

// raw is a value as it stands; nil for none.
func (t *tree) raw(at int) []byte {
	if at == none && len(t.nodes) == 0 {
		return nil
	}
	return t.src[t.nodes[at].start:t.nodes[at].end]
}

// called is the name of a member, with its quotes.
func (t *tree) called(at int) []byte { return t.src[t.nodes[at].nameStart:t.nodes[at].nameEnd] }

// is reports whether there is such a value and it begins with c.
func (t *tree) is(at int, c byte) bool { return at != none && t.src[t.nodes[at].start] == c }

// in are the members or items of the value at at.
func (t *tree) in(at int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := at + 1; i < int(t.nodes[at].behind) && yield(i); i = int(t.nodes[i].behind) {
		}
	}
}

// fields are the members of an object that the rendering of tools and schemas asks
// for; none for those that are not there.
type fields struct {
	name, description, parameters, strict, function                          int
	kind, title, properties, required, items, oneOf, enum, nullable, initial int
	examples                                                                 int
}

// field is where the member of that name belongs; nil for none.
func (f *fields) field(name []byte) *int {
	switch string(name) {
	case `"name"`:
		return &f.name
	case `"description"`:
		return &f.description
	case `"parameters"`:
		return &f.parameters
	case `"strict"`:
		return &f.strict
	case `"function"`:
		return &f.function
	case `"type"`:
		return &f.kind
	case `"title"`:
		return &f.title
	case `"properties"`:
		return &f.properties
	case `"required"`:
		return &f.required
	case `"items"`:
		return &f.items
	case `"oneOf"`:
		return &f.oneOf
	case `"enum"`:
		return &f.enum
	case `"nullable"`:
		return &f.nullable
	case `"default"`:
		return &f.initial
	case `"examples"`:
		return &f.examples
	}
	return nil
}

// fields reads the members of the value at at in one walk.
func (t *tree) fields(at int) (f fields) {
	if len(t.nodes) == 0 || t.src[t.nodes[at].start] != '{' {
		return f
	}
	for i := range t.in(at) {
		if field := f.field(t.called(i)); field != nil && *field == none {
			*field = i
		}
	}
	return f
}
