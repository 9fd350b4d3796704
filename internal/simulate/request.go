package simulate

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/tidwall/gjson"
)

const (
	bytesPerToken    = 4
	tokensPerMessage = 4
	tokensPerMedia   = 256
	maxDepth         = 1000 // of nested JSON, as Python's parser has it
	maxChoices       = 128
	maxAnswers       = 1024 // of one request: choices for all prompts
)

// CountText is how many tokens a text has.
func CountText(text string) int { return (len(text) + bytesPerToken - 1) / bytesPerToken }

// CountPrompt is the prompt tokens that the server reports for the body of a
// chat request, or false when it would refuse the body.
func CountPrompt(body string) (int, bool) {
	g, err := readGeneration(body, true)
	if err != nil {
		return 0, false
	}
	return g.promptTokens(), true
}

// prompt is one text to go on from.
type prompt struct {
	hash   uint64
	tokens int
}

// generation is a request for text, chat or completion.
type generation struct {
	model           string
	stream          bool
	includeUsage    bool
	continuousUsage bool
	choices         int // for each prompt
	maxTokens       int // 0: not given
	minTokens       int
	ignoreEOS       bool
	reasoning       bool
	prompts         []prompt // one for chat
	exact           int      // tokens of all prompts, when they are known exactly
	call            *call    // the answer is a tool call
}

func (g *generation) promptTokens() int {
	if g.exact > 0 {
		return g.exact
	}
	sum := 0
	for _, p := range g.prompts {
		sum += p.tokens
	}
	return sum
}

// modelIn finds the model that a body names, or "".
func modelIn(body string) string {
	model := ""
	gjson.Parse(body).ForEach(func(key, value gjson.Result) bool {
		if key.String() == "model" { // the last one counts, as in Python
			model = value.String()
		}
		return true
	})
	return model
}

// parseObject checks that body is one JSON object.
func parseObject(body string) (gjson.Result, *failure) {
	if !utf8.ValidString(body) {
		return gjson.Result{}, badRequest("", "the body is not UTF-8")
	}
	if tooDeep(body) || !gjson.Valid(body) {
		return gjson.Result{}, badRequest("", "JSON decode error")
	}
	root := gjson.Parse(body)
	if !root.IsObject() {
		return gjson.Result{}, badRequest("", "Input should be a valid dictionary")
	}
	return root, nil
}

