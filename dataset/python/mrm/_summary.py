"""What a run of ingest made."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class IngestSummary:
    """What a run of `mrm.ingest` made.

    Where a task (``task="0/4"``) has made its shards and those of other tasks are missing, the dataset is not complete:
    `missing_shards` is above 0, and only `shards`, `resumed_shards` and `warnings` have values.
    """

    records: int = 0
    """Radiographs in the dataset."""
    studies: int = 0
    """Their studies."""
    patients: int = 0
    """Their patients."""
    reports: int = 0
    """Records with a report."""
    shards: int = 0
    """Parquet files; those of the task where `missing_shards` is above 0."""
    bytes: int = 0
    """Size of the shards."""
    mean: float = 0.0
    """Mean of all pixels, 0 to 1."""
    std: float = 0.0
    """Standard deviation of all pixels."""
    vocabulary: int = 0
    """Size of the tokenizer's vocabulary; 0 without a tokenizer."""
    rejects: dict[str, int] = field(default_factory=dict)
    """Number of rejected inputs by the stage that rejected them; ``mrm.open(out).rejects()`` lists them."""
    unreadable: int = 0
    """Inputs that the system refused to read: ``retry_rejects=True`` tries them again."""
    unknown_views: int = 0
    """Records without a view, since the ViewPosition of their DICOM header is no view code."""
    constant_images: int = 0
    """Records whose pixels all have one value: ``reject_constant=True`` leaves such images out."""
    burned_in: int = 0
    """Records whose header states text in the pixels: ``reject_burned_in=True`` leaves such images out."""
    contradicted_views: int = 0
    """Records whose view contradicts the header or the shape of the image; `warnings` names some."""
    checksums: dict[str, int] | None = None
    """Files that were compared with ``check_sums``: ``matched``, ``damaged``, ``missing`` (listed, but not there) and
    ``unlisted``; ``None`` without it."""
    resumed_shards: int = 0
    """Shards that an earlier, interrupted run had finished."""
    missing_shards: int = 0
    """Shards that other tasks still have to make; 0 where the dataset is complete."""
    already_done: bool = False
    """The dataset was complete before, from the same input; nothing was written."""
    warnings: list[str] = field(default_factory=list)
    """Warnings and the most frequent reasons of rejects, as the command line prints them."""
