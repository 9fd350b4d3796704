// Package decode is the stage that reads the request: its framing from the
// headers, and its body in one strict pass. What comes after it reads the body
// exactly as the backend will.
package decode

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
)

// Stage decodes requests in OpenAI's dialect.
type Stage struct{}

// Name of the stage.
func (Stage) Name() string { return "decode" }

// Headers refuses what could not be read, before Envoy buffers it.
func (Stage) Headers(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	if ex.In.Kind == ai.KindModels {
		return pipeline.Verdict{}, nil
	}
	if encoding, lines := ex.In.Header("content-encoding"); lines > 1 || lines == 1 && !strings.EqualFold(encoding, "identity") {
		return pipeline.Refuse(ai.ReasonEncodedBody, "Send the body without content-encoding."), nil
	}
	if !ex.In.BodyFollows {
		return empty(), nil
	}
	if text, lines := ex.In.Header("content-length"); lines > 0 {
		// What is no number is Envoy's to refuse; the body is measured again.
		if n, err := strconv.ParseUint(text, 10, 63); err == nil && int64(n) > ex.Plan.Bounds.MaxBodyBytes {
			return tooLarge(ex), nil
		}
	}
	return pipeline.Verdict{}, nil
}

// Request scans the body.
func (Stage) Request(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	in := &ex.In
	switch {
	case len(in.Body) == 0:
		return empty(), nil
	case int64(len(in.Body)) > ex.Plan.Bounds.MaxBodyBytes:
		return tooLarge(ex), nil
	}
	if fault := openai.Parse(in.Kind, in.Body, ex.Plan.Bounds.MaxDepth, &in.Request); fault != nil {
		return pipeline.Verdict{Reason: fault.Reason, Message: fault.Message, Param: fault.Param}, nil
	}
	if edit, ok := in.Request.IncludeUsageEdit(); ok {
		ex.Edits = append(ex.Edits, edit)
	}
	return pipeline.Verdict{}, nil
}

func empty() pipeline.Verdict {
	return pipeline.Refuse(ai.ReasonEmptyBody, "The request has no body: send a JSON object.")
}

func tooLarge(ex *pipeline.Exchange) pipeline.Verdict {
	return pipeline.Refuse(ai.ReasonTooLarge, fmt.Sprintf("The body is larger than %d bytes.", ex.Plan.Bounds.MaxBodyBytes))
}
