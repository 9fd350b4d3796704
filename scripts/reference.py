#!/usr/bin/env python3
"""Counts tokens with the reference tokenizers: reference.py [--dir DIR] [--ids] VOCABULARY

A request on standard input is a text: its length in bytes as a little-endian
uint32, then that many bytes of UTF-8. The answer on standard output is the number
of tokens as a little-endian uint32; with --ids the ids follow, a uint32 each.
Answers come in the order of the requests and are flushed whenever no complete
request is waiting. The text is ordinary text throughout: what looks like a special
token is not one, and no token is put before or after it. The process ends with the
input, and with an error on text that is not UTF-8.

DIR (.tools/tokenizers) is what scripts/fetch-tokenizers.sh leaves. OpenAI's
vocabularies are counted by tiktoken and Tekken by mistral-common; the others by
Hugging Face tokenizers, set up as the models' tokenizer.json files have it, since
that is what serves those models.
"""

import argparse
import base64
import json
import os
import select
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = 2
BATCH_BYTES = 4 << 20  # how much text is tokenized before its answers are written

# Pre-tokenizer patterns, where the vocabulary's own file does not have it.
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN3_6 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def read_ranks(path):
    """The ranks of a vocabulary in tiktoken's format, by token."""
    with open(path, "rb") as f:
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in f if line.strip())}


def with_tiktoken(name, path, pattern):
    import tiktoken

    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=read_ranks(path), special_tokens={})
    return lambda texts: encoding.encode_ordinary_batch(texts, num_threads=THREADS)


def with_mistral_common(path):
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    tekken = Tekkenizer.from_file(path)
    pool = ThreadPoolExecutor(THREADS)
    return lambda texts: list(pool.map(lambda text: tekken.encode(text, bos=False, eos=False), texts))


def with_hugging_face(description):
    """description is a tokenizer.json, its special tokens left out."""
    os.environ["RAYON_NUM_THREADS"] = str(THREADS)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(description))
    return lambda texts: [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def byte_letters():
    """GPT-2's letter for each byte, which Hugging Face spells byte-level tokens with."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def one_merge_each(ranks):
    """The merge that makes each token: its two parts once all merges of a lower rank are done.

    A token that those merges do not bring down to two parts has none. For Qwen 2.5 and 3 and
    DeepSeek V3 this gives the merges of their tokenizer.json, in order. 232 tokens of Qwen 3.6
    have none, so that Hugging Face never answers them; tiktoken would, for a whole word.
    """
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:])]
            lowest = min(pairs)
            if lowest >= rank:
                break
            at = pairs.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            yield parts


def all_merges(ranks):
    """Every pair of tokens that makes a token, ordered by the ranks of the token and the pair.

    This is how Llama 3's tokenizer.json was made, and gives the merges it has, in order.
    """
    for token in sorted(ranks, key=ranks.get):
        pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
        yield from sorted(
            (pair for pair in pairs if pair[0] in ranks and pair[1] in ranks),
            key=lambda pair: (ranks[pair[0]], ranks[pair[1]]),
        )


def describe(path, pattern, normalizer, merges, ignore_merges):
    """A tokenizer.json of a vocabulary in tiktoken's format."""
    letters = byte_letters()

    def spell(token):
        return "".join(letters[b] for b in token)

    ranks = read_ranks(path)
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "model": {
            "type": "BPE",
            "vocab": {spell(token): rank for token, rank in ranks.items()},
            "merges": [[spell(part) for part in pair] for pair in merges(ranks)],
            "ignore_merges": ignore_merges,
        },
    }


def without_added_tokens(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f) | {"added_tokens": [], "post_processor": None}


NFC = {"type": "NFC"}

VOCABULARIES = {
    "o200k_base": lambda d: with_tiktoken("o200k_base", d / "o200k_base.tiktoken", O200K),
    "cl100k_base": lambda d: with_tiktoken("cl100k_base", d / "cl100k_base.tiktoken", CL100K),
    "qwen": lambda d: with_hugging_face(describe(d / "qwen.tiktoken", QWEN, NFC, one_merge_each, False)),
    "qwen3_6": lambda d: with_hugging_face(describe(d / "qwen3_6.tiktoken", QWEN3_6, NFC, one_merge_each, False)),
    "deepseek_v3": lambda d: with_hugging_face(without_added_tokens(d / "deepseek_v3.json")),
    "llama3_1": lambda d: with_hugging_face(describe(d / "llama3_1.tiktoken", LLAMA3, None, all_merges, True)),
    "tekken": lambda d: with_mistral_common(d / "tekken.json"),
}


def requests(fd):
    """Batches of texts: what has come in completely, in batches of about BATCH_BYTES."""
    pending = bytearray()
    while True:
        batch, at, size = [], 0, 0
        while size < BATCH_BYTES and len(pending) >= at + 4:
            end = at + 4 + struct.unpack_from("<I", pending, at)[0]
            if len(pending) < end:
                break
            batch.append(pending[at + 4 : end].decode("utf-8"))
            at, size = end, size + end - at
        del pending[:at]
        if batch:
            yield batch
            continue
        read = os.read(fd, 1 << 20)
        if not read and pending:
            sys.exit("reference: the input ends inside a request")
        if not read:
            return
        pending += read
        while len(pending) < BATCH_BYTES and select.select([fd], [], [], 0)[0]:
            if not (read := os.read(fd, 1 << 20)):
                break
            pending += read


def main():
    parser = argparse.ArgumentParser(description="counts tokens with the reference tokenizers")
    parser.add_argument("--dir", type=Path, default=Path(__file__).resolve().parent.parent / ".tools" / "tokenizers")
    parser.add_argument("--ids", action="store_true", help="answer with the token ids too")
    parser.add_argument("vocabulary", choices=VOCABULARIES)
    arguments = parser.parse_args()

    sys.path.insert(0, str(arguments.dir / "python"))
    encode = VOCABULARIES[arguments.vocabulary](arguments.dir / "vocab")
    for batch in requests(sys.stdin.fileno()):
        for ids in encode(batch):
            sys.stdout.buffer.write(struct.pack("<I", len(ids)))
            if arguments.ids:
                sys.stdout.buffer.write(struct.pack(f"<{len(ids)}I", *ids))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
