"""Checkpoints and savepoints on a real S3 server: kills at every step, caches that are lost or lie, two jobs, answers that fail."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import job_process
import postgres
import pytest
import s3
import s3_state_jobs
from cluster import Cluster
from job_process import SECONDS_MAX

import millstream as mill
from millstream import col
from millstream.state import pickled_state, verify

JOBS = Path(s3_state_jobs.__file__)
SEED = int(os.environ.get("SEED", "1"))
KILLS = int(os.environ.get("KILLS", "5"))
ROWS = 1_200


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory of caches, which no other test has."""
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def proxied(bucket: s3.Bucket) -> Iterator[Any]:
    """Give a function that puts a proxy before the store, for this process."""
    proxies: list[s3.Proxy] = []

    def put(fate: Any) -> s3.Proxy:
        proxy = s3.Proxy(bucket.server, fate)
        proxies.append(proxy)
        mill.storage({"aws_endpoint": proxy.url}, url=bucket.url(""))
        return proxy

    yield put
    for proxy in proxies:
        proxy.stop()
    mill.storage({}, url=bucket.url(""))


class Job(job_process.Job):
    """A job of `s3_state_jobs.py`."""

    def __init__(self, work: Path, bucket: s3.Bucket, name: str = "job", *, parallelism: int = 2, endpoint: str | None = None, fail_point: str | None = None) -> None:
        at = [endpoint or bucket.server.url, bucket.url(f"{name}/state"), bucket.url(f"{name}/out/")]
        super().__init__(JOBS, work, *at, "--rows", ROWS, "--parallelism", parallelism, fail_point=fail_point)


def check(bucket: s3.Bucket, name: str = "job") -> None:
    """Check that the output is what plain counting gives."""
    rows = [json.loads(line) for key in bucket.keys(f"{name}/out/") for line in bucket.get(key).splitlines()]
    assert sorted((row["least"], row["count"], row["total"]) for row in rows) == s3_state_jobs.expected(ROWS)
    assert verify(bucket.url(f"{name}/state"))[0][0][1] is None


def head_of(bucket: s3.Bucket, prefix: str) -> dict[str, Any]:
    return json.loads(b"\n".join(bucket.get(f"{prefix}/MILLSTREAM").split(b"\n")[1:-2]))


def counts(rows: int, **options: Any) -> mill.Stream:
    return mill.generate(rows=rows, k=mill.index() % 5).key_by("k").agg(n=mill.count(), **options).name("counts")


# -- what is there ---------------------------------------------------------------------------------------------------------


def test_a_job_goes_on_from_a_store(bucket: s3.Bucket, tmp_path: Path, cache: Path) -> None:
    url = bucket.url("jobs/counts/")
    report = mill.run(counts(1000).write_csv(tmp_path / "out"), checkpoint=url)
    assert report.status == "finished"
    keys = bucket.keys("jobs/counts/")
    assert "jobs/counts/MILLSTREAM" in keys and any("manifest-" in key for key in keys) and any("segment-" in key for key in keys)
    head = head_of(bucket, "jobs/counts")
    assert head["lease"] is None and head["checkpoints"][-1] == head["settled"] == report.checkpoint
    # Run again, it has nothing to do; also from another machine.
    for is_lost in (False, True):
        if is_lost:
            shutil.rmtree(cache)
        again = mill.run(counts(1000).write_csv(tmp_path / "out"), checkpoint=url)
        assert again.restored == report.checkpoint and "nothing to do" in again.notes[-1]


