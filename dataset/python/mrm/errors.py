"""Exceptions. Their texts are those of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._summary import IngestSummary


class Error(Exception):
    """Any error of mrm."""

    path: str | None = None
    """The file, folder, URL or shard that it concerns, where there is one."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.__dict__.update(details)

    def __str__(self) -> str:
        return str(self.args[0])


class ArgumentError(Error, ValueError):
    """An argument has no meaning, or arguments contradict each other."""


class ClosedError(Error, RuntimeError):
    """The dataset or loader was closed."""


class DamagedError(Error):
    """A shard, record or file of a dataset is damaged, or was replaced after it was opened."""


class ExportError(Error):
    """The folder of an export cannot be used."""


class FileError(Error, OSError):
    """The operating system refused a file operation."""


class ForkError(Error, RuntimeError):
    """A loader was made before the process forked."""


class FormatVersionError(Error):
    """A dataset has a version of the format that this version of mrm does not read."""


class JoinError(Error):
    """A join is missing, damaged, or of another dataset, or cannot be made."""


class NotADatasetError(Error):
    """There is no (finished) dataset at the location."""


class OutputError(Error):
    """The output of a run cannot be used: it has something else, or another run writes to it."""


class RawDataError(Error):
    """A raw directory or one of its tables cannot be used."""


class SplitError(Error):
    """A split is missing or broken, or cannot be made."""


class StateError(Error, ValueError):
    """A loader cannot continue from a state."""


class StoreError(Error, OSError):
    """A request to an object store failed."""


class TooManyRejectsError(Error):
    """A run rejected more inputs than it may. The dataset is complete."""

    summary: IngestSummary
    """What the run made."""


class UnknownRecordError(Error, KeyError):
    """No record has this identifier."""
