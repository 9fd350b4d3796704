package rule

import (
	"fmt"
	"reflect"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// The types of what pools["name"] and limits["name"] are.
var (
	poolType  = types.NewObjectType("pool", traits.FieldTesterType)
	limitType = types.NewObjectType("limit", traits.FieldTesterType)
)

// poolFact is what is known of a pool, as a value of a condition.
type poolFact plan.PoolSeen

// limitFact is what is left of a limit.
type limitFact plan.LimitSeen

// field is a field of such a value: a number, or with is a flag.
type field[T any] struct {
	kind   *types.Type
	number func(*T) float64
	is     func(*T) bool
}

// value is the field as CEL reads it.
func (f *field[T]) value(v *T) ref.Val {
	switch f.kind {
	case types.BoolType:
		return types.Bool(f.is(v))
	case types.IntType:
		return types.Int(f.number(v))
	}
	return types.Double(f.number(v))
}

func number[T any](of func(*T) float64) field[T] {
	return field[T]{kind: types.DoubleType, number: of}
}

func whole[T any](of func(*T) int64) field[T] {
	return field[T]{kind: types.IntType, number: func(v *T) float64 { return float64(of(v)) }}
}

func flag[T any](of func(*T) bool) field[T] {
	return field[T]{kind: types.BoolType, is: of}
}

// perMillion is a price in dollars for a million tokens.
func perMillion(n ai.NanoUSD) float64 { return float64(n) / 1e9 }

// load is a figure of the backends' own; 0 when it is not known, or stale.
func (p *poolFact) load(v float64) float64 {
	if !p.Known {
		return 0
	}
	return v
}

func (p *poolFact) running() int64 {
	if !p.Known {
		return p.Open
	}
	return int64(p.Running)
}

// poolFields are what a condition may read of a pool. What is not known is 0 or false,
// and running is then what weir itself knows to be open.
var poolFields = map[string]field[poolFact]{
	"endpoints":            whole(func(p *poolFact) int64 { return int64(p.Endpoints) }),
	"healthy":              whole(func(p *poolFact) int64 { return int64(p.Healthy) }),
	"open":                 whole(func(p *poolFact) int64 { return p.Open }),
	"known":                flag(func(p *poolFact) bool { return p.Known }),
	"stale":                flag(func(p *poolFact) bool { return p.Stale }),
	"running":              whole((*poolFact).running),
	"waiting":              whole(func(p *poolFact) int64 { return int64(p.load(p.Waiting)) }),
	"waiting_per_endpoint": number(func(p *poolFact) float64 { return p.load(p.Waiting) / float64(max(1, p.Healthy)) }),
	"kv_use":               number(func(p *poolFact) float64 { return p.load(p.KVUse) }),
	"attempts":             whole(func(p *poolFact) int64 { return p.Attempts }),
	"error_rate":           number(func(p *poolFact) float64 { return p.ErrorRate }),
	"refused_rate":         number(func(p *poolFact) float64 { return p.RefusedRate }),
	"first_token_ms":       number(func(p *poolFact) float64 { return float64(p.FirstToken) / float64(time.Millisecond) }),
	"resting":              flag(func(p *poolFact) bool { return p.Now.Before(p.RestUntil) }),
	"input_price":          number(func(p *poolFact) float64 { return perMillion(p.Pool.PriceAt(p.Now).Input) }),
	"output_price":         number(func(p *poolFact) float64 { return perMillion(p.Pool.PriceAt(p.Now).Output) }),
}

var limitFields = map[string]field[limitFact]{
	"left":  number(func(l *limitFact) float64 { return l.Left }),
	"known": flag(func(l *limitFact) bool { return l.Known }),
}

// ConvertToNative and the others make the facts values of CEL. Nothing in a condition
// converts or compares a whole pool: the type checker knows no such thing.

func (p *poolFact) ConvertToNative(reflect.Type) (any, error) { return nil, errWhole }
func (p *poolFact) ConvertToType(ref.Type) ref.Val            { return types.WrapErr(errWhole) }
func (p *poolFact) Equal(other ref.Val) ref.Val               { return types.Bool(p == other) }
func (p *poolFact) Type() ref.Type                            { return poolType }
func (p *poolFact) Value() any                                { return p }

func (l *limitFact) ConvertToNative(reflect.Type) (any, error) { return nil, errWhole }
func (l *limitFact) ConvertToType(ref.Type) ref.Val            { return types.WrapErr(errWhole) }
func (l *limitFact) Equal(other ref.Val) ref.Val               { return types.Bool(l == other) }
func (l *limitFact) Type() ref.Type                            { return limitType }
func (l *limitFact) Value() any                                { return l }

var errWhole = fmt.Errorf("a pool or a limit is read by its fields")

// named is a map whose names are the configuration's: pools, limits, calendars.
type named struct {
	traits.Mapper // of no name: for what nobody asks
	find          func(name string) ref.Val
}

var noNames = types.NewStringStringMap(types.DefaultTypeAdapter, nil)

func names(find func(string) ref.Val) *named { return &named{noNames, find} }

// Find looks a name up. inspect has seen that it exists.
func (m *named) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	v := m.find(string(name))
	return v, v != nil
}

// Get looks a name up.
func (m *named) Get(key ref.Val) ref.Val {
	if v, ok := m.Find(key); ok {
		return v
	}
	return types.NewErr("no such name")
}

// provider knows the types of pools and limits beside CEL's own.
type provider struct{ types.Provider }

func (p provider) FindStructType(name string) (*types.Type, bool) {
	switch name {
	case poolType.TypeName():
		return types.NewTypeTypeWithParam(poolType), true
	case limitType.TypeName():
		return types.NewTypeTypeWithParam(limitType), true
	}
	return p.Provider.FindStructType(name)
}

func (p provider) FindStructFieldNames(name string) ([]string, bool) {
	switch name {
	case poolType.TypeName():
		return fieldNames(poolFields), true
	case limitType.TypeName():
		return fieldNames(limitFields), true
	}
	return p.Provider.FindStructFieldNames(name)
}

func (p provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	switch name {
	case poolType.TypeName():
		return fieldType(poolFields, field)
	case limitType.TypeName():
		return fieldType(limitFields, field)
	}
	return p.Provider.FindStructFieldType(name, field)
}

func fieldNames[T any](fields map[string]field[T]) (all []string) {
	for name := range fields {
		all = append(all, name)
	}
	return all
}

func fieldType[T any](fields map[string]field[T], name string) (*types.FieldType, bool) {
	f, ok := fields[name]
	if !ok {
		return nil, false
	}
	return &types.FieldType{
		Type:  f.kind,
		IsSet: func(any) bool { return true },
		GetFrom: func(target any) (any, error) {
			v, ok := target.(*T)
			if !ok {
				return nil, errWhole
			}
			return f.value(v), nil
		},
	}, true
}
