#!/bin/sh
# Pins all requirements anew, with hashes, for every platform and Python at once. Needs uv on PATH.
# `make requirements UPGRADE=1` takes newer versions; without it only what pyproject.toml asks for.
set -eu
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "penstock: pinning needs uv on PATH" >&2; exit 1; }

pin() {
    output=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate \
        --custom-compile-command "make requirements" --output-file "requirements/$output" "$@"
}

pin dev.txt ${UPGRADE:+--upgrade} pyproject.toml --extra dev
# The same versions everywhere: demo.txt goes into the same environment, compare.txt is a comparison.
pin demo.txt pyproject.toml --extra all --group build --constraint requirements/dev.txt
pin compare.txt --group compare --constraint requirements/dev.txt
