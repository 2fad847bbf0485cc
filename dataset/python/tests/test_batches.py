"""Arrays of batches: no copy, right shapes, memory that lives as long as it is used and is then used again."""

from __future__ import annotations

import gc
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from support import digest

import mrm

TRANSFORM = mrm.transforms.evaluate(32)


@pytest.fixture
def batch(data: mrm.Dataset) -> mrm.Batch:
    return next(iter(mrm.Loader(data, batch_size=6, transform=TRANSFORM, text=mrm.Text(tokens=12))))


def address(array: object) -> int:
    return int(np.asarray(array).__array_interface__["data"][0])


def test_shapes_and_types(batch: mrm.Batch) -> None:
    arrays = {
        "images": ((6, 1, 32, 32), "float32"),
        "labels": ((6, 14), "float32"),
        "token_ids": ((6, 12), "int64"),
        "target_ids": ((6, 12), "int64"),
        "attention_mask": ((6, 12), "int64"),
        "rows": ((6,), "int64"),
    }
    for name, (shape, dtype) in arrays.items():
        array = getattr(batch, name)
        assert (array.shape, array.dtype, len(array)) == (shape, dtype, 6)
        assert (array.numpy().shape, str(array.numpy().dtype)) == (shape, dtype)
    assert (len(batch), batch.masks, batch.boxes, batch.box_labels, batch.skipped) == (6, None, None, None, [])
    assert batch.with_report == [row for row in range(6) if batch.attention_mask.numpy()[row, 1] == 1]
    assert "6 images of 32×32" in repr(batch)


def test_numpy_and_torch_use_the_memory_of_the_batch(batch: mrm.Batch) -> None:
    torch = pytest.importorskip("torch")
    array = batch.images
    views = [np.asarray(array), np.from_dlpack(array), array.numpy(), torch.from_dlpack(array)]
    assert len({address(view) for view in views}) == 1
    views[0][0, 0, 0, 0] = 123.0
    assert all(float(view[0, 0, 0, 0]) == 123.0 for view in views)
    assert float(batch.images.numpy()[0, 0, 0, 0]) == 123.0


def test_capsules_are_versioned_where_the_consumer_knows_them(batch: mrm.Batch) -> None:
    labels = batch.labels
    assert "dltensor_versioned" in repr(labels.__dlpack__(max_version=(1, 0)))
    assert "dltensor_versioned" in repr(labels.__dlpack__(max_version=(1, 3), stream=None, copy=False))
    assert '"dltensor"' in repr(labels.__dlpack__())
    assert '"dltensor"' in repr(labels.__dlpack__(max_version=(0, 8)))
    assert labels.__dlpack_device__() == (1, 0)
    for wrong in ({"stream": 1}, {"dl_device": (2, 0)}, {"copy": True}):
        with pytest.raises(BufferError):
            labels.__dlpack__(**wrong)


def test_rows_of_a_split_are_read_only(data: mrm.Dataset) -> None:
    rows = data.split("main").rows("train")
    assert not np.asarray(rows).flags.writeable and not np.from_dlpack(rows).flags.writeable
    with pytest.raises(BufferError, match="must not be written to"):
        rows.__dlpack__()
    assert np.asarray(pickle.loads(pickle.dumps(rows))).tolist() == np.asarray(rows).tolist()


def test_views_outlive_batch_loader_and_dataset(mimic: Path) -> None:
    data = mrm.open(mimic)
    loader = mrm.Loader(data, batch_size=6, transform=TRANSFORM, seed=3)
    batch = next(iter(loader))
    view, kept = batch.images.numpy(), batch.images.numpy().copy()
    loader.close()
    del batch, loader, data
    gc.collect()
    assert np.array_equal(view, kept)


def test_batches_stay_the_same_while_later_ones_are_drawn(data: mrm.Dataset) -> None:
    loader = mrm.Loader(data, batch_size=4, transform=TRANSFORM, prefetch=2, threads=2)
    held = [(batch, digest(batch)) for _ in range(3) for batch in loader]
    assert len({address(batch.images) for batch, _ in held}) == len(held) == 42
    assert all(digest(batch) == before for batch, before in held)


def test_memory_is_used_again_once_nothing_uses_it_and_not_before(data: mrm.Dataset) -> None:
    loader = mrm.Loader(data, batch_size=4, transform=TRANSFORM, prefetch=2, threads=1)
    batches = iter(loader)
    first = next(batches)
    view, place, before = first.labels.numpy(), address(first.images), first.images.numpy().copy()
    images = first.images
    del first
    seen = set()
    for _ in range(3):
        for batch in loader:
            seen.add(address(batch.images))
    # One small array keeps the memory of its batch.
    assert place not in seen and np.array_equal(images.numpy(), before)
    del view, images
    gc.collect()
    again = {address(batch.images) for _ in range(3) for batch in loader}
    assert place in again
    assert len(seen | again) <= 8


def test_untaken_capsules_and_dropped_batches_free_their_memory(data: mrm.Dataset) -> None:
    loader = mrm.Loader(data, batch_size=4, transform=TRANSFORM, threads=1)
    array = next(iter(loader)).images
    before = resident()
    for _ in range(100_000):
        array.__dlpack__(max_version=(1, 0))
        array.__dlpack__()
    for _ in range(20):
        for batch in loader:
            np.from_dlpack(batch.images)
    assert resident() - before < 8 << 20


def test_reference_counts_of_arrays_end(batch: mrm.Batch) -> None:
    array = batch.images
    count = sys.getrefcount(array)
    view = np.asarray(array)
    assert sys.getrefcount(array) > count
    del view
    assert sys.getrefcount(array) == count


def resident() -> int:
    """Memory of this process in bytes."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096
