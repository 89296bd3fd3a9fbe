"""Files written to a real S3 server: values, kills at every step, answers that are lost, and what is left alone."""

from __future__ import annotations

import collections
import io
import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import job_process
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3
from job_process import SECONDS_MAX

import millstream as mill
from millstream import col

JOBS = Path(__file__).with_name("s3_jobs.py")
SEED = int(os.environ.get("SEED", "1"))
KILLS = int(os.environ.get("KILLS", "5"))
ROWS = 6_000
PARTS = 20
TASKS = 2


def rows_of(bucket: s3.Bucket, prefix: str) -> list[dict[str, Any]]:
    return [json.loads(line) for key in bucket.keys(prefix) for line in bucket.get(key).splitlines()]


def numbers(rows: int) -> mill.Stream:
    return mill.from_iter([{"n": n, "day": f"2024-01-{n % 3 + 1:02}"} for n in range(rows)])


# -- what is written -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "json", "parquet", "arrow"])
def test_every_format(bucket: s3.Bucket, tmp_path: Path, kind: str) -> None:
    sink = getattr(numbers(1000), f"write_{kind}")(bucket.url(f"{kind}/"))
    assert mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="10ms")).status == "finished"
    keys = bucket.keys(f"{kind}/")
    assert keys and all(key.startswith(f"{kind}/part-") and key.endswith(f".{kind}") for key in keys)
    back = getattr(mill, f"read_{kind}")(bucket.url(f"{kind}/")).collect().sort("n")
    assert back["n"] == list(range(1000))
    if kind == "parquet":
        tables = [pq.read_table(io.BytesIO(bucket.get(key))) for key in keys]
        assert sorted(pa.concat_tables(tables)["n"].to_pylist()) == list(range(1000))
    assert bucket.pending() == []


def test_objects_of_several_parts(bucket: s3.Bucket) -> None:
    noise = random.Random(SEED).randbytes(20 << 20)
    pieces = [noise[at : at + 1000] for at in range(0, len(noise), 1000)]
    table = pa.table({"x": pieces})
    mill.run(mill.from_arrow(table).write_parquet(bucket.url("out"), compression="uncompressed"))
    found = [pq.read_table(io.BytesIO(bucket.get(key))) for key in bucket.keys("out/")]
    assert collections.Counter(pa.concat_tables(found)["x"].to_pylist()) == collections.Counter(pieces)


def test_partitions_and_bounded_files(bucket: s3.Bucket, tmp_path: Path) -> None:
    sink = numbers(300).write_json(bucket.url("out/"), partition_by="day", max_rows_per_file=7)
    mill.run(sink, checkpoint=tmp_path / "state")
    assert {key.split("/")[1] for key in bucket.keys("out/")} == {"day=2024-01-01", "day=2024-01-02", "day=2024-01-03"}
    assert sorted(row["n"] for row in rows_of(bucket, "out/")) == list(range(300))
    assert len(bucket.keys("out/")) >= 300 // 7
    many = mill.from_iter([{"k": n % 150, "n": n} for n in range(450)]).write_json(bucket.url("many/"), partition_by="k")
    mill.run(many, parallelism=1)
    assert sorted(row["n"] for row in rows_of(bucket, "many/")) == list(range(450))


def test_a_result_without_rows_is_an_object_with_its_columns(bucket: s3.Bucket, tmp_path: Path) -> None:
    for kind in ("csv", "json"):
        sink = getattr(numbers(10).filter(col("n") < 0), f"write_{kind}")(bucket.url(f"{kind}/"))
        mill.run(sink, checkpoint=tmp_path / kind)
        [key] = bucket.keys(f"{kind}/")
        assert bucket.get(key) == (b"n,day\n" if kind == "csv" else b"")
    assert bucket.pending() == []


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once", "none", None])
def test_every_mode(bucket: s3.Bucket, tmp_path: Path, mode: Any) -> None:
    checkpoint = None if mode is None else mill.Checkpoint(tmp_path / "state", every="10ms", mode=mode)
    mill.run(numbers(5000).write_json(bucket.url("out/")), checkpoint=checkpoint)
    assert sorted(row["n"] for row in rows_of(bucket, "out/")) == list(range(5000))
    assert bucket.pending() == []