def test_what_is_kept_can_be_looked_at(bucket: s3.Bucket, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from millstream._cli import main

    url = bucket.url("state")
    sink = counts(1000).write_csv(tmp_path / "out")
    report = mill.run(sink, checkpoint=mill.Checkpoint(url, every="5ms"))
    found = {info.id: info for info in mill.checkpoints(url)}
    assert max(found) == report.checkpoint and found[report.checkpoint].is_finished
    assert sorted(mill.read_state(url, step="counts")["n"]) == [200] * 5
    assert verify(url) == ([(id, None) for id in sorted(found, reverse=True)], [])
    assert not mill.state_diff(sink, checkpoint=url).is_refused
    assert mill.state_diff(sink, checkpoint=url).path == url
    assert pickled_state(url) == []
    for arguments in (["list"], ["show", "--step", "counts"], ["verify"], ["export", "--step", "counts", "--output", str(tmp_path / "x.parquet")]):
        assert main(["state", arguments[0], url, *arguments[1:]]) == 0, capsys.readouterr()
    assert sorted(mill.read_parquet(tmp_path / "x.parquet").collect()["n"]) == [200] * 5
    # Whoever looks leaves nothing here.
    assert list((cache / "scratch").iterdir()) == []
    with pytest.raises(mill.CheckpointError, match=r"s3://bucket-\d+/nothing is not a millstream state directory: there is no object MILLSTREAM"):
        mill.checkpoints(bucket.url("nothing"))


def test_savepoints(bucket: s3.Bucket, tmp_path: Path, cache: Path) -> None:
    endless = mill.generate(rate=5_000, n=mill.index()).key_by(k=col("n") % 3).agg(n=mill.count(), emit="checkpoint").name("counts")
    saved = bucket.url("saved/before")
    sink, options = endless.for_each(lambda row: None), {"every": "50ms", "mode": "at_least_once"}
    with mill.start(sink, checkpoint=mill.Checkpoint(bucket.url("state"), **options)) as job:
        job.checkpoint()
        job.savepoint(saved)
        with pytest.raises(mill.CheckpointError, match="saved/before is not empty"):
            job.savepoint(saved)
        job.savepoint(tmp_path / "local")
    before = bucket.keys("saved/")
    assert [info.is_savepoint for info in mill.checkpoints(saved)] == [True] == [info.is_savepoint for info in mill.checkpoints(tmp_path / "local")]
    kept = sum(mill.read_state(saved, step="counts")["n"])
    shutil.rmtree(cache)
    # A job in a store begins with one in a store, and so does one in a directory; and one in a store with one in a directory.
    for path, source in [(bucket.url("next"), saved), (tmp_path / "next", saved), (bucket.url("third"), tmp_path / "local")]:
        with mill.start(sink, checkpoint=mill.Checkpoint(path, restore_from=source, **options)) as job:
            job.checkpoint()
        assert sum(mill.read_state(path, step="counts")["n"]) >= min(kept, sum(mill.read_state(source, step="counts")["n"]))
    assert bucket.keys("saved/") == before


def test_old_checkpoints_are_deleted(bucket: s3.Bucket, tmp_path: Path) -> None:
    endless = mill.generate(rate=5_000, n=mill.index()).key_by(k=col("n") % 3).agg(n=mill.count(), emit="checkpoint")
    with mill.start(endless.write_sqlite(tmp_path / "a.db", "t", key="k"), checkpoint=mill.Checkpoint(bucket.url("state"), every="1h", retain=2)) as job:
        for _ in range(8):
            job.checkpoint()
    head = head_of(bucket, "state")
    manifests = [key for key in bucket.keys("state/") if "manifest-" in key]
    # At most one more than are kept: the last one's deletion may have been left to the next run.
    assert 2 <= len(manifests) <= 3, manifests
    mill.run(counts(1).write_csv(tmp_path / "other"), checkpoint=bucket.url("other"))
    assert sorted(info.id for info in mill.checkpoints(bucket.url("state")))[-2:] == head["checkpoints"][-2:]


def test_segments_of_several_parts(bucket: s3.Bucket, tmp_path: Path, cache: Path) -> None:
    rows = 400_000
    sink = mill.generate(rows=rows, n=mill.index()).key_by("n").agg(count=mill.count(), emit="end").name("each").write_parquet(tmp_path / "out")
    report = mill.run(sink, checkpoint=bucket.url("state"), parallelism=1)
    assert max(info.bytes for info in mill.checkpoints(bucket.url("state")) if info.id == report.checkpoint) > 9 << 20
    shutil.rmtree(cache)
    assert mill.run(sink, checkpoint=bucket.url("state"), parallelism=1).restored == report.checkpoint
    assert len(mill.read_state(bucket.url("state"), step="each")) == rows
    assert bucket.pending() == []


def test_starting_over(bucket: s3.Bucket, tmp_path: Path) -> None:
    url = bucket.url("state")
    mill.run(counts(100).write_csv(tmp_path / "a"), checkpoint=url)
    before = head_of(bucket, "state")
    report = mill.run(counts(200).write_csv(tmp_path / "b"), checkpoint=mill.Checkpoint(url, restart=True))
    after = head_of(bucket, "state")
    assert report.restored is None and after["former"] == before["state"] != after["state"]
    assert sum(mill.read_state(url, step="counts")["n"]) == 200
    with pytest.raises(mill.CheckpointError, match="restart=True removes what"):
        mill.run(counts(200).write_csv(tmp_path / "b"), checkpoint=mill.Checkpoint(url, restart=True, restore_from=url + "/"))


# -- what is refused -------------------------------------------------------------------------------------------------------


def test_what_is_refused_before_the_first_record(bucket: s3.Bucket, tmp_path: Path) -> None:
    seen: list[int] = []
    sink = mill.from_iter([1, 2, 3]).map(lambda n: seen.append(n) or n).write_csv(tmp_path / "out")
    # The types of what a function returns are found out with some records.
    seen.clear()
    bucket.put("taken/mine.txt", b"kept")
    for url, message in [
        ("s3://no-such-bucket-1/state", 'there is no bucket "s3://no-such-bucket-1"'),
        (bucket.url("taken"), "holds \"mine.txt\"; give a prefix under which there is nothing else"),
    ]:
        with pytest.raises(mill.MillstreamError, match=message) as caught:
            mill.run(sink, checkpoint=url)
        assert url in str(caught.value) or url.rsplit("/", 1)[0] in str(caught.value)
    with pytest.raises(mill.PlanError, match='mode="none" notes'):
        mill.run(sink, checkpoint=mill.Checkpoint(bucket.url("state"), mode="none"))
    with pytest.raises(mill.PlanError, match="go into its output"):
        mill.run(counts(1).write_csv(bucket.url("out")), checkpoint=bucket.url("out/state"))
    assert (seen, bucket.get("taken/mine.txt")) == ([], b"kept")


def test_wrong_credentials(bucket: s3.Bucket, tmp_path: Path, proxied: Any) -> None:
    proxied(lambda method, path, number: "deny")
    with pytest.raises(mill.CheckpointError, match=r'cannot read "s3://bucket-\d+/state/MILLSTREAM": access is denied: check the credentials') as caught:
        mill.run(counts(1).write_csv(tmp_path / "out"), checkpoint=bucket.url("state"))
    assert s3.SECRET not in str(caught.value)
    with pytest.raises(mill.CheckpointError, match="access is denied"):
        mill.checkpoints(bucket.url("state"))


def test_one_job_at_a_time(bucket: s3.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = bucket.url("state")
    endless = mill.generate(rate=1_000, n=mill.index()).key_by(k=col("n") % 3).agg(n=mill.count(), emit="checkpoint")
    with mill.start(endless.write_sqlite(tmp_path / "a.db", "t", key="k"), checkpoint=url) as job:
        job.checkpoint()
        with pytest.raises(mill.CheckpointError, match=rf"{url} is in use by another job of this process"):
            mill.run(counts(1).write_csv(tmp_path / "out"), checkpoint=url)
        # Another cache is that of another user, and the lease is one for all.
        monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path / "other"))
        with pytest.raises(mill.CheckpointError, match=rf"{url} is in use by process {os.getpid()} on host .*which is this machine"):
            mill.run(counts(1).write_csv(tmp_path / "out"), checkpoint=url)
        job.checkpoint()
        monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path / "cache"))
        with mill.start(endless.write_sqlite(tmp_path / "a.db", "t", key="k"), checkpoint=url, replace=True) as other:
            assert job.status.state == "stopped"
            other.checkpoint()


