"""`write_sql` against a real MariaDB, judged by what PyMySQL reads."""

from __future__ import annotations

import collections
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
import mariadb
import pyarrow as pa
import pytest
from job_process import SECONDS_MAX

import millstream as mill
from millstream import col

JOBS = Path(__file__).with_name("sql_jobs.py")
SEED = int(os.environ.get("SEED", "1"))
KILLS = int(os.environ.get("KILLS", "5"))


class Job(job_process.Job):
    """A job of `sql_jobs.py`."""

    def __init__(self, work: Path, *arguments: object, fail_point: str | None = None) -> None:
        super().__init__(JOBS, work, *arguments, fail_point=fail_point)


# -- values ----------------------------------------------------------------------------------------------------------------

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_901)
ZONED = MOMENT.replace(tzinfo=timezone.utc)
F32 = 0.10000000149011612

VALUES: list[tuple[str, pa.DataType, list[Any], str]] = [
    ("flag", pa.bool_(), [True, False], "tinyint(4)"),
    ("i8", pa.int8(), [-128, 127], "tinyint(4)"),
    ("u8", pa.uint8(), [0, 255], "tinyint(3) unsigned"),
    ("i16", pa.int16(), [-(2**15), 2**15 - 1], "smallint(6)"),
    ("u16", pa.uint16(), [0, 2**16 - 1], "smallint(5) unsigned"),
    ("i32", pa.int32(), [-(2**31), 2**31 - 1], "int(11)"),
    ("u32", pa.uint32(), [0, 2**32 - 1], "int(10) unsigned"),
    ("i64", pa.int64(), [-(2**63), 2**63 - 1], "bigint(20)"),
    ("u64", pa.uint64(), [0, 2**64 - 1], "bigint(20) unsigned"),
    ("f32", pa.float32(), [F32, -16777217.0 + 1], "float"),
    ("f64", pa.float64(), [1.7976931348623157e308, 0.1], "double"),
    ("money", pa.decimal128(12, 2), [Decimal("1234567890.12"), Decimal("-0.01")], "decimal(12,2)"),
    ("long", pa.decimal256(60, 20), [Decimal("1" * 40 + "." + "2" * 20), Decimal(0)], "decimal(60,20)"),
    ("text", pa.string(), ["", "é\n\t\\N\"'`\0\x1a 🦀 "], "longtext"),
    ("bytes", pa.binary(), [b"", b"\x00\xff\\'"], "longblob"),
    ("day", pa.date32(), [date(1, 1, 1), date(9999, 12, 31)], "date"),
    ("clock", pa.time64("us"), [clock(0), clock(23, 59, 59, 999_999)], "time(6)"),
    ("at", pa.timestamp("us"), [datetime(1, 1, 1), MOMENT], "datetime(6)"),
    ("at_ns", pa.timestamp("ns"), [datetime(1970, 1, 1), MOMENT], "datetime(6)"),
    ("zoned", pa.timestamp("us", "UTC"), [ZONED, datetime(1970, 1, 1, 0, 0, 1, tzinfo=timezone.utc)], "timestamp(6)"),
    ("span", pa.duration("us"), [timedelta(microseconds=-1), timedelta(hours=838, microseconds=7)], "time(6)"),
    ("list", pa.list_(pa.int32()), [[1, None, 3], []], "longtext"),
    ("struct", pa.struct([("a", pa.int64()), ("b", pa.string())]), [{"a": 1, "b": 'x"\\'}, {"a": None, "b": None}], "longtext"),
]


