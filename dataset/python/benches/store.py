"""An S3 server on loopback, for `loader.py --store`: objects are files, `/BUCKET/KEY` is FOLDER/KEY. store.py FOLDER

It answers GET and HEAD, also of ranges, which is all that the loaders ask for. (The server of the tests, moto, copies a whole
object for each range of it.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "radiographs"


class Objects(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: Path

    def do_GET(self) -> None:
        path = self.folder / self.path.split("?")[0].removeprefix(f"/{BUCKET}/")
        if not path.is_file():
            body = b"<Error><Code>NoSuchKey</Code><Message>no such object</Message></Error>"
            self.start(404, len(body))
            if self.command == "GET":
                self.wfile.write(body)
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first, last, status = 0, size - 1, 200
            if found := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
                status = 206
                if found[1]:
                    first, last = int(found[1]), min(int(found[2] or last), last)
                else:
                    first = max(size - int(found[2]), 0)
            self.start(status, last - first + 1, path, f"bytes {first}-{last}/{size}")
            while self.command == "GET" and first <= last:
                first += os.sendfile(self.wfile.fileno(), file.fileno(), first, last - first + 1)

    do_HEAD = do_GET

    def start(self, status: int, length: int, path: Path | None = None, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if path:
            changed = path.stat().st_mtime
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{hashlib.md5(f"{path} {changed}".encode()).hexdigest()}"')
            self.send_header("Last-Modified", self.date_time_string(int(changed)))
        if status == 206:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that ends closes its connections, which is no error."""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[None]:
    """Runs the server in a process of its own, and sets the environment variables by which ours and the peers find it."""
    command = [sys.executable, str(Path(__file__).resolve()), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = server.stdout.readline().strip()
            os.environ |= {
                "AWS_ENDPOINT_URL": address, "S3_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "anyone", "AWS_SECRET_ACCESS_KEY": "anything",
            }
            yield
        finally:
            server.kill()


if __name__ == "__main__":
    Objects.folder = Path(sys.argv[1])
    listener = Server(("127.0.0.1", 0), Objects)
    print(f"http://127.0.0.1:{listener.server_port}", flush=True)
    listener.serve_forever()
