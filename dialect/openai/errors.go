package openai

import (
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/ai"
)

// ErrorBody is the body of a refusal in OpenAI's shape:
// {"error":{"message","type","param","code"}}; param is null when empty.
func ErrorBody(reason ai.Reason, message, param string) []byte {
	a := reason.Answer()
	b := append(make([]byte, 0, 128+len(message)+len(param)), `{"error":{"message":`...)
	b = appendString(b, message)
	b = append(b, `,"type":`...)
	b = appendString(b, a.Type)
	b = append(b, `,"param":`...)
	if param == "" {
		b = append(b, `null`...)
	} else {
		b = appendString(b, param)
	}
	b = append(b, `,"code":`...)
	b = appendString(b, a.Code)
	return append(b, `}}`...)
}

// ModelsBody is the answer to GET /v1/models.
func ModelsBody(ids []string) []byte {
	b := []byte(`{"object":"list","data":[`)
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendModel(b, id)
	}
	return append(b, `]}`...)
}

// ModelBody is the answer to GET /v1/models/{id}.
func ModelBody(id string) []byte { return appendModel(nil, id) }

func appendModel(b []byte, id string) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, id)
	return append(b, `,"object":"model","created":0,"owned_by":"weir"}`...)
}

// appendString appends s as a JSON string. What is not valid UTF-8 becomes
// U+FFFD. The line separators U+2028 and U+2029 are escaped, since JavaScript
// once took them for line ends.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r < ' ' || r == 0x7f || r == 0x2028 || r == 0x2029:
			b = append(b, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
