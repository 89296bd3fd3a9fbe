"""`write_postgres` against a real server, judged by what psycopg reads."""

from __future__ import annotations

import collections
import math
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any

import job_process
import postgres
import pyarrow as pa
import pytest
from job_process import SECONDS_MAX

import millstream as mill
from millstream import col

JOBS = Path(__file__).with_name("postgres_jobs.py")
SEED = int(os.environ.get("SEED", "1"))
KILLS = int(os.environ.get("KILLS", "5"))


class Job(job_process.Job):
    """A job of `postgres_jobs.py`."""

    def __init__(self, work: Path, *arguments: object, fail_point: str | None = None) -> None:
        super().__init__(JOBS, work, *arguments, fail_point=fail_point)


# -- values ----------------------------------------------------------------------------------------------------------------

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_901)
ZONED = MOMENT.replace(tzinfo=timezone.utc)

VALUES: list[tuple[str, pa.DataType, list[Any], str]] = [
    ("flag", pa.bool_(), [True, False], "boolean"),
    ("i8", pa.int8(), [-128, 127], "smallint"),
    ("u8", pa.uint8(), [0, 255], "smallint"),
    ("i16", pa.int16(), [-(2**15), 2**15 - 1], "smallint"),
    ("u16", pa.uint16(), [0, 2**16 - 1], "integer"),
    ("i32", pa.int32(), [-(2**31), 2**31 - 1], "integer"),
    ("u32", pa.uint32(), [0, 2**32 - 1], "bigint"),
    ("i64", pa.int64(), [-(2**63), 2**63 - 1], "bigint"),
    ("u64", pa.uint64(), [0, 2**64 - 1], "numeric(20,0)"),
    ("f32", pa.float32(), [1.5, -0.0], "real"),
    ("f64", pa.float64(), [1e308, 5e-324], "double precision"),
    ("money", pa.decimal128(12, 2), [Decimal("1234567890.12"), Decimal("-0.01")], "numeric(12,2)"),
    ("long", pa.decimal256(60, 20), [Decimal("1" * 40 + "." + "2" * 20), Decimal(0)], "numeric(60,20)"),
    ("text", pa.string(), ["", "é\n\t\\N\"'"], "text"),
    ("bytes", pa.binary(), [b"", b"\x00\xff\\"], "bytea"),
    ("day", pa.date32(), [date(1, 1, 1), date(9999, 12, 31)], "date"),
    ("clock", pa.time64("us"), [clock(0), clock(23, 59, 59, 999_999)], "time without time zone"),
    ("at", pa.timestamp("us"), [datetime(1, 1, 1), MOMENT], "timestamp without time zone"),
    ("at_ns", pa.timestamp("ns"), [datetime(1970, 1, 1), MOMENT], "timestamp without time zone"),
    ("zoned", pa.timestamp("us", "UTC"), [ZONED, datetime(1969, 12, 31, tzinfo=timezone.utc)], "timestamp with time zone"),
    ("span", pa.duration("us"), [timedelta(microseconds=-1), timedelta(hours=100)], "interval"),
    ("list", pa.list_(pa.int32()), [[1, None, 3], []], "integer[]"),
    ("texts", pa.list_(pa.string()), [["a,b", '"{}'], ["x"]], "text[]"),
    ("struct", pa.struct([("a", pa.int64()), ("b", pa.string())]), [{"a": 1, "b": 'x"\\u0000'}, {"a": None, "b": None}], "jsonb"),
    ("nested", pa.list_(pa.list_(pa.int64())), [[[1], [2, 3]], []], "jsonb"),
]


