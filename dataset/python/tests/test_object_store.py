"""Datasets in an object store: an S3 server on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ok, python_batches, script

import mrm

ARGUMENTS = {"batch_size": 8, "transform": mrm.transforms.evaluate(32), "text": mrm.Text(tokens=20)}


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[dict[str, str]]:
    """The environment variables of a server with a bucket `radiographs`."""
    log = folder / "store.log"
    words = [os.environ.get("MRM_PYTHON", sys.executable), "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("w") as file, subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=file) as server:
        while not (address := re.search(r"Running on (http://\S+)", log.read_text())):
            assert server.poll() is None, log.read_text()
        bucket = urllib.request.Request(f"{address[1]}/radiographs", method="PUT")
        with urllib.request.urlopen(bucket) as answer:
            assert answer.status == 200
        yield {
            "AWS_ENDPOINT_URL": address[1],
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
        server.terminate()


def test_batches_and_records_are_those_of_a_folder(
    mimic: Path, folder: Path, store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    raw = folder / "raw-mimic-cxr"
    flags = ["--size", 64, "--rows-per-shard", 16, "--staging", folder / "staging"]
    ok("ingest", "mimic-cxr", raw, "s3://radiographs/mimic", *flags)
    ok("dataset", "split", "s3://radiographs/mimic", "--name", "main")
    data, local = mrm.open("s3://radiographs/mimic"), mrm.open(mimic)
    arguments = {**ARGUMENTS, "split": "main", "subset": "train"}
    loader = mrm.Loader(data, **arguments)
    assert python_batches(loader, 7) == python_batches(mrm.Loader(local, **arguments), 7)
    state = json.loads(json.dumps(loader.state_dict()))
    continued = mrm.Loader(local, **arguments)
    continued.load_state_dict(state)
    assert data[5].report == local[5].report and data.splits == ["main"] and len(data.labels()) == 54
    # A forked process must open it anew.
    text = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import mrm
data = mrm.open("s3://radiographs/mimic")
if os.fork() == 0:
    try:
        data[0]
    except mrm.ForkError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
print(data[0].row)
"""
    first, last = script(text).stdout.splitlines()
    assert first.startswith("this dataset was made before the process forked") and last == "0"


def test_missing_objects_have_the_text_of_the_command_line(
    store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(mrm.NotADatasetError, match="s3://radiographs/nothing is not a dataset"):
        mrm.open("s3://radiographs/nothing")
    with pytest.raises(mrm.StoreError, match="there is no such bucket"):
        mrm.open("s3://nothing/mimic")


def test_credentials_are_in_no_error_and_no_repr(mimic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # Nobody listens on this port any more.
    variables = {
        "AWS_ENDPOINT_URL": f"http://someone:MARKEDPASSWORD@127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "AKIAMARKED0123456789",
        "AWS_SECRET_ACCESS_KEY": "MARKEDSECRET/with+letters=0123456789abcd",
        "AWS_SESSION_TOKEN": "MARKEDTOKEN0123456789",
        "AWS_REGION": "us-east-1",
        "AZURE_STORAGE_ACCOUNT_KEY": "MARKEDAZURE0123456789AAA",
        "GOOGLE_SERVICE_ACCOUNT_KEY": '{"private_key": "MARKEDGOOGLE"}',
        "MRM_STORE_TIMEOUT": "0.1",
        "RUST_BACKTRACE": "full",
        "RUST_LOG": "trace",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    begun = time.monotonic()
    with pytest.raises(mrm.StoreError, match="s3://bucket/none.*no answer from") as raised:
        mrm.open("s3://bucket/none")
    assert time.monotonic() - begun < 60
    error = raised.value
    printed = traceback.format_exception(type(error), error, error.__traceback__)
    for text in [str(error), repr(error), repr(error.args), repr(vars(error)), *printed]:
        assert "MARKED" not in text
    data = mrm.open(mimic)
    for text in [str(data), repr(data), repr(mrm.Loader(data, **ARGUMENTS))]:
        assert "MARKED" not in text


def test_an_interrupt_ends_the_wait_for_a_store_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
        text = """
import mrm
try:
    mrm.open("s3://radiographs/mimic")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
        environment = {**os.environ, **variables}
        with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=environment) as process:
            connection, _ = server.accept()
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
            connection.close()
    assert (output, process.returncode) == ("interrupted\n", 0)
