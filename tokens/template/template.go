// Package template renders a chat as the backends of a model family render it
// before they tokenize it, so that the input tokens of a request can be counted
// without asking a backend. It reads the view of a request and nothing else, and
// never tokenizes: a Writer does.
//
// What is rendered was read from the chat templates that the models' makers
// publish, from what vLLM and SGLang hand to those, from mistral-common and from
// openai-harmony; the tests hold every family against these, run by
// scripts/reference_chat.py.
package template

import (
	"sync"
	"time"

	"github.com/weirproxy/weir/dialect"
)

// Writer takes what a template renders, in order. Literal, Segment and Bytes that
// follow each other are one text to the tokenizer; a Special ends a text, and
// nothing merges across it.
type Writer interface {
	// Special is one token that the vocabulary has by this name, or for families
	// that are not public (OpenAI's), one token.
	Special(name string)
	// Literal is text of the template itself.
	Literal(s string)
	// Segment is the decoded text of a segment of the view; with trim, without the
	// white space at its ends, as Trim cuts it.
	Segment(s *dialect.Segment, trim bool)
	// Bytes is text that was put together; it is valid during the call only.
	Bytes(b []byte)
	// Media is an image or another medium, whose tokens are counted elsewhere. The
	// marks around it are Specials.
	Media(m *dialect.Media)
}

// Backend is who renders. They hand different things to the same template.
type Backend uint8

// The backends. Hosted is a provider of whom nothing else is known: what it renders
// of tools, formats and contents of several parts is its own affair, so that these
// are rendered as vLLM does and are not exact.
const (
	Hosted Backend = iota
	VLLM
	SGLang
)

// Options is what a rendering depends on beside the request.
type Options struct {
	Backend Backend
	// Now is the clock of the backend, for the templates that print the date. They
	// are not exact without it.
	Now time.Time
}

// Template is how one family of models renders a chat. Templates are immutable and
// safe for concurrent use.
type Template struct {
	name string
	walk func(*renderer)
	// plainText says that text which looks like a special token is text.
	plainText bool
	// estimate says that no rendering is exact.
	estimate bool
	bound    Bound
}

// Name is the name in the registry.
func (t *Template) Name() string { return t.name }

// PlainText reports whether text that looks like a special token is tokenized as
// text. Where it is false, the backend tokenizes one rendered string, and a
// special or added token that stands in a message is one token.
func (t *Template) PlainText() bool { return t.plainText }

// Estimate reports whether no rendering is ever exact.
func (t *Template) Estimate() bool { return t.estimate }

// Bound is what the template adds to the text of a chat at the most.
func (t *Template) Bound() Bound { return t.bound }

// Render renders the chat of v to w. exact says that the backend renders the same;
// it is false when the request has something that the template does not define,
// that the backends of the family do not agree about, or that weir does not know.
// It allocates nothing for chats without tools.
func (t *Template) Render(v *dialect.View, w Writer, o Options) (exact bool) {
	r := renderers.Get().(*renderer)
	r.reset(v, w, o)
	r.exact = !t.estimate && !r.set.strange && len(v.Messages) > 0
	switch o.Backend {
	case Hosted:
		if r.set.tools || r.set.format {
			r.doubt()
		}
	case SGLang:
		// SGLang writes tools in the client's order of fields, and its versions add
		// fields of their own; it continues a last message of the assistant.
		if last := len(v.Messages) - 1; r.set.tools || last >= 0 && v.Messages[last].Role == dialect.RoleAssistant {
			r.exact = false
		}
	}
	t.walk(r)
	if !r.shown { // the template does not say where media stand
		for i := range v.Media {
			r.doubt()
			w.Media(&v.Media[i])
		}
	}
	exact = r.exact
	r.release()
	renderers.Put(r)
	return exact
}

var renderers = sync.Pool{New: func() any { return new(renderer) }}

// ByName is the template of that name.
func ByName(name string) (*Template, bool) {
	for _, t := range templates {
		if t.name == name {
			return t, true
		}
	}
	return nil, false
}

// Names are the names of all templates.
func Names() []string {
	names := make([]string, len(templates))
	for i, t := range templates {
		names[i] = t.name
	}
	return names
}

// templates is the registry.
var templates = []*Template{
	openaiTemplate, openaiLater, openaiGPT5, harmonyTemplate,
	qwen25, qwen3, qwen3Instruct, qwen3Thinking, qwen25VL,
	deepseekV3, deepseekV31, deepseekR1,
	llama3, llama31, llama32,
	mistralV3, mistralV7, mistralV11, mistralV13,
	generic,
}
