package template

import "github.com/weirproxy/weir/dialect"

// Bound is what a template adds to the text of a chat at the most, in tokens. It is
// counted in bytes of the text that a backend renders, and in special tokens: a
// tokenizer that works on bytes, or falls back to them, makes no more tokens of a text
// than it has bytes, whatever runs of spaces its vocabulary has.
// Normal form C, where a tokenizer uses it, may make three bytes of one beyond ASCII:
// that is allowed for in Fixed, and left to the caller for what Times is asked about.
// A chat has at most
//
//	Request + Tools (if any are offered) + Message·messages + Tool·tools + Call·calls
//	+ the bytes of its strings, as they stand in the body + Raw·(the bytes of tools)
//	+ Arguments·(the bytes of arguments and of the results of tools)
//	+ the lines that the JSON of the tools may have + Indent·(the sum of their depths)
//	+ Callee·(results of tools)·(the bytes of the longest name that was called)
//
// tokens. Raw and Arguments are for JSON, which is written anew: a comma gets a
// space, and "1e15," becomes "1000000000000000.0, ". Indent is how many spaces a line
// has for each level that it is deep; Callee is 1 where every result of a tool is shown
// with the name of the function that was called, which stands in the body only with
// the call. Nothing else is rendered more often than it stands in the body, but for
// what is in tools (a description may be shown twice), which Raw allows for.
type Bound struct{ Request, Tools, Message, Tool, Call, Raw, Arguments, Indent, Callee int64 }

// rewritten is how many bytes a byte of JSON may become: 1e15 has four and becomes
// 1000000000000000.0, with 18, and a comma becomes two bytes.
const rewritten = 5

var (
	qwenBound     = Bound{Request: 128, Tools: 512, Message: 48, Tool: 96, Call: 64, Raw: rewritten, Arguments: rewritten}
	llamaBound    = Bound{Request: 128, Tools: 320, Message: 16, Tool: 256, Call: 64, Raw: rewritten, Arguments: rewritten, Indent: 4}
	deepseekBound = Bound{Request: 16, Tools: 512, Message: 16, Tool: 96, Call: 64, Raw: rewritten, Arguments: rewritten}
	mistralBound  = Bound{Request: 16, Tools: 16, Message: 64, Tool: 96, Call: 64, Raw: rewritten, Arguments: rewritten}
	openaiBound   = Bound{Request: 96, Tools: 256, Message: 32, Tool: 64, Call: 64, Raw: rewritten, Arguments: 1, Indent: 1, Callee: 1}
	harmonyBound  = Bound{Request: 288, Tools: 192, Message: 48, Tool: 64, Call: 64, Raw: rewritten, Arguments: 1, Indent: 4, Callee: 1}
	genericBound  = Bound{Request: 288, Tools: 512, Message: 64, Tool: 256, Call: 64, Raw: rewritten, Arguments: rewritten, Indent: 4, Callee: 1}
)

// Fixed is what the template adds to the chat of v at the most. It reads the JSON of the
// tools where the template indents it.
func (b *Bound) Fixed(v *dialect.View) int64 {
	n := b.Request
	tools, longest := int64(0), int64(0)
	for i := range v.Segments {
		switch s := &v.Segments[i]; s.Kind {
		case dialect.Tool:
			tools++
			if b.Indent > 0 {
				count, depths := lines(v.Bytes(s))
				n += count + b.Indent*depths
			}
		case dialect.ToolCallName:
			if b.Callee > 0 && int64(s.Len) > longest/3 {
				longest = max(longest, normal(v.Bytes(s)))
			}
		}
	}
	if tools > 0 {
		n += b.Tools + b.Tool*tools
	}
	for i := range v.Messages {
		m := &v.Messages[i]
		n += b.Message + b.Call*int64(m.ToolCalls)
		if m.Role == dialect.RoleTool || m.Role == dialect.RoleFunction {
			n += b.Callee * longest
		}
	}
	return n
}

// normal is how many bytes text may have in normal form C at the most.
func normal(text []byte) int64 {
	n := int64(len(text))
	for _, c := range text {
		n += 2 * int64(c>>7)
	}
	return n
}

// lines is how many lines the JSON b has when every member, every item and every
// bracket that closes has its own, and the sum of their depths.
func lines(b []byte) (n, depths int64) {
	depth := int64(0)
	for i := 0; i < len(b); {
		switch b[i] {
		case '"':
			i = skipString(b, i)
			continue
		case '{', '[':
			depth++
			n, depths = n+1, depths+depth
		case ',':
			n, depths = n+1, depths+depth
		case '}', ']':
			depth--
			n, depths = n+1, depths+depth
		}
		i++
	}
	return n, depths
}

// Times is how many bytes each byte of a segment may become.
func (b *Bound) Times(v *dialect.View, s *dialect.Segment) int64 {
	switch {
	case s.Kind == dialect.Tool:
		return b.Raw
	case s.Kind == dialect.ToolArguments, s.Raw, s.Kind == dialect.Content && v.Messages[s.Message].Role == dialect.RoleTool:
		return max(b.Arguments, 1)
	}
	return 1
}

// Of is the bound for the chat of v, media apart.
func (b *Bound) Of(v *dialect.View) int64 {
	n := b.Fixed(v)
	for i := range v.Segments {
		n += b.Times(v, &v.Segments[i]) * int64(v.Segments[i].Len)
	}
	return n
}
