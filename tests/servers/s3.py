"""An S3 server for tests (moto) on a free loopback port, and a proxy before it that loses, breaks and delays requests.

    python tests/servers/s3.py PORT      runs a server until Ctrl-C, to try things by hand
"""

from __future__ import annotations

import http.client
import importlib.util
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from loopback import Answers, Loopback
from postgres import free_port

START_SECONDS_MAX = 60
KEY = "hunter2-access-key"
SECRET = "hunter2-hunter2-secret"
OPTIONS: dict[str, str | bool | int] = {
    "aws_access_key_id": KEY,
    "aws_secret_access_key": SECRET,
    "aws_region": "us-east-1",
    "aws_allow_http": True,
}

Fate = Literal["pass", "fail", "drop", "lose", "deny", "unknown", "cut"]
"""What becomes of a request: it is answered; with 503; not at all; done and not answered; with 403; with 404; half of the answer comes."""


REFUSALS = {"fail": (503, "SlowDown"), "deny": (403, "AccessDenied"), "unknown": (404, "NoSuchUpload")}


def missing() -> str | None:
    """Say what is missing to run a server, or give None."""
    wanted = [name for name in ("moto", "flask", "boto3") if importlib.util.find_spec(name) is None]
    return f"no S3 server: install moto[server] and boto3 ({', '.join(wanted)} not found)" if wanted else None


class Server:
    """A server, whose objects are in its memory."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Server:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                self.client().list_buckets()
                return self
            except Exception:
                assert time.monotonic() < end and self._process.poll() is None, self._log.read_text()[-3000:]
                time.sleep(0.1)

    def client(self) -> Any:
        """Give the client that judges."""
        import boto3
        from botocore.config import Config

        config = Config(retries={"max_attempts": 0}, connect_timeout=2, s3={"addressing_style": "path"})
        given = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.url, config=config, **given)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


class Bucket:
    """A bucket that no other test has."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self._client = server.client()
        self._client.create_bucket(Bucket=name)

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        return bytes(self._client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def begin(self, key: str) -> str:
        """Begin an upload and leave it."""
        return str(self._client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"])

    def give_up(self, key: str, upload: str) -> None:
        self._client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)

    def pending(self) -> list[tuple[str, str]]:
        """The keys and ids of uploads that are not complete."""
        found = self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return [(each["Key"], each["UploadId"]) for each in found]

    def parts(self, key: str, upload: str) -> int:
        """Count the parts of an upload that is not complete."""
        return len(self._client.list_parts(Bucket=self.name, Key=key, UploadId=upload).get("Parts", []))


class Proxy(Loopback):
    """Stands before a server; ``fate(method, path, number)`` says what becomes of each request; headers of ``drops`` do not come through."""

    def __init__(self, server: Server, fate: Callable[[str, str, int], Fate], drops: tuple[str, ...] = ()) -> None:
        self.requests: list[tuple[str, str]] = []
        self.bytes = 0
        lock = threading.Lock()
        proxy = self

        class Handler(Answers):
            def do(self) -> None:
                with lock:
                    proxy.requests.append((self.command, self.path))
                    number = len(proxy.requests)
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                fate_now = fate(self.command, self.path, number)
                if fate_now == "drop":
                    self.close_connection = True
                    return
                if fate_now in REFUSALS:
                    status, code = REFUSALS[fate_now]
                    text = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
                    self.answer(status, [("content-type", "application/xml")], text)
                    return
                upstream = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
                upstream.request(self.command, self.path, body, {name: value for name, value in self.headers.items() if name.lower() not in drops})
                found = upstream.getresponse()
                data = found.read()
                upstream.close()
                with lock:
                    proxy.bytes += len(data)
                if fate_now == "lose":
                    self.close_connection = True
                    return
                kept = [(name, value) for name, value in found.getheaders() if name.lower() not in ("connection", "transfer-encoding", "content-length")]
                length = int(found.getheader("content-length") or len(data))
                self.answer(found.status, kept, data, length, fate_now == "cut")

            def answer(self, status: int, headers: list[tuple[str, str]], data: bytes, length: int | None = None, is_cut: bool = False) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data) if length is None else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data[: len(data) // 2] if is_cut else data)
                if is_cut:
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

        super().__init__(Handler)


if __name__ == "__main__":
    import tempfile

    server = Server(Path(tempfile.mkdtemp()), int(sys.argv[1]) if len(sys.argv) > 1 else None).start()
    print(server.url)
    try:
        signal.pause()
    finally:
        server.stop()
