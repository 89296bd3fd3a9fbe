"""Commits to Iceberg tables that are cut short, lost, late or in each other's way."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pytest

import millstream as mill
from millstream import testing

pytest.importorskip("pyiceberg")

from iceberg_tables import catalog, lake_in, leftover, made, rows, table
from pyiceberg import types as kinds
from pyiceberg.catalog.rest import CreateTableRequest
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import CommitTableRequest


@pytest.fixture
def lake(tmp_path: Path) -> dict[str, str]:
    return lake_in(tmp_path)


# -- crashes ---------------------------------------------------------------------------------------------------------------


def pushed(count: int = 40) -> testing.Source:
    source = testing.Source({"n": int})
    source.push(*({"n": n} for n in range(count)))
    source.end()
    return source


@pytest.mark.parametrize("key", [None, "n"])
@pytest.mark.parametrize("kill_after", range(6))
def test_a_kill_between_checkpoints(lake: dict[str, str], key: str | None, kill_after: int) -> None:
    source = pushed(5)
    with testing.Job(source.stream().write_iceberg("s.t", catalog=lake, key=key)) as job:
        job.checkpoint(after=kill_after)
        job.kill_and_restore()
        job.checkpoint()
    assert [row["n"] for row in rows(lake)] == list(range(5))


JOB = """
import importlib, json, os, signal, sys, time
import millstream as mill
import pyarrow.dataset, pyiceberg.catalog.sql, pyiceberg.io.pyarrow
import millstream.io._iceberg_files, millstream.io._iceberg_sink

def kill_at(step, when):
    path, name = step.rsplit(".", 1)
    module, owner = path.rsplit(".", 1)
    owner = getattr(importlib.import_module(module), owner)
    whole = getattr(owner, name)
    calls = []

    def cut(*arguments, **more):
        # The metadata of a table that is created is written, too.
        calls.append(1)
        if when == "before" and len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        found = whole(*arguments, **more)
        if when == "after" and len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, staticmethod(cut) if name == "_write_metadata" else cut)

commits = []
commit = millstream.io._iceberg_sink._IcebergSink.commit

def counted(self, handles):
    commits.append(1)
    commit(self, handles)

millstream.io._iceberg_sink._IcebergSink.commit = counted

def numbers(start):
    for n in range(start, 300):
        # However busy the machine is, there are some checkpoints.
        if len(commits) < 5:
            time.sleep(0.02)
        yield {"n": n, "k": n % 7}

def run(folder, key, parallelism):
    stream = mill.from_iter(numbers, schema={"n": int, "k": int})
    if key:
        stream = stream.key_by("k").agg(n=mill.count(), t=mill.col("n").sum(), emit="each").filter(mill.col("t") % 2 == 1)
    lake = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/lake"}
    sink = stream.write_iceberg("s.t", catalog=lake, key=key)
    mill.run(sink, checkpoint=mill.Checkpoint(f"{folder}/state", every="20ms"), parallelism=parallelism)

found = []
for folder, key, step, when in json.loads(sys.argv[1]):
    for kills in (True, False):
        # A fork is cheaper than an interpreter and its imports; nothing has begun a thread here.
        if (child := os.fork()) == 0:
            if kills:
                kill_at(step, when)
            run(folder, key, 1 if kills else 3)
            os._exit(0)
        found.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(found))
