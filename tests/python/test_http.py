"""`write_http` against a real server in a thread, which fails in every way that a service does."""

from __future__ import annotations

import contextlib
import email.utils
import json
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, testing
from millstream.io import http

ROWS = [{"n": n, "word": f"w{n}"} for n in range(25)]


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Service:
    """What came, and what is answered: a status, headers and text; `"drop"`: the connection is closed."""

    answers: list[Any] = field(default_factory=list)
    otherwise: Callable[[], Any] = lambda: 200
    requests: list[Request] = field(default_factory=list)
    taken: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def rows(self) -> list[Any]:
        """The records of a receiver that honours the key."""
        return [row for body in self.taken.values() for row in json.loads(body)]


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests.append(Request(self.command, self.path, dict(self.headers), body, self.client_address[1]))
            answer = found.answers.pop(0) if found.answers else found.otherwise()
            key = self.headers["Idempotency-Key"]
            if answer in ("drop after", 200):
                # One key, one body: a receiver may insist on it.
                assert found.taken.setdefault(key, body) == body
            if answer in ("drop", "drop after"):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if answer == "slow":
                time.sleep(0.3)
                answer = 200
            status, headers, text = answer if isinstance(answer, tuple) else (answer, {}, "")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_PATCH = do_POST

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_PAUSE_SECONDS_MIN", 0.001)
    monkeypatch.setattr(http, "_PAUSE_SECONDS_MAX", 0.002)


def stream() -> mill.Stream:
    return mill.from_iter(ROWS)


def test_batches_on_one_connection(service: Service, tmp_path: Path) -> None:
    sink = stream().write_http(f"{service.url}/hook?token=secret", batch_rows=10, headers={"Authorization": "Bearer abc", "X-Tag": "a b"})
    mill.run(sink, checkpoint=tmp_path / "state", parallelism=1)
    assert [len(json.loads(request.body)) for request in service.requests] == [10, 10, 5]
    assert service.rows() == ROWS
    first = service.requests[0]
    assert (first.method, first.path) == ("POST", "/hook?token=secret")
    assert first.headers["Content-Type"] == "application/json"
    assert first.headers["Authorization"] == "Bearer abc"
    assert first.headers["X-Tag"] == "a b"
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 3
    assert len({request.connection for request in service.requests}) == 1


def test_formats_and_methods(service: Service) -> None:
    mill.run(stream().write_http(service.url, format="ndjson", method="PUT", batch_rows=1000, headers={"content-type": "text/x-lines"}), parallelism=1)
    [request] = service.requests
    assert (request.method, request.path, request.headers["Content-Type"]) == ("PUT", "/", "text/x-lines")
    assert request.body.decode() == "".join(f'{{"n":{n},"word":"w{n}"}}\n' for n in range(25))
    mill.run(stream().write_http(service.url, format="ndjson", method="PATCH"), parallelism=1)
    assert service.requests[-1].headers["Content-Type"] == "application/x-ndjson"
    mill.run(stream().filter(col("n") < 0).write_http(service.url))
    assert len(service.requests) == 2


@pytest.mark.parametrize("answer", [500, 503, 429, 408, 425, "drop", "drop after", (429, {"Retry-After": "0"}, "")])
def test_what_is_sent_again(service: Service, answer: Any) -> None:
    service.answers = [200, answer, answer, 200]
    mill.run(stream().write_http(service.url, batch_rows=20), parallelism=1)
    assert service.rows() == ROWS
    keys = [request.headers["Idempotency-Key"] for request in service.requests]
    assert len(keys) == 4
    assert len(set(keys[1:])) == 1
    assert len({request.body for request in service.requests[1:]}) == 1


