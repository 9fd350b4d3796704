package template

import (
	"bytes"

	"github.com/weirproxy/weir/dialect"
)

// The templates of Qwen, as the tokenizer_config.json of Qwen2.5-7B-Instruct and
// Qwen3-8B have them. The instruct and thinking editions of Qwen3 (2507) and
// Qwen2.5-VL are close relatives that no test is held against.
var (
	qwen25        = &Template{name: "qwen2.5", walk: func(r *renderer) { r.qwen25() }, bound: qwenBound}
	qwen3         = &Template{name: "qwen3", walk: func(r *renderer) { r.qwen3(qwenHybrid) }, bound: qwenBound}
	qwen3Instruct = &Template{name: "qwen3-instruct", walk: func(r *renderer) { r.qwen3(qwenInstructs) }, bound: qwenBound, estimate: true}
	qwen3Thinking = &Template{name: "qwen3-thinking", walk: func(r *renderer) { r.qwen3(qwenThinks) }, bound: qwenBound, estimate: true}
	qwen25VL      = &Template{name: "qwen2.5-vl", walk: func(r *renderer) { r.qwen25VL() }, bound: qwenBound, estimate: true}
)

const (
	imStart = "<|im_start|>"
	imEnd   = "<|im_end|>"
	callTag = "<tool_call>"
	callEnd = "</tool_call>"

	qwenSystem = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
	qwenTools  = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n" +
		"You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
	qwenHowTo = "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
	qwenForm  = " XML tags:\n"
	qwenCall  = "\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n"
)

func (r *renderer) qwen25() {
	first := r.firstSystem()
	tools := r.offers()
	r.w.Special(imStart)
	r.w.Literal("system\n")
	if first != nil {
		r.emit(r.content(first), false)
	} else {
		r.w.Literal(qwenSystem)
	}
	if tools {
		r.w.Literal("\n\n")
		r.qwenTools(true)
	}
	r.endTurn()
	for i := range r.v.Messages {
		switch m := &r.v.Messages[i]; m.Role {
		case dialect.RoleUser:
			r.qwenTurn(m)
		case dialect.RoleSystem:
			if i > 0 {
				r.qwenTurn(m)
			}
		case dialect.RoleAssistant:
			r.qwen25Assistant(m)
		case dialect.RoleTool:
			r.qwenResult(i, false)
		}
	}
	r.w.Special(imStart)
	r.w.Literal("assistant\n")
}

// firstSystem is the first message if it is the system's.
func (r *renderer) firstSystem() *dialect.Message {
	if len(r.v.Messages) > 0 && r.v.Messages[0].Role == dialect.RoleSystem {
		return &r.v.Messages[0]
	}
	return nil
}

func (r *renderer) endTurn() {
	r.w.Special(imEnd)
	r.w.Literal("\n")
}

func (r *renderer) qwenTurn(m *dialect.Message) {
	r.w.Special(imStart)
	r.w.Literal(m.Role.String())
	r.w.Literal("\n")
	r.emit(r.content(m), false)
	r.endTurn()
}

// qwenTools writes the tools that are offered and how to call them. marks says that
// the vocabulary has the tags of calls as tokens.
func (r *renderer) qwenTools(marks bool) {
	r.w.Literal(qwenTools)
	r.tools(func(_ int, tool []byte) {
		r.w.Literal("\n")
		r.tool(tool, 0)
	})
	r.w.Literal(qwenHowTo)
	r.mark(callTag, marks)
	r.mark(callEnd, marks)
	r.w.Literal(qwenForm)
	r.mark(callTag, marks)
	r.w.Literal(qwenCall)
	r.mark(callEnd, marks)
}

func (r *renderer) qwen25Assistant(m *dialect.Message) {
	calls := r.toolCalls(m)
	if len(calls) == 0 {
		r.qwenTurn(m)
		return
	}
	r.w.Special(imStart)
	r.w.Literal("assistant")
	if c := r.content(m); !c.empty() {
		r.w.Literal("\n")
		r.emit(c, false)
	}
	for _, c := range calls {
		r.w.Literal("\n")
		r.qwenCall(c, false, true)
	}
	r.endTurn()
}