"""

STEPS: list[tuple[str | None, str, str]] = [
    (None, "millstream.io._iceberg_files.FileWriter.finish", "before"),
    (None, "millstream.io._iceberg_files.FileWriter.finish", "after"),
    *(
        (key, step, when)
        for key in (None, "k")
        for step, when in (
            ("millstream.io._iceberg_sink._IcebergSink.pre_commit", "after"),
            ("millstream.io._iceberg_sink._Attempt.write", "before"),
            ("pyiceberg.catalog.sql.SqlCatalog.commit_table", "before"),
            ("pyiceberg.catalog.sql.SqlCatalog._write_metadata", "after"),
            ("pyiceberg.catalog.sql.SqlCatalog.commit_table", "after"),
            ("millstream.io._iceberg_sink._IcebergSink.commit", "after"),
        )
    ),
]
"""Where a job is killed, at the third call: what is written, and from which side."""


def test_a_kill_at_each_step(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(len(STEPS))]
    for folder in folders:
        folder.mkdir()
    given = [[str(folder), *step] for folder, step in zip(folders, STEPS, strict=True)]
    done = subprocess.run([sys.executable, "-c", JOB, json.dumps(given)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # Each was killed, and the run after it, with another parallelism, ended well.
    assert json.loads(done.stdout) == [-signal.SIGKILL, 0] * len(STEPS), done.stderr
    for folder, step in zip(folders, STEPS, strict=True):
        lake = lake_in(folder)
        if step[0] is None:
            assert [row["n"] for row in rows(lake, order="n")] == list(range(300)), step
        else:
            sums = {k: range(k, 300, 7) for k in range(7)}
            assert rows(lake, order="k") == [{"k": k, "n": len(found), "t": sum(found)} for k, found in sums.items() if sum(found) % 2], step
        with table(lake) as found:
            summaries = [snapshot.summary.additional_properties for snapshot in found.snapshots()]
        commits = [(each["millstream.run"], each["millstream.epoch"]) for each in summaries]
        assert len(commits) == len(set(commits)) > 2, step


def cut_once(monkeypatch: pytest.MonkeyPatch, what: Any) -> list[int]:
    """Let a function stand in for the first commit by the catalog; it gets the commit itself."""
    from pyiceberg.catalog.sql import SqlCatalog

    whole = SqlCatalog.commit_table
    left = [1]

    def cut(self: Any, *arguments: Any) -> Any:
        if left:
            left.pop()
            return what(lambda: whole(self, *arguments))
        return whole(self, *arguments)

    monkeypatch.setattr(SqlCatalog, "commit_table", cut)
    return left


@pytest.mark.parametrize("key", [None, "n"])
@pytest.mark.parametrize("kind", [CommitFailedException, CommitStateUnknownException, OSError])
@pytest.mark.parametrize("has_landed", [False, True])
def test_an_answer_of_the_catalog_that_is_lost(
    tmp_path: Path, lake: dict[str, str], key: str | None, kind: type[Exception], has_landed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(commit: Any) -> Any:
        if has_landed:
            commit()
        raise kind("lost")

    sink = mill.from_iter([{"n": n} for n in range(10)]).write_iceberg("s.t", catalog=lake, key=key)
    with monkeypatch.context() as patch:
        left = cut_once(patch, lost)
        if kind is OSError and not has_landed:
            # Not an answer of the catalog: the job fails, and the next run commits.
            with pytest.raises(mill.ConnectorError, match="the table cannot be written: lost"):
                mill.run(sink, checkpoint=tmp_path / "state")
        else:
            mill.run(sink, checkpoint=tmp_path / "state")
        assert not left
    mill.run(sink, checkpoint=tmp_path / "state")
    assert [row["n"] for row in rows(lake)] == list(range(10))
    with table(lake) as found:
        assert len(found.snapshots()) == 1


def test_a_catalog_that_always_refuses(tmp_path: Path, lake: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    from millstream.io import _iceberg_sink

    tried = threading.Event()

    def refuses(*_: Any) -> Any:
        tried.set()
        raise CommitFailedException("somebody was first")

    sink = mill.from_iter([{"n": n} for n in range(10)]).write_iceberg("s.t", catalog=lake)
    with monkeypatch.context() as patch:
        patch.setattr(SqlCatalog, "commit_table", refuses)
        # A job that is cancelled does not wait for the next try.
        job = mill.start(sink, checkpoint=tmp_path / "state")
        assert tried.wait(60)
        began = time.monotonic()
        job.cancel()
        assert job.wait().status == "cancelled" and time.monotonic() - began < 30
        patch.setattr(_iceberg_sink, "ATTEMPT_SECONDS_MAX", 0.2)
        with pytest.raises(mill.ConnectorError, match="the commit was tried for 0 seconds, and the table could not be written: somebody was first"):
            mill.run(sink, checkpoint=tmp_path / "state")
    mill.run(sink, checkpoint=tmp_path / "state")
    assert [row["n"] for row in rows(lake)] == list(range(10))


@pytest.mark.parametrize("key", [None, "n"])
def test_at_least_once(lake: dict[str, str], key: str | None) -> None:
    source = pushed(20)
    with testing.Job(source.stream().write_iceberg("s.t", catalog=lake, key=key), mode="at_least_once") as job:
        job.checkpoint(after=7)
        job.kill_and_restore()
        job.checkpoint()
    found = [row["n"] for row in rows(lake)]
    assert set(found) == set(range(20)) and (key is None or len(found) == 20)


@pytest.mark.parametrize("key", [None, "n"])
@pytest.mark.parametrize("other", ["rows", "rewrite", "properties"])
def test_another_writer_comes_first(tmp_path: Path, lake: dict[str, str], key: str | None, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(commit: Any) -> Any:
        with table(lake) as found:
            if other == "properties":
                found.transaction().set_properties({"owner": "me"}).commit_transaction()
            elif other == "rows":
                found.append(pa.table({"n": [1000]}))
            else:
                # It warns that there was nothing to replace.
                with warnings.catch_warnings(action="ignore"):
                    found.overwrite(pa.table({"n": [3, 1000]}))
        return commit()

    made(lake, ("n", kinds.LongType()))
    sink = mill.from_iter([{"n": n} for n in range(10)]).write_iceberg("s.t", catalog=lake, key=key)
    with monkeypatch.context() as patch:
        cut_once(patch, conflict)
        mill.run(sink, checkpoint=tmp_path / "state")
    expected = {"rows": [1000], "rewrite": [1000] if key else [3, 1000], "properties": []}[other]
    assert [row["n"] for row in rows(lake)] == sorted([*range(10), *expected])
    # What the lost attempt wrote is gone: all that is left is named.
    assert leftover(tmp_path, lake) == set()
    with table(lake) as found:
        named = {manifest.manifest_path for snapshot in found.snapshots() for manifest in snapshot.manifests(found.io)}
        named |= {snapshot.manifest_list for snapshot in found.snapshots()}
    assert {f"file://{path}" for path in (tmp_path / "lake").glob("**/*.avro")} == named


@pytest.mark.parametrize("key", [None, "n"])
def test_two_runs_that_commit_the_same_epoch(tmp_path: Path, lake: dict[str, str], key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was cut off while its commit was on its way, and the run that has replaced it. Of both commits one takes effect."""
    from millstream.io import _iceberg_sink

    made(lake, ("n", kinds.LongType()))

    class Ending:
        def is_set(self) -> bool:
            return False

    schema = mill.from_iter([{"n": 1}]).schema
    stored = _iceberg_sink.stored_schema(schema, "x")

    def sink() -> Any:
        return _iceberg_sink._IcebergSink(("s", "t"), lake, schema, stored, "append", None if key is None else [key], [])

    first, second = sink(), sink()
    first.promise("exactly_once", None, None, True, Ending())
    first.write(pa.table({"n": [1, 2]}))
    handle = [(1, first.pre_commit(1))]

    def replaced(commit: Any) -> Any:
        second.promise("exactly_once", 1, 1, True, Ending())
        second.recover(handle)
        return commit()

    with monkeypatch.context() as patch:
        cut_once(patch, replaced)
        # The commit of the first loses, and it finds that its rows are there.
        first.commit(handle)
    assert [row["n"] for row in rows(lake)] == [1, 2]
    second.write(pa.table({"n": [3]}))
    second.commit([(2, second.pre_commit(2))])
    # By now the second one has closed the first.
    first.write(pa.table({"n": [3]}))
    late = [(2, first.pre_commit(2))]
    with pytest.raises(mill.CheckpointError, match="another run of this job has gone on from the same checkpoint"):
        first.commit(late)
    first.abort(())
    first.close()
    second.close()
    assert [row["n"] for row in rows(lake)] == [1, 2, 3]
    # A file that a checkpoint names stays, whoever writes the table by now.
    assert len(leftover(tmp_path, lake)) == (1 if key is None else 0)


