"""PyTorch: datasets for `torch.utils.data.DataLoader`, Lightning, Accelerate and the Hugging Face Trainer.

```python
import mrm
import torch
from mrm.torch import MrmDataset

data = MrmDataset(mrm.open("data/mimic"), split="main", subset="train", batch_size=64,
                  transform=mrm.transforms.pretrain(448), text=mrm.Text())
loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=0)
```
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.dlpack import from_dlpack

from . import _mrm
from ._mrm import Array, Batch, BatchText, Dataset, Split
from .errors import ArgumentError
from .loader import Loader, LoaderState
from .settings import (
    Rows,
    Settings,
    Studies,
    Subset,
    Text,
    chosen_rows,
    crops_json,
    natural,
    studies_tuple,
    texts_list,
    transform_json,
    weights_of_tokens,
    with_joins,
)
from .transforms import Transform

# Pinned buffers for batches that the program still uses while others are made.
_IN_USE = 4


def tensors(batch: Batch) -> dict[str, Any]:
    """The arrays of a batch as tensors of the same memory, by their names in `mrm.Batch`; absent ones are left out.

    `images`, `labels`, `rows`; `sources` of a mixture, `has_image` where a dataset of it has no images; `view_mask`, `view_codes`,
    `view_rows`, `box_slots` of studies; `token_ids`, `target_ids`, `attention_mask` with texts, and `token_weights` where
    tokens are weighted; `texts` where there are several, a list with a dictionary of these four for each; `masks`; `boxes`,
    `box_records` and the list `box_labels`; `crops`, a list with a tensor for each group.
    """
    arrays: dict[str, Array | None] = {
        "images": batch.images,
        "labels": batch.labels,
        "rows": batch.rows,
        "sources": batch.sources,
        "has_image": batch.has_image,
        "view_mask": batch.view_mask,
        "view_codes": batch.view_codes,
        "view_rows": batch.view_rows,
        "token_ids": batch.token_ids,
        "target_ids": batch.target_ids,
        "attention_mask": batch.attention_mask,
        "token_weights": batch.token_weights,
        "masks": batch.masks,
        "boxes": batch.boxes,
        "box_records": batch.box_records,
        "box_slots": batch.box_slots,
    }
    found: dict[str, Any] = {name: from_dlpack(array) for name, array in arrays.items() if array is not None}
    if len(batch.texts) > 1:
        found["texts"] = [_text(text) for text in batch.texts]
    if batch.box_labels is not None:
        found["box_labels"] = batch.box_labels
    if batch.crops:
        found["crops"] = [from_dlpack(array) for array in batch.crops]
    return found


def _text(text: BatchText) -> dict[str, Any]:
    arrays = {
        "token_ids": text.token_ids,
        "target_ids": text.target_ids,
        "attention_mask": text.attention_mask,
        "token_weights": text.token_weights,
    }
    return {name: from_dlpack(array) for name, array in arrays.items() if array is not None}


class MrmDataset(IterableDataset[dict[str, Any]]):
    """Whole batches as dictionaries of tensors (`tensors`).

    It is a loader itself: use it as it is, or in `DataLoader(dataset, batch_size=None, num_workers=0)`; its batches are made
    by threads, so that worker processes would only copy them. `state_dict` and `load_state_dict` are those of `mrm.Loader`;
    torchdata's `StatefulDataLoader` and Lightning call them.

    Args:
        data: The dataset, or its path or URL.
        pin_memory: Writes images into pinned memory, from which a GPU copies faster (``non_blocking=True``).
        arguments: Those of `mrm.Loader`.
    """

    def __init__(
        self,
        data: Dataset | str | os.PathLike[str] | Sequence[Dataset | str | os.PathLike[str]],
        *,
        pin_memory: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        opened: Dataset | list[Dataset]
        if isinstance(data, (Dataset, str, os.PathLike)):
            opened = _opened(data)
        else:
            opened = [_opened(part) for part in data]
        if pin_memory:
            arguments["_memory"] = _pinned(opened, arguments)
        self.loader = Loader(opened, **arguments)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if get_worker_info() is not None:
            raise ArgumentError("MrmDataset makes batches by threads: use DataLoader(..., batch_size=None, num_workers=0)")
        return map(tensors, self.loader)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.loader)

    def state_dict(self) -> LoaderState:
        """Position: the batch that comes next."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a position."""
        self.loader.load_state_dict(state)

    def set_epoch(self, epoch: int) -> None:
        """Begins the next loop at this epoch."""
        self.loader.set_epoch(epoch)


