#!/bin/sh
# The linker of `make wheel MANYLINUX=2_28`: zig links to that release of glibc or later ones.
exec maturin zig cc -- -target "$(uname -m)-linux-gnu.$(echo "$MANYLINUX" | tr _ .)" "$@"
