package rule

import (
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// World is what there can be beside what the vocabulary says: the model whose
// rules are looked at, who calls it, and the roles of which each caller has one,
// because no other permits the model. What is empty is not known.
type World struct {
	Model    string
	Callers  []Caller
	Granting []string
}

// Outcome is what becomes of a rule.
type Outcome uint8

// The outcomes.
const (
	Reached  Outcome = iota // or it is not known that it is not
	Never                   // it holds for no request
	Shadowed                // whenever it holds, a rule before it holds
)

// Reach is the outcome of one rule.
type Reach struct {
	Outcome Outcome
	// By is the rule before it that always holds when a shadowed one does, or -1
	// when it takes several.
	By int
}

// Bounds on what is done for one rule, some tens of milliseconds: evaluations, and
// the rules before it that it is compared with.
const (
	most   = 20_000
	before = 100
)

// Reach looks for a request that reaches each of the rules, which are tried in
// this order, and for one that reaches none (the last of what is returned). It
// tries requests that differ in what the rules use; where that is too much, or is
// not used in comparisons alone, it takes the fact for unknown. So it never says
// that a rule is not reached that is; the reverse may happen. A rule may be nil:
// it is one that could not be compiled.
func (c *Compiler) Reach(rules []*Condition, w World) []Reach {
	programs := make([]cel.Program, len(rules))
	for i, r := range rules {
		if r != nil {
			programs[i] = c.partial(r.checked)
		}
	}
	out := make([]Reach, len(rules)+1)
	for i := range rules {
		if programs[i] == nil {
			continue
		}
		out[i] = c.holds(rules[i], programs[i], w)
		if out[i].Outcome == Reached {
			out[i] = c.shadowed(rules[:i+1], programs[:i+1], w)
		}
	}
	n := len(rules)
	out[n] = c.shadowed(append(rules[:n:n], nil), append(programs[:n:n], nil), w)
	return out
}

// partial is the program that takes facts for unknown; nil if there is none.
func (c *Compiler) partial(checked *cel.Ast) cel.Program {
	program, err := c.env.Program(checked, cel.EvalOptions(cel.OptPartialEval), cel.CostLimit(maxCost))
	if err != nil {
		return nil
	}
	return program
}

// holds looks for a request for which the rule may hold.
func (c *Compiler) holds(r *Condition, program cel.Program, w World) Reach {
	s := c.space(usesOf(r), w)
	s.limit(most)
	if s.each(func(vars cel.PartialActivation) bool { return value(program, vars) == types.False }) {
		return Reach{Outcome: Never, By: -1}
	}
	return Reach{}
}

// shadowed is the outcome of the last rule beside those before it. A last rule that
// is nil always holds. Two rules alone use less than all do, so that each pair is
// looked at first.
func (c *Compiler) shadowed(rules []*Condition, programs []cel.Program, w World) Reach {
	last := len(rules) - 1
	from := max(0, last-before)
	for i := from; i < last; i++ {
		if programs[i] != nil && c.covered([]*Condition{rules[i], rules[last]}, []cel.Program{programs[i], programs[last]}, w) {
			return Reach{Outcome: Shadowed, By: i}
		}
	}
	if last-from > 1 && c.covered(rules[from:], programs[from:], w) {
		return Reach{Outcome: Shadowed, By: -1}
	}
	return Reach{}
}

// covered looks for a request for which the last rule may hold and none before it
// holds for sure, and tells whether there is none.
func (c *Compiler) covered(rules []*Condition, programs []cel.Program, w World) bool {
	last := len(rules) - 1
	s := c.space(usesOf(rules...), w)
	s.limit(most / len(rules))
	some := false
	all := s.each(func(vars cel.PartialActivation) bool {
		if programs[last] != nil && value(programs[last], vars) == types.False {
			return true
		}
		some = true
		return slices.ContainsFunc(programs[:last], func(p cel.Program) bool { return p != nil && value(p, vars) == types.True })
	})
	return all && some
}

// value is what an expression comes to; nil when it depends on what is unknown,
// or has no value.
func value(p cel.Program, vars cel.PartialActivation) ref.Val {
	out, _, err := p.Eval(vars)
	if err != nil {
		return nil
	}
	if b, ok := out.(types.Bool); ok {
		return b
	}
	return nil
}
