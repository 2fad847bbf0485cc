"""Images of 16 bits: their arrays, and the windows of loaders against NumPy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import ok

import mrm
from mrm.transforms import FixedWindow, Stretch, Transform, Window

SIZE = 64

Floats = np.ndarray[Any, np.dtype[np.float32]]

# Gray levels as they are: neither resized nor normalized.
PLAIN = Transform(Stretch(), SIZE, mean=0.0, std=1 / 255)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> mrm.Dataset:
    """DICOM files of 12 bits in two encodings, images of 64 × 64 pixels."""
    folder = tmp_path_factory.mktemp("deep")
    mrm.phantom("mimic-cxr", folder / "films", studies=16, size=96)
    for encoding in ("raw", "png"):
        mrm.ingest("mimic-cxr", folder / "films", folder / encoding, size=SIZE, resize="pad", bits=16, image_encoding=encoding)
    pixels = [mrm.open(folder / encoding).image(3).numpy() for encoding in ("raw", "png")]
    assert np.array_equal(*pixels)
    return mrm.open(folder / "raw")


def level(pixels: Any, center: float, width: float) -> Any:
    """DICOM's linear function."""
    return np.clip(((pixels.astype(float) - (center - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)


def images(data: mrm.Dataset, transform: Transform, **options: Any) -> Floats:
    """All images in their order, `[B, S, S]`."""
    loader = mrm.Loader(data, batch_size=len(data), shuffle=False, transform=transform, **options)
    return next(iter(loader)).images.numpy()[:, 0].copy()


def test_arrays_have_16_bits_and_pillow_shows_8(deep: mrm.Dataset) -> None:
    pytest.importorskip("PIL")
    assert (deep.manifest["image"]["encoding"], deep.manifest["image"]["bits"]) == ("raw16", 16)
    for row in range(len(deep)):
        record, shown = deep[row], deep.to_pil(row)
        assert record.image is not None and record.window is not None
        pixels = record.image.numpy()
        assert pixels.dtype == np.uint16 and pixels.shape == (SIZE, SIZE)
        assert pixels.max() > 255 and np.array_equal(deep.image(row).numpy(), pixels)
        assert shown.mode == "L" and np.abs(np.asarray(shown) - level(pixels, *record.window)).max() < 0.51


@pytest.mark.parametrize("window", ["stored", "full", FixedWindow(1800, 2500.5)])
def test_loaders_show_the_window(deep: mrm.Dataset, window: Window) -> None:
    found = images(deep, dataclasses.replace(PLAIN, window=window))
    for row, levels in enumerate(found):
        record = deep[row]
        assert record.image is not None and record.window is not None
        pixels = record.image.numpy()
        if isinstance(window, FixedWindow):
            center, width = window.center, window.width
        elif window == "stored":
            center, width = record.window
        else:
            low, high = int(pixels.min()), int(pixels.max())
            center, width = (low + high + 1) / 2, high - low + 1
        expected = level(pixels, center, width)
        assert np.abs(levels - expected).max() < 0.01
        assert len(np.unique(np.round(levels, 3))) > 256 or len(np.unique(expected)) < 257, "levels are not rounded"


def test_random_windows_follow_the_seed(deep: mrm.Dataset) -> None:
    jittered = dataclasses.replace(PLAIN, window_jitter=(0.1, 0.3))
    first = images(deep, jittered, seed=4)
    assert all(np.array_equal(first, images(deep, jittered, seed=4, threads=threads)) for threads in (1, 2, 5))
    assert not np.array_equal(first, images(deep, jittered, seed=5))
    assert not np.array_equal(first, images(deep, PLAIN, seed=4))


def test_8_bits_have_no_window(data: mrm.Dataset) -> None:
    assert data[0].window is None and data.image(0).numpy().dtype == np.uint8
    assert "bits" not in data.manifest["arguments"] and data.manifest["image"]["bits"] == 8


def test_impossible_windows_are_errors(tmp_path: Path) -> None:
    for options, message in [
        ({"window": "wide"}, "'stored', 'full' or a FixedWindow"),
        ({"window": FixedWindow(3, 0)}, "width of at least 1"),
        ({"window_jitter": (0.1, 1.0)}, "window_jitter"),
    ]:
        with pytest.raises(mrm.ArgumentError, match=message):
            dataclasses.replace(PLAIN, **options)  # type: ignore[arg-type]
    mrm.phantom("nih", tmp_path / "raw", studies=2, size=64)
    with pytest.raises(mrm.ArgumentError, match="--bits 16 with --image-encoding jpeg"):
        mrm.ingest("nih", tmp_path / "raw", tmp_path / "out", bits=16, image_encoding="jpeg")
    assert json.loads(PLAIN.to_json())["window"] == "stored"
    mrm.ingest("nih", tmp_path / "raw", tmp_path / "out", size=64, bits=16)
    assert "all whole" in ok("dataset", "verify", tmp_path / "out")
