#!/usr/bin/env bash
# The chart carries a copy of the CRD. `--check` fails when it is out of date.
set -euo pipefail
cd "$(dirname "$0")/.."

name=embeddingfinetunes.embedding-operator.dev.yaml
copy=charts/embedding-operator/files/$name
if [ "${1:-}" = --check ]; then
    diff -u "$copy" "crds/$name" || { echo "the chart's CRD is out of date: make charts" >&2; exit 1; }
else
    mkdir -p "$(dirname "$copy")"
    cp "crds/$name" "$copy"
fi
