// Package models is the stage that answers GET /v1/models and
// GET /v1/models/{model}: only what a role of the caller permits now exists for it.
package models

import (
	"context"
	"net/http"
	"net/url"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
)

// Stage answers questions about models.
type Stage struct{}

// Name of the stage.
func (Stage) Name() string { return "models" }

// Headers answers; it needs the caller's grants, so auth and access come before it.
func (Stage) Headers(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	if ex.In.Kind != ai.KindModels {
		return pipeline.Verdict{}, nil
	}
	if ex.In.ModelPath != "" {
		return one(ex), nil
	}
	ids := make([]string, 0, len(ex.Plan.ModelList))
	for _, m := range ex.Plan.ModelList {
		if ex.Grants.MayGet(m) {
			ids = append(ids, m.Name)
			ids = append(ids, m.Aliases...)
		}
	}
	return reply(openai.ModelsBody(ids)), nil
}

// Request has nothing to judge: questions about models end with their headers.
func (Stage) Request(context.Context, *pipeline.Exchange) (pipeline.Verdict, error) {
	return pipeline.Verdict{}, nil
}

// one answers for one model. A model that may not be called answers as one that
// is not there.
func one(ex *pipeline.Exchange) pipeline.Verdict {
	name, err := url.PathUnescape(ex.In.ModelPath)
	m, ok := ex.Plan.Models[name]
	if err != nil || !ok || !ex.Grants.MayGet(m) {
		return pipeline.Refuse(ai.ReasonUnknownModel, "The model does not exist, or you may not call it.")
	}
	ex.Decision.Model = m
	return reply(openai.ModelBody(name))
}

func reply(body []byte) pipeline.Verdict {
	return pipeline.Verdict{Reply: &pipeline.Reply{Status: http.StatusOK, Body: body}}
}
