package config

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// Read reads the text of a configuration as it is written, without what is compiled
// into it. It has been checked for its shape only. The path names it in faults.
func Read(path string, text []byte) (*configv1.Config, error) {
	cfg, r := read(path, text)
	if len(r.faults) > 0 {
		return nil, r.faults
	}
	return cfg, nil
}

// Changes says what differs between two configurations, one line a difference,
// in the order of the schema. What has a name is compared by name, so that a
// changed order of pools is no change; rules go by their place, as order decides.
func Changes(from, to *configv1.Config) []string {
	var c changes
	c.message("", from.ProtoReflect(), to.ProtoReflect())
	return c
}

type changes []string

func (c *changes) add(format string, args ...any) { *c = append(*c, fmt.Sprintf(format, args...)) }

func (c *changes) message(path string, a, b protoreflect.Message) {
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		at := string(f.Name())
		if path != "" {
			at = path + "." + at
		}
		switch {
		case f.IsList() && f.Message() != nil:
			c.list(at, f, a.Get(f).List(), b.Get(f).List())
		case f.IsList() || f.IsMap() || f.Message() == nil:
			c.value(at, f, a, b)
		case a.Has(f) && b.Has(f):
			c.message(at, a.Get(f).Message(), b.Get(f).Message())
		default:
			c.presence(at, a.Has(f), b.Has(f))
		}
	}
}

func (c *changes) presence(at string, was, is bool) {
	switch {
	case is && !was:
		c.add("%s: added", at)
	case was && !is:
		c.add("%s: removed", at)
	}
}

func (c *changes) value(at string, f protoreflect.FieldDescriptor, a, b protoreflect.Message) {
	was, is := a.Get(f), b.Get(f)
	if was.Equal(is) && a.Has(f) == b.Has(f) {
		return
	}
	c.add("%s: %s → %s", at, written(f, a), written(f, b))
}

func written(f protoreflect.FieldDescriptor, m protoreflect.Message) string {
	if !m.Has(f) {
		return "not set"
	}
	v := m.Get(f)
	if f.IsList() {
		var list []string
		for i := range v.List().Len() {
			list = append(list, fmt.Sprint(scalar(f, v.List().Get(i))))
		}
		return fmt.Sprintf("%q", list)
	}
	if f.IsMap() {
		return fmt.Sprintf("%d entries", v.Map().Len())
	}
	return fmt.Sprintf("%q", fmt.Sprint(scalar(f, v)))
}

func scalar(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	if e := f.Enum(); e != nil {
		if d := e.Values().ByNumber(v.Enum()); d != nil {
			return d.Name()
		}
	}
	return v.Interface()
}

func (c *changes) list(at string, f protoreflect.FieldDescriptor, a, b protoreflect.List) {
	name := f.Message().Fields().ByName("name")
	was, is := keyed(name, a), keyed(name, b)
	if was == nil || is == nil {
		c.places(at, a, b)
		return
	}
	for i := range a.Len() {
		m := a.Get(i).Message()
		key := m.Get(name).String()
		if other, ok := is[key]; ok {
			c.message(at+"["+key+"]", m, other)
		} else {
			c.add("%s[%s]: removed", at, key)
		}
	}
	for i := range b.Len() {
		if key := b.Get(i).Message().Get(name).String(); was[key] == nil {
			c.add("%s[%s]: added", at, key)
		}
	}
}

// keyed is nil where the names do not tell the elements apart.
func keyed(name protoreflect.FieldDescriptor, list protoreflect.List) map[string]protoreflect.Message {
	if name == nil || name.Kind() != protoreflect.StringKind {
		return nil
	}
	m := make(map[string]protoreflect.Message, list.Len())
	for i := range list.Len() {
		e := list.Get(i).Message()
		key := e.Get(name).String()
		if key == "" || m[key] != nil {
			return nil
		}
		m[key] = e
	}
	return m
}

func (c *changes) places(at string, a, b protoreflect.List) {
	for i := range max(a.Len(), b.Len()) {
		place := fmt.Sprintf("%s[%d]", at, i)
		if i >= a.Len() || i >= b.Len() {
			c.presence(place, i < a.Len(), i < b.Len())
			continue
		}
		x, y := a.Get(i).Message(), b.Get(i).Message()
		if !proto.Equal(x.Interface(), y.Interface()) {
			c.message(place, x, y)
		}
	}
}