def test_every_type_is_exact(database: postgres.Server, schema: str) -> None:
    names = [name for name, *_ in VALUES]
    columns = [pa.array([*values, None], type=kind) for _, kind, values, _ in VALUES]
    rows = pa.table([pa.array([1, 2, 3]), *columns], names=["n", *names])
    mill.run(mill.from_arrow(rows).write_postgres(database.url, f"{schema}.Every Type"))
    kinds = dict(database.rows(f"select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = '{schema}.\"Every Type\"'::regclass"))
    assert {name: kinds[name] for name in names} == {name: kind for name, _, _, kind in VALUES}
    found = database.rows(f'select {", ".join(names)} from {schema}."Every Type" order by n')
    for place, (name, _, values, _) in enumerate(VALUES):
        assert [row[place] for row in found] == [*values, None], name
    assert math.copysign(1, found[1][names.index("f32")]) == -1
    back = mill.read_postgres(database.url, f"{schema}.Every Type", order_by="n").collect().to_arrow()
    for name, kind, _, declared in VALUES:
        if declared != "jsonb":
            assert back[name].to_pylist() == rows[name].to_pylist(), name
        if kind in (pa.int64(), pa.timestamp("us"), pa.string(), pa.decimal128(12, 2)):
            assert back[name].type == kind


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (pa.string(), "a\0b", r'column "x" is .*: it has the character NUL'),
        (pa.struct([("a", pa.string())]), {"a": "\0"}, r'column "x" is .*: it has a text with the character NUL'),
        (pa.timestamp("ns"), 1, r'column "x" is 1970-01-01T00:00:00.000000001: it has nanoseconds'),
        (pa.duration("ns"), 1, r'column "x" is .*: it has nanoseconds'),
        (pa.timestamp("s"), 10**15, r'column "x" is .*: it is too large for the microseconds|column "x" is .*: it is outside the years'),
        (pa.date32(), 2**31 - 1, r'column "x" is .*: it is outside the years'),
    ],
)
def test_a_value_that_cannot_be_stored(database: postgres.Server, schema: str, tmp_path: Path, kind: Any, value: Any, message: str) -> None:
    array = pa.array([None, value, None], type=kind) if not isinstance(value, int) else pa.array([None, value, None], type=pa.int64())
    if isinstance(value, int):
        array = (array.cast(pa.int32()) if kind == pa.date32() else array).view(kind)
    stream = mill.from_arrow(pa.table({"n": [0, 1, 2], "x": array}))
    sink = stream.write_postgres(database.url, f"{schema}.bad")
    with pytest.raises(mill.DataError, match=message):
        mill.run(sink, checkpoint=tmp_path / "fails")
    assert mill.run(sink, checkpoint=tmp_path / "skips", on_error="skip").rows_skipped == 1
    assert database.rows(f"select n from {schema}.bad order by n") == [(0,), (2,)]


# -- tables ----------------------------------------------------------------------------------------------------------------


def test_a_table_that_is_there(database: postgres.Server, schema: str) -> None:
    database.execute(
        f"create table {schema}.t (id bigint primary key, price numeric(20, 4), code varchar(3), mark uuid, js json, "
        "made timestamptz not null default now(), serial bigserial)"
    )
    mark = "00112233-4455-6677-8899-aabbccddeeff"
    kinds = {"code": str, "id": "int32", "price": pa.decimal128(10, 2), "mark": str, "js": {"a": int}}
    rows = [{"code": "äöü", "id": 7, "price": Decimal("1.25"), "mark": mark, "js": {"a": 1}}]
    stream = mill.from_iter(rows, schema=kinds)
    mill.run(stream.write_postgres(database.url, f"{schema}.t"))
    (found,) = database.rows(f"select id, price, code, mark::text, js, serial from {schema}.t")
    assert found == (7, Decimal("1.2500"), "äöü", mark, {"a": 1}, 1)
    long = mill.from_iter([{**rows[0], "id": 8, "code": "long"}], schema=kinds)
    with pytest.raises(mill.DataError, match=r'column "code" is "long": it has 4 characters, and the column of the table varchar\(3\)'):
        mill.run(long.write_postgres(database.url, f"{schema}.t"))
    with pytest.raises(mill.ConnectorError, match=r"duplicate key .*\(id\)=\(7\) already exists"):
        mill.run(stream.write_postgres(database.url, f"{schema}.t"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("id bigint, name text, xx int", r'has no column "x"; did you mean "xx"'),
        ("id int, x int", r'column "id" of the table is integer, which does not hold every int64'),
        ("id bigint, x char(5)", r'column "x" of the table is character\(5\), which does not hold every str'),
        ("id bigint, x text, must int not null", r'column "must" of the table is NOT NULL and has no default'),
        ("id bigint generated always as identity, x text", r'"id" of the table is GENERATED ALWAYS'),
        ("id bigint, x text generated always as ('a') stored", r'"x" of the table is GENERATED ALWAYS'),
    ],
)
def test_a_table_that_does_not_fit(database: postgres.Server, schema: str, columns: str, message: str) -> None:
    database.execute(f"create table {schema}.t ({columns})")
    seen: list[int] = []
    stream = mill.from_iter([1]).map(lambda row: seen.append(row.value) or {"id": row.value, "x": "a"}, schema={"id": int, "x": str})
    with pytest.raises(mill.SchemaError, match=message):
        mill.run(stream.write_postgres(database.url, f"{schema}.t"))
    assert seen == []