def test_a_slow_answer_is_not_waited_for(service: Service) -> None:
    service.answers = ["slow"]
    mill.run(stream().write_http(service.url, timeout="50ms"), parallelism=1)
    assert service.rows() == ROWS
    assert len(service.requests) == 2


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(service: Service, as_date: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(http.Waits, "pause", lambda _, seconds: waits.append(seconds))
    moment = datetime.now(timezone.utc) + timedelta(seconds=20)
    service.answers = [(503, {"Retry-After": email.utils.format_datetime(moment, usegmt=True) if as_date else "20"}, "")]
    mill.run(stream().write_http(service.url), parallelism=1)
    assert len(waits) == 1
    assert 10 < waits[0] <= 20
    service.answers = [(503, {"Retry-After": "100"}, "busy")]
    with pytest.raises(mill.ConnectorError, match=r"answered 503 Service Unavailable: busy; it asks for 100 s of patience, and a request is tried for 60 s"):
        mill.run(stream().write_http(service.url), parallelism=1)
    service.answers = [(503, {"Retry-After": "soon"}, "")]
    mill.run(stream().write_http(service.url), parallelism=1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((400, {}, "\n  field word is missing \nmore"), r"http://127.0.0.1:\d+ answered 400 Bad Request: field word is missing$"),
        ((401, {}, ""), r"answered 401 Unauthorized$"),
        ((404, {}, "x" * 1000), r"answered 404 Not Found: x{300}$"),
        ((302, {"Location": "/there"}, ""), r"answered 302 Found; redirects are not followed"),
    ],
)
def test_what_is_refused(service: Service, tmp_path: Path, answer: Any, message: str) -> None:
    service.answers = [answer]
    sink = stream().write_http(f"{service.url}/secret-path", headers={"Authorization": "secret-value"})
    with pytest.raises(mill.ConnectorError, match=message) as caught:
        mill.run(sink, checkpoint=tmp_path / "state")
    assert "secret" not in str(caught.value)
    assert len(service.requests) == 1
    # The rows are in the checkpoint: once the service takes them, they are sent.
    mill.run(sink, checkpoint=tmp_path / "state")
    assert service.rows() == ROWS
    assert service.requests[0].headers["Idempotency-Key"] == service.requests[1].headers["Idempotency-Key"]
    state = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert b"secret" not in state


def test_a_long_answer(service: Service) -> None:
    service.otherwise = lambda: (200, {}, "x" * 1_000_000)
    mill.run(stream().write_http(service.url, batch_rows=10), parallelism=1)
    assert [len(json.loads(request.body)) for request in service.requests] == [10, 10, 5]


def test_a_certificate_that_cannot_be_trusted(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "key", "-out", "certificate", *names]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(mill.ConnectorError, match=r"the certificate of https://localhost:\d+ cannot be trusted: self.signed certificate"):
            mill.run(stream().write_http(f"https://localhost:{listener.getsockname()[1]}/"))
        thread.join()


def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(mill.ConnectorError, match=r"cannot be reached: ConnectionRefusedError.*; the request was tried for 0 s"):
        mill.run(stream().write_http(f"http://127.0.0.1:{port}", retry="50ms"))


