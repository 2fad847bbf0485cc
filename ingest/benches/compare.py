#!/usr/bin/env python3
"""Runs `ingest` and a tuned Python pipeline alternately on the same raw files; prints medians and ratios.

compare.py --ingest BINARY --peers DIR --tokenizer TOKENIZER.json --work DIR [--studies 120] [--runs 3] [--jobs 2]

DIR of --peers holds `make_raw.py` (writes synthetic full-size DICOM and JPEG trees) and `ingest_peer.py` (decode, window,
resize to 512, tokenize, zstd Parquet, in worker processes). Kinds: uncompressed DICOM, JPEG-lossless DICOM, full-size
JPEG. `ingest` writes zstd pages like the other pipeline, and also hashes every file. The page cache is warm for both.
"""
import argparse
import csv
import gzip
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

LOSSLESS = b"1.2.840.10008.1.2.4.70"


def trees(raw: Path, jpeg: Path, work: Path) -> dict[str, Path]:
    """Makes a tree of hard links for each kind of file, with its own metadata table."""
    found = {"dicom-raw": [], "dicom-jll": []}
    for path in sorted(raw.glob("files/p*/p*/s*/*.dcm")):
        with open(path, "rb") as file:
            found["dicom-jll" if LOSSLESS in file.read(1024) else "dicom-raw"].append(path)
    made = {"jpeg": jpeg}
    for kind, paths in found.items():
        made[kind] = work / kind
        stems = set()
        for path in paths:
            relative = path.relative_to(raw)
            stems.add(path.stem)
            for source, target in ((path, made[kind] / relative), (report(path), report(made[kind] / relative))):
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    os.link(source, target)
        name = "mimic-cxr-2.0.0-metadata.csv.gz"
        with gzip.open(raw / name, "rt", newline="") as source:
            rows = list(csv.DictReader(source))
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0].keys())
        writer.writeheader()
        writer.writerows(row for row in rows if row["dicom_id"] in stems)
        (made[kind] / name).write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    return made


def report(image: Path) -> Path:
    return image.parent.with_suffix(".txt")


def ours(binary: Path, raw: Path, out: Path, tokenizer: Path, jobs: int) -> dict[str, float]:
    """One run: images a second, CPU seconds an image, peak memory in MiB."""
    shutil.rmtree(out, ignore_errors=True)
    command = [binary, "mimic-cxr", raw, out, "--size", "512", "--tokenizer", tokenizer, "--compression", "zstd"]
    command += ["--report-text", "findings+impression", "--jobs", str(jobs)]
    start = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status != 0:
        sys.exit(f"ingest failed on {raw}")
    images = json.loads((out / "dataset.json").read_text())["totals"]["records"]
    return {
        "img_s": images / wall,
        "cpu": (usage.ru_utime + usage.ru_stime) / images,
        "peak": usage.ru_maxrss / 1024,
        "n": images,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ingest", "peers", "tokenizer", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--studies", type=int, default=120)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    work: Path = arguments.work
    raw, jpeg = work / "raw", work / "jpeg"
    peers = arguments.peers
    subprocess.run(
        [sys.executable, peers / "make_raw.py", str(arguments.studies), raw, "--jpeg-out", jpeg], check=True
    )
    tree = trees(raw, jpeg, work)
    print(f"{'kind':<10} {'images':>6} {'ours/s':>8} {'peer/s':>8} {'ratio':>6} {'ours CPU ms':>12} {'peer CPU ms':>12} {'ratio':>6} {'peak MiB':>9}")
    for kind in ("dicom-raw", "dicom-jll", "jpeg"):
        mine, theirs = [], []
        ours(arguments.ingest, tree[kind], work / "out", arguments.tokenizer, arguments.jobs)  # warms the page cache
        for _ in range(arguments.runs):
            mine.append(ours(arguments.ingest, tree[kind], work / "out", arguments.tokenizer, arguments.jobs))
            command = [sys.executable, peers / "ingest_peer.py", jpeg if kind == "jpeg" else raw, kind, work / "peer"]
            command += ["--tok", arguments.tokenizer, "--workers", str(arguments.jobs), "--runs", "1"]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            theirs.append(json.loads(output.splitlines()[-1]))
        middle = lambda rows, key: statistics.median(row[key] for row in rows)
        rate, cpu = (middle(mine, "img_s"), middle(theirs, "img_s")), (middle(mine, "cpu"), middle(theirs, "cpu"))
        print(
            f"{kind:<10} {int(mine[0]['n']):>6} {rate[0]:>8.1f} {rate[1]:>8.1f} {rate[0] / rate[1]:>6.2f} "
            f"{cpu[0] * 1e3:>12.1f} {cpu[1] * 1e3:>12.1f} {cpu[1] / cpu[0]:>6.2f} {max(row['peak'] for row in mine):>9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