def test_a_job_that_fails_leaves_nothing(bucket: s3.Bucket) -> None:
    def fail(row: dict[str, Any]) -> bool:
        if row["n"] == 4999:
            raise RuntimeError("as the test wants it")
        return True

    with pytest.raises(mill.UserFunctionError):
        mill.run(numbers(5000).filter(fail).write_json(bucket.url("out/")))
    assert (bucket.keys(), bucket.pending()) == ([], [])


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_cancelled_job_gives_up_its_uploads(bucket: s3.Bucket, tmp_path: Path, is_kept: bool) -> None:
    # The end of a job shared the patience of its requests, which was over: uploads stayed, and were paid for.
    is_uploading, may_go = threading.Event(), threading.Event()

    def fate(method: str, path: str, number: int) -> s3.Fate:
        if method == "PUT" and "partNumber" in path:
            is_uploading.set()
            may_go.wait(60)
        return "pass"

    proxy = s3.Proxy(bucket.server, fate)
    try:
        mill.storage({"aws_endpoint": proxy.url}, url=bucket.url(""))
        job = mill.start(numbers(100).write_json(bucket.url("out/")), checkpoint=tmp_path / "state" if is_kept else None, parallelism=2)
        assert is_uploading.wait(60) and bucket.pending()
        job.cancel()
        assert job.wait("60s").status == "cancelled"
        assert (bucket.keys(), bucket.pending()) == ([], [])
    finally:
        may_go.set()
        proxy.stop()
        mill.storage({}, url=bucket.url(""))


def test_two_runs_of_one_plan_write_their_own_objects(bucket: s3.Bucket, tmp_path: Path) -> None:
    # The number in the names was that of the run that began last, so one replaced what the other had written.
    together = threading.Barrier(2)

    def fate(method: str, path: str, number: int) -> s3.Fate:
        if method == "PUT" and "partNumber" in path:
            together.wait(60)
        return "pass"

    proxy = s3.Proxy(bucket.server, fate)
    try:
        mill.storage({"aws_endpoint": proxy.url}, url=bucket.url(""))
        sink = numbers(50).write_json(bucket.url("out/"))
        jobs = [mill.start(sink, checkpoint=tmp_path / name, parallelism=1) for name in ("a", "b")]
        assert [job.wait("60s").status for job in jobs] == ["finished", "finished"]
    finally:
        proxy.stop()
        mill.storage({}, url=bucket.url(""))
    assert sorted(row["n"] for row in rows_of(bucket, "out/")) == sorted([*range(50), *range(50)])
    assert bucket.pending() == []


# -- other output ----------------------------------------------------------------------------------------------------------


def test_output_of_another_run(bucket: s3.Bucket, tmp_path: Path) -> None:
    bucket.put("out/mine.txt", b"kept")
    mill.run(numbers(10).write_json(bucket.url("out/")), checkpoint=tmp_path / "first")
    with pytest.raises(mill.ConnectorError, match="already has the output of another run"):
        mill.run(numbers(20).write_json(bucket.url("out/")), checkpoint=tmp_path / "second")
    mill.run(numbers(20).write_json(bucket.url("out/"), on_existing="replace"), checkpoint=tmp_path / "third")
    assert bucket.get("out/mine.txt") == b"kept"
    bucket.delete("out/mine.txt")
    assert sorted(row["n"] for row in rows_of(bucket, "out/")) == list(range(20))
    # A finished job that is run again does nothing.
    before = bucket.keys()
    mill.run(numbers(20).write_json(bucket.url("out/"), on_existing="replace"), checkpoint=tmp_path / "third")
    assert bucket.keys() == before


def test_what_is_refused_before_the_first_record(bucket: s3.Bucket) -> None:
    bucket.put("in/a.json", b'{"n": 1}\n')
    for target, message in [
        (bucket.url("out.json"), "names one object"),
        (bucket.url("out.csv"), "another format|names one object"),
        ("s3://no-such-bucket-1/out/", 'there is no bucket "s3://no-such-bucket-1"'),
        ("s3:///out/", "names no bucket"),
    ]:
        with pytest.raises((mill.PlanError, mill.ConnectorError), match=message):
            numbers(1).write_json(target)
    with pytest.raises(mill.PlanError, match="its own output"):
        mill.run(mill.read_json(bucket.url("in/*.json")).write_json(bucket.url("in")))
    sinks = [numbers(1).write_json(bucket.url("out/")), numbers(1).write_json(bucket.url("out"))]
    with pytest.raises(mill.PlanError, match="write into one directory"):
        mill.run(*sinks)


def test_a_prefix_that_moved_is_refused(bucket: s3.Bucket, tmp_path: Path) -> None:
    with pytest.raises(mill.UserFunctionError):
        mill.run(stops(bucket.url("a/")), checkpoint=mill.Checkpoint(tmp_path / "state", every="5ms"))
    if any((tmp_path / "state").glob("**/*manifest*")):
        with pytest.raises(mill.CheckpointError, match="the path was|another"):
            mill.run(stops(bucket.url("b/")), checkpoint=mill.Checkpoint(tmp_path / "state", every="5ms"))


def stops(url: str) -> mill.Output:
    import time

    def fail(row: dict[str, Any]) -> bool:
        if row["n"] == 900:
            raise RuntimeError("as the test wants it")
        if row["n"] % 100 == 0:
            time.sleep(0.01)
        return True

    return numbers(1000).filter(fail).write_json(url)


