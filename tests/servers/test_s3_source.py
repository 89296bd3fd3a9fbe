"""Reading objects of a real S3 server: values, changes, faults, and what is refused before the first record."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import s3

import millstream as mill
from millstream import col

SEED = int(os.environ.get("SEED", "1"))


def parquet(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def csv(rows: range) -> bytes:
    return b"n,text\n" + b"".join(b"%d,value-%d\n" % (n, n) for n in rows)


def total(stream: mill.Stream, **options: Any) -> list[dict[str, Any]]:
    return stream.agg(n=mill.count(), total=col("n").sum()).collect(**options).to_pylist()


def expected(rows: int) -> list[dict[str, Any]]:
    return [{"n": rows, "total": rows * (rows - 1) // 2}]


# -- what is read ----------------------------------------------------------------------------------------------------------


def test_every_format(bucket: s3.Bucket) -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]})
    bucket.put("in/a.csv", b"a,b\n1,x\n2,\n3,z\n")
    bucket.put("in/a.json", b'{"a":1,"b":"x"}\n{"a":2}\n{"a":3,"b":"z"}\n')
    bucket.put("in/a.parquet", parquet(table))
    arrow = io.BytesIO()
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    bucket.put("in/a.arrow", arrow.getvalue())
    bucket.put("in/a.txt", b"one\ntwo\n")
    readers: list[tuple[Any, str]] = [(mill.read_csv, "csv"), (mill.read_json, "json"), (mill.read_parquet, "parquet"), (mill.read_arrow, "arrow")]
    for read, name in readers:
        assert read(bucket.url(f"in/a.{name}")).collect(parallelism=1).to_pylist() == table.to_pylist(), name
    lines = mill.read_text(bucket.url("in/a.txt"), include_file_paths="path").collect().to_pylist()
    assert lines == [{"line": "one", "path": bucket.url("in/a.txt")}, {"line": "two", "path": bucket.url("in/a.txt")}]


def test_globs_directories_and_lists(bucket: s3.Bucket, tmp_path: Path) -> None:
    for key in ["in/a.txt", "in/b.txt", "in/c.log", "in/.hidden.txt", "in/_made.txt", "in/day=1/d.txt", "in/a b+c.txt", "other/e.txt"]:
        bucket.put(key, f"{key}\n".encode())
    local = tmp_path / "local.txt"
    local.write_text("local\n")

    def lines(path: str | list[str], **options: Any) -> list[str]:
        return sorted(mill.read_text(path, **options).collect()["line"])

    url = bucket.url
    assert lines(url("in/*.txt")) == sorted(["in/a b+c.txt", "in/a.txt", "in/b.txt", "in/_made.txt"])
    assert lines(url("in/")) == lines(url("in")) == sorted(["in/a b+c.txt", "in/a.txt", "in/b.txt", "in/c.log"])
    assert lines(url("in/"), recursive=True) == sorted(["in/a b+c.txt", "in/a.txt", "in/b.txt", "in/c.log", "in/day=1/d.txt"])
    assert lines(url("**/*.txt")) == sorted(["in/_made.txt", "in/a b+c.txt", "in/a.txt", "in/b.txt", "in/day=1/d.txt", "other/e.txt"])
    assert lines([url("other/e.txt"), str(local)]) == ["local", "other/e.txt"]
    rows = mill.read_text(url("in/day=1/"), hive_partitioning=True).collect().to_pylist()
    assert rows == [{"line": "in/day=1/d.txt", "day": 1}]


def test_large_objects_are_read_in_ranges(bucket: s3.Bucket) -> None:
    rows = 400_000
    bucket.put("large.csv", csv(range(rows)))
    stream = mill.read_csv(bucket.url("large.csv"))
    assert total(stream, parallelism=3) == expected(rows)
    packed = pa.compress(csv(range(rows)), codec="gzip", asbytes=True)
    bucket.put("large.csv.gz", packed)
    assert total(mill.read_csv(bucket.url("large.csv.gz"))) == expected(rows)


def test_of_parquet_only_what_is_needed_is_fetched(bucket: s3.Bucket) -> None:
    rows = 200_000
    noise = random.Random(SEED).randbytes(rows * 60)
    table = pa.table({"n": range(rows), "wide": [noise[60 * n : 60 * n + 60] for n in range(rows)]})
    data = parquet(table, row_group_size=50_000, use_dictionary=False)
    bucket.put("large.parquet", data)
    proxy = s3.Proxy(bucket.server, lambda method, path, number: "pass")
    try:
        mill.storage({"aws_endpoint": proxy.url}, url=bucket.url(""))
        stream = mill.read_parquet(bucket.url("large.parquet")).select("n")
        assert total(stream, parallelism=1) == expected(rows)
        assert proxy.bytes < len(data) / 2, (proxy.bytes, len(data))
        before = proxy.bytes
        few = mill.read_parquet(bucket.url("large.parquet")).filter(col("n") >= rows - 10)
        assert len(few.collect()) == 10
        assert proxy.bytes - before < len(data) / 2
    finally:
        proxy.stop()
        mill.storage({}, url=bucket.url(""))


# -- changes ---------------------------------------------------------------------------------------------------------------


def failing(at: int) -> Callable[[dict[str, Any]], bool]:
    def keep(row: dict[str, Any]) -> bool:
        if row["n"] == at:
            raise RuntimeError("as the test wants it")
        return True

    return keep


def test_a_job_goes_on_where_it_was(bucket: s3.Bucket, tmp_path: Path) -> None:
    rows = 30_000
    for part in range(3):
        bucket.put(f"in/{part}.csv", csv(range(part * rows, (part + 1) * rows)))

    def run(until: str | None = None, fails: bool = False) -> mill.Report:
        stream = mill.read_csv(bucket.url("in/*.csv"))
        if fails:
            stream = stream.filter(failing(2 * rows + 5))
        sink = stream.write_csv(tmp_path / "out")
        return mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="10ms"), parallelism=1)

    with pytest.raises(mill.UserFunctionError):
        run(fails=True)
    run()
    assert total(mill.read_csv(tmp_path / "out")) == expected(3 * rows)


def half_read(bucket: s3.Bucket, tmp_path: Path) -> Callable[[], object]:
    """Run a job that has read some of an object, and return the stream that continues from there."""

    def job() -> mill.Job:
        return mill.start(
            mill.read_csv(bucket.url("in/a.csv")).map_batches(slowly).write_csv(tmp_path / "out"),
            checkpoint=mill.Checkpoint(tmp_path / "state", every="10ms"),
            parallelism=1,
        )

    def slowly(batch: pa.RecordBatch) -> pa.RecordBatch:
        time.sleep(0.01)
        return batch

    started = job()
    end = time.monotonic() + 60
    while not [path for path in (tmp_path / "out").glob("part-*")] and time.monotonic() < end:
        time.sleep(0.005)
    started.stop()
    assert started.wait().status == "stopped"
    return lambda: job().wait()


def test_an_object_that_changed_while_the_job_was_down_is_refused(bucket: s3.Bucket, tmp_path: Path) -> None:
    bucket.put("in/a.csv", csv(range(200_000)))
    go_on = half_read(bucket, tmp_path)
    bucket.put("in/a.csv", csv(range(200_000)).replace(b"value-199999", b"VALUE-199999"))
    # What is known of an object is not asked for again at once; a new list of it is.
    with pytest.raises((mill.ConnectorError, mill.CheckpointError), match=r"a\.csv.* is another file than"):
        go_on()
    bucket.delete("in/a.csv")
    with pytest.raises((mill.ConnectorError, mill.CheckpointError), match="no object|gone"):
        go_on()
    bucket.put("in/a.csv", csv(range(200_000)))
    go_on()
    assert total(mill.read_csv(tmp_path / "out")) == expected(200_000)


def test_an_object_that_changes_while_it_is_read_is_an_error(bucket: s3.Bucket) -> None:
    bucket.put("a.csv", csv(range(400_000)))
    has_changed = threading.Event()

    def change(batch: pa.RecordBatch) -> pa.RecordBatch:
        if not has_changed.is_set():
            bucket.put("a.csv", csv(range(1, 400_001)))
            has_changed.set()
        return batch

    stream = mill.read_csv(bucket.url("a.csv")).map_batches(change)
    with pytest.raises(mill.ConnectorError, match=r"a\.csv.* was changed while it was read"):
        stream.agg(n=mill.count()).collect(parallelism=1)


# -- faults ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def proxied(bucket: s3.Bucket) -> Iterator[Callable[..., s3.Proxy]]:
    """Give what puts a proxy before the server."""
    proxies: list[s3.Proxy] = []

    def start(fate: Callable[[str, str, int], s3.Fate], **options: str | bool | int) -> s3.Proxy:
        proxies.append(s3.Proxy(bucket.server, fate))
        mill.storage({"aws_endpoint": proxies[-1].url, **options}, url=bucket.url(""))
        return proxies[-1]

    yield start
    mill.storage({}, url=bucket.url(""))
    for proxy in proxies:
        proxy.stop()


def test_requests_that_fail_are_repeated(bucket: s3.Bucket, proxied: Callable[..., s3.Proxy]) -> None:
    rows = 300_000
    bucket.put("in/a.csv", csv(range(rows)))
    bucket.put("in/b.parquet", parquet(pa.table({"n": range(rows)}), row_group_size=100_000))
    chances = random.Random(SEED)

    def fate(method: str, path: str, number: int) -> s3.Fate:
        is_data = method == "GET" and "?" not in path
        return chances.choice(["fail", "drop", "lose", "cut", *["pass"] * 8]) if is_data else "pass"  # type: ignore[return-value]

    proxy = proxied(fate)
    assert total(mill.read_csv(bucket.url("in/*.csv")), parallelism=2) == expected(rows)
    assert total(mill.read_parquet(bucket.url("in/b.parquet")), parallelism=2) == expected(rows)
    assert len(proxy.requests) > 5


def test_a_store_that_is_gone_is_an_error_that_names_the_object(bucket: s3.Bucket, proxied: Callable[..., s3.Proxy]) -> None:
    bucket.put("a.csv", csv(range(10)))
    proxied(lambda method, path, number: "fail")
    with pytest.raises(mill.ConnectorError, match=rf'"{re.escape(bucket.url("a.csv"))}": .*503 Service Unavailable'):
        mill.read_csv(bucket.url("a.csv"))


def test_a_job_ends_while_the_store_does_not_answer(bucket: s3.Bucket, tmp_path: Path, proxied: Callable[..., s3.Proxy]) -> None:
    bucket.put("a.csv", csv(range(100_000)))
    hangs, answers, asked = threading.Event(), threading.Event(), threading.Event()

    def fate(method: str, path: str, number: int) -> s3.Fate:
        if hangs.is_set():
            asked.set()
            answers.wait(60)
        return "pass"

    proxied(fate)
    stream = mill.read_csv(bucket.url("a.csv"))
    hangs.set()
    job = mill.start(stream.write_csv(tmp_path / "out"))
    assert asked.wait(60)
    began = time.monotonic()
    job.cancel()
    assert job.wait().status == "cancelled"
    # Far below the time after which the store would answer.
    assert time.monotonic() - began < 30
    answers.set()


# -- objects that are followed ---------------------------------------------------------------------------------------------


def await_rows(job: mill.Job, path: Path, rows: list[int]) -> None:
    """Wait until a sink has these values of ``n``."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert job.status.state == "running", job.status.error
        if found_rows(path) == sorted(rows):
            return
        time.sleep(0.1)
    raise AssertionError(f"{len(found_rows(path))} rows of {len(rows)} came")


