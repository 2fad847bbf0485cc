#!/usr/bin/env python3
"""Our loader beside those of Python, in turn on the same images and reports.

    dataset/python/benches/loader.py --ingest target/release/ingest --dataset target/release/dataset --work DIR

The images are synthetic radiographs of 512 × 512 with their reports, written once below DIR in every format. For each
sample, all read an image, crop it to 448 (RandomResizedCrop, scale 0.2 to 1, bicubic), flip and normalize it to float32,
and mask the words of 100 tokens; batches of 64, shuffled, as torch tensors, files in the page cache, as many threads or
worker processes as cores (all processes are bound to these). `ours` is `mrm.torch.MrmDataset`; `ours (Rust)` is `dataset
bench`, which makes the same arrays and drops them. `formats.py` says what the peers do.

Prints medians as Markdown tables. Rates are measured within an epoch, from its first batch on; `from start` is the time to
the first batch from the start of the process, imports included, `from loader` that from before the loader is made. Memory
is the proportional set size of all processes (for Rust: the resident set). `--loop` also measures how long the steps of a
training loop wait, `--store` the first epoch from an S3 server with empty caches.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import formats
import store

DEFAULT = "files-raw,files-pillow,spdl-raw,mds-raw,lit-raw,wds-raw,hf-raw,mrm-official"
OURS, RUST = "ours", "ours (Rust)"
# How often a measurement of a loader that fails is tried.
ATTEMPTS = 3
# Those that read from an object store.
STORED = ("mds", "lit", "wds")
Row = dict[str, Any]


def main() -> None:
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    ours = make_dataset(options)
    write_formats(options, ours)
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        urls = stored(options, ours, stack) if options.store else {}
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.workers])
        for number in range(options.rounds):
            # Each round begins with another loader, so that other load on the machine affects all.
            names = [OURS, *options.names, RUST]
            names = names[number % len(names) :] + names[: number % len(names)]
            for name in names:
                if name == RUST:
                    rows.append(measure_rust(options, ours) | {"kind": "rate", "loader": name, "round": number})
                    continue
                kinds = ["rate"] + ["loop"] * options.loop + ["store"] * (name in urls)
                for kind in kinds:
                    found = measure(options, ours, name, kind, urls.get(name) if kind == "store" else None)
                    rows.append(found | {"kind": kind, "loader": name, "round": number})
    if options.json:
        options.json.write_text(json.dumps({"cores": options.workers, "rows": rows}, indent=1))
    show(options, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ingest", type=Path, required=True, help="our binary `ingest`")
    parser.add_argument("--dataset", type=Path, required=True, help="our binary `dataset`")
    parser.add_argument("--work", type=Path, required=True, help="where the data is written, or was written")
    parser.add_argument("--images", type=int, help="default: 1280, or 6 batches for each worker where that is more")
    parser.add_argument("--names", default=DEFAULT, type=lambda text: text.split(","), help=f"default: {DEFAULT}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: one for each core")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5, help="of each measured rate, at least")
    parser.add_argument("--loop", action="store_true", help="a second table: a training loop")
    parser.add_argument("--step", type=float, default=50, help="milliseconds of a step of the training loop")
    parser.add_argument("--steps", type=int, default=40, help="steps of the training loop")
    parser.add_argument("--store", action="store_true", help="a further table: an S3 server")
    parser.add_argument("--json", type=Path, help="writes all rounds to this file")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in formats.LOADERS]
    if unknown:
        parser.error(f"no loader {unknown[0]}: there are {', '.join(formats.LOADERS)}")
    each = options.workers * options.batch_size
    options.images = options.images or max(1280, 6 * each)
    if options.images < 3 * each:
        parser.error("--images must be at least 3 batches for each worker")
    return options


def make_dataset(options: argparse.Namespace) -> Path:
    """Our dataset, made once, of at least `--images` records."""
    raw: Path = options.work / "raw"
    out: Path = options.work / "ours"
    if not (out / "dataset.json").exists():
        # A study has one image or two.
        sizes = ["--studies", str(options.images), "--size", str(formats.SIDE)]
        run([options.ingest, "phantom", "mimic-cxr", raw, *sizes])
        flags = ["--size", str(formats.SIDE), "--resize", "stretch", "--limit", str(options.images)]
        run([options.ingest, "mimic-cxr", raw, out, *flags, "--max-tokens", str(formats.TOKENS)])
    return out


def write_formats(options: argparse.Namespace, ours: Path) -> None:
    samples: list[formats.Sample] = []
    for name in options.names:
        folder, write, _ = formats.LOADERS[name]
        target = options.work / folder
        if not (target / ".complete").exists():
            samples = samples or read_samples(ours)
            target.mkdir(exist_ok=True)
            with contextlib.redirect_stdout(sys.stderr):
                write(target, samples)
            (target / ".complete").touch()


def read_samples(ours: Path) -> list[formats.Sample]:
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


def stored(options: argparse.Namespace, ours: Path, stack: contextlib.ExitStack) -> dict[str, str]:
    """Starts the server: URLs of what can be read from there, by loader."""
    stack.enter_context(store.serve(options.work))
    names = [name for name in options.names if name.startswith(STORED)]
    # WebDataset does not list a bucket.
    os.environ["TARS"] = ",".join(sorted(path.name for path in (options.work / "wds-raw").glob("*.tar")))
    folders = {OURS: ours} | {name: options.work / formats.LOADERS[name][0] for name in names}
    return {name: f"s3://{store.BUCKET}/{folder.name}" for name, folder in folders.items()}


def run(command: list[Any]) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        sys.exit(f"{' '.join(Path(str(word)).name for word in command[:2])}: {lines[-1]}")
    return done.stdout


def measure(options: argparse.Namespace, ours: Path, name: str, kind: str, remote: str | None) -> Row:
    """One loader in a process of its own."""
    folder = ours if name == OURS else options.work / formats.LOADERS[name][0]
    if remote and name != OURS:
        folder = options.work / "cache"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    job: dict[str, Any]
    job = {"name": name, "kind": kind, "folder": str(folder), "remote": remote, "tokenizer": str(ours / "tokenizer.json")}
    job |= {"workers": options.workers, "batch_size": options.batch_size, "seconds": options.seconds}
    job |= {"step_s": options.step / 1000, "steps": options.steps, "started": time.monotonic()}
    command = [sys.executable, Path(__file__).resolve().with_name("measure.py"), json.dumps(job)]
    for _ in range(ATTEMPTS - 1):
        # Some of the peers fail now and then, such as MDS where an epoch was left early.
        with contextlib.suppress(SystemExit):
            return parsed(run(command))
        print(f"{name} failed ({kind}); it is measured again", file=sys.stderr)
    return parsed(run(command))


def parsed(printed: str) -> Row:
    found: Row = json.loads(printed.splitlines()[-1])
    return found


def measure_rust(options: argparse.Namespace, ours: Path) -> Row:
    command = [options.dataset, "bench", ours, "--transform", "pretrain", "--size", formats.CROP]
    command += ["--batch-size", options.batch_size, "--threads", options.workers, "--seconds", options.seconds]
    began = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    printed = process.stdout.read()
    whole = time.monotonic() - began
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"dataset bench: exit code {process.returncode}")
    numbers = re.search(r"first batch after (\d+) ms; (\d+) images in ([\d.]+) s", printed)
    assert numbers, printed
    first, images, seconds = numbers.groups()
    return {
        "images_s": int(images) / float(seconds),
        "cpu_ms": 1000 * (used.ru_utime + used.ru_stime) / (int(images) + options.batch_size),
        "from_start_s": whole - float(seconds),
        "from_loader_s": int(first) / 1000,
        "memory": used.ru_maxrss * 1024,
    }


def medians(rows: list[Row], kind: str) -> dict[str, Row]:
    """Medians of all rounds by loader; nested values as `sleep.wait_ms`."""
    found: dict[str, Row] = {}
    for name in dict.fromkeys(row["loader"] for row in rows if row["kind"] == kind):
        flat = []
        for row in (row for row in rows if row["kind"] == kind and row["loader"] == name):
            inner = {f"{key}.{each}": row[key][each] for key in row if isinstance(row[key], dict) for each in row[key]}
            flat.append({key: value for key, value in (row | inner).items() if isinstance(value, (int, float))})
        found[name] = {key: statistics.median(row[key] for row in flat) for key in flat[0]}
    return found


def table(title: str, columns: list[str], lines: dict[str, list[str]]) -> None:
    print(f"\n{title}\n\n| loader | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for name, cells in lines.items():
        print(f"| {f'**{name}**' if name in (OURS, RUST) else name} | {' | '.join(cells)} |")


def show(options: argparse.Namespace, rows: list[Row]) -> None:
    found = medians(rows, "rate")
    best = max(found[name]["images_s"] for name in options.names)
    order = sorted(found, key=lambda name: -found[name]["images_s"])
    table(
        f"{options.workers} workers on as many cores, batches of {options.batch_size}, medians of {options.rounds}",
        ["images/s", "of the best peer", "processor ms an image", "first batch: from start, s", "from loader, s", "memory, MB"],
        {
            name: [
                f"{found[name]['images_s']:.0f}", f"{found[name]['images_s'] / best:.2f}", f"{found[name]['cpu_ms']:.3f}",
                f"{found[name]['from_start_s']:.2f}", f"{found[name]['from_loader_s']:.2f}", f"{found[name]['memory'] / 1e6:.0f}",
            ]
            for name in order
        },
    )
    if options.loop:
        found = medians(rows, "loop")
        keys = ["sleep.wait_ms", "sleep.step_ms", "compute.wait_ms", "compute.step_ms"]
        table(
            f"A loop with steps of {options.step:g} ms (alone), in which the main thread sleeps or computes; means of a step",
            ["sleeps: waits, ms", "step, ms", "computes: waits, ms", "step, ms"],
            {name: [f"{found[name][key]:.1f}" for key in keys] for name in found},
        )
    if options.store:
        found = medians(rows, "store")
        table(
            "First epoch from an S3 server on the same cores, empty caches",
            ["images/s", "first batch: from start, s", "from loader, s"],
            {
                name: [f"{row['images_s']:.0f}", f"{row['from_start_s']:.2f}", f"{row['from_loader_s']:.2f}"]
                for name, row in found.items()
            },
        )


if __name__ == "__main__":
    main()
