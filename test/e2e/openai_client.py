"""Drives the official OpenAI client against a gateway; prints one JSON object.

Usage: openai_client.py CASE, with OPENAI_BASE_URL and OPENAI_API_KEY in the environment.
"""

import json
import sys

import openai

client = openai.OpenAI(max_retries=0, timeout=30)
MESSAGES = [{"role": "user", "content": "Say something about rivers."}]


def chat():
    r = client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=20)
    return {
        "content": r.choices[0].message.content,
        "finish": r.choices[0].finish_reason,
        "prompt_tokens": r.usage.prompt_tokens,
        "completion_tokens": r.usage.completion_tokens,
    }


def stream():
    text, usages, chunks = "", 0, 0
    for chunk in client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=20, stream=True):
        chunks += 1
        usages += chunk.usage is not None
        for choice in chunk.choices:
            text += choice.delta.content or ""
    return {"content": text, "usages": usages, "chunks": chunks}


def broken_stream():
    text = ""
    try:
        for chunk in client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=20, stream=True):
            text += chunk.choices[0].delta.content or ""
    except Exception as e:
        return {"content": text, "raised": type(e).__module__ + "." + type(e).__name__, "code": getattr(e, "code", None)}
    return {"content": text, "raised": ""}


def stream_usage():
    last = None
    for chunk in client.chat.completions.create(
        model="chat", messages=MESSAGES, max_tokens=20, stream=True, stream_options={"include_usage": True}
    ):
        last = chunk
    return {"choices": len(last.choices), "completion_tokens": last.usage.completion_tokens}


def tools():
    r = client.chat.completions.create(
        model="chat",
        messages=MESSAGES,
        tools=[{"type": "function", "function": {"name": "depth", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}],
        tool_choice={"type": "function", "function": {"name": "depth"}},
    )
    call = r.choices[0].message.tool_calls[0]
    return {"name": call.function.name, "arguments_are_json": isinstance(json.loads(call.function.arguments), dict)}


def embeddings():
    r = client.embeddings.create(model="embed", input=["a river", "a weir"])
    return {"vectors": len(r.data), "dimensions": len(r.data[0].embedding), "prompt_tokens": r.usage.prompt_tokens}


def completion():
    r = client.completions.create(model="chat", prompt="Once upon a time", max_tokens=10)
    return {"text": r.choices[0].text, "completion_tokens": r.usage.completion_tokens}


def models():
    return {"models": sorted(m.id for m in client.models.list())}


def errors():
    """The class of error that the client raises for each kind of refusal."""
    cases = {
        "unknown_key": lambda: client.with_options(api_key="weir-no-such-key").models.list(),
        "not_allowed": lambda: client.chat.completions.create(model="restricted", messages=MESSAGES),
        "unknown_model": lambda: client.chat.completions.create(model="no-such-model", messages=MESSAGES),
        "limited": lambda: [client.chat.completions.create(model="limited", messages=MESSAGES, max_tokens=5) for _ in range(3)],
    }
    out = {}
    for name, call in cases.items():
        try:
            call()
            out[name] = {"class": "none"}
        except openai.APIStatusError as e:
            out[name] = {
                "class": type(e).__name__,
                "status": e.status_code,
                "code": e.code,
                "type": e.type,
                "retry_after": e.response.headers.get("retry-after"),
                "limit_requests": e.response.headers.get("x-ratelimit-limit-requests"),
                "remaining_requests": e.response.headers.get("x-ratelimit-remaining-requests"),
                "decision": e.response.headers.get("x-weir-decision"),
            }
    return out


print(json.dumps(globals()[sys.argv[1]]()))
