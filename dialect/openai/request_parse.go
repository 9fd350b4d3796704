package openai

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/jsonscan"
	"github.com/weirproxy/weir/internal/ai"
)

// Parse reads body in one strict pass; r is overwritten. maxDepth is the deepest
// nesting that is accepted; the object at the top is the first level. r.Body
// holds on to body until r is used again.
//
// What is refused, beside faulty JSON: fields on which weir relies with a value
// of the wrong type, and such fields in another case (a backend that ignores
// case would read MODEL as model). A null stands for an absent field. Numbers
// must be written as integers, without fraction or exponent.
func Parse(kind ai.Kind, body []byte, maxDepth int, r *Request) *Fault {
	p := parser{r: r, model: r.Model, message: dialect.NoMessage}
	view := r.View
	view.Reset(body)
	*r = Request{View: view, Kind: kind, N: 1}
	p.s = jsonscan.Acquire(body, maxDepth)
	defer p.s.Release()
	if p.s.Peek() == jsonscan.Invalid && p.s.Offset() == len(body) && p.s.Fault() == nil {
		return &Fault{Reason: ai.ReasonEmptyBody, Message: "The request has no body; a JSON object was expected."}
	}
	p.top()
	if p.s.End(); p.s.Fault() != nil {
		return jsonFault(p.s.Fault(), maxDepth)
	}
	p.finish()
	return p.fault
}

func jsonFault(f *jsonscan.Fault, maxDepth int) *Fault {
	text := "The request body is not valid JSON: "
	switch f.Reason {
	case ai.ReasonDuplicateKey:
		text = "The request body is ambiguous: "
	case ai.ReasonTooDeep:
		text = "The request body is nested deeper than " + strconv.Itoa(maxDepth) + " levels: "
	}
	return &Fault{Reason: f.Reason, Offset: f.Offset, Message: text + f.What + " at byte " + strconv.Itoa(f.Offset) + "."}
}

// parser walks over one body. The first fault of a field is kept, and the walk
// goes on: a fault of the JSON, wherever it is, is told first.
type parser struct {
	s     *jsonscan.Scanner
	r     *Request
	fault *Fault
	model string // of the parse before: it need not be allocated again

	message int // the index of the message that is read, or dialect.NoMessage

	best       int64 // best_of
	ceilings   [2]ceiling
	hasContent bool // messages, prompt or input are there
	flat       bool // the prompt is one list of token ids
}

// wrong notes a value of the wrong type.
func (p *parser) wrong(param, want string, offset int, got jsonscan.Kind) {
	p.refuse(param, offset, "Invalid type for '"+param+"': expected "+want+", but got "+article(got)+" instead.")
}

func (p *parser) refuse(param string, offset int, message string) {
	if p.fault == nil {
		p.fault = &Fault{Reason: ai.ReasonInvalidField, Param: param, Offset: offset, Message: message}
	}
}

func article(k jsonscan.Kind) string {
	switch k {
	case jsonscan.Object, jsonscan.Array:
		return "an " + k.String()
	case jsonscan.Null:
		return "null"
	}
	return "a " + k.String()
}

// top reads the members of the body.
func (p *parser) top() {
	p.s.EnterObject()
	for key, ok := p.s.NextKey(); ok; key, ok = p.s.NextKey() {
		p.s.Peek()
		f := dialect.Field{NameOff: key.Off, NameLen: key.Len, Off: p.s.Offset()}
		p.field(p.s.Text(key), key.Off)
		f.Len = p.s.Offset() - f.Off
		p.r.Fields = append(p.r.Fields, f)
	}
	p.r.edits.end = p.s.Offset() - 1
}

func (p *parser) field(name []byte, offset int) {
	kind := p.r.Kind
	switch string(name) {
	case "model":
		p.modelName()
	case "stream":
		p.r.Stream = p.boolean("stream")
	case "stream_options":
		p.streamOptions()
	case "n":
		p.r.N = max(p.count("n"), 1)
	case "best_of":
		p.best = p.count("best_of")
	case "max_tokens":
		p.ceilings[maxTokens] = p.ceiling("max_tokens", leastCeiling(kind))
	case "max_completion_tokens":
		// Completions know max_tokens only.
		if kind == ai.KindCompletion {
			p.s.Value()
		} else {
			p.ceilings[maxCompletionTokens] = p.ceiling("max_completion_tokens", 1)
		}
	case "min_tokens": // vLLM's and SGLang's
		p.r.edits.least = p.ceiling("min_tokens", 0)
	case "tools":
		p.tools("tools")
	case "functions":
		p.tools("functions")
	case "messages":
		p.hasContent = p.messages() || p.hasContent
	case "prompt":
		p.prompts("prompt", kind == ai.KindCompletion)
	case "input":
		p.prompts("input", kind == ai.KindEmbedding)
	case "audio": // the voice and the format of an answer
		p.r.Audio = p.s.Value().Kind != jsonscan.Null || p.r.Audio
	case "modalities":
		p.modalities()
	case "service_tier":
		tier := p.s.Value()
		p.r.Flex = tier.Kind == jsonscan.String && string(p.s.Text(tier)) == "flex"
	case "mm_processor_kwargs", "media_io_kwargs":
		p.r.MediaLimits = p.s.Value().Kind != jsonscan.Null
	case "tool_choice": // a mode, or an object that some templates show
		if p.s.Peek() == jsonscan.String {
			p.s.Value()
		} else {
			p.other(dialect.ToolChoice)
		}
	default:
		if at := inBody.field(name); at != noBudget {
			p.budgetField(at, string(name))
			return
		}
		if known := misspelt(name); known != "" {
			p.refuse(known, offset, "The field '"+known+"' must be written in lower case.")
		}
		switch kind, known := settings[string(name)]; {
		case known:
			p.setting(kind)
		case neverPrompt[string(name)]:
			p.s.Value()
		default:
			p.other(dialect.Other)
		}
	}
}

