# For the scripts here that fetch with pip, which source it: . "$here/pip.sh"

fail() {
	echo "setup: $*" >&2
	exit 1
}

# start_work makes $dir, and in it $work, which is gone when the script ends; what
# is done there and moved into place at the end leaves nothing half done. Then $dir is
# absolute, and $python is a Python 3 with pip: python3, or one of $work.
start_work() {
	mkdir -p "$dir"
	dir=$(cd "$dir" && pwd) # pip looks for a build backend from elsewhere
	work=$(mktemp -d "$dir/.fetch.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 1' HUP INT TERM

	python=python3
	if ! python3 -m pip --version >/dev/null 2>&1; then
		python3 -m venv "$work/venv" >/dev/null 2>&1 ||
			fail "missing tool: pip for python3 (Debian: apt-get install python3-pip), and python3 -m venv does not work either"
		python=$work/venv/bin/python
	fi
}
