// Package tokens is the stage that bounds a request's input tokens, and lends
// later stages an exact count for when a decision depends on it.
package tokens

import (
	"context"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/tokens"
)

// Stage estimates input tokens.
type Stage struct{ counter counter }

// New makes the stage; c counts when an exact figure is asked for.
func New(c tokens.Counter) *Stage { return &Stage{counter{c}} }

// Name of the stage.
func (*Stage) Name() string { return "tokens" }

// Request bounds the input. It never refuses.
func (s *Stage) Request(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	ex.Estimate = pipeline.NewEstimate(s.counter, &ex.In.Request)
	return pipeline.Verdict{}, nil
}

type counter struct{ text tokens.Counter }

func (counter) Bound(r *openai.Request) int64 { return tokens.Bound(r) }

func (c counter) Exact(r *openai.Request) (int64, bool) { return tokens.Exact(c.text, r) }
