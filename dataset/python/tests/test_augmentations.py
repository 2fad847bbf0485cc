"""Augmentations against torchvision and OpenCV, on real radiographs."""

from __future__ import annotations

import dataclasses
import itertools
import os
from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrm
from mrm.transforms import (
    Affine,
    Augmentation,
    Brightness,
    Clahe,
    Contrast,
    Erase,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    Stretch,
    Transform,
)

SIZE = 224
RECORDS = 6
Images = np.ndarray[Any, np.dtype[np.float32]]

# Pixels from 0 to 1.
PLAIN = Transform(Stretch(), SIZE, mean=0.0, std=1.0)


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> mrm.Dataset:
    """Real radiographs, or synthetic ones where there are none."""
    out = tmp_path_factory.mktemp("radiographs")
    real = Path(os.environ.get("MRM_TEST_DATA", "../shared/data")) / "covid-chestxray"
    if real.exists():
        mrm.ingest("covid", real, out / "data", size=512, limit=RECORDS, max_reject_rate=1)
    elif os.environ.get("MRM_REQUIRE_TEST_DATA") == "1":
        pytest.fail(f"no {real}")
    else:
        mrm.phantom("covid", out / "raw", studies=3 * RECORDS, size=512)
        mrm.ingest("covid", out / "raw", out / "data", size=512, limit=RECORDS, max_reject_rate=1)
    return mrm.open(out / "data")


def images(data: mrm.Dataset, *augment: Augmentation, seed: int = 0, records: int = RECORDS, **options: Any) -> Images:
    """The first records, `[B, S, S]`."""
    transform = dataclasses.replace(PLAIN, augment=augment)
    loader = mrm.Loader(
        data, rows=range(records), batch_size=records, shuffle=False, transform=transform, seed=seed, **options
    )
    return next(iter(loader)).images.numpy()[:, 0].copy()


def levels(ours: Images, theirs: object) -> tuple[float, float]:
    """Largest and mean difference in gray levels."""
    difference = np.abs(ours - np.asarray(theirs, dtype=np.float32).reshape(ours.shape)) * 255
    return float(difference.max()), float(difference.mean())


def close(ours: Images, theirs: object, most: float, mean: float) -> None:
    found = levels(ours, theirs)
    assert found[0] <= most and found[1] <= mean, f"{found} gray levels, not {(most, mean)}"


@pytest.mark.parametrize(
    ("step", "name", "arguments"),
    [
        (Brightness((1.3, 1.3)), "adjust_brightness", (1.3,)),
        (Brightness((0.4, 0.4)), "adjust_brightness", (0.4,)),
        (Contrast((1.7, 1.7)), "adjust_contrast", (1.7,)),
        (Contrast((0.3, 0.3)), "adjust_contrast", (0.3,)),
        (Gamma((0.6, 0.6)), "adjust_gamma", (0.6,)),
        (Gamma((2.2, 2.2)), "adjust_gamma", (2.2,)),
        (GaussianBlur((0.7, 0.7)), "gaussian_blur", (7, 0.7)),
        (GaussianBlur((2.0, 2.0)), "gaussian_blur", (17, 2.0)),
        (GaussianBlur((5.5, 5.5)), "gaussian_blur", (45, 5.5)),
    ],
)
def test_tones_and_blur_are_those_of_torchvision(
    radiographs: mrm.Dataset, step: Augmentation, name: str, arguments: tuple[Any, ...]
) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    plain = torch.from_numpy(images(radiographs))[:, None]
    expected = [getattr(functional, name)(image, *arguments) for image in plain]
    # Torchvision's floats are not rounded to gray levels, either.
    close(images(radiographs, step), torch.stack(expected), most=0.02, mean=0.002)
    # Its whole gray levels are, downwards where it says so.
    whole = [getattr(functional, name)((image * 255).round().to(torch.uint8), *arguments) for image in plain]
    close(images(radiographs, step), torch.stack(whole).float() / 255, most=1.02, mean=0.6)


@pytest.mark.parametrize(
    ("degrees", "scale", "shear"),
    [(0.0, 1.0, (0.0, 0.0)), (17.0, 1.0, (0.0, 0.0)), (-30.0, 0.8, (0.0, 0.0)), (5.0, 1.3, (12.0, -7.0))],
)
def test_affine_maps_are_those_of_torchvision(
    radiographs: mrm.Dataset, degrees: float, scale: float, shear: tuple[float, float]
) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    plain = torch.from_numpy(images(radiographs))[:, None]
    step = Affine((degrees, degrees), (0.0, 0.0), (scale, scale), (shear[0], shear[0]), (shear[1], shear[1]))
    bilinear = functional.InterpolationMode.BILINEAR

    def theirs(image: Any, translation: tuple[int, int] = (0, 0)) -> Any:
        return functional.affine(image, degrees, list(translation), scale, list(shear), interpolation=bilinear)

    # Positions in single precision differ by some ten-thousandths of a pixel.
    close(images(radiographs, step), theirs(plain), most=0.05, mean=0.001)
    # With a fill, ours is the same as moving the difference to it; torchvision mixes it in twice at the edge.
    close(images(radiographs, dataclasses.replace(step, fill=0.25)), theirs(plain - 0.25) + 0.25, most=0.05, mean=0.001)

    # A translation is of whole pixels: one of 49 fits, and no other nearly as well.
    moved = images(radiographs, dataclasses.replace(step, translate=(3.4 / SIZE, 3.4 / SIZE)), records=1)
    places = itertools.product(range(-3, 4), range(-3, 4))
    fits = {at: levels(moved, theirs(plain[:1], at)) for at in places}
    best, second = sorted(fits.items(), key=lambda fit: fit[1][1])[:2]
    assert best[1][0] <= 0.05, best
    assert second[1][1] > 10 * best[1][1], (best, second)


