"""Progress of long calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ProgressCallback = Callable[[int, int], object]
"""Gets the number of records that are done, and of all."""

Progress = bool | ProgressCallback | None
"""``None`` or ``False``: nothing; ``True``: a bar of tqdm, or lines on stderr; or a callback."""


@contextmanager
def callback(progress: Progress, unit: str) -> Iterator[ProgressCallback | None]:
    """The callback for a value of the argument ``progress``."""
    if progress is None or progress is False:
        yield None
    elif progress is not True:
        if not callable(progress):
            raise TypeError(f"progress is {progress!r}: give True, False, None or a callable of (done, total)")
        yield progress
    else:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            yield _Lines(unit)
        else:
            bar = _Bar(tqdm, unit)
            try:
                yield bar
            finally:
                bar.close()


class _Bar:
    """A bar of tqdm, which begins with the first call."""

    def __init__(self, tqdm: Any, unit: str) -> None:
        self._tqdm = tqdm
        self._options = {"unit": "B", "unit_scale": True} if unit == "bytes" else {"unit": f" {unit}"}
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = self._tqdm(total=total, initial=done, **self._options)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Lines:
    """A line on stderr for each tenth of the work."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._tenth = 0

    def __call__(self, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > self._tenth:
            self._tenth = tenth
            print(f"{done}/{total} {self._unit}", file=sys.stderr)
