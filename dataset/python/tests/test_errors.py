"""Bad input: each has its class and its sentence, and nothing else breaks."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import python_batches

import mrm

TRANSFORM = mrm.transforms.evaluate(32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, mrm.ArgumentError, "batch_size 0: give a number from 1 on"),
        ({"batch_size": "4"}, TypeError, "batch_size: give a number, not str"),
        ({"seed": -1}, mrm.ArgumentError, "seed -1"),
        ({"seed": 1 << 64}, mrm.ArgumentError, "seed 18446744073709551616"),
        ({"seed": 1.5}, TypeError, "seed: give a number, not float"),
        ({"threads": 5000}, mrm.ArgumentError, "5000 threads"),
        ({"distributed": (2, 2)}, mrm.ArgumentError, "rank below world_size"),
        ({"distributed": (0, 0)}, mrm.ArgumentError, "world_size 0"),
        ({"on_error": "ignore"}, mrm.ArgumentError, 'give "stop" or "skip"'),
        ({"transform": "pretrain"}, TypeError, "give one of mrm.transforms, not str"),
        ({"split": "other", "subset": "train"}, mrm.SplitError, r"there is none of this name \(there are: main\)"),
        ({"split": "main"}, mrm.ArgumentError, "a split needs a subset"),
        ({"split": "main", "subset": "training"}, mrm.ArgumentError, "no subset `training`: give train, validate or test"),
        ({"split": "main", "subset": "train", "ratio": 5}, mrm.SplitError, "5%"),
        ({"split": "main", "subset": "test", "ratio": 1}, mrm.ArgumentError, "a ratio applies to training records"),
        ({"split": "main", "subset": "train", "ratio": 101}, mrm.ArgumentError, "101"),
        ({"split": "main", "subset": "train", "rows": [1]}, mrm.ArgumentError, "either a split or rows"),
        ({"subset": "train"}, mrm.ArgumentError, "parts of a split"),
        ({"rows": []}, mrm.ArgumentError, "no record to load"),
        ({"rows": [54]}, IndexError, "record 54 of a dataset of 54 records"),
        ({"rows": "5"}, TypeError, "not a text"),
        ({"rows": [1.5]}, TypeError, "number of a record or its record_id"),
        ({"rows": ["mimic-cxr/nothing"]}, mrm.UnknownRecordError, "no record `mimic-cxr/nothing`"),
        ({"batch_size": 100, "drop_last": True}, mrm.ArgumentError, "fewer records than one batch"),
    ],
)
def test_arguments_of_a_loader(data: mrm.Dataset, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mrm.Loader(data, **arguments)


def test_arguments_of_texts_and_transforms(data: mrm.Dataset, rsna: Path) -> None:
    with pytest.raises(mrm.ArgumentError, match="mask_ratio 1.5: give a share from 0 to 1"):
        mrm.Text(mask_ratio=1.5)
    with pytest.raises(mrm.ArgumentError, match="tokens 0: give a number from 1 on"):
        mrm.Text(tokens=0)
    for make, message in (
        (lambda: mrm.transforms.evaluate(0), "size 0"),
        (lambda: mrm.transforms.Transform(mrm.transforms.Pad(), 32, filter="nearest"), "filter 'nearest'"),
        (lambda: mrm.transforms.Transform(mrm.transforms.Pad(), 32, flip=2), "flip 2"),
        (lambda: mrm.transforms.Transform(mrm.transforms.Pad(), 32, std=0), "std 0"),
        (lambda: mrm.transforms.Transform(mrm.transforms.RandomResized((0.5, 0.1)), 32), r"scale \(0.5, 0.1\)"),
    ):
        with pytest.raises(mrm.ArgumentError, match=message):
            make()
    with pytest.raises(mrm.ArgumentError, match="this dataset has no reports"):
        mrm.Loader(mrm.open(rsna), text=mrm.Text())
    with pytest.raises(TypeError, match="give a dataset of mrm.open, not str"):
        mrm.Loader("data")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "not the state of a loader"),
        ({"epoch": 0, "batch": 0}, "not the state of a loader"),
        ({"epoch": -1, "batch": 0, "order": 0}, "not the state of a loader"),
        ({"epoch": "0", "batch": 0, "order": 0}, "not the state of a loader"),
        ([0, 0, 0], "not the state of a loader"),
        ({"epoch": 0, "batch": 7, "order": 0}, "batch 7 of epoch 0, but an epoch has 7 batches"),
        ({"epoch": 1 << 63, "batch": 0, "order": 0}, "batch 0 of epoch 9223372036854775808"),
        ({"epoch": 0, "batch": 0, "order": 5}, "it belongs to other records, or another batch size, seed or policy"),
    ],
)
def test_states(data: mrm.Dataset, state: Any, message: str) -> None:
    loader = mrm.Loader(data, batch_size=8, transform=TRANSFORM)
    expected = python_batches(loader, 3)
    with pytest.raises(mrm.StateError, match=message):
        loader.load_state_dict(state)
    # The loader stays where it was.
    assert loader.state_dict()["batch"] == 3
    assert python_batches(loader, 3) == expected


def test_a_state_of_other_records_is_refused(data: mrm.Dataset) -> None:
    state = mrm.Loader(data, split="main", subset="train", batch_size=8).state_dict()
    for arguments in ({"subset": "validate", "batch_size": 4}, {"subset": "train", "batch_size": 9},
                      {"subset": "train", "batch_size": 8, "seed": 1}, {"subset": "train", "batch_size": 8, "shuffle": False}):
        with pytest.raises(mrm.StateError, match="it belongs to other records"):
            mrm.Loader(data, split="main", **arguments).load_state_dict(state)


def test_locations(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(mrm.NotADatasetError, match="does not exist") as error:
        mrm.open(tmp_path / "nothing")
    assert error.value.path == str(tmp_path / "nothing")
    with pytest.raises(mrm.NotADatasetError, match=f"did you mean {copy}"):
        mrm.open(copy.parent)
    with pytest.raises(mrm.StoreError, match="not the address of a dataset"):
        mrm.open("ftp://host/data")
    manifest = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps({**manifest, "format_version": 99}))
    with pytest.raises(mrm.FormatVersionError, match="format version 99"):
        mrm.open(copy)
    (copy / "dataset.json").write_text("{")
    with pytest.raises(mrm.DamagedError, match="dataset.json"):
        mrm.open(copy)
    for argument in (None, 5, b"data"):
        with pytest.raises(TypeError):
            mrm.open(argument)  # type: ignore[arg-type]


def test_every_error_is_one_of_mrm_and_can_be_pickled(data: mrm.Dataset) -> None:
    with pytest.raises(mrm.Error) as error:
        data["nothing"]
    copy = pickle.loads(pickle.dumps(error.value))
    assert type(copy) is mrm.UnknownRecordError and str(copy) == str(error.value)
    assert isinstance(copy, KeyError)
    with pytest.raises(IndexError):
        data[54]
    with pytest.raises(TypeError, match="indexed by the number of a record or its record_id"):
        data[1.5]  # type: ignore[index]


def test_a_damaged_shard_is_named_and_can_be_skipped(copy: Path) -> None:
    shard = sorted(copy.glob("shards/*.parquet"))[1]
    content = bytearray(shard.read_bytes())
    for position in range(1000, 20_000, 997):
        content[position] ^= 1
    shard.write_bytes(content)
    loader = mrm.Loader(mrm.open(copy), batch_size=6, shuffle=False, transform=TRANSFORM)
    batches, numbers, errors = iter(loader), [], []
    while True:
        try:
            numbers.append(next(batches).number)
        except StopIteration:
            break
        except mrm.DamagedError as error:
            errors.append(error)
    assert errors and all("part-00001.parquet" in str(error) and error.path for error in errors)
    # The loop goes on after a batch that cannot be made.
    assert len(numbers) + len(errors) == 9
    skipping = mrm.Loader(mrm.open(copy), batch_size=6, shuffle=False, transform=TRANSFORM, on_error="skip")
    records = [(len(batch), batch.skipped) for batch in skipping]
    assert sum(length for length, _ in records) == 54 - skipping.skipped
    assert [sentence for _, sentences in records for sentence in sentences] and skipping.skipped > 0


def test_a_shard_that_is_replaced_while_it_is_read(mimic: Path, copy: Path, rsna: Path) -> None:
    data = mrm.open(copy)
    loader = mrm.Loader(data, batch_size=6, shuffle=False, transform=TRANSFORM, threads=1, prefetch=1)
    batches = iter(loader)
    next(batches)
    shutil.copyfile(sorted(rsna.glob("shards/*.parquet"))[0], copy / "shards/part-00003.parquet")
    with pytest.raises(mrm.DamagedError, match="part-00003.parquet"):
        for _ in batches:
            pass
    with pytest.raises(mrm.DamagedError):
        data[53]
    assert data[0].record_id == mrm.open(mimic)[0].record_id


def test_an_exception_in_the_loop_leaves_the_loader_usable(data: mrm.Dataset) -> None:
    loader = mrm.Loader(data, batch_size=6, transform=TRANSFORM)
    with pytest.raises(ZeroDivisionError):
        for batch in loader:
            assert 1 / (batch.number - 2)
    assert [batch.number for batch in loader] == list(range(9))
