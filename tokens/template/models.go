package template

import "strings"

// families are patterns of model names: a name belongs to the first one all of
// whose words it holds. Names are compared in lower case, without the path before
// the last slash.
var families = []struct {
	template *Template
	words    string // separated by spaces; one that begins with ^ must be the beginning
}{
	{harmonyTemplate, "gpt-oss"},
	{nil, "^o1-mini"}, {nil, "^o1-preview"}, // a recording has one token more than the later ones
	{openaiGPT5, "^gpt-5"}, {openaiGPT5, "^gpt-6"}, {openaiLater, "^o1"}, {openaiLater, "^o3"}, {openaiLater, "^o4"},
	{openaiTemplate, "^gpt-"}, {openaiTemplate, "^chatgpt-"},
	{nil, "deepseek-r1:"}, {deepseekR1, "deepseek r1"}, {deepseekR1, "^deepseek-reasoner"},
	{nil, "deepseek v3.2"}, {deepseekV31, "deepseek v3.1"}, {deepseekV31, "deepseek v3_1"},
	{deepseekV3, "deepseek-v3"}, {deepseekV3, "^deepseek-chat"},
	{qwen25VL, "qwen2.5-vl"}, {qwen25VL, "qwen2-vl"}, {qwen25VL, "qwen3-vl"},
	{qwen3Instruct, "qwen3 instruct"}, {qwen3Instruct, "qwen3-coder"}, {qwen3Instruct, "qwen3-next instruct"},
	{qwen3Thinking, "qwen3 thinking"},
	{nil, "qwen3.5"}, {nil, "qwen3.6"}, {nil, "qwen3-omni"},
	{nil, "qwen3-max"}, {nil, "qwen3-plus"}, {nil, "qwen3-turbo"}, {qwen3, "qwen3"}, {qwen3, "qwen-3"},
	{qwen25, "qwen2.5"}, {qwen25, "qwen-2.5"},
	{llama31, "llama-3.1"}, {llama31, "llama-3.3"}, {llama31, "llama3.1"}, {llama31, "llama3.3"}, {llama31, "llama-3_1"},
	{llama32, "llama-3.2"}, {llama32, "llama3.2"},
	{llama3, "llama-3-"}, {llama3, "llama3-"}, {llama3, "^llama3"},
	{mistralV7, "mistral-large-2411"}, {mistralV7, "mistral-large instruct-2411"}, {mistralV7, "mistral-small 2501"}, {mistralV7, "pixtral-large"},
	{mistralV11, "mistral-small-3.1"}, {mistralV11, "mistral-small 2503"},
	{mistralV13, "mistral-small-3.2"}, {mistralV13, "mistral-small 2506"}, {mistralV13, "mistral-medium"}, {mistralV13, "devstral"},
	{mistralV13, "mistral-large-latest"}, {mistralV13, "mistral-small-latest"}, {mistralV13, "ministral-3"},
	{mistralV3, "mistral-7b-instruct-v0.3"}, {mistralV3, "open-mistral-7b"}, {mistralV3, "mistral-nemo"}, {mistralV3, "open-mistral-nemo"},
	{mistralV3, "ministral 2410"}, {mistralV3, "mistral-large 2407"}, {mistralV3, "mistral-small 2409"}, {mistralV3, "pixtral-12b"},
}

// ForModel is the template of the model of that name, as its maker calls it; of one
// that weir does not know, the generic one.
func ForModel(name string) *Template {
	name = strings.ToLower(name)
	name = strings.TrimPrefix(name[strings.LastIndexByte(name, '/')+1:], "ft:") // OpenAI's fine-tunes
	for _, f := range families {
		if matches(name, f.words) {
			if f.template == nil {
				break
			}
			return f.template
		}
	}
	return generic
}

func matches(name, words string) bool {
	for word := range strings.SplitSeq(words, " ") {
		if start, ok := strings.CutPrefix(word, "^"); ok {
			if !strings.HasPrefix(name, start) {
				return false
			}
		} else if !strings.Contains(name, word) {
			return false
		}
	}
	return true
}