// qwenCall writes a call. Qwen3 shows arguments that are a string as they are.
func (r *renderer) qwenCall(c call, bare, marks bool) {
	r.mark(callTag, marks)
	r.w.Literal("\n{\"name\": \"")
	r.callName(c)
	r.w.Literal("\", \"arguments\": ")
	b, isString := r.arguments(c)
	if isString && bare {
		r.text = appendString(r.text[:0], b)
		b = r.text
	}
	r.bytes(b)
	r.w.Literal("}\n")
	r.mark(callEnd, marks)
}

// qwenResult writes the result of a tool; results in a row are one turn of the
// user. marks says that the vocabulary has the tags as tokens.
func (r *renderer) qwenResult(i int, marks bool) {
	ms := r.v.Messages
	if i == 0 || ms[i-1].Role != dialect.RoleTool {
		r.w.Special(imStart)
		r.w.Literal("user")
	}
	r.w.Literal("\n")
	r.mark("<tool_response>", marks)
	r.w.Literal("\n")
	r.emit(r.content(&ms[i]), false)
	r.w.Literal("\n")
	r.mark("</tool_response>", marks)
	if i == len(ms)-1 || ms[i+1].Role != dialect.RoleTool {
		r.endTurn()
	}
}

func (r *renderer) mark(name string, special bool) {
	if special {
		r.w.Special(name)
	} else {
		r.w.Literal(name)
	}
}

// qwenMode is how an edition of Qwen3 thinks.
type qwenMode uint8

const (
	qwenHybrid qwenMode = iota
	qwenInstructs
	qwenThinks
)

func (r *renderer) qwen3(mode qwenMode) {
	first := r.firstSystem()
	tools := r.offers()
	if first != nil || tools {
		r.w.Special(imStart)
		r.w.Literal("system\n")
		if first != nil {
			r.emit(r.content(first), false)
			if tools {
				r.w.Literal("\n\n")
			}
		}
		if tools {
			r.qwenTools(true)
		}
		r.endTurn()
	}
	query := r.lastQuery()
	for i := range r.v.Messages {
		switch m := &r.v.Messages[i]; m.Role {
		case dialect.RoleUser:
			r.qwenTurn(m)
		case dialect.RoleSystem:
			if i > 0 {
				r.qwenTurn(m)
			}
		case dialect.RoleAssistant:
			r.qwen3Assistant(m, i > query && mode != qwenInstructs, i == len(r.v.Messages)-1)
		case dialect.RoleTool:
			r.qwenResult(i, true)
		}
	}
	r.w.Special(imStart)
	r.w.Literal("assistant\n")
	if string(r.set.effort) == "none" {
		r.doubt() // newer versions of vLLM take it for enable_thinking: false
	}
	switch {
	case mode == qwenThinks:
		r.w.Special("<think>")
		r.w.Literal("\n")
	case mode == qwenHybrid && r.set.enableThinking == no:
		r.w.Special("<think>")
		r.w.Literal("\n\n")
		r.w.Special("</think>")
		r.w.Literal("\n\n")
	}
}

var responseTag, responseEnd = []byte("<tool_response>"), []byte("</tool_response>")

// lastQuery is the index of the last message of the user that is no result of a
// tool in disguise; what the assistant thought before it is not shown.
func (r *renderer) lastQuery() int {
	for i := len(r.v.Messages) - 1; i >= 0; i-- {
		m := &r.v.Messages[i]
		if m.Role != dialect.RoleUser {
			continue
		}
		c := r.content(m)
		if c.segment != nil { // most contents need not be decoded
			if b := r.v.Bytes(c.segment); len(b) == 0 || b[0] != '<' && b[0] != '\\' {
				return i
			}
		}
		if b := r.decoded(c); !bytes.HasPrefix(b, responseTag) || !bytes.HasSuffix(b, responseEnd) {
			return i
		}
	}
	return len(r.v.Messages) - 1
}

var thinkTag, thinkEnd = []byte("<think>"), []byte("</think>")

