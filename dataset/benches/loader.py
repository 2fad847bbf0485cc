#!/usr/bin/env python3
"""Throughput of the loader and its peers, in turn on the same images.

    loader.py PEERS PEERDATA --dataset BIN --ingest BIN --tokenizer FILE [--names files-npy,mds-raw,...] [--rounds 3]

PEERS is a script `PEERS run PEERDATA NAME --tok FILE --epochs 1 --workers N` that loads PEERDATA as NAME with N workers
and prints one JSON line with `img_s` (images/s) and `cpu_ms` (processor time an image); PEERDATA/files-jpg has the
512-pixel images, PEERDATA/reports.json their reports. `NAME@PYTHON` runs a peer with an interpreter of its own.

The work for each sample is the same for all: read a 512 x 512 gray image, RandomResizedCrop to 448 (scale 0.2..1, bicubic), flip,
normalize to float32, mask the words of 100 token ids; batches of 64, shuffled, two threads or processes. Ours stores raw
pixels, so `files-npy`, `mds-raw`, `wds-npy` and `lit-raw` do no more than ours.

Prints medians as a Markdown table, with the ratio to the fastest peer, and how far ours is from the memory bandwidth.
"""

import argparse
import csv
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("peers", type=pathlib.Path)
parser.add_argument("data", type=pathlib.Path)
parser.add_argument("--dataset", required=True, help="our binary `dataset`")
parser.add_argument("--ingest", required=True, help="our binary `ingest`")
parser.add_argument("--tokenizer", required=True, type=pathlib.Path)
parser.add_argument("--names", default="files-npy,mds-raw,wds-npy,lit-raw,files-jpg,mds-jpg,wds-jpg,lit-jpg,mrm-official")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--seconds", type=float, default=8)
arguments = parser.parse_args()

# Pixels read, resized rows written and read, floats written: bytes that a sample moves at least.
MOVED = 512 * 512 * 2 + 448 * 448 * 4


def children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ingest():
    """Our dataset of the peers' images and reports, made once."""
    out = arguments.data / "ours"
    if not (out / "dataset.json").exists():
        raw = arguments.data / "files-jpg"
        reports = json.loads((arguments.data / "reports.json").read_text())
        table = arguments.data / "ours.csv"
        with open(table, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "report", "patient"])
            rows.writerows([f"{row:06d}.jpg", report, f"p{row}"] for row, report in enumerate(reports))
        columns = ["--image-column", "image", "--report-column", "report", "--patient-column", "patient"]
        subprocess.run(
            [arguments.ingest, "folder", raw, out, "--size", "512", "--table", table, *columns]
            + ["--tokenizer", arguments.tokenizer],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
    return out


def ours(dataset, transform, threads):
    """Images/s, and milliseconds of processor time an image; start-up included in the latter."""
    before = children_seconds()
    command = [arguments.dataset, "bench", dataset, "--transform", transform, "--size", "448", "--batch-size", "64"]
    command += ["--threads", str(threads), "--seconds", str(arguments.seconds)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    images = int(re.search(r"(\d+) images in", output)[1])
    rate = float(re.search(r"threads: (\d+) images/s", output)[1])
    return rate, 1000 * (children_seconds() - before) / images


def peer(name):
    name, _, python = name.partition("@")
    command = [python or sys.executable, arguments.peers, "run", arguments.data, name, "--tok", arguments.tokenizer]
    command += ["--epochs", "1", "--workers", str(arguments.workers)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if done.returncode != 0:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    output = json.loads(done.stdout.strip().splitlines()[-1])
    return output["img_s"], output["cpu_ms"]


def bandwidth():
    """Bytes/s read and written by a large copy on one core."""
    import numpy as np
    import time

    source, target = np.ones(1 << 27, np.uint8), np.ones(1 << 27, np.uint8)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(times)


dataset = ingest()
names = arguments.names.split(",")
found = {}
for round in range(arguments.rounds):
    # Ours before each peer, so that other load on the machine affects both.
    for name in names:
        found.setdefault("ours", []).append(ours(dataset, "pretrain", arguments.workers))
        result = peer(name)
        if result:
            found.setdefault(name.partition("@")[0], []).append(result)
medians = {name: tuple(statistics.median(values) for values in zip(*results)) for name, results in found.items()}
our_rate, our_cpu = medians.pop("ours")
fastest = max(rate for rate, _ in medians.values())
print("| loader | images/s | processor ms an image | ours is faster |")
print("| --- | --- | --- | --- |")
print(f"| **ours** | {our_rate:.0f} | {our_cpu:.3f} | |")
for name, (rate, cpu) in sorted(medians.items(), key=lambda entry: -entry[1][0]):
    print(f"| {name} | {rate:.0f} | {cpu:.2f} | {our_rate / rate:.1f} |")
print(f"\nours to the fastest peer: {our_rate / fastest:.1f} ({arguments.workers} workers, medians of {arguments.rounds})")
reads = statistics.median(ours(dataset, "none", 1)[0] for _ in range(arguments.rounds))
one = statistics.median(ours(dataset, "pretrain", 1)[0] for _ in range(arguments.rounds))
copied = bandwidth()
print(f"random reads of raw images, one thread, page cache: {reads:.0f} images/s ({reads * 512 * 512 / 1e9:.1f} GB/s)")
print(f"one thread: {one:.0f} images/s; {MOVED / 1e6:.2f} MB moved a sample at least: {one * MOVED / copied * 100:.0f}% of the")
print(f"memory bandwidth ({copied / 1e9:.1f} GB/s, a large copy, read and written)")
