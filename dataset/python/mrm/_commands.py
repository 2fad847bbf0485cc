"""The console scripts `ingest` and `dataset`."""

import signal
import sys

from ._mrm import run_command


def run(name: str, arguments: list[str]) -> int:
    """Runs the program `ingest` or `dataset` and returns its exit code. Ctrl-C ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_command(name, arguments)


def ingest() -> int:
    """Runs `ingest` with the arguments of this process."""
    return run("ingest", sys.argv[1:])


def dataset() -> int:
    """Runs `dataset` with the arguments of this process."""
    return run("dataset", sys.argv[1:])
