#!/usr/bin/env bash
# The CRD and docs/resource.md hold what is generated from the table of settings, and the chart carries a copy of the CRD.
# `--check` changes nothing and fails when one of them is out of date.
set -euo pipefail
cd "$(dirname "$0")/.."

name=embeddingfinetunes.embedding-operator.dev.yaml
copy=charts/embedding-operator/files/$name
"${PYTHON:-.venv/bin/python}" crds/generate.py "$@"
if [ "${1:-}" = --check ]; then
    diff -u "$copy" "crds/$name" || { echo "the chart's CRD is out of date: make charts" >&2; exit 1; }
else
    mkdir -p "$(dirname "$copy")"
    cp "crds/$name" "$copy"
fi
