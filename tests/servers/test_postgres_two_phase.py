"""`write_postgres(via="two_phase")` against a real server: exact, and no prepared transaction is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest
from job_process import SECONDS_MAX
from test_postgres_sink import Job, check, events, kill_at, kill_at_random

import millstream as mill
from millstream import testing


@pytest.fixture(autouse=True)
def nothing_is_left(database: postgres.Server) -> Iterator[None]:
    """After each test no transaction is prepared."""
    yield
    testing.disarm()
    left = database.rows("select gid from pg_prepared_xacts")
    for (name,) in left:
        database.execute(f"rollback prepared '{name}'")
    assert left == []


def test_a_server_as_it_comes_prepares_nothing_and_tells_no_changes(tmp_path: Path) -> None:
    server = postgres.Server(more="max_prepared_transactions = 0\nwal_level = replica").start()
    try:
        server.execute("create table p (id int primary key); create publication p for table p")
        with pytest.raises(mill.ConnectorError, match="wal_level is replica"):
            mill.read_postgres_changes(server.url, "p", "s")
        sink = mill.from_iter([{"n": 1}]).write_postgres(server.url, "t", via="two_phase")
        with pytest.raises(mill.ConnectorError, match="the server allows none: set max_prepared_transactions"):
            mill.run(sink, checkpoint=tmp_path / "state")
    finally:
        server.stop()


@pytest.mark.parametrize("key", [None, "n"])
def test_rows_are_written_once(database: postgres.Server, schema: str, tmp_path: Path, key: str | None) -> None:
    stream = mill.from_iter([{"n": n, "x": "é" * n} for n in range(100)], schema={"n": int, "x": str})
    sink = stream.write_postgres(database.url, f"{schema}.out", key=key, via="two_phase")
    mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="10ms"), parallelism=2)
    assert database.rows(f"select count(*), count(distinct n) from {schema}.out") == [(100, 100)]
    assert database.rows("select relname from pg_class where relname like '%stage%'") == []
    # Where nobody goes on after a crash, nothing is prepared.
    mill.run(sink if key else stream.write_postgres(database.url, f"{schema}.again", via="two_phase"))


def test_what_the_database_refuses_is_an_error_before_the_checkpoint(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    database.execute(f"create table {schema}.out (n bigint check (n < 5))")
    sink = mill.from_iter([{"n": n} for n in range(9)]).write_postgres(database.url, f"{schema}.out", via="two_phase")
    for _ in range(2):
        with pytest.raises(mill.ConnectorError, match="violates check constraint"):
            mill.run(sink, checkpoint=tmp_path / "state")
    assert mill.checkpoints(tmp_path / "state") == []
    database.execute(f"alter table {schema}.out drop constraint out_n_check")
    mill.run(sink, checkpoint=tmp_path / "state")
    assert database.rows(f"select count(*) from {schema}.out") == [(9,)]


@pytest.mark.parametrize("job", ["windows", "latest"])
def test_killed_at_random(database: postgres.Server, schema: str, tmp_path: Path, job: str) -> None:
    kill_at_random(database, f"{schema}.out", tmp_path, job, "--via", "two_phase")


STEPS = ["postgres.prepare:2", "postgres.prepared:1", "checkpoint.publish:1", "postgres.commit_prepared:2", "postgres.committed_prepared:1"]


@pytest.mark.parametrize("job", ["windows", "latest"])
def test_killed_at_each_step(database: postgres.Server, schema: str, tmp_path: Path, job: str) -> None:
    made = events(tmp_path / "in.csv", 20_000, 4000)
    other = f"millstream:{0:016x}:{0:016x}:{0:016x}:1"
    database.execute(f"begin; create table {schema}.other (n int); prepare transaction '{other}'")
    # What comes between two steps is the same with a key.
    for number, step in enumerate(STEPS if job == "windows" else STEPS[1:4:2]):
        arguments = kill_at(step, database, f"{schema}.out{number}", tmp_path, job, "--via", "two_phase", "--parallelism", 2)
        Job(tmp_path, *arguments, "--parallelism", 1 + number % 3).finish()
        check(database, job, str(arguments[3]), made)
        # The transaction of another job is nobody's business.
        assert database.rows("select gid from pg_prepared_xacts") == [(other,)], step
    database.execute(f"rollback prepared '{other}'")


def test_a_prepared_transaction_that_the_next_run_finds(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    """It is committed if the checkpoint names it, also by a run that prepares none itself; one that was rolled back by hand is made again."""
    made = events(tmp_path / "in.csv", 20_000, 4000)
    for step, by_hand, via in [
        ("postgres.commit_prepared:1", False, "auto"), ("postgres.commit_prepared:1", True, "two_phase"), ("postgres.prepared:1", False, "auto")
    ]:  # fmt: skip
        target = f"{schema}.{step.partition('.')[2].partition(':')[0]}{int(by_hand)}"
        arguments = ("windows", database.url, tmp_path / "in.csv", target, tmp_path / target)
        run = Job(tmp_path, *arguments, "--via", "two_phase", fail_point=step)
        assert run.process.wait(SECONDS_MAX) == -signal.SIGKILL, run.said()
        ((name,),) = database.rows("select gid from pg_prepared_xacts")
        if by_hand:
            database.execute(f"rollback prepared '{name}'")
        Job(tmp_path, *arguments, "--via", via).finish()
        check(database, "windows", target, made)
        assert database.rows("select gid from pg_prepared_xacts") == []


@pytest.mark.parametrize("step", ["postgres.prepared", "postgres.committed_prepared", "postgres.committed", "checkpoint.publish"])
def test_answers_that_are_lost_and_checkpoints_that_fail(database: postgres.Server, schema: str, tmp_path: Path, step: str) -> None:
    sink = mill.generate(rows=600, rate=1000, n=mill.index()).write_postgres(database.url, f"{schema}.out", via="two_phase")
    testing.arm(step, first=2, times=2, effect="fail")
    report = mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="10ms"))
    assert report.status == "finished"
    assert database.rows(f"select n from {schema}.out order by 1") == [(n,) for n in range(600)]


def test_a_job_that_is_cancelled_leaves_nothing(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    numbers = mill.generate(rate=2000, n=mill.index())
    job = mill.start(numbers.write_postgres(database.url, f"{schema}.out", via="two_phase"), checkpoint=mill.Checkpoint(tmp_path / "state", every="10ms"))
    end = time.monotonic() + SECONDS_MAX
    while not database.rows(f"select to_regclass('{schema}.out') is not null")[0][0] or not database.rows(f"select * from {schema}.out limit 1"):
        assert time.monotonic() < end and job.status.state == "running", job.status
        time.sleep(0.02)
    job.cancel()
    assert job.wait().status == "cancelled"
    assert database.rows("select gid from pg_prepared_xacts") == []


def test_a_run_whose_sink_was_taken_over_leaves_the_transactions_of_the_next(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    """It fails, and ends its own: what the other run has prepared is neither committed nor rolled back by it."""
    numbers = mill.generate(rate=500, n=mill.index())
    sink = numbers.write_postgres(database.url, f"{schema}.out", via="two_phase")
    job = mill.start(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="20ms"))
    end = time.monotonic() + SECONDS_MAX
    while not database.rows(f"select to_regclass('{schema}._millstream_epochs') is not null")[0][0] or not database.rows(f"select * from {schema}.out limit 1"):
        assert time.monotonic() < end and job.status.state == "running", job.status
        time.sleep(0.02)
    # The name of a transaction of this job and sink, of another run.
    names: list[str] = []
    while not names:
        assert time.monotonic() < end and job.status.state == "running", job.status
        names = [name for (name,) in database.rows("select gid from pg_prepared_xacts")]
    start, job_number, sink_number, run, _ = names[0].split(":")
    other = ":".join([start, job_number, sink_number, f"{int(run, 16) ^ 1:016x}", "1"])
    database.execute(f"begin; create table {schema}.other (n int); prepare transaction '{other}'")
    job.cancel()
    assert job.wait().status == "cancelled"
    try:
        assert database.rows("select gid from pg_prepared_xacts") == [(other,)]
    finally:
        database.execute(f"rollback prepared '{other}'")
