package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/tokens"
)

// stage is a stage that does as it is told, and tells that it ran.
type stage struct {
	name    string
	verdict Verdict
	err     error
	panics  any
	ran     *[]string
}

func (s stage) Name() string { return s.name }

func (s stage) Request(_ context.Context, ex *Exchange) (Verdict, error) {
	*s.ran = append(*s.ran, s.name)
	ex.Edits = append(ex.Edits, openai.Edit{Text: s.name})
	if s.panics != nil {
		panic(s.panics)
	}
	return s.verdict, s.err
}

func (s stage) Undo(*Exchange) { *s.ran = append(*s.ran, "undo "+s.name) }

// judge is a stage that judges headers too.
type judge struct{ stage }

func (s judge) Headers(context.Context, *Exchange) (Verdict, error) {
	*s.ran = append(*s.ran, s.name+" headers")
	return s.verdict, s.err
}

func newPipeline(stages ...Stage) *Pipeline {
	p := New(stages...)
	p.Log = slog.New(slog.DiscardHandler)
	return p
}

func begin(modes map[string]plan.Mode) *Exchange {
	ex := new(Exchange)
	ex.Begin(&plan.Plan{Modes: modes}, "id", time.Time{}, []Header{{":path", "/v1/chat/completions"}, {":method", "POST"}}, true)
	return ex
}

func TestRun(t *testing.T) {
	no := Refuse(ai.ReasonNoRoute, "no")
	for _, tc := range []struct {
		name   string
		b      stage
		modes  map[string]plan.Mode
		want   ai.Reason
		ran    []string
		edits  int
		shadow bool
	}{
		{name: "all go on", ran: []string{"a", "b", "c"}, edits: 3},
		{name: "refused", b: stage{verdict: no}, want: ai.ReasonNoRoute, ran: []string{"a", "b", "undo a", "undo b", "undo c"}, edits: 2},
		{name: "shadow", b: stage{verdict: no}, modes: map[string]plan.Mode{"b": plan.Shadow}, ran: []string{"a", "b", "c"}, edits: 2, shadow: true},
		{name: "off", b: stage{verdict: no}, modes: map[string]plan.Mode{"b": plan.Off}, ran: []string{"a", "c"}, edits: 2},
		{name: "error", b: stage{err: errors.New("broken")}, want: ai.ReasonInternal, ran: []string{"a", "b", "undo a", "undo b", "undo c"}, edits: 2},
		{name: "panic", b: stage{panics: "x"}, want: ai.ReasonInternal, ran: []string{"a", "b", "undo a", "undo b", "undo c"}, edits: 2},
		{name: "runtime panic", b: stage{panics: nilMap()}, want: ai.ReasonInternal, ran: []string{"a", "b", "undo a", "undo b", "undo c"}, edits: 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var ran []string
			tc.b.name, tc.b.ran = "b", &ran
			ex := begin(tc.modes)
			v := newPipeline(stage{name: "a", ran: &ran}, tc.b, stage{name: "c", ran: &ran}).Request(t.Context(), ex, nil)
			if v.Reason != tc.want || v.Stops() != (tc.want != "") {
				t.Errorf("verdict %+v, want %q", v, tc.want)
			}
			if diff := cmp.Diff(tc.ran, ran); diff != "" {
				t.Errorf("ran (-want +got):\n%s", diff)
			}
			if len(ex.Edits) != tc.edits {
				t.Errorf("edits %v, want %d", ex.Edits, tc.edits)
			}
			if step, ok := ex.Trace.Stopped(); ok != (tc.want != "") || ok && step.Stage != "b" {
				t.Errorf("stopped by %+v, %v", step, ok)
			}
			if step, ok := ex.Trace.Shadowed(); ok != tc.shadow || ok && (step.Stage != "b" || step.Verdict.Reason != ai.ReasonNoRoute) {
				t.Errorf("shadowed by %+v, %v", step, ok)
			}
		})
	}
}

// nilMap is a panic of the runtime's.
func nilMap() (r any) {
	defer func() { r = recover() }()
	var m map[string]int
	m["x"]++
	return nil
}

