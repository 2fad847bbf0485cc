"""The options and the clock of a check, its processes, and what has been found."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Seconds of all checks together.
ALL_SECONDS = 470


class Failed(Exception):
    """A check that failed, with the reason."""


class Unavailable(Exception):
    """A check that cannot be made here, with the reason."""


class Check:
    """The options, a clock, and what has been found so far."""

    def __init__(self, options):
        self.options, self.cuda = options, options.device.startswith("cuda")
        self.began, self.deadline = time.monotonic(), math.inf
        self.rows = []  # section, what, status, figures, text, seconds
        self.environment = {}
        self.step_ms = {}  # (preset, precision, batch) → milliseconds of a step on noise
        self.scratch = Path(tempfile.mkdtemp(prefix="mrm-gpu-check-", dir=options.scratch))
        self.data = self.scratch / "data"
        self.reason = None  # why nothing can be computed

    def section(self, name, limit, check):
        """Runs a check, which yields `(what, figures, text)`, or raises."""
        if self.options.only and name not in self.options.only:
            return
        started = time.monotonic()
        self.deadline = min(started + limit, self.began + ALL_SECONDS)
        status, text = None, ""
        try:
            if self.reason and name not in ("machine", "data"):
                raise Unavailable(self.reason)
            if self.deadline - started < 5:
                raise Unavailable(f"the {ALL_SECONDS} seconds of the whole check are over")
            rows = 0
            for what, figures, text in check(self):
                self.add(name, what, "ok", figures, text, started)
                started, rows = time.monotonic(), rows + 1
            if rows == 0:
                raise Failed("it gave no figures")
        except Unavailable as error:
            status, text = "not available", str(error)
        except Failed as error:
            status, text = "failed", str(error)
        except Exception as error:  # a bug of a check must not end the others
            status, text = "failed", f"{type(error).__name__}: {error}"
        if status:
            self.add(name, "", status, {}, text, started)

    def add(self, section, what, status, figures, text, started):
        seconds = round(time.monotonic() - started, 1)
        row = {"section": section, "what": what, "status": status, "figures": figures, "text": text, "seconds": seconds}
        self.rows.append(row)
        print(f"{section} {what}: {status}: {text} ({seconds} s)", file=sys.stderr, flush=True)

    # Processes.

    def binary(self, name):
        path = self.options.bin / name
        if not path.is_file():
            raise Unavailable(f"{path} is missing: run `make gpu-check-files`")
        return path

    def start(self, command, **environment):
        known = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        return subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            env=known | self.environment | environment, start_new_session=True,
        )

    def finish(self, process):
        """Waits until the limit; returns exit code, standard output and standard error."""
        try:
            out, err = process.communicate(timeout=max(1.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failed("it was not done within its time limit") from None
        return process.returncode, out, err

    def run(self, command, **environment):
        """Standard output of a command that must succeed."""
        code, out, err = self.finish(self.start(command, **environment))
        if code != 0:
            raise Failed(last_line(err) or last_line(out) or f"exit code {code}")
        return out

    def trainer(self, *words):
        return self.run([self.binary("trainer"), *words])

    def bench(self, preset, precision, batch, *more):
        """What `trainer bench` measures. The number of steps is that of a few seconds on a large GPU."""
        steps = 2 if self.options.tiny else 30 if precision == "bf16" else 8
        words = ["--preset", preset, "--batch-size", batch, "--steps", steps, "--warmup", 1 if self.options.tiny else 4]
        words += ["--device", self.options.device, "--set", f"run.precision={precision}", "--json"]
        return json.loads(self.trainer("bench", *words, *more).splitlines()[-1])

    @property
    def main_batch(self):
        """Preset, precision and batch of the checks beside the table of steps. Some CPUs take minutes for a step in bf16."""
        return ("mrm-vit-tiny", "fp32", 4) if self.options.tiny else ("mrm-vit-b16", "bf16", 256)


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def report(check):
    """The table in Markdown."""
    lines = ["| check | of | result | |", "| --- | --- | --- | --- |"]
    for row in check.rows:
        text = row["text"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row['section']} | {row['what']} | {row['status']} | {text} |")
    return "\n".join(lines) + "\n"
