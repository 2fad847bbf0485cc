"""Tables about the records of a dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from . import _mrm
from ._calls import Path, _location
from ._ingest import Option
from ._mrm import Dataset
from ._progress import Progress, callback


@dataclass(frozen=True)
class JoinSummary:
    """What `mrm.join` found and wrote."""

    name: str
    """Name of the join: `mrm.open(location, joins=[name])`."""
    kind: str
    """``labels``, ``boxes``, ``masks``, ``texts`` or ``subset``."""
    names: list[str]
    """The findings, or the names of masks or texts."""
    key: str
    """The column of the table by which rows belong to records."""
    on: str
    """The column of the records that it was compared with."""
    rows: int
    """Rows of the table."""
    matched: int
    """Rows that are about a record."""
    unmatched: int
    """Rows whose key no record has; `unmatched_keys` has the first ones."""
    filtered: int
    """Rows that ``min`` left out."""
    unreadable: int
    """Rows that ``skip_unreadable`` left out; `unreadable_rows` has the first ones with the reason."""
    duplicates: int
    """Rows that ``duplicates="first"`` left out."""
    records_with: int
    """Records that a row is about."""
    records_without: int
    """The other records."""
    unmatched_keys: list[str] = field(default_factory=list)
    unreadable_rows: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    already_done: bool = False
    """The same join was there before; nothing was written."""


def join(
    data: Dataset | Path,
    *,
    table: Any,
    key: str,
    kind: Literal["labels", "boxes", "masks", "texts", "subset"],
    name: str | None = None,
    progress: Progress = None,
    **options: Option,
) -> JoinSummary:
    """Writes labels, boxes, masks, texts or subsets of a table beside a dataset, as ``ingest join``. The shards stay as they are.

    After an interruption, the same call gives the same bytes.

    Args:
        data: The dataset, or its folder or URL.
        table: The path of a table, or a table of polars, pandas (2.2 or later), pyarrow or DuckDB.
        key: Column of the table that says which records a row is about.
        kind: What the table has.
        name: Name of the join; by default that of the table's file.
        progress: ``True`` shows a bar; a callable gets ``(done, total)`` in rows of the table, on the calling thread.
        options: The options of ``ingest join --help`` with underscores: ``label_columns=["Edema"]``,
            ``label_map={"abnormal": 1}``, ``mask_columns={"heart": "Heart"}``, ``min={"Dice RCA (Mean)": 0.7}``,
            ``unmatched="keep"``, ``overwrite=True``.

    Raises:
        mrm.ArgumentError: an option is unknown, belongs to another kind, or has no such value.
        mrm.RawDataError: the table cannot be used, or no row is about a record.
        mrm.JoinError: rows cannot be read or contradict each other, or another join has this name.

    >>> import polars
    >>> table = polars.DataFrame({"dicom_id": [data[0].image_id], "Hernia": [1]})
    >>> mrm.join("data/mimic", table=table, key="dicom_id", kind="labels", name="hernia").records_with
    1
    >>> mrm.open("data/mimic", joins=["hernia"])[0].labels["Hernia"]
    1
    """
    options = {"key": key, "as": kind, "name": name, **options}
    with callback(progress, "rows") as report:
        return JoinSummary(**_mrm.join(_location(data), table, options, report))