def found_rows(path: Path) -> list[int]:
    if not any(path.glob("[!._]*.csv")):
        return []
    return sorted(mill.read_csv(path, schema={"n": int, "text": str}).collect()["n"])


def test_new_objects_are_read_as_they_come(bucket: s3.Bucket, tmp_path: Path) -> None:
    bucket.put("in/a.csv", csv(range(10)))
    bucket.put("in/deep/b.csv", csv(range(10, 20)))
    bucket.put("in/_c.csv", csv(range(900, 910)))
    stream = mill.read_csv(bucket.url("in/"), follow=True, recursive=True)
    state = mill.Checkpoint(tmp_path / "state", every="100ms")
    job = mill.start(stream.write_csv(tmp_path / "out"), checkpoint=state, parallelism=2)
    await_rows(job, tmp_path / "out", list(range(20)))
    bucket.put("in/deep/d.csv", csv(range(20, 30)))
    bucket.put("other/e.csv", csv(range(800, 810)))
    await_rows(job, tmp_path / "out", list(range(30)))
    bucket.delete("in/a.csv")  # It has been read.
    bucket.put("in/f.csv.gz", gzip.compress(csv(range(30, 40))))
    await_rows(job, tmp_path / "out", list(range(40)))
    # Another object at the place of one that has been read is read as well.
    bucket.put("in/deep/d.csv", csv(range(40, 45)))
    await_rows(job, tmp_path / "out", list(range(45)))
    job.stop()
    assert job.wait().status == "stopped"
    # What came, was replaced or went while no job ran.
    bucket.put("in/g.csv", csv(range(45, 50)))
    bucket.put("in/deep/b.csv", csv(range(50, 60)))
    bucket.delete("in/f.csv.gz")
    job = mill.start(stream.write_csv(tmp_path / "out"), checkpoint=state, parallelism=1)
    await_rows(job, tmp_path / "out", list(range(60)))
    time.sleep(2.5)  # Two more looks find nothing.
    assert found_rows(tmp_path / "out") == list(range(60))
    job.cancel()
    job.wait()


