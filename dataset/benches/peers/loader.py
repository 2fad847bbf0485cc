#!/usr/bin/env python3
"""Our loader beside those of Python, in turn on the same images and reports.

    dataset/benches/peers/loader.py --ingest target/release/ingest --dataset target/release/dataset --work DIR

The images are synthetic radiographs of 512 × 512 with their reports, written once below DIR in every format. For each
sample, all read an image, crop it to 448 (RandomResizedCrop, scale 0.2 to 1, bicubic), flip and normalize it to float32,
and mask the words of 100 tokens; batches of 64, shuffled, files in the page cache, as many threads or worker processes.
The rate is measured from the first batch on. `-npy` and `-raw` store pixels as ours does.

Prints medians as a Markdown table. The processor time of ours includes the start of the program. `--names` chooses among
the loaders of `formats.py`.
"""

import argparse
import contextlib
import glob
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import formats

# Pixels read, resized rows written and read, floats written: bytes that a sample moves at least.
MOVED = formats.SIDE**2 * 2 + formats.CROP**2 * 4
DEFAULT = "mds-raw,mds-jpg,files-npy,lit-raw,wds-npy,hf-map,mrm-official"


def main():
    options = arguments()
    if options.peer:
        return print(json.dumps(measure_peer(options)))
    options.work.mkdir(parents=True, exist_ok=True)
    ours = make_dataset(options)
    options.tokenizer = ours / "tokenizer.json"
    samples = None
    for name in options.names:
        folder, write, _ = formats.LOADERS[name]
        if not (options.work / folder / ".complete").exists():
            samples = samples or read_samples(ours)
            (options.work / folder).mkdir(exist_ok=True)
            with contextlib.redirect_stdout(sys.stderr):
                write(options.work / folder, samples)
            (options.work / folder / ".complete").touch()
    del samples
    found = {}
    for _ in range(options.rounds):
        for name in options.names:
            # Ours before each peer, so that other load on the machine affects both.
            found.setdefault("ours", []).append(measure_ours(options, ours, "pretrain", options.workers))
            found.setdefault(name, []).append(run_peer(options, name))
    show(options, ours, found)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ingest", type=Path, help="our binary `ingest`")
    parser.add_argument("--dataset", type=Path, help="our binary `dataset`")
    parser.add_argument("--work", type=Path, required=True, help="where the data is written, or lies")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--names", default=DEFAULT, type=lambda text: text.split(","))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement of ours")
    parser.add_argument("--peer", help="measure this loader alone and print JSON")
    parser.add_argument("--tokenizer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in formats.LOADERS]
    if unknown:
        parser.error(f"no loader {unknown[0]}: there are {', '.join(formats.LOADERS)}")
    if not (options.peer or options.ingest and options.dataset):
        parser.error("give --ingest and --dataset")
    if options.images <= options.batch_size:
        parser.error("--images must be more than --batch-size")
    return options


def make_dataset(options):
    """Our dataset, made once, of at least `--images` records."""
    raw, out = options.work / "raw", options.work / "ours"
    if not (out / "dataset.json").exists():
        # A study has one image or two.
        sizes = ["--studies", str(options.images), "--size", str(formats.SIDE)]
        run([options.ingest, "phantom", "mimic-cxr", raw, *sizes])
        flags = ["--size", str(formats.SIDE), "--resize", "stretch", "--limit", str(options.images)]
        run([options.ingest, "mimic-cxr", raw, out, *flags, "--max-tokens", str(formats.TOKENS)])
    return out


def read_samples(ours):
    """Pixels, padded token ids and report of every record of our dataset."""
    import numpy as np
    import pyarrow.parquet as pq

    samples = []
    for shard in sorted(glob.glob(f"{ours}/shards/*.parquet")):
        columns = ["image", "height", "width", "token_ids", "report"]
        for row in pq.read_table(shard, columns=columns).to_pylist():
            ids = np.zeros(formats.TOKENS, np.int32)
            ids[: len(row["token_ids"])] = row["token_ids"]
            pixels = np.frombuffer(row["image"], np.uint8).reshape(row["height"], row["width"])
            assert pixels.shape == (formats.SIDE, formats.SIDE), pixels.shape
            samples.append((pixels, ids, row["report"]))
    return samples


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        sys.exit(f"{Path(command[0]).name} {command[1]}: {lines[-1]}")
    return done.stdout


def processor_seconds(who):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def measure_ours(options, ours, transform, threads):
    """Images/s, and milliseconds of processor time an image."""
    before = processor_seconds(resource.RUSAGE_CHILDREN)
    command = [options.dataset, "bench", ours, "--transform", transform, "--size", formats.CROP]
    command += ["--batch-size", options.batch_size, "--threads", threads, "--seconds", options.seconds]
    printed = run(command)
    images = int(re.search(r"(\d+) images in", printed)[1])
    rate = float(re.search(r"threads?: (\d+) images/s", printed)[1])
    return rate, 1000 * (processor_seconds(resource.RUSAGE_CHILDREN) - before) / images


def run_peer(options, name):
    command = [sys.executable, Path(__file__).resolve(), "--peer", name, "--work", options.work]
    command += ["--workers", options.workers, "--batch-size", options.batch_size, "--tokenizer", options.tokenizer]
    found = json.loads(run(command).splitlines()[-1])
    return found["images_s"], found["cpu_ms"]


def measure_peer(options):
    """One epoch of a loader, after a first one that warms it up."""
    import random

    import cv2
    import numpy as np
    import torch
    import torchvision.transforms  # noqa: F401: before the workers are forked, which then need not import it

    torch.set_num_threads(1)
    cv2.setNumThreads(0)

    def seed_worker(_):
        seed = torch.initial_seed() % 2**32
        np.random.seed(seed)
        random.seed(seed)

    folder, _, open_dataset = formats.LOADERS[options.peer]
    dataset, more = open_dataset(options.work / folder, formats.Work(options.tokenizer), options)
    make = torch.utils.data.DataLoader
    if options.peer.startswith("lit"):
        from litdata import StreamingDataLoader as make
    else:
        more |= {"worker_init_fn": seed_worker}
    batches = make(dataset, batch_size=options.batch_size, num_workers=options.workers, drop_last=True, **more)
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    for _ in range(2):
        before = sum(map(processor_seconds, both))
        first, images = None, 0
        iterator = iter(batches)
        for pixels, *_ in iterator:
            assert pixels.shape[-1] == formats.CROP and pixels.dtype == torch.float32, (pixels.shape, pixels.dtype)
            images += len(pixels)
            first = first or (time.perf_counter(), images)
        seconds = time.perf_counter() - first[0]
        del iterator  # ends the workers, whose processor time is known then
        processor = sum(map(processor_seconds, both)) - before
    if images == first[1]:
        sys.exit("only one batch: give more --images")
    return {"images_s": (images - first[1]) / seconds, "cpu_ms": 1000 * processor / images}


def bandwidth():
    """Bytes/s read and written by a large copy on one core."""
    import numpy as np

    source, target = np.ones(1 << 27, np.uint8), np.ones(1 << 27, np.uint8)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(times)


def show(options, ours, found):
    middle = lambda rows: tuple(statistics.median(column) for column in zip(*rows))
    medians = {name: middle(rows) for name, rows in found.items()}
    our_rate, our_cpu = medians.pop("ours")
    print("| loader | images/s | processor ms an image | ours is faster | processor time saved |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| **ours** | {our_rate:.0f} | {our_cpu:.3f} | | |")
    for name, (rate, cpu) in sorted(medians.items(), key=lambda entry: -entry[1][0]):
        print(f"| {name} | {rate:.0f} | {cpu:.2f} | {our_rate / rate:.1f} | {cpu / our_cpu:.1f} |")
    fastest = max(rate for rate, _ in medians.values())
    workers = f"{options.workers} workers, {os.cpu_count()} cores, medians of {options.rounds}"
    print(f"\nratio to the fastest peer: {our_rate / fastest:.1f} ({workers})")
    reads = middle([measure_ours(options, ours, "none", 1) for _ in range(options.rounds)])[0]
    one = middle([measure_ours(options, ours, "pretrain", 1) for _ in range(options.rounds)])[0]
    copied = bandwidth()
    print(f"random reads of raw images, one thread: {reads:.0f} images/s ({reads * formats.SIDE**2 / 1e9:.1f} GB/s)")
    print(f"one thread: {one:.0f} images/s; a sample moves {MOVED / 1e6:.2f} MB at least: {one * MOVED / copied:.0%} of "
          f"the memory bandwidth ({copied / 1e9:.1f} GB/s, a large copy, read and written)")


if __name__ == "__main__":
    main()
