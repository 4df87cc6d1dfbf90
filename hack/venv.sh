#!/usr/bin/env bash
# The development environment: one virtual environment a lock file, kept outside the repository and linked as .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=requirements/dev.lock
cache="${XDG_CACHE_HOME:-$HOME/.cache}/embedding-operator"
python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "venv: this needs Python 3.11 or newer, found $("$python" --version 2>&1); set PYTHON to one" >&2
    exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv="$cache/venv-$version-$(sha256sum "$lock" | cut -c1-12)"

mkdir -p "$cache"
# Of two that start at once the second waits, and finds it done.
exec 9>"$cache/venv.lock"
if command -v flock >/dev/null; then flock 9; fi

if [ ! -e "$venv/compiled" ]; then
    echo "venv: installing $(grep -c == "$lock") packages into $venv (about 6 GB with torch)"
    free_kb=$(df --output=avail -k "$cache" | tail -1)
    if [ "$free_kb" -lt 9000000 ]; then
        echo "venv: needs 9 GB free below $cache, found $((free_kb / 1000000)) GB" >&2
        exit 1
    fi
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        apt-get update -q && apt-get install -qy python3-venv
    fi
    rm -rf "$venv"
    "$python" -m venv "$venv"
    uv=$(grep -m1 '^uv==' "$lock" | cut -d' ' -f1)
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$uv"
    "$venv/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" --requirement "$lock"
    touch "$venv/compiled"
fi
ln -sfn "$venv" .venv
