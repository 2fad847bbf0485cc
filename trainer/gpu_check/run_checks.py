"""Checks of runs on a dataset: loader, training, two ranks, stopping and continuing."""

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import time

from runner import Failed, Unavailable, last_line


def dataset(check):
    """The dataset of the checks; made where it was not asked for by itself."""
    if not (check.data / "splits" / "main.json").exists():
        list(make_data(check))
    return check.data


def make_data(check):
    """A dataset of phantoms, for the checks with a loader."""
    studies, size = (24, 128) if check.options.tiny else (1500, 512)
    raw = check.scratch / "raw"
    ingest = check.binary("ingest")
    check.run([ingest, "phantom", "mimic-cxr", raw, "--studies", studies, "--size", size])
    started = time.monotonic()
    check.run([ingest, "mimic-cxr", raw, check.data, "--size", size, "--overwrite"])
    seconds = time.monotonic() - started
    check.run([check.binary("dataset"), "split", check.data, "--name", "main", "--overwrite"])
    records = json.loads((check.data / "dataset.json").read_text())["totals"]["records"]
    figures = {"records": records, "ingest_images_per_second": records / seconds}
    yield f"phantom, {size} pixels", figures, f"{records} records, ingested at {records / seconds:.0f} images/s"


COPY = """
import json, sys, time, torch
batch, side = int(sys.argv[1]), int(sys.argv[2])
images = torch.zeros(batch, 1, side, side).pin_memory()
times = []
for _ in range(10):
    torch.cuda.synchronize()
    start = time.perf_counter()
    images.to(sys.argv[3], non_blocking=True)
    torch.cuda.synchronize()
    times.append(time.perf_counter() - start)
print(min(times) * 1e3)
"""


def overlap(check):
    """Loading and copying alone, the step on noise, and the step on loaded batches."""
    preset, precision, batch = check.main_batch
    side = 128 if check.options.tiny else 448
    noise = check.step_ms.get(check.main_batch) or check.bench(preset, precision, batch)["milliseconds_per_step"]
    loaded = check.bench(preset, precision, batch, "--data", dataset(check))
    seconds = 1 if check.options.tiny else 5
    words = ["bench", dataset(check), "--transform", "pretrain", "--size", side, "--batch-size", batch, "--seconds", seconds]
    printed = check.run([check.binary("dataset"), *words, "--threads", len(os.sched_getaffinity(0))])
    rate = float(re.search(r"threads?: (\d+) images/s", printed)[1])
    alone = batch / rate * 1e3
    figures = {"step_on_noise_ms": noise, "step_with_loader_ms": loaded["milliseconds_per_step"], "loader_alone_ms": alone}
    text = f"step on noise {noise:.1f} ms, with the loader {loaded['milliseconds_per_step']:.1f} ms; "
    text += f"loading a batch alone {alone:.1f} ms ({rate:,.0f} images/s)"
    parts = alone
    if check.cuda:
        copy = float(last_line(check.run([check.options.python, "-c", COPY, batch, side, check.options.device])))
        figures["pinned_copy_ms"] = copy
        parts += copy
        text += f", copying it from pinned memory {copy:.1f} ms"
    shown = max(0.0, loaded["milliseconds_per_step"] - noise)
    figures["hidden_share"] = max(0.0, 1 - shown / parts)
    figures["waiting_share"] = loaded["shares"]["loader"]
    text += f"; hidden behind the step {figures['hidden_share']:.0%}; waiting for batches {loaded['shares']['loader']:.1%}"
    yield f"{preset}, {precision}, batch {batch}", figures, text


# Runs.


def pretrain(check, run, preset, precision, batch, steps, *more, device=True):
    words = ["pretrain", "--data", dataset(check), "--split", "main", "--run", run, "--preset", preset, "--steps", steps]
    words += ["--batch-size", batch, "--set", f"run.precision={precision}", "--set", "optimizer.accumulation=1"]
    words += ["--device", check.options.device] if device else []
    return [check.binary("trainer"), *words, *more]


