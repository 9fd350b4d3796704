package template

import (
	"github.com/weirproxy/weir/dialect"
)

// The templates of Llama, as Meta-Llama-3-8B-Instruct, Llama-3.1-8B-Instruct (the
// same as Llama-3.3) and Llama-3.2-3B-Instruct have them. Other than the first they
// begin with a system message that prints dates, and put tools into the first
// message of the user.
var (
	llama3  = &Template{name: "llama-3", walk: func(r *renderer) { r.llama3() }, bound: llamaBound}
	llama31 = &Template{name: "llama-3.1", walk: func(r *renderer) { r.llama31(false) }, bound: llamaBound}
	llama32 = &Template{name: "llama-3.2", walk: func(r *renderer) { r.llama31(true) }, bound: llamaBound}
)

const (
	llamaHeader = "<|start_header_id|>"
	llamaText   = "<|end_header_id|>"
	llamaEnd    = "<|eot_id|>"

	llamaDates = "Cutting Knowledge Date: December 2023\nToday Date: "
	llamaDate  = "26 Jul 2024" // what the template prints where nobody sets a date
	llamaTools = "Given the following functions, please respond with a JSON for a function call " +
		"with its proper arguments that best answers the given prompt.\n\n" +
		"Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name and its value}." +
		"Do not use variables.\n\n"
	llamaIndent = 4
)

func (r *renderer) header(role string) {
	r.w.Special(llamaHeader)
	r.w.Literal(role)
	r.w.Special(llamaText)
	r.w.Literal("\n\n")
}

// llamaTurn writes a message whose content is trimmed.
func (r *renderer) llamaTurn(m *dialect.Message) {
	r.w.Special(llamaHeader)
	r.role(m)
	r.w.Special(llamaText)
	r.w.Literal("\n\n")
	r.emit(r.content(m), true)
	r.w.Special(llamaEnd)
}

func (r *renderer) llama3() {
	r.w.Special("<|begin_of_text|>")
	for i := range r.v.Messages {
		r.llamaTurn(&r.v.Messages[i])
		r.noCalls(&r.v.Messages[i])
	}
	if r.offers() {
		r.doubt() // the template knows no tools; who serves it with tools has another
	}
	r.header("assistant")
}

func (r *renderer) llama31(today bool) {
	ms := r.v.Messages
	tools := r.offers()
	if r.set.tools && !tools {
		r.doubt() // an empty list
	}
	r.w.Special("<|begin_of_text|>")
	r.header("system")
	if tools {
		r.w.Literal("Environment: ipython\n")
	}
	r.w.Literal(llamaDates)
	r.date(today)
	r.w.Literal("\n\n")
	if m := r.firstSystem(); m != nil {
		r.emit(r.content(m), true)
		ms = ms[1:]
	}
	r.w.Special(llamaEnd)
	if tools {
		ms = r.llamaTools(ms)
	}
	for i := range ms {
		r.llama31Turn(&ms[i])
	}
	r.header("assistant")
}

// date writes the date: the backend's today, or the one that is in the template.
func (r *renderer) date(today bool) {
	if !today {
		r.w.Literal(llamaDate)
		return
	}
	if r.o.Now.IsZero() || r.o.Backend == Hosted {
		r.doubt() // of whose clock or template nobody knows
	}
	r.text = r.o.Now.AppendFormat(r.text[:0], "02 Jan 2006")
	r.bytes(r.text)
}

// llamaTools writes the tools and the first message, whoever speaks in it.
func (r *renderer) llamaTools(ms []dialect.Message) []dialect.Message {
	if len(ms) == 0 {
		r.doubt() // the template refuses it
		return ms
	}
	r.header("user")
	r.w.Literal(llamaTools)
	r.tools(func(_ int, tool []byte) {
		r.tool(tool, llamaIndent)
		r.w.Literal("\n\n")
	})
	r.emit(r.content(&ms[0]), true)
	r.w.Special(llamaEnd)
	return ms[1:]
}

func (r *renderer) llama31Turn(m *dialect.Message) {
	calls := r.toolCalls(m)
	switch {
	case len(calls) > 0:
		if len(calls) > 1 {
			r.doubt() // the template refuses it
		}
		r.header("assistant")
		r.w.Literal("{\"name\": \"")
		r.callName(calls[0])
		r.w.Literal("\", \"parameters\": ")
		b, _ := r.arguments(calls[0])
		r.bytes(b)
		r.w.Literal("}")
		r.w.Special(llamaEnd)
		r.content(m) // is not shown
	case m.Role == dialect.RoleTool:
		r.header("ipython")
		r.quoted(r.content(m))
		r.w.Special(llamaEnd)
	default:
		r.llamaTurn(m)
		r.noCalls(m)
	}
}

// quoted writes c as a JSON string.
func (r *renderer) quoted(c content) {
	r.json = appendQuoted(r.json[:0], r.decoded(c))
	r.bytes(r.json)
}
