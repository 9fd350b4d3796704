package template

import (
	"bytes"

	"github.com/weirproxy/weir/dialect"
)

// The templates of DeepSeek-V3, DeepSeek-V3.1 and DeepSeek-R1 (and the models that
// were distilled from it). Those of V3 and R1 were changed after the release in how
// they show calls, so chats with calls are not exact.
var (
	deepseekV3  = &Template{name: "deepseek-v3", walk: func(r *renderer) { r.deepseekV3() }, bound: deepseekBound}
	deepseekV31 = &Template{name: "deepseek-v3.1", walk: func(r *renderer) { r.deepseekV31() }, bound: deepseekBound}
	deepseekR1  = &Template{name: "deepseek-r1", walk: func(r *renderer) { r.deepseekR1() }, bound: deepseekBound}
)

const (
	dsBegin     = "<｜begin▁of▁sentence｜>"
	dsEnd       = "<｜end▁of▁sentence｜>"
	dsUser      = "<｜User｜>"
	dsAssistant = "<｜Assistant｜>"
	dsCalls     = "<｜tool▁calls▁begin｜>"
	dsCallsEnd  = "<｜tool▁calls▁end｜>"
	dsCall      = "<｜tool▁call▁begin｜>"
	dsSep       = "<｜tool▁sep｜>"
	dsCallEnd   = "<｜tool▁call▁end｜>"
	dsOuts      = "<｜tool▁outputs▁begin｜>"
	dsOutsEnd   = "<｜tool▁outputs▁end｜>"
	dsOut       = "<｜tool▁output▁begin｜>"
	dsOutEnd    = "<｜tool▁output▁end｜>"
)

// dsSystem writes the system's messages, wherever they stand, and answers how many
// there are. The templates do not show the tools that are offered; whoever serves
// the models with tools writes them there in some way.
func (r *renderer) dsSystem() (n int) {
	r.w.Special(dsBegin)
	for i := range r.v.Messages {
		if m := &r.v.Messages[i]; m.Role == dialect.RoleSystem {
			if n > 0 {
				r.w.Literal("\n\n")
			}
			n++
			r.emit(r.content(m), false)
		}
	}
	if r.offers() {
		r.doubt()
		r.w.Literal("\n\n")
		r.qwenTools(false)
	}
	return n
}

func (r *renderer) dsUser(m *dialect.Message) {
	r.w.Special(dsUser)
	r.emit(r.content(m), false)
}

// dsCalls raises doubt where there are calls.
func (r *renderer) dsCalls() {
	for i := range r.v.Messages {
		if m := &r.v.Messages[i]; m.ToolCalls > 0 || m.Role == dialect.RoleTool {
			r.doubt()
		}
	}
}

func (r *renderer) deepseekV3() {
	r.dsCalls()
	r.dsSystem()
	results, called, shown := false, false, false
	for i := range r.v.Messages {
		switch m := &r.v.Messages[i]; m.Role {
		case dialect.RoleUser:
			results = false
			r.dsUser(m)
		case dialect.RoleAssistant:
			r.v3Assistant(m, results, &called)
			results = false
		case dialect.RoleTool:
			if !shown { // the first result of the chat
				r.w.Special(dsOuts)
			}
			r.dsResult(m)
			results, shown = true, true
		}
	}
	if results {
		r.w.Special(dsOutsEnd)
	} else {
		r.w.Special(dsAssistant)
	}
}

func (r *renderer) v3Assistant(m *dialect.Message, results bool, called *bool) {
	if calls := r.toolCalls(m); len(calls) > 0 {
		if !*called {
			r.w.Special(dsAssistant)
			r.emit(r.content(m), false)
			r.w.Special(dsCalls)
		}
		for i, c := range calls {
			r.dsCall(c, *called || i > 0, false)
		}
		*called = true
		r.w.Special(dsCallsEnd)
	} else if results {
		r.w.Special(dsOutsEnd)
		r.emit(r.content(m), false)
	} else {
		r.w.Special(dsAssistant)
		r.emit(r.said(m, false), false)
	}
	r.w.Special(dsEnd)
}