def test_clahe_is_that_of_opencv(radiographs: mrm.Dataset) -> None:
    cv2 = pytest.importorskip("cv2")
    whole = (images(radiographs) * 255).round().astype(np.uint8)
    for clip, tiles in [(2.0, 8), (40.0, 8), (1.0, 4), (3.3, 5), (0.01, 1)]:
        # 224 pixels are not divisible by 5: the tiles reach beyond the image.
        expected = [cv2.createCLAHE(clip, (tiles, tiles)).apply(image) for image in whole]
        ours = images(radiographs, Clahe((clip, clip), tiles)) * 255
        # OpenCV rounds, ours does not.
        assert np.abs(ours - expected).max() <= 0.5001


def test_erasing_fills_one_rectangle(radiographs: mrm.Dataset) -> None:
    plain, areas = images(radiographs), []
    for seed in range(20):
        erased = images(radiographs, Erase(fill=1.0), seed=seed)
        for before, after in zip(plain, erased, strict=True):
            rows, columns = np.nonzero(before != after)
            rectangle = np.zeros_like(before)
            rectangle[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
            assert np.array_equal(after, np.maximum(before, rectangle))
            areas.append(rectangle.mean())
    assert 0.015 < min(areas) < 0.06 and 0.25 < max(areas) < 0.34, (min(areas), max(areas))


def test_noise_is_normal_and_independent(radiographs: mrm.Dataset) -> None:
    flat = Affine(fill=0.5, scale=(0.01, 0.01), translate=(1.0, 1.0))
    noisy = images(radiographs, flat, GaussianNoise((0.1, 0.1))) - images(radiographs, flat)
    values = np.sort(noisy.reshape(-1).astype(np.float64)) / 0.1
    # Kolmogorov's distance to the normal distribution: with 301,056 samples, 0.0036 has a probability of 0.001.
    sample = values[:: len(values) // 5000]
    distance = max(abs((at + 0.5) / len(sample) - 0.5 * (1 + erf(x / sqrt(2)))) for at, x in enumerate(sample))
    assert distance < 0.004, distance
    neighbors = np.corrcoef(noisy[:, :, 1:].reshape(-1), noisy[:, :, :-1].reshape(-1))[0, 1]
    records = np.corrcoef(noisy[0].reshape(-1), noisy[1].reshape(-1))[0, 1]
    assert abs(neighbors) < 0.01 and abs(records) < 0.02, (neighbors, records)


def test_probabilities_hold_and_batches_repeat(radiographs: mrm.Dataset) -> None:
    plain = images(radiographs)
    acted = 0
    for seed in range(30):
        some = images(radiographs, Gamma((2.0, 2.0), probability=0.3), seed=seed)
        acted += sum(not np.array_equal(a, b) for a, b in zip(some, plain, strict=True))
    assert 30 <= acted <= 80, f"{acted} of 180"
    steps = (Affine((-10, 10), (0.1, 0.1), (0.9, 1.1)), GaussianNoise((0.0, 0.1)), Erase(probability=0.5))
    one = images(radiographs, *steps, threads=1)
    assert np.array_equal(one, images(radiographs, *steps, threads=4))
    assert not np.array_equal(one, images(radiographs, *steps, seed=1))


def loaded(location: Path, augment: tuple[Augmentation, ...], **options: Any) -> mrm.Batch:
    """The first 20 records, not cropped."""
    transform = dataclasses.replace(PLAIN, augment=augment)
    return next(iter(mrm.Loader(mrm.open(location), batch_size=20, transform=transform, shuffle=False, **options)))


@pytest.mark.parametrize(("degrees", "scale", "shear"), [(20.0, 0.9, 0.0), (-75.0, 1.6, 10.0), (5.0, 4.0, 0.0)])
def test_boxes_are_the_rectangles_around_their_moved_corners(
    rsna: Path, degrees: float, scale: float, shear: float
) -> None:
    step = Affine((degrees, degrees), scale=(scale, scale), shear_x=(shear, shear))
    # What only changes gray levels leaves boxes alone.
    plain, moved = loaded(rsna, (Gamma((2, 2)),), boxes=True), loaded(rsna, (step, Gamma((2, 2))), boxes=True)
    assert plain.boxes is not None and moved.boxes is not None
    assert plain.box_records is not None and moved.box_records is not None
    angle, slope = np.deg2rad(degrees), np.tan(np.deg2rad(shear))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn @ np.array([[1, -slope], [0, 1]])
    expected, records = [], []
    for record, (x, y, width, height) in zip(plain.box_records.numpy(), plain.boxes.numpy(), strict=True):
        corners = np.array([(x, y), (x + width, y), (x, y + height), (x + width, y + height)]) - SIZE / 2
        corners = corners @ matrix.T + SIZE / 2
        low, high = corners.min(axis=0), corners.max(axis=0)
        clipped = np.clip(low, 0, SIZE), np.clip(high, 0, SIZE)
        if np.prod(clipped[1] - clipped[0]) >= 0.1 * np.prod(high - low):
            expected.append((*clipped[0], *(clipped[1] - clipped[0])))
            records.append(record)
    assert len(expected) > 0 and (scale < 2 or len(expected) < len(plain.boxes))
    assert moved.box_records.numpy().tolist() == records
    assert np.allclose(moved.boxes.numpy(), expected, atol=0.01)


def test_masks_move_as_torchvision_moves_them(siim: Path) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    plain, moved = loaded(siim, (), masks=True), loaded(siim, (Affine((20, 20), scale=(0.8, 0.8)),), masks=True)
    assert plain.masks is not None and moved.masks is not None
    classes = torch.from_numpy(plain.masks.numpy()).float()[:, None]
    # Classes from 1 on, so that 0 is what is beside the image.
    theirs = functional.affine(classes + 1, 20.0, [0, 0], 0.8, [0.0, 0.0])[:, 0].numpy() - 1
    theirs[theirs == -1] = 255
    assert (theirs == 1).any() and (theirs == 0).any()
    assert (moved.masks.numpy() != theirs).mean() < 1e-3


def test_mistakes_are_named_where_they_are_made() -> None:
    mistakes: list[tuple[Augmentation, str]] = [
        (Affine(scale=(0.0, 1.0)), "affine: scale"),
        (Gamma((2.0, 1.0)), "gamma: gamma"),
        (Clahe((1.0, 2.0), tiles=0), "clahe: tiles"),
        (GaussianNoise((0.0, 0.1), probability=2.0), "gaussian_noise: probability"),
    ]
    for step, message in mistakes:
        with pytest.raises(mrm.ArgumentError, match=message):
            dataclasses.replace(PLAIN, augment=(step,))
    with pytest.raises(TypeError, match="augment: give augmentations"):
        dataclasses.replace(PLAIN, augment=("gamma",))  # type: ignore[arg-type]
    with pytest.raises(mrm.ArgumentError, match="transform"):
        dataclasses.replace(PLAIN, augment=(Gamma((1, "2")),))  # type: ignore[arg-type]


def test_crops_are_those_of_their_transforms_and_distinct(mimic: Path, siim: Path) -> None:
    data = mrm.open(mimic)
    whole, local = mrm.transforms.evaluate(48), mrm.transforms.pretrain(32)
    crops = ((whole, 2), (dataclasses.replace(local, augment=(GaussianNoise((0.1, 0.1)),)), 5))
    loader = mrm.Loader(data, batch_size=7, transform=whole, crops=crops, seed=3, drop_last=True)
    batch = next(iter(loader))
    one, several = batch.crops
    assert (one.shape, several.shape) == ((7, 2, 1, 48, 48), (7, 5, 1, 32, 32))
    assert np.array_equal(one.numpy(), np.repeat(batch.images.numpy()[:, None], 2, axis=1))
    flat = several.numpy().reshape(35, -1)
    assert len({image.tobytes() for image in flat}) == 35
    # Nothing else of a batch changes.
    without = next(iter(mrm.Loader(data, batch_size=7, transform=whole, seed=3, drop_last=True)))
    assert np.array_equal(without.images.numpy(), batch.images.numpy()) and without.crops == []
    # Other threads, ranks and batch sizes change no crop of a record.
    by_record = {row: several.numpy()[at] for at, row in enumerate(batch.rows.numpy().tolist())}
    share = mrm.Loader(data, batch_size=7, transform=whole, crops=crops, seed=3, distributed=(1, 2), threads=3)
    half = next(iter(share))
    for at, row in enumerate(half.rows.numpy().tolist()):
        assert np.array_equal(half.crops[1].numpy()[at], by_record[row])
    with pytest.raises(mrm.ArgumentError):
        mrm.Loader(data, crops=((whole, 0),))


def test_torch_gets_the_crops(mimic: Path) -> None:
    torch = pytest.importorskip("torch")
    from mrm.torch import MrmDataset, MrmMapDataset

    crops = ((mrm.transforms.pretrain(16), 3),)
    batch = next(iter(MrmDataset(mimic, batch_size=4, crops=crops, transform=PLAIN)))
    assert batch["crops"][0].shape == (4, 3, 1, 16, 16) and batch["crops"][0].dtype == torch.float32
    sample = MrmMapDataset(mimic, crops=crops, transform=PLAIN)[int(batch["rows"][1])]
    assert torch.equal(sample["crops"][0], batch["crops"][0][1])