def test_a_restart_within_the_process(tmp_path: Path, lake: dict[str, str]) -> None:
    failed: list[int] = []

    def once(row: Any) -> Any:
        if row.n == 30 and not failed:
            failed.append(1)
            raise ValueError("once")
        return {"n": row.n}

    stream = mill.from_iter(lambda start: ({"n": n} for n in range(start, 60)), schema={"n": int}).map(once, schema={"n": int})
    checkpoint = mill.Checkpoint(tmp_path / "state", every="1ms")
    mill.run(stream.write_iceberg("s.t", catalog=lake), checkpoint=checkpoint, restart=mill.Restart.fixed_delay(2, "1ms"), parallelism=1)
    assert [row["n"] for row in rows(lake)] == list(range(60))
    # What was written and never named was removed.
    assert leftover(tmp_path, lake) == set()


def test_several_jobs_on_one_table(tmp_path: Path, lake: dict[str, str]) -> None:
    def job(number: int) -> mill.Job:
        def numbers(start: int) -> Iterator[Any]:
            for n in range(start, 200):
                time.sleep(0.001)
                yield {"n": number * 1000 + n}

        stream = mill.from_iter(numbers, schema={"n": int})
        return mill.start(stream.write_iceberg("s.t", catalog=lake), checkpoint=mill.Checkpoint(tmp_path / f"state-{number}", every="50ms"), parallelism=1)

    jobs = [job(number) for number in range(3)]
    for each in jobs:
        each.wait()
    assert [row["n"] for row in rows(lake)] == [number * 1000 + n for number in range(3) for n in range(200)]


