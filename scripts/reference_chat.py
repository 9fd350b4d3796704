#!/usr/bin/env python3
"""Renders chats as backends do: reference_chat.py [--templates DIR] [--python DIR] [--vocab DIR]

A line on standard input is a case, as JSON: {"family": "qwen3", "request": {...}},
with an OpenAI chat request, and "now" (an ISO date) for the families that print the
date. The line that answers it is {"text": "..."}, the prompt with its special
tokens, or {"error": "..."} where the backend would refuse the request.

For most families the text is what the chat template of the model's maker makes of
what vLLM hands to it: Jinja is set up as transformers sets it up, and the request
is prepared as vLLM's chat_utils does. Mistral's is what mistral-common encodes, and
harmony's what openai-harmony encodes of the messages that vLLM builds.

DIR of --templates (.tools/chats/templates) is what scripts/fetch-chats.sh leaves;
--python and --vocab (.tools/tokenizers/python, …/vocab) what scripts/fetch-tokenizers.sh
leaves; harmony's package is in .tools/chats/python.
"""

import argparse
import datetime
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The template and the beginning-of-text token of each family.
JINJA = {
    "qwen2.5": ("qwen2.5.jinja", None),
    "qwen3": ("qwen3.jinja", None),
    "llama-3": ("llama-3.jinja", "<|begin_of_text|>"),
    "llama-3.1": ("llama-3.1.jinja", "<|begin_of_text|>"),
    "llama-3.2": ("llama-3.2.jinja", "<|begin_of_text|>"),
    "deepseek-v3": ("deepseek-v3.jinja", "<｜begin▁of▁sentence｜>"),
    "deepseek-v3.1": ("deepseek-v3.1.jinja", "<｜begin▁of▁sentence｜>"),
    "deepseek-r1": ("deepseek-r1.jinja", "<｜begin▁of▁sentence｜>"),
}


class Refused(Exception):
    """The backend refuses the request."""


