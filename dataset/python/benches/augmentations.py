"""Augmentations of one gray image of 224 × 224 pixels beside torchvision, OpenCV and albumentations, on one thread.

Reads lines of name and microseconds of ours:

    cargo bench --profile release --workspace --bench augmentations | python dataset/python/benches/augmentations.py

Times are the least of many runs, in microseconds. Ours are on 32-bit floats, as torchvision's and the second ones of OpenCV;
the others are on 8-bit gray levels, to which they round. Ratios are to the fastest of the others.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import albumentations
import cv2
import numpy as np
import torch
from torchvision.transforms.v2 import functional

SIZE = 224
RUNS = 300
BILINEAR = functional.InterpolationMode.BILINEAR


def least(work: Callable[[], Any]) -> float:
    """Microseconds of the fastest of many runs, which end after two seconds."""
    best, end = float("inf"), time.perf_counter() + 2
    for run in range(RUNS):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
        if run > 10 and time.perf_counter() > end:
            break
    return best * 1e6


def peers() -> dict[str, dict[str, Callable[[], Any]]]:
    """For each augmentation the same of each library."""
    y, x = np.mgrid[:SIZE, :SIZE]
    levels = (128 + 80 * np.sin(x / 40) * np.cos(y / 60)).astype(np.uint8)
    floats = levels.astype(np.float32) / 255
    tensor = torch.from_numpy(floats)[None]
    matrix = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), -10, 0.9)
    table = np.rint((np.arange(256) / 255.0) ** 1.2 * 255).astype(np.uint8)
    generator = np.random.default_rng(0)
    clahe = cv2.createCLAHE(2.0, (8, 8))

    def album(transform: Any) -> Callable[[], Any]:
        return lambda: transform(image=levels[..., None])

    def blur(sigma: float) -> dict[str, Callable[[], Any]]:
        side = 2 * int(np.ceil(4 * sigma)) + 1
        return {
            "torchvision": lambda: functional.gaussian_blur(tensor, side, sigma),
            "opencv": lambda: cv2.GaussianBlur(levels, (side, side), sigma),
            "opencv floats": lambda: cv2.GaussianBlur(floats, (side, side), sigma),
            "albumentations": album(
                albumentations.GaussianBlur(blur_limit=(side, side), sigma_limit=(sigma, sigma), p=1)
            ),
        }

    def noise() -> Any:
        return np.clip(floats + np.float32(0.1) * generator.standard_normal((SIZE, SIZE), dtype=np.float32), 0, 1)

    def erased(image: Any) -> Any:
        image = image.copy()
        image[50:121, 60:131] = 0
        return image

    tone = albumentations.RandomBrightnessContrast
    return {
        "affine": {
            "torchvision": lambda: functional.affine(tensor, 10.0, [0, 0], 0.9, [0.0, 0.0], BILINEAR),
            "opencv": lambda: cv2.warpAffine(levels, matrix, (SIZE, SIZE)),
            "opencv floats": lambda: cv2.warpAffine(floats, matrix, (SIZE, SIZE)),
            "albumentations": album(albumentations.Affine(rotate=(10, 10), scale=(0.9, 0.9), p=1)),
        },
        "brightness": {
            "torchvision": lambda: functional.adjust_brightness(tensor, 1.2),
            "opencv": lambda: cv2.convertScaleAbs(levels, alpha=1.2),
            "albumentations": album(tone(brightness_limit=(0.2, 0.2), contrast_limit=0, p=1)),
        },
        "contrast": {
            "torchvision": lambda: functional.adjust_contrast(tensor, 1.2),
            "opencv": lambda: cv2.convertScaleAbs(levels, alpha=1.2, beta=-0.2 * cv2.mean(levels)[0]),
            "albumentations": album(tone(brightness_limit=0, contrast_limit=(0.2, 0.2), p=1)),
        },
        "gamma": {
            "torchvision": lambda: functional.adjust_gamma(tensor, 1.2),
            "opencv": lambda: cv2.LUT(levels, table),
            "opencv floats": lambda: cv2.pow(floats, 1.2),
            "albumentations": album(albumentations.RandomGamma((120, 120), p=1)),
        },
        "clahe": {
            "opencv": lambda: clahe.apply(levels),
            "albumentations": album(albumentations.CLAHE((2, 2), (8, 8), p=1)),
        },
        "gaussian_noise": {
            "torchvision": lambda: functional.gaussian_noise(tensor, 0, 0.1),
            "opencv": lambda: cv2.add(levels, cv2.randn(np.empty((SIZE, SIZE), np.int16), 0, 25), dtype=cv2.CV_8U),
            "numpy": noise,
            "albumentations": album(albumentations.GaussNoise(std_range=(0.1, 0.1), p=1)),
        },
        "gaussian_blur 1": blur(1.0),
        "gaussian_blur 2.75": blur(2.75),
        "erase": {
            "torchvision": lambda: functional.erase(tensor, 50, 60, 71, 71, torch.zeros(1)),
            "opencv": lambda: erased(levels),
            "albumentations": album(
                albumentations.CoarseDropout((1, 1), (0.32, 0.32), (0.32, 0.32), p=1)
            ),
        },
    }


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    ours = dict(line.rstrip("\n").rsplit("\t", 1) for line in sys.stdin if "\t" in line)
    names = ["torchvision", "opencv", "opencv floats", "numpy", "albumentations"]
    print("| augmentation | ours | " + " | ".join(names) + " | ours is faster |")
    print("| --- |" + " --- |" * (len(names) + 2))
    for name, libraries in peers().items():
        times = {library: least(work) for library, work in libraries.items()}
        cells = [f"{times[library]:.1f}" if library in times else "" for library in names]
        mine = float(ours[name])
        ratio = f"{min(times.values()) / mine:.1f}"
        print(f"| {name} | {mine:.1f} | " + " | ".join(cells) + f" | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