# -- a catalog with a server -----------------------------------------------------------------------------------------------


class RestServer:
    """A catalog by the protocol of Iceberg's REST catalogs; what it keeps is a catalog of SQLite."""

    def __init__(self, lake: dict[str, str]) -> None:
        self.faults: list[tuple[str, int]] = []
        """What goes wrong with the next commits: before or after it takes effect, and the status; 0 breaks the connection."""
        self.commits = 0
        self._lake = lake
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.answer(self)

            do_POST = do_HEAD = do_GET

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.properties = {"type": "rest", "uri": f"http://127.0.0.1:{self._server.server_port}"}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: Any) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = [unquote(part) for part in urlsplit(request.path).path.split("/")[2:]]
        with catalog(self._lake) as own:
            try:
                found = self._found(own, request.command, path, body)
                status, content = 200, json.dumps(found)
            except tuple(ERRORS) as error:
                status = ERRORS[type(error)]
                content = json.dumps({"error": {"message": str(error), "type": type(error).__name__, "code": status}})
            except Broken as error:
                status = error.status
                content = json.dumps({"error": {"message": "broken", "type": "Broken", "code": status}})
        if status == 0:
            request.connection.close()
            return
        request.send_response(status)
        request.send_header("Content-Length", str(len(content.encode())))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content.encode())

    def _found(self, own: Any, verb: str, path: list[str], body: bytes) -> Any:
        if path == ["config"]:
            return {"defaults": {}, "overrides": {}}
        if path[0] == "namespaces" and len(path) == 1:
            own.create_namespace(tuple(json.loads(body)["namespace"]))
            return json.loads(body)
        name = (path[1], *path[3:4])
        if len(path) == 2:
            return {"namespace": [path[1]], "properties": own.load_namespace_properties(path[1])}
        if len(path) == 3:
            given = CreateTableRequest.model_validate({"location": None, **json.loads(body)})
            made = own.create_table((path[1], given.name), given.table_schema, partition_spec=given.partition_spec, properties=given.properties)
        elif verb == "POST":
            made = self._committed(own, name, body)
        else:
            made = own.load_table(name)
        return {"metadata-location": made.metadata_location, "metadata": json.loads(made.metadata.model_dump_json()), "config": {}}

    def _committed(self, own: Any, name: tuple[str, ...], body: bytes) -> Any:
        when, status = self.faults.pop(0) if self.faults else ("never", 0)
        if when == "before":
            raise Broken(status)
        given = CommitTableRequest.model_validate_json(body)
        made = own.commit_table(own.load_table(name), given.requirements, given.updates)
        self.commits += 1
        if when == "after":
            raise Broken(status)
        return made


