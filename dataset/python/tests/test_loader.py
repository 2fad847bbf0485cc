"""The loader: the same batches and the same state as the Rust loader's, for any threads and ranks."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import digest, python_batches, rust_batches

import mrm

TRANSFORM = mrm.transforms.pretrain(32)
SETTINGS: dict[str, Any] = {"batch_size": 8, "seed": 2**63 + 5, "boxes": True, "masks": True}
TEXT = mrm.Text(tokens=20, mask_ratio=0.4)


def rust(location: Path, batches: int, **settings: Any) -> tuple[list[str], dict[str, int]]:
    common = {"seed": 2**63 + 5, "tokens": 20, "mask_ratio": 0.4, "transform": json.loads(TRANSFORM.to_json())}
    return rust_batches(location, batches, **{**common, **settings})


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_batches_are_those_of_the_rust_loader(mimic: Path, data: mrm.Dataset, threads: int) -> None:
    loader = mrm.Loader(
        data, split="main", subset="train", ratio=10, transform=TRANSFORM, text=TEXT, threads=threads, **SETTINGS
    )
    expected, state = rust(mimic, 7, split="main", subset="train", ratio=10)
    assert python_batches(loader, 7) == expected
    assert loader.state_dict() == state
    assert (len(loader), loader.records, loader.skipped) == (2, 13, 0)


@pytest.mark.parametrize(
    "transform",
    [
        mrm.transforms.finetune(24),
        mrm.transforms.evaluate(40),
        mrm.transforms.Transform(mrm.transforms.Pad(), 32, filter="lanczos"),
        mrm.transforms.Transform(mrm.transforms.Stretch(), 32, flip=1.0, mean=0.1, std=0.3),
    ],
)
def test_masks_and_boxes_are_those_of_the_rust_loader(
    siim: Path, rsna: Path, transform: mrm.transforms.Transform
) -> None:
    for location in (siim, rsna):
        loader = mrm.Loader(mrm.open(location), transform=transform, **SETTINGS)
        batches = python_batches(loader, 4)
        assert batches == rust(location, 4, tokens=None, transform=json.loads(transform.to_json()))[0]
    kinds = [next(iter(mrm.Loader(mrm.open(location), transform=transform, **SETTINGS))) for location in (siim, rsna)]
    assert kinds[0].masks is not None and 1 in kinds[0].masks.numpy()
    assert kinds[1].boxes is not None and len(kinds[1].boxes) > 0
    named = next(iter(mrm.Loader(mrm.open(siim), transform=transform, **{**SETTINGS, "masks": "pneumothorax"})))
    assert named.masks is not None and np.array_equal(named.masks.numpy(), kinds[0].masks.numpy())
    with pytest.raises(mrm.Error, match="no masks `pneumotorax`; did you mean `pneumothorax`"):
        mrm.Loader(mrm.open(siim), masks="pneumotorax")


def test_a_run_continues_in_python_and_in_rust_with_other_ranks(mimic: Path, data: mrm.Dataset) -> None:
    whole, _ = rust(mimic, 14)
    first = mrm.Loader(data, transform=TRANSFORM, text=TEXT, **SETTINGS)
    assert python_batches(first, 3) == whole[:3]
    # JSON keeps all 64 bits.
    state = json.loads(json.dumps(first.state_dict()))
    continued, state = rust(mimic, 5, state=state, threads=1)
    assert continued == whole[3:8]
    second = mrm.Loader(data, transform=TRANSFORM, text=TEXT, threads=3, **SETTINGS)
    second.load_state_dict(state)
    assert python_batches(second, 6) == whole[8:14]
    # Three ranks continue the run of one: their shares, taken in turn, are the global batch.
    shares = []
    for rank in range(3):
        part = mrm.Loader(data, transform=TRANSFORM, text=TEXT, distributed=(rank, 3), **SETTINGS)
        part.load_state_dict(state)
        shares.append(next(iter(part)).rows.numpy())
    one = mrm.Loader(data, transform=TRANSFORM, text=TEXT, **SETTINGS)
    one.load_state_dict(state)
    rows = next(iter(one)).rows.numpy()
    assert [shares[at % 3][at // 3] for at in range(len(rows))] == list(rows)


def test_each_loop_is_an_epoch(data: mrm.Dataset) -> None:
    loader = mrm.Loader(data, batch_size=20, transform=TRANSFORM)
    epochs = [[(batch.epoch, batch.number, digest(batch)) for batch in loader] for _ in range(2)]
    assert [[place[:2] for place in epoch] for epoch in epochs] == [[(0, 0), (0, 1), (0, 2)], [(1, 0), (1, 1), (1, 2)]]
    assert loader.state_dict()["epoch"] == 2
    again = mrm.Loader(data, batch_size=20, transform=TRANSFORM)
    # All batches are taken, but the end of the loop is not seen; the next loop is the next epoch.
    assert [digest(batch) for _, batch in zip(range(3), again)] == [place[2] for place in epochs[0]]
    assert [digest(batch) for batch in again] == [place[2] for place in epochs[1]]


def test_a_loop_that_was_left_begins_its_epoch_anew_and_a_loaded_state_continues(data: mrm.Dataset) -> None:
    loader = mrm.Loader(data, batch_size=10, transform=TRANSFORM)
    for batch in loader:
        if batch.number == 2:
            break
    state = loader.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 3)
    assert [batch.number for batch in loader] == list(range(6))
    loader.load_state_dict(state)
    loader.set_epoch(0)
    assert [(batch.epoch, batch.number) for batch in loader] == [(0, 3), (0, 4), (0, 5)]
    loader.set_epoch(7)
    assert [(batch.epoch, batch.number) for batch in loader] == [(7, number) for number in range(6)]
    # A state that was loaded is used once.
    loader.load_state_dict(state)
    next(iter(loader))
    assert next(iter(loader)).number == 0


def test_an_older_loop_ends_when_another_begins(data: mrm.Dataset) -> None:
    loader = mrm.Loader(data, batch_size=10, transform=TRANSFORM)
    first = iter(loader)
    next(first)
    second = iter(loader)
    with pytest.raises(mrm.Error, match="this loop ended"):
        next(first)
    assert next(second).number == 0


def test_rows_are_numbers_or_record_ids(data: mrm.Dataset) -> None:
    rows = [5, 3, 3, 53]
    by_number = mrm.Loader(data, rows=rows, shuffle=False, batch_size=4, transform=TRANSFORM)
    by_id = mrm.Loader(data, rows=[data.record_id(row) for row in rows], shuffle=False, batch_size=4, transform=TRANSFORM)
    by_array = mrm.Loader(data, rows=np.array(rows), shuffle=False, batch_size=4, transform=TRANSFORM)
    batches = [next(iter(loader)) for loader in (by_number, by_id, by_array)]
    assert [list(batch.rows.numpy()) for batch in batches] == [rows] * 3
    assert batches[0].record_ids == [data[row].record_id for row in rows]
    # Copies of a record have augmentations of their own.
    images = mrm.Loader(data, rows=[3, 3], batch_size=2, transform=TRANSFORM)
    pixels = next(iter(images)).images.numpy()
    assert not np.array_equal(pixels[0], pixels[1])


def test_a_pickled_loader_continues(data: mrm.Dataset) -> None:
    loader = mrm.Loader(data, split="main", subset="train", batch_size=5, transform=TRANSFORM, text=TEXT)
    taken = iter(loader)
    next(taken)
    copy = pickle.loads(pickle.dumps(loader))
    assert digest(next(iter(copy))) == digest(next(taken))


def test_the_ranks_of_torch_distributed_are_found(data: mrm.Dataset, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert mrm.Loader(data, transform=TRANSFORM)._settings.world_size == 1
    finally:
        torch.distributed.destroy_process_group()
    loader = mrm.Loader(data, batch_size=6, distributed=(1, 2), transform=TRANSFORM)
    assert len(next(iter(loader))) == 3


def share(location: Path, store: str, rank: int) -> list[int]:
    """Rows of a process that makes its loader before it joins the others."""
    import torch

    loader = mrm.Loader(mrm.open(location), batch_size=6, shuffle=False, transform=TRANSFORM)
    next(iter(loader))
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(store, 2), rank=rank, world_size=2)
    rows = list(next(iter(loader)).rows.numpy().tolist())
    torch.distributed.destroy_process_group()
    return rows


def test_a_loader_follows_torch_distributed_that_is_initialized_after_it(mimic: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        shares = pool.starmap(share, [(mimic, str(tmp_path / "store"), rank) for rank in range(2)], chunksize=1)
    assert shares == [[0, 2, 4], [1, 3, 5]]
