package rule

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"

	"github.com/weirproxy/weir/internal/plan"
)

// efforts are the values of reasoning_effort beside "".
var efforts = []string{"none", "minimal", "low", "medium", "high", "xhigh", "max"}

// verdict is what a quick look at a condition tells.
type verdict uint8

const (
	unsure verdict = iota // CEL must evaluate it
	no
	yes
)

// quick looks at a condition without CEL: most conditions compare facts with
// constants, and CEL costs some ten times as much for that. It is sure only of what
// CEL would come to as well. CEL's && and || come to false or true when either side
// does, whatever the other one is; so one part that is sure is enough.
type quick func(*plan.Facts) verdict

func unknown(*plan.Facts) verdict { return unsure }

func sure(holds bool) verdict {
	if holds {
		return yes
	}
	return no
}

// quickly makes the quick look at an expression.
func (c *Compiler) quickly(e ast.Expr) quick {
	switch e.Kind() {
	case ast.LiteralKind:
		if b, ok := e.AsLiteral().(types.Bool); ok {
			v := sure(bool(b))
			return func(*plan.Facts) verdict { return v }
		}
	case ast.IdentKind:
		if of := boolFact(e.AsIdent()); of != nil {
			return func(f *plan.Facts) verdict { return sure(of(f)) }
		}
	case ast.SelectKind:
		if _, is := c.lookup(e); is != nil {
			return func(f *plan.Facts) verdict { return sure(is(f)) }
		}
	case ast.CallKind:
		return c.quickCall(e.AsCall())
	}
	return unknown
}

func (c *Compiler) quickCall(call ast.CallExpr) quick {
	args := call.Args()
	switch name := call.FunctionName(); {
	case name == operators.LogicalAnd:
		return both(c.quickly(args[0]), c.quickly(args[1]), no)
	case name == operators.LogicalOr:
		return both(c.quickly(args[0]), c.quickly(args[1]), yes)
	case name == operators.LogicalNot:
		return not(c.quickly(args[0]))
	case name == operators.In:
		return c.quickIn(args[0], args[1])
	case name == operators.Index && isIdent(args[0], "calendars"):
		return c.quickCalendar(args[1])
	case comparesEqual[name] || comparesOrder[name]:
		if q := c.quickCompare(name, args[0], args[1]); q != nil {
			return q
		}
		if q := c.quickCompare(turned[name], args[1], args[0]); q != nil {
			return q
		}
		if q := c.quickFigures(name, args[0], args[1]); q != nil {
			return q
		}
	case call.IsMemberFunction() && textTests[name] != nil:
		return c.quickTest(textTests[name], call.Target(), args)
	}
	return unknown
}

// textTests are the functions of a text and a constant that are known here.
var textTests = map[string]func(text, part string) bool{
	overloads.StartsWith: strings.HasPrefix,
	overloads.EndsWith:   strings.HasSuffix,
	overloads.Contains:   strings.Contains,
}

func (c *Compiler) quickTest(holds func(text, part string) bool, target ast.Expr, args []ast.Expr) quick {
	of := c.textOf(target)
	if of == nil || len(args) != 1 {
		return unknown
	}
	part, ok := constant(args[0])
	if !ok {
		return unknown
	}
	return func(f *plan.Facts) verdict { return sure(holds(of(f), part)) }
}

// both joins two looks: decisive on either side decides, and the other word must be on
// both.
func both(a, b quick, decisive verdict) quick {
	return func(f *plan.Facts) verdict {
		first := a(f)
		if first == decisive {
			return decisive
		}
		switch second := b(f); {
		case second == decisive:
			return decisive
		case first == unsure || second == unsure:
			return unsure
		}
		return yes + no - decisive
	}
}

func not(q quick) quick {
	return func(f *plan.Facts) verdict {
		switch q(f) {
		case yes:
			return no
		case no:
			return yes
		}
		return unsure
	}
}

func (c *Compiler) quickCalendar(key ast.Expr) quick {
	name, _ := constant(key)
	calendar, ok := c.lookups.Calendars[name]
	if !ok {
		return unknown
	}
	return func(f *plan.Facts) verdict { return sure(calendar.Contain(f.Now)) }
}

// quickIn is `fact in [constants]`, `constant in roles` and `constant in headers`.
func (c *Compiler) quickIn(element, list ast.Expr) quick {
	if name, isText := constant(element); isText && isIdent(list, "headers") && c.headers[name] {
		return func(f *plan.Facts) verdict {
			_, sent := f.Headers[name]
			return sure(sent)
		}
	}
	if name, isText := constant(element); isText && isIdent(list, "roles") {
		return func(f *plan.Facts) verdict { return sure(slices.Contains(f.Principal.Roles, name)) }
	}
	if list.Kind() != ast.ListKind {
		return unknown
	}
	of := c.textOf(element)
	var texts []string
	for _, e := range list.AsList().Elements() {
		text, ok := constant(e)
		if !ok {
			return unknown
		}
		texts = append(texts, text)
	}
	if of == nil {
		return unknown
	}
	return func(f *plan.Facts) verdict { return sure(slices.Contains(texts, of(f))) }
}