func TestHeadersRunsOnlyThoseWhoJudgeThem(t *testing.T) {
	var ran []string
	ex := begin(nil)
	p := newPipeline(stage{name: "a", ran: &ran}, judge{stage{name: "b", ran: &ran}})
	if v := p.Headers(t.Context(), ex); v.Stops() {
		t.Fatal(v)
	}
	p.Request(t.Context(), ex, []byte("x"))
	if want := []string{"b headers", "a", "b"}; !slices.Equal(ran, want) {
		t.Errorf("ran %v, want %v", ran, want)
	}
	// Each stage has one step, though b ran twice.
	if len(ex.Trace.Steps) != 2 || string(ex.In.Body) != "x" {
		t.Errorf("steps %+v, body %q", ex.Trace.Steps, ex.In.Body)
	}
}

// A step whose time is up refuses what it would have let through.
func TestBudget(t *testing.T) {
	var ran []string
	p := newPipeline(stage{name: "a", ran: &ran}, stage{name: "b", ran: &ran})
	now := time.Unix(0, 0)
	p.Now = func() time.Time { now = now.Add(time.Second); return now }
	p.Budget = 1500 * time.Millisecond
	ex := begin(nil)
	if v := p.Request(t.Context(), ex, nil); v.Reason != ai.ReasonUnavailable {
		t.Errorf("verdict %+v", v)
	}
	if want := []string{"a", "b", "undo a", "undo b"}; !slices.Equal(ran, want) {
		t.Errorf("ran %v, want %v", ran, want)
	}
	if took := ex.Trace.Steps[1].Took; took != time.Second {
		t.Errorf("took %v", took)
	}
}

func TestCallerGone(t *testing.T) {
	var ran []string
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v := newPipeline(stage{name: "a", ran: &ran}, stage{name: "b", ran: &ran}).Request(ctx, begin(nil), nil)
	if want := []string{"a", "undo a", "undo b"}; v.Reason != ai.ReasonUnavailable || !slices.Equal(ran, want) {
		t.Errorf("%+v, ran %v", v, ran)
	}
}

// Nothing of one request may show in the next one that uses its memory.
func TestBeginForgets(t *testing.T) {
	ex := begin(nil)
	ex.In.Body, ex.In.Kind, ex.In.ModelPath = []byte("secret"), ai.KindChat, "m"
	ex.In.Request = openai.Request{Model: "m", Stream: true, MaxOutput: 5}
	ex.In.Request.Segments, ex.In.Request.Messages = make([]dialect.Segment, 3), make([]dialect.Message, 2)
	ex.In.Request.Media, ex.In.Request.TokenIDs = make([]dialect.Media, 1), 4
	ex.In.Request.Fields, ex.In.Request.MediaLimits = make([]dialect.Field, 1), true
	ex.Estimate = NewEstimate(&counter{}, ex)
	ex.Principal = ai.Principal{Key: "k"}
	ex.Grants, _ = plan.Grant([]*plan.Role{{Name: "r"}})
	ex.Edits = append(ex.Edits, openai.Edit{Text: "e"})
	ex.Decision = Decision{Model: new(plan.Model), Rule: "r", Targets: make([]*plan.Pool, 2), Dropped: make([]Drop, 2)}
	ex.Reserved.Result.Held = true
	ex.Trace.stopped = ex.Trace.add(Step{Stage: "s"})
	p := new(plan.Plan)
	ex.Begin(p, "next", time.Unix(1, 0), nil, false)
	got := *ex
	for _, s := range []struct {
		name string
		n    int
	}{
		{"segments", len(got.In.Request.Segments)}, {"messages", len(got.In.Request.Messages)}, {"media", len(got.In.Request.Media)}, {"fields", len(got.In.Request.Fields)}, {"edits", len(got.Edits)}, {"targets", len(got.Decision.Targets)},
		{"dropped", len(got.Decision.Dropped)}, {"steps", len(got.Trace.Steps)},
	} {
		if s.n != 0 {
			t.Errorf("%d %s left", s.n, s.name)
		}
	}
	v := &got.In.Request.View
	v.Segments, v.Messages, v.Media, v.Fields = nil, nil, nil, nil
	got.Edits, got.Decision.Targets, got.Decision.Dropped, got.Trace.Steps = nil, nil, nil, nil
	fresh := Exchange{Plan: p, In: Inbound{ID: "next", Time: time.Unix(1, 0)}}
	all := cmp.Exporter(func(reflect.Type) bool { return true })
	if diff := cmp.Diff(fresh, got, all); diff != "" {
		t.Errorf("left behind (-fresh +got):\n%s", diff)
	}
}

