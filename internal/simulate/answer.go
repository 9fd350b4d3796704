package simulate

import (
	"math"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

const (
	shortestAnswer = 16
	longestAnswer  = 64
	tokensForEver  = math.MaxInt
)

// words are the tokens of answers, each as it stands in a JSON string. Some
// have characters of several bytes, some need an escape.
var words = [...]string{
	" the", " of", " a", " and", " to", " in", " is", " for", " that", " with", " model", " token", " answer", " river",
	" weir", " gate", " level", " flow", " water", " stone", " light", " north", " bank", " ledger", " risk", " desk",
	" trade", " batch", " night", " market", " price", " signal", " measure", " over", " under", " through", " never",
	" always", " often", " seven", " eleven", " twelve", " quiet", " steady", " clear", " small", " large", " early",
	" 模型", " 交易", "风险", " für", " größer", " é", " \\\"so\\\"", "\\n", "\\n\\n", "\\t", " a\\\\b", "\\u00e4", "😀", ".", ",", ";",
}

// choice is one answer to one prompt.
type choice struct {
	seed   uint64
	length int    // tokens
	finish string // stop, length or tool_calls
	call   *call  // instead of words
}

// piece is the token t of the answer, as it stands in a JSON string.
func (c *choice) piece(t int) string {
	if c.call != nil {
		return c.call.pieces[t]
	}
	return words[mix(c.seed+uint64(t))%uint64(len(words))]
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// answers makes the choices for all prompts, in order. chunks, when it is not
// zero, is their length.
func (g *generation) answers(chunks int) []choice {
	list := make([]choice, 0, len(g.prompts)*g.choices)
	for _, p := range g.prompts {
		for i := range g.choices {
			list = append(list, g.answer(mix(p.hash+uint64(i)), chunks))
		}
	}
	return list
}

func (g *generation) answer(seed uint64, chunks int) choice {
	c := choice{seed: seed, finish: "stop", call: g.call}
	switch {
	case c.call != nil:
		c.length, c.finish = len(c.call.pieces), c.call.finish
	case chunks > 0:
		c.length = chunks
		return c
	case g.ignoreEOS:
		c.length = tokensForEver
	default:
		c.length = shortestAnswer + int(seed%(longestAnswer-shortestAnswer+1))
		c.length = max(c.length, g.minTokens)
	}
	if g.maxTokens > 0 && g.maxTokens < c.length {
		c.length, c.finish = g.maxTokens, "length"
	}
	return c
}

// call is an answer that calls a tool.
type call struct {
	id, name string
	pieces   []string // of the arguments, JSON text escaped for a JSON string
	finish   string
}

// chooseCall finds the tool that the request asks for: the named one, or the
// first when any is required. "auto" is answered in words.
func chooseCall(tools, choice gjson.Result, hash uint64) (*call, *failure) {
	named := choice.Get("function.name")
	if choice.IsObject() && named.Type != gjson.String {
		return nil, want(false, "tool_choice", "the name of a function")
	}
	if !choice.IsObject() && choice.String() != "required" {
		return nil, nil
	}
	for _, tool := range tools.Array() {
		name := tool.Get("function.name").String()
		if name == "" || choice.IsObject() && name != named.Str {
			continue
		}
		c := &call{id: "call_" + strconv.FormatUint(hash, 16), name: name, finish: "tool_calls"}
		if choice.IsObject() {
			c.finish = "stop" // as OpenAI and vLLM have it for a named function
		}
		c.setArguments(arguments(tool.Get("function.parameters"), hash, 0))
		return c, nil
	}
	return nil, badRequest("tool_choice", "When using `tool_choice`, `tools` must have the function that is asked for.")
}

// setArguments cuts the text into pieces of about 8 bytes, between characters.
func (c *call) setArguments(text string) {
	const size = 8
	begin := 0
	cut := func(end int) {
		c.pieces = append(c.pieces, escape(text[begin:end]))
		begin = end
	}
	for i := range text {
		if i-begin >= size {
			cut(i)
		}
	}
	cut(len(text))
}

// escape is text as it stands in a JSON string.
func escape(text string) string {
	quoted := string(gjson.AppendJSONString(nil, text))
	return quoted[1 : len(quoted)-1]
}

// arguments makes a value for a JSON schema, of the simple kind.
func arguments(schema gjson.Result, hash uint64, depth int) string {
	if first := schema.Get("enum.0"); first.Exists() {
		return first.Raw
	}
	word := strings.TrimSpace(words[hash%48]) // the plain ones
	switch kind := schema.Get("type").String(); {
	case kind == "string":
		return `"` + word + `"`
	case kind == "integer" || kind == "number":
		return strconv.FormatUint(hash%100, 10)
	case kind == "boolean":
		return strconv.FormatBool(hash%2 == 0)
	case kind == "array":
		return "[]"
	case kind == "null" || depth > 8:
		return "null"
	}
	properties := schema.Get("properties")
	if !properties.IsObject() {
		return "{}"
	}
	var b strings.Builder
	properties.ForEach(func(key, value gjson.Result) bool {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		hash = mix(hash)
		b.WriteString(key.Raw + ":" + arguments(value, hash, depth+1))
		return true
	})
	return "{" + b.String() + "}"
}
