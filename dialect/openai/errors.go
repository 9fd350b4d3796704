package openai

import "github.com/weirproxy/weir/internal/ai"

// ErrorBody is the body of a refusal in OpenAI's shape:
// {"error":{"message","type","param","code"}}; param is null when empty.
func ErrorBody(reason ai.Reason, message, param string) []byte { return nil }

// ModelsBody is the answer to GET /v1/models.
func ModelsBody(ids []string) []byte { return nil }

// ModelBody is the answer to GET /v1/models/{id}.
func ModelBody(id string) []byte { return nil }