// quickCompare compares a fact with a constant; nil if this is none.
func (c *Compiler) quickCompare(operator string, fact, value ast.Expr) quick {
	if value.Kind() != ast.LiteralKind {
		return nil
	}
	switch value := value.AsLiteral().(type) {
	case types.String:
		return quickText(operator, c.textOf(fact), string(value))
	case types.Int:
		if fact.Kind() == ast.IdentKind {
			if of := intFact(fact.AsIdent()); of != nil {
				n := int64(value)
				return func(f *plan.Facts) verdict { return sure(ordered(operator, of(f), n)) }
			}
		}
		return c.quickNumber(operator, fact, float64(value))
	case types.Double:
		return c.quickNumber(operator, fact, float64(value))
	}
	return nil
}

func quickText(operator string, of func(*plan.Facts) string, text string) quick {
	switch {
	case of == nil:
		return nil
	case operator == operators.Equals:
		return func(f *plan.Facts) verdict { return sure(of(f) == text) }
	case operator == operators.NotEquals:
		return func(f *plan.Facts) verdict { return sure(of(f) != text) }
	}
	return nil
}

func (c *Compiler) quickNumber(operator string, fact ast.Expr, n float64) quick {
	of, _ := c.lookup(fact)
	if of == nil {
		return nil
	}
	return func(f *plan.Facts) verdict { return sure(ordered(operator, of(f), n)) }
}

// lookup is pools["name"].field or limits["name"].field, a number or a flag; both are
// nil if this is neither.
func (c *Compiler) lookup(e ast.Expr) (number func(*plan.Facts) float64, is func(*plan.Facts) bool) {
	if e.Kind() != ast.SelectKind || e.AsSelect().IsTestOnly() {
		return nil, nil
	}
	name, variable := indexed(e.AsSelect().Operand())
	pool, limit := c.lookups.Pools[name], c.lookups.Limits[name]
	switch {
	case variable == "pools" && pool != nil:
		return readers(poolFields, e.AsSelect().FieldName(), func(f *plan.Facts) *poolFact { return (*poolFact)(f.Pool(pool)) })
	case variable == "limits" && limit != nil:
		return readers(limitFields, e.AsSelect().FieldName(), func(f *plan.Facts) *limitFact { return (*limitFact)(f.Limit(limit)) })
	}
	return nil, nil
}

// readers read one field.
func readers[T any](fields map[string]field[T], name string, read func(*plan.Facts) *T) (number func(*plan.Facts) float64, is func(*plan.Facts) bool) {
	known, ok := fields[name]
	switch {
	case !ok:
		return nil, nil
	case known.is != nil:
		return nil, func(f *plan.Facts) bool { return known.is(read(f)) }
	}
	return func(f *plan.Facts) float64 { return known.number(read(f)) }, nil
}

// indexed is the constant name and the variable of variable["name"].
func indexed(e ast.Expr) (name, variable string) {
	if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.Index {
		return "", ""
	}
	args := e.AsCall().Args()
	name, ok := constant(args[1])
	if !ok || args[0].Kind() != ast.IdentKind {
		return "", ""
	}
	return name, args[0].AsIdent()
}

func ordered[N int64 | float64](operator string, a, b N) bool {
	switch operator {
	case operators.Less:
		return a < b
	case operators.LessEquals:
		return a <= b
	case operators.Greater:
		return a > b
	case operators.GreaterEquals:
		return a >= b
	case operators.Equals:
		return a == b
	}
	return a != b
}

// textOf is a fact that is a text, or a declared header; nil if this is neither.
func (c *Compiler) textOf(e ast.Expr) func(*plan.Facts) string {
	if e.Kind() == ast.IdentKind {
		return stringFact(e.AsIdent())
	}
	if name, variable := indexed(e); variable == "headers" && c.headers[name] {
		return func(f *plan.Facts) string { return f.Headers[name] }
	}
	return nil
}

func stringFact(name string) func(*plan.Facts) string {
	switch name {
	case "kind":
		return func(f *plan.Facts) string { return string(f.Kind) }
	case "model":
		return func(f *plan.Facts) string { return f.Model }
	case "key":
		return func(f *plan.Facts) string { return f.Principal.Key }
	case "application":
		return func(f *plan.Facts) string { return f.Principal.Application }
	case "team":
		return func(f *plan.Facts) string { return f.Principal.Team }
	case "reasoning_effort":
		return func(f *plan.Facts) string { return f.Effort }
	}
	return nil
}

func intFact(name string) func(*plan.Facts) int64 {
	switch name {
	case "input_tokens":
		return (*plan.Facts).Tokens
	case "max_output_tokens":
		return func(f *plan.Facts) int64 { return f.MaxOutput }
	case "thinking_budget":
		return func(f *plan.Facts) int64 { return f.ThinkingBudget }
	}
	return nil
}

func boolFact(name string) func(*plan.Facts) bool {
	switch name {
	case "stream":
		return func(f *plan.Facts) bool { return f.Stream }
	case "tools":
		return func(f *plan.Facts) bool { return f.Tools }
	case "vision":
		return func(f *plan.Facts) bool { return f.Vision }
	case "audio":
		return func(f *plan.Facts) bool { return f.Audio }
	case "batch":
		return func(f *plan.Facts) bool { return f.Batch }
	}
	return nil
}
