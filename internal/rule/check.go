package rule

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// inspection is what one walk over an expression finds.
type inspection struct {
	compiler *Compiler
	tree     *ast.AST
	tokens   bool // reads input_tokens
	faults   []*Error
}

// inspect finds what CEL's type checker cannot know to be wrong.
func (c *Compiler) inspect(tree *ast.AST) *inspection {
	in := &inspection{compiler: c, tree: tree}
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(in.visit))
	slices.SortStableFunc(in.faults, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return in
}

func (in *inspection) fault(e ast.Expr, format string, args ...any) {
	at := in.tree.SourceInfo().GetStartLocation(e.ID())
	in.faults = append(in.faults, &Error{Line: at.Line(), Column: at.Column() + 1, Message: fmt.Sprintf(format, args...)})
}

func (in *inspection) visit(e ast.Expr) {
	switch e.Kind() {
	case ast.IdentKind:
		in.tokens = in.tokens || e.AsIdent() == "input_tokens"
	case ast.SelectKind:
		for _, variable := range [...]string{"headers", "pools", "limits", "calendars"} {
			if isIdent(e.AsSelect().Operand(), variable) {
				in.fault(e, "write %s[%q]", variable, e.AsSelect().FieldName())
			}
		}
	case ast.CallKind:
		in.call(e)
	}
}

func (in *inspection) call(e ast.Expr) {
	call := e.AsCall()
	args := call.Args()
	switch name := call.FunctionName(); {
	case name == operators.Index:
		if isIdent(args[0], "headers") {
			in.headerName(args[1])
		}
		in.lookup(args[0], args[1])
	case name == operators.In:
		in.membership(args[0], args[1])
	case comparesEqual[name] || comparesOrder[name]:
		if comparesEqual[name] {
			in.comparison(args[0], args[1])
			in.comparison(args[1], args[0])
		}
		in.numbers(e, name, args[0], args[1])
		in.numbers(e, turned[name], args[1], args[0])
	case strings.HasPrefix(name, "get") && call.IsMemberFunction() && len(args) == 1:
		in.timeZone(args[0])
	}
}

// headerName checks a name that the expression looks up in headers.
func (in *inspection) headerName(e ast.Expr) {
	name, ok := constant(e)
	switch {
	case !ok:
		in.fault(e, "the name of a header must be a constant")
	case in.compiler.headers[name]:
	case in.compiler.headers[strings.ToLower(name)]:
		in.fault(e, "header names are in lower case: write headers[%q]", strings.ToLower(name))
	default:
		in.fault(e, "header %q is not in request_bounds.header_facts", name)
	}
}

// names are what can be looked up, by the variable.
func (v *Vocabulary) names() map[string][]string {
	return map[string][]string{
		"pools": slices.Collect(maps.Keys(v.Pools)), "limits": slices.Collect(maps.Keys(v.Limits)), "calendars": slices.Collect(maps.Keys(v.Calendars)),
	}
}

// lookup checks a name that the expression looks up in pools, limits or calendars.
func (in *inspection) lookup(variable, key ast.Expr) {
	if variable.Kind() != ast.IdentKind {
		return
	}
	known, ok := in.compiler.lookups.names()[variable.AsIdent()]
	if !ok {
		return
	}
	what := strings.TrimSuffix(variable.AsIdent(), "s")
	switch name, isConstant := constant(key); {
	case !isConstant:
		in.fault(key, "the name of a %s must be a constant", what)
	case !slices.Contains(known, name):
		in.fault(key, "unknown %s %q", what, name)
	}
}

// membership checks `element in list`.
func (in *inspection) membership(element, list ast.Expr) {
	if isIdent(list, "headers") {
		in.headerName(element)
		return
	}
	for variable := range in.compiler.lookups.names() {
		if isIdent(list, variable) {
			in.fault(list, "%s is read as %s[\"name\"]", variable, variable)
		}
	}
	if isIdent(list, "roles") {
		in.known("roles", element)
		return
	}
	if element.Kind() == ast.IdentKind && list.Kind() == ast.ListKind {
		for _, item := range list.AsList().Elements() {
			in.known(element.AsIdent(), item)
		}
	}
}

// comparison checks a variable that is compared with a constant.
func (in *inspection) comparison(variable, value ast.Expr) {
	if variable.Kind() == ast.IdentKind {
		in.known(variable.AsIdent(), value)
	}
}

