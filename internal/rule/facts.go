package rule

import (
	"reflect"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/weirproxy/weir/internal/plan"
)

// activations are reused: CEL wants a pointer, and most conditions read little.
var activations = sync.Pool{New: func() any { return new(activation) }}

// activation gives CEL the facts of one request, each only when it is read.
type activation struct {
	facts    *plan.Facts
	declared map[string]bool
	lookups  *Vocabulary
}

// Parent is nil: there are no outer scopes.
func (*activation) Parent() cel.Activation { return nil }

// ResolveName returns one fact as a CEL value.
func (a *activation) ResolveName(name string) (any, bool) {
	f := a.facts
	switch name {
	case "input_tokens":
		return types.Int(f.Tokens()), true
	case "max_output_tokens":
		return types.Int(f.MaxOutput), true
	case "kind":
		return types.String(f.Kind), true
	case "stream":
		return types.Bool(f.Stream), true
	case "tools":
		return types.Bool(f.Tools), true
	case "vision":
		return types.Bool(f.Vision), true
	case "audio":
		return types.Bool(f.Audio), true
	case "batch":
		return types.Bool(f.Batch), true
	case "model":
		return types.String(f.Model), true
	case "key":
		return types.String(f.Principal.Key), true
	case "application":
		return types.String(f.Principal.Application), true
	case "team":
		return types.String(f.Principal.Team), true
	case "roles":
		return types.NewStringList(types.DefaultTypeAdapter, f.Principal.Roles), true
	case "headers":
		return &headers{sent: f.Headers, declared: a.declared}, true
	case "now":
		return types.Timestamp{Time: f.Now.UTC()}, true
	case "reasoning_effort":
		return types.String(f.Effort), true
	case "thinking_budget":
		return types.Int(f.ThinkingBudget), true
	case "pools":
		return names(func(name string) ref.Val { return a.lookups.pool(f, name) }), true
	case "limits":
		return names(func(name string) ref.Val { return a.lookups.limit(f, name) }), true
	case "calendars":
		return names(func(name string) ref.Val { return a.lookups.calendar(f, name) }), true
	}
	return nil, false
}

// pool is what is known of a pool; nil when there is none of that name.
func (v *Vocabulary) pool(f *plan.Facts, name string) ref.Val {
	p, ok := v.Pools[name]
	if !ok {
		return nil
	}
	fact := poolFact(*f.Pool(p))
	return &fact
}

// limit is what is left of a limit; nil when there is none of that name.
func (v *Vocabulary) limit(f *plan.Facts, name string) ref.Val {
	l, ok := v.Limits[name]
	if !ok {
		return nil
	}
	fact := limitFact(*f.Limit(l))
	return &fact
}

func (v *Vocabulary) calendar(f *plan.Facts, name string) ref.Val {
	c, ok := v.Calendars[name]
	if !ok {
		return nil
	}
	return types.Bool(c.Contain(f.Now))
}

// headers is the map of header facts. A declared header that the client did not
// send reads as "", so that a request without it is no error; `in` tells
// whether it was sent.
type headers struct {
	sent     map[string]string
	declared map[string]bool
}

var _ traits.Mapper = (*headers)(nil)

// Find looks a header up.
func (h *headers) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok || !h.declared[string(name)] {
		return nil, false
	}
	return types.String(h.sent[string(name)]), true
}

// Get looks a header up; one that is not declared is an error.
func (h *headers) Get(key ref.Val) ref.Val {
	if v, ok := h.Find(key); ok {
		return v
	}
	return types.NewErr("no such header fact")
}

// Contains tells whether the client sent the header.
func (h *headers) Contains(key ref.Val) ref.Val {
	name, ok := key.(types.String)
	if !ok || !h.declared[string(name)] {
		return types.False
	}
	_, sent := h.sent[string(name)]
	return types.Bool(sent)
}

// plain is the map of declared headers that were sent, for what is rarely asked.
func (h *headers) plain() traits.Mapper {
	m := make(map[string]string, len(h.sent))
	for name, value := range h.sent {
		if h.declared[name] {
			m[name] = value
		}
	}
	return types.NewStringStringMap(types.DefaultTypeAdapter, m)
}

func (h *headers) ConvertToNative(t reflect.Type) (any, error) { return h.plain().ConvertToNative(t) }
func (h *headers) ConvertToType(t ref.Type) ref.Val            { return h.plain().ConvertToType(t) }
func (h *headers) Equal(other ref.Val) ref.Val                 { return h.plain().Equal(other) }
func (h *headers) Type() ref.Type                              { return types.MapType }
func (h *headers) Value() any                                  { return h.plain().Value() }
func (h *headers) Iterator() traits.Iterator                   { return h.plain().Iterator() }
func (h *headers) Size() ref.Val                               { return h.plain().Size() }
