"""Studies as samples, several texts, weights of tokens, and datasets without images, in Python."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import python_batches, rust_batches

import mrm
from conftest import make

TRANSFORM = mrm.transforms.pretrain(16)
STUDIES = mrm.Studies(views=2, choose="random", prior=1)


@pytest.fixture(scope="module")
def reports(folder: Path) -> Path:
    """The reports of Open-i, without images."""
    return make(folder, "openi", 30, "--no-images")


def studies_of(data: mrm.Dataset) -> dict[tuple[str, str], list[int]]:
    """Rows by patient and study."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in range(len(data)):
        found.setdefault((data[row].patient_id, data[row].study_id), []).append(row)
    return found


def epoch(loader: mrm.Loader) -> Iterator[tuple[mrm.Batch, int]]:
    for batch in loader:
        for at in range(len(batch)):
            yield batch, at


def test_a_sample_is_a_study(data: mrm.Dataset) -> None:
    studies = studies_of(data)
    loader = mrm.Loader(data, batch_size=5, transform=TRANSFORM, studies=STUDIES, text=mrm.Text(tokens=16), masks=True, boxes=True)
    assert (loader.records, len(loader)) == (len(studies), -(-len(studies) // 5))
    codes = {"PA": 1, "AP": 2, "LATERAL": 4, "LL": 4}
    seen, priors = set(), 0
    for batch, at in epoch(loader):
        size = len(batch)
        assert (batch.images.shape, batch.masks.shape) == ((size, 3, 1, 16, 16), (size, 3, 16, 16))
        shapes = [array.shape for array in (batch.view_mask, batch.view_codes, batch.view_rows)]
        assert shapes == [(size, 3)] * 3 and (batch.view_mask.dtype, batch.view_codes.dtype) == ("uint8", "int64")
        row = int(batch.rows.numpy()[at])
        key = (data[row].patient_id, data[row].study_id)
        seen.add(key)
        mask, rows = batch.view_mask.numpy()[at], batch.view_rows.numpy()[at]
        assert (mask == (rows >= 0)).all() and mask[0] == 1
        assert set(rows[:2][mask[:2] > 0]) <= set(studies[key]) and mask[:2].sum() == min(2, len(studies[key]))
        for slot in range(3):
            image, code = batch.images.numpy()[at, slot], batch.view_codes.numpy()[at, slot]
            if mask[slot]:
                assert code == codes.get(data[int(rows[slot])].view or "", 0) and image.std() > 0
            else:
                assert code == 0 and not image.any() and (batch.masks.numpy()[at, slot] == 255).all()
        if mask[2]:
            before = data[int(rows[2])]
            assert before.patient_id == key[0] and (before.study_datetime or "") < (data[row].study_datetime or "")
            priors += 1
    assert seen == set(studies) and priors > 3
    assert batch.record_ids[0] == data.record_id(int(batch.rows.numpy()[0]))
    assert batch.box_slots.shape == (0,) and batch.has_image is None
    assert f"{len(batch)} studies with 3 images of 16×16" in repr(batch)


def test_batches_do_not_depend_on_threads_and_are_continued(data: mrm.Dataset, tmp_path: Path) -> None:
    table = {"no": 2.0}
    arguments: dict[str, Any] = {
        "batch_size": 4,
        "seed": 3,
        "transform": TRANSFORM,
        "studies": STUDIES,
        "text": [mrm.Text(tokens=24), mrm.Text(tokens=20, sentences=2)],
        "token_weights": table,
    }
    expected = python_batches(mrm.Loader(data, threads=1, **arguments), 24)
    loader = mrm.Loader(data, threads=3, **arguments)
    assert python_batches(loader, 7) == expected[:7]
    copy = pickle.loads(pickle.dumps(loader))
    continued = mrm.Loader(data, **arguments)
    continued.load_state_dict(loader.state_dict())
    assert python_batches(continued, 17) == expected[7:] == python_batches(copy, 17)
    # The whole loader of a split's subset: no row of another subset, not even as a prior study.
    rows = set(data.split("main").rows("train").numpy().tolist()) | {-1}
    train = mrm.Loader(data, split="main", subset="train", **arguments)
    assert all(set(batch.view_rows.numpy().ravel().tolist()) <= rows for batch in train)


def test_batches_and_states_are_those_of_the_rust_loader(mimic: Path, data: mrm.Dataset) -> None:
    expected, state = rust_batches(
        mimic, 20, seed=4, tokens=24, transform=json.loads(TRANSFORM.to_json()), studies=[2, True, 1], batch_size=6
    )
    arguments: dict[str, Any] = {"seed": 4, "batch_size": 6, "transform": TRANSFORM, "text": mrm.Text(tokens=24), "masks": True, "boxes": True}
    loader = mrm.Loader(data, studies=STUDIES, **arguments)
    assert python_batches(loader, 20) == expected and json.loads(json.dumps(loader.state_dict())) == state
    with pytest.raises(mrm.StateError, match="belongs to other records"):
        mrm.Loader(data, **arguments).load_state_dict(state)


def test_several_texts_and_weights(data: mrm.Dataset, tmp_path: Path) -> None:
    vocabulary = json.loads(data.tokenizer_json() or "")["model"]["vocab"]
    table = {token: number / 4 for token, number in vocabulary.items() if number % 2}
    file = tmp_path / "weights.json"
    file.write_text(json.dumps(table))
    texts = [mrm.Text(tokens=30), mrm.Text(tokens=12, mask_ratio=0, section="findings"), mrm.Text(tokens=20, sentences=1)]
    by_id = np.ones(len(vocabulary), dtype=np.float32)
    for token, weight in table.items():
        by_id[vocabulary[token]] = weight
    for weights in (table, file):
        loader = mrm.Loader(data, batch_size=6, transform=TRANSFORM, text=texts, token_weights=weights)
        for batch in loader:
            assert [text.token_ids.shape for text in batch.texts] == [(len(batch), length) for length in (30, 12, 20)]
            first = batch.texts[0]
            for name in ("token_ids", "target_ids", "attention_mask", "token_weights"):
                own, whole = getattr(first, name).numpy(), getattr(batch, name).numpy()
                assert own.__array_interface__["data"] == whole.__array_interface__["data"]
            for text in batch.texts:
                targets = text.target_ids.numpy()
                assert (text.token_weights.numpy() == np.where(targets == 0, 0, by_id[targets])).all()
            for at, row in enumerate(batch.rows.numpy()):
                stored = next((text.token_ids for text in data[int(row)].texts if text.name == "findings"), [])[:12]
                assert batch.texts[1].token_ids.numpy()[at].tolist() == stored + [0] * (12 - len(stored))
    assert "texts of 12 tokens" in repr(batch.texts[1])
    plain = next(iter(mrm.Loader(data, batch_size=6, transform=TRANSFORM)))
    assert (plain.texts, plain.token_weights, plain.view_mask) == ([], None, None)


def test_reports_without_images_join_a_mixture(data: mrm.Dataset, reports: Path) -> None:
    both = [data, mrm.open(reports)]
    loader = mrm.Loader(both, batch_size=8, transform=TRANSFORM, text=mrm.Text(tokens=24))
    texts = 0
    for batch in loader:
        sources, has_image = batch.sources.numpy(), batch.has_image.numpy()
        assert has_image.dtype == np.uint8 and (has_image == (sources == 0)).all()
        assert (batch.images.numpy().any(axis=(1, 2, 3)) == (sources == 0)).all()
        texts += sum(1 for at in batch.with_report if sources[at] == 1)
    assert texts > 20
    with pytest.raises(mrm.Error, match="load reports, too"):
        mrm.Loader(both, transform=TRANSFORM)
    with pytest.raises(mrm.Error, match="no images"):
        mrm.Loader(both[1], text=mrm.Text())


def test_pytorch_gets_the_same(data: mrm.Dataset, reports: Path) -> None:
    torch = pytest.importorskip("torch")
    from mrm.torch import MrmDataset, MrmMapDataset

    arguments: dict[str, Any] = {
        "transform": TRANSFORM,
        "studies": STUDIES,
        "text": (mrm.Text(tokens=16), mrm.Text(tokens=8, section="impression")),
        "token_weights": {"no": 2.0},
        "crops": [(mrm.transforms.evaluate(8), 2)],
        "seed": 2,
    }
    batches = list(MrmDataset(data, batch_size=6, shuffle=False, **arguments))
    samples = MrmMapDataset(data, **arguments)
    assert len(samples) == len(studies_of(data)) == sum(len(batch["rows"]) for batch in batches)
    at = 0
    for batch in batches:
        assert batch["crops"][0].shape == (len(batch["rows"]), 3, 2, 1, 8, 8)
        for position in range(len(batch["rows"])):
            sample = samples[at]
            for name, key in [("image", "images"), *((name, name) for name in ("view_mask", "view_codes", "view_rows", "token_weights"))]:
                assert torch.equal(sample[name], batch[key][position]), name
            assert torch.equal(sample["crops"][0], batch["crops"][0][position])
            for text, other in zip(sample["texts"], batch["texts"], strict=True):
                assert text.keys() == other.keys() and len(text) == 4
                assert all(torch.equal(text[name], other[name][position]) for name in text)
            at += 1
    mixed = next(iter(MrmDataset([data, reports], batch_size=8, transform=TRANSFORM, text=mrm.Text())))
    assert mixed["has_image"].dtype == torch.uint8 and "view_mask" not in mixed


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"studies": mrm.Studies(views=60, prior=5)}, mrm.ArgumentError, "at most 64 in all"),
        ({"studies": mrm.Studies(), "rows": [1, 1]}, mrm.ArgumentError, "row 1 was chosen twice"),
        ({"text": mrm.Text(section="Findings")}, mrm.ArgumentError, "in lower case"),
        ({"text": mrm.Text(), "token_weights": {"no": -1}}, mrm.ArgumentError, "the weight -1"),
        ({"text": mrm.Text(), "token_weights": {"no such": 1}}, mrm.ArgumentError, "no token of the tokenizer"),
        ({"text": mrm.Text(), "token_weights": "missing.json"}, mrm.FileError, "missing.json"),
        ({"token_weights": {"no": 1}}, mrm.ArgumentError, "which are not loaded"),
    ],
)
def test_impossible_arguments_are_refused(
    data: mrm.Dataset, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mrm.Loader(data, transform=TRANSFORM, **arguments)


def test_settings_are_checked() -> None:
    with pytest.raises(mrm.ArgumentError, match="views 0"):
        mrm.Studies(views=0)
    with pytest.raises(mrm.ArgumentError, match='give "first" or "random"'):
        mrm.Studies(choose="last")  # type: ignore[arg-type]
    with pytest.raises(mrm.ArgumentError, match="either a section or a number of sentences"):
        mrm.Text(section="findings", sentences=2)
    with pytest.raises(mrm.ArgumentError, match="sentences 0"):
        mrm.Text(sentences=0)
