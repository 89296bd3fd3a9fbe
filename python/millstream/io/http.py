"""HTTP: records are sent in batches to a service, each with a key by which it can tell what it has already."""

from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import json
import logging
import random
import re
import socket
import ssl
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from millstream._counts import count
from millstream._texts import choice, mapping
from millstream._value_texts import json_rows
from millstream._waits import Waits
from millstream.errors import ConnectorError, PlanError
from millstream.functions import check_pyarrow
from millstream.io._per_run import PerRun
from millstream.io.sinks import Output, output
from millstream.stream import Stream
from millstream.time import Duration, microseconds

if TYPE_CHECKING:
    from millstream._engine import RawEnding

__all__ = ["HttpFormat", "HttpMethod", "http_sink"]

HttpFormat = Literal["json", "ndjson"]
"""What a request has: an array of objects, or an object a line."""

HttpMethod = Literal["POST", "PUT", "PATCH"]
"""The method of a request."""

_BATCH_ROWS_MAX = 1_000_000
_PAUSE_SECONDS_MIN, _PAUSE_SECONDS_MAX = 0.1, 10.0
_ANSWER_BYTES_MAX = 1 << 16
_ANSWER_SHOWN = 300
_AGAIN = (408, 425, 429)
"""Answers below 500 after which a request is sent again."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN = ("content-length", "transfer-encoding", "connection", "host", "idempotency-key")
_TYPES = {"json": "application/json", "ndjson": "application/x-ndjson"}
_LOG = logging.getLogger("millstream.http")


def http_sink(
    stream: Stream,
    url: str,
    batch_rows: int,
    headers: Mapping[str, str] | None,
    method: HttpMethod,
    format: HttpFormat,
    timeout: Duration,
    retry: Duration,
) -> Output:
    """Send records to a service."""
    call = "write_http"
    check_pyarrow(call)
    target = _target(url, call)
    size = count(batch_rows, f"{call}(batch_rows=…) takes a number of rows of at least 1", 1, _BATCH_ROWS_MAX)
    choice(method, f"{call}(method=…)", "POST", "PUT", "PATCH")
    choice(format, f"{call}(format=…)", "json", "ndjson")
    seconds = microseconds(timeout, f"{call}(timeout=…)") / 1e6
    if not seconds:
        raise PlanError(f"{call}(timeout=…) is the time that a request may take, and 0 is none")
    retried = microseconds(retry, f"{call}(retry=…)") / 1e6
    all_headers = {"User-Agent": "millstream", **_headers(headers, call)}
    sink = PerRun(lambda: _HttpSink(target, size, all_headers, method, format, seconds, retried))
    name = f'{call}("{target.shown}"), exactly once if the receiver honours Idempotency-Key'
    advice = "put to_changelog() before it, for a column that says what happens to each row"
    raw = stream._raw.write_python(sink, name, "write-ahead-at-least-once", False, False, advice, 1)
    return output(raw, takes_frames=True)


class _Target:
    """Where requests go."""

    def __init__(self, is_secure: bool, host: str, port: int | None, path: str, shown: str) -> None:
        self.is_secure = is_secure
        self.host = host
        self.port = port
        self.path = path
        self.shown = shown
        """Scheme, host and port: the rest of a URL may be a secret."""


def _target(url: str, call: str) -> _Target:
    """Return the parts of a URL; what is none is not repeated, as it may hold a secret."""
    example = '"https://example.com/hook"'
    if not isinstance(url, str):
        raise PlanError(f"{call}(): the URL is a text such as {example}, not an object of type {type(url).__name__}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise PlanError(f"{call}(): the URL has no valid host or port; it is a text such as {example}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PlanError(f"{call}(): a URL begins with http:// or https:// and a host, as in {example}")
    if parts.username is not None or parts.password is not None:
        raise PlanError(f'{call}(): the URL has a user or password; pass headers={{"Authorization": …}}')
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if re.search(r"[^\x21-\x7e]", path):
        raise PlanError(f"{call}(): the path of the URL has a space or a character that is not ASCII; write it with %, by urllib.parse.quote()")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return _Target(parts.scheme == "https", parts.hostname, port, path, f"{parts.scheme}://{host}{'' if port is None else f':{port}'}")


def _headers(headers: Mapping[str, str] | None, call: str) -> dict[str, str]:
    """Return headers that can be sent; no message repeats a value, which may be a secret."""
    found = {}
    for name, value in ({} if headers is None else mapping(headers, f"{call}(headers=…)", '{"Authorization": "Bearer …"}')).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise PlanError(f"{call}(headers=…): names and values are texts")
        if not _NAME.fullmatch(name):
            raise PlanError(f"{call}(headers=…): {name!r:.100} is no name of a header")
        if name.lower() in _OWN:
            raise PlanError(f"{call}(headers=…): {name} is set by the sink itself")
        if not value.isascii() or not value.isprintable():
            raise PlanError(f"{call}(headers=…): the value of {name} has a character that is no printable ASCII")
        found["-".join(part.capitalize() for part in name.split("-")) if name.lower() in ("content-type", "user-agent") else name] = value
    return found


class _HttpSink:
    """The writer and the committer for one run. Rows wait in the checkpoint as the bodies of requests, which are sent after it."""

    def __init__(self, target: _Target, batch_rows: int, headers: dict[str, str], method: str, format: str, timeout: float, retry: float) -> None:
        self._target = target
        self._batch_rows = batch_rows
        self._headers = headers
        self._method = method
        self._format = format
        self._timeout = timeout
        self._retry = retry
        self._connection: http.client.HTTPConnection | None = None
        self._rows: list[str] = []
        self._run = uuid.uuid4().hex
        self._waits = Waits()

    # -- the writer --------------------------------------------------------------------------------------------------

    def write(self, batch: Any) -> None:
        """Take a frame."""
        self._rows += json_rows(batch)

    def pre_commit(self, epoch: int) -> bytes | None:
        """Return the requests of an epoch: their key, and their bodies.

        The bodies are what is sent, also after a restart: a receiver may compare the bodies that come with one key.
        """
        if not self._rows:
            return None
        bodies = [self._body(self._rows[at : at + self._batch_rows]) for at in range(0, len(self._rows), self._batch_rows)]
        self._rows = []
        head = json.dumps({"key": f"{self._run}-{epoch}", "type": _TYPES[self._format], "sizes": [len(body) for body in bodies]})
        return head.encode() + b"\n" + zlib.compress(b"".join(bodies), 1)

    def _body(self, rows: list[str]) -> bytes:
        return (f"[{','.join(rows)}]" if self._format == "json" else "".join(f"{row}\n" for row in rows)).encode()

    # -- the committer -----------------------------------------------------------------------------------------------

    def promise(self, delivery: str, restored: int | None, newest: int | None, is_persistent: bool, ending: RawEnding) -> None:
        """Begin the run: the keys are those of no other, whatever it promises."""
        # What was left behind by a former attempt keeps its own.
        self._waits = Waits()
        self._waits.begin(ending)

    def commit(self, handles: Sequence[tuple[int, bytes]]) -> None:
        """Send the requests of checkpoints that are durable."""
        for _, handle in sorted(handles, key=lambda pair: pair[0]):
            head, _, packed = handle.partition(b"\n")
            told = json.loads(head)
            bodies = memoryview(zlib.decompress(packed))
            begin = 0
            for number, size in enumerate(told["sizes"]):
                self._send(bytes(bodies[begin : begin + size]), f"{told['key']}-{number}", told["type"])
                begin += size

    recover = commit

    def abort(self, handles: object) -> None:
        """Forget what is in no checkpoint."""
        self._rows = []

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # A request that was left behind waits for its answer no longer.
            with contextlib.suppress(OSError):
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    # -- requests ----------------------------------------------------------------------------------------------------

    def _send(self, body: bytes, key: str, kind: str) -> None:
        """Send one request until the service has taken it."""
        end = time.monotonic() + self._retry
        pause = _PAUSE_SECONDS_MIN
        waits = self._waits
        while True:
            failure, wait = waits.call(functools.partial(self._attempt, waits, body, key, kind))
            if failure is None:
                return
            left = end - time.monotonic()
            if wait is not None and wait > left:
                raise ConnectorError(f"{failure}; it asks for {wait:.0f} s of patience, and a request is tried for {self._retry:.0f} s: see retry=")
            if left <= 0 and wait != 0.0:
                raise ConnectorError(f"{failure}; the request was tried for {self._retry:.0f} s")
            _LOG.debug("%s: %s; trying again", self._target.shown, failure)
            waits.pause(min(wait if wait is not None else random.uniform(pause / 2, pause), max(left, 0)))
            pause = min(pause * 2, _PAUSE_SECONDS_MAX)

    def _attempt(self, waits: Waits, body: bytes, key: str, kind: str) -> tuple[str | None, float | None]:
        """Send a request once; return what went wrong if it may be sent again, and how long the service asks to wait."""
        # The type is that of the stored bodies, unless the user has another name for it.
        headers = {"Content-Type": kind, **self._headers, "Idempotency-Key": key}
        is_fresh = self._connection is None
        try:
            connection = self._connected()
            if connection.sock is None:
                connection.connect()
                if waits.are_over:
                    # The next run sends this request, and perhaps has already.
                    connection.close()
                    waits.check()
            connection.request(self._method, self._target.path, body, headers)
            answer = connection.getresponse()
            text = answer.read(_ANSWER_BYTES_MAX)
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise ConnectorError(f"the certificate of {self._target.shown} cannot be trusted: {error.verify_message}") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A service may end a connection that was idle, which says nothing about this request.
            return f"{self._target.shown} cannot be reached: {type(error).__name__}: {error}".removesuffix(": "), None if is_fresh else 0.0
        if answer.will_close or not answer.isclosed():
            self.close()
        if 200 <= answer.status < 300:
            return None, None
        first = self._without_secrets(text.decode(errors="replace").strip().partition("\n")[0].strip())[:_ANSWER_SHOWN]
        failure = f"{self._target.shown} answered {answer.status} {answer.reason}".rstrip() + (f": {first}" if first else "")
        if answer.status in _AGAIN or answer.status >= 500:
            return failure, _asked_to_wait(answer.headers.get("Retry-After"))
        if 300 <= answer.status < 400:
            raise ConnectorError(f"{failure}; redirects are not followed: pass the URL that it leads to")
        raise ConnectorError(failure)

    def _without_secrets(self, answer: str) -> str:
        """Return an answer without what it repeats of the path and of the user's headers."""
        own = [self._target.path, self._target.path.partition("?")[2], *(value for name, value in self._headers.items() if name not in ("Content-Type", "User-Agent"))]
        for secret in sorted((text for text in own if len(text) > 1), key=len, reverse=True):
            answer = answer.replace(secret, "…")
        return answer

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            where = self._target
            if where.is_secure:
                self._connection = http.client.HTTPSConnection(where.host, where.port, timeout=self._timeout, context=ssl.create_default_context())
            else:
                self._connection = http.client.HTTPConnection(where.host, where.port, timeout=self._timeout)
            # One that the end of the run has closed is not opened again by a request that was left behind.
            self._connection.auto_open = 0
        return self._connection


def _asked_to_wait(given: str | None) -> float | None:
    """Return the seconds of a ``Retry-After``, which is a number or a date."""
    if given is None:
        return None
    if given.strip().isdecimal():
        return float(given)
    try:
        moment = email.utils.parsedate_to_datetime(given)
    except (TypeError, ValueError):
        return None
    return max(moment.timestamp() - time.time(), 0.0)
