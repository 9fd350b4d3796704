package route

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weirproxy/weir/dialect/openai"
)

// effortFields are where a body says how much the model is to think. There is no one
// name for it:
//
//	reasoning_effort                              OpenAI, vLLM, Ollama
//	reasoning.effort                              OpenAI's responses, OpenRouter, Ollama
//	thinking.type                                 Anthropic's form: Volcano Ark, DeepSeek, GLM
//	enable_thinking                               DashScope, SiliconFlow
//	chat_template_kwargs.{reasoning_effort,enable_thinking,thinking}  templates of vLLM's and SGLang's models
//
// Sources: openai-python, types/shared/reasoning_effort.py; vLLM,
// entrypoints/openai/chat_completion/protocol.py; ollama, openai/openai.go;
// help.aliyun.com/model-studio (enable_thinking); volcengine.com/docs/82379 (thinking).
var effortFields = map[string][]string{
	"reasoning_effort":     {""},
	"reasoning":            {"effort"},
	"thinking":             {"type"},
	"enable_thinking":      {""},
	"chat_template_kwargs": {"reasoning_effort", "enable_thinking", "thinking"},
}

// efforts orders what the client can ask for.
var efforts = map[string]int{"none": 1, "minimal": 2, "low": 3, "medium": 4, "high": 5, "xhigh": 6, "max": 7}

// effort is how much the client wants the model to think: none, minimal, low, medium,
// high, xhigh or max; "" when it does not say, or says what nobody knows. Where only
// on and off can be said, they are medium and none. Of several it is the largest:
// backends do not agree on which of them counts.
func effort(r *openai.Request) string {
	most := ""
	for _, f := range r.Fields {
		name, value := r.Field(f)
		for _, path := range effortFields[string(name)] {
			v := gjson.ParseBytes(value)
			if path != "" {
				v = v.Get(path)
			}
			if e := effortOf(v); efforts[e] > efforts[most] {
				most = e
			}
		}
	}
	return most
}

func effortOf(v gjson.Result) string {
	switch v.Type {
	case gjson.True:
		return "medium"
	case gjson.False:
		return "none"
	case gjson.String:
		switch text := strings.ToLower(v.Str); text {
		case "enabled":
			return "medium"
		case "disabled":
			return "none"
		default:
			if efforts[text] > 0 {
				return text
			}
		}
	}
	return ""
}
