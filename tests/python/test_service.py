"""A job as a service: SIGTERM, the HTTP endpoint, figures for Prometheus."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import millstream as mill
from millstream import col
from millstream._endpoint import Endpoint
from millstream._process_figures import process_figures

SERVICE = """
    import signal, sys
    import millstream as mill

    flow = mill.generate(rate=5_000, n=mill.index()).write_csv(sys.argv[1] + "/out")
    try:
        if sys.argv[2] == "run":
            mill.run(flow, checkpoint=mill.Checkpoint(sys.argv[1] + "/state", every="1h"))
        else:
            job = mill.start(flow, checkpoint=mill.Checkpoint(sys.argv[1] + "/state", every="1h"))
            print("started", flush=True)
            job.wait()
    finally:
        print("left", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
    print("went on")
"""


def get(url: str | None, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str, str]:
    assert url is not None
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    try:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("way", ["run", "start"])
def test_sigterm_stops_with_a_last_checkpoint(way: str, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SERVICE), tmp_path, way], stdout=subprocess.PIPE, text=True)
    with process:
        while not list(tmp_path.glob("out/.*")) and not list(tmp_path.glob("out/*")):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert told.splitlines()[-1] == "left True"
    assert mill.checkpoints(tmp_path / "state"), "there was a last checkpoint"
    written = mill.read_csv(tmp_path / "out").collect()["n"]
    assert len(written) == len(set(written)) > 0
    # What was stopped goes on.
    flow = mill.generate(rate=5_000, n=mill.index()).write_csv(tmp_path / "out")
    assert mill.run(flow, checkpoint=tmp_path / "state", until="300ms").restored is not None
    more = mill.read_csv(tmp_path / "out").collect()["n"]
    assert len(more) == len(set(more)) > len(written)
    assert set(more) > set(written)


WAIT_WITH_A_LIMIT = """
    import os, signal, sys, time
    import millstream as mill

    calls = []

    def first(batch):
        calls.append(batch)
        if len(calls) == 1:
            while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGTERM)
            # The last checkpoint comes after this call, which is longer than the wait.
            time.sleep(1.5)
        return batch

    flow = mill.generate(rate=1_000, n=mill.index()).map_batches(first).write_csv(sys.argv[1] + "/out")
    job = mill.start(flow, checkpoint=mill.Checkpoint(sys.argv[1] + "/state", every="1h"), parallelism=1)
    try:
        job.wait("1s")
    finally:
        print(job.status.state, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
"""


def test_sigterm_in_a_wait_with_a_limit_waits_for_the_last_checkpoint(tmp_path: Path) -> None:
    # SystemExit was raised when the limit was over, and the exit cancelled the job.
    call = [sys.executable, "-c", textwrap.dedent(WAIT_WITH_A_LIMIT), tmp_path]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (143, "stopped True\n")
    assert mill.checkpoints(tmp_path / "state"), "there was a last checkpoint"


def test_a_handler_of_the_user_stays() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        mill.run(mill.from_iter([1]).for_each(lambda row: signal.raise_signal(signal.SIGTERM)))
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_endpoint_tells_of_a_job(tmp_path: Path) -> None:
    numbers = mill.generate(rate=2_000, n=mill.index(), at=mill.now()).event_time("at", watermark="1s")
    counts = numbers.filter(col("n") % 2 == 0).name('a "b" \\ <i>').key_by(k=col("n") % 3).window(mill.tumbling("1s")).agg(n=mill.count())
    sinks = (counts.write_csv(tmp_path / "out"), numbers.for_each(lambda row: None))
    with mill.start(*sinks, checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms", mode="at_least_once"), http=0) as job:
        assert get(job.url, "/health") == (200, "application/json; charset=utf-8", '{"status": "running"}')
        while job.metrics().checkpoints_taken == 0 or job.metrics().rows_in == 0:
            time.sleep(0.01)
        status, kind, text = get(job.url, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert found["millstream_up"] == "1"
        assert int(found["millstream_records_read_total"]) > 0
        assert int(found['millstream_step_records_in_total{step="a \\"b\\" \\\\ <i>"}']) > 0
        # Every figure is described, and every name and value has the form that is asked for.
        label = r"[a-z_]+=\"(?:[^\"\\]|\\.)*\""
        names = [re.fullmatch(rf"([a-z_]+)(\{{{label}(?:,{label})*\}})?", name) for name in found]
        described = set(re.findall(r"^# TYPE ([a-z_]+) (?:counter|gauge)$", text, re.MULTILINE))
        assert {match[1] for match in names if match is not None} == described - ({"millstream_step_watermark_timestamp_seconds"} - set(text.split()))
        assert None not in names
        assert all(float(value) >= 0 for value in found.values())
        job_figures = json.loads(get(job.url, "/job")[2])
        assert job_figures["state"] == "running"
        assert [step["name"] for step in job_figures["metrics"]["steps"]] == [step.name for step in job.metrics().steps]
        status, kind, drawn = get(job.url, "/graph")
        assert (status, kind) == (200, "image/svg+xml")
        assert drawn.startswith("<svg") and "&lt;i&gt;" in drawn and "<i>" not in drawn
        status, kind, page = get(job.url, "/")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        # The page needs nothing from elsewhere.
        assert not re.findall(r"(?:src|href)=|https?:|@import|url\(", page)
        assert get(job.url, "/other")[0] == 404
        assert get(job.url, "/health", method="HEAD")[0] == 200
        assert get(job.url, "/job", method="POST")[0] == 501
        # A page of another site cannot read it by a name of its own.
        assert get(job.url, "/job", host="example.com")[0] == 403
        job.stop()
        job.wait()
        assert get(job.url, "/health") == (503, "application/json; charset=utf-8", '{"status": "stopped"}')
        assert "millstream_up 0\n" in get(job.url, "/metrics")[2]


def test_the_process_is_described_by_opentelemetrys_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", 'a "service"')
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=test%20bed, 1st=x,bad,=y")
    with mill.start(mill.generate(rate=100).for_each(lambda row: None), http=0) as job:
        text = get(job.url, "/metrics")[2]
    [target] = [line for line in text.splitlines() if line.startswith("target_info{")]
    assert f'process_pid="{os.getpid()}"' in target and 'service_name="a \\"service\\""' in target and target.endswith("} 1")
    assert 'deployment_environment_name="test bed"' in target and '_1st="x"' in target and "bad" not in target
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(found['process_cpu_time_seconds_total{cpu_mode="user"}']) > 0
    assert 10_000_000 < int(found["process_memory_usage_bytes"]) < 10**12
    assert int(found["process_thread_count"]) > 1 and int(found["process_unix_file_descriptor_count"]) > 3
    assert 0 < float(found["process_uptime_seconds"]) < 10**6
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES")
    assert 'service_name="unknown_service:python' in process_figures()


def test_a_queue_in_front_of_a_slow_step_is_full() -> None:
    may_go_on = threading.Event()

    def waits(row: Any) -> None:
        may_go_on.wait(60)

    made = mill.generate(n=mill.index()).key_by(k=col("n") % 10).agg(n=mill.count(), emit="1ms")
    with mill.start(made.for_each(waits), parallelism=2, http=0) as job:
        end = time.monotonic() + 60
        while not any(queue.fill == 1 for queue in job.metrics().queues) and time.monotonic() < end:
            time.sleep(0.01)
        full = [queue for queue in job.metrics().queues if queue.fill == 1]
        may_go_on.set()
        assert full and full[0].frames == full[0].capacity
        assert f'millstream_queue_fill_ratio{{source="{full[0].source}",target="{full[0].target}"}}' in job.metrics().to_prometheus()
        job.cancel()


def test_a_job_takes_over_the_address_of_one_that_is_over(tmp_path: Path) -> None:
    def start(port: int) -> mill.Job:
        numbers = mill.generate(rate=1_000, n=mill.index())
        return mill.start(numbers.write_csv(tmp_path / "out"), checkpoint=tmp_path / "state", http=port, replace=True)

    first = start(0)
    port = urlsplit(first.url or "").port
    assert port is not None
    second = start(port)
    assert first.status.state == "stopped"
    assert get(second.url, "/health")[2] == '{"status": "running"}'
    second.stop()
    second.wait()
    with start(port) as third:
        assert get(third.url, "/health")[0] == 200
    # One that runs keeps its address.
    with start(port) as fourth, pytest.raises(mill.PlanError, match="cannot listen there"):
        mill.run(mill.from_iter([1]).for_each(lambda row: None), http=port)
    del fourth


def test_a_job_that_is_refused_replaces_nothing(tmp_path: Path) -> None:
    numbers = mill.generate(rate=1_000, n=mill.index())
    sink = numbers.write_csv(tmp_path / "out")
    with mill.start(sink, checkpoint=tmp_path / "state") as job:
        with pytest.raises(mill.PlanError, match="http is a port or an address"):
            mill.start(sink, checkpoint=tmp_path / "state", replace=True, http="nonsense")
        for http in (None, 0):
            with pytest.raises(mill.PlanError, match="out"):
                mill.start(sink, numbers.write_csv(tmp_path / "out"), checkpoint=tmp_path / "state", replace=True, http=http)
        with pytest.raises(mill.PlanError, match="takes True or False, not 1"):
            mill.start(sink, checkpoint=tmp_path / "state", replace=1)  # type: ignore[arg-type]
        assert job.status.state == "running"


FORK = """
    import gc, os, sys, warnings
    import millstream as mill

    warnings.simplefilter("ignore")
    job = mill.start(mill.generate(rate=100).for_each(lambda row: None), http=0)
    child = os.fork()
    if child == 0:
        # The endpoint's thread is the parent's: to wait for it would never end, when the job goes or when the child exits.
        if sys.argv[1] == "drop":
            del job
            gc.collect()
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    from urllib.request import urlopen
    print(os.waitstatus_to_exitcode(status), urlopen(job.url + "/health").status)
"""


@pytest.mark.parametrize("way", ["exit", "drop"])
def test_a_forked_child_ends_and_leaves_the_endpoint_to_its_parent(way: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(FORK), way], stdout=subprocess.PIPE, text=True, start_new_session=True)
    with process:
        try:
            told, _ = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert told == "0 200\n"


def test_a_client_that_goes_away_is_no_news(capfd: pytest.CaptureFixture[str]) -> None:
    with mill.start(mill.generate(rate=100).for_each(lambda row: None), http=0) as job:
        where = urlsplit(job.url or "")
        for _ in range(5):
            with socket.create_connection((where.hostname or "", where.port or 0)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                # Closed with a reset, before the answer was read.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for _ in range(5):
            assert get(job.url, "/health")[0] == 200
        time.sleep(0.1)
    assert capfd.readouterr().err == ""


def test_an_endpoint_is_closed_by_its_own_thread_too() -> None:
    # As the garbage collector does that runs there.
    endpoint = Endpoint("127.0.0.1", 0, mill.graph(mill.from_iter([1]).for_each(lambda row: None)))
    endpoint._server.service_actions = endpoint.close  # type: ignore[method-assign]
    endpoint._thread.join(30)
    assert not endpoint._thread.is_alive()


def test_the_endpoint_ends_with_its_job() -> None:
    job = mill.start(mill.from_iter([1]).for_each(lambda row: None), http="localhost:0")
    url = job.url
    job.wait()
    assert get(url, "/health")[0] == 503
    del job
    gc.collect()
    with pytest.raises(ConnectionRefusedError):
        get(url, "/health")


@pytest.mark.parametrize("given", ["", "x", "1.2.3.4", "host:99999", -1, 70000, True, 1.5, "http://a:1", "a b:1", ["127.0.0.1:1"]])
def test_what_is_no_address_is_refused(given: Any) -> None:
    with pytest.raises(mill.PlanError, match=r'http is a port or an address such as "127.0.0.1:8080"'):
        mill.start(mill.from_iter([1]).for_each(lambda row: None), http=given)


def test_an_address_that_is_taken_is_told_before_the_job_starts() -> None:
    seen: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(mill.PlanError, match=r"cannot listen there: .*; port 0 takes one that is free"):
            mill.run(mill.from_iter([1]).for_each(seen.append), http=taken.getsockname()[1])
    assert not seen


def test_a_plan_with_several_sinks_is_drawn() -> None:
    words = mill.from_iter(["a", "b"]).key_by("value").agg(n=mill.count())
    plan = mill.graph(words.write_csv("out/"), words.filter(col("n") > 1).write_json("others/"), parallelism=2, checkpoint="state/")
    assert sorted(node.name for node in plan.nodes if node.kind == "sink") == ["write_csv", "write_json"]
    assert "exactly_once" in str(plan)
    assert plan._repr_html_().count("<rect") == len(plan.nodes)
    with pytest.raises(mill.PlanError, match="at least one sink"):
        mill.graph()


def test_a_failed_job_says_why_before_anybody_waits(caplog: pytest.LogCaptureFixture) -> None:
    def fails(row: Any) -> None:
        raise ValueError("no such luck")

    job = mill.start(mill.from_iter([1]).for_each(fails), http=0)
    end = time.monotonic() + 20
    while job.status.state != "failed":
        assert time.monotonic() < end
        time.sleep(0.01)
    error = job.status.error
    assert error is not None
    assert "ValueError: no such luck" in error
    assert str(job.status) == f"failed: {error}"
    assert error in repr(job)
    assert "no such luck" in job._repr_html_()
    assert json.loads(get(job.url, "/job")[2])["error"] == error
    assert json.loads(get(job.url, "/health")[2]) == {"status": "failed", "error": error}
    while not any(record.levelname == "ERROR" and error in record.getMessage() for record in caplog.records):
        assert time.monotonic() < end
        time.sleep(0.01)
    with pytest.raises(mill.UserFunctionError) as raised:
        job.wait()
    assert str(raised.value) == error
    assert job.status.error == error
    caplog.clear()
    # Whoever waits gets the error itself.
    with pytest.raises(mill.UserFunctionError):
        mill.run(mill.from_iter([1]).for_each(fails))
    done = mill.start(mill.from_iter([1]).for_each(lambda row: None))
    done.wait()
    assert done.status.error is None
    assert not caplog.records
