"""Starts the program `trainer` with the libraries of the installed PyTorch."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

TORCH = "2.11"
"""The release of PyTorch that the program was built with; others have another binary interface."""


def main() -> int:
    """Replaces this process by the program, so that signals and exit codes are the program's.

    Returns 1 where the release of PyTorch is missing.
    """
    try:
        found = version("torch")
    except PackageNotFoundError:
        found = None
    torch = find_spec("torch")
    if torch is None or torch.origin is None or found is None or not found.startswith(f"{TORCH}."):
        why = f"not {found}" if found else "which is missing"
        remedy = f'run pip install "torch=={TORCH}.*" in the environment of {sys.executable}'
        print(f"error: trainer needs torch {TORCH}, {why}; {remedy}", file=sys.stderr)
        return 1
    folders = [str(Path(torch.origin).with_name("lib")), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}
    os.execve(Path(__file__).with_name("bin") / "trainer", ["trainer", *sys.argv[1:]], environment)
