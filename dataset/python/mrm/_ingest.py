"""Raw directories to datasets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import _mrm
from ._progress import Progress, callback
from ._summary import IngestSummary
from .errors import TooManyRejectsError

Path = str | os.PathLike[str]
Value = str | int | float | Path | None
Option = Value | Iterable[Value] | Mapping[str, Value]


def ingest(
    source: str,
    raw: Path,
    out: Path,
    *,
    table: Any = None,
    progress: Progress = None,
    **options: Option,
) -> IngestSummary:
    """Converts raw radiographs and reports to a dataset, as the program ``ingest``.

    After an interruption (Ctrl-C, a kill, an exception of `progress`), the same call continues and gives the same bytes.

    Args:
        source: One of those that ``ingest --help`` lists: ``mimic-cxr``, ``chexpert``, ``nih``, ``vindr-cxr``, ``padchest`` …, or
            ``folder`` for any directory.
        raw: Directory of the raw data.
        out: Directory of the dataset to write, or the URL of a place in an object store.
        table: For ``folder``: the path of a table, a pattern of several (``"data/*.parquet"``; the images may be in them), or a
            table of polars, pandas (2.2 or later), pyarrow or DuckDB. Such a table is ingested as a file ``table.csv`` in `raw`
            would be.
        progress: ``True`` shows a bar; a callable gets ``(done, total)`` in radiographs, on the calling thread.
        options: The options of ``ingest SOURCE --help`` with underscores: ``size=256, image_encoding="png"``. ``True`` gives an
            option without a value; a list repeats one (``label_columns=["Edema", "Effusion"]``); a dictionary is for
            ``label_map={"abnormal": 1, "unclear": -1, "n/a": None}``. ``dry_run`` and ``check_input`` are for the command line.

    Raises:
        mrm.ArgumentError: an option is unknown or has no such value.
        mrm.RawDataError: the directory or one of its tables cannot be used.
        mrm.OutputError: `out` has something else, or another run writes to it.
        mrm.TooManyRejectsError: more inputs were rejected than `max_reject_rate` (default 0.01) allows. The dataset is complete;
            the exception has its `summary`.

    >>> mrm.phantom("nih", "raw/nih", studies=12, size=64).images
    12
    >>> mrm.ingest("nih", "raw/nih", "data/nih", size=64).records
    12
    """
    with callback(progress, "radiographs") as report:
        fields, too_many_rejects = _mrm.ingest(source, raw, out, table, options, report)
    summary = IngestSummary(**fields)
    if too_many_rejects is not None:
        raise TooManyRejectsError(too_many_rejects, summary=summary)
    return summary


@dataclass(frozen=True)
class PhantomSummary:
    """What `mrm.phantom` wrote."""

    images: int
    studies: int
    patients: int


def phantom(layout: str, out: Path, *, studies: int, progress: Progress = None, **options: Option) -> PhantomSummary:
    """Writes a synthetic raw directory in the layout of a source, to try everything without a license.

    The same arguments give the same bytes. None of it is medical data.

    Args:
        layout: The source, as for `mrm.ingest`: ``mimic-cxr``, ``chexpert``, ``nih``, ``vindr-cxr`` …, or ``folder``.
        out: Directory to write: new, empty, or left by the same call.
        studies: Number of studies; some have two images.
        progress: ``True`` shows a bar; a callable gets ``(done, total)`` in studies.
        options: ``size``, the nominal shorter side of the images in pixels (default 512), and ``seed`` (default 0).

    Raises:
        mrm.ArgumentError: an option is unknown or has no such value.
        mrm.OutputError: `out` has something else.
    """
    with callback(progress, "studies") as report:
        return PhantomSummary(*_mrm.phantom(layout, out, {"studies": studies, **options}, report))
