"""`mrm.split`, `mrm.export` and `mrm.verify` do what the program does, and raise what it prints. `MRM_BIN` is its folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import mrm
from mrm import _progress
from support import contents, ok, program, same_text, words

pytestmark = pytest.mark.skipif("MRM_BIN" not in os.environ, reason="MRM_BIN names the folder of the programs")

Format = Literal["webdataset", "hf", "csv"]
FORMATS: list[Format] = ["webdataset", "hf", "csv"]


class Stop(Exception):
    pass


def stop(_done: int, _total: int) -> None:
    raise Stop


SPLITS: list[dict[str, Any]] = [
    {},
    {"ratios": [5, 12.5, 100], "unit": "study", "validation": 0.2, "test": 0, "seed": 7},
    {"stratify": ["Edema", "Pneumonia"], "unit": "image"},
    {"official": True, "ratios": (100,)},
]


@pytest.mark.parametrize("options", SPLITS, ids=str)
def test_a_split_is_that_of_the_program(options: dict[str, Any], copy: Path, tmp_path: Path) -> None:
    other = shutil.copytree(copy, tmp_path / "other")
    split = mrm.split(mrm.open(copy), "made", **options)
    typed = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    ok("dataset", "split", other, "--name", "made", *words(typed))
    assert contents(copy / "splits") == contents(other / "splits")
    assert split.name == "made" and list(split.ratios) == [float(ratio) for ratio in options.get("ratios", (1, 10, 100))]
    stored = mrm.open(copy).split("made")
    assert repr(stored) == repr(split)


BAD_SPLITS: list[tuple[str, dict[str, Any], type[mrm.Error], str]] = [
    ("a/b", {}, mrm.ArgumentError, "give a name without"),
    ("main", {"test": 0.4}, mrm.SplitError, "exists with other members"),
    ("new", {"unit": "person"}, mrm.ArgumentError, "possible values"),
    ("new", {"ratios": [0]}, mrm.ArgumentError, "give a percentage"),
    ("new", {"validation": 1.5}, mrm.ArgumentError, "give a share"),
    ("new", {"official": True, "lists": "lists"}, mrm.ArgumentError, "cannot be used with"),
    ("new", {"stratify": ["Edemas"]}, mrm.SplitError, "Edema"),
    ("new", {"validation": 0.6, "test": 0.6}, mrm.SplitError, "none would be left"),
    ("new", {"lists": "nowhere"}, mrm.Error, "nowhere"),
]


@pytest.mark.parametrize(("name", "options", "kind", "part"), BAD_SPLITS, ids=[case[3] for case in BAD_SPLITS])
def test_errors_of_splits(name: str, options: dict[str, Any], kind: type[mrm.Error], part: str, mimic: Path) -> None:
    with pytest.raises(kind) as raised:
        mrm.split(mimic, name, **options)
    assert part in str(raised.value)
    same_text(raised.value, program("dataset", "split", mimic, "--name", name, *words(options)))


def test_a_split_is_replaced_on_request(copy: Path) -> None:
    before = mrm.split(copy, "main")
    after = mrm.split(copy, "main", test=0.4, overwrite=True)
    digests = [split.certificate["members_sha256"] for split in (before, after, mrm.open(copy).split("main"))]
    assert digests[0] != digests[1] == digests[2]


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_is_that_of_the_program(to: Format, mimic: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"split": "main", "subset": "train"}
    if to != "csv":
        options["shard_size"] = 5
    ok("dataset", "export", mimic, tmp_path / "program", "--to", to, *words(options))
    out = tmp_path / "python"
    with pytest.raises(Stop):
        mrm.export(mimic, out, to=to, **options, progress=stop)
    summary = mrm.export(mrm.open(mimic), out, to=to, **options)
    assert contents(out) == contents(tmp_path / "program")
    assert summary.records == len(mrm.open(mimic).split("main").rows("train"))
    assert 0 <= summary.resumed_pieces <= summary.pieces and (summary.pieces > 1 or to == "csv")
    again = mrm.export(mimic, out, to=to, **options)
    assert again.already_done and again.records == summary.records


def test_progress_of_exports_and_checks_reaches_the_total(mimic: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        steps.append((done, total))

    totals = mrm.open(mimic).manifest["totals"]
    mrm.export(mimic, tmp_path / "out", to="hf", progress=note)
    assert steps[-1] == (totals["records"], totals["records"]) and steps == sorted(set(steps))
    steps.clear()
    mrm.verify(mimic, progress=note)
    assert steps[-1] == (totals["bytes"], totals["bytes"]) and steps == sorted(set(steps))


BAD_EXPORTS: list[tuple[dict[str, Any], type[mrm.Error], str]] = [
    ({"to": "zip"}, mrm.ArgumentError, "possible values"),
    ({"to": "csv", "shard_size": 3}, mrm.ArgumentError, "a CSV export is one table"),
    ({"to": "hf", "no_images": True}, mrm.ArgumentError, "--no-images is for csv"),
    ({"to": "hf", "ratio": 1, "subset": "test", "split": "main"}, mrm.ArgumentError, "use --subset train"),
    ({"to": "hf", "subset": "test"}, mrm.ArgumentError, "--split"),
    ({"to": "hf", "split": "none"}, mrm.SplitError, "there are: main"),
    ({"to": "hf", "split": "main", "ratio": 7}, mrm.SplitError, "it has no ratio of 7%"),
]


@pytest.mark.parametrize(("options", "kind", "part"), BAD_EXPORTS, ids=[case[2] for case in BAD_EXPORTS])
def test_errors_of_exports(options: dict[str, Any], kind: type[mrm.Error], part: str, mimic: Path, tmp_path: Path) -> None:
    with pytest.raises(kind) as raised:
        mrm.export(mimic, tmp_path / "out", **options)
    assert part in str(raised.value)
    same_text(raised.value, program("dataset", "export", mimic, tmp_path / "out", *words(options)))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_no_export(mimic: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(mrm.ExportError) as raised:
        mrm.export(mimic, tmp_path, to="csv")
    assert raised.value.path == str(tmp_path)
    same_text(raised.value, program("dataset", "export", mimic, tmp_path, "--to", "csv"))
    with pytest.raises(mrm.NotADatasetError) as missing:
        mrm.verify(tmp_path)
    same_text(missing.value, program("dataset", "verify", tmp_path))


def test_problems_are_those_of_the_program(mimic: Path, copy: Path) -> None:
    assert mrm.verify(mrm.open(mimic), threads=1) == []
    shard = sorted((copy / "shards").iterdir())[1]
    bytes_ = bytearray(shard.read_bytes())
    bytes_[len(bytes_) // 3] ^= 1
    shard.write_bytes(bytes_)
    (copy / "shards" / "part-00099.parquet").write_bytes(b"other")
    problems = mrm.verify(copy)
    done = program("dataset", "verify", copy)
    assert done.returncode == 1 and len(problems) == 2
    assert done.stderr.splitlines()[:-1] == problems
    with pytest.raises(Stop):
        mrm.verify(copy, progress=stop)


UNREACHABLE = """
import mrm

try:
    print("begun", flush=True)
    mrm.verify("s3://bucket/data")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupted_call_does_not_wait_for_an_object_store() -> None:
    store = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_REGION": "none",
        "MRM_STORE_TIMEOUT": "3600",
    }
    command = [sys.executable, "-c", UNREACHABLE]
    with subprocess.Popen(command, env={**os.environ, **store}, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=300) == ("interrupted\n", None)


def test_progress_is_shown_on_request(
    mimic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show: Callable[[str], Any] = lambda name: mrm.export(mimic, tmp_path / name, to="csv", progress=True)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    records = show("lines").records
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"{records}/{records} records"
    with _progress.callback(True, "studies") as callback:
        assert callback is not None
        for done in range(0, 101, 5):
            callback(done, 100)
    assert len(capsys.readouterr().err.splitlines()) == 10
    monkeypatch.undo()
    pytest.importorskip("tqdm")
    show("bar")
    assert f"{records}/{records}" in capsys.readouterr().err
    mrm.export(mimic, tmp_path / "quiet", to="csv", progress=False)
    assert capsys.readouterr() == ("", "")