def environment(now):
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise Refused(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: now.strftime(form)
    return env


def flat(content, join):
    """The text of a content, its parts joined; Refused where a part is no text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("type") == "text":
            if part.get("text") is not None:
                texts.append(part["text"])
        else:
            raise Refused("a part that is no text")
    return join.join(texts)


def conversation(request, raw_arguments):
    """The messages as vLLM hands them to a template that takes contents as strings."""
    out = []
    for message in request["messages"]:
        m = {"role": message["role"], "content": flat(message.get("content"), "\n")}
        if message["role"] == "assistant":
            calls = message.get("tool_calls")
            if calls:
                m["tool_calls"] = [prepared(call, raw_arguments) for call in calls]
            reasoning = message.get("reasoning")
            if reasoning is None:
                reasoning = message.get("reasoning_content")
            if reasoning is not None:
                m["reasoning"] = m["reasoning_content"] = reasoning
        if message["role"] == "tool" and "tool_call_id" in message:
            m["tool_call_id"] = message["tool_call_id"]
        if isinstance(message.get("name"), str):
            m["name"] = message["name"]
        out.append(m)
    return out


def prepared(call, raw_arguments):
    function = dict(call["function"])
    if not raw_arguments:
        try:
            function["arguments"] = json.loads(function["arguments"])
        except (json.JSONDecodeError, TypeError):
            function["arguments"] = {}
    return {**call, "function": function}


def tools(request):
    """The tools as vLLM's models of them are dumped; None without any."""
    given = request.get("tools")
    if given is None:
        return None
    out = []
    for tool in given:
        f = tool["function"]
        dumped = {"name": f["name"], "description": f.get("description"), "parameters": f.get("parameters")}
        if f.get("strict") is not None:
            dumped["strict"] = f["strict"]
        out.append({"type": "function", "function": dumped})
    return out


def render_jinja(family, request, now, directory, cache={}):
    name, bos = JINJA[family]
    if (family, now) not in cache:
        source = (Path(directory) / name).read_text(encoding="utf-8")
        cache[family, now] = environment(now).from_string(source)
    template = cache[family, now]
    kwargs = dict(request.get("chat_template_kwargs") or {})
    if bos is not None:
        kwargs["bos_token"] = bos
    if family == "deepseek-r1":
        kwargs["enable_thinking"] = True  # llama.cpp added the variable; the maker's template always thinks
    return template.render(
        messages=conversation(request, raw_arguments=family == "deepseek-v3"),
        tools=tools(request),
        documents=None,
        add_generation_prompt=True,
        **kwargs,
    )


def letters(version):
    """A tokenizer in which a token is a character of text, or a special token."""
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    class Letters(Tekkenizer):
        SPECIALS = 1000

        def __init__(self):  # Tekken's needs a vocabulary
            self.names = ["<s>", "</s>"]
            self._special_tokens_reverse_vocab = {}

        version = property(lambda self: version)
        bos_id, eos_id = property(lambda self: 0), property(lambda self: 1)
        model_settings_builder = property(lambda self: None)

        def get_special_token(self, name):
            if name not in self.names:
                self.names.append(name)
            return self.names.index(name)

        def encode(self, text, bos, eos):
            assert not bos and not eos
            return [ord(c) + self.SPECIALS for c in text]

        def decode(self, tokens, special_token_policy=None):
            return "".join(chr(t - self.SPECIALS) if t >= self.SPECIALS else self.names[t] for t in tokens)

    return Letters()


def render_mistral(family, request):
    from mistral_common.exceptions import MistralCommonException
    from mistral_common.protocol.instruct.normalize import get_normalizer
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
    from mistral_common.tokens.tokenizers.base import TokenizerVersion
    from mistral_common.tokens.tokenizers import instruct

    version = TokenizerVersion(family.removeprefix("mistral-"))
    encoder = getattr(instruct, "InstructTokenizer" + version.value.upper())
    messages = []
    for message in request["messages"]:
        m = {k: v for k, v in message.items() if k not in ("reasoning", "reasoning_content", "refusal")}
        if m.get("tool_call_id"):
            m["tool_call_id"] = m["tool_call_id"][-9:]
        if m.get("tool_calls") is not None:
            m["tool_calls"] = [{**call, "id": call["id"][-9:]} for call in m["tool_calls"]]
        messages.append(m)
    try:
        chat = ChatCompletionRequest.from_openai(messages=messages, tools=tools(request))
        valid = get_validator(version, mode=ValidationMode.test).validate_request(chat)
        normal = get_normalizer(version, None).from_chat_completion_request(valid)
        tokenizer = letters(version)
        return tokenizer.decode(encoder(tokenizer).encode_instruct(normal).tokens)
    except (MistralCommonException, AssertionError, ValueError) as e:
        raise Refused(str(e)) from e


def render_harmony(request, now, vocab, cache={}):
    os.environ.setdefault("TIKTOKEN_ENCODINGS_BASE", str(vocab))
    import openai_harmony as h

    if "encoding" not in cache:
        cache["encoding"] = h.load_harmony_encoding(h.HarmonyEncodingName.HARMONY_GPT_OSS)
    encoding = cache["encoding"]
    system = h.SystemContent.new().with_conversation_start_date(now.strftime("%Y-%m-%d"))
    if request.get("reasoning_effort"):
        system = system.with_reasoning_effort(h.ReasoningEffort[request["reasoning_effort"].upper()])
    out = [h.Message.from_role_and_content(h.Role.SYSTEM, system)]
    messages = request["messages"]
    instructions = None
    if messages and messages[0]["role"] in ("system", "developer"):
        content = messages[0].get("content")
        instructions = content if content is None or isinstance(content, str) else flat(content, "") or None
        messages = messages[1:]
    offered = tools(request)
    if instructions or offered:
        developer = h.DeveloperContent.new()
        if instructions is not None:
            developer = developer.with_instructions(instructions)
        if offered:
            developer = developer.with_function_tools([h.ToolDescription.new(**described(t)) for t in offered])
        out.append(h.Message.from_role_and_content(h.Role.DEVELOPER, developer))
    chat = harmony_messages(h, messages)
    tokens = encoding.render_conversation_for_completion(h.Conversation.from_messages(out + chat), h.Role.ASSISTANT)
    return encoding.decode(tokens)


def described(tool):
    f = tool["function"]
    if not isinstance(f["description"], str):
        raise Refused("a tool without a description")
    return {"name": f["name"], "description": f["description"], "parameters": f["parameters"]}


def harmony_messages(h, messages):
    names = {}
    for message in messages:
        for call in message.get("tool_calls") or []:
            names[call["id"]] = call["function"]["name"]
    out = []
    for message in messages:
        out.extend(harmony_message(h, message, names))
    return without_old_thoughts(out)


def harmony_message(h, message, names):
    role, content = message["role"], flat(message.get("content"), "")
    if role == "tool":
        author = h.Author.new(h.Role.TOOL, "functions." + names.get(message.get("tool_call_id", ""), ""))
        return [h.Message.from_author_and_content(author, content).with_channel("commentary").with_recipient("assistant")]
    if role != "assistant":
        return [h.Message.from_role_and_content(h.Role(role), content)]
    say = lambda text, channel: h.Message.from_role_and_content(h.Role.ASSISTANT, text).with_channel(channel)
    calls = message.get("tool_calls") or []
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    out = []
    if calls and content:
        out.append(say(content, "commentary"))
    if reasoning:
        out.append(say(reasoning, "analysis"))
    for call in calls:
        one = say(call["function"]["arguments"] or "", "commentary")
        out.append(one.with_recipient("functions." + call["function"]["name"]).with_content_type("json"))
    if not calls and content:
        out.append(say(content, "final"))
    return out


def without_old_thoughts(messages):
    """vLLM drops what was thought in the current turn before its last answer."""
    start = max((i + 1 for i, m in enumerate(messages) if m.author.role.value == "user"), default=0)
    finals = [i for i in range(start, len(messages)) if messages[i].author.role.value == "assistant" and messages[i].channel == "final"]
    last = finals[-1] if finals else -1
    return [m for i, m in enumerate(messages) if not (start <= i < last and m.channel == "analysis")]


def render(case, args):
    family, request = case["family"], case["request"]
    now = datetime.datetime.fromisoformat(case.get("now") or "2026-01-02")
    if family in JINJA:
        return render_jinja(family, request, now, args.templates)
    if family.startswith("mistral-"):
        return render_mistral(family, request)
    if family == "harmony":
        return render_harmony(request, now, args.vocab)
    raise SystemExit(f"reference_chat.py: unknown family {family!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tokenizers, chats = ROOT / ".tools/tokenizers", ROOT / ".tools/chats"
    parser.add_argument("--templates", default=chats / "templates")
    parser.add_argument("--python", default=tokenizers / "python")
    parser.add_argument("--vocab", default=tokenizers / "vocab")
    args = parser.parse_args()
    sys.path[:0] = [str(args.python), str(chats / "python")]
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8")
    import jinja2

    for line in sys.stdin:
        try:
            answer = {"text": render(json.loads(line), args)}
        except (Refused, jinja2.exceptions.TemplateError, TypeError) as e:
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
