"""Trains, evaluates, saves checkpoints and loads for a while, and shows that memory, open files and threads stay flat.

    soak.py OUT BIN [SECONDS]        SECONDS: 3600 without; needs matplotlib

Three processes of the programs in BIN run side by side on synthetic radiographs: a pre-training that saves checkpoints and a
fine-tuning that is evaluated, each with one thread, and the loader with two, with batches of one record. When the trainings have
done 200 steps, it reads their memory without mapped files, open files and threads from /proc, twice a second for SECONDS.
OUT/soak.csv has all samples, OUT/soak.png draws them. The first third is left out: pre-training, whose batches differ in the number
of hidden words, takes what the largest ones need. It fails if the median of the last third is above that of the second one: by more
than 3% and 8 MB of memory, by one file or thread; if a process ends with another exit code than 0; and if the loader gives no batch,
in an hour or more fewer than a million.
"""

import csv
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("pre-training", "fine-tuning", "loader")
COLUMNS = ("memory_mb", "files", "threads")
WARM_UP_STEPS = 200
HOUR, BATCHES_OF_AN_HOUR = 3600, 10**6
TITLES = ("memory without mapped files (MB)", "open files", "threads")


def prepare(bin, out):
    """A dataset of phantoms with a split, made once."""
    data = out / "data"
    if not (data / "splits").exists():
        run = lambda *words: subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        run(bin / "ingest", "phantom", "mimic-cxr", out / "raw", "--studies", 200, "--size", 64)
        run(bin / "ingest", "mimic-cxr", out / "raw", data, "--size", 64, "--vocab-size", 500)
        run(bin / "dataset", "split", data, "--name", "main")
    return data


def commands(bin, out, data, seconds):
    trainer = [bin / "trainer"]
    common = ["--data", data, "--split", "main", "--preset", "mrm-vit-tiny", "--device", "cpu", "--steps", 10**7]
    often = ["--batch-size", 8, "--set", "run.log_every=50", "--set", "run.keep_last=2"]
    return {
        "pre-training": [*trainer, "pretrain", *common, *often, "--run", out / "pretrain", "--set", "run.checkpoint_every=50"],
        "fine-tuning": [*trainer, "finetune", *common, *often, "--run", out / "finetune", "--task", "chexpert5",
                        "--set", "optimizer.evaluate_every=25", "--set", "run.checkpoint_every=25"],
        "loader": [bin / "dataset", "bench", data, "--batch-size", 1, "--size", 32, "--threads", 2, "--seconds", seconds + 1],
    }


def sample(process):
    """Memory in MB, open files, threads of a process."""
    folder = Path("/proc") / str(process.pid)
    status = (folder / "status").read_text()
    value = lambda name: int(re.search(rf"^{name}:\s+(\d+)", status, re.M).group(1))
    return value("RssAnon") / 1024, len(os.listdir(folder / "fd")), value("Threads")


def steps_of(run):
    """Steps of the last line of a run's log."""
    try:
        return json.loads((run / "metrics.jsonl").read_text().strip().splitlines()[-1])["step"]
    except (OSError, IndexError, KeyError, ValueError):
        return 0


def batches_of(log):
    """Batches of one record that the loader gave: the images that `dataset bench` counted."""
    found = re.search(r"(\d+) images in", log.read_text())
    return int(found.group(1)) if found else 0


def check_running(processes):
    for name, process in processes.items():
        if process.poll() is not None:
            sys.exit(f"{name} ended with exit code {process.returncode}; see its log")


def watch(processes, seconds):
    """Samples by process: [seconds, memory, files, threads]."""
    samples, began = {name: [] for name in processes}, time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        check_running(processes)
        for name, process in processes.items():
            samples[name].append((now, *sample(process)))
        time.sleep(0.5)
    return samples


def verdict(samples):
    """Lines of the table, and what is not flat."""
    lines, faults = [f"{'':14}{'':10}{'second third':>13}{'last third':>11}{'most':>9}"], []
    for name, rows in samples.items():
        third = len(rows) // 3
        for at, column in enumerate(COLUMNS, 1):
            values = [row[at] for row in rows]
            early, late = statistics.median(values[third:-third]), statistics.median(values[-third:])
            lines.append(f"{name:14}{column:10}{early:13.1f}{late:11.1f}{max(values):9.1f}")
            allowed = max(8, 0.03 * early) if column == "memory_mb" else 0.5
            if late - early > allowed:
                faults.append(f"{name}: {column} rose from {early:.1f} to {late:.1f}")
    return lines, faults


def draw(samples, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(8, 8), sharex=True, layout="constrained")
    for at, (axis, title) in enumerate(zip(axes, TITLES), 1):
        for name, rows in samples.items():
            axis.plot([row[0] / 60 for row in rows], [row[at] for row in rows], label=name, linewidth=1)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, ncols=3)
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=110)


def main():
    out, bin = Path(sys.argv[1]), Path(sys.argv[2])
    seconds = int(sys.argv[3]) if len(sys.argv) > 3 else HOUR
    out.mkdir(parents=True, exist_ok=True)
    data = prepare(bin, out)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes, words = {}, commands(bin, out, data, seconds)

    def start(name):
        log = open(out / f"{name}.log", "w")
        processes[name] = subprocess.Popen(list(map(str, words[name])), stdout=log, stderr=subprocess.STDOUT, env=environment)

    runs = {"pre-training": out / "pretrain", "fine-tuning": out / "finetune"}
    try:
        for name in runs:
            start(name)
        while min(map(steps_of, runs.values())) < WARM_UP_STEPS:
            check_running(processes)
            time.sleep(0.5)
        start("loader")
        samples = watch(processes, seconds)
        for name in runs:
            processes[name].terminate()  # it saves a checkpoint and ends
        codes = {name: process.wait(timeout=120) for name, process in processes.items()}
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()
    with open(out / "soak.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["process", "seconds", *COLUMNS])
        writer.writerows([name, *(f"{value:.1f}" for value in row)] for name, rows in samples.items() for row in rows)
    draw(samples, out / "soak.png")
    lines, faults = verdict(samples)
    print("\n".join(lines))
    batches = batches_of(out / "loader.log")
    steps = {name: steps_of(run) for name, run in runs.items()}
    print(f"{seconds} s; steps {json.dumps(steps)}, {batches} batches of one record, exit codes {json.dumps(codes)}")
    faults += [f"{name}: exit code {code}" for name, code in codes.items() if code]
    least = BATCHES_OF_AN_HOUR if seconds >= HOUR else 1
    if batches < least:
        faults.append(f"loader: {batches} batches of at least {least}")
    sys.exit("; ".join(faults) or None)


if __name__ == "__main__":
    main()
