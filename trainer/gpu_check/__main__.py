#!/usr/bin/env python3
"""Checks and measures the trainer on a machine with NVIDIA GPUs, in less than eight minutes.

    python3 trainer/gpu_check --bin target/release --python PYTHON_WITH_TORCH --out DIR

Needs Python 3.10 and what `make gpu-check-files` leaves in the folder of the binaries; builds nothing. PYTHON has torch 2.11
(for the comparison with PyTorch, and `torchrun`). Writes DIR/gpu-check.json and DIR/gpu-check.md and prints the latter. Each
check has a time limit, and one that fails does not end the others: the table then has the last line of its output.
`--device cpu --tiny` runs all of it in seconds, to test this script.

If the trainer was linked to a libtorch without CUDA, but PYTHON's torch has it, the libraries of the latter are loaded in
front of it; the table says so.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

import device_checks as device
import run_checks as runs
from runner import Check, report

# Name, most seconds, function; the most important first, since the time in all is limited.
SECTIONS = [
    ("machine", 60, device.machine),
    ("golden, fp32", 60, device.golden("fp32")),
    ("golden, bf16", 40, device.golden("bf16")),
    ("step", 120, device.steps),
    ("settings", 130, device.settings),
    ("PyTorch, eager", 60, device.peer("eager")),
    ("data", 60, runs.make_data),
    ("CUDA graph", 45, runs.graphs),
    ("resume", 60, runs.resume),
    ("out of memory", 60, device.out_of_memory),
    ("ranks", 90, runs.ranks),
    ("loader", 45, runs.overlap),
    ("PyTorch, compiled", 120, device.peer("compiled")),
    ("training", 150, runs.training),
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="folder of trainer, ingest, dataset and golden-tests")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch; default: this one")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    parser.add_argument("--scratch", type=Path, help="where dataset and runs are kept meanwhile; default: the temporary folder")
    parser.add_argument("--device", default="cuda:0", help="cuda:N or cpu")
    parser.add_argument("--train-seconds", type=int, help="of the training; default 120, with --tiny 2")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to test this script")
    parser.add_argument("--only", nargs="+", help="only these checks")
    parser.add_argument("--golden-tests", type=Path, help="the test executable; default: golden-tests beside the binaries")
    options = parser.parse_args()
    if not re.fullmatch(r"cpu|cuda:\d+", options.device):
        parser.error("--device: give cpu or cuda:N")
    options.train_seconds = options.train_seconds or (2 if options.tiny else 120)
    options.bin, options.out = options.bin.resolve(), options.out.resolve()
    return options


def main():
    options = arguments()
    if options.only and (unknown := set(options.only) - {name for name, *_ in SECTIONS}):
        sys.exit(f"no check {sorted(unknown)[0]!r}: there are {', '.join(name for name, *_ in SECTIONS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    check = Check(options)
    try:
        for section in SECTIONS:
            check.section(*section)
            (options.out / "gpu-check.json").write_text(json.dumps(check.rows, indent=1, default=str) + "\n")
            (options.out / "gpu-check.md").write_text(report(check))
    finally:
        shutil.rmtree(check.scratch, ignore_errors=True)
    print(report(check), end="")
    return 1 if any(row["status"] == "failed" for row in check.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
