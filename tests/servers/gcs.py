"""The interface of Google Cloud Storage that the engine uses, for tests: the S3 server of the tests, with generations before it.

There is no emulator of the XML API with uploads in parts. That API is S3's but for its generations: each write of an object has another
number, which is in every answer, and a write may ask for the number that it replaces (0: for none).
"""

from __future__ import annotations

import http.client
import itertools
import threading
from urllib.parse import parse_qs, quote, unquote, urlsplit

import s3
from loopback import Answers, Loopback

GENERATION = "x-goog-generation"
CONDITION = "x-goog-if-generation-match"


class Server(Loopback):
    """Stands before an S3 server, and numbers what is written."""

    def __init__(self, behind: s3.Server) -> None:
        generations: dict[str, int] = {}
        numbers = itertools.count(1_700_000_000_000_000)
        lock = threading.Lock()

        class Handler(Answers):
            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                parts = urlsplit(self.path)
                key, query = unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)
                writes = (self.command == "PUT" and not query) or (self.command == "POST" and "uploadId" in query)
                if not writes and self.command != "DELETE":
                    return self.forward(key, body)
                # One at a time: what a condition has seen holds until the write is done.
                with lock:
                    wanted = self.headers.get(CONDITION)
                    if wanted is not None and str(generations.get(key, 0)) != wanted:
                        text = b"<Error><Code>PreconditionFailed</Code><Message>it has another generation</Message></Error>"
                        return self.answer(412, [("content-type", "application/xml")], text)
                    if writes:
                        return self.forward(key, body, next(numbers))
                    if not query:
                        generations.pop(key, None)
                    return self.forward(key, body)

            def forward(self, key: str, body: bytes, generation: int | None = None) -> None:
                upstream = http.client.HTTPConnection("127.0.0.1", behind.port, timeout=30)
                headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("x-goog-")}
                # The client writes "/" and "-" of a key as %2F and %2D, which the server behind does not know.
                query = urlsplit(self.path).query
                upstream.request(self.command, quote(key) + (f"?{query}" if query else ""), body, headers)
                found = upstream.getresponse()
                data = found.read()
                upstream.close()
                if generation is not None and found.status == 200:
                    generations[key] = generation
                kept = [(name, value) for name, value in found.getheaders() if name.lower() not in ("connection", "transfer-encoding", "content-length")]
                if key in generations:
                    kept.append((GENERATION, str(generations[key])))
                self.answer(found.status, kept, data, found.getheader("content-length"))

            def answer(self, status: int, headers: list[tuple[str, str]], data: bytes, length: str | None = None) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("content-length", length or str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

        super().__init__(Handler)


class Bucket(s3.Bucket):
    """A bucket that no other test has, as ``gs://``."""

    def __init__(self, server: Server, behind: s3.Server, name: str) -> None:
        super().__init__(behind, name)
        self.options: dict[str, str | bool | int] = {"google_base_url": server.url, "google_bearer_token": "hunter2-token", "allow_http": True}

    @property
    def root(self) -> str:
        """The URL of the bucket."""
        return f"gs://{self.name}"

    def url(self, key: str = "") -> str:
        """The URL of something in it."""
        return f"{self.root}/{key}"

    def names(self, prefix: str = "") -> list[str]:
        """The names of all objects below a prefix."""
        return self.keys(prefix)

    def unfinished(self) -> list[str]:
        """The keys of uploads that have parts and are not complete."""
        return [key for key, upload in self.pending() if self.parts(key, upload)]