// tooDeep tells whether body nests too deeply for a recursive parser.
func tooDeep(body string) bool {
	if strings.Count(body, "[")+strings.Count(body, "{") <= maxDepth {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// fields are a request's values that need a second look, raw.
type fields struct {
	messages, prompt, tools, toolChoice, streamOptions, seed gjson.Result
}

// readGeneration reads and checks a chat or a completion request.
func readGeneration(body string, chat bool) (*generation, *failure) {
	root, fail := parseObject(body)
	if fail != nil {
		return nil, fail
	}
	g := &generation{choices: 1}
	var f fields
	root.ForEach(func(key, value gjson.Result) bool {
		fail = g.readField(&f, key.String(), value)
		return fail == nil
	})
	if fail != nil {
		return nil, fail
	}
	if fail = g.readStreamOptions(f.streamOptions); fail != nil {
		return nil, fail
	}
	if !chat {
		if fail = g.readPrompts(f.prompt, f.seed); fail == nil {
			fail = want(len(g.prompts)*g.choices <= maxAnswers, "prompt", fmt.Sprintf("at most %d answers", maxAnswers))
		}
		return g, fail
	}
	if fail = g.readMessages(f.messages, f.tools, f.seed); fail != nil {
		return nil, fail
	}
	g.call, fail = chooseCall(f.tools, f.toolChoice, g.prompts[0].hash)
	return g, fail
}

func (g *generation) readField(f *fields, key string, v gjson.Result) *failure {
	switch key {
	case "model":
		g.model = v.String()
		return want(v.Type == gjson.String || v.Type == gjson.Null, key, "a valid string")
	case "stream":
		g.stream = v.Bool()
		return want(isBool(v), key, "a valid boolean")
	case "ignore_eos":
		g.ignoreEOS = v.Bool()
		return want(isBool(v), key, "a valid boolean")
	case "max_tokens", "max_completion_tokens":
		return g.readMaxTokens(key, v)
	case "min_tokens":
		return wantInt(&g.minTokens, key, v, 0)
	case "n":
		if fail := wantInt(&g.choices, key, v, 1); fail != nil {
			return fail
		}
		return want(g.choices <= maxChoices, key, fmt.Sprintf("at most %d", maxChoices))
	case "temperature":
		return want(v.Type == gjson.Null || v.Type == gjson.Number && v.Num >= 0 && v.Num <= 2, key, "between 0 and 2")
	case "top_p":
		return want(v.Type == gjson.Null || v.Type == gjson.Number && v.Num > 0 && v.Num <= 1, key, "above 0 and at most 1")
	case "reasoning_effort":
		g.reasoning = v.Type == gjson.String && v.Str != "none"
	case "messages":
		f.messages = v
	case "prompt":
		f.prompt = v
	case "tools":
		f.tools = v
	case "tool_choice":
		f.toolChoice = v
	case "stream_options":
		f.streamOptions = v
	case "seed":
		f.seed = v
	}
	return nil
}

// readMaxTokens reads either name of the ceiling; the newer one goes first.
func (g *generation) readMaxTokens(key string, v gjson.Result) *failure {
	var n int
	if fail := wantInt(&n, key, v, 1); fail != nil {
		return fail
	}
	if n > 0 && (key == "max_completion_tokens" || g.maxTokens == 0) {
		g.maxTokens = n
	}
	return nil
}

func (g *generation) readStreamOptions(v gjson.Result) *failure {
	if !v.Exists() || v.Type == gjson.Null {
		return nil
	}
	if !v.IsObject() {
		return want(false, "stream_options", "a valid dictionary")
	}
	if !g.stream {
		return badRequest("stream_options", "Stream options can only be defined when `stream=True`.")
	}
	g.includeUsage = v.Get("include_usage").Bool()
	g.continuousUsage = g.includeUsage && v.Get("continuous_usage_stats").Bool()
	return nil
}

func (g *generation) readMessages(messages, tools, seed gjson.Result) *failure {
	if !messages.IsArray() {
		return want(false, "messages", "a valid list")
	}
	p := prompt{hash: hashPrompt(messages, seed)}
	var fail *failure
	count := 0
	messages.ForEach(func(_, m gjson.Result) bool {
		var n int
		n, fail = countMessage(m)
		p.tokens += n
		count++
		return fail == nil
	})
	if fail != nil {
		return fail
	}
	if tools.IsArray() {
		p.tokens += CountText(tools.Raw)
	}
	g.prompts = []prompt{p}
	return want(count > 0, "messages", "a list that is not empty")
}

// hashPrompt is what the answer follows from: the prompt as it stands in the
// body, and the seed.
func hashPrompt(text, seed gjson.Result) uint64 {
	hash := xxhash.Sum64String(text.Raw)
	if seed.Exists() {
		hash = mix(hash ^ xxhash.Sum64String(seed.Raw))
	}
	return hash
}

func countMessage(m gjson.Result) (int, *failure) {
	if !m.IsObject() {
		return 0, want(false, "messages", "a list of dictionaries")
	}
	tokens, role := tokensPerMessage, ""
	var fail *failure
	m.ForEach(func(key, v gjson.Result) bool {
		switch key.String() {
		case "role":
			role = v.String()
		case "name":
			tokens += CountText(v.String())
		case "content":
			var n int
			n, fail = countContent(v)
			tokens += n
		case "tool_calls":
			for _, call := range v.Array() {
				tokens += CountText(call.Get("function.arguments").String())
			}
		}
		return fail == nil
	})
	switch role {
	case "system", "developer", "user", "assistant", "tool", "function":
		return tokens, fail
	}
	return 0, want(false, "role", "a known role")
}

func countContent(v gjson.Result) (int, *failure) {
	switch {
	case v.Type == gjson.String:
		return CountText(v.Str), nil
	case v.Type == gjson.Null:
		return 0, nil
	case !v.IsArray():
		return 0, want(false, "content", "a string or a list of parts")
	}
	tokens := 0
	var fail *failure
	v.ForEach(func(_, part gjson.Result) bool {
		switch part.Get("type").String() {
		case "text", "refusal", "input_text":
			tokens += CountText(part.Get("text").String())
		case "image_url", "input_audio", "audio_url", "video_url", "file":
			tokens += tokensPerMedia
		default:
			fail = badRequest("content", "Unknown part type")
		}
		return fail == nil
	})
	return tokens, fail
}

// readPrompts reads what completions and embeddings take: a text, a list of
// texts, a list of token ids, or a list of such lists.
func (g *generation) readPrompts(v, seed gjson.Result) *failure {
	list := []gjson.Result{v}
	if v.IsArray() {
		items := v.Array()
		if len(items) > 0 && items[0].Type != gjson.Number {
			list = items
		}
	}
	for _, item := range list {
		tokens := 0
		switch {
		case item.Type == gjson.String:
			tokens = CountText(item.Str)
		case item.IsArray():
			tokens = len(item.Array())
		default:
			return badRequest("", "Either prompt or input must be a string, or a list of strings or of token ids.")
		}
		g.prompts = append(g.prompts, prompt{hash: hashPrompt(item, seed), tokens: tokens})
	}
	return nil
}

func isBool(v gjson.Result) bool { return v.IsBool() || v.Type == gjson.Null }

func want(ok bool, param, what string) *failure {
	if ok {
		return nil
	}
	return badRequest(param, param+": Input should be "+what)
}

// wantInt reads a whole number of at least least; null leaves dst as it is.
func wantInt(dst *int, key string, v gjson.Result, least int) *failure {
	if v.Type == gjson.Null {
		return nil
	}
	n := int(v.Int())
	if v.Type != gjson.Number || v.Num != float64(n) {
		return want(false, key, "a valid integer")
	}
	if n < least {
		return badRequest(key, fmt.Sprintf("%s must be at least %d, got %d.", key, least, n))
	}
	*dst = n
	return nil
}
