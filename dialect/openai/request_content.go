package openai

import (
	"strconv"

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
		if kind := p.s.Peek(); kind != jsonscan.Object {
			p.wrong("messages["+strconv.FormatInt(p.r.Messages, 10)+"]", "an object", p.s.Offset(), kind)
			p.s.Value()
		} else {
			p.message()
		}
		p.r.Messages++
	}
	return true
}

// message reads one message. All of its text counts, also that of fields which
// weir does not know: a chat template may show them.
func (p *parser) message() {
	p.s.EnterObject()
	for key, ok := p.s.NextKey(); ok; key, ok = p.s.NextKey() {
		switch string(p.s.Text(key)) {
		case "content":
			if p.s.Peek() == jsonscan.Array {
				p.parts()
			} else {
				p.text(p.s.Value())
			}
		case "name":
			v := p.s.Value()
			if v.Kind != jsonscan.Null {
				p.r.Names++
			}
			p.text(v)
		case "tool_calls":
			if p.s.Peek() != jsonscan.Array {
				p.text(p.s.Value())
				continue
			}
			start := p.s.Offset()
			if n := p.items(); n > 0 {
				p.r.ToolCalls += n
				p.raw(start)
			}
		default:
			p.text(p.s.Value())
		}
	}
}

// parts reads the parts of a content that is a list.
func (p *parser) parts() {
	p.s.EnterArray()
	for p.s.NextItem() {
		if p.s.Peek() != jsonscan.Object {
			p.text(p.s.Value())
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
	var media *int64
	switch string(name) {
	case "type", "detail", "cache_control", "prompt_cache_breakpoint", "uuid":
		p.s.Value()
		return
	case "image_url", "input_image", "image", "image_pil", "image_embeds":
		media = &p.r.Images
	case "video_url", "video", "input_video":
		media = &p.r.Videos
	case "audio_url":
		media = &p.r.AudioURLs
	case "input_audio", "audio", "audio_embeds":
		p.r.AudioBytes += int64(p.s.Value().Len)
		return
	case "file", "input_file":
		media = &p.r.Files
	default:
		p.text(p.s.Value())
		return
	}
	v := p.s.Value()
	if v.Kind == jsonscan.Null {
		return
	}
	*media++
	if media == &p.r.AudioURLs {
		p.r.AudioBytes += int64(v.Len) // the URL may be the audio itself
	}
}

// prompts reads a prompt (of a completion) or an input (of an embedding): a
// string, strings, token ids, or lists of token ids. Where the field has no
// meaning for this kind of request, it is only counted.
func (p *parser) prompts(param string, mine bool) {
	if !mine {
		p.other(false)
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
			p.text(v)
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
			p.text(p.s.Value())
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
