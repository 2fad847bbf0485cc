"""`mrm.ingest` and `mrm.phantom` write what the program writes, and raise what it prints. `MRM_BIN` is its folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mrm
from support import SMALL, contents, ok, program, same_text, words

pytestmark = pytest.mark.skipif("MRM_BIN" not in os.environ, reason="MRM_BIN names the folder of the programs")

Raw = Callable[[str], Path]

LAYOUTS = ["mimic-cxr", "chexpert", "nih", "covid", "rsna", "siim", "openi", "vindr-cxr", "padchest-gr", "taix-ray", "candid-ptx"]
LAYOUTS += ["nlm-tb", "folder"]


@pytest.mark.parametrize("source", LAYOUTS)
def test_a_source_becomes_the_dataset_of_the_program(source: str, raw: Raw, tmp_path: Path) -> None:
    ok("ingest", "phantom", source, tmp_path / "raw", "--studies", "30", "--size", "64")
    assert contents(raw(source)) == contents(tmp_path / "raw")

    options: dict[str, Any] = {**SMALL, "image_encoding": "png", "max_reject_rate": 1}
    done = program("ingest", source, raw(source), tmp_path / "program", *words(options))
    assert done.returncode == 0, done.stderr
    summary = mrm.ingest(source, raw(source), tmp_path / "python", **options)
    assert contents(tmp_path / "python") == contents(tmp_path / "program")

    manifest = json.loads((tmp_path / "python" / "dataset.json").read_text())
    totals = {name: getattr(summary, name) for name in ("records", "studies", "patients", "reports", "bytes")}
    assert totals == manifest["totals"] and summary.records > 0
    assert (summary.mean, summary.std) == (manifest["image"]["mean"], manifest["image"]["std"])
    assert summary.vocabulary == manifest["text"]["vocabulary"]
    assert (summary.shards, summary.rejects) == (len(manifest["shards"]), manifest["rejects"])
    assert not summary.already_done and summary.resumed_shards == summary.missing_shards == 0
    # The first line states the time.
    assert summary.warnings == done.stderr.splitlines()[1:]

    again = mrm.ingest(source, raw(source), tmp_path / "program", **options)
    assert again.already_done and again.records == summary.records


def test_a_phantom_reports_its_numbers(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    summary = mrm.phantom("nih", tmp_path / "raw", studies=12, size=64, seed=3, progress=lambda *step: steps.append(step))
    assert (summary.studies, steps[-1]) == (12, (12, 12))
    assert summary.images == len(list((tmp_path / "raw").rglob("*.png"))) >= 12 >= summary.patients


def test_progress_reaches_the_total(raw: Raw, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    summary = mrm.ingest("nih", raw("nih"), tmp_path / "data", **SMALL, progress=lambda *step: steps.append(step))
    total = summary.records + sum(summary.rejects.values())
    assert steps[-1] == (total, total)
    assert steps == sorted(set(steps)) and {step[1] for step in steps} == {total}


class Stop(Exception):
    pass


def stop(_done: int, _total: int) -> None:
    raise Stop


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_error_of_the_callback_is_raised_and_the_call_can_be_repeated(overwrite: bool, raw: Raw, tmp_path: Path) -> None:
    ok("ingest", "nih", raw("nih"), tmp_path / "whole", *words(SMALL))
    out = tmp_path / "data"
    if overwrite:
        mrm.ingest("nih", raw("nih"), out, **{**SMALL, "size": 32})
    # The callback is called once at least, at the latest at the end of the work; a dataset that is complete has no work.
    for _ in range(2 if overwrite else 1):
        with pytest.raises(Stop):
            mrm.ingest("nih", raw("nih"), out, **SMALL, overwrite=overwrite, progress=stop)
    mrm.ingest("nih", raw("nih"), out, **SMALL, overwrite=overwrite)
    assert contents(out) == contents(tmp_path / "whole")


INTERRUPTED = """
import sys
import mrm

raw, out = sys.argv[1:]
try:
    mrm.ingest("mimic-cxr", raw, out, size=256, vocab_size=300, rows_per_shard=4, jobs=1,
               progress=lambda done, total: print(done, total, flush=True))
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupted_run_continues_to_the_same_bytes(tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "size": 256, "rows_per_shard": 4}
    resumed, studies = 0, 20
    # A run may end before it sees the signal; then it gets twice the work, until it takes longer than a look at signals.
    while not resumed:
        assert studies <= 20_000
        folder = tmp_path / str(studies)
        raw, out, whole = folder / "raw", folder / "data", folder / "whole"
        mrm.phantom("mimic-cxr", raw, studies=studies, size=64)
        command: list[str | Path] = [sys.executable, "-c", INTERRUPTED, raw, out]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                # Three shards at least are done, of which one at least is written.
                if int(line.split()[0]) >= 12:
                    child.send_signal(signal.SIGINT)
                    break
            printed = child.stdout.read()
        is_partial = not (out / "dataset.json").exists()
        assert not is_partial or printed.endswith("interrupted\n"), printed
        summary = mrm.ingest("mimic-cxr", raw, out, **options)
        assert summary.already_done is not is_partial
        resumed = summary.resumed_shards
        studies *= 2
    ok("ingest", "mimic-cxr", raw, whole, *words(options))
    assert contents(out) == contents(whole)


