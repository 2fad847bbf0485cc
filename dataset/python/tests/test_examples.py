"""The examples continue at the exact next batch, also in another number of processes.

`MRM_BIN` is the folder of the programs; without it they are beside this Python. A test is skipped where its framework is not
installed, and fails there with `MRM_REQUIRE_PEERS=1`.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = Path(os.environ.get("MRM_BIN") or Path(sys.executable).parent)
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]


def require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        assert os.environ.get("MRM_REQUIRE_PEERS") != "1", f"{missing[0]} is not installed"
        pytest.skip(f"{missing[0]} is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    for line in [
        "ingest phantom mimic-cxr raw --studies 40 --size 64",
        "ingest mimic-cxr raw data --size 64 --vocab-size 300",
        "dataset split data --name main --validation 0.1 --test 0.2",
    ]:
        name, *arguments = line.split()
        subprocess.run([PROGRAMS / name, *arguments], cwd=folder, check=True, capture_output=True)
    return folder / "data"


def start(
    example: str, data: Path, checkpoint: Path, steps: int | None = None, launch: list[str] | None = None
) -> "subprocess.Popen[str]":
    command = [sys.executable, *(launch or []), str(EXAMPLES / f"{example}.py"), str(data), "main", str(checkpoint)]
    command += [] if steps is None else [str(steps)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def printed(process: "subprocess.Popen[str]") -> list[str]:
    """Its lines about batches."""
    output, error = process.communicate()
    assert process.returncode == 0, error
    return [line for line in output.splitlines() if "rows " in line]


def batches(lines: list[str]) -> list[str]:
    """Without the losses, whose last digits depend on the number of processes."""
    return [line.split(", loss")[0] for line in lines]


@pytest.mark.parametrize(
    ("example", "packages"),
    [
        ("stateful_dataloader", ["torchdata"]),
        ("lightning_module", ["lightning"]),
        ("hugging_face_trainer", ["transformers", "accelerate"]),
    ],
)
def test_a_second_start_continues_at_the_next_batch(example: str, packages: list[str], data: Path, tmp_path: Path) -> None:
    require("torch", *packages)
    undisturbed = start(example, data, tmp_path / "undisturbed")
    before = printed(start(example, data, tmp_path / "continued", 3))
    lines = before + printed(start(example, data, tmp_path / "continued"))
    assert len(before) == 3 and lines == printed(undisturbed)
    steps = batches([line for line in lines if "validation" not in line])
    # Two epochs of several batches, none of them twice.
    assert len(steps) == len(set(steps)) >= 6 and len(steps) % 2 == 0
    # Lightning's sanity check does not shift the validation.
    validations = batches([line for line in lines if "validation" in line])
    once = validations[: len(validations) // 2]
    assert validations == once + once and len(set(once)) == len(once)
    assert bool(once) == (example == "lightning_module")


def test_two_processes_continue_with_the_batches_of_one(data: Path, tmp_path: Path) -> None:
    require("torch", "accelerate")
    undisturbed = start("accelerate_loop", data, tmp_path / "undisturbed")
    before = printed(start("accelerate_loop", data, tmp_path / "continued", 3))
    lines = before + printed(start("accelerate_loop", data, tmp_path / "continued", launch=TORCHRUN))
    assert len(before) == 3 and batches(lines) == batches(printed(undisturbed))
    assert len(set(batches(lines))) == len(lines) >= 6