func TestTraceID(t *testing.T) {
	const id = "0af7651916cd43dd8448eb211c80319c"
	for value, want := range map[string]string{
		"00-" + id + "-b7ad6b7169203331-01":                       id,
		"01-" + id + "-b7ad6b7169203331-01-more":                  id,
		"ff-" + id + "-b7ad6b7169203331-01":                       "",
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "",
		"00-" + id:                          "",
		"":                                  "",
		"00_" + id + "-b7ad6b7169203331-01": "",
	} {
		in := Inbound{Headers: []Header{{"traceparent", value}}}
		if got := in.TraceID(); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
	two := Inbound{Headers: []Header{{"traceparent", "00-" + id + "-b7ad6b7169203331-01"}, {"traceparent", "00-" + id + "-b7ad6b7169203331-01"}}}
	if two.TraceID() != "" {
		t.Error("two trace parents give a trace id")
	}
}

func TestHeaderList(t *testing.T) {
	in := Inbound{Headers: []Header{{"x-tier", "gold"}, {"y", "1"}, {"x-tier", "silver"}}}
	for name, want := range map[string]string{"x-tier": "gold,silver", "y": "1"} {
		if got, ok := in.HeaderList(name); got != want || !ok {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
	}
	if _, ok := in.HeaderList("z"); ok {
		t.Error("a header that is not there has a value")
	}
}

// counter counts as it is told.
type counter struct {
	count  tokens.Count
	bounds int
	asked  int
}

func (c *counter) Bound(*Exchange) int64 { c.bounds++; return c.count.Bound }

func (c *counter) Count(_ *Exchange, p *plan.Pool) tokens.Count { c.asked++; return c.count }

// Each pool is counted once, and only when somebody asks.
func TestEstimate(t *testing.T) {
	pools := make([]plan.Pool, 6)
	for _, tc := range []struct {
		name      string
		count     tokens.Count
		certainty ai.Certainty
	}{
		{"exact", tokens.Count{Tokens: 60, Bound: 60, Exact: true}, ai.Counted},
		{"not exact", tokens.Count{Tokens: 60, Bound: 100}, ai.Estimated},
	} {
		c := &counter{count: tc.count}
		ex := begin(nil)
		ex.In.Request.TokenIDs = 7
		e := NewEstimate(c, ex)
		if n, certainty := e.Likely(); n != 7 || certainty != ai.Estimated || c.asked+c.bounds != 0 {
			t.Errorf("%s: before counting: %d, %v, asked %d times", tc.name, n, certainty, c.asked)
		}
		if e.Bound() != tc.count.Bound || e.Bound() != tc.count.Bound || c.bounds != 1 {
			t.Errorf("%s: bound %d, asked %d times", tc.name, e.Bound(), c.bounds)
		}
		for range 2 {
			if n, certainty := e.Known(&pools[0]); n != tc.count.Tokens || certainty != tc.certainty || c.asked != 1 {
				t.Errorf("%s: %d, %v, asked %d times", tc.name, n, certainty, c.asked)
			}
		}
		if n, certainty := e.Likely(); n != tc.count.Tokens || certainty != tc.certainty {
			t.Errorf("%s: after counting: %d, %v", tc.name, n, certainty)
		}
		for i := range pools { // more than are remembered
			if got := e.Count(&pools[i]); got != tc.count {
				t.Errorf("%s: pool %d: %+v", tc.name, i, got)
			}
		}
	}
	var none Estimate
	if n, certainty := none.Likely(); n != 0 || certainty != ai.CertaintyUnspecified || none.Counts() || none.Bound() != 0 {
		t.Errorf("nothing known: %d, %v", n, certainty)
	}
}