class MrmMapDataset(TorchDataset[dict[str, Any]]):
    """Single samples at any position, for samplers of one's own and for any number of worker processes.

    `dataset[i]` is a dictionary of tensors: `image` `float32 [1, S, S]`, `label` `float32 [C]`, `row`; with texts
    `token_ids`, `target_ids`, `attention_mask` `int64 [L]`, and `token_weights` `float32 [L]` where tokens are weighted; with
    several texts, `texts`, a list with a dictionary of these four for each; `mask` `uint8 [S, S]`; `boxes` `float32 [N, 4]`;
    `crops`, a list of `float32 [n, 1, S, S]`. With `studies`, images, masks and crops have the dimension `V+P` first, and there
    are `view_mask` `uint8 [V+P]`, `view_codes`, `view_rows` `int64 [V+P]` and `box_slots` `int64 [N]`. Augmentation and masks
    depend on the seed, the epoch and the record, as in `mrm.Loader`.

    A batch of `mrm.Loader` is several times faster than a batch of these.

    Args:
        data: The dataset, or its path or URL.
        split: A split or its name; all records without one.
        subset: ``train``, ``validate`` or ``test``, with `split`.
        ratio: In percent: of the training subset, the records whose labels may be seen.
        rows: Row numbers or record ids, in place of a split.
        seed: Seed of the augmentation and the masking.
        transform: Image transform; default ``mrm.transforms.evaluate(224)``.
        crops, studies, text, token_weights, join, boxes, masks: As in `mrm.Loader`.
    """

    def __init__(
        self,
        data: Dataset | str | os.PathLike[str],
        *,
        split: Split | str | None = None,
        subset: Subset | None = None,
        ratio: float | None = None,
        rows: Rows | None = None,
        seed: int = 0,
        transform: Transform | None = None,
        crops: Sequence[tuple[Transform, int]] = (),
        studies: Studies | None = None,
        text: Text | Sequence[Text] | None = None,
        token_weights: Mapping[str, float] | str | os.PathLike[str] | None = None,
        join: str | Sequence[str] = (),
        boxes: bool = False,
        masks: bool | str = False,
    ) -> None:
        [self.data] = with_joins([_opened(data)], join)
        self.epoch = 0
        token_table, weights_file = weights_of_tokens(token_weights)
        self._settings = Settings(
            rows=[chosen_rows(self.data, split, subset, ratio, rows)],
            batch_size=1,
            seed=natural("seed", seed),
            rank=0,
            world_size=1,
            transform=transform_json(transform),
            crops=crops_json(crops),
            studies=studies_tuple(studies),
            texts=texts_list(text),
            token_weights=token_table,
            token_weights_file=weights_file,
            shuffle=False,
            drop_last=False,
            boxes=boxes,
            masks=masks is not False,
            mask_name=masks if isinstance(masks, str) else None,
            skip_errors=False,
            threads=1,
            prefetch=1,
        )
        self._access: tuple[int, _mrm.RandomAccess] | None = None
        self._here()

    def _here(self) -> _mrm.RandomAccess:
        """What makes the samples in this process."""
        if self._access is None or self._access[0] != os.getpid():
            self._access = os.getpid(), _mrm.RandomAccess(self.data, self._settings)
        return self._access[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_access": None}

    def set_epoch(self, epoch: int) -> None:
        """Chooses the augmentation and masks of this epoch; worker processes that run already do not see it."""
        self.epoch = natural("epoch", epoch)

    def __len__(self) -> int:
        """Number of samples."""
        return self._here().batches

    def __getitem__(self, index: int) -> dict[str, Any]:
        length = len(self)
        position = index + length if index < 0 else index
        if not 0 <= position < length:
            raise IndexError(f"sample {index} of {length}")
        batch = self._here().batch(self.epoch, position)
        sample: dict[str, Any] = {}
        sample |= {name: from_dlpack(array)[0] for name, array in _single(batch).items() if array is not None}
        if batch.boxes is not None:
            sample["boxes"] = from_dlpack(batch.boxes)
        if batch.box_slots is not None:
            sample["box_slots"] = from_dlpack(batch.box_slots)
        if len(batch.texts) > 1:
            texts = map(_text, batch.texts)
            sample["texts"] = [{name: values[0] for name, values in text.items()} for text in texts]
        if batch.crops:
            sample["crops"] = [from_dlpack(array)[0] for array in batch.crops]
        return sample


def _single(batch: Batch) -> dict[str, Array | None]:
    return {
        "image": batch.images,
        "label": batch.labels,
        "row": batch.rows,
        "token_ids": batch.token_ids,
        "target_ids": batch.target_ids,
        "attention_mask": batch.attention_mask,
        "token_weights": batch.token_weights,
        "mask": batch.masks,
        "view_mask": batch.view_mask,
        "view_codes": batch.view_codes,
        "view_rows": batch.view_rows,
    }


def _opened(data: Dataset | str | os.PathLike[str]) -> Dataset:
    return data if isinstance(data, Dataset) else Dataset(data)


def _pinned(data: Dataset | Sequence[Dataset], arguments: dict[str, Any]) -> tuple[int, int, int, Any]:
    """Pinned memory for the images and crops of the batches that are made ahead or in use: address, buffers, floats of each,
    tensor.
    """
    threads = arguments.get("threads") or len(os.sched_getaffinity(0))
    count = (arguments.get("prefetch") or 2 * threads) + _IN_USE
    transform = arguments.get("transform")
    size = transform.size if isinstance(transform, Transform) else 224
    pixels = size * size + sum(number * crop.size * crop.size for crop, number in arguments.get("crops", ()))
    records = natural("batch_size", arguments.get("batch_size", 64))
    if isinstance(data, Dataset) and arguments.get("epoch_records") is None:
        records = min(records, len(data))
    studies = arguments.get("studies")
    slots = studies.views + studies.prior if isinstance(studies, Studies) else 1
    floats = records * slots * pixels
    memory = torch.empty((count, floats), dtype=torch.float32, pin_memory=True)
    return memory.data_ptr(), count, floats, memory
