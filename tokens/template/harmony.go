package template

import (
	"bytes"

	"github.com/weirproxy/weir/dialect"
)

// harmonyTemplate is the format of gpt-oss, as vLLM builds the messages of a chat
// and openai-harmony encodes them.
var harmonyTemplate = &Template{name: "harmony", walk: func(r *renderer) { r.harmony() }, bound: harmonyBound, plainText: true}

const (
	hStart   = "<|start|>"
	hEnd     = "<|end|>"
	hMessage = "<|message|>"
	hChannel = "<|channel|>"
	hCall    = "<|call|>"

	harmonyIdentity = "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\nCurrent date: "
	harmonyEffort   = "\n\nReasoning: "
	harmonyChannels = "\n\n# Valid channels: analysis, commentary, final. Channel must be included for every message."
	harmonyCalls    = "\nCalls to these tools must go to the commentary channel: 'functions'."
)

func (r *renderer) harmony() {
	ms := r.v.Messages
	tools := r.offers()
	if r.o.Backend != VLLM {
		r.doubt() // SGLang renders a template in place of this; of others nobody knows
	}
	r.harmonySystem(tools)
	if len(ms) > 0 && (ms[0].Role == dialect.RoleSystem || ms[0].Role == dialect.RoleDeveloper) {
		r.harmonyDeveloper(&ms[0], tools)
		ms = ms[1:]
	} else if tools {
		r.harmonyDeveloper(nil, true)
	}
	from, until := dropped(ms)
	lastFinal, firstFinal := finals(r, ms)
	for i := range ms {
		m := &ms[i]
		// What was thought is dropped before the answer it led to.
		hide := i >= from && i <= until && until >= 0 || lastFinal && i <= firstFinal
		r.harmonyMessage(m, hide)
	}
	r.w.Special(hStart)
	r.w.Literal("assistant")
}

// isFinal reports whether m is an answer.
func isFinal(m *dialect.Message) bool { return m.Role == dialect.RoleAssistant && m.ToolCalls == 0 }

// dropped are the messages of the current turn up to its last answer: from the one
// behind the last message of the user. until is -1 where there is no answer.
func dropped(ms []dialect.Message) (from, until int) {
	until = -1
	for i := len(ms) - 1; i >= 0 && ms[i].Role != dialect.RoleUser; i-- {
		from = i
		if until < 0 && isFinal(&ms[i]) {
			until = i
		}
	}
	return from, until
}

// finals answers whether the last message of the assistant is an answer, and which
// answer is the first.
func finals(r *renderer, ms []dialect.Message) (last bool, first int) {
	first = -1
	for i := range ms {
		m := &ms[i]
		if m.Role != dialect.RoleAssistant {
			continue
		}
		said := !r.harmonyContent(m).empty()
		if last = isFinal(m) && said; last && first < 0 {
			first = i
		}
		if isFinal(m) && !said {
			r.doubt() // only what was thought, or nothing
		}
	}
	return last, first
}

func (r *renderer) harmonySystem(tools bool) {
	r.w.Special(hStart)
	r.w.Literal("system")
	r.w.Special(hMessage)
	r.w.Literal(harmonyIdentity)
	if r.o.Now.IsZero() {
		r.doubt()
	}
	r.text = r.o.Now.AppendFormat(r.text[:0], "2006-01-02")
	r.bytes(r.text)
	r.w.Literal(harmonyEffort)
	switch string(r.set.effort) {
	case "low":
		r.w.Literal("low")
	case "high":
		r.w.Literal("high")
	case "", "medium":
		r.w.Literal("medium")
	default:
		r.doubt()
		r.w.Literal("medium")
	}
	r.w.Literal(harmonyChannels)
	if tools {
		r.w.Literal(harmonyCalls)
	}
	r.w.Special(hEnd)
}

// harmonyContent is the content of m. Parts are not joined by anything; those of
// the user and of answers are tokenized each by itself, which raises doubt.
func (r *renderer) harmonyContent(m *dialect.Message) content { return r.joined(m, "") }