def test_each_version_of_an_object_is_read_once(bucket: s3.Bucket, tmp_path: Path) -> None:
    """Objects that are replaced before the first look, between looks, and before a restart."""
    stream = mill.read_csv(bucket.url("in/"), follow=True, schema={"n": int, "text": str})
    state = mill.Checkpoint(tmp_path / "state", every="50ms")
    rows: list[int] = []

    def put(key: str) -> list[int]:
        begin = len(rows)
        rows.extend(range(begin, begin + 10))
        bucket.put(key, csv(range(begin, begin + 10)))
        return rows

    put("in/a.csv")
    put("in/b.csv")
    for run in range(3):
        job = mill.start(stream.write_csv(tmp_path / "out"), checkpoint=state, parallelism=1 + run % 2)
        await_rows(job, tmp_path / "out", rows)
        # Before the first look of the run, and once more after it.
        await_rows(job, tmp_path / "out", put("in/a.csv"))
        await_rows(job, tmp_path / "out", put("in/a.csv"))
        job.cancel()
        job.wait()
        if run == 1:
            put("in/b.csv")
    job = mill.start(stream.write_csv(tmp_path / "out"), checkpoint=state)
    time.sleep(2.5)
    await_rows(job, tmp_path / "out", rows)
    job.cancel()
    job.wait()