def test_every_type_is_exact(mysql: mariadb.Server, mysql_database: str) -> None:
    names = [name for name, *_ in VALUES]
    columns = [pa.array([*values, None], type=kind) for _, kind, values, _ in VALUES]
    rows = pa.table([pa.array([1, 2, 3]), *columns], names=["n", *names])
    mill.run(mill.from_arrow(rows).write_sql(f"{mysql.url}/{mysql_database}", "Every Type"))
    table = f"{mysql_database}.`Every Type`"
    kinds = dict(
        mysql.rows(f"select column_name, column_type from information_schema.columns where table_schema = '{mysql_database}' and table_name = 'Every Type'")
    )
    assert {name: kinds[name] for name in names} == {name: kind for name, _, _, kind in VALUES}
    found = mysql.rows(f"select {', '.join(f'`{name}` + 0e0' if name == 'f32' else f'`{name}`' for name in names)} from {table} order by n")
    for place, (name, kind, values, _) in enumerate(VALUES):
        seen: list[Any] = [row[place] for row in found]
        if pa.types.is_time(kind):
            values = [timedelta(hours=v.hour, minutes=v.minute, seconds=v.second, microseconds=v.microsecond) for v in values]
        elif name == "zoned":
            values = [value.replace(tzinfo=None) for value in values]
        elif name in ("list", "struct"):
            import json

            seen = [None if text is None else json.loads(text) for text in seen]
        if name != "span":
            # PyMySQL has no times of more than a day that are negative.
            assert seen == [*values, None], name
    assert [row[0] for row in mysql.rows(f"select cast(span as char) from {table} order by n")] == ["-00:00:00.000001", "838:00:00.000007", None]
    back = mill.read_sql(mysql.url, f"{mysql_database}.`Every Type`", order_by="n").collect().to_arrow()
    for name, kind, _, _ in VALUES:
        if name not in ("list", "struct", "flag", "clock"):
            assert back[name].to_pylist() == rows[name].to_pylist(), name
        if kind in (pa.int8(), pa.uint64(), pa.float32(), pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.string(), pa.binary(), pa.date32()):
            assert back[name].type == kind
    assert back["clock"].to_pylist()[1] == timedelta(hours=23, minutes=59, seconds=59, microseconds=999_999)


def test_numbers_of_every_size(mysql: mariadb.Server, mysql_database: str) -> None:
    """Every bit of a number is kept, also that of a `FLOAT`, which the text protocol rounds."""
    import struct

    dice = random.Random(SEED)
    wide = [struct.unpack("<d", dice.randbytes(8))[0] for _ in range(4000)]
    wide = [x for x in wide if x == x and abs(x) != float("inf")] + [5e-324, 2.2250738585072014e-308, -1.7976931348623157e308]
    narrow = [struct.unpack("<f", dice.randbytes(4))[0] for _ in range(4000)]
    narrow = [x for x in narrow if x == x and abs(x) != float("inf")]
    count = min(len(wide), len(narrow))
    rows = pa.table({"n": range(count), "d": pa.array(wide[-count:]), "f": pa.array(narrow[:count], pa.float32())})
    url = f"{mysql.url}/{mysql_database}"
    mill.run(mill.from_arrow(rows).write_sql(url, "t"))
    assert mill.read_sql(url, "t", order_by="n").collect().to_arrow().equals(rows)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (pa.float64(), float("nan"), r'column "x" is .*: it is no number that MySQL has'),
        (pa.float32(), float("-inf"), r'column "x" is .*: it is no number that MySQL has'),
        (pa.timestamp("ns"), 1, r'column "x" is 1970-01-01T00:00:00.000000001: it has nanoseconds'),
        (pa.timestamp("us"), -(10**17), r'column "x" is .*: it is outside the years that MySQL has'),
        (pa.timestamp("us", "UTC"), 2**31 * 10**6, r'column "x" is .*: it is outside the years that a TIMESTAMP .* \(1970 to 2038\)'),
        (pa.timestamp("us", "UTC"), 0, r'column "x" is .*: it is outside the years'),
        (pa.date32(), -800_000, r'column "x" is .*: it is outside the years'),
        (pa.duration("s"), 839 * 3600, r'column "x" is .*: it is longer than 838:59:59'),
    ],
)
def test_a_value_that_cannot_be_stored(mysql: mariadb.Server, mysql_database: str, tmp_path: Path, kind: Any, value: Any, message: str) -> None:
    if isinstance(value, int):
        array = pa.array([None, value, None], type=pa.int32() if kind == pa.date32() else pa.int64()).view(kind)
    else:
        array = pa.array([None, value, None], type=kind)
    stream = mill.from_arrow(pa.table({"n": [0, 1, 2], "x": array}))
    sink = stream.write_sql(f"{mysql.url}/{mysql_database}", "bad")
    with pytest.raises(mill.DataError, match=message):
        mill.run(sink, checkpoint=tmp_path / "fails")
    assert mill.run(sink, checkpoint=tmp_path / "skips", on_error="skip").rows_skipped == 1
    assert mysql.rows(f"select n from {mysql_database}.bad order by n") == [(0,), (2,)]


