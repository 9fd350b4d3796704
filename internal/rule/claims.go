package rule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"
)

// Claim is a compiled expression over a token's claims. It is safe for
// concurrent use.
type Claim struct {
	program  cel.Program
	constant any // its value when it reads no claim; nil otherwise
}

// claimsEnv has one variable: claims, what a token holds.
var claimsEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		ext.Strings(ext.StringsVersion(2)),
		cel.EagerlyValidateDeclarations(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(maxDepth),
		cel.ASTValidators(
			cel.ValidateRegexLiterals(),
			cel.ValidateComprehensionNestingLimit(1),
		),
	)
})

// ClaimType is the type that an expression must have.
type ClaimType = cel.Type

// The types that a claim's expression can have. A claim itself is of any type, so
// that what it holds is checked when it is evaluated.
var (
	ClaimBool    = cel.BoolType
	ClaimString  = cel.StringType
	ClaimStrings = cel.ListType(cel.StringType)
)

// CompileClaim type-checks an expression over claims. The claim is nil if there
// are faults.
func CompileClaim(expression string, want *ClaimType) (*Claim, []*Error) {
	env, err := claimsEnv()
	if err != nil {
		return nil, []*Error{{Message: err.Error()}}
	}
	if len(expression) > maxExpression {
		return nil, []*Error{{Message: fmt.Sprintf("the expression is longer than %d bytes", maxExpression)}}
	}
	checked, issues := env.Compile(expression)
	if issues.Err() != nil {
		return nil, fromIssues(issues)
	}
	if !want.IsAssignableType(checked.OutputType()) && checked.OutputType() != cel.DynType && !dynList(checked.OutputType(), want) {
		return nil, []*Error{{Line: 1, Column: 1, Message: fmt.Sprintf("the expression is of type %s; want %s", checked.OutputType(), want)}}
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, []*Error{{Message: err.Error()}}
	}
	c := &Claim{program: program}
	if !readsClaims(checked.NativeRep()) {
		if c.constant, err = c.eval(nil, want); err != nil {
			return nil, []*Error{{Message: "the expression reads no claim and has no value"}}
		}
	}
	return c, nil
}

// dynList tells whether a list of anything stands where a list is wanted.
func dynList(t, want *cel.Type) bool {
	return want == ClaimStrings && t.Kind() == types.ListKind && len(t.Parameters()) == 1 && t.Parameters()[0] == cel.DynType
}

func readsClaims(tree *ast.AST) bool {
	reads := false
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		reads = reads || isIdent(e, "claims")
	}))
	return reads
}

// Constant is the value of an expression that reads no claim: a bool, a string or
// a []string; nil for one that does, and for none.
func (c *Claim) Constant() any {
	if c == nil {
		return nil
	}
	return c.constant
}

// ErrClaimType says that an expression's value is not of the type that is wanted.
var ErrClaimType = errors.New("the expression has a value of another type")

// ErrNoClaim says that a claim is not there.
var ErrNoClaim = errors.New("a claim is missing")

// Holds evaluates a condition. A claim that is not there makes it false; any other
// error is one.
func (c *Claim) Holds(claims map[string]any) (bool, error) {
	v, err := c.eval(claims, ClaimBool)
	if errors.Is(err, ErrNoClaim) {
		return false, nil
	}
	b, _ := v.(bool)
	return b, err
}

// Text evaluates an expression for a string.
func (c *Claim) Text(claims map[string]any) (string, error) {
	v, err := c.eval(claims, ClaimString)
	s, _ := v.(string)
	return s, err
}

// Texts evaluates an expression for a list of strings.
func (c *Claim) Texts(claims map[string]any) ([]string, error) {
	v, err := c.eval(claims, ClaimStrings)
	list, _ := v.([]string)
	return list, err
}

// maxTexts is the longest list that an expression may have.
const maxTexts = 1000

// eval answers a bool, a string or a []string. Its errors name no claim's value.
func (c *Claim) eval(claims map[string]any, want *cel.Type) (any, error) {
	out, _, err := c.program.Eval(map[string]any{"claims": claims})
	if err != nil {
		if strings.HasPrefix(err.Error(), "no such key") {
			return nil, ErrNoClaim
		}
		return nil, reason(err)
	}
	switch v := out.(type) {
	case types.Bool:
		if want == ClaimBool {
			return bool(v), nil
		}
	case types.String:
		if want == ClaimString {
			return string(v), nil
		}
	case traits.Lister:
		if want == ClaimStrings {
			return texts(v)
		}
	}
	return nil, ErrClaimType
}

func texts(list traits.Lister) ([]string, error) {
	n, ok := list.Size().(types.Int)
	if !ok || n > maxTexts {
		return nil, ErrClaimType
	}
	out := make([]string, 0, n)
	for i := range n {
		s, ok := list.Get(i).(types.String)
		if !ok {
			return nil, ErrClaimType
		}
		out = append(out, string(s))
	}
	return slices.Clip(out), nil
}
