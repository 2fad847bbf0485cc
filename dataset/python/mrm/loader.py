"""The loader: whole batches, made by threads of Rust."""

from __future__ import annotations

import atexit
import sys
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, TypedDict

from . import _mrm
from ._mrm import Batch, Dataset, Split
from .errors import ArgumentError, Error, StateError
from .settings import Rows, Settings, Subset, Text, chosen_rows, natural, transform_json
from .transforms import Transform

_open_loaders: weakref.WeakSet[Loader] = weakref.WeakSet()


class LoaderState(TypedDict):
    """Position of a loader; JSON, and the same as that of the Rust loader."""

    epoch: int
    """Epoch of the next batch, from 0 on."""
    batch: int
    """Number of the next batch within its epoch."""
    order: int
    """Digest of everything that decides the order: records, batch size, seed, policies. It has 64 bits without sign."""


class Loader:
    """Iterates over the batches of an epoch; the next loop iterates over the next epoch.

    Batches are made ahead by threads that do not need Python. They are the same for any number of threads, and the same as
    those of the Rust loader.

    Args:
        data: The dataset.
        split: A split or its name; all records without one.
        subset: ``train``, ``validate`` or ``test``, with `split`.
        ratio: In percent: of the training subset, the records whose labels may be seen.
        rows: Row numbers or record ids, in place of a split; a row may occur several times.
        batch_size: Records of a global batch, over all ranks.
        seed: Seed of the order, the augmentation and the masking.
        transform: Image transform; default ``mrm.transforms.evaluate(224)``.
        text: Loads reports, too.
        shuffle: Whether each epoch has a new seeded order; otherwise the order of the rows.
        drop_last: Leaves out the last batch of an epoch where it is not full.
        boxes: Loads boxes, too, transformed as the images.
        masks: Loads segmentation masks, too, transformed as the images.
        on_error: What happens when a record cannot be read: ``stop`` raises (the next call of the iterator gives the next
            batch), ``skip`` leaves the record out (``batch.skipped``, ``loader.skipped``).
        distributed: ``(rank, world_size)``: this process gets every ``world_size``-th record of each global batch. By default
            those of `torch.distributed` where it is initialized, else ``(0, 1)``.
        threads: Threads that make batches; 0 means one for each core.
        prefetch: Batches made ahead; 0 means two for each thread.

    A loop that was left early begins its epoch anew at the next loop; after `load_state_dict` it continues instead.

    >>> loader = mrm.Loader(data, batch_size=3, transform=mrm.transforms.evaluate(32), text=mrm.Text(tokens=16))
    >>> len(loader)
    18
    >>> batch = next(iter(loader))
    >>> batch.images, batch.labels, batch.token_ids
    (mrm.Array([3, 1, 32, 32], float32), mrm.Array([3, 14], float32), mrm.Array([3, 16], int64))
    >>> loader.state_dict()["batch"]
    1
    """

    def __init__(
        self,
        data: Dataset,
        *,
        split: Split | str | None = None,
        subset: Subset | None = None,
        ratio: float | None = None,
        rows: Rows | None = None,
        batch_size: int = 64,
        seed: int = 0,
        transform: Transform | None = None,
        text: Text | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        boxes: bool = False,
        masks: bool = False,
        on_error: Literal["stop", "skip"] = "stop",
        distributed: tuple[int, int] | None = None,
        threads: int = 0,
        prefetch: int = 0,
        _memory: tuple[int, int, int, Any] | None = None,
    ) -> None:
        if not isinstance(data, Dataset):
            raise TypeError(f"data: give a dataset of mrm.open, not {type(data).__name__}")
        if on_error not in ("stop", "skip"):
            raise ArgumentError(f"on_error {on_error!r}: give \"stop\" or \"skip\"")
        rank, world_size = distributed if distributed is not None else _torch_distributed()
        settings = Settings(
            rows=chosen_rows(data, split, subset, ratio, rows),
            batch_size=natural("batch_size", batch_size, least=1),
            seed=natural("seed", seed),
            rank=natural("rank", rank),
            world_size=natural("world_size", world_size, least=1),
            transform=transform_json(transform),
            text=None if text is None else (text.tokens, text.mask_ratio),
            shuffle=shuffle,
            drop_last=drop_last,
            boxes=boxes,
            masks=masks,
            skip_errors=on_error == "skip",
            threads=natural("threads", threads),
            prefetch=natural("prefetch", prefetch),
            memory=_memory,
        )
        self._start(data, settings)

    def _start(self, data: Dataset, settings: Settings) -> None:
        self._data = data
        self._settings = settings
        self._core = _mrm.Loader(data, settings)
        self._is_positioned = False
        # Number of the current loop over it.
        self._loop = 0
        _open_loaders.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._data, replace(self._settings, memory=None), self.state_dict())

    def __len__(self) -> int:
        """Batches of an epoch: the same for all ranks."""
        return self._core.batches

    @property
    def records(self) -> int:
        """Records of an epoch, over all ranks."""
        return self._core.records

    @property
    def skipped(self) -> int:
        """Records that were left out so far because they could not be read (``on_error="skip"``)."""
        return self._core.skipped

    def __iter__(self) -> Iterator[Batch]:
        epoch, batch, order = self._core.state()
        if batch != 0 and not self._is_positioned:
            self._core.seek(epoch, 0, order)
        self._is_positioned = False
        self._loop += 1
        return _Epoch(self, epoch)

    def state_dict(self) -> LoaderState:
        """Position of the loader: the batch that comes next."""
        epoch, batch, order = self._core.state()
        return {"epoch": epoch, "batch": batch, "order": order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from the position of a loader with the same records, batch size, seed and policies, of Python or Rust;
        the number of ranks and threads may be another.

        Raises:
            mrm.StateError: the state is not one, or belongs to another order.
        """
        try:
            values = [state[name] for name in ("epoch", "batch", "order")]
            epoch, batch, order = (natural("state", value) for value in values)
        except (TypeError, KeyError, ArgumentError):
            raise StateError("not the state of a loader: epoch, batch and order are numbers from 0 on") from None
        self._core.seek(epoch, batch, order)
        self._loop += 1
        self._is_positioned = True

    def set_epoch(self, epoch: int) -> None:
        """Begins the next loop at this epoch, as `DistributedSampler.set_epoch` does. A loader that is within this epoch keeps
        its position where `load_state_dict` set it.
        """
        now, _, order = self._core.state()
        if natural("epoch", epoch) != now:
            self._core.seek(epoch, 0, order)
            self._loop += 1

    def close(self) -> None:
        """Ends the threads. Batches stay valid; the loader gives no more."""
        self._core.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class _Epoch(Iterator[Batch]):
    """One loop over an epoch. Several threads may share it: each batch goes to one of them."""

    def __init__(self, loader: Loader, epoch: int) -> None:
        self._loader = loader
        self._number = epoch
        self._loop = loader._loop

    def __next__(self) -> Batch:
        if self._loader._loop != self._loop:
            raise Error("this loop ended: the loader was positioned anew, or another loop over it began")
        batch = self._loader._core.next(self._number)
        if batch is None:
            raise StopIteration
        return batch


def _restored(data: Dataset, settings: Settings, state: LoaderState) -> Loader:
    """A copy of a loader, in another process or from a file."""
    loader = Loader.__new__(Loader)
    loader._start(data, settings)
    loader.load_state_dict(state)
    return loader


def _torch_distributed() -> tuple[int, int]:
    """Rank and world size of `torch.distributed`, where a program has initialized it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@atexit.register
def _close_all() -> None:
    """Ends all threads before the interpreter shuts down."""
    for loader in list(_open_loaders):
        loader.close()
