"""Forks, spawned processes, threads, signals, the end of the interpreter, and leaks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import digest, script

import mrm

TRANSFORM = mrm.transforms.evaluate(32)


def forked(work: str, location: Path) -> "subprocess.CompletedProcess[str]":
    """Runs lines in a child after a fork; the parent has a dataset, a loader in mid-epoch and a batch."""
    return script(
        f"""
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import mrm
location = sys.argv[1]
data = mrm.open(location)
data.metadata()  # starts the threads that read columns
loader = mrm.Loader(data, batch_size=4, transform=mrm.transforms.evaluate(32))
batches = iter(loader)
batch = next(batches)
child = os.fork()
if child == 0:
    try:
{work}
    except mrm.Error as error:
        print(type(error).__name__, error, flush=True)
    del batch, batches, loader, data
    sys.exit(0)
_, status = os.waitpid(child, 0)
print("ended", status, next(batches).number, flush=True)
""",
        location,
    )


def test_a_loader_after_a_fork_raises_and_the_parent_goes_on(mimic: Path) -> None:
    for use in ("next(batches)", "loader.state_dict()", "len(loader)", "next(iter(loader))"):
        done = forked(f"        {use}", mimic)
        first, last = done.stdout.splitlines()
        assert first.startswith("ForkError this loader was made before the process forked"), done
        assert '"spawn" or "forkserver"' in first and "num_workers=0" in first
        assert last == "ended 0 1"


def test_a_dataset_and_new_loaders_work_after_a_fork(mimic: Path) -> None:
    work = """
        print(len(data), data[3].record_id == data.record_id(3), len(data.metadata()), data.split("main").name)
        again = mrm.Loader(data, batch_size=4, transform=mrm.transforms.evaluate(32))
        print(sum(len(batch) for batch in again), batch.images.numpy().shape, flush=True)"""
    done = forked(work, mimic)
    assert done.stdout.splitlines() == ["54 True 54 main", "54 (4, 1, 32, 32)", "ended 0 1"], done


def part(location: Path, rank: int) -> list[str]:
    loader = mrm.Loader(mrm.open(location), batch_size=6, distributed=(rank, 2), transform=TRANSFORM)
    return [digest(batch) for batch in loader]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawned_processes_have_loaders_of_their_own(mimic: Path, method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        parts = pool.starmap(part, [(mimic, 0), (mimic, 1)])
    assert parts == [part(mimic, 0), part(mimic, 1)]


def test_threads_share_a_loop_and_get_each_batch_once(data: mrm.Dataset) -> None:
    loader = mrm.Loader(data, batch_size=2, transform=TRANSFORM)
    batches, numbers = iter(loader), []

    def take() -> None:
        for batch in batches:
            numbers.append(batch.number)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(27))


def test_a_loader_closed_by_another_thread_raises(data: mrm.Dataset) -> None:
    loader = mrm.Loader(data, batch_size=2, transform=TRANSFORM)
    errors = []

    def take() -> None:
        try:
            while True:
                for _ in loader:
                    pass
        except mrm.ClosedError as error:
            errors.append(str(error))

    thread = threading.Thread(target=take)
    thread.start()
    loader.close()
    thread.join(60)
    assert not thread.is_alive() and errors == ["the loader is closed: make a new one"]


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise KeyboardInterrupt", "threading.Thread(target=run, daemon=True).start()"])
def test_the_interpreter_ends_in_mid_epoch(mimic: Path, end: str) -> None:
    text = f"""
import sys, threading
import mrm
loader = mrm.Loader(mrm.open(sys.argv[1]), batch_size=2, transform=mrm.transforms.evaluate(32))
batches = iter(loader)
held = next(batches).images.numpy()
def run():
    while True:
        for batch in loader:
            pass
{end}
"""
    done = script(text, mimic)
    codes = {"sys.exit(3)": 3, "raise KeyboardInterrupt": -signal.SIGINT}
    assert done.returncode == codes.get(end, 0), done
    assert "panicked" not in done.stderr and "Fatal Python error" not in done.stderr, done.stderr


def test_an_interrupt_ends_the_wait_for_a_batch(mimic: Path) -> None:
    text = """
import sys
import mrm
loader = mrm.Loader(mrm.open(sys.argv[1]), batch_size=2, transform=mrm.transforms.evaluate(32))
try:
    print("ready", flush=True)
    while True:
        for batch in loader:
            pass
except KeyboardInterrupt:
    print("interrupted", loader.state_dict()["order"] > 0, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", text, str(mimic)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert (output, process.returncode) == ("interrupted True\n", 0)


def test_loaders_and_datasets_leave_no_threads_files_or_memory(mimic: Path, data: mrm.Dataset) -> None:
    def used() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    def memory() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def work(times: int) -> None:
        for seed in range(times):
            own = mrm.open(mimic)
            loader = mrm.Loader(own, batch_size=4, seed=seed, threads=2, transform=TRANSFORM)
            if seed % 3:
                next(iter(loader)).images.numpy()

    work(100)
    before, resident = used(), memory()
    work(int(os.environ.get("MRM_LEAK_LOADERS", "1000")))
    assert used() == before
    assert memory() - resident < 32 << 20


def test_sub_interpreters_are_refused_cleanly() -> None:
    text = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import mrm
error = ""
try:
    error = interpreters.run_string(interpreters.create(), "import mrm")
except Exception as raised:
    error = raised
print("refused:", getattr(error, "formatted", error))
"""
    done = script(text)
    assert done.returncode == 0 and "subinterpreters" in done.stdout, done


def test_the_interpreter_runs_while_a_batch_is_awaited(data: mrm.Dataset) -> None:
    counted, ended = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not ended.is_set():
            counted += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    loader = mrm.Loader(data, batch_size=54, transform=mrm.transforms.pretrain(256), threads=1, prefetch=1)
    before = counted
    for _ in range(3):
        for _ in loader:
            pass
    during = counted - before
    ended.set()
    thread.join()
    assert during > 100
