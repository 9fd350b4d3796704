// Package tokens is the stage that lends later stages counts of a request's input
// tokens, as each pool's backend counts them.
package tokens

import (
	"context"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/tokens"
)

// Stage counts input tokens when somebody asks.
type Stage struct{ counter counter }

// New makes the stage. memo remembers what was counted, nil remembers nothing;
// learned corrects estimates.
func New(memo *tokens.Memo, learned *tokens.Learned) *Stage {
	return &Stage{counter{memo, learned}}
}

// Name of the stage.
func (*Stage) Name() string { return "tokens" }

// Request lends the counter. It never refuses.
func (s *Stage) Request(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	ex.Estimate = pipeline.NewEstimate(&s.counter, ex)
	return pipeline.Verdict{}, nil
}

type counter struct {
	memo    *tokens.Memo
	learned *tokens.Learned
}

func (counter) Bound(ex *pipeline.Exchange) int64 { return tokens.Bound(&ex.In.Request) }

func (c counter) Count(ex *pipeline.Exchange, p *plan.Pool) tokens.Count {
	t := p.Tokenizer
	if t == nil {
		t = tokens.Unknown
	}
	tenant := ex.Principal.Team
	if tenant == "" {
		tenant = ex.Principal.Key
	}
	n := t.Count(&ex.In.Request, tokens.Session{
		Memo: c.memo, Tenant: tenant, Hashes: ex.Estimate.Hashes(), Now: ex.In.Time, Doubt: c.learned.Doubts(p.Name),
	})
	return c.learned.Correct(p.Name, n)
}
