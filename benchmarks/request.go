package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// messageBytes is the size of the messages of a long conversation.
const messageBytes = 4 << 10

// counterDigits is the width of the number that makes each body different.
const counterDigits = 16

// request is an HTTP request whose body differs from time to time in one number,
// which stands in the text of its first message, unless it is to be the same.
type request struct {
	same    bool
	text    []byte
	counter []byte // within text
	n       uint64
}

func (r *request) next() []byte {
	if r.same {
		return r.text
	}
	const hex = "0123456789abcdef"
	r.n++
	for i, n := counterDigits-1, r.n; i >= 0; i, n = i-1, n>>4 {
		r.counter[i] = hex[n&15]
	}
	return r.text
}

// newRequest makes the request of connection i, with a body of about
// spec.BodyBytes bytes.
func newRequest(spec *loadSpec, i int) request {
	mark := strings.Repeat("#", counterDigits)
	options := fmt.Sprintf(`"max_tokens":%d,"ignore_eos":true`, spec.MaxTokens)
	if spec.Stream {
		options += `,"stream":true`
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{"model":%q,%s,"messages":[`, spec.Model, options)
	prose := newProse(uint64(i))
	roles := [...]string{"user", "assistant"}
	for m := 0; m == 0 || b.Len()+64 < spec.BodyBytes; m++ {
		if m > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"role":%q,"content":"`, roles[m%2])
		if m == 0 {
			b.WriteString("ticket " + mark + " ")
		}
		prose.write(&b, max(0, min(messageBytes, spec.BodyBytes-b.Len()-4)))
		b.WriteString(`"}`)
	}
	b.WriteString("]}")
	text := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nhost: %s\r\nauthorization: Bearer %s\r\n"+
		"content-type: application/json\r\naccept: application/json\r\nuser-agent: benchmarks\r\ncontent-length: %d\r\n\r\n%s",
		spec.Addr, spec.Key, b.Len(), b.String())
	at := strings.Index(text, mark)
	r := request{same: spec.Same, text: []byte(text), n: uint64(time.Now().UnixNano())<<12 + uint64(i)<<44}
	r.counter = r.text[at : at+counterDigits]
	return r
}

// prose is text that resembles English enough for a tokenizer: words of a
// skewed distribution, some numbers, sentences.
type prose struct{ rng *rand.Rand }

func newProse(seed uint64) *prose { return &prose{rand.New(rand.NewPCG(seed, 1))} }

var vocabulary = strings.Fields(`the of and to a in is that for it was on with as be at by this have from or had not but what all
	were when we there can an your which their said if do will each about how up out them then she many some so these would other
	into has more her two like him see time could no make than first been its who now people my made over did down only way find use
	may water long little very after words called just where most know settlement counterparty exposure margin collateral liquidity
	valuation derivative benchmark reconciliation threshold overnight instrument portfolio hedging volatility covenant disclosure`)

// write appends n bytes.
func (p *prose) write(b *strings.Builder, n int) {
	for n > 0 {
		i := min(p.rng.IntN(len(vocabulary)), p.rng.IntN(len(vocabulary)))
		word := vocabulary[i]
		switch p.rng.IntN(16) {
		case 0:
			word = fmt.Sprint(p.rng.IntN(100_000))
		case 1:
			word += "."
		case 2:
			word += ","
		}
		word += " "
		word = word[:min(len(word), n)]
		b.WriteString(word)
		n -= len(word)
	}
}
