#!/usr/bin/env bash
# Print the path of promtool, which checks and tests alert rules: the machine's own, or the one of Debian's package
# `prometheus`. The package is unpacked into the cache, not installed: it would start a server.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/embedding-operator"
kept="$cache/promtool"

if command -v promtool; then exit 0; fi

mkdir -p "$cache"
# Of two that start at once the second waits, and finds it done.
exec 9>"$cache/promtool.lock"
if command -v flock >/dev/null; then flock 9; fi

if [ ! -x "$kept" ]; then
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        echo "promtool: this machine has neither promtool nor Debian's packages; install Prometheus' promtool" >&2
        exit 1
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    # A fresh machine has no lists of packages, and old ones name versions that are gone.
    if ! apt-get download -qq prometheus >&2; then
        apt-get update -qq >&2
        apt-get download -qq prometheus >&2
    fi
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
    mv usr/bin/promtool "$kept.new"
    mv "$kept.new" "$kept"
fi
echo "$kept"
