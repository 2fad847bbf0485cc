#!/bin/sh
# The linker of `make wheel MANYLINUX=2_28`, called by maturin.
exec maturin zig cc -- "$@"
