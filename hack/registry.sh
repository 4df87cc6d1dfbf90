#!/usr/bin/env bash
# Print the path of a registry of images that keeps what it is sent in memory: cmd/registry of go-containerregistry,
# built from the Go module proxy and kept in the cache. For tests of what is pushed; it listens where it is told to.
set -euo pipefail

version=v0.20.6
cache="${XDG_CACHE_HOME:-$HOME/.cache}/embedding-operator/registry-$version"

if [ ! -x "$cache/registry" ]; then
    if ! command -v go >/dev/null; then
        echo "registry: building it needs Go" >&2
        exit 1
    fi
    mkdir -p "$cache"
    GOBIN="$cache" go install "github.com/google/go-containerregistry/cmd/registry@$version" >&2
fi
echo "$cache/registry"