class Broken(Exception):
    """A fault of the server."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


ERRORS = {NoSuchTableError: 404, NoSuchNamespaceError: 404, TableAlreadyExistsError: 409, NamespaceAlreadyExistsError: 409, CommitFailedException: 409}


@pytest.fixture
def server(lake: dict[str, str]) -> Iterator[RestServer]:
    found = RestServer(lake)
    yield found
    found.close()


@pytest.mark.parametrize("key", [None, "n"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_server_that_breaks(tmp_path: Path, lake: dict[str, str], server: RestServer, key: str | None, when: str) -> None:
    source = testing.Source({"n": int})
    # A conflict that was none, since the request before it had landed; answers that are lost; a server that is busy; a connection that breaks.
    server.faults = [(when, status) for status in (409, 500, 502, 503, 504, 0)]
    with testing.Job(source.stream().write_iceberg("s.t", catalog=server.properties, key=key)) as job:
        for n in range(6):
            source.push({"n": n})
            job.checkpoint()
    assert not server.faults and server.commits == 6
    assert [row["n"] for row in rows(lake)] == list(range(6))
    assert mill.read_iceberg("s.t", catalog=server.properties).collect().to_pylist() == [{"n": n} for n in range(6)]
    with table(lake) as found:
        assert len(found.snapshots()) == 6
        # No manifest of a commit that took effect was removed.
        assert found.scan().to_arrow().num_rows == 6


def test_a_server_that_refuses(tmp_path: Path, lake: dict[str, str], server: RestServer) -> None:
    sink = mill.from_iter([{"n": 1}]).write_iceberg("s.t", catalog=server.properties)
    server.faults = [("before", 403)]
    with pytest.raises(mill.ConnectorError, match="the table cannot be written: .*broken"):
        mill.run(sink, checkpoint=tmp_path / "state")
    mill.run(sink, checkpoint=tmp_path / "state")
    assert rows(lake) == [{"n": 1}]


def test_two_runs_that_commit_the_same_epoch_by_a_server(tmp_path: Path, lake: dict[str, str], server: RestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server gets the commit of a run that was cut off, after the one of the run that has replaced it."""
    sent: list[Any] = []
    whole = RestServer._committed

    def late(self: RestServer, own: Any, name: tuple[str, ...], body: bytes) -> Any:
        if not sent:
            sent.append((name, body))
            raise Broken(504)
        return whole(self, own, name, body)

    monkeypatch.setattr(RestServer, "_committed", late)
    source = testing.Source({"n": int})
    with testing.Job(source.stream().write_iceberg("s.t", catalog=server.properties)) as job:
        source.push({"n": 1})
        job.checkpoint()
        with catalog(lake) as own, pytest.raises(CommitFailedException):
            whole(server, own, *sent[0])
        job.kill_and_restore()
    assert rows(lake) == [{"n": 1}]


# -- what the checkpoint and the table say of each other -------------------------------------------------------------------


def test_snapshots_expire(lake: dict[str, str]) -> None:
    source = testing.Source({"n": int})
    with testing.Job(source.stream().write_iceberg("s.t", catalog=lake)) as job:
        for n in range(3):
            source.push({"n": n})
            job.checkpoint()
        with table(lake) as found:
            found.append(pa.table({"n": [100]}))
            found.append(pa.table({"n": [101]}))
            # The clock of snapshots has milliseconds.
            found.maintenance.expire_snapshots().older_than(datetime.now() + timedelta(days=1)).commit()
            found.refresh()
            assert len(found.snapshots()) == 1
        # None of the job's own snapshots is left; the mark is.
        job.kill_and_restore()
        source.push({"n": 3})
        job.checkpoint()
    assert [row["n"] for row in rows(lake)] == [0, 1, 2, 3, 100, 101]


@pytest.mark.parametrize("then", ["nothing", "rows"])
def test_the_table_is_rolled_back(lake: dict[str, str], then: str) -> None:
    source = testing.Source({"n": int})
    with testing.Job(source.stream().write_iceberg("s.t", catalog=lake)) as job:
        for n in range(3):
            source.push({"n": n})
            job.checkpoint()
        with table(lake) as found:
            found.manage_snapshots().rollback_to_snapshot(found.snapshots()[0].snapshot_id).commit()
            if then == "rows":
                found.append(pa.table({"n": [100]}))
        with pytest.raises(mill.ConnectorError, match="CheckpointError: the table lacks output that the checkpoint knows to be committed"):
            job.kill_and_restore()