// dsCall writes a call; the arguments are parsed, or as the client wrote them.
func (r *renderer) dsCall(c call, line, parsed bool) {
	if line {
		r.w.Literal("\n")
	}
	r.w.Special(dsCall)
	r.w.Literal("function")
	r.w.Special(dsSep)
	r.callName(c)
	r.w.Literal("\n```json\n")
	if parsed {
		b, _ := r.arguments(c)
		r.bytes(b)
	} else if c.arguments != nil {
		r.w.Segment(c.arguments, false)
	}
	r.w.Literal("\n```")
	r.w.Special(dsCallEnd)
}

func (r *renderer) dsResult(m *dialect.Message) {
	r.w.Special(dsOut)
	r.emit(r.content(m), false)
	r.w.Special(dsOutEnd)
}

func (r *renderer) deepseekR1() {
	r.dsCalls()
	if r.o.Backend == Hosted {
		r.doubt() // some count it without the mark that thinking begins
	}
	if r.dsSystem() > 1 {
		r.doubt() // in one edition the last one replaces the others
	}
	results, called, shown := false, false, false
	for i := range r.v.Messages {
		switch m := &r.v.Messages[i]; m.Role {
		case dialect.RoleUser:
			results = false
			r.dsUser(m)
		case dialect.RoleAssistant:
			if calls := r.toolCalls(m); len(calls) > 0 {
				results = false
				called = r.r1Calls(calls, called)
			}
			if results {
				r.w.Special(dsOutsEnd)
				r.emit(r.content(m), false)
				results = false
			} else {
				r.w.Special(dsAssistant)
				r.emit(r.said(m, false), false)
			}
			r.w.Special(dsEnd)
		case dialect.RoleTool:
			if !shown {
				r.w.Special(dsOuts)
			} else {
				r.w.Literal("\n")
			}
			r.dsResult(m)
			results, shown = true, true
		}
	}
	if results {
		r.w.Special(dsOutsEnd)
		return
	}
	r.w.Special(dsAssistant)
	r.w.Special("<think>")
	r.w.Literal("\n")
}

func (r *renderer) r1Calls(calls []call, called bool) bool {
	if !called {
		r.w.Special(dsAssistant)
		r.w.Special(dsCalls)
	}
	for i, c := range calls {
		r.dsCall(c, called || i > 0, true)
	}
	r.w.Special(dsCallsEnd)
	r.w.Special(dsEnd)
	return true
}

// said is the content of m without what was thought: what is behind the last
// </think>, or behind the first one.
func (r *renderer) said(m *dialect.Message, first bool) content {
	c := r.content(m)
	if s := c.segment; s != nil && !r.mayEndThought(s) {
		return c
	}
	b := r.decoded(c)
	i := bytes.LastIndex(b, thinkEnd)
	if first {
		i = bytes.Index(b, thinkEnd)
	}
	if i < 0 {
		return c
	}
	if !first {
		r.doubt() // the first editions of these templates kept it
	}
	return content{bytes: b[i+len(thinkEnd):]}
}

func (r *renderer) deepseekV31() {
	if r.set.effort != nil || r.set.enableThinking != unset {
		r.doubt()
	}
	r.dsSystem()
	asked, results := false, false
	for i := range r.v.Messages {
		switch m := &r.v.Messages[i]; m.Role {
		case dialect.RoleUser:
			results, asked = false, true
			r.dsUser(m)
		case dialect.RoleAssistant:
			if asked {
				r.w.Special(dsAssistant)
				r.w.Special("<think>")
				r.w.Special("</think>")
				asked = false
			}
			switch calls := r.toolCalls(m); {
			case len(calls) > 0:
				results = false
				r.v31Calls(m, calls)
			case results:
				results = false
				r.emit(r.content(m), false)
			default:
				r.emit(r.said(m, true), false)
			}
			r.w.Special(dsEnd)
		case dialect.RoleTool:
			asked, results = false, true
			r.w.Special(dsOut)
			r.emit(r.content(m), false)
			r.w.Special(dsOutEnd)
		}
	}
	if !asked || results {
		return
	}
	r.w.Special(dsAssistant)
	r.w.Special("<think>")
	if r.set.thinking != yes {
		r.w.Special("</think>")
	}
}

func (r *renderer) v31Calls(m *dialect.Message, calls []call) {
	r.emit(r.content(m), false)
	r.w.Special(dsCalls)
	for _, c := range calls {
		r.w.Special(dsCall)
		r.callName(c)
		r.w.Special(dsSep)
		b, _ := r.arguments(c)
		r.bytes(b)
		r.w.Special(dsCallEnd)
	}
	r.w.Special(dsCallsEnd)
}
