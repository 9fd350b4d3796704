package simulate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weirproxy/weir/internal/ai"
)

// shape is how an endpoint writes the parts of an answer. The strings are JSON.
type shape struct {
	id                    string // prefix of ids
	object, chunkObject   string
	role                  string // the delta that opens a choice, "" for none
	beforePiece           string // around a piece of text in a stream
	afterPiece            string
	end                   string // the delta beside a finish reason
	beforeText, afterText string // around the text of a whole answer
}

var (
	chatShape = shape{
		id: "chatcmpl-", object: "chat.completion", chunkObject: "chat.completion.chunk",
		role:        `"delta":{"role":"assistant","content":""}`,
		beforePiece: `"delta":{"content":"`, afterPiece: `"}`, end: `"delta":{}`,
		beforeText: `"message":{"role":"assistant","content":"`, afterText: `","refusal":null}`,
	}
	completionShape = shape{
		id: "cmpl-", object: "text_completion", chunkObject: "text_completion",
		beforePiece: `"text":"`, afterPiece: `"`, end: `"text":""`,
		beforeText: `"text":"`, afterText: `"`,
	}
)

func (x *exchange) chat()       { x.generate(true, &chatShape) }
func (x *exchange) completion() { x.generate(false, &completionShape) }

// job is an answer in the making.
type job struct {
	*exchange
	*generation
	shape   *shape
	choices []choice
	prefix  []byte // of each event: {"id":…,"object":…,"created":…,"model":…,"choices":[
	suffix  string // of each event that has choices: what follows them
	longest int    // tokens of the longest choice
	sent    int    // tokens sent, of all choices

	first, last time.Time // when the first and the last token were sent
}

func (x *exchange) generate(chat bool, s *shape) {
	if !x.jsonBody() {
		return
	}
	g, fail := readGeneration(x.body, chat)
	if fail == nil {
		kind := ai.KindCompletion
		if chat {
			kind = ai.KindChat
		}
		g.exact = x.s.exactTokens(kind, x.body, cmp.Or(g.model, x.s.opts.Model))
		fail = x.fits(g)
	}
	if fail != nil {
		x.fail(fail)
		return
	}
	if !x.serves(g.model) {
		return
	}
	j := &job{exchange: x, generation: g, shape: s, choices: g.answers(x.fault.Chunks)}
	j.begin()
	defer x.s.metrics.begin(j)()
	if g.stream {
		j.stream()
	} else {
		j.whole()
	}
}

// fits checks the prompt and the ceiling against the context, and gives a
// request without a ceiling the one that the context leaves.
func (x *exchange) fits(g *generation) *failure {
	limit, tokens := x.s.opts.MaxModelLen, g.promptTokens()
	if tokens+max(g.maxTokens, 1) > limit {
		return &failure{
			status: 400, param: "messages", code: "context_length_exceeded",
			message: fmt.Sprintf("This model's maximum context length is %d tokens. However, you requested %d tokens (%d in the messages, %d in the completion). Please reduce the length of the messages or completion.",
				limit, tokens+g.maxTokens, tokens, g.maxTokens),
		}
	}
	if g.maxTokens == 0 {
		g.maxTokens = limit - tokens
	}
	return nil
}

// begin works out what all parts of the answer share.
func (j *job) begin() {
	for i := range j.choices {
		j.longest = max(j.longest, j.choices[i].length)
	}
	tokens, cached := j.promptTokens(), j.prefill()
	j.s.log.update(j.rec, func(r *Request) { r.PromptTokens, r.CachedTokens = tokens, cached })
	object := j.shape.object
	if j.generation.stream {
		object = j.shape.chunkObject
	}
	model := j.model
	if model == "" {
		model = j.s.opts.Model
	}
	b := make([]byte, 0, 160+len(model))
	b = append(b, `{"id":"`...)
	b = append(b, j.shape.id...)
	b = strconv.AppendUint(b, j.prompts[0].hash, 16)
	b = append(b, '-')
	b = strconv.AppendInt(b, j.s.metrics.ids.Add(1), 10)
	b = append(b, `","object":"`...)
	b = append(b, object...)
	b = append(b, `","created":`...)
	b = strconv.AppendInt(b, j.s.opts.Now().Unix(), 10)
	b = append(b, `,"model":`...)
	b = gjson.AppendJSONString(b, model)
	b = append(b, `,"choices":[`...)
	j.prefix = b
}

// note counts tokens that were sent.
func (j *job) note(tokens int) {
	j.sent += tokens
	sent := j.sent
	j.s.log.update(j.rec, func(r *Request) { r.Chunks, r.CompletionTokens = sent, sent })
}

// complete counts an answer that was sent to its end.
func (j *job) complete() { j.s.served.Add(1) }

// delay is the time between two tokens.
func (j *job) delay() time.Duration {
	if j.fault.ChunkDelayMS != 0 {
		return milliseconds(j.fault.ChunkDelayMS)
	}
	return j.s.opts.PerToken
}

// appendUsage appends the usage object for so many completion tokens, as the
// fault has it.
func (j *job) appendUsage(b []byte, completion int) []byte {
	if j.fault.UsageBody != nil {
		var line bytes.Buffer // an event of a stream has one line
		_ = json.Compact(&line, j.fault.UsageBody)
		return append(b, line.Bytes()...)
	}
	prompt, cached, reasoning := j.promptTokens(), 0, 0
	switch j.fault.Usage {
	case "null":
		return append(b, "null"...)
	case "zero":
		prompt, completion = 0, 0
	case "wrong":
		prompt, completion = 2*prompt+1000, 2*completion+1000
	case "cached":
		cached = prompt / 2
	case "reasoning":
		reasoning = completion / 2
	}
	b = appendCount(b, `{"prompt_tokens":`, prompt)
	b = appendCount(b, `,"total_tokens":`, prompt+completion)
	b = appendCount(b, `,"completion_tokens":`, completion)
	if cached > 0 || j.s.kind.Provider {
		b = appendCount(b, `,"prompt_tokens_details":{"cached_tokens":`, cached)
		b = append(b, '}')
	} else {
		b = append(b, `,"prompt_tokens_details":null`...)
	}
	if reasoning > 0 || j.s.kind.Provider {
		b = appendCount(b, `,"completion_tokens_details":{"reasoning_tokens":`, reasoning)
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendCount(b []byte, key string, n int) []byte {
	return strconv.AppendInt(append(b, key...), int64(n), 10)
}
