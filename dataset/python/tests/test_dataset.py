"""Datasets, records, splits and tables."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from support import ok

import mrm

pl = pytest.importorskip("polars")
pq = pytest.importorskip("pyarrow.parquet")


def stored(location: Path) -> "pl.DataFrame":
    """All shards, read by pyarrow."""
    return pl.concat([pl.from_arrow(pq.read_table(path)) for path in sorted(location.glob("shards/*.parquet"))])


def test_records_by_number_and_identifier(mimic: Path, data: mrm.Dataset) -> None:
    rows = stored(mimic)
    assert len(data) == len(rows) == 54
    for row in (0, 17, 53):
        expected, record = rows.row(row, named=True), data[row]
        for name in ("record_id", "patient_id", "study_id", "image_id", "source_path", "subset", "view", "sex", "age_years",
                     "report", "findings", "impression", "token_ids", "labels", "study_datetime", "study_order", "language",
                     "label_origin"):
            assert getattr(record, name) == expected[name], name
        pixels = np.frombuffer(expected["image"], np.uint8).reshape(expected["height"], expected["width"])
        assert record.image is not None and np.array_equal(record.image.numpy(), pixels)
        assert np.array_equal(data.image(row).numpy(), pixels)
        texts = [{"name": text.name, "text": text.text, "token_ids": text.token_ids} for text in record.texts]
        assert texts == expected["texts"] and texts
        spacing = expected["pixel_spacing"]
        assert record.pixel_spacing == (spacing and (spacing["row"], spacing["column"]))
        assert (record.row, record.mask, record.masks, record.boxes) == (row, None, {}, [])
        assert (record.grades, record.readings) == ({}, [])
        assert data[record.record_id].row == data.row_of(record.record_id) == row
    assert data[-1].row == 53 and data.record_id(53) == data[53].record_id


def test_pillow_images(data: mrm.Dataset) -> None:
    pytest.importorskip("PIL")
    image = data.to_pil(5)
    assert image.mode == "L" and np.array_equal(np.asarray(image), data[5].image.numpy())


def test_masks_and_boxes_of_records(siim: Path, rsna: Path) -> None:
    records = map(mrm.open(siim).__getitem__, range(20))
    with_mask = next(record for record in records if record.mask is not None and record.mask.numpy().any())
    assert list(with_mask.masks) == ["pneumothorax"]
    assert np.array_equal(with_mask.masks["pneumothorax"].numpy(), with_mask.mask.numpy())
    assert with_mask.mask.shape == with_mask.image.shape and set(np.unique(with_mask.mask.numpy())) == {0, 1}
    data = mrm.open(rsna)
    boxes = next(record.boxes for record in map(data.__getitem__, range(len(data))) if record.boxes)
    assert (boxes[0].score, boxes[0].sentence, boxes[0].reader) == (None, None, None)
    assert boxes[0].width > 0 and "BoundingBox(label=" in repr(boxes[0])


def test_tables_go_to_other_libraries_without_a_copy(mimic: Path, data: mrm.Dataset) -> None:
    pa, pd, duckdb = (pytest.importorskip(name) for name in ("pyarrow", "pandas", "duckdb"))
    metadata = data.metadata()
    expected = stored(mimic)
    frame = pl.DataFrame(metadata)
    assert frame.columns == metadata.columns and len(metadata) == 54
    assert frame.drop("has_mask").equals(expected.select(frame.drop("has_mask").columns))
    assert frame["has_mask"].sum() == 0
    assert pa.table(metadata).num_rows == 54
    assert pa.schema(metadata).names == metadata.columns
    if hasattr(pd.DataFrame, "from_arrow"):  # pandas 3
        assert list(pd.DataFrame.from_arrow(metadata)["record_id"]) == frame["record_id"].to_list()
    assert duckdb.sql("select count(distinct patient_id) from metadata").fetchall() == [(frame["patient_id"].n_unique(),)]
    labels = pl.DataFrame(data.labels())
    assert labels.drop("record_id").equals(expected["labels"].struct.unnest())
    assert labels.columns == ["record_id", *data.findings]
    # The order that was asked for, not that of the file.
    assert data.columns(["view", "record_id", "has_mask"]).columns == ["view", "record_id", "has_mask"]
    with pytest.raises(mrm.ArgumentError, match="no column `viev`; did you mean `view`"):
        data.columns(["viev"])
    # The address of the first identifiers is the same on both sides.
    one = data.columns(["record_id"])
    buffers = {pa.table(one)["record_id"].chunk(0).buffers()[2].address for _ in range(2)}
    assert len(buffers) == 1


def test_tables_come_from_other_libraries() -> None:
    pa, pd, duckdb = (pytest.importorskip(name) for name in ("pyarrow", "pandas", "duckdb"))
    frame = pl.DataFrame({"name": ["a", "b", None], "value": [1, 2, 3]})
    for other in (frame, frame.to_arrow(), pd.DataFrame({"name": ["a", "b", None], "value": [1, 2, 3]}),
                  duckdb.sql("select * from frame"), mrm.Table(frame)):
        table = mrm.Table(other)
        assert (table.columns, len(table)) == (["name", "value"], 3)
        assert pl.DataFrame(table)["value"].to_list() == [1, 2, 3]
    assert pa.table(mrm.Table(frame.clear())).num_rows == 0
    with pytest.raises(mrm.ArgumentError, match="a list is no table"):
        mrm.Table([1, 2])


def test_splits(mimic: Path, data: mrm.Dataset) -> None:
    split = data.split("main")
    table = pl.DataFrame(split.table())
    written = pl.read_parquet(mimic / "splits/main.parquet")
    assert table.sort("record_id").equals(written.select("record_id", "subset", "ratio"))
    assert table["record_id"].to_list() == pl.DataFrame(data.columns(["record_id"]))["record_id"].to_list()
    assert (split.name, split.ratios, data.splits) == ("main", [1.0, 10.0, 100.0], ["main"])
    assert split.certificate == json.loads((mimic / "splits/main.json").read_text())
    subset = table.with_row_index()
    for ratio in (1, 10, 100):
        rows = subset.filter(pl.col("ratio") <= ratio)["index"].to_list()
        assert split.rows("train", ratio).numpy().tolist() == rows
    assert split.rows("test").numpy().tolist() == subset.filter(subset="test")["index"].to_list()
    assert len(split.warnings) > 0 and "37 train" in repr(split)


def test_manifest_tokenizer_and_rejects(mimic: Path, data: mrm.Dataset) -> None:
    assert data.manifest == json.loads((mimic / "dataset.json").read_text())
    assert data.tokenizer_json() == (mimic / "tokenizer.json").read_text()
    assert pl.DataFrame(data.rejects()).columns == pl.read_parquet(mimic / "rejects.parquet").columns
    assert data.location == str(mimic) and repr(data) == f"mrm.open('{mimic}')  # 54 records"


def test_a_dataset_without_reports_has_no_tokenizer(rsna: Path) -> None:
    data = mrm.open(rsna)
    assert data.tokenizer_json() is None and data[0].report is None


def test_a_dataset_can_be_pickled_and_closed(mimic: Path) -> None:
    data = mrm.open(mimic)
    copy = pickle.loads(pickle.dumps(data))
    assert copy[3].record_id == data[3].record_id
    loader = mrm.Loader(data, batch_size=20, transform=mrm.transforms.evaluate(16))
    with data:
        pass
    for use in (lambda: data[0], lambda: len(data), data.metadata, lambda: data.split("main"), lambda: mrm.Loader(data)):
        with pytest.raises(mrm.ClosedError, match="is closed: open it again"):
            use()
    assert repr(data).endswith("# closed") and len(copy) == 54
    assert sum(len(batch) for batch in loader) == 54


def test_the_version_is_that_of_the_programs() -> None:
    assert ok("dataset", "--version").split() == ["dataset", mrm.__version__]
