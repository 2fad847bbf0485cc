"""Small datasets that all tests share, made by the programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import mrm
from support import ok


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all data of the session."""
    return tmp_path_factory.mktemp("data")


def make(folder: Path, source: str, studies: int, *flags: str) -> Path:
    """A dataset of synthetic radiographs of 64 pixels."""
    raw, out = folder / f"raw-{source}", folder / source
    ok("ingest", "phantom", source, raw, "--studies", studies, "--size", 96)
    ok("ingest", source, raw, out, "--size", 64, "--rows-per-shard", 16, *flags)
    return out


@pytest.fixture(scope="session")
def mimic(folder: Path) -> Path:
    """54 records with reports in 4 shards, with a split `main`. Never written to."""
    out = make(folder, "mimic-cxr", 40)
    ok("dataset", "split", out, "--name", "main")
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