def test_what_is_no_table(database: postgres.Server, schema: str) -> None:
    database.execute(f"create view {schema}.v as select 1::bigint as id; create unlogged table {schema}.u (id bigint)")
    database.execute(f"create table {schema}.k (id bigint); create unique index on {schema}.k (id) where id > 0")
    stream = mill.from_iter([{"id": 1}])
    for table, key, message in [("v", None, "is a view"), ("u", None, "is UNLOGGED"), ("k", "id", "no primary key or unique index")]:
        with pytest.raises(mill.SchemaError, match=message):
            mill.run(stream.write_postgres(database.url, f"{schema}.{table}", key=key))
    with pytest.raises(mill.SchemaError, match="there is no table .* and create is False"):
        mill.run(stream.write_postgres(database.url, f"{schema}.none", create=False))
    with pytest.raises(mill.ConnectorError, match=r'schema "nowhere" does not exist'):
        mill.run(stream.write_postgres(database.url, "nowhere.t"))


def test_rows_that_a_trigger_leaves_out_are_missed(database: postgres.Server, schema: str) -> None:
    database.execute(
        f"create table {schema}.t (id bigint primary key, x int); "
        f"create function {schema}.f() returns trigger language plpgsql as 'begin if new.id = 2 then return null; end if; return new; end'; "
        f"create trigger g before insert on {schema}.t for each row execute function {schema}.f()"
    )
    stream = mill.from_iter([{"id": n, "x": n} for n in range(4)], schema={"id": int, "x": "int32"})
    for key in (None, "id"):
        with pytest.raises(mill.SchemaError, match="4 rows were sent and 3 arrived: a trigger"):
            mill.run(stream.write_postgres(database.url, f"{schema}.t", key=key))
    assert database.rows(f"select * from {schema}.t") == []


# -- keys ------------------------------------------------------------------------------------------------------------------


