"""The loader: whole batches, prepared in advance by Rust threads."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypedDict

from . import _mrm
from ._mrm import Batch, Dataset, Split
from .errors import ArgumentError, Error, StateError
from .settings import (
    Rows,
    Settings,
    Studies,
    Subset,
    Text,
    chosen_parts,
    chosen_rows,
    crops_json,
    mixture,
    natural,
    studies_tuple,
    texts_list,
    transform_json,
    weights_of_tokens,
    with_joins,
)
from .transforms import Transform

_open_loaders: weakref.WeakSet[Loader] = weakref.WeakSet()


class _Position(TypedDict):
    epoch: int
    """Epoch of the next batch, from 0 on."""
    batch: int
    """Number of the next batch within its epoch."""
    order: int
    """Digest of everything that decides the order: records, batch size, seed, policies; not the weights of a mixture. It has
    64 bits without sign."""


class LoaderState(_Position, total=False):
    """Position of a loader; JSON, and the same as that of the Rust loader."""

    drawn: list[int]
    """Of a mixture: records drawn of each dataset so far, over all ranks."""


class Loader:
    """Iterates over the batches of an epoch; the next loop iterates over the next epoch.

    Batches are prepared in advance by Rust threads. They are the same for any number of threads, and the same as those of the
    Rust loader.

    Args:
        data: The dataset, or several ones, whose mixture is loaded: records of one batch come from all of them, and
            ``batch.sources`` says from which.
        split: A split or its name; all records without one. The name is looked up in each dataset of a mixture; a list has one
            split for each.
        subset: ``train``, ``validate`` or ``test``, with `split`.
        ratio: In percent: of the training subset, the records whose labels may be seen.
        rows: Row numbers or record ids, in place of a split; a row may occur several times. Of a mixture, a list with those of
            each dataset (``None``: all).
        batch_size: Records of a global batch, over all ranks; with `studies`, studies.
        seed: Seed of the order, the augmentation and the masking.
        transform: Image transform; default ``mrm.transforms.evaluate(224)``.
        crops: Makes several crops of each image, too: ``(transform, count)`` for each group, such as the global and the local
            crops of student and teacher (``batch.crops``). The image is read and decoded once.
        studies: Makes a sample of each study, in place of each record: several images (``batch.view_mask`` says which are there,
            ``batch.view_codes`` of which views, ``batch.view_rows`` of which rows), the labels of all its records (positive where
            one is positive, else uncertain, else negative), and its first report.
        text: Loads reports, too; a list loads several texts of each sample (``batch.texts``), such as two sections.
        token_weights: Gives the weight of each token of the texts (``batch.token_weights``): a dictionary of the tokenizer's
            tokens (``{"effusion": 2.5}``), or a JSON file of one; every other token has the weight 1, padding 0.
        shuffle: Whether each epoch has a new seeded order; otherwise the order of the rows.
        drop_last: Leaves out the last batch of an epoch if it is not full.
        join: Uses the labels, boxes, masks and texts of these joins (`mrm.join`) instead of the dataset's own. The order stays.
            Of a mixture, open each dataset with its own: ``mrm.open(location, joins=[...])``.
        boxes: Loads boxes, too, transformed as the images.
        masks: Loads segmentation masks, too, transformed as the images: the first of each record, or that of a name.
        on_error: What happens when a record cannot be read: ``stop`` raises (the next call of the iterator gives the next
            batch), ``skip`` leaves the record out (``batch.skipped``, ``loader.skipped``).
        distributed: ``(rank, world_size)``: this process gets every ``world_size``-th record of each global batch. By default
            those of `torch.distributed` where it is initialized when a loop begins, else ``(0, 1)``.
        weights: Of a mixture: a number for each dataset, in proportion to its share of an epoch. Default: each dataset's share
            is proportional to its number of records.
        temperature: Of a mixture without weights: shares are in proportion to ``records ** (1 / temperature)``.
        epoch_of: Of a mixture: an epoch ends after one pass over the dataset of this number, from 0 on. Default: an epoch has as
            many records as all datasets together.
        epoch_records: Records of an epoch.
        tokenizer: Uses this ``tokenizer.json``. Reports that were tokenized with another one are tokenized again at loading.
            Default: that of the first dataset that has one.
        threads: Threads that make batches; 0 means one for each core.
        prefetch: Batches prepared in advance; 0 means two for each thread.

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
        data: Dataset | Sequence[Dataset],
        *,
        split: Split | str | Sequence[Split | str] | None = None,
        subset: Subset | None = None,
        ratio: float | None = None,
        rows: Rows | Sequence[Rows | None] | None = None,
        batch_size: int = 64,
        seed: int = 0,
        transform: Transform | None = None,
        crops: Sequence[tuple[Transform, int]] = (),
        studies: Studies | None = None,
        text: Text | Sequence[Text] | None = None,
        token_weights: Mapping[str, float] | str | os.PathLike[str] | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        join: str | Sequence[str] = (),
        boxes: bool = False,
        masks: bool | str = False,
        on_error: Literal["stop", "skip"] = "stop",
        distributed: tuple[int, int] | None = None,
        weights: Sequence[float] | None = None,
        temperature: float | None = None,
        epoch_of: int | None = None,
        epoch_records: int | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
        threads: int = 0,
        prefetch: int = 0,
        _memory: tuple[int, int, int, Any] | None = None,
    ) -> None:
        datasets = with_joins(_datasets(data), join)
        if isinstance(data, Dataset) and not (weights is None and temperature is None):
            raise ArgumentError("weights and temperature are for a list of datasets")
        mixed = mixture(weights, temperature, epoch_of, epoch_records)
        is_mixture = not isinstance(data, Dataset) or epoch_of is not None or epoch_records is not None
        if on_error not in ("stop", "skip"):
            raise ArgumentError(f"on_error {on_error!r}: give \"stop\" or \"skip\"")
        rank, world_size = distributed if distributed is not None else _torch_distributed()
        token_table, weights_file = weights_of_tokens(token_weights)
        settings = Settings(
            rows=_chosen(data, split, subset, ratio, rows),
            mixture=mixed if is_mixture else None,
            tokenizer=tokenizer,
            batch_size=natural("batch_size", batch_size, least=1),
            seed=natural("seed", seed),
            rank=natural("rank", rank),
            world_size=natural("world_size", world_size, least=1),
            transform=transform_json(transform),
            crops=crops_json(crops),
            studies=studies_tuple(studies),
            texts=texts_list(text),
            token_weights=token_table,
            token_weights_file=weights_file,
            shuffle=shuffle,
            drop_last=drop_last,
            boxes=boxes,
            masks=masks is not False,
            mask_name=masks if isinstance(masks, str) else None,
            skip_errors=on_error == "skip",
            threads=natural("threads", threads),
            prefetch=natural("prefetch", prefetch),
            memory=_memory,
            follows_torch=distributed is None,
        )
        self._start(datasets, settings)

    def _start(self, datasets: Sequence[Dataset], settings: Settings) -> None:
        self._datasets = datasets
        self._settings = settings
        self._core = _mrm.Loader(datasets, settings)
        self._is_positioned = False
        # Number of the current loop over it.
        self._loop = 0
        self._gave_batches = False
        _open_loaders.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._datasets, replace(self._settings, memory=None), self.state_dict())

    def __len__(self) -> int:
        """Batches of an epoch: the same for all ranks."""
        return self._core.batches

    @property
    def records(self) -> int:
        """Records of an epoch, over all ranks; with `studies`, studies."""
        return self._core.records

    @property
    def findings(self) -> list[str]:
        """Names of the columns of ``batch.labels``: the findings of the dataset; of a mixture those of the first one, then those
        that each further one adds. A dataset's records are NaN in findings that it does not have."""
        return self._core.findings

    @property
    def skipped(self) -> int:
        """Records that were left out so far because they could not be read (``on_error="skip"``)."""
        return self._core.skipped

    def _follow_torch(self) -> None:
        """Starts the threads anew, at the same position, where `torch.distributed` was initialized or ended meanwhile."""
        settings, (rank, world_size) = self._settings, _torch_distributed()
        if settings.follows_torch and (rank, world_size) != (settings.rank, settings.world_size):
            position = self._core.state()
            self._core.close()
            # Batches that the program still uses are in the memory.
            memory = None if self._gave_batches else settings.memory
            self._settings = replace(settings, rank=rank, world_size=world_size, memory=memory)
            self._core = _mrm.Loader(self._datasets, self._settings)
            self._core.seek(*position)

    def __iter__(self) -> Iterator[Batch]:
        self._follow_torch()
        epoch, batch, order, _ = self._core.state()
        if batch != 0 and not self._is_positioned:
            self._core.seek(epoch, 0, order, [])
        self._is_positioned = False
        self._loop += 1
        return _Epoch(self, epoch)

    def state_dict(self) -> LoaderState:
        """Position of the loader: the batch that comes next."""
        epoch, batch, order, drawn = self._core.state()
        state: LoaderState = {"epoch": epoch, "batch": batch, "order": order}
        if drawn:
            state["drawn"] = drawn
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from the position of a loader with the same records, batch size, seed and policies, of Python or Rust;
        the number of ranks and threads may be another, and so may the weights of a mixture: each dataset continues where it was.

        Raises:
            mrm.StateError: the state is not one, or belongs to another order.
        """
        try:
            values = [state[name] for name in ("epoch", "batch", "order")]
            epoch, batch, order = (natural("state", value) for value in values)
            drawn = [natural("state", value) for value in state.get("drawn", ())]
        except (TypeError, KeyError, ArgumentError):
            raise StateError("not the state of a loader: epoch, batch and order are numbers from 0 on") from None
        self._core.seek(epoch, batch, order, drawn)
        self._loop += 1
        self._is_positioned = True

    def set_epoch(self, epoch: int) -> None:
        """Begins the next loop at this epoch, as `DistributedSampler.set_epoch` does. A loader that is within this epoch keeps
        its position where `load_state_dict` set it.
        """
        now, _, order, _ = self._core.state()
        if natural("epoch", epoch) != now:
            self._core.seek(epoch, 0, order, [])
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
        self._loader._gave_batches = True
        return batch


def _restored(datasets: Sequence[Dataset], settings: Settings, state: LoaderState) -> Loader:
    """A copy of a loader, in another process or from a file."""
    loader = Loader.__new__(Loader)
    loader._start(datasets, settings)
    loader.load_state_dict(state)
    return loader


def _datasets(data: Dataset | Sequence[Dataset]) -> list[Dataset]:
    """One dataset or several as a list, checked."""
    datasets = [data] if isinstance(data, Dataset) else list(data) if isinstance(data, Sequence) else [data]
    for dataset in datasets:
        if not isinstance(dataset, Dataset):
            raise TypeError(f"data: give a dataset of mrm.open, not {type(dataset).__name__}")
    return datasets


def _chosen(data: Any, split: Any, subset: Any, ratio: Any, rows: Any) -> list[_mrm.Array | None]:
    """The rows that arguments choose of each dataset."""
    if isinstance(data, Dataset):
        return [chosen_rows(data, split, subset, ratio, rows)]
    return chosen_parts(data, split, subset, ratio, rows)


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
