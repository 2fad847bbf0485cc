"""What the tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROGRAMS = Path(os.environ.get("MRM_BIN", "missing"))
"""The folder of the programs `ingest` and `dataset`."""

SMALL: dict[str, Any] = {"size": 64, "vocab_size": 300, "rows_per_shard": 8}
"""Options of `mrm.ingest` for a small dataset of several shards."""


def words(options: Mapping[str, object]) -> list[str]:
    """Keyword arguments as the user of a command line types them."""
    typed: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            typed.append(option)
        elif isinstance(value, list):
            typed += [option, ",".join(str(item) for item in value)]
        else:
            typed += [option, str(value)]
    return typed


def program(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program."""
    command = [PROGRAMS / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def ok(name: str, *arguments: str | Path) -> None:
    """Runs a program that must succeed."""
    done = program(name, *arguments)
    assert done.returncode == 0, done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def same_text(error: BaseException, done: subprocess.CompletedProcess[str]) -> None:
    """Asserts that an exception has the text that a program printed. Of usage errors, the program prints the usage, too."""
    printed = done.stderr.removeprefix("error: ")
    assert done.stderr.startswith("error: ")
    if done.returncode == 2:
        assert printed.startswith(str(error)) and len(str(error)) > 10, (str(error), printed)
    else:
        assert printed == f"{error}\n"
