package openai

import (
	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/jsonscan"
)

// budgetPlace is where in a body a thinking budget may stand. There is no one name
// for it:
//
//	thinking_budget                  DashScope, SiliconFlow
//	thinking_token_budget            vLLM
//	thinking_budget_tokens           llama.cpp
//	thinking.budget_tokens           Anthropic's form, which many gateways pass on
//	reasoning.max_tokens             OpenRouter
//	chat_template_kwargs.{thinking_budget,thinking_token_budget}  templates of SGLang's and vLLM's models
//	extra_body.google.thinking_config.thinking_budget             Gemini
//
// Sources: docs.qwencloud.com/developer-guides/text-generation/thinking,
// docs.sglang.io/docs/advanced_features/thinking_budget, vLLM's pull request 20859,
// openrouter.ai/docs/guides/best-practices/reasoning-tokens. An extra_body that was
// not flattened is read like the body.
type budgetPlace uint8

const (
	noBudget budgetPlace = iota
	theBudget
	inBody
	inThinking
	inReasoning
	inTemplate
	inExtra
	inGoogle
	inGoogleThinking
)

// field is where the value of a field stands.
func (at budgetPlace) field(name []byte) budgetPlace {
	switch at {
	case inBody, inExtra:
		switch string(name) {
		case "thinking_budget", "thinking_token_budget", "thinking_budget_tokens":
			return theBudget
		case "thinking":
			return inThinking
		case "reasoning":
			return inReasoning
		case "chat_template_kwargs":
			return inTemplate
		case "extra_body":
			return inExtra
		case "google":
			if at == inExtra {
				return inGoogle
			}
		}
	case inTemplate:
		switch string(name) {
		case "thinking_budget", "thinking_token_budget":
			return theBudget
		}
	default:
		return at.only(string(name))
	}
	return noBudget
}

// only is the field of an object that has one of interest.
func (at budgetPlace) only(name string) budgetPlace {
	switch {
	case at == inThinking && name == "budget_tokens",
		at == inReasoning && name == "max_tokens",
		at == inGoogleThinking && name == "thinking_budget":
		return theBudget
	case at == inGoogle && name == "thinking_config":
		return inGoogleThinking
	}
	return noBudget
}

// budgetField reads a field of the body in which a budget may stand. It is noted
// beside that as other fields of its kind are: a template may show it.
func (p *parser) budgetField(at budgetPlace, name string) {
	kind, setting := settings[name]
	switch {
	case at == theBudget:
		p.budget(name)
	case p.s.Peek() == jsonscan.Object:
		start := p.s.Offset()
		p.budgetsIn(at, name)
		p.raw(kind, jsonscan.Value{Kind: jsonscan.Object, Off: start, Len: p.s.Offset() - start})
	case setting:
		p.setting(kind)
	default:
		p.other(dialect.Other)
	}
}

// budgetsIn reads the object that comes next.
func (p *parser) budgetsIn(at budgetPlace, param string) {
	p.s.EnterObject()
	for key, ok := p.s.NextKey(); ok; key, ok = p.s.NextKey() {
		name := p.s.Text(key)
		switch next := at.field(name); {
		case next == theBudget:
			p.budget(param + "." + string(name))
		case next != noBudget && p.s.Peek() == jsonscan.Object:
			p.budgetsIn(next, param+"."+string(name))
		default:
			p.foreign(at, param, name, key.Off)
			p.s.Value()
		}
	}
}

// foreign refuses a field without a budget that could be taken for another one: a
// budget in another case, or, in an extra_body, which some gateways flatten over the
// body, a field on which weir relies.
func (p *parser) foreign(at budgetPlace, param string, name []byte, offset int) {
	switch known := reliedOn(name); {
	case known == "":
	case at.field([]byte(known)) != noBudget:
		if known != string(name) {
			p.refuse(param+"."+known, offset, "The field '"+known+"' must be written in lower case.")
		}
	case at == inExtra:
		p.refuse(param+"."+known, offset, "The field '"+known+"' belongs beside '"+param+"', not into it.")
	}
}

// noLimit is how vLLM and Gemini write that reasoning has no budget.
const noLimit = "-1"

// budget reads a thinking budget.
func (p *parser) budget(param string) {
	p.s.Peek()
	if rest := p.r.Body[p.s.Offset():]; len(rest) > len(noLimit) && string(rest[:len(noLimit)]) == noLimit {
		if c := rest[len(noLimit)]; c != '.' && c|0x20 != 'e' && (c < '0' || c > '9') {
			p.s.Value()
			return
		}
	}
	n, _, _ := p.integer(param)
	p.r.ThinkingBudget = max(p.r.ThinkingBudget, n)
}