// span is the numbers that a fact can be.
type span struct{ from, to int64 }

// clocks are the numbers that CEL reads off a time.
var clocks = map[string]span{
	"getMonth": {0, 11}, "getDayOfYear": {0, 365}, "getDayOfMonth": {0, 30}, "getDate": {1, 31}, "getDayOfWeek": {0, 6},
	"getHours": {0, 23}, "getMinutes": {0, 59}, "getSeconds": {0, 59}, "getMilliseconds": {0, 999},
}

// turned is the comparison with its sides exchanged.
var turned = map[string]string{
	operators.Less: operators.Greater, operators.Greater: operators.Less, operators.LessEquals: operators.GreaterEquals,
	operators.GreaterEquals: operators.LessEquals, operators.Equals: operators.Equals, operators.NotEquals: operators.NotEquals,
}

// numbers checks a comparison of a number with a constant that it is always, or
// never, on one side of.
func (in *inspection) numbers(e ast.Expr, operator string, number, value ast.Expr) {
	if value.Kind() != ast.LiteralKind {
		return
	}
	n, ok := value.AsLiteral().(types.Int)
	if !ok {
		return
	}
	s, what, ok := in.span(number)
	if !ok {
		return
	}
	if holds, decided := s.compare(operator, int64(n)); decided {
		how := map[bool]string{true: "always", false: "never"}[holds]
		in.fault(e, "this %s holds: %s", how, what)
	}
}

// span is the numbers that an expression can be, and how to say it.
func (in *inspection) span(e ast.Expr) (s span, what string, ok bool) {
	if isIdent(e, "input_tokens") || isIdent(e, "max_output_tokens") || isIdent(e, "thinking_budget") {
		return span{0, math.MaxInt64}, e.AsIdent() + " is at least 0", true
	}
	if e.Kind() != ast.CallKind || !e.AsCall().IsMemberFunction() || in.tree.GetType(e.AsCall().Target().ID()) != types.TimestampType {
		return span{}, "", false
	}
	name := e.AsCall().FunctionName()
	s, ok = clocks[name]
	return s, fmt.Sprintf("%s is from %d to %d", name, s.from, s.to), ok
}

// compare tells whether a comparison of all of the numbers with n comes to the
// same, and to what.
func (s span) compare(operator string, n int64) (holds, decided bool) {
	switch operator {
	case operators.Less:
		return s.to < n, s.to < n || s.from >= n
	case operators.LessEquals:
		return s.to <= n, s.to <= n || s.from > n
	case operators.Greater:
		return s.from > n, s.from > n || s.to <= n
	case operators.GreaterEquals:
		return s.from >= n, s.from >= n || s.to < n
	case operators.Equals:
		return false, n < s.from || n > s.to
	case operators.NotEquals:
		return true, n < s.from || n > s.to
	}
	return false, false
}

func (in *inspection) known(variable string, value ast.Expr) {
	names, checked := in.compiler.names[variable]
	name, isConstant := constant(value)
	if checked && isConstant && name != "" && !names[name] {
		in.fault(value, "%s is never %q", strings.TrimSuffix(variable, "s"), name)
	}
}

// timeZone checks the argument of now.getHours and its like. Zones come from
// the configuration alone: a request must not choose a file to read.
func (in *inspection) timeZone(e ast.Expr) {
	zone, ok := constant(e)
	if !ok {
		in.fault(e, "the time zone must be a constant")
		return
	}
	if strings.Contains(zone, ":") {
		if _, err := time.Parse("-07:00", zone); err != nil {
			in.fault(e, "time zone offset %q: want +hh:mm or -hh:mm", zone)
		}
		return
	}
	if _, err := time.LoadLocation(zone); err != nil {
		in.fault(e, "unknown time zone %q", zone)
	}
}

func isIdent(e ast.Expr, name string) bool {
	return e.Kind() == ast.IdentKind && e.AsIdent() == name
}

func constant(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// tidy takes out of CEL's messages what says nothing here.
func tidy(message string) string {
	message = strings.ReplaceAll(message, " (in container '')", "")
	message, _, _ = strings.Cut(message, " expecting {") // a list of nearly every token
	return strings.TrimSpace(strings.SplitN(message, "\n", 2)[0])
}
