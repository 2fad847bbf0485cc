"""`mrm.join` does what the program does; datasets and loaders are seen with joins. `MRM_BIN` is the folder of the programs."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

import mrm
from support import contents, ok, program, same_text

needs_programs = pytest.mark.skipif("MRM_BIN" not in os.environ, reason="MRM_BIN names the folder of the programs")


def labels(data: mrm.Dataset) -> polars.DataFrame:
    """Labels of every second record, and of one that there is not."""
    ids = [data[row].image_id for row in range(0, len(data), 2)]
    hernia = [row % 3 - 1 for row in range(len(ids))]
    return polars.DataFrame({"dicom_id": [*ids, "nobody"], "Hernia": [*hernia, 1], "Edema": [*(1 for _ in ids), None]})


def test_a_table_is_joined_and_seen(copy: Path) -> None:
    data = mrm.open(copy)
    table = labels(data)
    summary = mrm.join(data, table=table, key="dicom_id", kind="labels", name="rare", label_origin="radiologist")
    assert (summary.name, summary.kind, summary.names, summary.on) == ("rare", "labels", ["Hernia", "Edema"], "image_id")
    assert (summary.rows, summary.matched, summary.unmatched) == (len(table), len(table) - 1, 1)
    assert summary.unmatched_keys == ["nobody"] and summary.records_with + summary.records_without == len(data)
    assert mrm.join(copy, table=table, key="dicom_id", kind="labels", name="rare", label_origin="radiologist").already_done
    assert data.joins == ["rare"] and data.joined == []
    assert data.join_facts("rare")["counts"]["matched"] == summary.matched

    seen = mrm.open(copy, joins=["rare"])
    assert seen.joined == ["rare"] and seen.findings == [*data.findings, "Hernia"]
    for row in range(len(data)):
        expected = table["Hernia"][row // 2] if row % 2 == 0 else None
        assert seen[row].labels["Hernia"] == expected
        assert seen[row].labels["Edema"] == (1 if row % 2 == 0 else None)
        assert seen[row].labels["Pneumonia"] == data[row].labels["Pneumonia"]
    assert polars.DataFrame(seen.labels())["Hernia"].to_list() == [seen[row].labels["Hernia"] for row in range(len(seen))]
    assert polars.DataFrame(seen.metadata()).height == len(seen)
    again = pickle.loads(pickle.dumps(seen))
    assert again.joined == ["rare"] and again.findings == seen.findings

    arguments: dict[str, Any] = {"batch_size": 7, "seed": 2, "transform": mrm.transforms.evaluate(16)}
    plain, joined = mrm.Loader(data, **arguments), mrm.Loader(data, join="rare", **arguments)
    assert joined.findings == seen.findings and joined.state_dict()["order"] == plain.state_dict()["order"]
    for one, other in zip(plain, joined, strict=True):
        assert (one.rows.numpy() == other.rows.numpy()).all() and (one.images.numpy() == other.images.numpy()).all()
        column = other.labels.numpy()[:, -1]
        expected_column = [seen[int(row)].labels["Hernia"] for row in other.rows.numpy()]
        np.testing.assert_array_equal(column, np.array([np.nan if code is None else code for code in expected_column]))

    split = mrm.split(copy, "rare", labels="rare", stratify=["Hernia"])
    assert split.certificate["options"]["labels"] == "rare"


def test_errors_of_joins(copy: Path) -> None:
    data = mrm.open(copy)
    table = labels(data)
    with pytest.raises(mrm.JoinError, match="this dataset has no join"):
        mrm.open(copy, joins=["rare"])
    with pytest.raises(mrm.ArgumentError, match="--box-columns is no option of --as labels"):
        mrm.join(copy, table=table, key="dicom_id", kind="labels", box_columns=["a", "b", "c", "d"])
    with pytest.raises(mrm.ArgumentError, match="possible values"):
        mrm.join(copy, table=table, key="dicom_id", kind="grades")  # type: ignore[arg-type]
    with pytest.raises(mrm.RawDataError, match="no row is about a record"):
        mrm.join(copy, table=table.with_columns(dicom_id=polars.lit("x")), key="dicom_id", kind="labels")
    with pytest.raises(mrm.JoinError, match="1 rows contradict others"):
        twice = polars.DataFrame({"id": [data[0].image_id] * 2, "Hernia": [0, 1]})
        mrm.join(copy, table=twice, key="id", kind="labels")
    mrm.join(copy, table=table, key="dicom_id", kind="labels", name="rare")
    with pytest.raises(mrm.ArgumentError, match="join is for one dataset"):
        mrm.Loader([data, data], join="rare")
    with pytest.raises(mrm.JoinError, match="it is given twice"):
        mrm.open(copy, joins=["rare", "rare"])


@needs_programs
def test_a_join_is_that_of_the_program(copy: Path, tmp_path: Path) -> None:
    data = mrm.open(copy)
    other = shutil.copytree(copy, tmp_path / "other")
    ids = [data[row].image_id for row in range(4)]
    masks = polars.DataFrame({"id": ids, "Heart": ["1 9 200 5", "-1", None, "4 2"], "good": [0.9, 0.8, 0.9, 0.1]})
    path = tmp_path / "table.csv"
    masks.write_csv(path, quote_style="always")
    words = ["--mask-columns", "heart=Heart", "--mask-runs", "absolute", "--mask-order", "rows", "--min", "good=0.5"]
    ok("ingest", "join", other, "--table", path, "--key", "id", "--as", "masks", "--name", "hearts", *words)
    options: dict[str, Any] = {"mask_columns": {"heart": "Heart"}, "mask_runs": "absolute", "mask_order": "rows"}
    summary = mrm.join(copy, table=path, key="id", kind="masks", name="hearts", min={"good": 0.5}, **options)
    assert contents(copy / "joins") == contents(other / "joins")
    assert (summary.filtered, summary.records_with) == (1, 2)
    seen = mrm.open(copy, joins=["hearts"])
    assert [list(seen[row].masks) for row in range(4)] == [["heart"], ["heart"], [], []]
    assert mrm.verify(copy) == []
    with pytest.raises(mrm.JoinError) as raised:
        mrm.join(copy, table=path, key="id", kind="masks", name="hearts", **options)
    done = program("ingest", "join", copy, "--table", path, "--key", "id", "--as", "masks", "--name", "hearts", *words[:-2])
    same_text(raised.value, done)