# -- crashes ---------------------------------------------------------------------------------------------------------------


class Job(job_process.Job):
    """A job of `s3_jobs.py`."""

    def __init__(self, work: Path, endpoint: str, source: str, target: str, *, every: str = "20ms", fail_point: str | None = None) -> None:
        super().__init__(JOBS, work, endpoint, source, target, work / "state", "--every", every, fail_point=fail_point)


def numbered(bucket: s3.Bucket) -> None:
    """Put numbers into several objects, so that a run has several checkpoints with output."""
    for part in range(PARTS):
        rows = range(part * ROWS // PARTS, (part + 1) * ROWS // PARTS)
        bucket.put(f"in/{part:02}.csv", b"n,text\n" + b"".join(b"%d,value-%d\n" % (n, n) for n in rows))


def check(bucket: s3.Bucket, prefix: str) -> None:
    assert sorted(row["n"] for row in rows_of(bucket, prefix)) == list(range(ROWS))


@pytest.mark.parametrize("step", ["object.note:2", "object.part:2", "object.complete:1", "object.complete:3", "object.create:3"])
def test_killed_at_a_step(bucket: s3.Bucket, tmp_path: Path, step: str) -> None:
    numbered(bucket)
    other = bucket.begin("out/part-0000000001-0-0123456789abcdef.json")
    job = Job(tmp_path, bucket.server.url, bucket.url("in/*.csv"), bucket.url("out/"), fail_point=step)
    assert job.ends_within(SECONDS_MAX) and job.process.returncode == -signal.SIGKILL, job.said()
    Job(tmp_path, bucket.server.url, bucket.url("in/*.csv"), bucket.url("out/")).finish()
    check(bucket, "out/")
    # The upload of somebody else is still there; of ours at most one for each task, which had begun when the process died and has no parts.
    pending = bucket.pending()
    assert other in [upload for _, upload in pending]
    ours = [upload for upload in pending if upload[1] != other]
    assert len(ours) <= (TASKS if step.startswith("object.note") else TASKS - 1), pending
    assert [bucket.parts(*upload) for upload in ours] == [0] * len(ours)


def test_killed_at_any_time(bucket: s3.Bucket, tmp_path: Path) -> None:
    chances = random.Random(SEED)
    numbered(bucket)
    for run in range(max(1, KILLS // 5)):
        work, target = tmp_path / str(run), f"out-{run}/"
        for _ in range(5):
            job = Job(work, bucket.server.url, bucket.url("in/*.csv"), bucket.url(target))
            if job.ends_within(chances.uniform(0.3, 1.2)):
                assert job.process.returncode == 0, job.said()
                break
            job.kill()
        Job(work, bucket.server.url, bucket.url("in/*.csv"), bucket.url(target)).finish()
        check(bucket, target)
    # What a kill leaves pending are uploads that had just begun.
    assert [bucket.parts(*upload) for upload in bucket.pending()] == [0] * len(bucket.pending())


def test_answers_that_are_lost(bucket: s3.Bucket, tmp_path: Path) -> None:
    """A completion that was done and not answered is not done again, and is not taken for lost."""
    numbered(bucket)
    chances = random.Random(SEED)

    def fate(method: str, path: str, number: int) -> s3.Fate:
        if method == "POST" and "uploadId" in path and chances.random() < 0.5:
            return "lose"
        is_listed = method in ("HEAD", "GET")
        return "pass" if is_listed else chances.choice(["fail", "drop", "pass", "pass", "pass", "pass", "pass"])

    proxy = s3.Proxy(bucket.server, fate)
    try:
        Job(tmp_path, proxy.url, bucket.url("in/*.csv"), bucket.url("out/"), every="100ms").finish()
    finally:
        proxy.stop()
    check(bucket, "out/")
    assert [upload for upload in bucket.pending() if any(upload[0] == key for key in bucket.keys())] == []


def test_an_upload_that_somebody_gave_up_is_an_error(bucket: s3.Bucket, tmp_path: Path) -> None:
    numbered(bucket)
    job = Job(tmp_path, bucket.server.url, bucket.url("in/*.csv"), bucket.url("out/"), fail_point="object.complete:2")
    assert job.ends_within(SECONDS_MAX) and job.process.returncode == -signal.SIGKILL, job.said()
    pending = bucket.pending()
    assert pending
    # The server of the tests answers with 500 where others know no such upload.
    proxy = s3.Proxy(bucket.server, lambda method, path, number: "unknown" if method == "POST" and "uploadId" in path else "pass")
    try:
        again = Job(tmp_path, proxy.url, bucket.url("in/*.csv"), bucket.url("out/"))
        assert again.ends_within(SECONDS_MAX) and again.process.returncode == 1
    finally:
        proxy.stop()
    assert "is lost: neither the upload" in again.said()
