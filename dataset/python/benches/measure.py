"""Measures one loader in a process of its own: measure.py JSON. Prints JSON. `loader.py` calls it.

Times are in seconds, memory in bytes. Nothing is measured while another thing is: memory after the rate.
"""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEMORY_BATCHES = 12
# The first batches of an epoch, which are not counted as waiting: worker processes begin anew.
EPOCH_START = 2


def main() -> None:
    job = json.loads(sys.argv[1])
    import formats  # torch, OpenCV: what a training program imports, too
    import torch

    if package := formats.PACKAGES.get(job["name"].split("-")[0]):
        importlib.import_module(package)
    torch.set_num_threads(1)
    compute = computation(job["step_s"]) if job["kind"] == "loop" else None
    began = time.monotonic()
    loader = open_loader(job, formats)
    epoch = iter(loader)
    count = check(next(epoch), formats)
    first = time.monotonic()
    found: dict[str, Any] = {"from_start_s": first - job["started"], "from_loader_s": first - began}
    if job["kind"] == "store":
        images = sum(size(batch) for batch in epoch)
        found["images_s"] = images / (time.monotonic() - first)
    elif job["kind"] == "loop":
        del epoch
        found["sleep"] = steps(loader, job["steps"], lambda: time.sleep(job["step_s"]))
        found["compute"] = steps(loader, job["steps"], compute)
    else:
        for _ in epoch:  # warms up caches
            count += 1
        if count < 3:
            sys.exit("fewer than 3 batches: give more --images")
        found |= rate(loader, job["seconds"])
        found["memory"] = max(memory() for _ in itertools.islice(loader, MEMORY_BATCHES))
    print(json.dumps(found), flush=True)


def open_loader(job: dict[str, Any], formats: Any) -> Any:
    if job["name"] == "ours":
        import mrm
        from mrm.torch import MrmDataset

        return MrmDataset(
            job["remote"] or job["folder"], batch_size=job["batch_size"], transform=mrm.transforms.pretrain(formats.CROP),
            text=mrm.Text(tokens=formats.TOKENS), drop_last=True, threads=job["workers"],
        )
    options = formats.Options(
        Path(job["folder"]), Path(job["tokenizer"]), job["workers"], job["batch_size"], job["remote"]
    )
    return formats.LOADERS[job["name"]][2](options)


def check(batch: Any, formats: Any) -> int:
    pixels = images_of(batch)
    assert pixels.shape[-1] == formats.CROP and str(pixels.dtype) == "torch.float32", (pixels.shape, pixels.dtype)
    return 1


def images_of(batch: Any) -> Any:
    return batch["images"] if isinstance(batch, dict) else batch[0]


def size(batch: Any) -> int:
    return len(images_of(batch))


def rate(loader: Any, seconds: float) -> dict[str, float]:
    """Images/s within epochs, from the first batch of each on, and processor time of an image."""
    timed = images = every = 0.0
    processor = processor_time()
    while timed < seconds:
        epoch = iter(loader)
        every += size(next(epoch))
        began = time.monotonic()
        got = sum(size(batch) for batch in epoch)
        timed += time.monotonic() - began
        images, every = images + got, every + got
    return {"images_s": images / timed, "cpu_ms": 1000 * (processor_time() - processor) / every}


def processes() -> list[Any]:
    import psutil

    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def processor_time() -> float:
    return sum(sum(process.cpu_times()[:4]) for process in processes())


def memory() -> int:
    """Proportional set size of all processes: pages that several share are counted once."""
    kibibytes = 0
    for process in processes():
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        kibibytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kibibytes * 1024


def computation(seconds: float) -> Any:
    """Work of one thread that takes so many seconds alone."""
    import torch

    matrix = torch.rand(256, 256)
    began, products = time.monotonic(), 0
    while time.monotonic() - began < 10 * seconds:
        torch.mm(matrix, matrix)
        products += 1

    def compute() -> None:
        for _ in range(products // 10):
            torch.mm(matrix, matrix)

    return compute


def numbered(loader: Any) -> Iterator[int]:
    """Batches of epoch after epoch, each as its number within the epoch."""
    while True:
        for number, _ in enumerate(loader):
            yield number


def steps(loader: Any, count: int, work: Any) -> dict[str, float]:
    """Milliseconds of a step: waiting for the loader, and in all."""
    waits: list[float] = []
    wholes: list[float] = []
    batches = numbered(loader)
    while len(waits) < count:
        began = time.monotonic()
        number = next(batches)
        got = time.monotonic()
        work()
        if number >= EPOCH_START:
            waits.append(got - began)
            wholes.append(time.monotonic() - began)
    return {"wait_ms": 1000 * sum(waits) / count, "step_ms": 1000 * sum(wholes) / count}


if __name__ == "__main__":
    main()