def test_a_request_left_behind_while_it_connects_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its body was sent when the service accepted at last, perhaps after the same request of the next run.
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    made = ("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, *names], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        sink = stream().write_http(f"https://127.0.0.1:{server.getsockname()[1]}", timeout="1h", retry="1h")
        job = mill.start(sink, checkpoint=tmp_path / "state", parallelism=1)
        # The connection is there, and waits for the other side to say who it is.
        accepted, _ = server.accept()
        job.cancel()
        assert job.wait("60s").status == "cancelled"
        accepted.settimeout(60)
        received = b""
        # Whether the other side closes the connection or resets it depends on what of the handshake it has read.
        with contextlib.suppress(ConnectionResetError), context.wrap_socket(accepted, server_side=True) as secure:
            received = secure.recv(1)
        assert received == b""


@pytest.mark.parametrize("answer", ["none", (503, {"Retry-After": "3000"}, ""), "no server"])
def test_a_cancelled_job_does_not_wait_for_the_service(service: Service, tmp_path: Path, answer: Any) -> None:
    # A request has a timeout of an hour, and so have its repetitions: cancel() has waited for that.
    has_asked, may_end = threading.Event(), threading.Event()

    def hang() -> Any:
        has_asked.set()
        return may_end.wait() if answer == "none" else answer

    service.otherwise = hang
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
        url = nowhere if answer == "no server" else service.url
        job = mill.start(stream().write_http(url, timeout="1h", retry="1h"), checkpoint=tmp_path / "state", parallelism=1)
        try:
            if answer == "no server":
                time.sleep(0.1)
            else:
                assert has_asked.wait(60)
            began = time.monotonic()
            job.cancel()
            assert job.wait("60s").status == "cancelled"
            assert time.monotonic() - began < 30
        finally:
            may_end.set()
    # What was not sent is in the checkpoint.
    service.otherwise = lambda: 200
    if answer != "no server":
        mill.run(stream().write_http(service.url), checkpoint=tmp_path / "state", parallelism=1)
        assert service.rows() == ROWS


@pytest.mark.parametrize("seed", range(4))
def test_once_for_a_receiver_that_honours_the_key(service: Service, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    service.otherwise = lambda: dice.choice([200, 200, 500, "drop", "drop after", 429])
    source = testing.Source({"n": int})
    with testing.Job(source.stream().write_http(service.url, batch_rows=3)) as job:
        for number in range(10):
            source.push(*({"n": number * 7 + n} for n in range(7)))
            if dice.random() < 0.3:
                job.kill_and_restore()
            job.checkpoint()
            if dice.random() < 0.3:
                job.kill_and_restore()
        source.end()
        job.checkpoint()
    assert sorted(row["n"] for row in service.rows()) == list(range(70))


def test_a_restart_sends_the_same_requests(service: Service, tmp_path: Path) -> None:
    service.answers = [200, 400]
    whole = stream().write_http(service.url, batch_rows=10)
    with pytest.raises(mill.ConnectorError):
        mill.run(whole, checkpoint=tmp_path / "state", parallelism=1)
    # The script was edited meanwhile: what waits is sent as it was.
    edited = stream().write_http(service.url, batch_rows=7, format="ndjson")
    mill.run(edited, checkpoint=tmp_path / "state", parallelism=1)
    assert service.rows() == ROWS
    keys = [request.headers["Idempotency-Key"] for request in service.requests]
    assert keys[:2] == keys[2:4]
    assert {request.headers["Content-Type"] for request in service.requests} == {"application/json"}


def test_values_are_those_of_write_json(service: Service, tmp_path: Path) -> None:
    at = datetime(2026, 7, 2, 3, 4, 5, 678_900)
    columns = {
        "f32": pa.array([0.1, 1e30, None, 3.4028234663852886e38], pa.float32()),
        "f64": pa.array([1e16, 1e-5, float("nan"), float("-inf")]),
        "money": pa.array([1, -1, None, 0], pa.int32()).cast(pa.decimal128(15, 3)),
        "bytes": pa.array([b"\x00\xff", b"", None, b"a"]),
        "day": pa.array([1, -1, None, 20_000], pa.int32()).view(pa.date32()),
        "at": pa.array([at, datetime(1, 1, 1), None, at.replace(microsecond=0)], pa.timestamp("us")),
        "ns": pa.array([1, 1000, None, 10**18], pa.int64()).view(pa.timestamp("ns")),
        "berlin": pa.array([at, datetime(1880, 1, 1), None, datetime(2026, 1, 1)], pa.timestamp("ms", "Europe/Berlin"), safe=False),
        "london": pa.array([at, datetime(2026, 1, 1), None, at], pa.timestamp("us", "Europe/London")),
        "offset": pa.array([0, 1, None, 2], pa.int64()).view(pa.timestamp("s", "-03:30")),
        "clock": pa.array([0, 86_399_999_999, None, 1000], pa.int64()).view(pa.time64("us")),
        "span": pa.array([-1500, 0, None, 360_000_500_000], pa.int64()).view(pa.duration("us")),
        "list": pa.array([[1, None], [], None, [3]], pa.list_(pa.int8())),
        "pair": pa.array([[1, 2], [3, None], None, [5, 6]], pa.list_(pa.int8(), 2)),
        "map": pa.array([[(1, "a")], [], None, [(2, None)]], pa.map_(pa.int64(), pa.string())),
        "struct": pa.array([{"a": True, "b": [at]}, None, {"a": None, "b": None}, {"a": False, "b": []}], pa.struct([("a", pa.bool_()), ("b", pa.list_(pa.timestamp("us")))])),
        "word": pa.array(["a", None, "é\"\\\u2028\n", "\x00"]).dictionary_encode(),
        "big": pa.array([2**64 - 1, 0, None, 1], pa.uint64()),
        "none": pa.nulls(4),
    }
    table = pa.table(columns)
    # A slice, so that offsets are not those of a whole column.
    rows = mill.from_arrow(pa.concat_tables([table, table]).combine_chunks().slice(1, 6))
    mill.run(rows.write_http(service.url, format="ndjson"), rows.write_json(tmp_path / "expected.jsonl"), parallelism=1)
    assert service.requests[0].body.decode() == (tmp_path / "expected.jsonl").read_text()


def test_a_date_beyond_pythons_years_is_an_error(service: Service) -> None:
    far = pa.table({"day": pa.array([2**31 - 1], pa.int32()).view(pa.date32())})
    with pytest.raises(mill.ConnectorError, match="DataError: column 'day' cannot be written as text"):
        mill.run(mill.from_arrow(far).write_http(service.url))


def test_arguments() -> None:
    updating = stream().key_by("n").agg(c=mill.count(), emit="each")
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: stream().write_http("example.com"), r"a URL begins with http:// or https://"),
        (lambda: stream().write_http(3), r"the URL is a text such as"),
        (lambda: stream().write_http("http://a:b@c/secret"), r"has a user or password; pass headers"),
        (lambda: stream().write_http("http://c:port/secret"), r"no valid host or port"),
        (lambda: stream().write_http("http://c/a b"), r"not ASCII; write it with %"),
        (lambda: stream().write_http("http://c", batch_rows=0), r"batch_rows=…\) takes a number of rows of at least 1, not 0"),
        (lambda: stream().write_http("http://c", method="GET"), r'takes "POST", "PUT" or "PATCH"'),
        (lambda: stream().write_http("http://c", format="csv"), r'takes "json" or "ndjson"'),
        (lambda: stream().write_http("http://c", timeout="0s"), r"0 is none"),
        (lambda: stream().write_http("http://c", headers={"Idempotency-Key": "x"}), r"Idempotency-Key is set by the sink itself"),
        (lambda: stream().write_http("http://c", headers={"a b": "secret"}), r"'a b' is no name of a header"),
        (lambda: stream().write_http("http://c", headers={"a": "secret\r\nb: c"}), r"the value of a has a character"),
        (lambda: stream().write_http("http://c", headers={"a": 1}), r"names and values are texts"),
        (lambda: updating.write_http("http://c"), r"this stream updates"),
        (lambda: updating.filter(col("c") > 1).write_http("http://c"), r"this stream updates|withdraws"),
    ]
    for call, message in cases:
        with pytest.raises(mill.PlanError, match=message) as caught:
            call()
        assert "secret" not in str(caught.value)


def test_the_plan_says_what_is_guaranteed() -> None:
    shown = str(mill.graph(stream().write_http("https://example.com/secret"), checkpoint="state"))
    assert 'write_http("https://example.com"), exactly once if the receiver honours Idempotency-Key  [at_least_once: the target cannot' in shown


def test_an_answer_is_shown_without_what_it_repeats(service: Service) -> None:
    service.answers = [(400, {}, "cannot POST /hook/s3cret?token=hunter2 with Bearer 1234")]
    sink = mill.from_iter([{"n": 1}]).write_http(f"{service.url}/hook/s3cret?token=hunter2", headers={"Authorization": "Bearer 1234"})
    with pytest.raises(mill.ConnectorError) as info:
        mill.run(sink)
    told = str(info.value)
    assert "cannot POST … with …" in told
    assert not any(secret in told for secret in ("s3cret", "hunter2", "1234"))


def test_a_content_type_of_the_users_counts(service: Service) -> None:
    rows = mill.from_iter([{"n": 1}])
    mill.run(rows.write_http(service.url, format="ndjson", headers={"content-type": "application/json"}))
    assert [request.headers["Content-Type"] for request in service.requests] == ["application/json"]
