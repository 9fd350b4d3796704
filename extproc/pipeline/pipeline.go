// Package pipeline runs the stages that decide about one request: in a fixed
// order, each in its configured mode, timed, traced, and closed on failure. It
// knows nothing of Envoy and does no I/O of its own.
package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// Stage is shared by all requests; what belongs to one request lives in the Exchange.
type Stage interface {
	Name() string
	// Request judges the whole request. An error is a fault of weir or of its
	// configuration, not of the request: it is logged and refuses the request
	// as an internal error.
	Request(context.Context, *Exchange) (Verdict, error)
}

// HeadersStage is a stage that also judges the headers alone, before a body is
// buffered.
type HeadersStage interface {
	Headers(context.Context, *Exchange) (Verdict, error)
}

// UndoStage is a stage that took something which has to be given back when the
// request does not go on after all. Undo is idempotent.
type UndoStage interface {
	Undo(*Exchange)
}

// Verdict's zero value means: go on.
type Verdict struct {
	Reply  *Reply    // the answer, when weir answers instead of a backend
	Reason ai.Reason // why the request is refused: the same word in logs, metrics, events and explain
	// Message tells the client of a refusal, in a sentence, and Param names the
	// field of the body that it is about. Neither holds a secret.
	Message string
	Param   string
}

// Reply is a JSON answer that weir gives itself.
type Reply struct {
	Status int
	Body   []byte
}

// Refuse is a refusal.
func Refuse(r ai.Reason, message string) Verdict { return Verdict{Reason: r, Message: message} }

// Stops tells whether the request ends with this verdict.
func (v *Verdict) Stops() bool { return v.Reason != ai.ReasonNone || v.Reply != nil }

// Pipeline is an order of stages. It is safe for concurrent use.
type Pipeline struct {
	// Budget is the most time that the stages of one message may take: after it
	// the request is refused as unavailable. Zero is no bound.
	Budget time.Duration
	Now    func() time.Time
	Log    *slog.Logger

	stages  []Stage
	headers []HeadersStage // parallel to stages; nil where a stage does not judge headers
	undo    []UndoStage
}

// New returns a pipeline of the stages in this order.
func New(stages ...Stage) *Pipeline {
	p := &Pipeline{Now: time.Now, Log: slog.Default(), stages: stages, headers: make([]HeadersStage, len(stages))}
	for i, s := range stages {
		p.headers[i], _ = s.(HeadersStage)
		if u, ok := s.(UndoStage); ok {
			p.undo = append(p.undo, u)
		}
	}
	return p
}

// Stages are the names of the stages in their order.
func (p *Pipeline) Stages() []string {
	names := make([]string, len(p.stages))
	for i, s := range p.stages {
		names[i] = s.Name()
	}
	return names
}

// The steps that the runner adds under its own name.
const (
	inboundStep = "inbound" // the path and the method
	runnerStep  = "pipeline"
)

// Headers judges the headers of a request that has begun.
func (p *Pipeline) Headers(ctx context.Context, ex *Exchange) Verdict {
	ex.In.locate(ex.Plan.Proxies)
	if v := ex.In.classify(); v.Stops() {
		return ex.stop(Step{Stage: inboundStep, Verdict: v})
	}
	return p.run(ctx, ex, func(i int) (Verdict, error, bool) {
		if p.headers[i] == nil {
			return Verdict{}, nil, false
		}
		v, err := p.headers[i].Headers(ctx, ex)
		return v, err, true
	})
}

// Request judges the whole request, after Headers let it go on.
func (p *Pipeline) Request(ctx context.Context, ex *Exchange, body []byte) Verdict {
	ex.In.Body = body
	return p.run(ctx, ex, func(i int) (Verdict, error, bool) {
		v, err := p.stages[i].Request(ctx, ex)
		return v, err, true
	})
}

// Undo gives back what the stages took for a request that does not go on.
func (p *Pipeline) Undo(ex *Exchange) {
	for _, u := range p.undo {
		u.Undo(ex)
	}
}

func (p *Pipeline) run(ctx context.Context, ex *Exchange, call func(i int) (Verdict, error, bool)) Verdict {
	start := p.Now()
	last := start
	for i := range p.stages {
		step := Step{Stage: p.stages[i].Name(), Mode: ex.Plan.Mode(p.stages[i].Name())}
		if step.Mode == plan.Off {
			continue
		}
		edits, ran := len(ex.Edits), false
		if step.Verdict, ran = p.guard(ctx, step.Stage, ex, i, call); !ran {
			continue
		}
		now := p.Now()
		step.Took, last = now.Sub(last), now
		if step.Verdict.Stops() && step.Mode == plan.Enforce {
			p.Undo(ex)
			return ex.stop(step)
		}
		if step.Mode == plan.Shadow {
			ex.Edits = ex.Edits[:edits] // a shadow changes nothing
		}
		ex.Trace.add(step)
		if p.overdue(ctx, now.Sub(start)) {
			p.Undo(ex)
			return ex.stop(Step{Stage: runnerStep, Verdict: Refuse(ai.ReasonUnavailable, "The gateway took too long to decide; try again.")})
		}
	}
	return Verdict{}
}

func (p *Pipeline) overdue(ctx context.Context, took time.Duration) bool {
	return p.Budget > 0 && took > p.Budget || ctx.Err() != nil
}

// guard calls a stage and turns an error or a panic into a refusal. It returns
// false for a stage that has nothing to say here.
func (p *Pipeline) guard(ctx context.Context, name string, ex *Exchange, i int, call func(i int) (Verdict, error, bool)) (v Verdict, ran bool) {
	defer func() {
		if r := recover(); r != nil {
			// The type of the value and not the value, which may hold request data.
			p.Log.ErrorContext(ctx, "stage panicked", "stage", name, "id", ex.In.ID, "panic", panicText(r), "stack", string(debug.Stack()))
			v, ran = internalError(), true
		}
	}()
	v, err, ran := call(i)
	if err != nil {
		p.Log.ErrorContext(ctx, "stage failed", "stage", name, "id", ex.In.ID, "err", err)
		return internalError(), true
	}
	return v, ran
}

func internalError() Verdict {
	return Refuse(ai.ReasonInternal, "The gateway could not decide about this request.")
}

func panicText(r any) string {
	if err, ok := r.(interface {
		error
		RuntimeError()
	}); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", r)
}

// stop notes the step that ends the request.
func (ex *Exchange) stop(s Step) Verdict {
	ex.Trace.stopped = ex.Trace.add(s)
	return s.Verdict
}