// harmonyDeveloper writes the instructions, of the first message, and the tools.
func (r *renderer) harmonyDeveloper(m *dialect.Message, tools bool) {
	var c content
	if m != nil {
		c = r.harmonyContent(m)
		if c.empty() && !tools {
			return
		}
	}
	r.w.Special(hStart)
	r.w.Literal("developer")
	r.w.Special(hMessage)
	if given := c.segment != nil || c.bytes != nil; given {
		r.w.Literal("# Instructions\n\n")
		r.emit(c, false)
		if tools {
			r.w.Literal("\n\n")
		}
	}
	if tools {
		r.w.Literal("# Tools\n\n## functions\n\nnamespace functions {\n\n")
		r.tools(func(_ int, tool []byte) { r.harmonyTool(tool) })
		r.w.Literal("} // namespace functions")
	}
	r.w.Special(hEnd)
}

func (r *renderer) harmonyMessage(m *dialect.Message, hide bool) {
	switch m.Role {
	case dialect.RoleAssistant:
		r.harmonyAssistant(m, hide)
	case dialect.RoleTool:
		r.w.Special(hStart)
		r.w.Literal("functions.")
		r.callee(m)
		r.w.Literal(" to=assistant")
		r.harmonyBody("commentary", r.harmonyContent(m))
	case dialect.RoleUser:
		c := r.harmonyContent(m)
		if c.segment == nil && c.bytes != nil {
			r.doubt()
		}
		r.w.Special(hStart)
		r.w.Literal("user")
		r.harmonyBody("", c)
	default:
		// The system's and the developer's, but the first: versions differ.
		r.doubt()
		r.w.Special(hStart)
		r.role(m)
		r.harmonyBody("", r.harmonyContent(m))
	}
}

// harmonyBody writes a message behind the name of who speaks.
func (r *renderer) harmonyBody(channel string, c content) {
	if channel != "" {
		r.w.Special(hChannel)
		r.w.Literal(channel)
	}
	r.w.Special(hMessage)
	r.emit(c, false)
	r.w.Special(hEnd)
}

func (r *renderer) harmonySay(channel string, c content) {
	r.w.Special(hStart)
	r.w.Literal("assistant")
	r.harmonyBody(channel, c)
}

func (r *renderer) harmonyAssistant(m *dialect.Message, hide bool) {
	calls := r.toolCalls(m)
	c := r.harmonyContent(m)
	if len(calls) > 0 && !c.empty() {
		r.harmonySay("commentary", c)
	}
	if s := r.reasoning(m); s != nil && s.Text > 0 && !hide {
		r.harmonySay("analysis", content{segment: s})
	}
	if len(calls) == 0 && !c.empty() {
		if c.segment == nil {
			r.doubt()
		}
		r.harmonySay("final", c)
	}
	for _, t := range calls {
		r.w.Special(hStart)
		r.w.Literal("assistant to=functions.")
		r.callName(t)
		r.w.Special(hChannel)
		r.w.Literal("commentary json")
		r.w.Special(hMessage)
		if t.arguments != nil {
			r.w.Segment(t.arguments, false)
		}
		r.w.Special(hCall)
	}
}

// harmonyTool writes a tool as TypeScript.
func (r *renderer) harmonyTool(tool []byte) {
	if r.tooLarge(tool) {
		return
	}
	f := r.function(tool)
	if f.description == nil || f.description[0] != '"' {
		r.doubt()
	}
	h := r.begin(0)
	r.text = appendString(r.text[:0], f.description)
	for line := range bytes.Lines(r.text) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		h.literal("// ")
		h.bytes(bytes.TrimSuffix(line, []byte("\r")))
		h.byte('\n')
	}
	h.literal("type ")
	h.dumper.text(f.name)
	if f.parameters == nil || f.parameters[0] == 'n' {
		h.literal(" = () => any;\n\n")
	} else {
		h.read(f.parameters)
		h.literal(" = (_: ")
		h.schema(0, 0)
		h.literal(") => any;\n\n")
	}
	r.bytes(r.written(tool))
}
