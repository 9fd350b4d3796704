package openai

import (
	"bytes"
	"math"
)

// place is where in a response a value stands: what matters is the meaning of
// the value, not the way to it.
type place uint8

const (
	nowhere place = iota // nothing of interest
	atTop
	atUsage
	atPromptDetails
	atCompletionDetails
	atModalities
	atPrompt
	atCompletion
	atTotal
	atCached
	atCacheWrite
	atAudioInput
	atImageInput
	atVideoInput
	atReasoning
	atAudioOutput
	atImageOutput
	atChoices
	atChoice
	atChoiceUsage
	atDelta
	atToolCalls
	atToolCall
	atFunction
	atText
	atFinish
	atError
)

// list tells whether the value at p is a list, and element what its elements are.
func (p place) list() bool { return p == atChoices || p == atToolCalls }

func (p place) element() place {
	switch p {
	case atChoices:
		return atChoice
	case atToolCalls:
		return atToolCall
	}
	return nowhere
}

// object tells whether the fields of an object at p are of interest.
func (p place) object() bool {
	switch p {
	case atTop, atUsage, atPromptDetails, atCompletionDetails, atModalities, atChoice, atChoiceUsage, atDelta, atToolCall, atFunction:
		return true
	}
	return false
}

// field is where the value of a field stands.
func (p place) field(key []byte) place {
	switch p {
	case atTop:
		switch string(key) {
		case "usage":
			return atUsage
		case "choices":
			return atChoices
		case "error":
			return atError
		}
	case atUsage, atChoiceUsage:
		return usageField(key)
	case atPromptDetails:
		return promptField(key)
	case atModalities:
		return modality(key)
	case atCompletionDetails:
		return completionField(key)
	case atChoice:
		return choiceField(key)
	case atDelta:
		return deltaField(key)
	case atToolCall:
		if string(key) == "function" {
			return atFunction
		}
	case atFunction:
		switch string(key) {
		case "name", "arguments":
			return atText
		}
	}
	return nowhere
}

func usageField(key []byte) place {
	switch string(key) {
	case "prompt_tokens":
		return atPrompt
	case "completion_tokens":
		return atCompletion
	case "total_tokens":
		return atTotal
	case "prompt_tokens_details":
		return atPromptDetails
	case "completion_tokens_details":
		return atCompletionDetails
	case "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens":
		return atCached
	case "cache_creation_input_tokens":
		return atCacheWrite
	case "reasoning_tokens":
		return atReasoning
	}
	return nowhere
}

func promptField(key []byte) place {
	switch string(key) {
	case "cached_tokens":
		return atCached
	case "cache_write_tokens", "cache_creation_input_tokens", "created_cache_tokens":
		return atCacheWrite
	case "audio_tokens":
		return atAudioInput
	case "image_tokens":
		return atImageInput
	case "video_tokens":
		return atVideoInput
	case "multimodal_tokens":
		return atModalities
	}
	return nowhere
}

func modality(key []byte) place {
	switch string(key) {
	case "audio":
		return atAudioInput
	case "image":
		return atImageInput
	case "video":
		return atVideoInput
	}
	return nowhere
}

func completionField(key []byte) place {
	switch string(key) {
	case "reasoning_tokens":
		return atReasoning
	case "audio_tokens":
		return atAudioOutput
	case "image_tokens":
		return atImageOutput
	}
	return nowhere
}

func choiceField(key []byte) place {
	switch string(key) {
	case "delta", "message":
		return atDelta
	case "text":
		return atText
	case "finish_reason":
		return atFinish
	case "usage":
		return atChoiceUsage
	}
	return nowhere
}

func deltaField(key []byte) place {
	switch string(key) {
	case "content", "reasoning_content", "reasoning", "refusal":
		return atText
	case "tool_calls":
		return atToolCalls
	case "function_call":
		return atFunction
	}
	return nowhere
}

const (
	// The way to a value of interest is at most this deep:
	// top, choices, choice, delta, tool_calls, tool_call, function.
	maxWay = 8
	// A key that is longer than this is of no interest.
	maxKey = 32
)

// scan is the position in a JSON value. It does not validate: on bytes that are
// not JSON it goes on, bounded, to no effect that matters.
type scan struct {
	way      [maxWay]place // the open containers of interest
	depth    int
	skip     int // open containers inside one that is of no interest
	at       place
	wantKey  bool
	complete bool
	inString bool
	isKey    bool
	escaped  bool
	inNumber bool
	badNum   bool
	num      int64
	key      [maxKey]byte
	keyLen   int // maxKey+1 when the key is longer
}

