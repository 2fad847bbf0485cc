"""The wheel works without NumPy, torch, Rust or a compiler. `MRM_WHEELS` is the folder of the wheels, `MRM_UV` uv."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif("MRM_WHEELS" not in os.environ, reason="MRM_WHEELS names the folder of the wheels")

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def wheel() -> Path:
    (wheel,) = Path(os.environ["MRM_WHEELS"]).glob("mrm_cxr-*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    uv = os.environ["MRM_UV"]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install = [uv, "pip", "install", "--quiet", "--offline", "--python", str(folder / "bin/python"), str(wheel)]
    subprocess.run(install, check=True)
    return folder


def run(environment: Path, line: str, folder: Path) -> str:
    """The stdout of a command of the environment, with none of this process's variables."""
    variables = {"PATH": f"{environment}/bin:/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(line, shell=True, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_raw_files_become_a_split_dataset(environment: Path, tmp_path: Path) -> None:
    run(environment, "ingest phantom mimic-cxr raw --studies 30 --size 64", tmp_path)
    run(environment, "ingest mimic-cxr raw data --size 64", tmp_path)
    run(environment, "dataset split data --name main", tmp_path)
    assert "main" in run(environment, "dataset inspect data", tmp_path)
    imported = run(environment, "python -c 'import sys, mrm; print(\"numpy\" in sys.modules)'", tmp_path)
    assert imported == "False\n"


def test_wheel_is_small_and_for_every_python(wheel: Path) -> None:
    assert "-cp310-abi3-" in wheel.name
    assert wheel.stat().st_size < 25 * MEGABYTE
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert {"mrm/_mrm.abi3.so", "mrm/py.typed"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "src", "mrm/tests"))]
    [notices] = [name for name in names if name.endswith("/THIRD-PARTY-NOTICES.txt")]
    text = archive.read(notices).decode()
    assert "\npolars 0." in text and "Copyright (c) 2025 Ritchie Vink" in text, text[:1000]
