package openai

import (
	"strconv"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/jsonscan"
)

func (p *parser) modelName() {
	v := p.s.Value()
	switch {
	case v.Kind == jsonscan.Null:
		return
	case v.Kind != jsonscan.String:
		p.wrong("model", "a string", v.Off, v.Kind)
		return
	case v.Text == 0 || v.Text > MaxModelName:
		p.refuse("model", v.Off, "The model name must have 1 to "+strconv.Itoa(MaxModelName)+" bytes.")
		return
	}
	text := p.s.Text(v)
	if p.model != string(text) {
		p.model = string(text)
	}
	p.r.Model = p.model
	p.r.ModelSpan = Span{v.Off, v.Len}
}

// boolean reads a boolean; false for null and for a fault.
func (p *parser) boolean(param string) bool {
	v := p.s.Value()
	switch v.Kind {
	case jsonscan.True, jsonscan.False:
		return v.Kind == jsonscan.True
	case jsonscan.Null:
		return false
	}
	p.wrong(param, "a boolean", v.Off, v.Kind)
	return false
}

// maxDigits is how long an integer may be: every JSON reader takes 15 digits
// exactly.
const maxDigits = 15

// integer reads an integer that is not negative; false for null and for a fault.
func (p *parser) integer(param string) (int64, jsonscan.Value, bool) {
	v := p.s.Value()
	switch v.Kind {
	case jsonscan.Number:
	case jsonscan.Null:
		return 0, v, false
	default:
		p.wrong(param, "an integer", v.Off, v.Kind)
		return 0, v, false
	}
	text := p.r.Body[v.Off : v.Off+v.Len]
	n := int64(0)
	for _, c := range text {
		if c < '0' || c > '9' || len(text) > maxDigits {
			p.refuse(param, v.Off, "Invalid value for '"+param+"': expected a non-negative integer of at most 15 digits, without fraction or exponent.")
			return 0, v, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, v, true
}

// count reads an integer of at least 1; 0 for null.
func (p *parser) count(param string) int64 {
	n, v, ok := p.integer(param)
	if ok && n < 1 {
		p.refuse(param, v.Off, "Invalid value for '"+param+"': expected an integer of at least 1.")
	}
	return n
}

// ceiling is an output ceiling as it stands in the body.
type ceiling struct {
	Span
	present bool // the key is there
	given   bool // and its value is not null
	value   int64
}

// ceiling reads a ceiling of at least so many tokens.
func (p *parser) ceiling(param string, least int64) ceiling {
	n, v, ok := p.integer(param)
	if ok && n < least {
		p.refuse(param, v.Off, "Invalid value for '"+param+"': expected an integer of at least "+strconv.FormatInt(least, 10)+".")
	}
	return ceiling{Span: Span{v.Off, v.Len}, present: true, given: ok, value: n}
}

func (p *parser) streamOptions() {
	e := &p.r.edits
	if kind := p.s.Peek(); kind != jsonscan.Object {
		v := p.s.Value()
		e.options, e.optionsNull = Span{v.Off, v.Len}, kind == jsonscan.Null
		if !e.optionsNull {
			p.wrong("stream_options", "an object", v.Off, v.Kind)
		}
		return
	}
	e.options.Off = p.s.Offset()
	p.s.EnterObject()
	e.optionsEmpty = true
	for key, ok := p.s.NextKey(); ok; key, ok = p.s.NextKey() {
		e.optionsEmpty = false
		name := p.s.Text(key)
		if string(name) != "include_usage" {
			if misspelt(name) == "include_usage" {
				p.refuse("stream_options.include_usage", key.Off, "The field 'include_usage' must be written in lower case.")
			}
			p.s.Value()
			continue
		}
		p.s.Peek()
		start := p.s.Offset()
		p.r.IncludeUsage = p.boolean("stream_options.include_usage")
		e.include = Span{start, p.s.Offset() - start}
	}
	e.options.Len = p.s.Offset() - e.options.Off
}

// tools reads a list of tools or functions: each is one segment.
func (p *parser) tools(param string) {
	kind := p.s.Peek()
	start := p.s.Offset()
	if kind != jsonscan.Array {
		p.s.Value()
		if kind != jsonscan.Null {
			p.wrong(param, "an array", start, kind)
		}
		return
	}
	p.s.EnterArray()
	for p.s.NextItem() {
		p.r.Tools = true
		p.raw(dialect.Tool, p.s.Value())
	}
}

// raw notes v as JSON that a model may read.
func (p *parser) raw(kind dialect.Kind, v jsonscan.Value) {
	p.r.Segments = append(p.r.Segments, dialect.Segment{
		Off: v.Off, Len: v.Len, Text: v.Len, Kind: kind, Message: p.message, Raw: true,
	})
}

// text notes v, whatever it is but null, as text that a model may read.
func (p *parser) text(kind dialect.Kind, v jsonscan.Value) {
	switch v.Kind {
	case jsonscan.Invalid, jsonscan.Null:
	case jsonscan.String:
		p.r.Segments = append(p.r.Segments, dialect.Segment{
			Off: v.Off, Len: v.Len, Text: v.Text, Kind: kind, Message: p.message, Escaped: v.Escaped,
		})
	default:
		p.raw(kind, v)
	}
}

// other reads a field that weir does not know. Numbers and booleans are settings;
// anything else may be shown to the model, in a way that only the backend knows.
func (p *parser) other(kind dialect.Kind) {
	v := p.s.Value()
	switch v.Kind {
	case jsonscan.String, jsonscan.Array, jsonscan.Object:
		p.raw(kind, v)
	}
}

// setting reads a field that changes how a request is rendered. It is noted also
// when it is a number or a boolean; but as one without text.
func (p *parser) setting(kind dialect.Kind) {
	v := p.s.Value()
	p.text(kind, v)
	if v.Kind != jsonscan.String && v.Kind != jsonscan.Array && v.Kind != jsonscan.Object && v.Kind != jsonscan.Null && v.Kind != jsonscan.Invalid {
		p.r.Segments[len(p.r.Segments)-1].Text = 0
	}
}
