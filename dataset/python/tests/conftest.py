"""Small datasets that all tests share, made by the programs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mrm


def program(name: str) -> str:
    """A program: that of the folder MRM_BIN, else the one on the path."""
    folder = os.environ.get("MRM_BIN")
    found = f"{folder}/{name}" if folder else shutil.which(name)
    assert found, f"no program {name}: set MRM_BIN"
    return found


def run(*words: object) -> str:
    """Runs a program of the project; returns what it prints."""
    name, *arguments = [str(word) for word in words]
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all data of the session."""
    return tmp_path_factory.mktemp("data")


def make(folder: Path, source: str, studies: int, *flags: str) -> Path:
    """A dataset of synthetic radiographs of 64 pixels."""
    raw, out = folder / f"raw-{source}", folder / source
    run("ingest", "phantom", source, raw, "--studies", studies, "--size", 96)
    run("ingest", source, raw, out, "--size", 64, "--rows-per-shard", 16, *flags)
    return out


@pytest.fixture(scope="session")
def mimic(folder: Path) -> Path:
    """54 records with reports in 4 shards, with a split `main`. Never written to."""
    out = make(folder, "mimic-cxr", 40)
    run("dataset", "split", out, "--name", "main")
    return out


@pytest.fixture(scope="session")
def siim(folder: Path) -> Path:
    """Records with masks."""
    return make(folder, "siim", 20)


@pytest.fixture(scope="session")
def rsna(folder: Path) -> Path:
    """Records with boxes."""
    return make(folder, "rsna", 20)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The raw directory of a source: 30 studies, 64 pixels. Never written to."""
    made: dict[str, Path] = {}

    def of(layout: str) -> Path:
        if layout not in made:
            made[layout] = tmp_path_factory.mktemp("raw") / layout
            mrm.phantom(layout, made[layout], studies=30, size=64)
        return made[layout]

    return of


@pytest.fixture
def data(mimic: Path) -> mrm.Dataset:
    return mrm.open(mimic)


@pytest.fixture
def copy(mimic: Path, tmp_path: Path) -> Path:
    """A dataset to change."""
    return Path(shutil.copytree(mimic, tmp_path / "copy"))


def digest(batch: mrm.Batch) -> str:
    """SHA-256 of all arrays of a batch, as the example `batch_digests` of the crate `dataset` computes it."""
    total = hashlib.sha256()
    texts = [batch.token_ids, batch.target_ids, batch.attention_mask]
    for array in [batch.rows, batch.images, batch.labels, *texts, batch.masks]:
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
    *lines, state = run("examples/batch_digests", location, text).splitlines()
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