# -- crashes ---------------------------------------------------------------------------------------------------------------

REMOTE = ["upload:3", "uploaded:3", "manifest:2", "manifest_written:2", "head:4", "published:1", "delete:1", "delete:4", "lease:1", "release:1"]
STEPS = [*(f"remote.{step}" for step in REMOTE), "manifest.rename:2", "sink.commit:2", "sink.committed:3", "object.complete:1"]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(bucket: s3.Bucket, tmp_path: Path, cache: Path, step: str) -> None:
    job = Job(tmp_path, bucket, fail_point=step)
    assert job.ends_within(SECONDS_MAX) and job.process.returncode == -signal.SIGKILL, job.said()
    if STEPS.index(step) % 2:
        # On another machine.
        shutil.rmtree(cache)
    Job(tmp_path, bucket, parallelism=1 + STEPS.index(step) % 3).finish()
    check(bucket)


def test_killed_at_any_time(bucket: s3.Bucket, tmp_path: Path, cache: Path) -> None:
    chances = random.Random(SEED)
    for run in range(max(1, KILLS // 5)):
        for kill in range(5):
            job = Job(tmp_path, bucket, f"job-{run}", parallelism=chances.randint(1, 3))
            if job.ends_within(chances.uniform(0.3, 2.5)):
                assert job.process.returncode == 0, job.said()
                break
            job.kill()
            if chances.random() < 0.4:
                shutil.rmtree(cache, ignore_errors=True)
        Job(tmp_path, bucket, f"job-{run}").finish()
        check(bucket, f"job-{run}")


# -- files of sinks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["sink.commit:2", "remote.published:2"])
def test_rows_that_wait_for_a_database_travel(bucket: s3.Bucket, database: postgres.Server, schema: str, tmp_path: Path, cache: Path, step: str) -> None:
    # They are in a file of the state directory, which the next machine does not have.
    state = bucket.url("job/state")
    at = [bucket.server.url, state, database.secret_url, "--table", f"{schema}.out", "--rows", 300, "--every", "100ms"]
    job = job_process.Job(JOBS, tmp_path, *at, fail_point=step)
    assert job.ends_within(SECONDS_MAX) and job.process.returncode == -signal.SIGKILL, job.said()
    assert [key for key in bucket.keys("job/state/postgres/")], bucket.keys()
    shutil.rmtree(cache)
    job_process.Job(JOBS, tmp_path, *at).finish()
    assert database.rows(f"SELECT n FROM {schema}.out ORDER BY n") == [(n,) for n in range(300)]


def test_rows_of_a_former_run_go_once_they_are_committed(bucket: s3.Bucket, database: postgres.Server, schema: str, tmp_path: Path, cache: Path) -> None:
    at = [bucket.server.url, bucket.url("job/state"), database.secret_url, "--table", f"{schema}.out", "--rows", 12000, "--every", "50ms"]
    job = job_process.Job(JOBS, tmp_path, *at, fail_point="sink.committed:5")
    assert job.ends_within(SECONDS_MAX) and job.process.returncode == -signal.SIGKILL, job.said()
    left = bucket.keys("job/state/postgres/")
    assert left
    job_process.Job(JOBS, tmp_path, *at).finish()
    assert not set(left) & set(bucket.keys("job/state/postgres/"))
    assert database.rows(f"SELECT count(*), sum(n) FROM {schema}.out") == [(12000, 12000 * 11999 // 2)]


def test_messages_that_wait_for_a_broker_travel(bucket: s3.Bucket, cluster: Cluster, tmp_path: Path, cache: Path) -> None:
    topic = cluster.topic("out")
    state = bucket.url("job/state")
    at = [bucket.server.url, state, cluster.address, "--table", topic, "--rows", 300, "--every", "100ms"]
    job = job_process.Job(JOBS, tmp_path, *at, fail_point="sink.commit:2")
    assert job.ends_within(SECONDS_MAX) and job.process.returncode == -signal.SIGKILL, job.said()
    assert [key for key in bucket.keys("job/state/kafka/")], bucket.keys()
    shutil.rmtree(cache)
    job_process.Job(JOBS, tmp_path, *at).finish()
    assert sorted(row["n"] for row in cluster.rows(topic)) == list(range(300))


# -- the lease -------------------------------------------------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    """Give the checksum of Castagnoli, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def write_head(bucket: s3.Bucket, prefix: str, change: Any) -> None:
    """Change the head behind the back of whoever has the lease."""
    head = head_of(bucket, prefix)
    change(head)
    covered = b"millstream head 1\n" + json.dumps(head).encode() + b"\n"
    bucket.put(f"{prefix}/MILLSTREAM", covered + b"crc32c %08x\n" % crc32c(covered))


def lease_of(host: str, renewals: int = 0) -> Any:
    holder = {"host": host, "boot": "", "space": "", "pid": 7, "started": 0}
    return lambda head: head.update(lease={"holder": holder, "run": 7, "renewals": renewals})


def test_a_job_that_lost_its_lease_ends(bucket: s3.Bucket, tmp_path: Path) -> None:
    endless = mill.generate(rate=1_000, n=mill.index()).key_by(k=col("n") % 3).agg(n=mill.count(), emit="checkpoint")
    job = mill.start(endless.write_sqlite(tmp_path / "a.db", "t", key="k"), checkpoint=mill.Checkpoint(bucket.url("state"), every="50ms"))
    job.checkpoint()
    write_head(bucket, "state", lease_of("elsewhere"))
    with pytest.raises(mill.CheckpointError, match='no longer has the lease of .*process 7 on host "elsewhere" has taken over'):
        job.wait("60s")
    head = head_of(bucket, "state")
    assert head["lease"]["holder"]["host"] == "elsewhere", "what is not its own is not given back"


def test_a_lease_of_another_host_is_waited_for(bucket: s3.Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = bucket.url("state")
    report = mill.run(counts(100).write_csv(tmp_path / "out"), checkpoint=url)
    write_head(bucket, "state", lease_of("elsewhere"))
    # It is renewed: its holder lives.
    renewing = threading.Timer(1.5, lambda: write_head(bucket, "state", lease_of("elsewhere", 1)))
    renewing.start()
    began = time.monotonic()
    with pytest.raises(mill.CheckpointError, match='is in use by process 7 on host "elsewhere", which is running'):
        mill.run(counts(100).write_csv(tmp_path / "out"), checkpoint=url)
    assert time.monotonic() - began < 14
    assert 'process 7 on host "elsewhere" has the lease of' in caplog.text and "waiting until it runs out (15 s)" in caplog.text
    renewing.join()
    # It is not: it runs out.
    began = time.monotonic()
    again = mill.run(counts(100).write_csv(tmp_path / "out"), checkpoint=url)
    assert again.restored == report.checkpoint and time.monotonic() - began >= 15


# -- a store that fails ----------------------------------------------------------------------------------------------------


def test_answers_that_fail(bucket: s3.Bucket, tmp_path: Path) -> None:
    # Each request may be refused, not answered, or answered though nobody hears it.
    chances = random.Random(SEED)
    fates: list[s3.Fate] = [chances.choice(["pass"] * 12 + ["fail", "drop", "lose", "cut"]) for _ in range(20_000)]
    proxy = s3.Proxy(bucket.server, lambda method, path, number: fates[number % len(fates)] if "state" in path else "pass")
    try:
        Job(tmp_path, bucket, endpoint=proxy.url).finish()
    finally:
        proxy.stop()
    check(bucket)


def test_a_store_that_is_away_for_a_while(bucket: s3.Bucket, tmp_path: Path, proxied: Any) -> None:
    is_away = threading.Event()
    proxied(lambda method, path, number: "deny" if is_away.is_set() and "state" in path else "pass")
    endless = mill.generate(rate=1_000, n=mill.index()).key_by(k=col("n") % 3).agg(n=mill.count(), emit="checkpoint")
    job = mill.start(endless.write_sqlite(tmp_path / "a.db", "t", key="k"), checkpoint=mill.Checkpoint(bucket.url("state"), every="50ms"))
    job.checkpoint()
    is_away.set()
    with pytest.raises(mill.CheckpointError, match="access is denied"):
        job.checkpoint()
    is_away.clear()
    job.checkpoint()
    job.stop()
    report = job.wait("60s")
    assert report.status == "stopped" and any("access is denied" in note for note in report.notes)


def test_a_store_that_passes_over_conditions_is_refused(bucket: s3.Bucket, tmp_path: Path) -> None:
    url = bucket.url("state")
    proxy = s3.Proxy(bucket.server, lambda method, path, number: "pass", drops=("if-match", "if-none-match"))
    mill.storage({"aws_endpoint": proxy.url}, url=bucket.url(""))
    try:
        with pytest.raises(mill.CheckpointError, match="passes over conditions of writes"):
            mill.run(counts(1).write_csv(tmp_path / "out"), checkpoint=url)
    finally:
        proxy.stop()
        mill.storage({}, url=bucket.url(""))


def test_a_cancelled_job_does_not_wait_for_the_store(bucket: s3.Bucket, tmp_path: Path, proxied: Any) -> None:
    is_stuck, may_go = threading.Event(), threading.Event()

    def fate(method: str, path: str, number: int) -> s3.Fate:
        if is_stuck.is_set() and method == "PUT":
            may_go.wait(60)
        return "pass"

    proxied(fate)
    endless = mill.generate(rate=1_000, n=mill.index()).key_by(k=col("n") % 3).agg(n=mill.count(), emit="checkpoint")
    job = mill.start(endless.write_sqlite(tmp_path / "a.db", "t", key="k"), checkpoint=mill.Checkpoint(bucket.url("state"), every="50ms"))
    job.checkpoint()
    is_stuck.set()
    time.sleep(0.3)
    job.cancel()
    try:
        assert job.wait("30s").status == "cancelled"
    finally:
        may_go.set()
