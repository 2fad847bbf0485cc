"""An S3 server on loopback with the formats in it, for `loader.py --store`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BUCKET = "radiographs"


@contextlib.contextmanager
def serve(log: Path) -> Iterator[None]:
    """Starts moto on a free port, and sets the environment variables by which ours and the peers find it."""
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        try:
            assert server.stderr
            for line in server.stderr:
                file.write(line)
                if "Running on http://" in line:
                    break
            else:
                sys.exit(f"moto did not start: {log}")
            address = line.split("Running on ")[1].split()[0]
            # The server must never wait for a reader of its log.
            drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=file)
            os.environ |= {
                "AWS_ENDPOINT_URL": address, "S3_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "anyone", "AWS_SECRET_ACCESS_KEY": "anything",
            }
            client().create_bucket(Bucket=BUCKET)
            yield
        finally:
            server.kill()
            server.wait()
            drain.wait()


def client():  # type: ignore[no-untyped-def]
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def upload(folder: Path, name: str) -> str:
    """Copies a folder into the bucket; its URL."""
    store = client()  # type: ignore[no-untyped-call]
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".complete":
            store.upload_file(str(path), BUCKET, f"{name}/{path.relative_to(folder)}")
    return f"s3://{BUCKET}/{name}"
