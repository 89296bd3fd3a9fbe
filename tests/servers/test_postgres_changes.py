"""`read_postgres_changes` against a real server: whatever happens, what was read is what the table is, judged by psycopg."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import postgres
import psycopg
import pytest
from job_process import SECONDS_MAX
from test_postgres_sink import Job

import millstream as mill
from millstream import col

SEED = int(os.environ.get("SEED", "1"))
KILLS = int(os.environ.get("KILLS", "3"))


@pytest.fixture(autouse=True)
def no_slot_is_left(database: postgres.Server) -> Iterator[None]:
    """Drop the slots of a test, and find none but its own."""
    yield
    assert wait_for(lambda: not database.rows("select 1 from pg_replication_slots where active"))
    assert database.rows("select slot_name from pg_replication_slots where slot_name like 'millstream%'") == []
    database.rows("select pg_drop_replication_slot(slot_name) from pg_replication_slots")


def wait_for(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def stop_and_wait(job: mill.Job) -> None:
    """Stop a job, and wait until it has let go of its slot."""
    job.stop()
    job.wait()


def table(database: postgres.Server, schema: str, columns: str, rows: str = "") -> str:
    """Make a table that is published; publication and slot are named like the schema."""
    database.execute(f"create table {schema}.t ({columns})")
    if rows:
        database.execute(f"insert into {schema}.t {rows}")
    database.execute(f"create publication {schema} for table {schema}.t")
    return f"{schema}.t"


def changelog(stream: mill.Stream) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in stream.to_changelog().collect(parallelism=1).to_arrow().to_pylist()]


# -- rows and changes ------------------------------------------------------------------------------------------------------


def test_rows_and_then_their_changes(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    table(database, schema, "id int primary key, x text", "values (1, 'a'), (2, null)")
    stream = mill.read_postgres_changes(database.url, schema, schema)
    assert list(stream.schema) == ["id", "x"]
    state = mill.Checkpoint(tmp_path / "state", every="20ms")
    job = mill.start(stream.to_changelog().write_sqlite(tmp_path / "out.db", "t"), checkpoint=state)

    def seen() -> list[tuple[Any, ...]]:
        return sqlite_rows(tmp_path, "rowid")

    try:
        assert wait_for(lambda: len(seen()) == 2)
        database.execute(f"insert into {schema}.t values (3, 'c')")
        database.execute(f"update {schema}.t set x = 'b' where id = 2; update {schema}.t set id = 4 where id = 1; delete from {schema}.t where id = 3")
        database.execute(f"create table {schema}.other (n int); insert into {schema}.other values (1)")
        assert wait_for(lambda: len(seen()) == 7), seen()
    finally:
        stop_and_wait(job)
    assert sorted(seen()[:2], key=str) == [("insert", 1, "a"), ("insert", 2, None)]
    expected = [("insert", 3, "c"), ("update", 2, "b"), ("delete", 1, "a"), ("insert", 4, "a"), ("delete", 3, "c")]
    assert [seen()[2:].count(change) for change in expected] == [1] * 5


def test_a_stream_that_ends(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    table(database, schema, "id int primary key, x text", "select n, 'row ' || n from generate_series(1, 1000) as n")
    stream = mill.read_postgres_changes(database.url, schema, schema, until="end")
    assert len(changelog(stream)) == 1000
    # A job without a checkpoint confirms nothing, so the next one reads the rows again, as they are now.
    database.execute(f"delete from {schema}.t where id > 10; update {schema}.t set x = 'new'")
    assert sorted(changelog(stream)) == [("insert", n, "new") for n in range(1, 11)]
    database.execute(f"insert into {schema}.t values (11, 'later')")
    later = mill.read_postgres_changes(database.url, schema, schema, snapshot="never", until="end")
    found = changelog(later)
    assert found[-1] == ("insert", 11, "later") and len([row for row in found if row[0] == "insert"]) == 11


VALUES: list[tuple[str, str, list[Any]]] = [
    ("boolean", "flag", [True, False]),
    ("smallint", "i2", [-(2**15), 2**15 - 1]),
    ("integer", "i4", [-(2**31), 2**31 - 1]),
    ("bigint", "i8", [-(2**63), 2**63 - 1]),
    ("real", "f4", [1.5, -0.0]),
    ("double precision", "f8", [1e308, 5e-324]),
    ("numeric(12,2)", "money", [Decimal("1234567890.12"), Decimal("-0.01")]),
    ("numeric(60,20)", "long", [Decimal("1" * 40 + "." + "2" * 20), Decimal("0E-20")]),
    ("text", "text", ["", "é\n\t\\N\"'"]),
    ("varchar(5)", "short", ["", "abcde"]),
    ("char(3)", "padded", ["a  ", "abc"]),
    ("uuid", "mark", ["00112233-4455-6677-8899-aabbccddeeff", "ffffffff-ffff-ffff-ffff-ffffffffffff"]),
    ("bytea", "bytes", [b"", b"\x00\xff\\"]),
    ("timestamp", "at", [datetime(1, 1, 1), datetime(2026, 1, 2, 3, 4, 5, 678_901)]),
    ("timestamptz", "zoned", [datetime(1969, 12, 31, tzinfo=timezone.utc), datetime(2026, 1, 2, tzinfo=timezone.utc)]),
    ("interval", "span", [timedelta(microseconds=1), timedelta(hours=5)]),
    ("json", "js", ['{"a":  1}', "[]"]),
    ("jsonb", "jsb", ['{"a": 1}', "[]"]),
    ("integer[]", "list", [[1, None, 3], []]),
    ("text[]", "texts", [["a,b", '"{}'], ["x"]]),
]


def test_every_type_is_the_same_in_rows_and_changes(database: postgres.Server, schema: str) -> None:
    database.execute(f"create type {schema}.mood as enum ('glad', 'sad'); create domain {schema}.small as int check (value < 10)")
    columns = ", ".join(f"{name} {kind}" for kind, name, _ in VALUES)
    table(database, schema, f"id int primary key, {columns}, mood {schema}.mood, small {schema}.small, twice int generated always as (id * 2) stored")
    rows = [[1, *(values[0] for *_, values in VALUES), "sad", 1], [2, *(values[1] for *_, values in VALUES), "glad", 2], [3, *[None] * (len(VALUES) + 2)]]
    marks = ", ".join(["%s", *(f"%s::{kind}" for kind, _, _ in VALUES), f"%s::{schema}.mood", "%s"])
    names = ", ".join(["id", *(name for _, name, _ in VALUES), "mood", "small"])

    def insert(by: int) -> None:
        for row in rows:
            database.execute(f"insert into {schema}.t ({names}) values ({marks})", row[0] + by, *row[1:])

    insert(0)
    both = mill.read_postgres_changes(database.url, schema, schema, until="end")
    read = sorted(changelog(both), key=lambda row: row[1])
    assert [list(row[1:]) for row in read] == rows
    insert(10)
    never = mill.read_postgres_changes(database.url, schema, schema, snapshot="never", until="end")
    changed = sorted(changelog(never), key=lambda row: row[1])
    assert [[row[1] - 10, *row[2:]] for row in changed] == rows


def test_a_key_that_changes_and_a_long_value_that_does_not(database: postgres.Server, schema: str) -> None:
    table(database, schema, "a int, b text, long text, n int, primary key (b, a)", "select n, 'é' || n, repeat(md5(n::text), 1000), 0 from generate_series(1, 3) as n")
    database.execute(f"alter table {schema}.t alter column long set storage external")
    database.rows(f"select pg_create_logical_replication_slot('{schema}', 'pgoutput')")
    database.execute(f"insert into {schema}.t values (4, 'x', repeat('x', 100000), 0)")
    database.execute(f"update {schema}.t set n = 1 where a = 4")
    never = mill.read_postgres_changes(database.url, schema, schema, snapshot="never", until="end")
    with pytest.raises(mill.DataError, match=r'column "long": the server does not send a long value .* REPLICA IDENTITY FULL'):
        changelog(never)
    few = mill.read_postgres_changes(database.url, schema, schema, columns=["n", "a", "b"], snapshot="never", until="end")
    assert changelog(few) == [("insert", 0, 4, "x"), ("update", 1, 4, "x")]
    # What is not used is not needed.
    assert [row[-1] for row in changelog(never.select("a", "b", "n"))] == [0, 1]
    database.execute(f"alter table {schema}.t replica identity full")
    database.rows(f"select pg_replication_slot_advance('{schema}', pg_current_wal_lsn())")
    database.execute(f"update {schema}.t set n = 2 where a = 4; update {schema}.t set b = 'y', n = 3 where a = 4; delete from {schema}.t where a = 4")
    found = changelog(never)
    assert [(row[0], row[2], row[4], len(row[3])) for row in found] == [
        ("insert", "x", 2, 100000), ("delete", "x", 2, 100000), ("insert", "y", 3, 100000), ("delete", "y", 3, 100000)
    ]  # fmt: skip


def test_a_publication_of_some_rows_and_columns(database: postgres.Server, schema: str) -> None:
    if int(database.rows("show server_version_num")[0][0]) < 150_000:
        pytest.skip("publications of PostgreSQL 14 have whole tables")
    database.execute(f"create table {schema}.t (id int primary key, x int, point point); insert into {schema}.t select n, n from generate_series(1, 9) as n")
    database.execute(f"create table {schema}.u (id int primary key)")
    database.execute(f"create publication {schema} for table {schema}.t (id, x) where (id > 5), {schema}.u")
    with pytest.raises(mill.PlanError, match=rf'has several tables, "{schema}.t", "{schema}.u"; say which one'):
        mill.read_postgres_changes(database.url, schema, schema)
    stream = mill.read_postgres_changes(database.url, schema, schema, table=f"{schema}.t", until="end")
    assert sorted(changelog(stream)) == [("insert", n, n) for n in range(6, 10)]


def test_a_partitioned_table(database: postgres.Server, schema: str) -> None:
    database.execute(
        f"create table {schema}.t (id int primary key, x int) partition by range (id); create table {schema}.a partition of {schema}.t for values from (0) to (10); "
        f"create table {schema}.b partition of {schema}.t for values from (10) to (20); insert into {schema}.t select n, n from generate_series(8, 12) as n; "
        f"create publication {schema} for table {schema}.t with (publish_via_partition_root)"
    )
    database.rows(f"select pg_create_logical_replication_slot('{schema}', 'pgoutput')")
    stream = mill.read_postgres_changes(database.url, schema, schema, until="end")
    assert sorted(changelog(stream)) == [("insert", n, n) for n in range(8, 13)]
    database.execute(f"update {schema}.t set id = 15 where id = 8; delete from {schema}.t where id = 12")
    assert sorted(changelog(stream)) == [("insert", n, 8 if n == 15 else n) for n in (9, 10, 11, 15)]


# -- what is refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "after", "options", "kind", "message"),
    [
        ("id int", "", {}, mill.PlanError, "it has no primary key"),
        ("id int primary key", "alter table {t} replica identity nothing", {}, mill.PlanError, "its replica identity is NOTHING"),
        ("id int primary key deferrable", "alter table {t} replica identity full", {}, mill.PlanError, 'the key of table "t" is DEFERRABLE'),
        ("id int primary key, p point", "", {}, mill.SchemaError, 'column "p" of table "t" is of type point, which no column here has; leave it out'),
        ("id int primary key, p numeric", "", {}, mill.SchemaError, "any number of digits"),
        ("id float primary key", "", {}, mill.SchemaError, '"id" is part of the key of table "t" and is double precision'),
        ("id int primary key", "alter publication {s} set (publish = 'insert')", {}, mill.PlanError, "leaves out update and delete"),
        ("id int primary key", "", {"publication": "nowhere"}, mill.PlanError, 'no publication "nowhere"'),
        ("id int primary key", "", {"slot": "A-b"}, mill.PlanError, "is no name of a slot"),
        ("id int primary key", "", {"table": "{s}.tt"}, mill.PlanError, 'has no table ".*"; did you mean'),
        ("id int primary key, x int", "", {"columns": ["x"]}, mill.PlanError, '"id" is part of the key .* not among the columns'),
        ("id int primary key, x int", "", {"columns": ["id", "y"]}, mill.SchemaError, '"y", which the publication does not have'),
    ],
)
def test_what_cannot_be_followed(
    database: postgres.Server, schema: str, columns: str, after: str, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    table(database, schema, columns)
    if after:
        database.execute(after.format(t=f"{schema}.t", s=schema))
    options = {key: value.format(s=schema) if isinstance(value, str) else value for key, value in options.items()}
    arguments = [options.pop("publication", schema), options.pop("slot", schema)]
    with pytest.raises(kind, match=message):
        mill.read_postgres_changes(database.url, *arguments, **options)


def test_a_slot_that_cannot_be_used(database: postgres.Server, schema: str) -> None:
    table(database, schema, "id int primary key", "values (1)")
    with pytest.raises(mill.ConnectorError, match="there is no slot .* create_slot is False"):
        changelog(mill.read_postgres_changes(database.url, schema, schema, create_slot=False, until="end"))
    database.rows(f"select pg_create_physical_replication_slot('{schema}')")
    with pytest.raises(mill.ConnectorError, match="is a physical one"):
        changelog(mill.read_postgres_changes(database.url, schema, schema, until="end"))
    database.rows(f"select pg_drop_replication_slot('{schema}')")
    database.rows(f"select pg_create_logical_replication_slot('{schema}', 'test_decoding')")
    with pytest.raises(mill.ConnectorError, match="of test_decoding, not a logical one of pgoutput"):
        changelog(mill.read_postgres_changes(database.url, schema, schema, until="end"))
    database.execute("create role nobody_at_all login; grant select on all tables in schema pg_catalog to nobody_at_all")
    try:
        database.execute(f"grant usage on schema {schema} to nobody_at_all; grant select on {schema}.t to nobody_at_all")
        url = database.url.replace(postgres.USER, "nobody_at_all")
        with pytest.raises(mill.ConnectorError, match="permission denied|must be superuser or replication role"):
            changelog(mill.read_postgres_changes(url, schema, f"{schema}b", until="end"))
    finally:
        database.execute("drop owned by nobody_at_all; drop role nobody_at_all")


def run_until(database: postgres.Server, schema: str, folder: Path, stream: mill.Stream, condition: Callable[[], bool]) -> None:
    """Run a job that writes into SQLite until something holds."""
    job = mill.start(stream.write_sqlite(folder / "out.db", "t", key="id"), checkpoint=mill.Checkpoint(folder / "state", every="20ms"))
    try:
        assert wait_for(lambda: condition() or job.status.state != "running"), job.status
    finally:
        stop_and_wait(job)


def sqlite_rows(folder: Path, by: str = "1") -> list[tuple[Any, ...]]:
    if not (folder / "out.db").exists():
        return []
    with contextlib.closing(sqlite3.connect(folder / "out.db")) as connection:
        try:
            return connection.execute(f"select * from t order by {by}").fetchall()
        except sqlite3.OperationalError:
            return []


def confirmed(database: postgres.Server, slot: str) -> Any:
    return database.rows(f"select confirmed_flush_lsn from pg_replication_slots where slot_name = '{slot}'")[0][0]


def test_a_slot_that_does_not_have_what_the_checkpoint_needs(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    name = table(database, schema, "id int primary key, x int", "values (1, 1)")
    stream = mill.read_postgres_changes(database.url, schema, schema)
    run_until(database, schema, tmp_path, stream, lambda: sqlite_rows(tmp_path) == [(1, 1)])
    sink = stream.write_sqlite(tmp_path / "out.db", "t", key="id")
    # What a stopped job has read is confirmed.
    assert database.rows("select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) < 100000 from pg_replication_slots")[0][0]
    database.execute(f"insert into {name} values (2, 2)")
    database.rows(f"select pg_replication_slot_advance('{schema}', pg_current_wal_lsn())")
    with pytest.raises(mill.CheckpointError, match="was confirmed up to .* the changes between are gone"):
        mill.run(sink, checkpoint=tmp_path / "state")
    database.rows(f"select pg_drop_replication_slot('{schema}')")
    with pytest.raises(mill.CheckpointError, match=f'the slot "{schema}" is gone, and with it the changes after'):
        mill.run(sink, checkpoint=tmp_path / "state")
    # With another slot and anew, the rows are all there.
    again = mill.read_postgres_changes(database.url, schema, f"{schema}b")
    (tmp_path / "b").mkdir()
    run_until(database, schema, tmp_path / "b", again, lambda: sqlite_rows(tmp_path / "b") == [(1, 1), (2, 2)])


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ("truncate {t}", mill.DataError, "emptied by TRUNCATE"),
        ("alter table {t} alter column x type bigint; insert into {t} values (9, 9)", mill.SchemaError, 'column "x" is of another type .* than integer'),
        ("alter table {t} rename column x to y; insert into {t} values (9, 9)", mill.SchemaError, 'column "x" is not in the changes'),
        ("alter table {t} drop column x; insert into {t} values (9)", mill.SchemaError, 'column "x" is not in the changes'),
        ("alter table {t} add column y int default 5; insert into {t} values (9, 9)", None, ""),
        ("alter table {t} rename to u; insert into {s}.u values (9, 9)", None, ""),
    ],
)
def test_a_table_that_is_changed_while_it_is_followed(
    database: postgres.Server, schema: str, tmp_path: Path, change: str, kind: type[Exception] | None, message: str
) -> None:
    name = table(database, schema, "id int primary key, x int", "values (1, 1)")
    stream = mill.read_postgres_changes(database.url, schema, schema)
    job = mill.start(stream.write_sqlite(tmp_path / "out.db", "t", key="id"), checkpoint=mill.Checkpoint(tmp_path / "state", every="20ms"))
    try:
        assert wait_for(lambda: sqlite_rows(tmp_path) == [(1, 1)])
        database.execute(change.format(t=name, s=schema))
        if kind is None:
            assert wait_for(lambda: sqlite_rows(tmp_path) == [(1, 1), (9, 9)])
        else:
            with pytest.raises(kind, match=message):
                job.wait()
    finally:
        if kind is None:
            stop_and_wait(job)


def test_a_table_that_is_made_anew_between_two_runs(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    name = table(database, schema, "id int primary key, x int", "values (1, 1)")
    stream = mill.read_postgres_changes(database.url, schema, schema)
    run_until(database, schema, tmp_path, stream, lambda: sqlite_rows(tmp_path) == [(1, 1)])
    before = mill.read_postgres_changes(database.url, schema, schema)
    database.execute(f"drop table {name}; create table {name} (id int primary key, x int); alter publication {schema} add table {name}")
    # Whether it was declared before or after that.
    for again in (before, mill.read_postgres_changes(database.url, schema, schema)):
        with pytest.raises(mill.CheckpointError, match="was dropped, or dropped and created again.*start over"):
            mill.run(again.write_sqlite(tmp_path / "out.db", "t", key="id"), checkpoint=tmp_path / "state")


def test_a_stream_in_two_jobs_confirms_what_its_own_has_read(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    """The second job waits for the slot; what it has kept so far, nothing, is not what the first one has."""
    name = table(database, schema, "id int primary key, x int", "values (1, 1)")
    stream = mill.read_postgres_changes(database.url, schema, schema)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first, second = (stream.write_sqlite(tmp_path / folder / "out.db", "t", key="id") for folder in ("a", "b"))
    state = mill.Checkpoint(tmp_path / "a" / "state", every="20ms")
    one = mill.start(first, checkpoint=state)
    try:
        assert wait_for(lambda: sqlite_rows(tmp_path / "a") == [(1, 1)])
        other = mill.start(second, checkpoint=mill.Checkpoint(tmp_path / "b" / "state", every="20ms"))
        try:
            database.execute(f"insert into {name} values (2, 2)")
            last = database.rows("select pg_current_wal_lsn()")[0][0]
            assert wait_for(lambda: sqlite_rows(tmp_path / "a") == [(1, 1), (2, 2)])
            assert wait_for(lambda: database.rows(f"select '{last}'::pg_lsn <= confirmed_flush_lsn from pg_replication_slots where not temporary")[0][0])
        finally:
            other.cancel()
            other.wait()
    finally:
        stop_and_wait(one)


def test_a_slot_that_is_being_made_is_waited_for(database: postgres.Server, schema: str) -> None:
    """A slot is made once the transactions that write are over."""
    table(database, schema, "id int primary key", "values (1)")
    stream = mill.read_postgres_changes(database.url, schema, schema, until="end")
    with psycopg.connect(database.url) as writing:
        writing.execute(f"create table {schema}.other (n int)")
        making = threading.Thread(target=lambda: database.rows(f"select pg_create_logical_replication_slot('{schema}', 'pgoutput')"))
        making.start()
        try:
            assert wait_for(lambda: database.rows("select confirmed_flush_lsn is null from pg_replication_slots") == [(True,)])
            with pytest.raises(mill.ConnectorError, match="is just being made by another session"):
                changelog(stream)
        finally:
            writing.rollback()
            making.join()
    assert changelog(stream) == [("insert", 1)]


def test_a_slot_that_is_in_use_is_waited_for(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    table(database, schema, "id int primary key, x int", "values (1, 1)")
    stream = mill.read_postgres_changes(database.url, schema, schema)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    sinks = [stream.write_sqlite(tmp_path / name / "out.db", "t", key="id") for name in ("a", "b")]
    first = mill.start(sinks[0], checkpoint=mill.Checkpoint(tmp_path / "a" / "state", every="20ms"))
    try:
        assert wait_for(lambda: bool(database.rows("select 1 from pg_replication_slots where active")))
        second = mill.start(sinks[1], checkpoint=mill.Checkpoint(tmp_path / "b" / "state", every="20ms"))
        try:
            # It has read the rows, and comes to the changes once the slot is free.
            assert wait_for(lambda: sqlite_rows(tmp_path / "b") == [(1, 1)])
            first.stop()
            assert first.wait().status == "stopped"
            database.execute(f"insert into {schema}.t values (2, 2)")
            assert wait_for(lambda: sqlite_rows(tmp_path / "b") == [(1, 1), (2, 2)] or second.status.state != "running"), second.status
        finally:
            stop_and_wait(second)
    finally:
        stop_and_wait(first)
    assert sqlite_rows(tmp_path / "a") == [(1, 1)]


# -- exactly once ----------------------------------------------------------------------------------------------------------


class Writer:
    """Changes a table at random, on a thread of its own. Each change of a key counts up its `n`."""

    def __init__(self, database: postgres.Server, name: str, seed: int, keys: int = 200, most: int = 40) -> None:
        self._database, self._name, self._dice, self._keys, self._most = database, name, random.Random(seed), keys, most
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._counts: dict[int, int] = {}

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with self._database.connect() as connection:
            while not self._over.is_set():
                time.sleep(0.002)
                with connection.transaction(force_rollback=self._dice.random() < 0.1) as transaction:
                    before = dict(self._counts)
                    for _ in range(self._dice.choice([1, 1, 2, self._most])):
                        key = self._dice.randrange(self._keys)
                        n = self._counts.get(key, 0) + 1
                        if self._dice.random() < 0.2:
                            if not connection.execute(f"delete from {self._name} where id = %s".encode(), (key,)).rowcount:
                                continue
                        else:
                            sql = f"insert into {self._name} values (%s, %s, %s) on conflict (id) do update set n = excluded.n, x = excluded.x"
                            connection.execute(sql.encode(), (key, n, "é" * self._dice.randrange(5)))
                        self._counts[key] = n
                    if transaction.force_rollback:
                        self._counts = before


def is_equal(database: postgres.Server, name: str, schema: str) -> bool:
    return database.rows(f"select id, n, x from {schema}.out order by 1") == database.rows(f"select id, n, x from {name} order by 1")


def check_changelog(database: postgres.Server, name: str, schema: str) -> bool:
    """Whether the changes that were written lead to the table; none may be missing, be there twice or go back."""
    rows = database.rows(f"select op, id, n, x from {schema}.log order by seq")
    kept: dict[int, tuple[int, str]] = {}
    newest: dict[int, int] = {}
    for op, key, n, x in rows:
        assert (op == "insert") == (key not in kept), (op, key, n)
        if op == "delete":
            assert kept.pop(key) == (n, x)
            newest[key] += 1
        else:
            # What was before the rows were read is not known.
            assert n == newest.get(key, n - 1) + 1, (op, key, n, newest[key])
            newest[key] = n
            kept[key] = (n, x)
    return sorted((key, *row) for key, row in kept.items()) == database.rows(f"select id, n, x from {name} order by 1")


@pytest.fixture
def followed(database: postgres.Server, schema: str) -> str:
    rows = "select n, 0, 'first' from generate_series(0, 3000) as n"
    database.execute(f"create table {schema}.log (op text, id int, n int, x text, seq bigserial)")
    return table(database, schema, "id int primary key, n int, x text", rows)


@pytest.mark.parametrize("job", ["changes", "changelog"])
def test_killed_at_random(database: postgres.Server, schema: str, tmp_path: Path, followed: str, job: str) -> None:
    dice = random.Random(SEED)
    arguments = (job, database.url, schema, schema, tmp_path / "state")
    with Writer(database, followed, SEED):
        for _ in range(KILLS):
            run = Job(tmp_path, *arguments, "--parallelism", dice.choice([1, 2]))
            assert not run.ends_within(dice.uniform(0.6, 2.5)), run.said()
            run.kill()
    run = Job(tmp_path, *arguments)
    target = f"{schema}.{'out' if job == 'changes' else 'log'}"
    assert wait_for(lambda: database.rows(f"select to_regclass('{target}') is not null")[0][0])
    done = (lambda: is_equal(database, followed, schema)) if job == "changes" else (lambda: check_changelog(database, followed, schema))
    try:
        assert wait_for(lambda: done() or run.process.poll() is not None), run.said()
        assert run.process.poll() is None, run.said()
    finally:
        run.kill()


STEPS = ["postgres.exported:1", "postgres.start:1", "postgres.changes:1", "postgres.changes:3", "checkpoint.publish:3", "checkpoint.done:1"]


def test_killed_at_each_step(database: postgres.Server, schema: str, tmp_path: Path, followed: str) -> None:
    arguments = ("changelog", database.url, schema, schema, tmp_path / "state", "--every", "15ms")
    with Writer(database, followed, SEED):
        for step in STEPS:
            run = Job(tmp_path, *arguments, fail_point=step)
            assert run.process.wait(SECONDS_MAX) == -signal.SIGKILL, (step, run.said())
    run = Job(tmp_path, *arguments)
    try:
        assert wait_for(lambda: check_changelog(database, followed, schema) or run.process.poll() is not None), run.said()
        assert run.process.poll() is None, run.said()
    finally:
        run.kill()


def test_connections_that_are_cut_and_a_server_that_is_killed(database: postgres.Server, schema: str, tmp_path: Path, followed: str) -> None:
    """In the middle of the rows, of a large transaction, and of nothing: the job does not even fail."""
    cut = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'millstream' and backend_type = 'walsender'"
    run = Job(tmp_path, "changelog", database.url, schema, schema, tmp_path / "state")
    try:
        with Writer(database, followed, SEED, most=400):
            for _ in range(15):
                time.sleep(0.1)
                database.execute(cut)
        database.kill()
        database.start()
        assert wait_for(lambda: check_changelog(database, followed, schema) or run.process.poll() is not None), run.said()
        assert run.process.poll() is None, run.said()
    finally:
        run.kill()


def test_the_server_is_answered_while_nothing_happens(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    """A server that hears nothing for `wal_sender_timeout` ends the connection; and what it keeps of its log does not grow."""
    table(database, schema, "id int primary key, x int", "values (1, 1)")
    database.execute(f"create table {schema}.other (id int, x text)")
    url = f"{database.url}?options=-c%20wal_sender_timeout%3D2000ms"
    stream = mill.read_postgres_changes(url, schema, schema)
    job = mill.start(
        stream.filter(col("x") > 0).write_sqlite(tmp_path / "out.db", "t", key="id"), checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms")
    )
    try:
        assert wait_for(lambda: sqlite_rows(tmp_path) == [(1, 1)])
        pid = "select active_pid from pg_replication_slots where active_pid is not null"
        assert wait_for(lambda: len(database.rows(pid)) == 1)
        before = database.rows(pid)
        end = database.rows("select pg_current_wal_lsn()")[0][0]
        database.execute(f"insert into {schema}.other select n, md5(n::text) from generate_series(1, 1000) as n")
        last = database.rows("select pg_current_wal_lsn()")[0][0]
        assert last != end
        time.sleep(3)
        assert database.rows(pid) == before
        assert wait_for(lambda: database.rows(f"select '{last}'::pg_lsn <= confirmed_flush_lsn from pg_replication_slots")[0][0])
        database.execute(f"insert into {schema}.t values (2, 2)")
        assert wait_for(lambda: sqlite_rows(tmp_path) == [(1, 1), (2, 2)])
    finally:
        stop_and_wait(job)


def test_only_what_a_checkpoint_has_is_confirmed(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    from millstream import testing

    name = table(database, schema, "id int primary key, x int", "values (1, 1)")
    stream = mill.read_postgres_changes(database.url, schema, schema)
    run_until(database, schema, tmp_path, stream, lambda: sqlite_rows(tmp_path) == [(1, 1)])
    before = confirmed(database, schema)
    testing.arm("checkpoint.publish", first=1, times=1_000_000, effect="fail")
    job = mill.start(stream.write_sqlite(tmp_path / "out.db", "t", key="id"), checkpoint=mill.Checkpoint(tmp_path / "state", every="20ms"))
    try:
        for n in range(2, 6):
            database.execute(f"insert into {name} values ({n}, {n})")
            time.sleep(0.2)
        assert confirmed(database, schema) == before
        testing.disarm()
        assert wait_for(lambda: len(sqlite_rows(tmp_path)) == 5)
        assert wait_for(lambda: confirmed(database, schema) != before)
    finally:
        testing.disarm()
        stop_and_wait(job)


def test_passwords_certificates_and_secrets(database: postgres.Server, schema: str) -> None:
    table(database, schema, "id int primary key", "values (1)")
    if not database.certificate.exists():
        pytest.skip("no openssl to make a certificate with")
    trusted = Path(database.folder) / "trusted.crt"
    trusted.write_text(database.certificate.read_text())
    local = database.secret_url.replace("127.0.0.1", "localhost")
    for number, url in enumerate(
        [
            f"{database.secret_url}?sslmode=disable",
            f"{database.secret_url}?channel_binding=require",
            f"{local}?sslmode=verify-full&sslrootcert={trusted}",
            f"postgresql://{postgres.USER}@/postgres?host={str(database.folder).replace('/', '%2F')}&port={database.port}",
        ]
    ):
        stream = mill.read_postgres_changes(url, schema, f"{schema}_{number}", until="end")
        assert changelog(stream) == [("insert", 1)], url
        assert postgres.SECRET not in f"{stream!r} {stream.explain()}"
