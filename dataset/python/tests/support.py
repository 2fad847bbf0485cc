"""What the tests share."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mrm

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


def program(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program of the project: that of the folder MRM_BIN, else the one on the path."""
    folder = os.environ.get("MRM_BIN")
    found = f"{folder}/{name}" if folder else shutil.which(name)
    assert found, f"no program {name}: set MRM_BIN"
    return subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=False)


def ok(name: str, *arguments: object) -> str:
    """Runs a program that must succeed; returns what it prints."""
    done = program(name, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


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


def digest(batch: mrm.Batch) -> str:
    """SHA-256 of all arrays of a batch, as the example `batch_digests` of the crate `dataset` computes it."""
    total = hashlib.sha256()
    texts = [batch.token_ids, batch.target_ids, batch.attention_mask]
    for array in [batch.rows, batch.view_rows, batch.images, batch.labels, *texts, batch.masks]:
        if array is not None:
            total.update(array.numpy().tobytes())
    if batch.boxes is not None and batch.box_records is not None and batch.box_labels is not None:
        for record, label, edges in zip(batch.box_records.numpy(), batch.box_labels, batch.boxes.numpy(), strict=True):
            total.update(record.tobytes() + label.encode() + edges.tobytes())
    return total.hexdigest()


def rust_batches(location: Path, batches: int, **settings: Any) -> tuple[list[str], dict[str, int]]:
    """`EPOCH NUMBER DIGEST` of each batch of the Rust loader, and its state afterwards."""
    defaults: dict[str, Any] = {
        "batch_size": 8,
        "seed": 0,
        "threads": 2,
        "rank": 0,
        "world_size": 1,
        "tokens": None,
        "mask_ratio": 0.5,
        "state": {"epoch": 0, "batch": 0},
    }
    text = json.dumps({**defaults, **settings, "batches": batches})
    *lines, state = ok("examples/batch_digests", location, text).splitlines()
    return lines, json.loads(state)


def python_batches(loader: mrm.Loader, batches: int) -> list[str]:
    """The same of a loader of Python, over as many epochs as it takes."""
    lines: list[str] = []
    while True:
        for batch in loader:
            lines.append(f"{batch.epoch} {batch.number} {digest(batch)}")
            if len(lines) == batches:
                return lines


def script(text: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a Python program in a process of its own."""
    words = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, **options)