// read goes on with the next piece.
func (m *Meter) read(p []byte) {
	for i := 0; i < len(p); {
		switch {
		case m.inString:
			i = m.readString(p, i)
		case m.skip > 0:
			i = m.readSkipped(p, i)
		default:
			m.step(p[i])
			i++
		}
	}
}

// readString reads from i to the end of a string or of p.
func (m *Meter) readString(p []byte, i int) int {
	start := i
	if !m.escaped { // up to the first escape, whole words at a time
		end := bytes.IndexByte(p[i:], '"')
		if end < 0 {
			end = len(p) - i
		}
		if escape := bytes.IndexByte(p[i:i+end], '\\'); escape >= 0 {
			end = escape
		}
		i += end
	}
	for ; i < len(p); i++ {
		switch c := p[i]; {
		case m.escaped:
			m.escaped = false
		case c == '\\':
			m.escaped = true
		case c == '"':
			m.inString = false
			m.piece(p[start:i])
			return i + 1
		}
	}
	m.piece(p[start:])
	return i
}

// piece takes a piece of the string that is being read.
func (m *Meter) piece(p []byte) {
	if !m.isKey {
		if m.at != nowhere {
			m.text(m.at, p)
		}
		return
	}
	if m.keyLen+len(p) > maxKey {
		m.keyLen = maxKey + 1
		return
	}
	m.keyLen += copy(m.key[m.keyLen:], p)
}

// readSkipped reads to where the container of no interest ends, or to a string.
func (m *Meter) readSkipped(p []byte, i int) int {
	for ; i < len(p); i++ {
		switch p[i] {
		case '"':
			m.startString(false)
			return i + 1
		case '{', '[':
			m.skip++
		case '}', ']':
			if m.skip--; m.skip == 0 {
				return i + 1
			}
		}
	}
	return i
}

func (m *Meter) startString(key bool) {
	m.inString, m.isKey, m.escaped = true, key, false
	if key {
		m.keyLen = 0
	} else if m.skip > 0 {
		m.at = nowhere
	}
}

// step reads one byte outside strings and skipped containers.
func (m *Meter) step(c byte) {
	if m.inNumber && m.digit(c) {
		return
	}
	switch c {
	case '"':
		m.startString(m.wantKey)
	case ':':
		if m.wantKey {
			m.wantKey = false
			m.at = m.top().field(m.key[:min(m.keyLen, maxKey)])
			if m.keyLen > maxKey {
				m.at = nowhere
			}
		}
	case ',':
		m.next()
	case '{', '[':
		m.open(c == '[')
	case '}', ']':
		m.close()
	case '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '-':
		m.inNumber, m.badNum, m.num = true, c == '-', int64(c-'0')
	case 't', 'f': // true or false where an error may stand
		if m.at == atError && !m.wantKey {
			m.ev.Error = true
		}
	}
}

// digit reads on in a number; false when c ends it.
func (m *Meter) digit(c byte) bool {
	switch {
	case c >= '0' && c <= '9':
		if m.num > (math.MaxInt64-9)/10 {
			m.badNum = true
			return true
		}
		m.num = m.num*10 + int64(c-'0')
		return true
	case c == '.' || c == '+' || c == '-' || c|0x20 == 'e':
		m.badNum = true
		return true
	}
	m.inNumber = false
	m.number(m.at, m.num, !m.badNum)
	return false
}

func (m *Meter) top() place {
	if m.depth == 0 {
		return nowhere
	}
	return m.way[m.depth-1]
}

// next prepares for what follows a comma.
func (m *Meter) next() {
	m.at = m.top().element()
	m.wantKey = m.depth > 0 && !m.top().list()
}

func (m *Meter) open(list bool) {
	at := m.at
	if m.depth == 0 {
		if m.complete {
			return // something follows the value: no part of it
		}
		at = atTop
	}
	m.opened(at)
	if m.depth == maxWay || list != at.list() || !list && !at.object() {
		m.skip = 1
		return
	}
	m.way[m.depth] = at
	m.depth++
	m.next()
}

func (m *Meter) close() {
	if m.depth == 0 {
		return
	}
	m.depth--
	m.closed(m.way[m.depth])
	m.at, m.wantKey = nowhere, false
	m.complete = m.depth == 0
}
