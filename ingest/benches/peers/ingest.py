#!/usr/bin/env python3
"""`ingest` beside a tuned Python pipeline, in turn on the same raw files.

    ingest/benches/peers/ingest.py --ingest target/release/ingest --work DIR [--studies 120] [--runs 3] [--jobs 2]

The raw files are synthetic radiographs of some 2544 × 3056 pixels in MIMIC-CXR's layout, written once below DIR: DICOM of
12 bits uncompressed, the same as JPEG-lossless DICOM, and as JPEG of quality 95.

Both decode, apply the first window, invert MONOCHROME1, resize the shorter side to 512, tokenize findings and impression,
and write Parquet with zstd pages. The pipeline uses pydicom, gdcm, OpenCV (for JPEG with libjpeg's reduced decoding),
tokenizers and pyarrow in worker processes. `ingest` also hashes every file. The page cache is warm.

Prints medians as a Markdown table. The processor time of ours includes the start of the program, that of the pipeline not.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

SIDE, TOKENS, QUALITY = 512, 100, 95
SHARD = 256
KINDS = {"dicom": "uncompressed DICOM", "dicom-lossless": "JPEG-lossless DICOM", "jpeg": "JPEG"}


def main():
    options = arguments()
    if options.peer:
        return print(json.dumps(measure_peer(options)))
    work = options.work
    make_trees(options)
    out = work / "out"
    if not options.tokenizer:
        options.tokenizer = work / "tokenizer.json"
        if not options.tokenizer.exists():
            run_ours(options, "dicom", out, "train")
            shutil.copy(out / "tokenizer.json", options.tokenizer)
    head = ["files", "images", "`ingest`, images/s", "Python, images/s", "ratio", "`ingest`, CPU ms an image",
            "Python, CPU ms an image", "ratio", "`ingest`, peak memory"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for kind in options.kinds:
        ours, peers = [], []
        run_ours(options, kind, out, options.tokenizer)  # warms the page cache
        for _ in range(options.runs):
            ours.append(run_ours(options, kind, out, options.tokenizer))
            peers.append(run_peer(options, kind))
        if ours[0]["images"] != peers[0]["images"]:
            sys.exit(f"{kind}: {ours[0]['images']} images ingested, the pipeline has {peers[0]['images']}")
        median = lambda rows, key: statistics.median(row[key] for row in rows)
        rate, peer_rate = median(ours, "images_s"), median(peers, "images_s")
        cpu, peer_cpu = median(ours, "cpu_ms"), median(peers, "cpu_ms")
        cells = [KINDS[kind], str(ours[0]["images"]), f"{rate:.1f}", f"{peer_rate:.1f}", f"**{rate / peer_rate:.1f}**"]
        cells += [f"{cpu:.1f}", f"{peer_cpu:.1f}", f"**{peer_cpu / cpu:.1f}**", f"{median(ours, 'peak_mib'):.0f} MiB"]
        print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\nmedians of {options.runs}, {options.jobs} jobs, {os.cpu_count()} cores")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ingest", type=Path, help="our binary `ingest`")
    parser.add_argument("--work", type=Path, required=True, help="where the files are written, or lie")
    parser.add_argument("--studies", type=int, default=120, help="a study has one image or two")
    parser.add_argument("--size", type=int, default=2544, help="nominal shorter side of the raw images")
    parser.add_argument("--kinds", default=",".join(KINDS), type=lambda text: text.split(","))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json; by default one is trained on the reports")
    parser.add_argument("--peer", choices=KINDS, help="measure the pipeline alone and print JSON")
    options = parser.parse_args()
    unknown = [kind for kind in options.kinds if kind not in KINDS]
    if unknown:
        parser.error(f"no kind {unknown[0]}: there are {', '.join(KINDS)}")
    if not (options.ingest or options.peer):
        parser.error("give --ingest")
    if min(options.studies, options.runs, options.jobs) < 1:
        parser.error("--studies, --runs and --jobs must be at least 1")
    return options


# The raw files.


def make_trees(options):
    """Writes the tree of each kind, unless it is there."""
    work, first = options.work, options.work / "dicom"
    if not (work / "dicom.complete").exists():
        studies, size = str(options.studies), str(options.size)
        checked([options.ingest, "phantom", "mimic-cxr", first, "--studies", studies, "--size", size])
        (work / "dicom.complete").touch()
    for kind, convert, ending in (("dicom-lossless", to_lossless, "dcm"), ("jpeg", to_jpeg, "jpg")):
        if kind not in options.kinds or (work / f"{kind}.complete").exists():
            continue
        shutil.rmtree(work / kind, ignore_errors=True)
        for path in sorted(first.rglob("*")):
            target = work / kind / path.relative_to(first)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif path.suffix == ".dcm":
                convert(path, target.with_suffix(f".{ending}"))
            else:
                shutil.copy(path, target)
        (work / f"{kind}.complete").touch()


def to_lossless(source, target):
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    if not reader.Read():
        sys.exit(f"{source}: gdcm cannot read it")
    change.SetInput(reader.GetImage())
    if not change.Change():
        sys.exit(f"{source}: gdcm cannot encode it")
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        sys.exit(f"{target}: gdcm cannot write it")


def to_jpeg(source, target):
    import cv2

    if not cv2.imwrite(str(target), gray(source), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
        sys.exit(f"{target}: OpenCV cannot write it")


# Ours.


def checked(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        sys.exit(f"{Path(command[0]).name} {command[1]}: {lines[-1]}")
    return done.stdout


def run_ours(options, kind, out, tokenizer):
    """Images/s, processor time an image, and peak memory of one run."""
    shutil.rmtree(out, ignore_errors=True)
    command = [options.ingest, "mimic-cxr", options.work / kind, out, "--size", SIDE, "--tokenizer", tokenizer]
    command += ["--compression", "zstd", "--report-text", "findings+impression", "--jobs", options.jobs]
    command += ["--max-tokens", TOKENS]
    started = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    message = process.stderr.read().decode(errors="replace").strip()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        sys.exit(f"ingest {kind}: {message.splitlines()[-1] if message else status}")
    images = json.loads((out / "dataset.json").read_text())["totals"]["records"]
    cpu_ms = 1000 * (used.ru_utime + used.ru_stime) / images
    return {"images": images, "images_s": images / seconds, "cpu_ms": cpu_ms, "peak_mib": used.ru_maxrss / 1024}


# The Python pipeline.


def run_peer(options, kind):
    command = [sys.executable, Path(__file__).resolve(), "--peer", kind, "--work", options.work]
    return json.loads(checked([*command, "--jobs", options.jobs, "--tokenizer", options.tokenizer]).splitlines()[-1])


def gray(path):
    """8-bit pixels of a DICOM file: modality rescale and first window by a table over the stored values, and inversion."""
    import numpy as np
    import pydicom

    file = pydicom.dcmread(path)
    syntax = file.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        stored = pydicom.pixels.get_decoder(syntax).as_array(file, decoding_plugin="gdcm")[0]
    else:
        stored = np.frombuffer(file.PixelData, np.uint16).reshape(file.Rows, file.Columns)
    first = lambda value: float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)
    center, width = first(file.WindowCenter), first(file.WindowWidth)
    values = np.arange(1 << file.BitsStored, dtype=np.float32)
    values = values * float(file.get("RescaleSlope", 1)) + float(file.get("RescaleIntercept", 0))
    table = (np.clip((values - (center - width / 2)) / width, 0, 1) * 255).astype(np.uint8)
    return (255 - table if file.PhotometricInterpretation == "MONOCHROME1" else table)[stored]


def gray_jpeg(path):
    """Pixels of a JPEG, decoded at a half, a quarter or an eighth if that is still large enough."""
    import cv2
    from PIL import Image

    with Image.open(path) as image:
        short = min(image.size)
    for factor in (8, 4, 2):
        if short // factor >= SIDE:
            return cv2.imread(str(path), getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{factor}"))
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def section_text(report):
    """Findings and impression of a report."""
    parts = re.split(r"\n\s*(EXAMINATION|INDICATION|TECHNIQUE|COMPARISON|FINDINGS|IMPRESSION):", report)
    sections = dict(zip(parts[1::2], parts[2::2]))
    return " ".join((sections.get("FINDINGS", "") + " " + sections.get("IMPRESSION", "")).replace("___", " ").split())


def prepare(tokenizer):
    """Imports and the tokenizer of a worker."""
    global WORDS
    import cv2
    import numpy  # noqa: F401
    import PIL.Image  # noqa: F401
    import pydicom.pixels
    import pydicom.uid  # noqa: F401
    from tokenizers import Tokenizer

    cv2.setNumThreads(1)
    WORDS = Tokenizer.from_file(str(tokenizer))
    WORDS.enable_truncation(TOKENS)
    WORDS.enable_padding(length=TOKENS)


def task(paths):
    """Rows of some files, and the processor time they took."""
    import cv2

    before, rows = os.times(), []
    for path in paths:
        pixels = gray_jpeg(path) if path.suffix == ".jpg" else gray(path)
        scale = SIDE / min(pixels.shape)
        size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        report = path.parent.with_suffix(".txt").read_text()
        ids = WORDS.encode("[CLS] " + section_text(report)).ids
        rows.append((path.stem, *pixels.shape, pixels.tobytes(), ids))
    after = os.times()
    return rows, after.user - before.user + after.system - before.system


def write_shard(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = [pa.string(), pa.int32(), pa.int32(), pa.binary(), pa.list_(pa.int32())]
    names = ["image_id", "height", "width", "pixels", "token_ids"]
    columns = {name: pa.array(values, kind) for name, values, kind in zip(names, zip(*rows), types)}
    pq.write_table(pa.table(columns), path, compression="zstd", compression_level=3, use_dictionary=False)


def measure_peer(options):
    """One run of the pipeline over all files of a kind."""
    import pyarrow.parquet  # noqa: F401

    ending = "jpg" if options.peer == "jpeg" else "dcm"
    paths = sorted((options.work / options.peer).glob(f"files/p*/p*/s*/*.{ending}"))
    out = options.work / "python"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    prepare(options.tokenizer)  # before the workers are forked, which then need not import anything
    with get_context("fork").Pool(options.jobs) as pool:
        pool.map(task, [[path] for path in paths[: 2 * options.jobs]], 1)  # warms up
        before, started, workers = os.times(), time.perf_counter(), 0.0
        rows, shards = [], 0
        for some, seconds in pool.imap_unordered(task, [paths[at : at + 4] for at in range(0, len(paths), 4)]):
            workers += seconds
            rows += some
            if len(rows) >= SHARD:
                write_shard(out / f"{shards:05d}.parquet", rows)
                rows, shards = [], shards + 1
        if rows:
            write_shard(out / f"{shards:05d}.parquet", rows)
        seconds, after = time.perf_counter() - started, os.times()
    own = after.user - before.user + after.system - before.system
    return {"images": len(paths), "images_s": len(paths) / seconds, "cpu_ms": 1000 * (workers + own) / len(paths)}


if __name__ == "__main__":
    main()
