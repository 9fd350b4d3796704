package rule

import (
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/common/ast"

	"github.com/weirproxy/weir/internal/plan"
)

// liveField is a field of a pool or a limit that a condition names.
type liveField struct{ variable, name, field string }

func (l liveField) String() string { return fmt.Sprintf("%s[%q].%s", l.variable, l.name, l.field) }

// liveFields are those of an expression, each once, in the order of the text.
func liveFields(e ast.Expr) (fields []liveField) {
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.SelectKind {
			return
		}
		name, variable := indexed(e.AsSelect().Operand())
		f := liveField{variable, name, e.AsSelect().FieldName()}
		if (variable == "pools" || variable == "limits") && !slices.Contains(fields, f) {
			fields = append(fields, f)
		}
	}))
	return fields
}

var _ plan.Reader = (*Condition)(nil)

// Read tells which live facts the condition named and with what values it was
// evaluated, of those that were looked up for the request.
func (c *Condition) Read(seen *plan.Seen) (values []plan.Reading) {
	for _, f := range c.live {
		switch f.variable {
		case "pools":
			at := slices.IndexFunc(seen.Pools, func(s plan.PoolSeen) bool { return s.Pool.Name == f.name })
			if known, ok := poolFields[f.field]; ok && at >= 0 {
				values = append(values, readPool(f, known, &seen.Pools[at]))
			}
		case "limits":
			at := slices.IndexFunc(seen.Limits, func(s plan.LimitSeen) bool { return s.Limit.Name == f.name })
			if known, ok := limitFields[f.field]; ok && at >= 0 {
				l := limitFact(seen.Limits[at])
				values = append(values, plan.Reading{Name: f.String(), Value: known.value(&l).Value(), Known: l.Known})
			}
		}
	}
	return values
}

// readPool tells a field of a pool, and how old that is where the backends told it.
func readPool(f liveField, known field[poolFact], s *plan.PoolSeen) plan.Reading {
	p := poolFact(*s)
	r := plan.Reading{Name: f.String(), Value: known.value(&p).Value(), Known: s.Followed}
	switch f.field {
	case "running", "waiting", "waiting_per_endpoint", "kv_use", "known", "stale":
		r.Known = s.Known
		if !s.Heard.IsZero() {
			r.Age = max(0, s.Now.Sub(s.Heard)).Round(time.Millisecond)
		}
	case "error_rate", "refused_rate":
		r.Known = s.Attempts > 0
	case "first_token_ms":
		r.Known = s.FirstToken > 0
	case "endpoints", "input_price", "output_price":
		r.Known = true // the configuration's
	}
	return r
}
