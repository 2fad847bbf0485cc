"""Arguments that loaders and map-style datasets share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import transforms
from ._mrm import Array, Dataset, Split, row_array
from .errors import ArgumentError
from .transforms import Transform

Subset = Literal["train", "validate", "test"]
Rows = Iterable[int] | Iterable[str]


@dataclass(frozen=True)
class Text:
    """A text of a sample, and how it becomes a row of tokens. It is the whole report, or a section or sentences of it."""

    tokens: int = 100
    """Tokens of a row: longer texts are cut, shorter ones padded."""
    mask_ratio: float = 0.5
    """Share of the words that are masked; 0: none."""
    section: str | None = None
    """Name of a section, in lower case: ``findings``, ``impression``, ``indication``, … A record without it has padding only."""
    sentences: int | None = None
    """Number of sentences to draw from the report, anew in each epoch, kept in order. If the report has fewer, all are used."""

    def __post_init__(self) -> None:
        natural("tokens", self.tokens, least=1)
        if self.section is not None and self.sentences is not None:
            raise ArgumentError("give either a section or a number of sentences, not both")
        if self.sentences is not None:
            natural("sentences", self.sentences, least=1)
        if not 0 <= self.mask_ratio <= 1:
            raise ArgumentError(f"mask_ratio {self.mask_ratio!r}: give a share from 0 to 1")


@dataclass(frozen=True)
class Studies:
    """How studies become samples, in place of records: all chosen rows with the same patient and study are one."""

    views: int = 2
    """Views of a study, V. A study with fewer has empty slots."""
    choose: Literal["first", "random"] = "first"
    """Which views, where a study has more: the first ones of PA, AP, frontal, lateral, others, not stated (then by row), or others
    in each epoch, drawn without replacement; they come in this order."""
    prior: int = 0
    """Views of the latest earlier study of the same patient among the chosen rows, P, chosen alike."""

    def __post_init__(self) -> None:
        natural("views", self.views, least=1)
        natural("prior", self.prior)
        if self.choose not in ("first", "random"):
            raise ArgumentError(f"choose {self.choose!r}: give \"first\" or \"random\"")


@dataclass(frozen=True)
class Mixture:
    """Shares of several datasets, and the length of an epoch, as the extension module reads them."""

    weights: list[float] | None
    temperature: float
    epoch_of: int | None
    epoch_records: int | None


@dataclass(frozen=True)
class Settings:
    """The arguments as the extension module reads them."""

    rows: list[Array | None]
    batch_size: int
    seed: int
    rank: int
    world_size: int
    transform: str
    crops: list[tuple[str, int]]
    texts: list[tuple[int, float, str | None, int | None]]
    shuffle: bool
    drop_last: bool
    boxes: bool
    masks: bool
    mask_name: str | None
    skip_errors: bool
    threads: int
    prefetch: int
    studies: tuple[int, bool, int] | None = None
    token_weights: dict[str, float] | None = None
    token_weights_file: str | os.PathLike[str] | None = None
    mixture: Mixture | None = None
    tokenizer: str | os.PathLike[str] | None = None
    memory: tuple[int, int, int, Any] | None = None
    follows_torch: bool = False
    """Whether rank and world size are those of `torch.distributed`."""


def natural(name: str, value: int, *, least: int = 0) -> int:
    """A number from `least` to 2⁶⁴ - 1, else an error."""
    try:
        number = value.__index__()
    except AttributeError:
        raise TypeError(f"{name}: give a number, not {type(value).__name__}") from None
    if not least <= number < 1 << 64:
        raise ArgumentError(f"{name} {number}: give a number from {least} on")
    return number


def transform_json(transform: Transform | None) -> str:
    """JSON of a transform; the default is that of evaluation at 224 pixels."""
    if transform is None:
        transform = transforms.evaluate(224)
    if not isinstance(transform, Transform):
        raise TypeError(f"transform: give one of mrm.transforms, not {type(transform).__name__}")
    return transform.to_json()


def crops_json(crops: Sequence[tuple[Transform, int]]) -> list[tuple[str, int]]:
    """JSON of the transform of each group of crops, and the number of its crops."""
    return [(transform_json(transform), natural("crops", count, least=1)) for transform, count in crops]


def texts_list(text: Text | Sequence[Text] | None) -> list[tuple[int, float, str | None, int | None]]:
    """One text, several or none as the extension module reads them."""
    texts = [] if text is None else [text] if isinstance(text, Text) else list(text)
    for one in texts:
        if not isinstance(one, Text):
            raise TypeError(f"text: give mrm.Text(...), not {type(one).__name__}")
    return [(one.tokens, one.mask_ratio, one.section, one.sentences) for one in texts]


def weights_of_tokens(
    weights: Mapping[str, float] | str | os.PathLike[str] | None,
) -> tuple[dict[str, float] | None, str | os.PathLike[str] | None]:
    """Weights of tokens, or the JSON file that has them."""
    if isinstance(weights, Mapping):
        return {str(token): float(weight) for token, weight in weights.items()}, None
    return None, weights


def studies_tuple(studies: Studies | None) -> tuple[int, bool, int] | None:
    """Studies as the extension module reads them."""
    if studies is None:
        return None
    if not isinstance(studies, Studies):
        raise TypeError(f"studies: give mrm.Studies(...), not {type(studies).__name__}")
    return studies.views, studies.choose == "random", studies.prior


def with_joins(datasets: Sequence[Dataset], join: str | Sequence[str]) -> list[Dataset]:
    """The datasets, the only one of which is seen with joins."""
    names = [join] if isinstance(join, str) else list(join)
    if not names:
        return list(datasets)
    if len(datasets) != 1:
        raise ArgumentError("join is for one dataset: open each dataset of a mixture with mrm.open(location, joins=[...])")
    return [datasets[0].with_joins(names)]


def chosen_rows(
    data: Dataset, split: Split | str | None, subset: Subset | None, ratio: float | None, rows: Rows | None
) -> Array | None:
    """The rows that arguments choose, `uint32 [N]`; `None` for all of the dataset."""
    if split is not None:
        if rows is not None:
            raise ArgumentError("give either a split or rows, not both")
        if subset is None:
            raise ArgumentError("a split needs a subset: give subset=\"train\", \"validate\" or \"test\"")
        return (data.split(split) if isinstance(split, str) else split).rows(subset, ratio)
    if subset is not None or ratio is not None:
        raise ArgumentError("subset and ratio are parts of a split: give split=, too")
    if rows is None:
        return None
    if isinstance(rows, str):
        raise TypeError("rows: give a list of row numbers or record ids, not a text")
    return row_array([data.row_of(row) for row in rows])


def chosen_parts(
    datasets: Sequence[Dataset],
    split: Split | str | Sequence[Split | str] | None,
    subset: Subset | None,
    ratio: float | None,
    rows: Sequence[Rows | None] | None,
) -> list[Array | None]:
    """The rows that arguments choose of each dataset of a mixture. A split is looked up by its name in each of them."""
    splits = [split] * len(datasets) if split is None or isinstance(split, (str, Split)) else list(split)
    chosen = [None] * len(datasets) if rows is None else list(rows)
    if not len(splits) == len(chosen) == len(datasets):
        raise ArgumentError(f"{len(splits)} splits and {len(chosen)} lists of rows for {len(datasets)} datasets")
    return [chosen_rows(data, split, subset, ratio, rows) for data, split, rows in zip(datasets, splits, chosen)]


def mixture(
    weights: Sequence[float] | None, temperature: float | None, epoch_of: int | None, epoch_records: int | None
) -> Mixture:
    """Shares and length of an epoch, checked as far as it needs no dataset."""
    if weights is not None and temperature is not None:
        raise ArgumentError("give either weights or a temperature, not both")
    if epoch_of is not None and epoch_records is not None:
        raise ArgumentError("give either epoch_of or epoch_records, not both")
    return Mixture(
        weights=None if weights is None else [float(weight) for weight in weights],
        temperature=1.0 if temperature is None else float(temperature),
        epoch_of=None if epoch_of is None else natural("epoch_of", epoch_of),
        epoch_records=None if epoch_records is None else natural("epoch_records", epoch_records, least=1),
    )