// modalities reads in what the answer shall be. What is no list is for the backend to
// refuse.
func (p *parser) modalities() {
	if p.s.Peek() != jsonscan.Array {
		p.s.Value()
		return
	}
	p.s.EnterArray()
	for p.s.NextItem() {
		if v := p.s.Value(); v.Kind == jsonscan.String && string(p.s.Text(v)) == "audio" {
			p.r.Audio = true
		}
	}
}

// leastCeiling is the smallest max_tokens. Of a chat, some backends take 0 for none
// at all; with 0 a completion asks for the probabilities of its prompt.
func leastCeiling(kind ai.Kind) int64 {
	if kind == ai.KindCompletion {
		return 0
	}
	return 1
}

// finish judges what only the whole body shows.
func (p *parser) finish() {
	r := p.r
	r.N = max(r.N, p.best)
	if p.flat || r.Prompts == 0 {
		r.Prompts++
	}
	r.Vision = slices.ContainsFunc(r.Media, func(m dialect.Media) bool { return m.Kind == dialect.Image || m.Kind == dialect.Video })
	r.Audio = r.Audio || slices.ContainsFunc(r.Media, func(m dialect.Media) bool { return m.Kind == dialect.Audio })
	r.edits.ceilings = p.ceilings
	for _, c := range p.ceilings {
		if c.given {
			// vLLM makes one token also where it shall make none.
			r.MaxOutput, r.HasMaxOutput = max(r.MaxOutput, c.value, 1), true
		}
	}
	if r.Model == "" {
		p.refuse("model", 0, "You must provide a model parameter.")
	}
	switch {
	case p.hasContent:
	case r.Kind == ai.KindChat:
		p.refuse("messages", 0, "Missing required parameter: 'messages'.")
	case r.Kind == ai.KindEmbedding:
		p.refuse("input", 0, "Missing required parameter: 'input'.")
	}
}

// relied are the fields that weir relies on, and those that a backend could take
// for them.
var relied = [...]string{
	"model", "stream", "stream_options", "include_usage", "n", "best_of", "max_tokens", "max_completion_tokens",
	"tools", "functions", "messages", "prompt", "input", "min_tokens",
	"thinking", "thinking_budget", "thinking_token_budget", "thinking_budget_tokens", "budget_tokens",
}

// misspelt is the field that a name is in another case; "" when there is none.
func misspelt(name []byte) string {
	plain := true
	for _, c := range name {
		plain = plain && c < 0x80 && (c < 'A' || c > 'Z')
	}
	if plain {
		return ""
	}
	return reliedOn(name)
}

// reliedOn is the field that a name is, in whatever case; "" when there is none.
func reliedOn(name []byte) string {
	for _, known := range relied {
		if bytes.EqualFold(name, []byte(known)) {
			return known
		}
	}
	return ""
}

// neverPrompt are fields whose text no backend shows to its model.
var neverPrompt = map[string]bool{
	"user": true, "metadata": true, "stop": true, "logit_bias": true, "verbosity": true, "safety_identifier": true, "prompt_cache_key": true,
	"prompt_cache_retention": true, "prompt_cache_options": true, "encoding_format": true,
	"cache_salt": true, "stop_token_ids": true,
}

// settings are the fields that change what a chat template renders, and those
// that are text of a kind of their own.
var settings = map[string]dialect.Kind{
	"reasoning_effort": dialect.ReasoningEffort, "chat_template": dialect.ChatTemplate,
	"chat_template_kwargs": dialect.TemplateArguments, "documents": dialect.Documents,
	"add_generation_prompt": dialect.AddGenerationPrompt, "continue_final_message": dialect.ContinueFinalMessage,
	"add_special_tokens": dialect.AddSpecialTokens, "response_format": dialect.Schema, "suffix": dialect.Suffix,
}
