package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/tokens"
)

// The turns of an agent that are measured: one whose context was never seen, and
// one whose context is known but for its last message.
const (
	coldTurn = "cold"
	nextTurn = "next turn"
)

// agents are the models whose input is counted, each by another vocabulary.
var agents = []tokens.Choice{
	{Model: "gpt-4o"},
	{Model: "Qwen/Qwen3-8B", Adapter: "vllm"},
	{Model: "deepseek-v3", Adapter: "vllm"},
}

const (
	contextBytes = 200 << 10
	messageBytes = 2 << 10
	// lastMessages is how many last messages take turns, so that not even their
	// words are all known from the turn before.
	lastMessages = 8
	digits       = "000000000000000000" // as many as any turn's number has
)

// agentText is the text of the messages, those that take turns included.
func agentText(root string) (text, error) {
	english, err := corpus(root, "english")
	if err != nil {
		return text{}, err
	}
	code, err := corpus(root, "code")
	if err != nil {
		return text{}, err
	}
	all := english // talk and code in turns
	for i := range all {
		if i/messageBytes%2 == 1 && i < len(code) {
			all[i] = code[i]
		}
	}
	need := contextBytes + lastMessages*messageBytes
	if len(all) < need {
		return text{}, fmt.Errorf("the corpora are too small for a context of %d bytes", need)
	}
	return text{"context", all[:need]}, nil
}

// agent is a context in so many versions as there are last messages.
type agent struct {
	tokenizer *tokens.Tokenizer
	requests  []openai.Request
	want      []int64 // tokens of each
}

func newAgent(choice tokens.Choice, text []byte) (*agent, error) {
	t, err := tokens.New(choice)
	if err != nil {
		return nil, err
	}
	a := &agent{tokenizer: t, requests: make([]openai.Request, lastMessages), want: make([]int64, lastMessages)}
	context, last := text[:contextBytes-messageBytes], text[contextBytes:]
	for i := range a.requests {
		body, err := chat(context, append([]byte(digits), last[i*messageBytes:][:messageBytes-len(digits)]...))
		if err != nil {
			return nil, err
		}
		r := &a.requests[i]
		if f := openai.Parse(ai.KindChat, body, 64, r); f != nil {
			return nil, fmt.Errorf("request %d: %w", i, f)
		}
		a.want[i] = t.Count(r, tokens.Session{}).Tokens
	}
	return a, nil
}

// chat is the body of a request: messages of the context, the newest of which is
// last.
func chat(context, last []byte) ([]byte, error) {
	messages := []map[string]string{{"role": "system", "content": "You are a careful engineer."}}
	all := slices.Collect(slices.Chunk(context, messageBytes))
	for i, m := range append(all, last) {
		role := "user"
		if (len(all)-i)%2 == 1 {
			role = "assistant"
		}
		messages = append(messages, map[string]string{"role": role, "content": string(bytes.ToValidUTF8(m, nil))})
	}
	body := bytes.NewBuffer(nil)
	enc := json.NewEncoder(body)
	enc.SetEscapeHTML(false) // as all clients but Go's have it
	err := enc.Encode(map[string]any{"model": "m", "messages": messages})
	return body.Bytes(), err
}

// number writes i to the begin of the last message of a version: nobody has
// counted it before. The number of its tokens stays.
func (a *agent) number(version int, i uint64) {
	r := &a.requests[version]
	b := r.Bytes(&r.Segments[len(r.Segments)-1])[:len(digits)]
	for k := len(b) - 1; k >= 0; k-- {
		b[k] = '0' + byte(i%10)
		i /= 10
	}
}

// count counts a version and checks the number.
func (a *agent) count(version int, s tokens.Session) error {
	if n := a.tokenizer.Count(&a.requests[version], s).Tokens; n != a.want[version] {
		return fmt.Errorf("%d tokens, and %d without what is remembered", n, a.want[version])
	}
	return nil
}

func choiceOf(model string) (tokens.Choice, error) {
	i := slices.IndexFunc(agents, func(c tokens.Choice) bool { return c.Model == model })
	if i < 0 {
		return tokens.Choice{}, fmt.Errorf("no agent has the model %q", model)
	}
	return agents[i], nil
}

// newColdTurn counts the context with no memory of it.
func newColdTurn(model string) (counter, error) {
	choice, err := choiceOf(model)
	if err != nil {
		return nil, err
	}
	return func(text []byte) (func() (int, error), error) {
		a, err := newAgent(choice, text)
		if err != nil {
			return nil, err
		}
		return func() (int, error) { return int(a.want[0]), a.count(0, tokens.Session{}) }, nil
	}, nil
}

// newNextTurn counts the context when all but its last message is remembered.
func newNextTurn(model string) (counter, error) {
	choice, err := choiceOf(model)
	if err != nil {
		return nil, err
	}
	return func(text []byte) (func() (int, error), error) {
		a, err := newAgent(choice, text)
		if err != nil {
			return nil, err
		}
		memo := tokens.NewMemo() // ends with the process
		s := tokens.Session{Memo: memo, Tenant: "team"}
		if err := a.count(0, s); err != nil {
			return nil, err
		}
		memo.Wait()
		turn := uint64(0)
		return func() (int, error) {
			turn++
			version := int(turn % lastMessages)
			a.number(version, turn)
			return int(a.want[0]), a.count(version, s)
		}, nil
	}, nil
}
