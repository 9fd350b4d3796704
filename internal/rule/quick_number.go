package rule

import (
	"math"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/weirproxy/weir/internal/plan"
)

// wholeNumber is an expression of type int; ok is false where CEL must say what it comes to:
// it makes an error of what does not fit.
type wholeNumber func(*plan.Facts) (n int64, ok bool)

// fraction is an expression of type double.
type fraction func(*plan.Facts) float64

// quickFigures compares two expressions that are numbers: sums, differences and
// products of facts and constants; nil if one is something else.
func (c *Compiler) quickFigures(operator string, left, right ast.Expr) quick {
	a, b := c.wholeOf(left), c.wholeOf(right)
	x, y := c.fractionOf(left), c.fractionOf(right)
	switch {
	case a != nil && b != nil:
		return func(f *plan.Facts) verdict {
			n, sureOfN := a(f)
			m, sureOfM := b(f)
			if !sureOfN || !sureOfM {
				return unsure
			}
			return sure(ordered(operator, n, m))
		}
	case x != nil && y != nil:
		return func(f *plan.Facts) verdict { return compareFractions(operator, x(f), y(f)) }
	case x != nil && b != nil:
		return func(f *plan.Facts) verdict {
			if m, ok := b(f); ok && exact(m) {
				return compareFractions(operator, x(f), float64(m))
			}
			return unsure
		}
	case a != nil && y != nil:
		return func(f *plan.Facts) verdict {
			if n, ok := a(f); ok && exact(n) {
				return compareFractions(operator, float64(n), y(f))
			}
			return unsure
		}
	}
	return nil
}

// compareFractions leaves what is no number to CEL.
func compareFractions(operator string, a, b float64) verdict {
	if math.IsNaN(a) || math.IsNaN(b) {
		return unsure
	}
	return sure(ordered(operator, a, b))
}

// exact tells whether a double can be n.
func exact(n int64) bool { return -1<<53 <= n && n <= 1<<53 }

// wholeOf is nil where an expression is no figure of type int that is known here.
func (c *Compiler) wholeOf(e ast.Expr) wholeNumber {
	switch e.Kind() {
	case ast.LiteralKind:
		if n, ok := e.AsLiteral().(types.Int); ok {
			return func(*plan.Facts) (int64, bool) { return int64(n), true }
		}
	case ast.IdentKind:
		if of := intFact(e.AsIdent()); of != nil {
			return func(f *plan.Facts) (int64, bool) { return of(f), true }
		}
	case ast.SelectKind:
		if of, kind := c.numberOf(e); of != nil && kind == types.IntType {
			return func(f *plan.Facts) (int64, bool) { return int64(of(f)), true }
		}
	case ast.CallKind:
		return c.wholeCall(e.AsCall())
	}
	return nil
}

func (c *Compiler) wholeCall(call ast.CallExpr) wholeNumber {
	op, ok := wholes[call.FunctionName()]
	if !ok || len(call.Args()) != 2 {
		return nil
	}
	a, b := c.wholeOf(call.Args()[0]), c.wholeOf(call.Args()[1])
	if a == nil || b == nil {
		return nil
	}
	return func(f *plan.Facts) (int64, bool) {
		n, sureOfN := a(f)
		m, sureOfM := b(f)
		if !sureOfN || !sureOfM {
			return 0, false
		}
		return op(n, m)
	}
}

// wholes are the operators that are known of whole numbers; ok is false where they
// overflow, or might. What is divided by may be zero, and is CEL's.
var wholes = map[string]func(a, b int64) (n int64, ok bool){
	operators.Add: func(a, b int64) (int64, bool) {
		n := a + b
		return n, (n > a) == (b > 0)
	},
	operators.Subtract: func(a, b int64) (int64, bool) {
		n := a - b
		return n, (n < a) == (b > 0)
	},
	operators.Multiply: func(a, b int64) (int64, bool) {
		const half = 1 << 31 // the product of two that are smaller fits
		return a * b, -half < a && a < half && -half < b && b < half
	},
}

// fractionOf is nil where an expression is no figure of type double that is known here.
func (c *Compiler) fractionOf(e ast.Expr) fraction {
	switch e.Kind() {
	case ast.LiteralKind:
		if x, ok := e.AsLiteral().(types.Double); ok {
			return func(*plan.Facts) float64 { return float64(x) }
		}
	case ast.SelectKind:
		if of, kind := c.numberOf(e); of != nil && kind == types.DoubleType {
			return of
		}
	case ast.CallKind:
		call := e.AsCall()
		op, ok := fractions[call.FunctionName()]
		if !ok || len(call.Args()) != 2 {
			return nil
		}
		a, b := c.fractionOf(call.Args()[0]), c.fractionOf(call.Args()[1])
		if a == nil || b == nil {
			return nil
		}
		return func(f *plan.Facts) float64 { return op(a(f), b(f)) }
	}
	return nil
}

var fractions = map[string]func(a, b float64) float64{
	operators.Add:      func(a, b float64) float64 { return a + b },
	operators.Subtract: func(a, b float64) float64 { return a - b },
	operators.Multiply: func(a, b float64) float64 { return a * b },
	operators.Divide:   func(a, b float64) float64 { return a / b },
}

// numberOf is a field of a pool or a limit that is a number, and its type.
func (c *Compiler) numberOf(e ast.Expr) (func(*plan.Facts) float64, *types.Type) {
	number, _ := c.lookup(e)
	if number == nil {
		return nil, nil
	}
	_, variable := indexed(e.AsSelect().Operand())
	if variable == "pools" {
		return number, poolFields[e.AsSelect().FieldName()].kind
	}
	return number, limitFields[e.AsSelect().FieldName()].kind
}
