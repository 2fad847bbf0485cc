"""Runs the tasks of `ingest` on a Ray cluster.

    python ray_ingest.py TASKS CPUS SOURCE RAW_DIR OUT [OPTION …]

Each of TASKS tasks runs `ingest SOURCE RAW_DIR OUT … --task I/TASKS` with CPUS threads on some node. RAW_DIR and OUT must be
reachable from all nodes, and `ingest` on their path. A task whose node or process was killed runs again. Where
RAY_ADDRESS is not set, Ray is started on this machine.
"""

import ctypes
import signal
import subprocess
import sys

import ray

TASKS, CPUS, INGEST = int(sys.argv[1]), int(sys.argv[2]), ["ingest", *sys.argv[3:]]
DONE = (0, 3)  # 3: complete, but more inputs were rejected than --max-reject-rate allows


class Killed(Exception):
    """The process was ended by a signal, such as that of the kernel when memory runs out."""


def end_with_parent():
    """Lets the kernel kill this process when the Ray worker that started it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@ray.remote(num_cpus=CPUS, max_retries=3, retry_exceptions=[Killed])
def run(task):
    """Makes the shards of a task; returns the last line that `ingest` printed."""
    command = [*INGEST, "--task", f"{task}/{TASKS}", "--jobs", str(CPUS)]
    outcome = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
    if outcome.returncode < 0:
        raise Killed(f"task {task}/{TASKS}: signal {-outcome.returncode}")
    if outcome.returncode not in DONE:
        raise RuntimeError(f"task {task}/{TASKS}: {outcome.stderr.strip().splitlines()[-1]}")
    return (outcome.stdout.strip().splitlines() or [""])[-1]


ray.init(log_to_driver=False)
waiting = [run.remote(task) for task in range(TASKS)]
while waiting:
    ended, waiting = ray.wait(waiting)
    print(ray.get(ended[0]), flush=True)
# On a shared folder that shows files with a delay, the last tasks may not have seen each other's shards.
sys.exit(subprocess.call([*INGEST, "--finish"]))
