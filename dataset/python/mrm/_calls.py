"""Splits, exports and checks of a dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from . import _mrm
from ._mrm import Dataset, Split
from ._progress import Progress, callback

Path = str | os.PathLike[str]


def _location(data: Dataset | Path) -> Path:
    return data.location if isinstance(data, Dataset) else data


def split(
    data: Dataset | Path,
    name: str,
    *,
    ratios: Sequence[float] | None = None,
    unit: Literal["patient", "study", "image"] = "patient",
    stratify: Sequence[str] | None = None,
    validation: float | None = None,
    test: float | None = None,
    official: bool = False,
    labels: str | None = None,
    subset_from: str | None = None,
    lists: Path | None = None,
    keep_duplicates_together: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> Split:
    """Makes train, validate and test subsets and nested label ratios, and stores them in the dataset, as ``dataset split``.

    Args:
        data: The dataset, or its folder or URL.
        name: Name of the split.
        ratios: Percentages of the training subset whose labels may be seen, nested; by default ``(1, 10, 100)``, or those of
            the lists.
        unit: Which records stay together in one subset.
        stratify: Findings to balance; by default all.
        validation: Share of the records for validation; by default 0.1, and none with `official` and `lists`.
        test: Share of the records for the test; by default 0.2, and none with `official` and `lists`.
        official: Use the source's own subsets.
        labels: Name of a join whose labels are balanced, in place of the dataset's own.
        subset_from: Name of a join whose subsets are used.
        lists: Folder of published lists of image names whose subsets and ratios are used.
        keep_duplicates_together: Keep records with equal stored pixels in one subset, with all records of their patients.
            Every image is read.
        seed: Decides among equally good choices; the same seed gives the same split.
        overwrite: Replace the split of this name. Models that were trained on it can no longer be evaluated.

    Raises:
        mrm.ArgumentError: an argument has no such value, or arguments contradict each other.
        mrm.SplitError: the split cannot be made, or another one has this name.
    """
    options = {
        "name": name,
        "ratios": ratios,
        "unit": unit,
        "stratify": stratify,
        "validation": validation,
        "test": test,
        "official": official,
        "labels": labels,
        "subset_from": subset_from,
        "lists": lists,
        "keep_duplicates_together": keep_duplicates_together,
        "seed": seed,
        "overwrite": overwrite,
    }
    return _mrm.split(_location(data), options)


@dataclass(frozen=True)
class ExportSummary:
    """What `mrm.export` wrote."""

    records: int
    """Number of records."""
    pieces: int
    """Number of tar or Parquet files, or of parts of a CSV export."""
    resumed_pieces: int
    """Those that an earlier, interrupted call had finished."""
    already_done: bool
    """The folder had this export already; nothing was written."""


def export(
    data: Dataset | Path,
    out: Path,
    *,
    to: Literal["webdataset", "hf", "csv"],
    split: str | None = None,
    subset: Literal["train", "validate", "test"] | None = None,
    ratio: float | None = None,
    shard_size: int | None = None,
    no_images: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress = None,
) -> ExportSummary:
    """Writes the records in a format that other tools read, as ``dataset export``.

    After an interruption, the same call continues and gives the same bytes.

    Args:
        data: The dataset, or its folder or URL.
        out: Folder to write: new, empty, or left by the same call.
        to: Tar files of WebDataset, Parquet files of Hugging Face, or a CSV table with image files.
        split: Name of the split that divides the records; records in none of its subsets are left out.
        subset: Export this subset of the split only.
        ratio: In percent: of the training subset, export the records whose labels may be seen.
        shard_size: Records in a tar or Parquet file; by default 2048.
        no_images: Write the table only (``csv``).
        overwrite: Replace the export in `out`.
        threads: Number of threads; by default one for each core.
        progress: ``True`` shows a bar; a callable gets ``(done, total)`` in records, on the calling thread.

    Raises:
        mrm.ArgumentError: an argument has no such value, or arguments contradict each other.
        mrm.ExportError: `out` has something else, or another export writes to it.
        mrm.SplitError: the split is missing or broken, or has no such ratio.

    >>> mrm.export("data/mimic", "tars", to="webdataset", split="main", subset="test").pieces
    1
    """
    options = {
        "to": to,
        "split": split,
        "subset": subset,
        "ratio": ratio,
        "shard_size": shard_size,
        "no_images": no_images,
        "overwrite": overwrite,
        "threads": threads,
    }
    with callback(progress, "records") as report:
        return ExportSummary(*_mrm.export(_location(data), out, options, report))


def verify(data: Dataset | Path, *, threads: int | None = None, progress: Progress = None) -> list[str]:
    """All problems of a dataset, a line each; empty where it is intact. Every file is read, as by ``dataset verify``.

    Args:
        data: The dataset, or its folder or URL.
        threads: Number of threads; by default one for each core.
        progress: ``True`` shows a bar; a callable gets ``(done, total)`` in bytes, on the calling thread.

    >>> mrm.verify("data/mimic")
    []
    """
    with callback(progress, "bytes") as report:
        return _mrm.verify(_location(data), {"threads": threads}, report)
