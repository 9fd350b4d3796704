package extproc

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

const jsonType = "application/json"

// prepare fills in what is sent for a request that is let through.
func (c *call) prepare() error {
	ex, f := &c.ex, &c.forward
	r, m := &ex.In.Request, ex.Decision.Model
	span, ok := openai.MovedSpan(r.ModelSpan, ex.Edits)
	if !ok {
		return errors.New("an edit touches the model's name")
	}
	f.body, f.edits, f.id, f.targets = ex.In.Body, ex.Edits, ex.In.ID, ex.Decision.Targets
	c.again = append(c.again[:0], f.targets...)
	for _, p := range f.targets {
		if ex.Decision.Tries(p) > 1 {
			c.again = append(c.again, p)
		}
	}
	f.targets = c.again
	f.newSize = len(f.body)
	for i := range f.edits {
		f.newSize += len(f.edits[i].Text) - f.edits[i].Len
	}
	f.adapter = ai.AdapterRequest{
		ModelOffset: span.Off,
		ModelLength: span.Len,
		Stream:      r.Stream,
		StripUsage:  r.Stream && !r.IncludeUsage,
	}
	perTry := m.AttemptTimeout
	if r.Stream {
		perTry = m.FirstTokenTimeout
	}
	f.set = append(f.set[:0],
		pipeline.Header{Name: "x-envoy-max-retries", Value: strconv.Itoa(len(f.targets) - 1)},
		pipeline.Header{Name: "x-envoy-upstream-rq-per-try-timeout-ms", Value: strconv.FormatInt(perTry.Milliseconds(), 10)},
		// The adapter reads the response as it passes: it must not be compressed.
		pipeline.Header{Name: "accept-encoding", Value: "identity"})
	if slices.ContainsFunc(f.targets, func(p *plan.Pool) bool { return p.PrefixLoad > 0 }) {
		if key, ok := r.PrefixKey(); ok {
			f.set = append(f.set, pipeline.Header{Name: ai.AffinityHeader, Value: strconv.FormatUint(key, 16)})
		}
	}
	// The body was read as JSON, so it is sent as JSON: no backend may read it as
	// something else, and a client that names no type, or a form's, is understood.
	if v, _ := ex.In.HeaderList("content-type"); v != jsonType {
		f.set = append(f.set, pipeline.Header{Name: "content-type", Value: jsonType})
	}
	if len(f.edits) > 0 {
		f.set = append(f.set, pipeline.Header{Name: "content-length", Value: strconv.Itoa(f.newSize)})
	}
	return nil
}

// render is how a verdict that stops appears to the client.
func render(ex *pipeline.Exchange, v *pipeline.Verdict) immediate {
	im := immediate{headers: []pipeline.Header{
		{Name: "content-type", Value: jsonType},
		{Name: ai.DecisionHeader, Value: ex.In.ID},
	}}
	if v.Reply != nil {
		im.status, im.body = v.Reply.Status, v.Reply.Body
		return im
	}
	answer := v.Reason.Answer()
	im.status = answer.Status
	im.body = openai.ErrorBody(v.Reason, v.Message, v.Param)
	switch answer.Status {
	case 401:
		im.headers = append(im.headers, pipeline.Header{Name: "www-authenticate", Value: "Bearer"})
	case 405:
		im.headers = append(im.headers, pipeline.Header{Name: "allow", Value: allow(ex.In.Kind)})
	case 429:
		if v.Reason == ai.ReasonPoolResting {
			im.headers = append(im.headers, retryAfter(ex.Decision.RestsFor))
			break
		}
		im.headers = appendLimits(im.headers, &ex.Reserved.Result)
	case 503:
		im.headers = append(im.headers, pipeline.Header{Name: "retry-after", Value: "1"})
	}
	return im
}

func allow(k ai.Kind) string {
	if k == ai.KindModels {
		return "GET"
	}
	return "POST"
}

// appendLimits tells the client how far it is and when to come again, as
// OpenAI's API does.
func appendLimits(h []pipeline.Header, r *limit.Result) []pipeline.Header {
	if r.Impossible || r.Limit != nil && r.Limit.Period != "" {
		// Read by OpenAI's SDKs, which otherwise retry a 429.
		h = append(h, pipeline.Header{Name: "x-should-retry", Value: "false"})
	}
	if !r.Impossible {
		h = append(h, retryAfter(r.RetryAfter))
	}
	h = appendFigure(h, "requests", &r.Requests)
	return appendFigure(h, "tokens", &r.Tokens)
}

func retryAfter(d time.Duration) pipeline.Header {
	return pipeline.Header{Name: "retry-after", Value: strconv.FormatInt(wholeSeconds(jittered(d)), 10)}
}

// jittered makes up to an eighth more of a time, a minute at most, so that those
// who were refused together do not come back together.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(min(d/8, time.Minute))+1))
}

func appendFigure(h []pipeline.Header, unit string, f *limit.Figure) []pipeline.Header {
	if f.Limit <= 0 {
		return h
	}
	return append(h,
		pipeline.Header{Name: "x-ratelimit-limit-" + unit, Value: strconv.FormatInt(f.Limit, 10)},
		pipeline.Header{Name: "x-ratelimit-remaining-" + unit, Value: strconv.FormatInt(max(0, f.Remaining), 10)},
		pipeline.Header{Name: "x-ratelimit-reset-" + unit, Value: max(0, f.Reset).Round(time.Millisecond).String()})
}

// wholeSeconds rounds up; at least 1, since 0 invites a client to try at once.
func wholeSeconds(d time.Duration) int64 {
	return max(1, int64((d+time.Second-1)/time.Second))
}
