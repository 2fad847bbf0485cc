"""The console scripts print and return what the programs do. `MRM_BIN` is the folder of the programs."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(os.environ.get("MRM_BIN", "missing"))
SCRIPTS = Path(sys.executable).parent

pytestmark = pytest.mark.skipif("MRM_BIN" not in os.environ, reason="MRM_BIN names the folder of the programs")

PHANTOM = "ingest phantom mimic-cxr raw --studies 30 --size 64"
INGEST = "ingest mimic-cxr raw data --size 64 --vocab-size 200"

# One after another, in the same folder.
COMMANDS = [
    "ingest",
    "ingest --help",
    "ingest --version",
    "ingest mimic-cxr raw data",
    "ingest mimic-cxr raw data --tone minmax",
    "ingest mimic raw",
    PHANTOM,
    INGEST + " --jobs 0",
    INGEST,
    INGEST,
    "ingest folder raw other --max-reject-rate 0 --no-images",
    "dataset",
    "dataset split --help",
    "dataset inspect data",
    "dataset inspect missing",
    "dataset inspect data --row nobody",
    "dataset verify data --threads 2",
    "dataset split data --name main",
    "dataset split data --name main --seed 1",
    "dataset split data --name a/b",
    "dataset export data out --to csv --shard-size 3",
    "dataset export data out --to csv --no-images",
    "dataset completions bash",
]


def answer(command: list[str], folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, without times and rates."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    plain = [re.sub(r"[0-9.]+ (s\b|MB/s)", "T", text) for text in (done.stdout, done.stderr)]
    return done.returncode, plain[0], plain[1]


def test_scripts_answer_as_the_programs(tmp_path: Path) -> None:
    folders = [tmp_path / "programs", tmp_path / "scripts"]
    for folder in folders:
        folder.mkdir()
    codes = set()
    for line in COMMANDS:
        name, *arguments = line.split()
        expected = answer([str(PROGRAMS / name), *arguments], folders[0])
        assert answer([str(SCRIPTS / name), *arguments], folders[1]) == expected, line
        codes.add(expected[0])
    assert codes >= {0, 1, 2}
    files = [{file.relative_to(folder) for file in folder.rglob("*")} for folder in folders]
    assert files[0] == files[1]
    for name in ["data/dataset.json", "data/splits/main.json", "out/metadata.csv"]:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_module_answers_as_the_scripts(tmp_path: Path) -> None:
    module = [sys.executable, "-m", "mrm"]
    for line in ["ingest --version", "dataset inspect missing", "dataset split"]:
        name, *arguments = line.split()
        assert answer([*module, name, *arguments], tmp_path) == answer([str(SCRIPTS / name), *arguments], tmp_path)
    assert answer(module, tmp_path) == (1, "", "usage: python -m mrm {ingest,dataset} ...\n")


def test_file_names_need_not_be_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"raw\xff")
    command = [str(SCRIPTS / "ingest"), "phantom", "nih", name, "--studies", "1", "--size", "64"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert os.listdir(os.fsencode(tmp_path)) == [b"raw\xff"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_command_at_once(tmp_path: Path, number: signal.Signals) -> None:
    command = [str(SCRIPTS / "ingest"), "phantom", "mimic-cxr", "raw", "--studies", "1000000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not (tmp_path / "raw").exists():
            assert process.poll() is None
        process.send_signal(number)
        output = process.communicate()
    assert process.returncode == -number
    assert output == (b"", b"")


def test_a_closed_pipe_is_no_failure() -> None:
    command = [str(SCRIPTS / "dataset"), "completions", "bash"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (0, b"")