def test_whole_objects_are_followed_from_an_empty_place(bucket: s3.Bucket, tmp_path: Path) -> None:
    def table(rows: range) -> bytes:
        return parquet(pa.table({"n": list(rows), "text": [str(n) for n in rows]}), row_group_size=3)

    schema: dict[str, Any] = {"n": int, "text": str}
    stream = mill.read_parquet(bucket.url("in/*.parquet"), follow=True, schema=schema)
    state = mill.Checkpoint(tmp_path / "state", every="50ms")
    job = mill.start(stream.write_csv(tmp_path / "out"), checkpoint=state)
    for number in range(5):
        bucket.put(f"in/{number}.parquet", table(range(10 * number, 10 * number + 10)))
        bucket.put(f"in/{number}.part", b"not one of them")
    await_rows(job, tmp_path / "out", list(range(50)))
    # A job of a machine that fails goes on with the objects that it had not read.
    job.cancel()
    job.wait()
    bucket.put("in/5.parquet", table(range(50, 60)))
    job = mill.start(stream.write_csv(tmp_path / "out"), checkpoint=state, parallelism=2)
    await_rows(job, tmp_path / "out", list(range(60)))
    job.cancel()
    job.wait()


def test_a_store_that_refuses_is_no_silence(bucket: s3.Bucket, proxied: Callable[..., s3.Proxy], tmp_path: Path) -> None:
    bucket.put("in/a.csv", csv(range(10)))
    denies = threading.Event()
    proxied(lambda method, path, number: "deny" if denies.is_set() else None)
    state = mill.Checkpoint(tmp_path / "state", every="50ms")
    job = mill.start(mill.read_csv(bucket.url("in/"), follow=True).write_csv(tmp_path / "out"), checkpoint=state)
    await_rows(job, tmp_path / "out", list(range(10)))
    denies.set()
    with pytest.raises(mill.ConnectorError, match="access is denied"):
        job.wait(timeout="60s")


# -- what is refused before the first record -------------------------------------------------------------------------------