@pytest.mark.parametrize("is_there", [False, True])
def test_the_table_is_replaced(lake: dict[str, str], is_there: bool) -> None:
    source = testing.Source({"n": int})
    with testing.Job(source.stream().write_iceberg("s.t", catalog=lake)) as job:
        source.push({"n": 1})
        job.checkpoint()
        with catalog(lake) as found:
            found.drop_table("s.t")
        if is_there:
            made(lake, ("n", kinds.LongType()))
        message = "the checkpoint was made with another table" if is_there else "there is no table, and the checkpoint knows one"
        with pytest.raises(mill.ConnectorError, match=f"CheckpointError: {message}"):
            job.kill_and_restore()


@pytest.mark.parametrize("change", ["partitions", "type", "required", "added"])
def test_the_table_is_changed_while_rows_are_pending(tmp_path: Path, lake: dict[str, str], change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made(lake, ("n", kinds.IntegerType()), ("k", kinds.LongType()))
    stream = mill.from_arrow(pa.table({"n": pa.array([1, 2], pa.int32()), "k": [1, 2]}))

    def changed(commit: Any) -> Any:
        with table(lake) as found:
            if change == "partitions":
                with found.update_spec() as spec:
                    spec.add_identity("k")
            else:
                with found.update_schema(allow_incompatible_changes=True) as schema:
                    if change == "type":
                        schema.update_column("n", kinds.LongType())
                    elif change == "required":
                        schema.update_column("k", required=True)
                    else:
                        schema.add_column("more", kinds.StringType())
        return commit()

    sink = stream.write_iceberg("s.t", catalog=lake)
    cut_once(monkeypatch, changed)
    if change == "added":
        mill.run(sink, checkpoint=tmp_path / "state")
        with table(lake) as found:
            assert found.scan().to_arrow().to_pylist() == [{"n": n, "k": n, "more": None} for n in (1, 2)]
        return
    with pytest.raises(mill.ConnectorError, match=r"CheckpointError: .* changed while rows for it were pending; undo that, and start the job again"):
        mill.run(sink, checkpoint=tmp_path / "state")


def test_a_file_that_the_checkpoint_names_is_gone(tmp_path: Path, lake: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(commit: Any) -> Any:
        raise OSError("cut")

    sink = mill.from_iter([{"n": 1}]).write_iceberg("s.t", catalog=lake)
    with monkeypatch.context() as patch:
        cut_once(patch, fails)
        with pytest.raises(mill.ConnectorError, match="cut"):
            mill.run(sink, checkpoint=tmp_path / "state")
    [path] = leftover(tmp_path, lake)
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    with pytest.raises(mill.ConnectorError, match=r"the file .* has \d+ bytes, and the checkpoint knows \d+"):
        mill.run(sink, checkpoint=tmp_path / "state")
    Path(path).unlink()
    with pytest.raises(mill.ConnectorError, match=r"the file .*, which the checkpoint names, cannot be read"):
        mill.run(sink, checkpoint=tmp_path / "state")


def test_files_are_durable_before_the_catalog_names_them(tmp_path: Path, lake: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[tuple[int, int]] = set()
    whole = os.fsync

    def fsync(number: int) -> None:
        found = os.fstat(number)
        synced.add((found.st_dev, found.st_ino))
        whole(number)

    def durable(commit: Any) -> Any:
        found = commit()
        for path in (tmp_path / "lake").glob("**/*"):
            status = path.stat()
            assert (status.st_dev, status.st_ino) in synced, path
        return found

    monkeypatch.setattr(os, "fsync", fsync)
    left = cut_once(monkeypatch, durable)
    mill.run(mill.from_iter([{"n": 1, "p": "a"}]).write_iceberg("s.t", catalog=lake, partition_by="p"))
    assert not left and rows(lake) == [{"n": 1, "p": "a"}]
