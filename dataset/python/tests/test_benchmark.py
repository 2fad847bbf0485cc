"""The benchmark of the loader runs from an empty folder, and prints its tables. How large the figures are depends on the
machine. `MRM_BIN` is the folder of the programs; without it they are beside this Python.

Skipped where a package of `benches/requirements.txt` is not installed; fails there with `MRM_REQUIRE_PEERS=1`.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benches" / "loader.py"
PROGRAMS = Path(os.environ.get("MRM_BIN") or Path(sys.executable).parent)
PEERS = ["files-raw", "spdl-raw", "wds-raw"]


def cells(printed: str, table: int) -> dict[str, list[float]]:
    """Numbers of a printed table by loader."""
    lines = printed.split("| loader |")[table + 1].splitlines()[2:]
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {name.strip("*"): [float(cell) for cell in row] for name, *row in rows}


def test_the_loader_is_compared_with_others(tmp_path: Path) -> None:
    for package in ["torch", "cv2", "psutil", "pyarrow", "spdl", "webdataset"]:
        if importlib.util.find_spec(package) is None:
            assert os.environ.get("MRM_REQUIRE_PEERS") != "1", f"{package} is not installed"
            pytest.skip(f"{package} is not installed")
    sizes = "--images 24 --batch-size 4 --rounds 1 --seconds 0.1 --workers 1 --loop --step 1 --steps 3 --store"
    command = [SCRIPT, "--ingest", PROGRAMS / "ingest", "--dataset", PROGRAMS / "dataset", "--work", tmp_path / "work"]
    command += ["--json", tmp_path / "rows.json", "--names", ",".join(PEERS), *sizes.split()]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rates, loop, store = (cells(done.stdout, table) for table in range(3))
    assert set(rates) == {"ours", "ours (Rust)", *PEERS} and set(loop) == {"ours", *PEERS} and set(store) == {"ours", "wds-raw"}
    assert all(number > 0 for row in rates.values() for number in row)
    assert max(rates[name][1] for name in PEERS) == 1
    for row in loop.values():
        assert len(row) == 4 and row[0] <= row[1] and row[2] <= row[3] and row[1] >= 1
    assert all(images > 0 and start >= loader > 0 for images, start, loader in store.values())
    assert len(json.loads((tmp_path / "rows.json").read_text())["rows"]) == 5 + 4 + 2
