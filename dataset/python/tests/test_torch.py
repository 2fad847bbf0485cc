"""PyTorch's datasets."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from support import python_batches

import mrm

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402

from mrm.torch import MrmDataset, MrmMapDataset, tensors  # noqa: E402

TRANSFORM = mrm.transforms.pretrain(32)
ARGUMENTS: dict[str, Any] = {"batch_size": 7, "seed": 3, "transform": TRANSFORM, "text": mrm.Text(tokens=16)}


def test_batches_of_a_data_loader_are_those_of_the_loader(mimic: Path, data: mrm.Dataset) -> None:
    dataset = MrmDataset(mimic, split="main", subset="train", **ARGUMENTS)
    batches = list(DataLoader(dataset, batch_size=None, num_workers=0))
    expected = [tensors(batch) for batch in mrm.Loader(data, split="main", subset="train", **ARGUMENTS)]
    assert len(batches) == len(dataset) == len(expected) == 6
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        for name, values in batch.items():
            assert torch.equal(torch.nan_to_num(values, 9), torch.nan_to_num(other[name], 9)), name
    assert set(batches[0]) == {"images", "labels", "rows", "token_ids", "target_ids", "attention_mask"}


def test_worker_processes_are_refused_with_a_sentence(data: mrm.Dataset) -> None:
    dataset = MrmDataset(data, batch_size=7, transform=TRANSFORM)
    with pytest.raises(Exception, match="num_workers=0"):
        next(iter(DataLoader(dataset, batch_size=None, num_workers=1)))
    assert len(next(iter(dataset))["rows"]) == 7


def test_masks_and_boxes_are_tensors(siim: Path, rsna: Path) -> None:
    masks = next(iter(MrmDataset(siim, batch_size=8, masks=True, transform=TRANSFORM)))["masks"]
    assert masks.shape == (8, 32, 32) and masks.dtype == torch.uint8
    batch = next(iter(MrmDataset(rsna, batch_size=20, boxes=True, transform=TRANSFORM)))
    assert batch["boxes"].shape == (len(batch["box_records"]), 4) and len(batch["box_labels"]) == len(batch["boxes"])


def test_pixels_are_written_into_memory_of_torch(data: mrm.Dataset) -> None:
    memory = torch.zeros(3, 7 * 32 * 32)
    place = (memory.data_ptr(), 3, memory.shape[1], memory)
    loader = mrm.Loader(data, threads=1, prefetch=1, _memory=place, **ARGUMENTS)
    expected = python_batches(mrm.Loader(data, **ARGUMENTS), 16)
    assert python_batches(loader, 16) == expected
    inside = range(memory.data_ptr(), memory.data_ptr() + memory.numel() * 4)
    held = [tensors(batch)["images"] for batch in loader]
    # Three batches have a place there, the others one of their own.
    assert sum(images.data_ptr() in inside for images in held) == 3
    assert memory.abs().sum() > 0


def test_pinned_memory_needs_cuda(data: mrm.Dataset) -> None:
    if torch.cuda.is_available():
        assert next(iter(MrmDataset(data, pin_memory=True, **ARGUMENTS)))["images"].is_pinned()
    else:
        with pytest.raises(RuntimeError, match="(?i)pin|cuda|nvidia|accelerator"):
            MrmDataset(data, pin_memory=True, **ARGUMENTS)


def test_single_samples_are_those_of_batches(data: mrm.Dataset) -> None:
    samples = MrmMapDataset(data, split="main", subset="train", seed=3, transform=TRANSFORM, text=mrm.Text(tokens=16))
    batches = {}
    for epoch in range(2):
        for batch in map(tensors, mrm.Loader(data, split="main", subset="train", **ARGUMENTS)) if epoch == 0 else ():
            for at, row in enumerate(batch["rows"].tolist()):
                batches[row] = (batch["images"][at], batch["token_ids"][at], batch["labels"][at])
    assert len(samples) == len(batches) == 37
    for sample in (samples[at] for at in range(37)):
        image, ids, labels = batches[int(sample["row"])]
        assert torch.equal(sample["image"], image) and torch.equal(sample["token_ids"], ids)
        assert torch.equal(sample["label"].nan_to_num(9), labels.nan_to_num(9))
    first = samples[0]["image"]
    samples.set_epoch(1)
    assert not torch.equal(samples[0]["image"], first)
    assert torch.equal(samples[-1]["row"], samples[36]["row"])
    with pytest.raises(IndexError, match="sample 37 of 37"):
        samples[37]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_make_the_same_samples(data: mrm.Dataset, method: str) -> None:
    samples = MrmMapDataset(data, seed=3, transform=TRANSFORM, text=mrm.Text(tokens=16))
    own = list(DataLoader(samples, batch_size=9, num_workers=0))
    others = list(DataLoader(samples, batch_size=9, num_workers=2, multiprocessing_context=method))
    assert len(own) == len(others) == 6
    for batch, other in zip(own, others, strict=True):
        assert all(torch.equal(batch[name].nan_to_num(9), other[name].nan_to_num(9)) for name in batch)
    copy = pickle.loads(pickle.dumps(samples))
    assert torch.equal(copy[5]["image"], samples[5]["image"])