def test_what_is_wrong_is_said_where_it_is_declared(bucket: s3.Bucket, proxied: Callable[..., s3.Proxy], tmp_path: Path) -> None:
    bucket.put("in/prices.csv", csv(range(10)))
    for path, message in [
        (bucket.url("in/price.csv"), r'there is no object .*"s3://.*/in/prices\.csv"'),
        (bucket.url("in/*.json"), "no object matches .*prices.csv"),
        (bucket.url("nothing/"), "has no objects to read"),
        ("s3://no-such-bucket-1/a.csv", 'there is no bucket "s3://no-such-bucket-1"'),
        ("s3:///a.csv", "names no bucket"),
        ("s3a://b/a.csv", "s3a, which Millstream does not know; did you mean 's3'"),
        ("https://user:hunter2@host/a.csv", "give credentials with mill.storage"),
        ("https://host/a.csv?signature=hunter2", "has a query"),
        ("https://host/*.csv", "does not say what it has"),
    ]:
        with pytest.raises((mill.ConnectorError, mill.PlanError), match=message) as told:
            mill.read_csv(path)
        assert "hunter2" not in str(told.value), path
    with pytest.raises(mill.PlanError, match="pathlib merges"):
        mill.read_csv(Path("s3://bucket/a.csv"))
    here = tmp_path / "here.csv"
    here.write_bytes(csv(range(3)))
    with pytest.raises(mill.PlanError, match="follow=True takes files of this machine or objects of a store, not both"):
        mill.read_csv([bucket.url("in/"), str(here)], follow=True)
    with pytest.raises(mill.PlanError, match="a server of the web does not say what is new"):
        mill.read_csv("https://host/a.csv", schema={"n": int}, follow=True)
    proxied(lambda method, path, number: "deny")
    with pytest.raises(mill.ConnectorError, match="access is denied: check the credentials") as told:
        mill.read_csv(bucket.url("in/prices.csv"))
    assert "hunter2" not in str(told.value)


def test_options_are_checked_and_never_shown(bucket: s3.Bucket, tmp_path: Path) -> None:
    for options, message in [
        ({"aws_acces_key_id": s3.SECRET}, r'no option "aws_acces_key_id"; did you mean "aws_access_key_id"|aws_access_key_id'),
        ({"aws_bucket": "b"}, "part of the URL"),
        ({1: "x"}, "the name of an option is a text"),
        ({"aws_secret_access_key": s3.SECRET.encode()}, "is a text, a number, True or False, not bytes"),
        (s3.SECRET, "takes a dict, as in .*, not str"),
    ]:
        with pytest.raises(mill.PlanError, match=message) as told:
            mill.storage(options)  # type: ignore[arg-type]
        assert s3.SECRET not in str(told.value)
    with pytest.raises(mill.PlanError, match="url is a bucket such as"):
        mill.storage({}, url="bucket")
    with pytest.raises(mill.PlanError, match="has a path; options are those of a whole bucket"):
        mill.storage({}, url="s3://bucket/reports")
    bucket.put("a.csv", csv(range(1000)))
    stream = mill.read_csv(bucket.url("a.csv"))
    report = mill.run(stream.write_csv(bucket.url("out/")), checkpoint=mill.Checkpoint(tmp_path / "state", every="10ms"))
    shown = repr(report) + str(report) + str(stream.explain()) + repr(stream)
    shown += "".join(path.read_bytes().decode("latin1") for path in tmp_path.rglob("*") if path.is_file())
    assert s3.SECRET not in shown and s3.KEY not in shown


def test_options_of_the_environment(bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    mill.storage({})
    bucket.put("a.csv", csv(range(10)))
    for name, value in {
        "AWS_ACCESS_KEY_ID": s3.KEY,
        "AWS_SECRET_ACCESS_KEY": s3.SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": bucket.server.url,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    assert total(mill.read_csv(bucket.url("a.csv"))) == expected(10)


def test_without_credentials_it_is_said_which_are_missing(bucket: s3.Bucket) -> None:
    mill.storage({"aws_endpoint": bucket.server.url, "aws_allow_http": True, "aws_metadata_endpoint": "http://127.0.0.1:9"})
    with pytest.raises(mill.ConnectorError, match="aws_access_key_id and aws_secret_access_key"):
        mill.read_csv(bucket.url("a.csv"))


# -- the web ---------------------------------------------------------------------------------------------------------------


def test_objects_of_a_web_server(tmp_path: Path) -> None:
    (tmp_path / "a b.csv").write_bytes(csv(range(100_000)))
    (tmp_path / "a.parquet").write_bytes(parquet(pa.table({"n": range(1000)})))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    # It knows no ranges, so that all of an object is fetched.
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert total(mill.read_csv(f"{url}/a%20b.csv")) == expected(100_000)
        assert total(mill.read_parquet(f"{url}/a.parquet")) == expected(1000)
        with pytest.raises(mill.ConnectorError, match="is not there"):
            mill.read_csv(f"{url}/b.csv")
        with pytest.raises(mill.PlanError, match="can only be read"):
            mill.from_iter([1]).write_csv(f"{url}/out/")
    finally:
        server.shutdown()
        server.server_close()