func (r *renderer) qwen3Assistant(m *dialect.Message, current, last bool) {
	c := r.content(m)
	thought := r.reasoning(m)
	var inner []byte // what was thought, of the content
	if thought == nil {
		c, inner = r.splitThought(c)
	}
	r.w.Special(imStart)
	r.w.Literal("assistant\n")
	if current && (last || len(inner) > 0 || thought != nil && thought.Text > 0) {
		r.w.Special("<think>")
		r.w.Literal("\n")
		if thought != nil {
			r.trimNewlines(thought)
		} else {
			r.bytes(bytes.Trim(inner, "\n"))
		}
		r.w.Literal("\n")
		r.w.Special("</think>")
		r.w.Literal("\n\n")
		r.bytes(bytes.TrimLeft(r.decoded(c), "\n"))
	} else {
		r.emit(c, false)
	}
	said := !c.empty()
	for i, t := range r.toolCalls(m) {
		if i > 0 || said {
			r.w.Literal("\n")
		}
		r.qwenCall(t, true, true)
	}
	r.endTurn()
}

// trimNewlines writes s without the newlines at its ends.
func (r *renderer) trimNewlines(s *dialect.Segment) {
	var b []byte
	b, r.more = r.v.Decode(s, r.more)
	r.bytes(bytes.Trim(b, "\n"))
}

// mayEndThought tells whether </think> may stand in s, without decoding it. A letter
// that is escaped, which no encoder does, may be one of it.
func (r *renderer) mayEndThought(s *dialect.Segment) bool {
	raw := r.v.Bytes(s)
	for i := next(raw, 'k', 4); i > 0; i = next(raw, 'k', i+1) { // rare, unlike its neighbours
		if string(raw[i-4:i]) == "thin" {
			return true
		}
	}
	if !s.Escaped {
		return false
	}
	for i := next(raw, '\\', 0); i >= 0 && i+4 < len(raw); i = next(raw, '\\', i+2) {
		if raw[i+1] == 'u' && raw[i+2] == '0' && raw[i+3] == '0' && raw[i+4]|1 == '7' { // \u0060 to \u007f
			return true
		}
	}
	return false
}

// next is the next place from i on where c stands in b; -1 when there is none.
func next(b []byte, c byte, i int) int {
	if i >= len(b) {
		return -1
	}
	if n := bytes.IndexByte(b[i:], c); n >= 0 {
		return i + n
	}
	return -1
}

// splitThought parts a content that holds what was thought: between <think> and
// </think>, or before </think>.
func (r *renderer) splitThought(c content) (said content, thought []byte) {
	if s := c.segment; s != nil && !r.mayEndThought(s) {
		return c, nil
	}
	b := r.decoded(c)
	first := bytes.Index(b, thinkEnd)
	if first < 0 {
		return c, nil
	}
	last := bytes.LastIndex(b, thinkEnd)
	thought = bytes.TrimRight(b[:first], "\n")
	if i := bytes.LastIndex(thought, thinkTag); i >= 0 {
		thought = thought[i+len(thinkTag):]
	}
	return content{bytes: bytes.TrimLeft(b[last+len(thinkEnd):], "\n")}, bytes.TrimLeft(thought, "\n")
}

// qwen25VL renders contents as lists of parts, which are not joined.
func (r *renderer) qwen25VL() {
	if r.firstSystem() == nil {
		r.w.Special(imStart)
		r.w.Literal("system\nYou are a helpful assistant.")
		r.endTurn()
	}
	for i := range r.v.Messages {
		m := &r.v.Messages[i]
		r.w.Special(imStart)
		r.role(m)
		r.w.Literal("\n")
		r.parts(m, func(med *dialect.Media) {
			r.w.Special("<|vision_start|>")
			r.w.Media(med)
			r.w.Special("<|vision_end|>")
		})
		r.noCalls(m)
		r.endTurn()
	}
	r.w.Special(imStart)
	r.w.Literal("assistant\n")
}

// parts writes the parts of a content one behind the other.
func (r *renderer) parts(m *dialect.Message, media func(*dialect.Media)) {
	r.shown = true
	next := m.FirstMedia
	for i := m.First; i <= m.End; i++ {
		for ; next < m.EndMedia && r.v.Media[next].Before <= i; next++ {
			media(&r.v.Media[next])
		}
		if i == m.End {
			break
		}
		if s := &r.v.Segments[i]; s.Kind == dialect.Content {
			r.w.Segment(s, false)
		}
	}
	r.check(m)
}
