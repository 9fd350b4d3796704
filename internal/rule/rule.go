// Package rule compiles the conditions of routing rules: CEL expressions over
// the facts of one request. It checks as much as it can when the configuration
// is loaded, so that a condition that cannot work is a fault of the file and
// not of a request. It never routes.
package rule

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	_ "time/tzdata" // conditions name time zones; a container may know none

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"

	"github.com/weirproxy/weir/internal/plan"
)

// Bounds on one expression. The size keeps parsing cheap; the cost, in CEL's
// own units of about one operation or ten bytes looked at, keeps a request from
// spending more than a few milliseconds in one condition.
const (
	maxExpression = 8 << 10
	maxDepth      = 64
	maxCost       = 100_000
)

// Vocabulary is what the configuration defines and conditions may name.
type Vocabulary struct {
	// HeaderFacts are the header names that conditions may read, in lower case.
	HeaderFacts []string
	// Names lists, for a variable of type string (or roles), every value that it
	// can have. Comparing the variable with another constant is refused,
	// because it could never hold. A variable that is absent is not checked.
	Names map[string][]string
	// What a condition may look up by name.
	Pools     map[string]*plan.Pool
	Limits    map[string]*plan.Limit
	Calendars map[string]*plan.Calendar
}

// Error is one fault of an expression.
type Error struct {
	// Line and Column count from 1, columns in characters. Both are 0 when the
	// fault is of the expression as a whole.
	Line, Column int
	Message      string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message)
}

// Compiler compiles conditions against one vocabulary. It is safe for
// concurrent use.
type Compiler struct {
	env     *cel.Env
	headers map[string]bool
	names   map[string]map[string]bool
	lookups *Vocabulary
}

// NewCompiler builds a compiler for one configuration.
func NewCompiler(v Vocabulary) (*Compiler, error) {
	env, err := baseEnv()
	if err != nil {
		return nil, fmt.Errorf("rule environment: %w", err)
	}
	c := &Compiler{env: env, headers: set(v.HeaderFacts), lookups: &v, names: map[string]map[string]bool{
		"kind":             set([]string{"chat", "completion", "embedding"}),
		"reasoning_effort": set(efforts),
	}}
	for variable, names := range v.Names {
		c.names[variable] = set(names)
	}
	return c, nil
}

// ForModel is the compiler of the rules of one model: in them, model has one value.
func (c *Compiler) ForModel(name string) *Compiler {
	own := *c
	own.names = maps.Clone(c.names)
	own.names["model"] = set([]string{name})
	return &own
}