def metrics(run):
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def run_until(check, command, done):
    """Starts a run, stops it with SIGTERM when `done()`, and returns its output."""
    process = check.start(command)
    try:
        while not done():
            if process.poll() is not None:
                _, out, err = check.finish(process)
                raise Failed(last_line(err) or last_line(out) or f"it ended early, exit code {process.returncode}")
            if time.monotonic() > check.deadline - 2:
                raise Failed("it was not done within its time limit")
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        code, out, err = check.finish(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if code != 0:
        raise Failed(f"exit code {code} after SIGTERM: {last_line(err)}")
    return out


def training(check):
    """Training for some time: rate against the step on noise, use of the GPU, losses."""
    preset, precision, batch = check.main_batch
    run, seconds = check.scratch / "training", check.options.train_seconds
    shutil.rmtree(run, ignore_errors=True)
    log = f"run.log_every={1 if check.options.tiny else 10}"
    command = pretrain(check, run, preset, precision, batch, 20_000, "--set", log)
    until = min(time.monotonic() + seconds, check.deadline - 10)
    use = GpuUse(seconds) if check.cuda else None
    run_until(check, command, lambda: time.monotonic() > until and len(metrics(run)) >= 3)
    lines = metrics(run)
    first, last = lines[0], lines[-1]
    rate = (last["step"] - first["step"]) * batch / (elapsed(last) - elapsed(first))
    noise = check.step_ms.get(check.main_batch) or check.bench(preset, precision, batch)["milliseconds_per_step"]
    figures = {"seconds": seconds, "steps": last["step"], "images_per_second": rate, "first_loss": first["loss"],
               "last_loss": last["loss"], "skipped": last["skipped"], "time_beside_the_step": 1 - rate * noise / 1e3 / batch}
    text = f"{last['step']} steps, {rate:,.0f} images/s; {max(0.0, figures['time_beside_the_step']):.1%} of the time is not the "
    text += f"step on noise (loader, log); loss {first['loss']:.3f} → {last['loss']:.3f}, {last['skipped']} steps skipped"
    if use:
        figures["gpu"] = use.read()
        text += f"; {figures['gpu']}"
    yield f"{preset}, {precision}, batch {batch}", figures, text


def graphs(check):
    """Steps of training by CUDA graphs, beside the same without. The numbers of masked tokens differ, and so do the shapes."""
    if not check.cuda:
        raise Unavailable("CUDA graphs are recorded on a GPU only")
    count, losses = 12, {}
    settings = ["--set", "run.log_every=1", "--set", "model.report_loss=masked"]
    for name in ("plain", "graphs", "again"):
        more = [] if name == "plain" else ["--set", "run.cuda_graph=true"]
        run = check.scratch / f"graph-{name}"
        shutil.rmtree(run, ignore_errors=True)
        code, _, err = check.finish(check.start(pretrain(check, run, "mrm-vit-tiny", "fp32", 32, count, *settings, *more)))
        if code != 0:
            raise Failed(last_line(err) or f"exit code {code}")
        used = re.search(r"run.cuda_graph: (\d+) of \d+ micro-batches were computed by \d+ graphs", err)
        if more and (not used or int(used[1]) < count / 2):
            raise Failed(used[0] if used else "the run has no line about its graphs")
        losses[name] = [line["loss"] for line in metrics(run)]
    if any(len(values) != count for values in losses.values()):
        raise Failed(f"the logs have {[len(values) for values in losses.values()]} steps")
    difference = max(max(row) / min(row) - 1 for row in zip(*losses.values()))
    if not difference < 0.001:
        raise Failed(f"losses of {count} steps differ by up to {difference:.1e}: {losses}")
    figures = {"losses": losses, "largest_relative_difference": difference}
    text = f"{count} steps, losses with and without differ by at most {difference:.1e}; {used[0]}"
    yield "mrm-vit-tiny, fp32, batch 32", figures, text


def elapsed(line):
    """Seconds of a log line, on any clock."""
    return float(line["time"])


class GpuUse:
    """Mean use, memory and power of the first GPU as nvidia-smi reports them, each second."""

    def __init__(self, seconds):
        self.process = None
        if shutil.which("nvidia-smi"):
            query = "--query-gpu=utilization.gpu,memory.used,power.draw"
            command = ["timeout", str(seconds + 10), "nvidia-smi", "--id=0", query, "--format=csv,noheader,nounits", "--loop=1"]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def read(self):
        if not self.process:
            return "no nvidia-smi"
        self.process.terminate()
        rows = [line.split(",") for line in self.process.communicate()[0].splitlines() if line.count(",") == 2]
        numbers = [[float(cell) for cell in row] for row in rows if all(re.fullmatch(r" *[\d.]+ *", cell) for cell in row)]
        if not numbers:
            return "nvidia-smi gave no numbers"
        use, memory, power = (statistics.median(column) for column in zip(*numbers))
        return f"nvidia-smi: median use {use:.0f}%, {memory / 1024:.1f} GiB, {power:.0f} W"


def ranks(check):
    """Two ranks of one run on one device, by Gloo; where there are several GPUs, also a rank on each."""
    if b"WORLD_SIZE" not in check.binary("trainer").read_bytes():
        raise Unavailable("this trainer does not read WORLD_SIZE: each rank would train for itself")
    yield torchrun(check, "two ranks on one device", 2, True)
    gpus = len(check.run(["nvidia-smi", "--list-gpus"]).splitlines()) if check.cuda else 1
    if gpus > 1:
        yield torchrun(check, f"{gpus} ranks, each on its GPU", gpus, False)


def torchrun(check, what, count, one_device):
    run, steps, batch = check.scratch / f"ranks-{count}-{one_device}", 4 if check.options.tiny else 12, 8 * count
    settings = ["--set", "run.log_every=1"]
    command = pretrain(check, run, "mrm-vit-tiny", "fp32", batch, steps, *settings, device=one_device)
    # The launcher is Python, which needs no other libtorch.
    kept, check.environment = check.environment, {}
    command = ["env", *(f"{name}={value}" for name, value in kept.items()), *command]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [check.options.python, "-m", "torch.distributed.run", "--no-python", "--nproc-per-node", count]
    # torchrun takes `--run` for an ambiguous option of its own unless `--` ends its options.
    launcher += ["--master-addr", "127.0.0.1", "--master-port", port, "--"]
    try:
        code, out, err = check.finish(check.start([*launcher, *command], GLOO_SOCKET_IFNAME="lo"))
    finally:
        check.environment = kept
    errors = [line.strip() for line in (out + err).splitlines() if re.search(r"(^|\]:)\s*error: ", line)]
    if code != 0:
        reason = errors[0][:300] if errors else last_line(err)
        raise Failed(f"{what}: {reason}")
    lines = metrics(run)
    if [line["step"] for line in lines] != list(range(1, steps + 1)):
        raise Failed(f"{what}: the log has the steps {[line['step'] for line in lines]}")
    first, last = lines[0], lines[-1]
    figures = {"ranks": count, "steps": steps, "losses": [line["loss"] for line in lines],
               "images_per_second": last["images_per_second"]}
    text = f"{steps} steps, loss {first['loss']:.3f} → {last['loss']:.3f}, {last['images_per_second']:,.0f} images/s"
    return f"{what}, mrm-vit-tiny, fp32, batch {batch}", figures, text


def resume(check):
    """A run that is stopped and continued, beside one that is not: the same steps, about the same losses."""
    stop, more = (3, 3) if check.options.tiny else (20, 20)
    batch = 4 if check.options.tiny else 32
    settings = ["--set", "run.log_every=1"]

    def until(name, lines):
        run = check.scratch / name
        command = pretrain(check, run, "mrm-vit-tiny", "fp32", batch, 100_000, *settings)
        run_until(check, command, lambda: len(metrics(run)) >= lines)
        return metrics(run)

    for name in ("stopped", "whole"):
        shutil.rmtree(check.scratch / name, ignore_errors=True)
    stopped = until("stopped", stop)
    continued = until("stopped", len(stopped) + more)
    whole = until("whole", len(stopped) + more)
    both = list(zip(continued, whole))
    if [line["step"] for line in continued] != list(range(1, len(continued) + 1)) or continued[: len(stopped)] != stopped:
        raise Failed(f"the log of the continued run has the steps {[line['step'] for line in continued]}")
    if len(both) < len(stopped) + more:
        raise Failed(f"{len(both)} steps of both runs")
    difference = max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in both)
    figures = {"stopped_after": len(stopped), "compared_steps": len(both), "largest_relative_difference": difference}
    if not difference < 0.02:
        raise Failed(f"losses differ by up to {difference:.1%} from those of a run that was not stopped")
    text = f"stopped after step {len(stopped)}, continued to {len(continued)}; the losses of {len(both)} steps differ from "
    yield "mrm-vit-tiny, fp32", figures, text + f"those of a run that was not stopped by at most {difference:.1e}"
