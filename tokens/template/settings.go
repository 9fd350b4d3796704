package template

import (
	"bytes"

	"github.com/weirproxy/weir/dialect"
)

// settings is what the top level of a body says about its rendering.
type settings struct {
	// enableThinking and thinking are the variables of templates by these names.
	enableThinking, thinking trilean
	effort                   []byte // reasoning_effort, without its quotes
	choice                   choice
	chosen                   []byte // the name of the function that must be called, as JSON
	tools                    bool   // tools are a list, which may be empty
	functions                bool
	format                   bool // an answer in a format of the client's is wanted
	// strange says that something is set whose effect on the rendering weir does
	// not know.
	strange bool
}

type trilean int8

const (
	unset trilean = iota
	no
	yes
)

// choice is the tool choice.
type choice uint8

const (
	choiceUnset choice = iota
	choiceAuto
	choiceNone
	choiceRequired
	choiceOther
)

// readSettings reads the fields of a request; one of another dialect is strange.
func readSettings(v *dialect.View) (s settings) {
	messages := false
	for _, f := range v.Fields {
		key, value := v.Field(f)
		if value[0] == 'n' {
			continue // null stands for an absent field
		}
		switch string(key) {
		case "messages":
			messages = true
		case "tools":
			s.tools = value[0] == '['
		case "functions":
			s.functions = true
		case "tool_choice":
			s.choice = readChoice(value)
			s.chosen = member(member(value, "function"), "name")
		case "chat_template_kwargs":
			s.kwargs(value)
		case "reasoning_effort":
			s.effort = unquoted(value)
			s.strange = s.strange || s.effort == nil
		case "response_format":
			s.format = string(member(value, "type")) != `"text"`
		case "add_generation_prompt":
			s.strange = s.strange || value[0] != 't'
		case "continue_final_message", "add_special_tokens":
			s.strange = s.strange || value[0] != 'f'
		default:
			s.strange = s.strange || !silent(key)
		}
	}
	s.strange = s.strange || !messages
	return s
}

// kwargs reads the variables that the client gives to the template.
func (s *settings) kwargs(b []byte) {
	m, ok := object(b)
	if !ok {
		s.strange = true
		return
	}
	for m.next() {
		var to *trilean
		switch string(m.key()) {
		case "enable_thinking":
			to = &s.enableThinking
		case "thinking":
			to = &s.thinking
		default:
			s.strange = true
			continue
		}
		switch m.value()[0] {
		case 't':
			*to = yes
		case 'f':
			*to = no
		default:
			s.strange = true
		}
	}
}

func readChoice(b []byte) choice {
	switch string(b) {
	case `"auto"`:
		return choiceAuto
	case `"none"`:
		return choiceNone
	case `"required"`:
		return choiceRequired
	}
	return choiceOther
}

// unquoted is a string without escapes, without its quotes; nil when b is none.
func unquoted(b []byte) []byte {
	if len(b) < 2 || b[0] != '"' || bytes.IndexByte(b, '\\') >= 0 {
		return nil
	}
	return b[1 : len(b)-1]
}

// silent reports whether a field changes nothing about the rendering: settings of
// sampling, of the answer and of the service.
func silent(key []byte) bool {
	switch string(key) {
	case "model", "stream", "stream_options", "n", "best_of", "max_tokens", "max_completion_tokens", "min_tokens",
		"temperature", "top_p", "top_k", "min_p", "top_a", "typical_p", "frequency_penalty", "presence_penalty",
		"repetition_penalty", "length_penalty", "logit_bias", "logprobs", "top_logprobs", "prompt_logprobs", "seed", "random_seed",
		"stop", "stop_token_ids", "stop_regex", "include_stop_str_in_output", "ignore_eos", "bad_words",
		"allowed_token_ids", "use_beam_search", "early_stopping", "skip_special_tokens", "spaces_between_special_tokens",
		"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
		"prompt_cache_options", "parallel_tool_calls", "modalities", "audio", "prediction", "priority", "request_id", "session_id",
		"rid", "cache_salt", "echo", "return_token_ids", "return_tokens_as_token_ids", "return_hidden_states",
		"guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_decoding_backend",
		"guided_whitespace_pattern", "structured_outputs", "structural_tag", "regex", "ebnf", "vllm_xargs",
		"kv_transfer_params", "ec_transfer_params", "include_reasoning", "separate_reasoning", "stream_reasoning",
		"verbosity", "thinking_token_budget", "lora_path", "bootstrap_host", "bootstrap_port", "bootstrap_room", "data_parallel_rank":
		return true
	}
	return false
}
