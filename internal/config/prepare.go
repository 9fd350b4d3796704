package config

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// preparation walks a YAML tree along the schema.
type preparation struct {
	*report
	open  map[*yaml.Node]bool // anchors that are being expanded
	count int
	over  bool
}

// message prepares a value that the schema says is a message. What has another
// shape is left as it is: the decoder reports it.
func (p *preparation) message(n *yaml.Node, schema protoreflect.MessageDescriptor, path string) *yaml.Node {
	n, leave := p.enter(n, path)
	defer leave()
	if n.Kind != yaml.MappingNode || schema.FullName().Parent() == "google.protobuf" {
		return n
	}
	out := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Line: n.Line, Column: n.Column}
	first := map[protoreflect.Name]int{}
	for _, pair := range p.pairs(n, path) {
		key, value := pair[0], pair[1]
		field := findField(schema, key.Value)
		if field == nil {
			at := join(path, key.Value)
			p.faultAt(key.Line, key.Column, at, "unknown field"+suggestion(key.Value, schema))
			continue
		}
		at := join(path, string(field.Name()))
		if line, again := first[field.Name()]; again {
			p.faultAt(key.Line, key.Column, at, fmt.Sprintf("given twice; first in line %d", line))
			continue
		}
		first[field.Name()] = key.Line
		if p.note(at, key); isNull(value) {
			continue // nothing given
		}
		name := *key
		name.Value = string(field.Name())
		out.Content = append(out.Content, &name, p.field(value, field, at))
	}
	return out
}

// field prepares the value of one field.
func (p *preparation) field(n *yaml.Node, field protoreflect.FieldDescriptor, path string) *yaml.Node {
	if !field.IsList() {
		return p.value(n, field, path)
	}
	n, leave := p.enter(n, path)
	defer leave()
	if n.Kind != yaml.SequenceNode {
		return n
	}
	out := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Line: n.Line, Column: n.Column}
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		prepared := p.value(item, field, at)
		if isNull(prepared) && field.Message() == nil {
			p.fault(at, "an empty item")
		}
		out.Content = append(out.Content, prepared)
	}
	return out
}

func (p *preparation) value(n *yaml.Node, field protoreflect.FieldDescriptor, path string) *yaml.Node {
	if field.Message() != nil {
		return p.message(n, field.Message(), path)
	}
	n, leave := p.enter(n, path)
	leave()
	return n
}

// enter resolves an alias, notes where the value stands, and counts it. The
// caller leaves when it is done with what is in the value.
func (p *preparation) enter(n *yaml.Node, path string) (*yaml.Node, func()) {
	if p.count++; p.count > maxNodes {
		if !p.over {
			p.over = true
			p.faultAt(n.Line, n.Column, path, fmt.Sprintf("more than %d values, aliases expanded", maxNodes))
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: n.Line, Column: n.Column}, func() {}
	}
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if p.open[n] {
		p.faultAt(n.Line, n.Column, path, "the anchor contains itself")
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: n.Line, Column: n.Column}, func() {}
	}
	p.note(path, n)
	p.open[n] = true
	return n, func() { delete(p.open, n) }
}

// note remembers where the field at path stands. The value's place replaces
// that of the field's name, which is noted first.
func (p *preparation) note(path string, n *yaml.Node) {
	p.doc.nodes[path] = n
	at := spot{n.Line, n.Column}
	if _, taken := p.doc.paths[at]; !taken {
		p.doc.paths[at] = path
	}
}

// pairs are the fields of a mapping, those of its merge keys behind its own.
func (p *preparation) pairs(n *yaml.Node, path string) [][2]*yaml.Node {
	var own, merged [][2]*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case key.Kind != yaml.ScalarNode:
			p.faultAt(key.Line, key.Column, path, "the name of a field must be text")
		case key.Tag == "!!merge":
			merged = append(merged, p.merge(value, path)...)
		default:
			own = append(own, [2]*yaml.Node{key, value})
		}
	}
	given := map[string]bool{}
	for _, pair := range own {
		given[pair[0].Value] = true
	}
	for _, pair := range merged {
		if !given[pair[0].Value] {
			given[pair[0].Value] = true
			own = append(own, pair)
		}
	}
	return own
}

// merge is what `<<: *anchor` or `<<: [*a, *b]` brings in.
func (p *preparation) merge(n *yaml.Node, path string) [][2]*yaml.Node {
	source, leave := p.enter(n, join(path, "<<"))
	defer leave()
	switch source.Kind {
	case yaml.MappingNode:
		return p.pairs(source, path)
	case yaml.SequenceNode:
		var all [][2]*yaml.Node
		for _, item := range source.Content {
			all = append(all, p.merge(item, path)...)
		}
		return all
	}
	p.faultAt(n.Line, n.Column, path, "<< wants a mapping")
	return nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// findField accepts the proto name and its lowerCamelCase form.
func findField(schema protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := schema.Fields().ByTextName(name); f != nil {
		return f
	}
	return schema.Fields().ByJSONName(name)
}

// suggestion names the field that was probably meant, or else all that exist.
func suggestion(name string, schema protoreflect.MessageDescriptor) string {
	names := make([]string, 0, schema.Fields().Len())
	best, distance := "", 1+len(name)/3
	for i := range schema.Fields().Len() {
		candidate := string(schema.Fields().Get(i).Name())
		names = append(names, candidate)
		if d := editDistance(name, candidate); d <= distance {
			best, distance = candidate, d-1
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %s?", best)
	}
	return "; the fields here are " + strings.Join(names, ", ")
}

// editDistance is Levenshtein's, in bytes; of names too long to be a slip it is
// their length.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
