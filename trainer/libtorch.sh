#!/usr/bin/env bash
# Prints the folder of a libtorch 2.11 (what LIBTORCH is set to), installing one where there is none.
#
# A user's own LIBTORCH is taken as it is. Otherwise the `torch` wheel goes into a Python environment in the cache, which
# the next call finds again: with NVIDIA's libraries where there is an NVIDIA GPU, else the CPU part alone (1.2 GB).
set -euo pipefail
version=2.11.0
cache=${MRM_CACHE:-$HOME/.cache/mrm}
environment=$cache/python

fail() {
    echo "libtorch: $1" >&2
    exit 1
}

if [ -n "${LIBTORCH:-}" ]; then
    [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || fail "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu.so; unset it, or point it to a libtorch $version"
    echo "$LIBTORCH"
    exit 0
fi

find_torch() {
    local found
    for found in "$environment"/lib/python3*/site-packages/torch; do
        if [ -e "$found/lib/libtorch_cpu.so" ] && grep -q "'$version" "$found/version.py" && [ -e "$environment/.torch-$version" ]; then
            echo "$found"
            return 0
        fi
    done
    return 1
}

if ! find_torch; then
    command -v python3 >/dev/null || fail "python3 is missing; install Python 3.10 or newer"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "python3 is older than 3.10; install a newer one"
    mkdir -p "$cache"
    {
        if [ ! -x "$environment/bin/python" ]; then
            python3 -m venv "$environment" || fail "python3 cannot make an environment; install its venv module (Debian: python3-venv)"
        fi
        if [ ! -x "$environment/bin/uv" ]; then
            "$environment/bin/python" -m pip install --quiet uv || fail "pip cannot install uv; is there a network?"
        fi
        if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
            packages=("torch==$version")
        else
            packages=(--no-deps "torch==$version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
        fi
        echo "installing libtorch $version into $environment" >&2
        "$environment/bin/uv" pip install --quiet --python "$environment/bin/python" "${packages[@]}" ||
            fail "the torch $version wheel could not be installed; is there a network, and 5 GB of disk?"
        touch "$environment/.torch-$version"
    } >&2
    find_torch || fail "the torch wheel holds no libtorch; remove $environment and try again"
fi
