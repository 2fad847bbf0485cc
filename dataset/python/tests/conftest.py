"""Fixtures that the tests share. They are made once and must not be changed; copy what a test changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import mrm
from support import SMALL


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The raw directory of a source: 30 studies, 64 pixels."""
    made: dict[str, Path] = {}

    def of(layout: str) -> Path:
        if layout not in made:
            made[layout] = tmp_path_factory.mktemp("raw") / layout
            mrm.phantom(layout, made[layout], studies=30, size=64)
        return made[layout]

    return of


@pytest.fixture(scope="session")
def data(raw: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of MIMIC-CXR's layout in several shards, with the split `main`."""
    out = tmp_path_factory.mktemp("data") / "mimic"
    mrm.ingest("mimic-cxr", raw("mimic-cxr"), out, **SMALL)
    mrm.split(out, "main")
    return out
