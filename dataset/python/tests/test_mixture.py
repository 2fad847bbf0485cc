"""Mixtures: the batches and states of the Rust loader, each record with its dataset, ranks, processes and other weights."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import python_batches, rust_batches

import mrm

TRANSFORM = mrm.transforms.pretrain(32)
TEXT = mrm.Text(tokens=20, mask_ratio=0.4)


def loader(locations: list[Path], **arguments: Any) -> mrm.Loader:
    common: dict[str, Any] = {"batch_size": 8, "seed": 5, "transform": TRANSFORM, "text": TEXT, "masks": True, "boxes": True}
    return mrm.Loader([mrm.open(location) for location in locations], **{**common, **arguments})


def rust(locations: list[Path], batches: int, weights: list[float], **settings: Any) -> tuple[list[str], dict[str, Any]]:
    common = {"seed": 5, "tokens": 20, "mask_ratio": 0.4, "transform": json.loads(TRANSFORM.to_json())}
    others = [str(location) for location in locations[1:]]
    return rust_batches(locations[0], batches, others=others, weights=weights, **{**common, **settings})


def test_batches_and_states_are_those_of_the_rust_loader(mimic: Path, siim: Path, rsna: Path) -> None:
    locations, weights = [mimic, siim, rsna], [5.0, 3.0, 2.0]
    expected, state = rust(locations, 20, weights)
    mixed = loader(locations, weights=weights, threads=3)
    assert python_batches(mixed, 20) == expected
    assert json.loads(json.dumps(mixed.state_dict())) == state
    assert len(state["drawn"]) == 3

    # Python continues a run of Rust, and the other way around.
    middle = rust(locations, 7, weights)[1]
    continued = loader(locations, weights=weights)
    continued.load_state_dict(middle)
    assert python_batches(continued, 6) == expected[7:13]
    rest, again = rust(locations, 7, weights, state=continued.state_dict())
    assert (rest, again) == (expected[13:], state)
    copied = pickle.loads(pickle.dumps(continued))
    assert python_batches(copied, 4) == expected[13:17]


def test_each_record_has_its_dataset(mimic: Path, siim: Path) -> None:
    mixed = loader([mimic, siim], weights=[1, 2], batch_size=9, epoch_records=90)
    datasets = [mrm.open(mimic), mrm.open(siim)]
    assert (len(mixed), mixed.records) == (10, 90)
    assert mixed.findings[: len(datasets[0].findings)] == datasets[0].findings
    assert set(mixed.findings) == {*datasets[0].findings, *datasets[1].findings}
    counts = np.zeros(2, dtype=int)
    for batch in mixed:
        sources = batch.sources.numpy()
        assert sources.dtype == np.int64 and len(sources) == len(batch)
        counts += np.bincount(sources, minlength=2)
        labels = batch.labels.numpy()
        for at, (source, row, name) in enumerate(zip(sources, batch.rows.numpy(), batch.record_ids)):
            record = datasets[source][int(row)]
            assert record.record_id == name
            stored = [record.labels.get(finding) for finding in mixed.findings]
            shown = [None if np.isnan(value) else int(value) for value in labels[at]]
            assert shown == stored
        assert set(batch.with_report) <= {at for at, source in enumerate(sources) if source == 0}
    assert list(counts) == [30, 60]


def test_ranks_share_a_mixture_and_weights_change_at_a_state(mimic: Path, siim: Path) -> None:
    whole = [(batch.sources.numpy(), batch.rows.numpy()) for batch in loader([mimic, siim], weights=[1, 1])]
    shares = [iter(loader([mimic, siim], weights=[1, 1], distributed=(rank, 3))) for rank in range(3)]
    for sources, rows in whole:
        parts = [next(share) for share in shares]
        dealt = [(parts[at % 3].sources.numpy()[at // 3], parts[at % 3].rows.numpy()[at // 3]) for at in range(len(rows))]
        assert dealt == list(zip(sources, rows))

    first = loader([mimic, siim], weights=[1, 1])
    batches = [next(iter(first))]
    other = loader([mimic, siim], weights=[1, 4])
    other.load_state_dict(first.state_dict())
    batches += list(other)
    seen = [[int(row) for batch in batches for source, row in zip(batch.sources.numpy(), batch.rows.numpy()) if source == at]
            for at in range(2)]
    alone = [[int(row) for batch in loader([location], batch_size=1, text=None) for row in batch.rows.numpy()]
             for location in (mimic, siim)]
    for mixed, own in zip(seen, alone):
        shared = min(len(mixed), len(own))
        assert shared > 10 and mixed[:shared] == own[:shared]


def test_splits_and_rows_are_chosen_for_each_dataset(mimic: Path, siim: Path) -> None:
    rows = loader([mimic, siim], rows=[[3, 4, 5], None], epoch_of=0, weights=[1, 1])
    assert rows.records == 6
    seen = [(int(source), int(row)) for batch in rows for source, row in zip(batch.sources.numpy(), batch.rows.numpy())]
    assert sorted(row for source, row in seen if source == 0) == [3, 4, 5]
    subset = mrm.open(mimic).split("main").rows("train").numpy()
    split = loader([mimic, mimic], split=["main", "main"], subset="train")
    assert split.records == 2 * len(subset)
    by_name = loader([mimic, mimic], split="main", subset="train", temperature=3)
    assert by_name.records == split.records


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weights": [1.0]}, mrm.ArgumentError, "1 weights for 2 datasets"),
        ({"weights": [1.0, 0.0]}, mrm.ArgumentError, "a weight of 0"),
        ({"weights": [1, 1], "temperature": 2}, mrm.ArgumentError, "either weights or a temperature"),
        ({"epoch_of": 2}, mrm.ArgumentError, "there is no dataset 3"),
        ({"epoch_of": 0, "epoch_records": 8}, mrm.ArgumentError, "either epoch_of or epoch_records"),
        ({"rows": [[1]]}, mrm.ArgumentError, "2 splits and 1 lists of rows for 2 datasets"),
        ({"split": "main", "subset": "train"}, mrm.SplitError, "no split"),
        ({"tokenizer": "missing.json"}, mrm.FileError, "missing.json"),
    ],
)
def test_impossible_mixtures_are_refused(
    mimic: Path, siim: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loader([mimic, siim], **arguments)


def test_weights_need_several_datasets(data: mrm.Dataset) -> None:
    with pytest.raises(mrm.ArgumentError, match="for a list of datasets"):
        mrm.Loader(data, weights=[1.0])
    with pytest.raises(TypeError, match="give a dataset of mrm.open, not str"):
        mrm.Loader(["data"])  # type: ignore[list-item]


def test_pytorch_gets_the_sources(mimic: Path, siim: Path) -> None:
    torch = pytest.importorskip("torch")
    from mrm.torch import MrmDataset

    data = MrmDataset([mimic, mrm.open(siim)], weights=[1, 1], batch_size=8, transform=TRANSFORM)
    batch = next(iter(torch.utils.data.DataLoader(data, batch_size=None)))
    assert batch["sources"].dtype == torch.int64 and set(batch["sources"].tolist()) <= {0, 1}
    assert batch["images"].shape == (8, 1, 32, 32)
