package template

import "github.com/weirproxy/weir/dialect"

// Bound is what a template adds to the text of a chat at the most, in tokens. It is
// counted in bytes and special tokens, and no tokenizer makes more tokens of a text
// than it has bytes. A chat has at most
//
//	Request + Tools (if any are offered) + Message·messages + Tool·tools + Call·calls
//	+ the bytes of its strings, as they stand in the body + Raw·(the bytes of tools)
//	+ Arguments·(the bytes of arguments and of the results of tools)
//
// tokens. Raw and Arguments are for JSON, which is written anew: a comma gets a
// space, and "1e15," becomes "1000000000000000.0, ".
type Bound struct{ Request, Tools, Message, Tool, Call, Raw, Arguments int64 }

// rewritten is how many bytes a byte of JSON may become: 1e15 has four and becomes
// 1000000000000000.0, with 18, and a comma becomes two bytes.
const rewritten = 5

// indented is the same for JSON that is written with an indent of four. In bytes it
// holds for eight levels of nesting; below these, because the vocabulary of Llama,
// whose template it is, has runs of spaces as tokens.
const indented = 24

var (
	qwenBound     = Bound{Request: 128, Tools: 512, Message: 32, Tool: 96, Call: 64, Raw: rewritten, Arguments: rewritten}
	llamaBound    = Bound{Request: 128, Tools: 320, Message: 16, Tool: 256, Call: 64, Raw: indented, Arguments: rewritten}
	deepseekBound = Bound{Request: 16, Tools: 512, Message: 16, Tool: 96, Call: 64, Raw: rewritten, Arguments: rewritten}
	mistralBound  = Bound{Request: 16, Tools: 16, Message: 64, Tool: 96, Call: 64, Raw: rewritten, Arguments: rewritten}
	openaiBound   = Bound{Request: 96, Tools: 256, Message: 32, Tool: 64, Call: 64, Raw: rewritten, Arguments: 1}
	harmonyBound  = Bound{Request: 288, Tools: 192, Message: 48, Tool: 64, Call: 64, Raw: rewritten, Arguments: 1}
	genericBound  = Bound{Request: 288, Tools: 512, Message: 64, Tool: 256, Call: 64, Raw: indented, Arguments: rewritten}
)

// Fixed is what the template adds to the chat of v at the most.
func (b *Bound) Fixed(v *dialect.View) int64 {
	n := b.Request
	tools := int64(0)
	for i := range v.Segments {
		if v.Segments[i].Kind == dialect.Tool {
			tools++
		}
	}
	if tools > 0 {
		n += b.Tools + b.Tool*tools
	}
	for i := range v.Messages {
		n += b.Message + b.Call*int64(v.Messages[i].ToolCalls)
	}
	return n
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
