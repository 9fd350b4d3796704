package template

import "github.com/weirproxy/weir/dialect"

// generic stands for the templates of models that weir does not know: a ChatML of
// the usual size, with tools and calls as JSON. It is never exact, and its bound is
// above those of all families.
var generic = &Template{name: "generic", walk: func(r *renderer) { r.generic() }, estimate: true, bound: genericBound}

func (r *renderer) generic() {
	if r.tools(nil) > 0 {
		r.w.Special(imStart)
		r.w.Literal("system\n")
		r.qwenTools(false)
		r.endTurn()
	}
	for i := range r.v.Messages {
		m := &r.v.Messages[i]
		r.w.Special(imStart)
		r.role(m)
		r.w.Literal("\n")
		r.everything(m)
		r.endTurn()
	}
	r.w.Special(imStart)
	r.w.Literal("assistant\n")
}

// everything writes all text of m: the content, and what a template may show.
func (r *renderer) everything(m *dialect.Message) {
	r.shown = true
	next := m.FirstMedia
	media := func(before int) {
		for ; next < m.EndMedia && r.v.Media[next].Before <= before; next++ {
			r.w.Special("<|vision_start|>")
			r.w.Media(&r.v.Media[next])
			r.w.Special("<|vision_end|>")
		}
	}
	for i := m.First; i < m.End; i++ {
		media(i)
		switch s := &r.v.Segments[i]; s.Kind {
		case dialect.RoleName, dialect.ToolCallID, dialect.ToolCallName, dialect.ToolArguments:
		default:
			r.w.Segment(s, false)
		}
	}
	media(m.End)
	for _, c := range r.toolCalls(m) {
		r.w.Literal("\n")
		r.qwenCall(c, false, false)
	}
}