def test_a_row_that_is_longer_than_a_packet(mysql: mariadb.Server, mysql_database: str, tmp_path: Path) -> None:
    before = mysql.rows("select @@global.max_allowed_packet")[0][0]
    mysql.execute(f"set global max_allowed_packet = {1 << 20}")
    try:
        rows = [{"n": n, "x": "'" * (size // 2 - 10)} for n, size in enumerate([300_000, 600_000, 1_030_000, 1_100_000, 200_000])]
        sink = mill.from_iter(rows).write_sql(f"{mysql.url}/{mysql_database}", "t")
        with pytest.raises(mill.DataError, match=r"the record has .* bytes as SQL, and the server takes 1048576 at once; raise"):
            mill.run(sink)
        mill.run(sink, on_error="skip", checkpoint=tmp_path / "state")
    finally:
        mysql.execute(f"set global max_allowed_packet = {before}")
    assert mysql.rows(f"select n, length(x) from {mysql_database}.t order by n") == [(n, len(rows[n]["x"])) for n in (0, 1, 2, 4)]


# -- tables ----------------------------------------------------------------------------------------------------------------


def test_a_table_that_is_there(mysql: mariadb.Server, mysql_database: str) -> None:
    mysql.execute(
        f"create table {mysql_database}.t (id bigint primary key, price decimal(20, 4), code varchar(3) charset utf8mb4, fixed char(4) charset utf8mb4, "
        "raw binary(2), flag bit(1), made datetime not null default now(), js json, serial int unique auto_increment)"
    )
    kinds = {"code": str, "id": "int32", "price": pa.decimal128(10, 2), "fixed": str, "raw": "binary", "flag": bool, "js": {"a": int}}
    good = {"code": "äöü", "id": 7, "price": Decimal("1.25"), "fixed": "ab", "raw": b"\0\0", "flag": True, "js": {"a": 1}}
    url = f"{mysql.url}/{mysql_database}"
    mill.run(mill.from_iter([good], schema=kinds).write_sql(url, "t", create=False))
    assert mysql.rows(f"select id, price, code, fixed, raw, flag, js, serial from {mysql_database}.t") == [
        (7, Decimal("1.2500"), "äöü", "ab", b"\0\0", b"\1", '{"a":1}', 1)
    ]
    for change, message in [
        ({"code": "long"}, r'column "code" is "long": it has 4 characters, and the column of the table 3'),
        ({"fixed": "ab "}, r'column "fixed" is "ab ": it ends with a blank'),
        ({"raw": b"\0"}, r'column "raw" is .*: it has 1 byte, and the column of the table 2'),
        ({"id": None}, r'column "id" is null, and is NOT NULL in the table'),
    ]:
        with pytest.raises(mill.DataError, match=message):
            mill.run(mill.from_iter([{**good, "id": 8, **change}], schema=kinds).write_sql(url, "t"))
    with pytest.raises(mill.ConnectorError, match=r"Duplicate entry '7' for key 'PRIMARY' \[error 1062\]"):
        mill.run(mill.from_iter([good], schema=kinds).write_sql(url, "t"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("id bigint, name text, xx int", r'has no column "x"; did you mean "xx"'),
        ("id int, x text charset utf8mb4", r'column "id" of the table is int\(11\), which does not hold every int64'),
        ("id bigint unsigned, x text charset utf8mb4", r'column "id" of the table is bigint\(20\) unsigned, which does not hold'),
        ("id bigint, x text charset latin1", r'column "x" of the table is text, .*: it has the character set latin1.*utf8mb4'),
        ("id bigint, x enum('a', 'b')", r"column \"x\" of the table is enum\('a','b'\), .*: it takes some texts only"),
        ("id bigint, x text charset utf8mb4, must int not null", r'column "must" of the table is NOT NULL and has no default'),
        ("id bigint, x text charset utf8mb4 as ('a')", r'"x" of the table is GENERATED'),
        ("id double, x text charset utf8mb4", r'column "id" of the table is double'),
        ("id bigint, x text charset utf8mb4) engine = (MyISAM", "is stored by the engine MyISAM, .*ENGINE = InnoDB"),
    ],
)
def test_a_table_that_does_not_fit(mysql: mariadb.Server, mysql_database: str, columns: str, message: str) -> None:
    mysql.execute(f"create table {mysql_database}.t ({columns})".replace("(MyISAM)", "MyISAM"))
    seen: list[int] = []
    stream = mill.from_iter([1]).map(lambda row: seen.append(row.value) or {"id": row.value, "x": "a"}, schema={"id": int, "x": str})
    with pytest.raises(mill.SchemaError, match=message):
        mill.run(stream.write_sql(mysql.url, f"{mysql_database}.t"))
    assert seen == []


@pytest.mark.parametrize(
    ("columns", "kind", "message"),
    [
        ("x time", pa.time64("us"), r'"x" of the table is time, which does not hold every time'),
        ("x datetime(3)", pa.timestamp("us"), r'"x" of the table is datetime\(3\), which does not hold'),
        ("x datetime(6)", pa.timestamp("us", "UTC"), r'"x" of the table is datetime\(6\), which does not hold'),
        ("x float(7, 2)", pa.float32(), r'"x" of the table is float\(7,2\), .*: it rounds'),
        ("x decimal(10, 1)", pa.decimal128(10, 2), r'"x" of the table is decimal\(10,1\), which does not hold'),
    ],
)
def test_a_column_that_would_round(mysql: mariadb.Server, mysql_database: str, columns: str, kind: pa.DataType, message: str) -> None:
    mysql.execute(f"create table {mysql_database}.t ({columns})")
    with pytest.raises(mill.SchemaError, match=message):
        mill.run(mill.from_arrow(pa.table({"x": pa.array([None], kind)})).write_sql(mysql.url, f"{mysql_database}.t"))


def test_what_is_no_table(mysql: mariadb.Server, mysql_database: str) -> None:
    mysql.execute(
        f"create view {mysql_database}.v as select 1 as id",
        f"create table {mysql_database}.k (id bigint)",
        f"create table {mysql_database}.two (id bigint primary key, n bigint unique)",
        f"create table {mysql_database}.ci (id varchar(20) charset utf8mb4 collate utf8mb4_general_ci primary key)",
    )
    url = f"{mysql.url}/{mysql_database}"
    stream = mill.from_iter([{"id": 1, "n": 1}])
    for table, key, message in [
        ("v", None, "is a view"),
        ("k", "id", "no primary key or unique index on"),
        ("two", "id", r'another unique index than that of the key, "n" on \("n"\): a row would replace'),
    ]:
        with pytest.raises(mill.SchemaError, match=message):
            mill.run((stream if table == "two" else stream.select("id")).write_sql(url, table, key=key))
    with pytest.raises(mill.SchemaError, match="collation utf8mb4_general_ci, which takes different keys for the same"):
        mill.run(mill.from_iter([{"id": "a"}]).write_sql(url, "ci", key="id"))
    with pytest.raises(mill.SchemaError, match="there is no table .* and create is False"):
        mill.run(stream.write_sql(url, "none", create=False))
    with pytest.raises(mill.ConnectorError, match="Unknown database 'nowhere'"):
        mill.run(stream.write_sql(url, "nowhere.t"))


def test_rows_that_a_trigger_changes(mysql: mariadb.Server, mysql_database: str) -> None:
    mysql.execute(
        f"create table {mysql_database}.t (id bigint primary key, x int)",
        f"create trigger {mysql_database}.g before insert on {mysql_database}.t for each row "
        "begin if new.id = 2 then signal sqlstate '45000' set message_text = 'not two'; end if; end",
    )
    stream = mill.from_iter([{"id": n, "x": n} for n in range(4)], schema={"id": int, "x": "int32"})
    for key in (None, "id"):
        with pytest.raises(mill.ConnectorError, match="not two"):
            mill.run(stream.write_sql(mysql.url, f"{mysql_database}.t", key=key))
    assert mysql.rows(f"select * from {mysql_database}.t") == []


# -- keys ------------------------------------------------------------------------------------------------------------------


def test_rows_are_replaced_and_deleted(mysql: mariadb.Server, mysql_database: str, tmp_path: Path) -> None:
    table = f"{mysql_database}.words"
    mysql.execute(
        f"create table {table} (word varchar(20) charset utf8mb4 collate utf8mb4_nopad_bin primary key, n bigint, note varchar(9) default 'new')",
        f"insert into {table} values ('b', 0, 'old'), ('z', 9, 'kept')",
    )
    words = mill.from_iter([{"word": word} for word in "abacbaaa"])
    few = words.key_by("word").agg(n=mill.count(), emit="each").filter(col("n") < 4)
    with pytest.raises(mill.PlanError, match="it only adds rows"):
        few.write_sql(mysql.url, table)
    mill.run(few.write_sql(mysql.url, table, key="word"), checkpoint=tmp_path / "state")
    assert mysql.rows(f"select * from {table} order by word") == [("b", 2, "old"), ("c", 1, "new"), ("z", 9, "kept")]


def test_keys_of_several_columns_and_of_text(mysql: mariadb.Server, mysql_database: str) -> None:
    url = f"{mysql.url}/{mysql_database}"
    rows = [{"a": 1, "b": "x", "n": 1}, {"a": 1, "b": "X", "n": 2}, {"a": 1, "b": "x ", "n": 3}, {"a": 1, "b": "x", "n": 4}]
    for _ in range(2):
        mill.run(mill.from_iter(rows).write_sql(url, "made", key=["b", "a"]))
    assert sorted(mysql.rows(f"select a, b, n from {mysql_database}.made")) == [(1, "X", 2), (1, "x", 4), (1, "x ", 3)]
    with pytest.raises(mill.DataError, match=r'column "a" is null, and is part of the key'):
        mill.run(mill.from_iter([*rows, {"a": None, "b": "x", "n": 4}]).write_sql(url, "made", key=["a", "b"]))
    with pytest.raises(mill.DataError, match=r'column "b" is .*: it has 256 characters, and the column of the table 255'):
        mill.run(mill.from_iter([{"a": 1, "b": "é" * 256, "n": 4}]).write_sql(url, "made", key=["a", "b"]))
    mysql.execute(f"create table {mysql_database}.padded (b varchar(9) charset utf8mb4 collate utf8mb4_bin primary key)")
    with pytest.raises(mill.DataError, match=r'column "b" is "x ": it ends with a blank'):
        mill.run(mill.from_iter([{"b": "x"}, {"b": "x "}]).write_sql(url, "padded", key="b"))
    for _ in range(2):
        mill.run(mill.from_iter([{"a": 1}, {"a": 1}, {"a": 2}]).write_sql(url, "only", key="a"))
    assert mysql.rows(f"select a from {mysql_database}.only order by a") == [(1,), (2,)]


def test_the_last_change_of_a_key_counts(mysql: mariadb.Server, mysql_database: str, tmp_path: Path) -> None:
    """Random changes, in batches and statements of every size."""
    dice = random.Random(SEED)
    table: dict[str, str] = {}
    changes = []
    for _ in range(30_000):
        key = f"k{dice.randrange(3000)}"
        if key in table and dice.random() < 0.4:
            changes.append({"k": key, "x": table.pop(key), "op": "delete"})
        else:
            kind = "update" if key in table else "insert"
            table[key] = "'" * dice.randrange(200)
            changes.append({"k": key, "x": table[key], "op": kind})
    stream = mill.from_changelog(mill.from_iter(changes), key="k")
    mill.run(stream.write_sql(mysql.url, f"{mysql_database}.t", key="k"), checkpoint=mill.Checkpoint(tmp_path / "state", every="20ms"))
    assert dict(mysql.rows(f"select k, x from {mysql_database}.t")) == table


# -- exactly once ----------------------------------------------------------------------------------------------------------


def events(path: Path, rows: int = 60_000, keys: int = 40) -> list[tuple[str, datetime, int]]:
    dice = random.Random(SEED)
    start = datetime(2026, 1, 1)
    made = [(f"k{dice.randrange(keys)}", start + timedelta(milliseconds=25 * n), dice.randrange(1000)) for n in range(rows)]
    path.write_text("key,at,x\n" + "".join(f"{key},{at.isoformat()},{x}\n" for key, at, x in made))
    return made


def check(mysql: mariadb.Server, job: str, table: str, made: list[tuple[str, datetime, int]]) -> None:
    sums: dict[Any, list[int]] = collections.defaultdict(lambda: [0, 0])
    for key, at, x in made:
        entry = sums[(key, at.replace(second=0, microsecond=0)) if job == "windows" else (key,)]
        entry[0] += 1
        entry[1] += x
    columns = "`key`, window_start" if job == "windows" else "`key`"
    expected = sorted((*key, n, total) for key, (n, total) in sums.items() if job == "windows" or n % 5)
    assert sorted(mysql.rows(f"select {columns}, n, total from {table}")) == expected


@pytest.mark.parametrize("job", ["windows", "latest"])
def test_killed_at_random(mysql: mariadb.Server, mysql_database: str, tmp_path: Path, job: str) -> None:
    """File, windows or running counts, MariaDB: killed again and again, the table is what it would have been."""
    dice = random.Random(SEED)
    made = events(tmp_path / "in.csv")
    kills = 0
    for _ in range(10 * KILLS + 10):
        arguments = (job, mysql.url, tmp_path / "in.csv", f"{mysql_database}.out", tmp_path / "state", "--parallelism", dice.choice([1, 2, 3]))
        run = Job(tmp_path, *arguments)
        if kills == KILLS or run.ends_within(dice.uniform(0.4, 1.5)):
            run.finish()
            break
        run.kill()
        kills += 1
    check(mysql, job, f"{mysql_database}.out", made)
    assert not list((tmp_path / "state").rglob("*.rows"))


STEPS = ["mysql.open:1", "mysql.spool:1", "mysql.begin:2", "mysql.sent:1", "mysql.commit:1", "mysql.commit:2", "mysql.committed:1",
         "mysql.committed:2", "checkpoint.publish:2"]  # fmt: skip


@pytest.mark.parametrize("job", ["windows", "latest"])
def test_killed_at_each_step(mysql: mariadb.Server, mysql_database: str, tmp_path: Path, job: str) -> None:
    # So many keys that the rows of an epoch go into a file.
    made = events(tmp_path / "in.csv", 20_000, 4000)
    for number, step in enumerate(STEPS):
        # A fast machine may be done before it comes to a step a second time. Then another one is killed at the first.
        for time_of_step in dict.fromkeys([step, step.partition(":")[0] + ":1"]):
            name = f"{number}_{time_of_step[-1]}"
            arguments = (job, mysql.url, tmp_path / "in.csv", f"{mysql_database}.out{name}", tmp_path / f"state{name}")
            run = Job(tmp_path, *arguments, fail_point=time_of_step)
            ended = run.process.wait(SECONDS_MAX)
            if ended != 0:
                break
        assert ended == -signal.SIGKILL, (step, run.said())
        Job(tmp_path, *arguments).finish()
        check(mysql, job, str(arguments[3]), made)


@pytest.mark.parametrize("key", [None, "n"])
def test_a_table_that_is_altered_while_the_job_runs(mysql: mariadb.Server, mysql_database: str, tmp_path: Path, key: str | None) -> None:
    def numbers() -> Iterator[dict[str, int]]:
        for n in range(1, 400):
            if n == 200:
                mysql.execute(f"alter table {mysql_database}.out modify x double")
            time.sleep(0.002)
            yield {"n": n, "x": n}

    stream = mill.from_iter(numbers, schema={"n": int, "x": int})
    checkpoint = mill.Checkpoint(tmp_path / "state", every="20ms", mode="none")
    mysql.execute(f"create table {mysql_database}.out (n bigint primary key, x bigint)")
    with pytest.raises(mill.SchemaError, match=r'column "x" of .* was bigint\(20\) when the job began, and is double now'):
        mill.run(stream.write_sql(mysql.url, f"{mysql_database}.out", key=key), checkpoint=checkpoint)


def test_an_answer_that_is_lost(mysql: mariadb.Server, mysql_database: str, tmp_path: Path) -> None:
    """The transaction is committed and nobody hears of it: it is found out, and not written again; or it is said that nobody knows."""
    from millstream import testing

    stream = mill.from_iter([{"n": n} for n in range(1000)])
    for number, (state, key) in enumerate([(True, None), (True, "n"), (False, "n"), (False, None)]):
        sink = stream.write_sql(mysql.url, f"{mysql_database}.out{number}", key=key)
        testing.arm("mysql.committed", first=1, times=1, effect="fail")
        try:
            if state or key is not None:
                mill.run(sink, checkpoint=tmp_path / f"state{number}" if state else None)
            else:
                with pytest.raises(mill.ConnectorError, match="whether rows were committed is not known.*run it with a checkpoint path"):
                    mill.run(sink)
        finally:
            testing.disarm()
        assert mysql.rows(f"select count(*), count(distinct n) from {mysql_database}.out{number}") == [(1000, 1000)]


def test_two_sinks_and_deadlocks(mysql: mariadb.Server, mysql_database: str, tmp_path: Path) -> None:
    """Somebody else locks the same rows in another order: who loses is repeated."""
    made = events(tmp_path / "in.csv", 40_000)
    table = f"{mysql_database}.out"
    over = threading.Event()
    run = Job(tmp_path, "latest", mysql.url, tmp_path / "in.csv", table, tmp_path / "state")

    def lock() -> None:
        import pymysql

        while not over.wait(0.01):
            try:
                with mysql.connect() as connection, connection.cursor() as cursor:
                    cursor.execute("begin")
                    for key in ("k9", "k5", "k3", "k1", "k0"):
                        cursor.execute(f"update {table} set n = n where `key` = '{key}'")
                        over.wait(0.01)
                    cursor.execute("rollback")
            except pymysql.err.MySQLError:
                pass

    thread = threading.Thread(target=lock)
    thread.start()
    try:
        run.finish()
    finally:
        over.set()
        thread.join()
    check(mysql, "latest", table, made)


def wait_for_notes(mysql: mariadb.Server, database: str, run: Job) -> None:
    """Wait until a job has begun to write."""
    end = time.monotonic() + SECONDS_MAX
    sql = f"select count(*) from information_schema.tables where table_schema = '{database}' and table_name = '_millstream_epochs'"
    while mysql.rows(sql) == [(0,)]:
        assert run.process.poll() is None, run.said()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("job", ["windows", "latest"])
def test_the_server_is_killed(mysql: mariadb.Server, mysql_database: str, tmp_path: Path, job: str) -> None:
    """It comes back, and the job has not even failed."""
    made = events(tmp_path / "in.csv", 60_000)
    run = Job(tmp_path, job, mysql.url, tmp_path / "in.csv", f"{mysql_database}.out", tmp_path / "state", "--parallelism", 2)
    wait_for_notes(mysql, mysql_database, run)
    for _ in range(3):
        time.sleep(0.3)
        mysql.kill()
        mysql.start()
    run.finish()
    check(mysql, job, f"{mysql_database}.out", made)


def test_connections_that_are_cut(mysql: mariadb.Server, mysql_database: str, tmp_path: Path) -> None:
    made = events(tmp_path / "in.csv", 60_000)
    over = threading.Event()
    arguments = ("windows", mysql.url, tmp_path / "in.csv", f"{mysql_database}.out", tmp_path / "state")
    run = Job(tmp_path, *arguments)
    wait_for_notes(mysql, mysql_database, run)

    def cut() -> None:
        import pymysql

        while not over.wait(0.1):
            with mysql.connect() as connection, connection.cursor() as cursor:
                cursor.execute(f"select id from information_schema.processlist where user = '{mariadb.USER}' and id <> connection_id()")
                for (number,) in cursor.fetchall():
                    try:
                        cursor.execute(f"kill {number}")
                    except pymysql.err.MySQLError:
                        pass

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        run.ends_within(3)
    finally:
        over.set()
        thread.join()
    run.finish()
    check(mysql, "windows", f"{mysql_database}.out", made)


def test_a_database_that_was_put_back(mysql: mariadb.Server, mysql_database: str, tmp_path: Path) -> None:
    """A table or its notes that are gone are not taken for new ones."""
    events(tmp_path / "in.csv", 250_000, 4000)
    for number, statement in enumerate(["drop table {}.out1", "truncate table {}._millstream_epochs"], 1):
        arguments = ("latest", mysql.url, tmp_path / "in.csv", f"{mysql_database}.out{number}", tmp_path / f"state{number}", "--every", "10ms")
        run = Job(tmp_path, *arguments, fail_point="mysql.begin:2")
        assert run.process.wait(SECONDS_MAX) == -signal.SIGKILL, run.said()
        mysql.execute(statement.format(mysql_database))
        run = Job(tmp_path, *arguments)
        assert run.process.wait(SECONDS_MAX) == 1, run.said()
        assert "CheckpointError" in run.said() and "the checkpoint knows that the rows of epoch" in run.said()


# -- secrets, and what is said ---------------------------------------------------------------------------------------------


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_password_is_nowhere(mysql: mariadb.Server, mysql_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{mysql.secret_url}/{mysql_database}"
    stream = mill.from_iter([{"n": n} for n in range(5000)])
    sink = stream.write_sql(url, "out")
    report = mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="20ms"))
    said = [repr(report), str(report), repr(sink), repr(stream), repr(mill.read_sql(url, "out", order_by="n"))]
    said.append(str(mill.read_sql(url, "out", order_by="n").explain()))
    for wrong in (url.replace(mariadb.SECRET, "wrong-word"), f"{mysql.secret_url}/none", url.replace(str(mysql.port), "1")):
        with pytest.raises(mill.ConnectorError) as info:
            mill.run(stream.write_sql(wrong, "out"))
        assert "wrong-word" not in str(info.value)
        said.append(str(info.value))
    assert not [text for text in said if mariadb.SECRET in text]
    assert not [path for path in files(tmp_path) if mariadb.SECRET.encode() in path.read_bytes()]
    monkeypatch.setenv("MYSQL_PWD", mariadb.SECRET)
    bare = url.replace(f":{mariadb.SECRET}", "")
    assert mill.read_sql(bare, "out", order_by="n").collect().to_arrow().num_rows == 5000
    monkeypatch.delenv("MYSQL_PWD")
    with pytest.raises(mill.ConnectorError, match="MYSQL_PWD"):
        mill.read_sql(bare, "out", order_by="n")


def test_certificates_and_sockets(mysql: mariadb.Server) -> None:
    query = "select variable_value as cipher, 1 as n from information_schema.session_status where variable_name = 'Ssl_cipher'"
    (by_socket,) = mill.read_sql(f"mysql://{mariadb.USER}@localhost/?socket={mysql.by_socket}", query, order_by="n").collect().to_pylist()
    assert by_socket["cipher"] == ""
    if not mysql.certificate.exists():
        pytest.skip("no openssl to make a certificate with")
    local = mysql.url.replace("127.0.0.1", "localhost")
    for url, is_secret in [
        (mysql.url, True),
        (f"{mysql.url}?ssl-mode=disabled", False),
        (f"{mysql.url}?ssl-mode=REQUIRED", True),
        (f"{mysql.url}?ssl-mode=verify-ca&ssl-ca={mysql.certificate}", True),
        (f"{local}?ssl-mode=verify-identity&ssl-ca={mysql.certificate}", True),
    ]:
        (row,) = mill.read_sql(url, query, order_by="n").collect().to_pylist()
        assert bool(row["cipher"]) == is_secret, url
    for url in (f"{local}?ssl-mode=verify-identity", f"{mysql.url}?ssl-mode=verify-ca"):
        with pytest.raises(mill.ConnectorError, match="certificate verify failed"):
            mill.read_sql(url, query, order_by="n")
