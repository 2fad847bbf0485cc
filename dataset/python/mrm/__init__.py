"""Chest radiographs with reports: training-ready datasets, label splits, and a fast, deterministic loader.

```python
import mrm

data = mrm.open("data/mimic")  # a folder, or s3://, gs://, az://, https://
loader = mrm.Loader(
    data, split="main", subset="train", ratio=1, batch_size=64, seed=0,
    transform=mrm.transforms.pretrain(448), text=mrm.Text(tokens=100, mask_ratio=0.5),
)
for batch in loader:
    images = batch.images.numpy()  # float32 [64, 1, 448, 448]; torch.from_dlpack(batch.images) without NumPy
```

`mrm.torch` has the same for PyTorch's `DataLoader`. All errors are classes under `mrm.Error`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from . import errors, transforms
from ._calls import ExportSummary, export, split, verify
from ._ingest import PhantomSummary, ingest, phantom
from ._join import JoinSummary, join
from ._mrm import Array, Batch, BatchText, BoundingBox, Dataset, NamedText, Reading, Record, Split, Table, __version__
from ._summary import IngestSummary
from .errors import (
    ArgumentError,
    ClosedError,
    DamagedError,
    Error,
    ExportError,
    FileError,
    ForkError,
    FormatVersionError,
    JoinError,
    NotADatasetError,
    OutputError,
    RawDataError,
    SplitError,
    StateError,
    StoreError,
    TooManyRejectsError,
    UnknownRecordError,
)
from .loader import Loader, LoaderState
from .settings import Studies, Text

__all__ = [
    "ArgumentError",
    "Array",
    "Batch",
    "BatchText",
    "BoundingBox",
    "ClosedError",
    "DamagedError",
    "Dataset",
    "Error",
    "ExportError",
    "ExportSummary",
    "FileError",
    "ForkError",
    "FormatVersionError",
    "IngestSummary",
    "JoinError",
    "JoinSummary",
    "Loader",
    "LoaderState",
    "NamedText",
    "NotADatasetError",
    "OutputError",
    "PhantomSummary",
    "RawDataError",
    "Reading",
    "Record",
    "Split",
    "SplitError",
    "StateError",
    "StoreError",
    "Studies",
    "Table",
    "Text",
    "TooManyRejectsError",
    "UnknownRecordError",
    "__version__",
    "errors",
    "export",
    "ingest",
    "join",
    "open",
    "phantom",
    "split",
    "transforms",
    "verify",
]


def open(location: str | os.PathLike[str], *, joins: Sequence[str] = ()) -> Dataset:
    """Opens the dataset at a path or URL; only its manifest is read.

    `joins` are names of joins, made by `mrm.join`: everything that is read of the dataset has their findings, labels, boxes,
    masks, texts and subsets instead of its own. A later join replaces values of an earlier one.

    URLs are `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `https://HOST/PATH` (read only) and
    `file:///FOLDER`; credentials come from the usual environment variables (`dataset --help` lists them).

    Raises:
        mrm.NotADatasetError: there is none.
        mrm.FormatVersionError: a later version of mrm wrote it.
        mrm.JoinError: a join is missing or damaged, or the dataset was changed after it was made.
        mrm.FileError, mrm.StoreError: it cannot be read.

    >>> data = mrm.open("data/mimic")
    >>> len(data), data[0].image
    (54, mrm.Array([64, 77], uint8))
    """
    return Dataset(location, list(joins))
