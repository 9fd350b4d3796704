package openai

import (
	"strconv"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/jsonscan"
)

// messages reads the messages of a chat; false when there are none.
func (p *parser) messages() bool {
	kind := p.s.Peek()
	if kind != jsonscan.Array {
		v := p.s.Value()
		if kind != jsonscan.Null {
			p.wrong("messages", "an array of objects", v.Off, kind)
		}
		return false
	}
	p.s.EnterArray()
	for p.s.NextItem() {
		p.message = len(p.r.Messages)
		p.r.Messages = append(p.r.Messages, dialect.Message{First: len(p.r.Segments), FirstMedia: len(p.r.Media)})
		if kind := p.s.Peek(); kind != jsonscan.Object {
			p.wrong("messages["+strconv.Itoa(p.message)+"]", "an object", p.s.Offset(), kind)
			p.s.Value()
		} else {
			p.oneMessage()
		}
		m := &p.r.Messages[p.message]
		m.End, m.EndMedia = len(p.r.Segments), len(p.r.Media)
	}
	p.message = dialect.NoMessage
	return true
}

// messageKinds are the fields of a message that are one text.
var messageKinds = map[string]dialect.Kind{
	"name": dialect.Name, "refusal": dialect.Refusal, "reasoning": dialect.Reasoning,
	"reasoning_content": dialect.Reasoning, "tool_call_id": dialect.ToolCallID,
}

// oneMessage reads one message. All of its text counts, also that of fields which
// weir does not know: a chat template may show them.
func (p *parser) oneMessage() {
	p.s.EnterObject()
	for key, ok := p.s.NextKey(); ok; key, ok = p.s.NextKey() {
		switch name := p.s.Text(key); string(name) {
		case "role":
			p.role()
		case "content":
			if p.s.Peek() == jsonscan.Array {
				p.r.Messages[p.message].Parts = true
				p.parts()
			} else {
				p.text(dialect.Content, p.s.Value())
			}
		case "tool_calls":
			if p.s.Peek() != jsonscan.Array {
				p.text(dialect.ToolCall, p.s.Value())
				continue
			}
			p.s.EnterArray()
			for p.s.NextItem() {
				p.toolCall()
			}
		case "function_call":
			p.toolCall()
		default:
			p.text(messageKinds[string(name)], p.s.Value())
		}
	}
}

// role reads a role; one that weir does not know is text.
func (p *parser) role() {
	v := p.s.Value()
	role := dialect.RoleOther
	if v.Kind == jsonscan.String {
		role = dialect.RoleOf(p.s.Text(v))
	}
	p.r.Messages[p.message].Role = role
	if role == dialect.RoleOther {
		p.text(dialect.RoleName, v)
	}
}

// toolCall reads a call that an assistant made: {"id", "type", "function": {"name",
// "arguments"}}, or the inner object alone, as it was called before tools were.
func (p *parser) toolCall() {
	if p.s.Peek() != jsonscan.Object {
		v := p.s.Value()
		if v.Kind == jsonscan.Null {
			return
		}
		p.text(dialect.ToolCall, v)
		p.r.Messages[p.message].ToolCalls++
		return
	}
	p.r.Messages[p.message].ToolCalls++
	p.s.EnterObject()
	for key, ok := p.s.NextKey(); ok; key, ok = p.s.NextKey() {
		switch string(p.s.Text(key)) {
		case "type", "index":
			p.s.Value()
		case "id":
			p.text(dialect.ToolCallID, p.s.Value())
		case "name":
			p.text(dialect.ToolCallName, p.s.Value())
		case "arguments":
			p.text(dialect.ToolArguments, p.s.Value())
		case "function":
			if p.s.Peek() == jsonscan.Object {
				p.function()
			} else {
				p.text(dialect.ToolCall, p.s.Value())
			}
		default:
			p.text(dialect.Other, p.s.Value())
		}
	}
}

func (p *parser) function() {
	p.s.EnterObject()
	for key, ok := p.s.NextKey(); ok; key, ok = p.s.NextKey() {
		switch string(p.s.Text(key)) {
		case "name":
			p.text(dialect.ToolCallName, p.s.Value())
		case "arguments":
			p.text(dialect.ToolArguments, p.s.Value())
		default:
			p.text(dialect.Other, p.s.Value())
		}
	}
}

// parts reads the parts of a content that is a list.
func (p *parser) parts() {
	p.s.EnterArray()
	for p.s.NextItem() {
		if p.s.Peek() != jsonscan.Object {
			p.text(dialect.Content, p.s.Value())
			continue
		}
		p.s.EnterObject()
		for key, ok := p.s.NextKey(); ok; key, ok = p.s.NextKey() {
			p.part(p.s.Text(key))
		}
	}
}

// part reads one field of a content part. Media are known by the field that
// holds them, as backends know them when the type is missing.
func (p *parser) part(name []byte) {
	switch string(name) {
	case "type", "detail", "cache_control", "prompt_cache_breakpoint", "uuid":
		p.s.Value()
	case "text":
		p.text(dialect.Content, p.s.Value())
	case "refusal":
		p.text(dialect.Refusal, p.s.Value())
	case "image_url", "input_image", "image", "image_pil", "image_embeds":
		p.media(dialect.Image)
	case "video_url", "video", "input_video":
		p.media(dialect.Video)
	case "audio_url", "input_audio", "audio", "audio_embeds":
		p.media(dialect.Audio)
	case "file", "input_file":
		p.media(dialect.File)
	default:
		p.text(dialect.Other, p.s.Value())
	}
}

// prompts reads a prompt (of a completion) or an input (of an embedding): a
// string, strings, token ids, or lists of token ids. Where the field has no
// meaning for this kind of request, it is only counted.
func (p *parser) prompts(param string, mine bool) {
	if !mine {
		p.other(dialect.Other)
		return
	}
	const want = "a string, an array of strings or an array of token ids"
	kind := p.s.Peek()
	if kind != jsonscan.Array {
		v := p.s.Value()
		switch kind {
		case jsonscan.String:
			p.hasContent = true
			p.r.Prompts++
			p.text(dialect.Prompt, v)
		case jsonscan.Null:
		default:
			p.wrong(param, want, v.Off, kind)
		}
		return
	}
	p.hasContent = true
	p.s.EnterArray()
	for p.s.NextItem() {
		switch kind := p.s.Peek(); kind {
		case jsonscan.String:
			p.r.Prompts++
			p.text(dialect.Prompt, p.s.Value())
		case jsonscan.Number:
			p.flat = true
			p.r.TokenIDs++
			p.s.Value()
		case jsonscan.Array:
			p.r.Prompts++
			p.tokenIDs(param)
		default:
			p.wrong(param, want, p.s.Offset(), kind)
			p.s.Value()
		}
	}
}

func (p *parser) tokenIDs(param string) {
	p.s.EnterArray()
	for p.s.NextItem() {
		p.r.TokenIDs++
		if v := p.s.Value(); v.Kind != jsonscan.Number {
			p.wrong(param, "an array of token ids", v.Off, v.Kind)
		}
	}
}