PLANNING = """
import sys
import mrm

raw, out, table = sys.argv[1:]
try:
    mrm.ingest("folder", raw, out, table=table, image_column="file")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_plan_can_be_interrupted(raw: Raw, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    os.mkfifo(table)
    command: list[str | Path] = [sys.executable, "-c", PLANNING, raw("nih"), tmp_path / "out", table]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        # It opens when the plan begins to read the table, which then does not end.
        with table.open("w"):
            child.send_signal(signal.SIGINT)
            printed, _ = child.communicate(timeout=60)
    assert (printed, child.returncode) == ("interrupted\n", 0)
    assert not (tmp_path / "out").exists()


def frames() -> list[tuple[str, Callable[[Path], Any]]]:
    """Tables of other libraries, read from a CSV file as their users do it."""

    def by_polars(path: Path) -> Any:
        return pytest.importorskip("polars").read_csv(path)

    def by_pandas(path: Path) -> Any:
        return pytest.importorskip("pandas").read_csv(path)

    def by_pyarrow(path: Path) -> Any:
        return pytest.importorskip("pyarrow.csv").read_csv(path)

    def by_duckdb(path: Path) -> Any:
        return pytest.importorskip("duckdb").read_csv(str(path))

    return [("polars", by_polars), ("pandas", by_pandas), ("pyarrow", by_pyarrow), ("duckdb", by_duckdb)]


COLUMNS: dict[str, Any] = {
    "image_column": "file",
    "report_column": "report",
    "patient_column": "patient",
    "study_column": "study",
    "view_column": "view",
    "subset_column": "subset",
    "label_columns": ["Edema", "Pneumothorax"],
}


@pytest.fixture
def listed(raw: Raw, tmp_path: Path) -> Path:
    """A raw directory with a table `table.csv`, which has a row of a missing file."""
    folder = tmp_path / "listed"
    shutil.copytree(raw("folder"), folder)
    table = (folder / "films.csv").rename(folder / "table.csv")
    lines = table.read_text().splitlines()
    # The table has six columns before those of the findings.
    lines.insert(3, 'missing.png,"a ""quoted"" report, with a comma",nobody,study01,PA,' + "," * (lines[0].count(",") - 5))
    table.write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("read", [read for _, read in frames()], ids=[name for name, _ in frames()])
def test_a_table_in_memory_gives_the_dataset_of_its_file(read: Callable[[Path], Any], listed: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, **COLUMNS, "max_reject_rate": 0.1}
    ok("ingest", "folder", listed, tmp_path / "program", "--table", listed / "table.csv", *words(options))
    from_file = mrm.ingest("folder", listed, tmp_path / "file", table=listed / "table.csv", **options)
    assert contents(tmp_path / "file") == contents(tmp_path / "program")
    assert sum(from_file.rejects.values()) > 0

    frame = read(listed / "table.csv")
    with pytest.raises(Stop):
        mrm.ingest("folder", listed, tmp_path / "frame", table=frame, **options, progress=stop)
    frame = read(listed / "table.csv")
    from_frame = mrm.ingest("folder", listed, tmp_path / "frame", table=frame, **options)
    assert contents(tmp_path / "frame") == contents(tmp_path / "program")
    assert from_frame.rejects == from_file.rejects


def test_columns_of_a_table_become_text(listed: Path, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.read_csv(listed / "table.csv", infer_schema=False).with_columns(
        polars.col("Edema").cast(polars.Float64),
        polars.col("Pneumothorax") == "1",
        polars.col("view").cast(polars.Categorical),
        polars.lit(["a list"]).alias("others"),
        polars.when(polars.col("file").str.contains("1")).then(34.5).otherwise(float("nan")).alias("age"),
    )
    options: dict[str, Any] = {**SMALL, **COLUMNS, "max_reject_rate": 0.1}
    mrm.ingest("folder", listed, tmp_path / "data", table=frame, age_column="age", **options)
    rows = polars.DataFrame(mrm.open(tmp_path / "data").metadata())
    labels = polars.DataFrame(mrm.open(tmp_path / "data").labels())
    frame = frame.filter(polars.col("file") != "missing.png")
    assert rows.height == frame.height
    edema = frame.get_column("Edema").drop_nulls().cast(polars.Int8).sort()
    assert labels.get_column("Edema").drop_nulls().sort().to_list() == edema.to_list()
    assert labels.get_column("Pneumothorax").sum() == (frame.get_column("Pneumothorax").sum() or 0)
    assert set(rows.get_column("view")) == set(frame.get_column("view").cast(polars.String))
    assert set(rows.get_column("age_years")) == {34.5, None}

    with pytest.raises(mrm.ArgumentError, match="column `others` of the table has values of type LargeList"):
        mrm.ingest("folder", listed, tmp_path / "no", table=frame, **{**options, "report_column": "others"})
    with pytest.raises(mrm.ArgumentError, match="table.csv: no column `fle`; did you mean `file`?"):
        mrm.ingest("folder", listed, tmp_path / "no", table=frame, **{**options, "image_column": "fle"})
    with pytest.raises(mrm.ArgumentError, match="a list is no table"):
        mrm.ingest("folder", listed, tmp_path / "no", table=[1, 2], **options)


def test_a_table_with_patients_of_numbers(listed: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"file": ["patient0001/study01/film1.dcm"], "patient": [7.0], "flag": [None]})
    mrm.ingest("folder", listed, tmp_path / "data", table=frame, image_column="file", patient_column="patient",
               label_columns=["flag"], max_reject_rate=1, size=64)
    assert mrm.open(tmp_path / "data")[0].patient_id == "7"


def test_options_are_those_of_the_command_line(raw: Raw, listed: Path, tmp_path: Path) -> None:
    words_map = {"abnormal": 1, "unclear": -1, "n/a?": None}
    options: dict[str, Any] = {**SMALL, **COLUMNS, "max_reject_rate": 0.1, "table": str(listed / "table.csv")}
    summary = mrm.ingest("folder", listed, tmp_path / "a", **options, label_map=words_map, hash_paths=True, limit=None,
                         path_map=tmp_path / "map.csv")
    typed = ["--label-map", "abnormal=1,unclear=-1,n/a?=blank", "--path-map", str(tmp_path / "map2.csv"), "--hash-paths"]
    ok("ingest", "folder", listed, tmp_path / "b", *words(options), *typed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (tmp_path / "map.csv").read_bytes() == (tmp_path / "map2.csv").read_bytes()
    assert any("--label-map abnormal=1: no cell" in line for line in summary.warnings)


def test_tasks_make_a_dataset_together(raw: Raw, tmp_path: Path) -> None:
    ok("ingest", "nih", raw("nih"), tmp_path / "whole", *words(SMALL))
    out = tmp_path / "data"
    first = mrm.ingest("nih", raw("nih"), out, task="0/2", **SMALL)
    assert first.missing_shards > 0 and first.shards > 0 and first.records == 0
    with pytest.raises(mrm.OutputError, match="shards are missing"):
        mrm.ingest("nih", raw("nih"), out, finish=True, **SMALL)
    second = mrm.ingest("nih", raw("nih"), out, task="1/2", **SMALL)
    assert second.missing_shards == 0 and second.records > 0
    assert contents(out) == contents(tmp_path / "whole")


def test_too_many_rejects_are_an_error_of_a_complete_dataset(raw: Raw, tmp_path: Path) -> None:
    broken = tmp_path / "raw"
    shutil.copytree(raw("nih"), broken)
    image = sorted(broken.rglob("*.png"))[0]
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(mrm.TooManyRejectsError) as raised:
        mrm.ingest("nih", broken, tmp_path / "data", **SMALL)
    summary = raised.value.summary
    assert sum(summary.rejects.values()) == 1 and len(mrm.open(tmp_path / "data")) == summary.records
    shutil.rmtree(tmp_path / "data")
    done = program("ingest", "nih", broken, tmp_path / "data", *words(SMALL))
    assert done.returncode == 3
    assert done.stderr.splitlines()[1:] == [*summary.warnings, str(raised.value)]
    assert mrm.ingest("nih", broken, tmp_path / "data", **SMALL, max_reject_rate=0.5).already_done


USAGE = [
    ("nih", {"sizes": 64}, "a similar argument exists: '--size'"),
    ("nih", {"size": 0}, "0 is not in 1..=8192"),
    ("nih", {"size": "big"}, "invalid digit"),
    ("nih", {"intensity": "mimic"}, "[possible values: "),
    ("nih", {"tone": "minmax"}, "--tone is now called --intensity"),
    ("nih", {"max_reject_rate": -1}, "give a share from 0 to 1"),
    ("nih", {"size": True}, "a value is required for '--size <SIZE>'"),
    ("nih", {"table": "list.csv"}, "unexpected argument '--table'"),
    ("mimic_cxr", {}, "a similar subcommand exists: 'mimic-cxr'"),
    ("folder", {"table": "list.csv"}, "--image-column <C>"),
    ("folder", {"label_map": "yes", "table": "t.csv", "image_column": "f"}, "give WORD=CODE"),
    ("nih", {"task": "0/2", "overwrite": True}, "cannot be used with"),
]


@pytest.mark.parametrize(("source", "options", "part"), USAGE, ids=[part for _, _, part in USAGE])
def test_usage_errors(source: str, options: dict[str, Any], part: str, raw: Raw, tmp_path: Path) -> None:
    with pytest.raises(mrm.ArgumentError) as raised:
        mrm.ingest(source, raw("nih"), tmp_path / "data", **options)
    typed = ["--size"] if options == {"size": True} else words(options)
    done = program("ingest", source, raw("nih"), tmp_path / "data", *typed)
    assert done.returncode == 2 and part in str(raised.value), str(raised.value)
    assert "Usage" not in str(raised.value)
    same_text(raised.value, done)
    assert not (tmp_path / "data").exists()


def test_options_of_the_command_line_only(raw: Raw, tmp_path: Path) -> None:
    for name in ("dry_run", "check_input"):
        with pytest.raises(mrm.ArgumentError, match="option of the command line only"):
            mrm.ingest("nih", raw("nih"), tmp_path / "data", **{name: True})
    with pytest.raises(TypeError, match="progress is 5"):
        mrm.ingest("nih", raw("nih"), tmp_path / "data", progress=5)  # type: ignore[arg-type]
    with pytest.raises(mrm.ArgumentError, match="unrecognized subcommand 'phantom'"):
        mrm.ingest("phantom", raw("nih"), tmp_path / "data")


def unlabeled(folder: Path) -> Path:
    (folder / "raw").mkdir()
    (folder / "raw" / "Data_Entry_2017_v2020.csv").write_text("Image Index,Age\n1.png,3\n")
    return folder / "raw"


def empty(folder: Path) -> Path:
    (folder / "raw").mkdir()
    return folder / "raw"


def used(folder: Path) -> Path:
    (folder / "data").mkdir()
    (folder / "data" / "thesis.txt").write_text("mine")
    return folder / "raw"


ERRORS: list[tuple[str, Callable[[Path], Path], dict[str, Any], type[mrm.Error], str]] = [
    ("nih", lambda folder: folder / "nowhere", {}, mrm.RawDataError, "is no directory"),
    ("nih", empty, {}, mrm.RawDataError, "no Data_Entry"),
    ("folder", empty, {}, mrm.RawDataError, "no radiograph of `folder` found"),
    ("nih", unlabeled, {}, mrm.RawDataError, "no column"),
    ("nih", used, {}, mrm.OutputError, "neither empty nor a dataset"),
    ("nih", lambda folder: folder / "raw", {"tokenizer": "none.json"}, mrm.Error, "none.json"),
    ("folder", lambda folder: folder / "raw", {"table": "none.csv", "image_column": "a"}, mrm.FileError, "none.csv"),
    ("nih", lambda folder: folder / "raw", {"task": "auto"}, mrm.ArgumentError, "--task auto: "),
]


@pytest.mark.parametrize(("source", "make", "options", "kind", "part"), ERRORS, ids=[error[4] for error in ERRORS])
def test_errors(
    source: str, make: Callable[[Path], Path], options: dict[str, Any], kind: type[mrm.Error], part: str, raw: Raw,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    folder = make(tmp_path)
    if not folder.exists() and folder.name == "raw":
        shutil.copytree(raw("nih"), folder)
    with pytest.raises(kind) as raised:
        mrm.ingest(source, folder, tmp_path / "data", **options)
    done = program("ingest", source, folder, tmp_path / "data", *words(options))
    assert done.returncode == 1 and part in str(raised.value), str(raised.value)
    printed = done.stderr[done.stderr.index("error: ") + len("error: "):]
    assert printed == f"{raised.value}\n"


def test_errors_of_a_phantom(tmp_path: Path) -> None:
    mrm.phantom("nih", tmp_path / "raw", studies=2, size=64)
    cases: list[tuple[str, dict[str, Any], type[mrm.Error]]] = [
        ("nih", {"studies": 3, "size": 64}, mrm.OutputError),
        ("nih", {"studies": 2, "size": 1}, mrm.ArgumentError),
        ("nhi", {"studies": 2}, mrm.ArgumentError),
        ("nih", {"studies": 0}, mrm.ArgumentError),
        ("nih", {"studies": 2, "sead": 1}, mrm.ArgumentError),
    ]
    for layout, options, kind in cases:
        with pytest.raises(kind) as raised:
            mrm.phantom(layout, tmp_path / "raw", **options)
        same_text(raised.value, program("ingest", "phantom", layout, tmp_path / "raw", *words(options)))
