package rule

import (
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// uses is how expressions use the facts. A fact that is only compared with
// constants need not be tried with every value: one for each constant and one
// beside them stand for all.
type uses struct {
	facts map[string]bool // all that are read
	// opaque are the facts that are used in other ways than by comparison with
	// constants.
	opaque  map[string]bool
	ints    map[string][]int64  // the constants that numbers are compared with
	strings map[string][]string // the constants that strings are; of roles, those asked for
	headers map[string]*headerUse
}

// headerUse is how one header is used.
type headerUse struct {
	opaque bool // its value is used in other ways than by comparison
	values []string
}

func newUses() *uses {
	return &uses{facts: map[string]bool{}, opaque: map[string]bool{}, ints: map[string][]int64{}, strings: map[string][]string{}, headers: map[string]*headerUse{}}
}

// usesOf is how these rules use the facts; one that is nil uses none.
func usesOf(rules ...*Condition) *uses {
	u := newUses()
	for _, r := range rules {
		if r != nil {
			u.add(r.checked.NativeRep().Expr())
		}
	}
	return u
}

// add looks through an expression.
func (u *uses) add(e ast.Expr) {
	switch e.Kind() {
	case ast.IdentKind:
		u.facts[e.AsIdent()], u.opaque[e.AsIdent()] = true, true
	case ast.CallKind:
		u.call(e.AsCall())
	case ast.ComprehensionKind:
		// The variable of a comprehension can have a fact's name: all names that
		// stand in one are taken for facts, and for opaque.
		ast.PreOrderVisit(e, ast.NewExprVisitor(func(inner ast.Expr) {
			if inner.Kind() == ast.IdentKind {
				u.facts[inner.AsIdent()], u.opaque[inner.AsIdent()] = true, true
			}
		}))
	case ast.SelectKind:
		u.add(e.AsSelect().Operand())
	case ast.ListKind:
		u.all(e.AsList().Elements())
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			u.add(entry.AsMapEntry().Key())
			u.add(entry.AsMapEntry().Value())
		}
	case ast.StructKind:
		for _, field := range e.AsStruct().Fields() {
			u.add(field.AsStructField().Value())
		}
	}
}

func (u *uses) all(list []ast.Expr) {
	for _, e := range list {
		u.add(e)
	}
}

func (u *uses) call(call ast.CallExpr) {
	args := call.Args()
	switch name := call.FunctionName(); {
	case comparesOrder[name] && (u.compare(args[0], args[1], true) || u.compare(args[1], args[0], true)):
	case comparesEqual[name] && (u.compare(args[0], args[1], false) || u.compare(args[1], args[0], false)):
	case name == operators.In && u.member(args[0], args[1]):
	case name == operators.Index && isIdent(args[0], "headers"):
		u.header(args[1]).opaque = true
	default:
		if call.IsMemberFunction() {
			u.add(call.Target())
		}
		u.all(args)
	}
}

var (
	comparesEqual = map[string]bool{operators.Equals: true, operators.NotEquals: true}
	comparesOrder = map[string]bool{operators.Less: true, operators.LessEquals: true, operators.Greater: true, operators.GreaterEquals: true}
)

// compare notes a comparison of a fact with a constant, if it is one: by order
// for numbers only.
func (u *uses) compare(fact, value ast.Expr, order bool) bool {
	if value.Kind() != ast.LiteralKind {
		return false
	}
	text, isText := value.AsLiteral().(types.String)
	if fact.Kind() == ast.CallKind && fact.AsCall().FunctionName() == operators.Index && isIdent(fact.AsCall().Args()[0], "headers") && isText && !order {
		h := u.header(fact.AsCall().Args()[1])
		h.values = append(h.values, string(text))
		return true
	}
	if fact.Kind() != ast.IdentKind {
		return false
	}
	name := fact.AsIdent()
	n, isInt := value.AsLiteral().(types.Int)
	switch {
	case isInt:
		u.ints[name] = append(u.ints[name], int64(n))
	case isText && !order:
		u.strings[name] = append(u.strings[name], string(text))
	default:
		return false
	}
	u.facts[name] = true
	return true
}

// member notes `fact in [constants]`, `constant in roles` and `constant in headers`.
func (u *uses) member(element, list ast.Expr) bool {
	name, isText := constant(element)
	switch {
	case isText && isIdent(list, "roles"):
		u.facts["roles"] = true
		u.strings["roles"] = append(u.strings["roles"], name)
		return true
	case isText && isIdent(list, "headers"):
		u.header(element)
		return true
	case list.Kind() != ast.ListKind:
		return false
	}
	elements := list.AsList().Elements()
	return len(elements) > 0 && !slices.ContainsFunc(elements, func(e ast.Expr) bool { return !u.compare(element, e, false) })
}

// header notes a use of a header. Its name is a constant, which inspect has seen to.
func (u *uses) header(name ast.Expr) *headerUse {
	u.facts["headers"] = true
	text, _ := constant(name)
	if u.headers[text] == nil {
		u.headers[text] = new(headerUse)
	}
	return u.headers[text]
}