func set(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// baseEnv is the environment that all compilers share: building it costs
// milliseconds.
var baseEnv = sync.OnceValues(func() (*cel.Env, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	return cel.NewEnv(
		cel.CustomTypeProvider(provider{registry}),
		cel.CustomTypeAdapter(registry),
		cel.CrossTypeNumericComparisons(true), // pools have fractions, and are compared with whole numbers
		cel.Variable("pools", cel.MapType(cel.StringType, poolType)),
		cel.Variable("limits", cel.MapType(cel.StringType, limitType)),
		cel.Variable("calendars", cel.MapType(cel.StringType, cel.BoolType)),
		cel.Variable("reasoning_effort", cel.StringType),
		cel.Variable("thinking_budget", cel.IntType),
		cel.Variable("input_tokens", cel.IntType),
		cel.Variable("max_output_tokens", cel.IntType),
		cel.Variable("kind", cel.StringType),
		cel.Variable("stream", cel.BoolType),
		cel.Variable("tools", cel.BoolType),
		cel.Variable("vision", cel.BoolType),
		cel.Variable("audio", cel.BoolType),
		cel.Variable("batch", cel.BoolType),
		cel.Variable("model", cel.StringType),
		cel.Variable("key", cel.StringType),
		cel.Variable("application", cel.StringType),
		cel.Variable("team", cel.StringType),
		cel.Variable("roles", cel.ListType(cel.StringType)),
		cel.Variable("headers", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("now", cel.TimestampType),
		cel.EagerlyValidateDeclarations(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(maxDepth),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(),
			cel.ValidateTimestampLiterals(),
			cel.ValidateRegexLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(),
			cel.ValidateComprehensionNestingLimit(1),
		),
	)
})

// Condition is a compiled expression. It is safe for concurrent use.
type Condition struct {
	program  cel.Program
	checked  *cel.Ast
	headers  map[string]bool
	lookups  *Vocabulary
	quick    quick
	live     []liveField
	tokens   bool
	constant bool
	value    bool
}

var _ plan.Condition = (*Condition)(nil)

// Compile type-checks the expression and prepares it. The faults, all that
// were found, are in the order of the text; the condition is nil if there are any.
func (c *Compiler) Compile(expression string) (*Condition, []*Error) {
	if len(expression) > maxExpression {
		return nil, []*Error{{Message: fmt.Sprintf("the expression is longer than %d bytes", maxExpression)}}
	}
	checked, issues := c.env.Compile(expression)
	if issues.Err() != nil {
		return nil, fromIssues(issues)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, []*Error{{Line: 1, Column: 1, Message: fmt.Sprintf("the condition is of type %s; want bool", checked.OutputType())}}
	}
	inspected := c.inspect(checked.NativeRep())
	if len(inspected.faults) > 0 {
		return nil, inspected.faults
	}
	program, err := c.env.Program(checked,
		cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, []*Error{{Message: err.Error()}}
	}
	cond := &Condition{program: program, checked: checked, headers: c.headers, lookups: c.lookups, tokens: inspected.tokens}
	cond.live = liveFields(checked.NativeRep().Expr())
	cond.quick = c.quickly(checked.NativeRep().Expr())
	cond.constant, cond.value = c.fold(checked)
	return cond, nil
}

// fold evaluates the expression without any facts: what has a value then has
// it for every request.
func (c *Compiler) fold(checked *cel.Ast) (constant, value bool) {
	program := c.partial(checked)
	if program == nil {
		return false, false
	}
	var unknown []*cel.AttributePatternType
	for _, v := range c.env.Variables() {
		unknown = append(unknown, cel.AttributePattern(v.Name()))
	}
	vars, err := cel.PartialVars(map[string]any{}, unknown...)
	if err != nil {
		return false, false
	}
	out, _, err := program.Eval(vars)
	if err != nil {
		return false, false
	}
	b, ok := out.(types.Bool)
	return ok, bool(b)
}

// Constant tells whether the condition has the same value for every request,
// and which.
func (c *Condition) Constant() (value, constant bool) { return c.value, c.constant }

// Compared are the texts that a fact is compared with.
func (c *Condition) Compared(fact string) []string { return usesOf(c).strings[fact] }

// ReadsInputTokens tells whether the condition may read input_tokens.
func (c *Condition) ReadsInputTokens() bool { return c.tokens }

// Holds evaluates the condition. Its errors name no value of the request.
func (c *Condition) Holds(f *plan.Facts) (bool, error) {
	switch c.quick(f) {
	case yes:
		return true, nil
	case no:
		return false, nil
	}
	return c.evaluate(f)
}

// evaluate lets CEL evaluate the condition.
func (c *Condition) evaluate(f *plan.Facts) (bool, error) {
	a := activations.Get().(*activation)
	a.facts, a.declared, a.lookups = f, c.headers, c.lookups
	out, _, err := c.program.Eval(a)
	*a = activation{}
	activations.Put(a)
	if err != nil {
		return false, reason(err)
	}
	return out == types.True, nil
}

// reason keeps the kind of an evaluation error and drops its text, which may
// quote what a client sent.
func reason(err error) error {
	var cancelled interpreter.EvalCancelledError
	if errors.As(err, &cancelled) {
		return ErrCost
	}
	return ErrNoValue
}

// The errors of evaluation.
var (
	ErrCost    = errors.New("the condition costs more than is allowed for one request")
	ErrNoValue = errors.New("the condition has no value for this request")
)

func fromIssues(issues *cel.Issues) []*Error {
	faults := make([]*Error, 0, len(issues.Errors()))
	for _, e := range issues.Errors() {
		fault := &Error{Message: tidy(e.Message)}
		if e.Location.Line() > 0 { // the parser's own limits have no place
			fault.Line, fault.Column = e.Location.Line(), e.Location.Column()+1
		}
		faults = append(faults, fault)
	}
	return faults
}
