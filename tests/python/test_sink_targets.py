"""What sinks do when their target, or the checkpoint, is not what it was: lost, older, moved, taken away, shared."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col, lit, testing

COUNT = 2000


def numbers(start: int) -> Iterator[int]:
    """Yield 0 to COUNT - 1, slowly enough for several checkpoints."""
    for number in range(start, COUNT):
        if number % 50 == 0:
            time.sleep(0.005)
        yield number


def stream() -> mill.Stream:
    """Return a replayable stream of one column."""
    return mill.from_iter(numbers, schema=int)


def query(path: Path, sql: str) -> list[Any]:
    """Return the rows of a query."""
    database = sqlite3.connect(path)
    try:
        return database.execute(sql).fetchall()
    finally:
        database.close()


def stopped(*sinks: mill.Sink, state: Path, after: str = "100ms", every: str = "10ms") -> mill.Report:
    """Run a job for a while and stop it."""
    return mill.run(*sinks, checkpoint=mill.Checkpoint(state, every=every), until=after, parallelism=1)


def left(state: Path, sink: Callable[[], mill.Sink], steps: int = 4000, seed: int = 1) -> None:
    """Run a job by hand and leave it as a kill would."""
    report = testing.simulate(
        sink(), checkpoint=mill.Checkpoint(state, every="1ms"), seed=seed, steps=steps, parallelism=1, frame_rows=5
    )
    assert report is None


def table(rows: int = 2000) -> mill.Stream:
    """Return a bounded stream whose order of steps a test decides."""
    return mill.generate(rows=rows, value=mill.index())


# -- SQLite: whose notes -------------------------------------------------------------------------------------------------


def test_two_jobs_append_to_one_table_and_each_goes_on(tmp_path: Path) -> None:
    # The second job's start used to delete the first one's notes, so that a restart applied an epoch twice.
    path = tmp_path / "out.db"

    def first() -> mill.Sink:
        return table().with_columns(who=lit("first")).write_sqlite(path, "t")

    for attempt in range(3):
        left(tmp_path / "first", first, steps=250, seed=attempt)
        other = table(50).with_columns(who=lit("other")).write_sqlite(path, "t")
        mill.run(other, checkpoint=tmp_path / f"other-{attempt}", parallelism=1)
    mill.run(first(), checkpoint=tmp_path / "first", parallelism=2)
    assert query(path, "SELECT count(*), count(DISTINCT value) FROM t WHERE who = 'first'") == [(2000, 2000)]
    assert query(path, "SELECT count(*), count(DISTINCT value) FROM t WHERE who = 'other'") == [(150, 50)]


def test_two_sinks_of_one_job_append_to_one_table(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    source = table()
    sinks = [
        source.filter(col("value") % 2 == 0).write_sqlite(path, "t"),
        source.filter(col("value") % 2 == 1).write_sqlite(path, "t"),
    ]
    mill.run(*sinks, checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"), parallelism=2)
    assert query(path, "SELECT count(*), count(DISTINCT value) FROM t") == [(2000, 2000)]


def test_epochs_of_thousands_of_failed_checkpoints_are_applied_once(tmp_path: Path) -> None:
    path = tmp_path / "out.db"

    def sink() -> mill.Sink:
        return mill.generate(rate=20000, value=mill.index()).write_sqlite(path, "t")

    checkpoint = mill.Checkpoint(tmp_path / "state", every="1ms")
    # The disk of the state directory fails for a long time; once it is well, the process dies right after the commit.
    testing.arm("checkpoint.publish", first=2, times=10**9, effect="fail")
    try:
        job = mill.start(sink(), checkpoint=checkpoint, parallelism=1)
        deadline = time.monotonic() + 300
        while job.metrics().checkpoints_failed < 1200:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # On a busy machine, thousands of records may be in the one checkpoint before the disk failed.
        first = query(path, "SELECT count(*) FROM t")[0][0]
        testing.arm("sink.committed", effect="die")
        while query(path, "SELECT count(*) FROM t")[0][0] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with contextlib.suppress(mill.MillstreamError):
            job.cancel()
            job.wait()
    finally:
        testing.disarm()
    committed = query(path, "SELECT count(*) FROM t")[0][0]
    assert committed - first > 1000
    while query(path, "SELECT count(*) FROM t")[0][0] == committed:
        assert time.monotonic() < deadline
        stopped(sink(), state=tmp_path / "state")
    # generate() has eight splits, each of which makes every eighth number in order.
    lanes = query(path, "SELECT value % 8, count(*), count(DISTINCT value), max(value) FROM t GROUP BY 1")
    assert all(count == distinct == (last - lane) // 8 + 1 for lane, count, distinct, last in lanes)


@pytest.mark.parametrize("key", [None, "value"])
@pytest.mark.parametrize("loss", ["deleted", "older", "no notes", "no table"])
def test_a_database_that_was_lost_is_refused(tmp_path: Path, loss: str, key: str | None) -> None:
    path, copy = tmp_path / "out.db", tmp_path / "copy.db"

    def sink() -> mill.Sink:
        return mill.generate(rate=20000, value=mill.index()).write_sqlite(path, "t", key=key)

    stopped(sink(), state=tmp_path / "state")
    shutil.copy(path, copy)
    stopped(sink(), state=tmp_path / "state")
    if loss == "deleted":
        path.unlink()
    elif loss == "older":
        shutil.copy(copy, path)
    else:
        database = sqlite3.connect(path)
        database.execute("DROP TABLE _millstream" if loss == "no notes" else "DROP TABLE t")
        database.commit()
        database.close()
    for _ in range(2):
        with pytest.raises(mill.CheckpointError, match="put the database back"):
            stopped(sink(), state=tmp_path / "state")


def test_a_savepoint_outlives_thousands_of_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    text = "x" * 200

    def sink() -> mill.Sink:
        wide = mill.generate(rate=50_000, k=mill.index() % 2000, x=mill.index()).with_columns(text=lit(text))
        return wide.key_by("k").agg(x=col("x").max(), text=col("text").max(), emit="checkpoint").write_sqlite(path, "t", key="k")

    job = mill.start(sink(), checkpoint=mill.Checkpoint(tmp_path / "state", every="1h"), parallelism=1)
    time.sleep(0.2)
    job.savepoint(tmp_path / "savepoint")
    for _ in range(1100):
        job.checkpoint()
    job.stop()
    job.wait()
    restored = mill.Checkpoint(tmp_path / "other", restore_from=tmp_path / "savepoint")
    assert mill.run(sink(), checkpoint=restored, until="100ms", parallelism=1).status == "stopped"


# -- SQLite: keys and values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value"),
    [(int, 1), (bool, True), (float, 0.5), (str, "a"), (bytes, b"a")],
)
def test_a_null_key_is_one_row_over_runs(tmp_path: Path, kind: type, value: Any) -> None:
    path = tmp_path / "out.db"
    for x in range(3):
        rows = [{"k": None, "x": x}, {"k": value, "x": x}, {"k": None, "x": x + 10}]
        mill.run(mill.from_iter(rows, schema={"k": kind, "x": int}).write_sqlite(path, "t", key="k"), parallelism=1)
    assert query(path, "SELECT k, x FROM t ORDER BY x") == [(value, 2), (None, 12)]


def test_a_nan_key_is_stored_as_null_and_not_mixed_with_one(tmp_path: Path) -> None:
    path = tmp_path / "out.db"

    def run(key: float | None) -> None:
        stream = mill.from_iter([{"k": key, "x": 1}], schema={"k": float, "x": int})
        mill.run(stream.write_sqlite(path, "t", key="k"), parallelism=1)

    run(math.nan)
    run(math.nan)
    assert query(path, "SELECT k, x FROM t") == [(None, 1)]
    with pytest.raises(mill.MillstreamError, match="NaN and null"):
        run(None)


def test_columns_of_nulls_and_large_numbers(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    mill.run(mill.from_iter([{"a": 1}]).with_columns(z=lit(None)).write_sqlite(path, "t"))
    assert query(path, "SELECT a, z FROM t") == [(1, None)]
    import pyarrow as pa

    large = pa.table({"n": pa.array([2**63], pa.uint64())})
    with pytest.raises(mill.MillstreamError, match=r'"n": 9223372036854775808 is larger'):
        mill.run(mill.from_arrow(large).write_sqlite(path, "large"))


# -- directories ---------------------------------------------------------------------------------------------------------


def generated(path: Path, kind: str = "json") -> mill.Sink:
    """Write numbers without an end."""
    stream = mill.generate(rate=20000, x=mill.index())
    return {"json": stream.write_json, "csv": stream.write_csv, "parquet": stream.write_parquet}[kind](path)


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_results_may_be_taken_away_once_they_are_committed(tmp_path: Path, kind: str) -> None:
    for _ in range(2):
        report = stopped(generated(tmp_path / "out", kind), state=tmp_path / "state")
        assert report.status == "stopped"
        parts = list((tmp_path / "out").glob("part-*"))
        assert parts
        for part in parts:
            part.unlink()


def test_results_of_a_finished_job_may_be_taken_away(tmp_path: Path) -> None:
    def run() -> mill.Report:
        return mill.run(table().write_json(tmp_path / "out"), checkpoint=tmp_path / "state", parallelism=1)

    run()
    for part in (tmp_path / "out").glob("part-*"):
        part.unlink()
    assert run().restored is not None
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.parametrize(("step", "is_lost"), [("sink.committed", True), ("checkpoint.settle", True), ("checkpoint.retire", False)])
def test_results_taken_away_before_the_commit_was_noted_are_lost(tmp_path: Path, step: str, is_lost: bool) -> None:
    def attempt(seed: int) -> mill.Report | None:
        checkpoint = mill.Checkpoint(tmp_path / "state", every="1ms")
        sink = table().write_csv(tmp_path / "out")
        return testing.simulate(sink, checkpoint=checkpoint, seed=seed, parallelism=1, frame_rows=50)

    testing.arm(step, first=3, effect="die")
    try:
        assert attempt(1) is None
    finally:
        testing.disarm()
    newest = max((tmp_path / "out").glob("part-*"))
    newest.unlink()
    if is_lost:
        with pytest.raises(mill.MillstreamError, match="is lost"):
            attempt(2)
    else:
        assert attempt(2)


def test_another_output_path_is_refused_with_both_paths(tmp_path: Path) -> None:
    stopped(generated(tmp_path / "out"), state=tmp_path / "state")
    with pytest.raises(mill.CheckpointError, match=r'the path was ".*/out" when .* is ".*/moved"'):
        stopped(generated(tmp_path / "moved"), state=tmp_path / "state")
    # It was refused before anything was made.
    (tmp_path / "out").rename(tmp_path / "moved")
    assert stopped(generated(tmp_path / "moved"), state=tmp_path / "state").status == "stopped"


FORKING = """
import os, sys, time
import millstream as mill