def test_rows_are_replaced_and_deleted(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    database.execute(f"create table {schema}.words (word text primary key, n bigint, note text default 'new')")
    database.execute(f"insert into {schema}.words values ('b', 0, 'old'), ('z', 9, 'kept')")
    words = mill.from_iter([{"word": word} for word in "abacbaaa"])
    few = words.key_by("word").agg(n=mill.count(), emit="each").filter(col("n") < 4)
    with pytest.raises(mill.PlanError, match="it only adds rows"):
        few.write_postgres(database.url, f"{schema}.words")
    mill.run(few.write_postgres(database.url, f"{schema}.words", key="word"), checkpoint=tmp_path / "state")
    assert database.rows(f"select * from {schema}.words order by word") == [("b", 2, "old"), ("c", 1, "new"), ("z", 9, "kept")]


def test_several_key_columns_and_nulls(database: postgres.Server, schema: str) -> None:
    rows = [{"a": 1, "b": "x", "n": 1}, {"a": 1, "b": "y", "n": 2}, {"a": 1, "b": "x", "n": 3}]
    stream = mill.from_iter(rows)
    mill.run(stream.write_postgres(database.url, f"{schema}.made", key=["b", "a"]))
    assert database.rows(f"select a, b, n from {schema}.made order by b") == [(1, "x", 3), (1, "y", 2)]
    nulls = mill.from_iter([*rows, {"a": None, "b": "x", "n": 4}])
    with pytest.raises(mill.DataError, match=r'column "a" is null, and is part of the key'):
        mill.run(nulls.write_postgres(database.url, f"{schema}.made", key=["a", "b"]))
    if int(database.rows("show server_version_num")[0][0]) >= 150_000:
        # Older servers have no such index.
        database.execute(f"create table {schema}.n (a bigint, b text, n bigint, unique nulls not distinct (a, b))")
        for _ in range(2):
            mill.run(nulls.write_postgres(database.url, f"{schema}.n", key=["a", "b"]))
        assert len(database.rows(f"select * from {schema}.n")) == 3
    only = mill.from_iter([{"a": 1}, {"a": 1}, {"a": 2}])
    for _ in range(2):
        mill.run(only.write_postgres(database.url, f"{schema}.only", key="a"))
    assert database.rows(f"select a from {schema}.only order by a") == [(1,), (2,)]


# -- exactly once ----------------------------------------------------------------------------------------------------------


def events(path: Path, rows: int = 60_000, keys: int = 40) -> list[tuple[str, datetime, int]]:
    dice = random.Random(SEED)
    start = datetime(2026, 1, 1)
    made = [(f"k{dice.randrange(keys)}", start + timedelta(milliseconds=25 * n), dice.randrange(1000)) for n in range(rows)]
    path.write_text("key,at,x\n" + "".join(f"{key},{at.isoformat()},{x}\n" for key, at, x in made))
    return made


def expected_windows(made: list[tuple[str, datetime, int]]) -> list[tuple[str, datetime, int, int]]:
    sums: dict[tuple[str, datetime], list[int]] = collections.defaultdict(lambda: [0, 0])
    for key, at, x in made:
        entry = sums[key, at.replace(second=0, microsecond=0)]
        entry[0] += 1
        entry[1] += x
    return sorted((key, minute, n, total) for (key, minute), (n, total) in sums.items())


def expected_latest(made: list[tuple[str, datetime, int]]) -> list[tuple[str, int, int]]:
    sums: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for key, _, x in made:
        sums[key][0] += 1
        sums[key][1] += x
    return sorted((key, n, total) for key, (n, total) in sums.items() if n % 5)


def check(database: postgres.Server, job: str, table: str, made: list[tuple[str, datetime, int]]) -> None:
    if job == "windows":
        assert database.rows(f"select key, window_start, n, total from {table} order by key collate \"C\", window_start") == expected_windows(made)
    else:
        assert database.rows(f'select key, n, total from {table} order by key collate "C"') == expected_latest(made)


def kill_at_random(database: postgres.Server, target: str, work: Path, job: str, *more: object) -> None:
    """File, windows or running counts, PostgreSQL: killed again and again, the table is what it would have been."""
    dice = random.Random(SEED)
    made = events(work / "in.csv")
    kills = 0
    for _ in range(10 * KILLS + 10):
        run = Job(work, job, database.url, work / "in.csv", target, work / "state", *more, "--parallelism", dice.choice([1, 2, 3]))
        if kills == KILLS or run.ends_within(dice.uniform(0.4, 1.5)):
            run.finish()
            break
        run.kill()
        kills += 1
    check(database, job, target, made)
    assert not list((work / "state").rglob("*.rows"))


def kill_at(step: str, database: postgres.Server, target: str, work: Path, job: str, *more: object) -> tuple[object, ...]:
    """Run a job until it is killed at a step; return what it was given, the name of its table fourth.

    A fast machine may be done before it comes to a step a second time. Then another one is killed at the first.
    """
    for time_of_step in dict.fromkeys([step, step.partition(":")[0] + ":1"]):
        of_time = time_of_step[-1]
        arguments = (job, database.url, work / "in.csv", f"{target}_{of_time}", work / f"state_{target.rpartition('.')[2]}_{of_time}", *more)
        run = Job(work, *arguments, fail_point=time_of_step)
        ended = run.process.wait(SECONDS_MAX)
        if ended != 0:
            break
    assert ended == -signal.SIGKILL, (step, run.said())
    return arguments


@pytest.mark.parametrize("job", ["windows", "latest"])
def test_killed_at_random(database: postgres.Server, schema: str, tmp_path: Path, job: str) -> None:
    kill_at_random(database, f"{schema}.out", tmp_path, job)


STEPS = ["postgres.open:1", "postgres.spool:1", "postgres.begin:2", "postgres.copied:1", "postgres.commit:1", "postgres.commit:2",
         "postgres.committed:1", "postgres.committed:2", "checkpoint.publish:2"]  # fmt: skip


@pytest.mark.parametrize("job", ["windows", "latest"])
def test_killed_at_each_step(database: postgres.Server, schema: str, tmp_path: Path, job: str) -> None:
    # So many keys that the rows of an epoch go into a file.
    made = events(tmp_path / "in.csv", 20_000, 4000)
    for number, step in enumerate(STEPS):
        arguments = kill_at(step, database, f"{schema}.out{number}", tmp_path, job)
        Job(tmp_path, *arguments).finish()
        check(database, job, str(arguments[3]), made)


def test_a_trigger_that_keeps_deleted_rows(database: postgres.Server, schema: str) -> None:
    database.execute(f"create table {schema}.out (k text primary key, n bigint)")
    database.execute(f"create function {schema}.keep() returns trigger language plpgsql as 'begin return null; end'")
    database.execute(f"create trigger keep before delete on {schema}.out for each row execute function {schema}.keep()")
    database.execute(f"insert into {schema}.out values ('a', 1), ('b', 2)")
    changes = [{"k": "a", "n": 1, "op": "insert"}, {"k": "a", "n": 1, "op": "delete"}]
    stream = mill.from_changelog(mill.from_iter(changes), key="k")
    with pytest.raises(mill.SchemaError, match="1 row was deleted and is there nevertheless"):
        mill.run(stream.write_postgres(database.url, f"{schema}.out", key="k"))
    assert database.rows(f"select * from {schema}.out order by k") == [("a", 1), ("b", 2)]


def test_a_trigger_that_drops_rows_of_nothing_but_a_key(database: postgres.Server, schema: str) -> None:
    database.execute(f"create table {schema}.out (k text primary key)")
    database.execute(f"create function {schema}.no() returns trigger language plpgsql as 'begin return null; end'")
    database.execute(f"create trigger no before insert on {schema}.out for each row execute function {schema}.no()")
    with pytest.raises(mill.SchemaError, match="2 rows were sent and 0 arrived"):
        mill.run(mill.from_iter([{"k": "a"}, {"k": "b"}]).write_postgres(database.url, f"{schema}.out", key="k"))


@pytest.mark.parametrize("key", [None, "n"])
def test_a_table_that_is_altered_while_the_job_runs(database: postgres.Server, schema: str, tmp_path: Path, key: str | None) -> None:
    """Binary rows do not say what they are: whole numbers would be read as other ones."""

    def numbers() -> Iterator[dict[str, int]]:
        for n in range(1, 400):
            if n == 200:
                database.execute(f"alter table {schema}.out alter column x type double precision")
            time.sleep(0.002)
            yield {"n": n, "x": n}

    stream = mill.from_iter(numbers, schema={"n": int, "x": int})
    checkpoint = mill.Checkpoint(tmp_path / "state", every="20ms", mode="none")
    with pytest.raises(mill.SchemaError, match='column "x" of .* was bigint when the job began, and is double precision now'):
        mill.run(stream.write_postgres(database.url, f"{schema}.out", key=key), checkpoint=checkpoint)
    assert database.rows(f"select count(*) from {schema}.out where x <> n") == [(0,)]


@pytest.mark.parametrize("state", [True, False])
def test_an_answer_that_is_lost(database: postgres.Server, schema: str, tmp_path: Path, state: bool) -> None:
    """The transaction is committed and nobody hears of it: it is found out, and not written again."""
    from millstream import testing

    stream = mill.from_iter([{"n": n} for n in range(1000)])
    testing.arm("postgres.committed", first=1, times=1, effect="fail")
    try:
        mill.run(stream.write_postgres(database.url, f"{schema}.out"), checkpoint=tmp_path / "state" if state else None)
    finally:
        testing.disarm()
    assert database.rows(f"select count(*), count(distinct n) from {schema}.out") == [(1000, 1000)]


@pytest.mark.parametrize("job", ["windows", "latest"])
def test_the_server_is_killed(database: postgres.Server, schema: str, tmp_path: Path, job: str) -> None:
    """It comes back, and the job has not even failed."""
    made = events(tmp_path / "in.csv", 60_000)
    database.execute(f"create table {schema}.gate (n int)")
    run = Job(tmp_path, job, database.url, tmp_path / "in.csv", f"{schema}.out", tmp_path / "state", "--parallelism", 2)
    end = time.monotonic() + SECONDS_MAX
    while not database.rows(f"select to_regclass('{schema}._millstream_epochs') is not null")[0][0]:
        assert run.process.poll() is None, run.said()
        assert time.monotonic() < end
        time.sleep(0.02)
    for _ in range(3):
        time.sleep(0.3)
        database.kill()
        database.start()
    run.finish()
    check(database, job, f"{schema}.out", made)


def test_connections_that_are_cut(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    made = events(tmp_path / "in.csv", 60_000)
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.1):
            database.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'millstream'")

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        arguments = ("windows", database.url, tmp_path / "in.csv", f"{schema}.out", tmp_path / "state")
        run = Job(tmp_path, *arguments)
        run.ends_within(3)
    finally:
        over.set()
        thread.join()
    if run.process.wait(SECONDS_MAX) != 0:
        # Before the first record a job does not wait that long.
        Job(tmp_path, *arguments).finish()
    check(database, "windows", f"{schema}.out", made)


# -- secrets, and what is said ---------------------------------------------------------------------------------------------


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_password_is_nowhere(database: postgres.Server, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = database.secret_url
    stream = mill.from_iter([{"n": n} for n in range(5000)])
    sink = stream.write_postgres(url, f"{schema}.out")
    report = mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="20ms"))
    said = [repr(report), str(report), repr(sink), repr(stream), repr(mill.read_postgres(url, f"{schema}.out", order_by="n"))]
    said.append(str(mill.read_postgres(url, f"{schema}.out", order_by="n").explain()))
    for wrong in (url.replace(postgres.SECRET, "wrong-word"), url.replace("/postgres", "/none"), url.replace(str(database.port), "1")):
        with pytest.raises(mill.ConnectorError) as info:
            mill.run(stream.write_postgres(wrong, f"{schema}.out"))
        assert "wrong-word" not in str(info.value)
        said.append(str(info.value))
    assert not [text for text in said if postgres.SECRET in text]
    assert not [path for path in files(tmp_path) if postgres.SECRET.encode() in path.read_bytes()]
    monkeypatch.setenv("PGPASSWORD", postgres.SECRET)
    bare = url.replace(f":{postgres.SECRET}", "")
    assert mill.read_postgres(bare, f"{schema}.out", order_by="n").collect().to_arrow().num_rows == 5000
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(mill.ConnectorError, match="PGPASSWORD"):
        mill.read_postgres(bare, f"{schema}.out", order_by="n")


def test_certificates(database: postgres.Server) -> None:
    if not database.certificate.exists():
        pytest.skip("no openssl to make a certificate with")
    local = database.url.replace("127.0.0.1", "localhost")
    query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
    certificate = database.certificate.read_text()
    trusted = Path(database.folder) / "trusted.crt"
    trusted.write_text(certificate)
    for url, is_secret in [
        (database.url, True),
        (f"{database.url}?sslmode=disable", False),
        (f"{database.url}?sslmode=require", True),
        (f"{database.url}?sslmode=verify-ca&sslrootcert={trusted}", True),
        (f"{local}?sslmode=verify-full&sslrootcert={trusted}", True),
    ]:
        assert mill.read_postgres(url, query, order_by="ssl").collect().to_pylist() == [{"ssl": is_secret}], url
    for url in (f"{database.url}?sslmode=verify-full&sslrootcert={trusted}", f"{local}?sslmode=verify-full"):
        with pytest.raises(mill.ConnectorError, match="certificate verify failed"):
            mill.read_postgres(url, query, order_by="ssl")
