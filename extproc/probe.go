package extproc

import (
	"net/http"
	"slices"
	"time"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
)

// recognise makes a probe of a request that carries a token of the doctor's. Any
// other token, and one that was used, is as good as none: nobody learns that it was
// looked at.
//
// A probe runs through every stage as every request does. Its id says to the ledger
// that it takes nothing, no decision of it is journalled, and it never leaves: weir
// answers whatever the pipeline says.
func (s *Server) recognise(ex *pipeline.Exchange, now time.Time) {
	value, lines := ex.In.Header(probe.Header)
	if lines != 1 {
		return
	}
	t, ok := ex.Plan.Probe.Read(value, now)
	if !ok || !s.seen.Take(t, now) {
		return
	}
	ex.Probe = &t
	ex.In.ID = ai.ProbeID(ex.In.ID)
	if t.As != "" {
		ex.Plan = standIn(ex, t.As)
	}
}

// standIn is the plan in which the bearer token of the request opens the named key.
func standIn(ex *pipeline.Exchange, name string) *plan.Plan {
	value, lines := ex.In.Header("authorization")
	token, ok := ai.BearerToken(value)
	if lines != 1 || !ok {
		return ex.Plan
	}
	if made, ok := ex.Plan.Opening(name, token); ok {
		return made
	}
	return ex.Plan
}

// probed answers a probe: with the refusal that any client would get, or in the
// place of the target, and with what was judged, signed.
func (s *Server) probed(c *call, v *pipeline.Verdict) immediate {
	ex := &c.ex
	im := immediate{status: http.StatusOK, body: []byte(`{"object":"weir.probe"}`), headers: []pipeline.Header{
		{Name: "content-type", Value: jsonType}, {Name: ai.DecisionHeader, Value: ex.In.ID},
	}}
	if v.Stops() {
		im = render(ex, v)
	}
	a := &probe.Answer{ID: ex.In.ID, Plan: ex.Plan.Version, Verdict: probe.Passed, Reason: string(v.Reason), Leaked: leaked(ex)}
	switch {
	case v.Reply != nil:
		a.Verdict = probe.Replied
	case v.Stops():
		a.Verdict = probe.Refused
	}
	if step, ok := ex.Trace.Stopped(); ok {
		a.Stage = step.Stage
	}
	a.Stages = judged(ex, s.opt.Pipeline.Stages())
	for _, l := range ex.Reserved.Limits[:min(len(ex.Reserved.Limits), probe.MaxLimits)] {
		a.Limits = append(a.Limits, probe.Limit{Name: l.Name, Refused: l == ex.Reserved.Result.Limit})
	}
	im.headers = append(im.headers, pipeline.Header{Name: probe.Header, Value: ex.Plan.Probe.Sign(ex.Probe.Nonce, a)})
	return im
}

// judged is what each stage of the pipeline did, those that did not run included.
func judged(ex *pipeline.Exchange, names []string) []probe.Stage {
	var all []probe.Stage
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			continue
		}
		st := probe.Stage{Name: name, Mode: ex.Plan.Mode(name).String()}
		for j := range ex.Trace.Steps {
			if step := &ex.Trace.Steps[j]; step.Stage == name {
				st.Ran, st.Reason = true, string(step.Verdict.Reason)
			}
		}
		all = append(all, st)
	}
	return all
}

// leaked names the headers that the doctor sent and Envoy should have dropped.
func leaked(ex *pipeline.Exchange) []string {
	var names []string
	nonce := ex.Probe.Nonce.String()
	for _, h := range ex.In.Headers {
		if h.Value == nonce && len(names) < probe.MaxLeaked {
			names = append(names, string([]byte(h.Name))) // the buffer is used again
		}
	}
	return names
}
