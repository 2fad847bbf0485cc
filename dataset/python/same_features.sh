#!/usr/bin/env bash
# Fails where a dependency of mrm-python has other features than in the workspace: maturin would compile it again, with all that
# depend on it.
set -euo pipefail
cd "$(dirname "$0")/../.."

features() {
    cargo tree --quiet --edges no-dev --prefix none --format '{p} {f}' "$@" | sed 's/ (\*)$//' | sort -u
}

different=$(comm -13 <(features --workspace) <(features --package mrm-python))
if [ -n "$different" ]; then
    echo "dataset/python/Cargo.toml: give these dependencies the features that they have in the workspace:" >&2
    echo "$different" >&2
    exit 1
fi
