"""The console script `trainer` is the program. `MRM_BIN` is the folder of the programs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import mrm_trainer
import pytest

pytestmark = pytest.mark.skipif("MRM_BIN" not in os.environ, reason="MRM_BIN names the folder of the programs")

PROGRAMS = Path(os.environ.get("MRM_BIN", "missing"))
TRAINER = Path(sys.executable).with_name("trainer")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of phantoms."""
    folder = tmp_path_factory.mktemp("dataset")
    for line in ["phantom mimic-cxr raw --studies 20 --size 64", "mimic-cxr raw data --size 64 --vocab-size 200"]:
        subprocess.run([PROGRAMS / "ingest", *line.split()], cwd=folder, check=True)
    return folder / "data"


def answer(command: list[str | Path], **variables: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout, done.stderr


def pretrain(dataset: Path, run: Path) -> list[str | Path]:
    settings = ["--preset", "mrm-vit-tiny", "--batch-size", "2", "--device", "cpu"]
    return ["pretrain", "--data", dataset, "--run", run, *settings]


@pytest.mark.parametrize("line", ["--version", "--help", "pretrain --preset none", "report missing --out a.html"])
def test_script_answers_as_the_program(line: str) -> None:
    assert answer([TRAINER, *line.split()]) == answer([PROGRAMS / "trainer", *line.split()])


def test_script_trains(dataset: Path, tmp_path: Path) -> None:
    code, _, error = answer([TRAINER, *pretrain(dataset, tmp_path / "run"), "--steps", "2"])
    assert code == 0, error
    assert (tmp_path / "run/metrics.jsonl").exists()


def test_a_signal_stops_the_program_with_a_checkpoint(dataset: Path, tmp_path: Path) -> None:
    command = [TRAINER, *pretrain(dataset, tmp_path / "run"), "--steps", "100000", "--stop-exit-code", "85"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "run/metrics.jsonl"
        while not (log.exists() and log.read_text()):
            assert process.poll() is None
        assert os.readlink(f"/proc/{process.pid}/exe").endswith("mrm_trainer/bin/trainer")
        process.send_signal(signal.SIGTERM)
        output, error = process.communicate()
    assert process.returncode == 85, error
    assert "stopped after step" in output


@pytest.mark.parametrize("version", [None, "2.10.0", "2.110.0"])
def test_another_torch_gives_one_line(tmp_path: Path, version: str | None) -> None:
    (tmp_path / "mrm_trainer").symlink_to(Path(mrm_trainer.__file__).parent)
    if version:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch/__init__.py").touch()
        (tmp_path / f"torch-{version}.dist-info").mkdir()
        (tmp_path / f"torch-{version}.dist-info/METADATA").write_text(f"Name: torch\nVersion: {version}\n")
    start = "import sys, mrm_trainer; sys.exit(mrm_trainer.main())"
    # -S: without the packages of this environment.
    code, output, error = answer([sys.executable, "-S", "-c", start, "--version"], PYTHONPATH=str(tmp_path))
    why = f"not {version}" if version else "which is missing"
    remedy = f'run pip install "torch==2.11.*" in the environment of {sys.executable}'
    assert (code, output, error) == (1, "", f"error: trainer needs torch 2.11, {why}; {remedy}\n")