kind, out, state = sys.argv[1:]
def sink():
    stream = mill.generate(rate=2000, x=mill.index())
    return stream.write_json(out) if kind == "json" else stream.write_sqlite(out, "t")
job = mill.start(sink(), checkpoint=mill.Checkpoint(state, every="20ms"), parallelism=1)
time.sleep(0.2)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
job.stop()
job.wait()
print(child, flush=True)
mill.run(sink(), checkpoint=mill.Checkpoint(state, every="20ms"), parallelism=1, until="100ms")
print("went on", flush=True)
"""


@pytest.mark.parametrize("kind", ["json", "sqlite"])
def test_a_forked_child_does_not_keep_the_lock_of_a_sink(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKING, kind, str(tmp_path / "out"), str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert process.stdout.readline() == "went on\n"
        finally:
            os.kill(child, signal.SIGKILL)


# -- sinks of the user's -------------------------------------------------------------------------------------------------


class Ledger(mill.Sink):
    """A transactional sink that can only append."""

    kind = "transactional"

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.shown: dict[str, list[int]] = {}
        self.told: list[tuple[int | None, int | None]] = []

    def write(self, batch: Any) -> None:
        self.rows += batch.column(0).to_pylist()

    def pre_commit(self, epoch: int) -> Any:
        rows, self.rows = self.rows, []
        return {"id": os.urandom(4).hex(), "rows": rows} if rows else None

    def commit(self, handles: Sequence[tuple[int, Any]]) -> None:
        for _, handle in handles:
            self.shown[handle["id"]] = handle["rows"]


class Forgiving(Ledger):
    """A transactional sink that notes what it is told."""

    def restored(self, epoch: int | None, newest: int | None) -> None:
        self.told.append((epoch, newest))


class Outbox(mill.Sink):
    """A write-ahead sink that notes the epoch."""

    kind = "write-ahead"

    def __init__(self) -> None:
        self.delivered: list[tuple[int, list[int]]] = []

    def deliver(self, batch: Any, epoch: int) -> None:
        self.delivered.append((epoch, batch.column(0).to_pylist()))

    def last_epoch(self) -> int | None:
        return max((epoch for epoch, _ in self.delivered), default=None)


def stopped_after_three(sink: mill.Sink, state: Path) -> mill.Report:
    """Run a job until it keeps three checkpoints, and stop it."""
    job = mill.start(sink, checkpoint=mill.Checkpoint(state, every="10ms"), parallelism=1)
    until = time.monotonic() + 60
    while len(list(state.glob("manifest-*"))) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    job.stop()
    return job.wait()


def lose_newest(state: Path) -> None:
    """Remove the newest manifests, so that recovery goes back to an older checkpoint than the last with output."""
    for manifest in sorted(state.glob("manifest-*"))[-2:]:
        manifest.unlink()


@pytest.mark.parametrize("make", [Ledger, Outbox])
def test_an_older_checkpoint_is_refused_by_sinks_of_the_users(tmp_path: Path, make: Callable[[], Any]) -> None:
    sink = make()
    stopped_after_three(stream().sink_to(sink), tmp_path / "state")
    lose_newest(tmp_path / "state")
    with pytest.raises(mill.MillstreamError, match="would come again"):
        stopped(stream().sink_to(sink), state=tmp_path / "state")


def test_a_sink_of_the_users_may_accept_an_older_checkpoint(tmp_path: Path) -> None:
    sink = Forgiving()
    first = stopped_after_three(stream().sink_to(sink), tmp_path / "state")
    lose_newest(tmp_path / "state")
    second = stopped(stream().sink_to(sink), state=tmp_path / "state")
    assert first.checkpoint is not None
    assert sink.told == [(None, None), (second.restored, first.checkpoint)]
    assert second.restored is not None
    assert second.restored < first.checkpoint


def test_an_outbox_of_another_job_is_refused_and_without_state_everything_is_delivered(tmp_path: Path) -> None:
    outbox = Outbox()
    mill.run(mill.from_iter(range(5)).sink_to(outbox), checkpoint=tmp_path / "first", parallelism=1)
    with pytest.raises(mill.MillstreamError, match="of another run"):
        mill.run(mill.from_iter(range(5)).sink_to(outbox), checkpoint=tmp_path / "second", parallelism=1)
    # Its epochs begin at 1 again: they used to be taken for delivered.
    mill.run(mill.from_iter(range(5, 9)).sink_to(outbox), parallelism=1)
    assert sorted(x for _, values in outbox.delivered for x in values) == list(range(9))


@pytest.mark.parametrize(
    ("declaration", "named"),
    [
        ("CREATE TABLE t (k INTEGER UNIQUE ON CONFLICT IGNORE, x INTEGER)", "ON CONFLICT IGNORE"),
        ("CREATE TABLE t (k INTEGER, x INTEGER, UNIQUE (x) on conflict\n replace)", "ON CONFLICT REPLACE"),
        (
            "CREATE TABLE t (k INTEGER, x INTEGER);"
            "CREATE TRIGGER odd BEFORE INSERT ON t WHEN new.x % 2 BEGIN SELECT raise (ignore); END",
            "trigger \"odd\" leaves rows out",
        ),
    ],
)
def test_a_table_that_lets_rows_vanish_is_refused(tmp_path: Path, declaration: str, named: str) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as database:
        database.executescript(declaration)
    stream = mill.from_iter([{"k": 1, "x": 1}, {"k": 1, "x": 1}])
    with pytest.raises(mill.MillstreamError, match=re.escape(named)):
        mill.run(stream.write_sqlite(tmp_path / "x.db", "t"))
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as database:
        assert database.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_a_table_whose_conflicts_are_errors_is_taken(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as database:
        database.executescript("CREATE TABLE t (k INTEGER UNIQUE ON CONFLICT ABORT, x INTEGER)")
    mill.run(mill.from_iter([{"k": 1, "x": 1}, {"k": 2, "x": 1}]).write_sqlite(tmp_path / "x.db", "t"))
    with pytest.raises(mill.MillstreamError, match="UNIQUE"):
        mill.run(mill.from_iter([{"k": 2, "x": 3}]).write_sqlite(tmp_path / "x.db", "t"))
