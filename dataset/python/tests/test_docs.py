"""Examples in docstrings and in the README."""

from __future__ import annotations

import doctest
import re
import types
from pathlib import Path

import pytest

import mrm
import mrm.loader
import mrm.settings
import mrm.transforms

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def here(mimic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with `data/mimic`."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mimic").symlink_to(mimic)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("module", [mrm, mrm.loader, mrm.settings, mrm.transforms])
def test_docstrings(here: None, module: types.ModuleType) -> None:
    names = {"mrm": mrm, "data": mrm.open("data/mimic")}
    assert doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS).failed == 0


def test_docstrings_have_examples() -> None:
    assert sum(len(found.examples) for found in doctest.DocTestFinder().find(mrm.loader)) >= 4


def test_the_readme(here: None) -> None:
    pytest.importorskip("torch")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    images, labels, masked = names["images"], names["labels"], names["masked"]
    assert (images.shape[1:], labels.shape[1:], masked.shape[1:]) == ((1, 64, 64), (14,), (100,))  # type: ignore[attr-defined]


def test_public_names_have_docstrings() -> None:
    for name in mrm.__all__:
        value = getattr(mrm, name)
        if callable(value):
            assert value.__doc__, name
        for member, attribute in vars(value).items() if isinstance(value, type) else ():
            if not member.startswith("_") and type(attribute).__name__ in ("getset_descriptor", "method_descriptor", "function"):
                assert attribute.__doc__, f"{name}.{member}"
