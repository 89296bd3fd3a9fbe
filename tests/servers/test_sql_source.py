"""`read_sql` against a real MariaDB."""

from __future__ import annotations

import random
import time
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import mariadb
import pyarrow as pa
import pytest
from test_sql_sink import KILLS, SEED, Job, wait_for_notes

import millstream as mill
from millstream import col


def rows_of(stream: mill.Stream) -> list[Any]:
    return [tuple(row.values()) for row in stream.collect(parallelism=1).to_pylist()]


def test_tables_and_queries(mysql: mariadb.Server, mysql_database: str) -> None:
    table = f"{mysql_database}.`T.1`"
    mysql.execute(
        f"create table {table} (b varchar(40), id int primary key, `a b` double, place point)",
        f"insert into {table} select md5(seq), seq, seq / 2.0e0, null from seq_1_to_20000",
    )
    expected = mysql.rows(f"select id, b, `a b` from {table} order by id")
    query = f"select id, b, `a b` from {table} -- all of it"
    assert rows_of(mill.read_sql(mysql.url, query, order_by="id")) == expected
    with pytest.raises(mill.SchemaError, match=r'column "place" of table .* is of type GEOMETRY'):
        mill.read_sql(mysql.url, table)
    mysql.execute(f"alter table {table} drop column place")
    stream = mill.read_sql(mysql.url, table)
    assert stream.schema.names == ["b", "id", "a b"]
    assert rows_of(stream.select("b")) == [(b,) for _, b, _ in expected]
    assert rows_of(stream.filter(col("id") > 19_990).select("id")) == [(n,) for n in range(19_991, 20_001)]
    backwards = mill.read_sql(mysql.url, table, order_by="b")
    assert rows_of(backwards.select("b")) == sorted((b,) for _, b, _ in expected)
    assert rows_of(mill.read_sql(mysql.url, f"select id from {table} where false", order_by="id")) == []
    assert rows_of(mill.read_sql(mysql.url.replace("mysql", "mariadb") + f"/{mysql_database}", "`T.1`").select("id").limit(3)) == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("query", "order_by", "kind", "message"),
    [
        ("select 1 as a, 2 as a", "a", mill.ConnectorError, "Duplicate column name 'a'"),
        ("select 1 as a", None, mill.PlanError, "has no primary key: say with order_by="),
        ("select 1 as a", "b", mill.SchemaError, 'order_by names "b", which is no column'),
        ("select 1 as a", ["a", "a"], mill.PlanError, 'names "a" twice'),
        ("select 1.5e0 as a", "a", mill.PlanError, "which is DOUBLE"),
        ("select nothing", "a", mill.ConnectorError, "Unknown column 'nothing'"),
        ("select 1 as a; drop table x", "a", mill.ConnectorError, "error in your SQL syntax"),
    ],
)
def test_what_is_wrong_is_told_when_it_is_declared(mysql: mariadb.Server, query: str, order_by: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        mill.read_sql(mysql.url, query, order_by=order_by)


TYPES: list[tuple[str, str, pa.DataType, Any]] = [
    ("tinyint", "-128", pa.int8(), -128),
    ("tinyint(1)", "2", pa.int8(), 2),
    ("tinyint unsigned", "255", pa.uint8(), 255),
    ("smallint unsigned zerofill", "7", pa.uint16(), 7),
    ("mediumint", "-8388608", pa.int32(), -8388608),
    ("mediumint unsigned", "16777215", pa.uint32(), 16777215),
    ("int unsigned", "4294967295", pa.uint32(), 4294967295),
    ("bigint unsigned", "18446744073709551615", pa.uint64(), 18446744073709551615),
    ("year", "1901", pa.int16(), 1901),
    ("bit(1)", "b'1'", pa.bool_(), True),
    ("bit(64)", "18446744073709551614", pa.uint64(), 18446744073709551614),
    ("float", "16777216", pa.float32(), 16777216.0),
    ("double", "0.1", pa.float64(), 0.1),
    ("decimal(65, 30)", "-12345678901234567890123456789012345.000000000000000000000000000001", pa.decimal256(65, 30),
     Decimal("-12345678901234567890123456789012345.000000000000000000000000000001")),
    ("decimal(10, 2) unsigned", "12345678.90", pa.decimal128(10, 2), Decimal("12345678.90")),
    ("decimal(5, 5)", "-0.00001", pa.decimal128(5, 5), Decimal("-0.00001")),
    ("char(5) charset latin1", "'é'", pa.string(), "é"),
    ("varchar(9) charset ucs2", "'é€'", pa.string(), "é€"),
    ("mediumtext charset utf8mb4", "'🦀'", pa.string(), "🦀"),
    ("enum('a', 'é')", "'é'", pa.string(), "é"),
    ("set('a', 'b', 'c')", "'c,a'", pa.string(), "a,c"),
    ("json", "'{\"a\": [1]}'", pa.string(), '{"a": [1]}'),
    ("uuid", "'00112233-4455-6677-8899-aabbccddeeff'", pa.string(), "00112233-4455-6677-8899-aabbccddeeff"),
    ("binary(3)", "'a'", pa.binary(), b"a\0\0"),
    ("varbinary(9)", "x'00ff'", pa.binary(), b"\0\xff"),
    ("longblob", "x'80'", pa.binary(), b"\x80"),
    ("varchar(9) collate utf8mb4_bin charset utf8mb4", "'x '", pa.string(), "x "),
    ("date", "'0001-01-01'", pa.date32(), date(1, 1, 1)),
    ("time(3)", "'-838:59:59.5'", pa.duration("us"), -timedelta(hours=838, minutes=59, seconds=59, milliseconds=500)),
    ("datetime", "'9999-12-31 23:59:59'", pa.timestamp("us"), datetime(9999, 12, 31, 23, 59, 59)),
    ("datetime(6)", "'2026-03-29 02:30:00.000001'", pa.timestamp("us"), datetime(2026, 3, 29, 2, 30, 0, 1)),
    ("timestamp(6) null", "'2026-03-29 02:30:00.000001'", pa.timestamp("us", "UTC"), datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=timezone.utc)),
]  # fmt: skip


def test_types_are_exact(mysql: mariadb.Server, mysql_database: str) -> None:
    columns = ", ".join(f"c{n} {declared.replace(' null', '')} null" for n, (declared, *_) in enumerate(TYPES))
    columns = columns.replace("collate utf8mb4_bin charset utf8mb4 null", "charset utf8mb4 collate utf8mb4_bin null")
    mysql.execute(
        f"create table {mysql_database}.t (id int primary key, {columns})",
        f"insert into {mysql_database}.t values (1, {', '.join(value for _, value, _, _ in TYPES)})",
        f"insert into {mysql_database}.t (id) values (2)",
    )
    back = mill.read_sql(mysql.url, f"{mysql_database}.t").collect().to_arrow()
    for n, (declared, _, kind, value) in enumerate(TYPES):
        assert back[f"c{n}"].type == kind, declared
        assert back[f"c{n}"].to_pylist() == [value, None], declared


def test_nulls_and_values_without_a_form(mysql: mariadb.Server, mysql_database: str, tmp_path: Path) -> None:
    nulls = mill.read_sql(f"{mysql.url}/{mysql_database}", "select seq, nullif(seq, 2) as n from seq_1_to_3", order_by="n")
    with pytest.raises(mill.DataError, match='column "n" of order_by has a null'):
        nulls.collect()
    with mysql.connect() as connection, connection.cursor() as cursor:
        cursor.execute("set sql_mode = 'ALLOW_INVALID_DATES'")
        cursor.execute(f"create table {mysql_database}.t (n int primary key, d date, at datetime(6), ts timestamp null)")
        cursor.execute(f"insert into {mysql_database}.t values (1, '2026-01-01', now(), now()), (2, '0000-00-00', '2026-00-00', 0), (3, '2026-02-31', 0, null)")
    for column, why in [("d", "zero date 0000-00-00.*NULLIF"), ("at", "2026-00-00, a date without a month"), ("ts", "zero date")]:
        stream = mill.read_sql(mysql.url, f"select n, {column} from {mysql_database}.t", order_by="n")
        with pytest.raises(mill.DataError, match=f'column "{column}": the value is .*{why}'):
            mill.run(stream.write_json(tmp_path / "a"), checkpoint=None)
    stream = mill.read_sql(mysql.url, f"{mysql_database}.t")
    report = mill.run(stream.write_csv(tmp_path / "b"), on_error="skip")
    assert (report.status, report.rows_skipped) == ("finished", 2)
    zero = mill.read_sql(mysql.url, f"select n, nullif(d, 0) as d from {mysql_database}.t where n < 3", order_by="n")
    assert [row[1] for row in rows_of(zero)] == [date(2026, 1, 1), None]


def test_rows_of_one_key_stay_together(mysql: mariadb.Server, mysql_database: str, tmp_path: Path) -> None:
    """A position is after all rows of its key: groups of any size, texts that a collation takes for the same, checkpoints all the time."""
    table = f"{mysql_database}.t"
    mysql.execute(
        f"create table {table} (k varchar(20) charset utf8mb4 collate utf8mb4_general_ci, e enum('z', 'y', 'x'), day date, at timestamp(6) null, "
        "span time(6), d decimal(9, 3), n bigint unsigned)",
        f"insert into {table} select concat(elt(1 + seq % 4, 'a', 'A', 'a ', 'ä'), seq div 7000), 1 + seq % 3, date '2026-01-01' + interval seq % 7000 day, "
        "from_unixtime(1 + seq / 7), sec_to_time(cast(seq % 900 as signed) - 450), seq % 777 - 300.5, 18446744073709500000 + seq from seq_1_to_30000",
    )
    for number, order_by in enumerate([["k"], ["day", "k"], ["at"], ["e", "n"], ["span", "d"], ["n"], ["d"]]):
        stream = mill.read_sql(mysql.url, table, order_by=order_by)
        out = f"{mysql_database}.o{number}"
        mill.run(stream.write_sql(mysql.url, out), checkpoint=mill.Checkpoint(tmp_path / str(number), every="5ms"))
        assert mysql.rows(f"select count(*), count(distinct n) from {out}") == [(30_000, 30_000)], order_by


@pytest.mark.parametrize("order_by", ["a, b, c", "k"])
def test_reading_killed_at_random(mysql: mariadb.Server, mysql_database: str, tmp_path: Path, order_by: str) -> None:
    dice = random.Random(SEED)
    table = f"{mysql_database}.t"
    mysql.execute(
        f"create table {table} (a varchar(30) charset utf8mb4, b datetime(3), c decimal(10, 2), k varchar(30) charset latin1 collate latin1_swedish_ci not null, "
        f"n bigint, primary key ({order_by}))",
        f"insert into {table} select concat('it''s \\\\ é', seq % 11), timestamp '1969-12-31 00:00:00' + interval seq * 700000 microsecond, seq % 13 - 6.5, "
        "concat('é ', seq), seq from seq_1_to_200000",
    )
    kills = 0
    for _ in range(10 * KILLS + 10):
        parallelism = dice.choice([1, 2, 3])
        arguments = ("table", mysql.url, table, f"{mysql_database}.out", tmp_path / "state", "--every", "20ms", "--parallelism", parallelism)
        run = Job(tmp_path, *arguments)
        if kills == KILLS or run.ends_within(dice.uniform(0.5, 1.5)):
            run.finish()
            break
        run.kill()
        kills += 1
    out = f"{mysql_database}.out"
    assert mysql.rows(f"select count(*), count(distinct n), sum(n) from {out}") == [(200_000, 200_000, 200_000 * 200_001 // 2)]
    same = f"select count(*) from {table} as t join {out} as o using (n) where t.a = o.a and t.b = o.b and t.c = o.c and t.k = o.k"
    mysql.execute(f"alter table {out} add index (n)")
    assert mysql.rows(same) == [(200_000,)]


def test_the_server_is_killed_while_it_is_read(mysql: mariadb.Server, mysql_database: str, tmp_path: Path) -> None:
    table, out = f"{mysql_database}.t", f"{mysql_database}.out"
    mysql.execute(
        f"create table {table} (n bigint primary key, x text)",
        f"insert into {table} select seq, repeat('x', 100) from seq_1_to_300000",
    )
    run = Job(tmp_path, "table", mysql.url, table, out, tmp_path / "state")
    wait_for_notes(mysql, mysql_database, run)
    mysql.kill()
    mysql.start()
    run.finish()
    assert mysql.rows(f"select count(*), count(distinct n), sum(n) from {out}") == [(300_000, 300_000, 300_000 * 300_001 // 2)]


def test_who_stops_does_not_wait_for_the_rest(mysql: mariadb.Server, mysql_database: str) -> None:
    """A job that ends early ends its query at the server; rows that nobody wants are not read."""
    endless = "select a.seq * 1000000 + b.seq as n, repeat('x', 100) as x from seq_1_to_1000000 as a, seq_1_to_1000000 as b"
    begin = time.monotonic()
    assert len(mill.read_sql(f"{mysql.url}/{mysql_database}", f"{endless} limit 500000", order_by="n").limit(5).collect().to_pylist()) == 5
    assert time.monotonic() - begin < 60
    end = time.monotonic() + 20
    while mysql.rows("select id from information_schema.processlist where info like '%seq_1_to_1000000%' and id <> connection_id()"):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_table_that_was_altered(mysql: mariadb.Server, mysql_database: str) -> None:
    mysql.execute(f"create table {mysql_database}.t (n int primary key, x int)", f"insert into {mysql_database}.t values (1, 2)")
    stream = mill.read_sql(mysql.url, f"{mysql_database}.t")
    mysql.execute(f"alter table {mysql_database}.t modify x varchar(9)")
    with pytest.raises(mill.SchemaError, match='column "x" is text now, and was INT when the source was declared'):
        stream.collect()


def test_postgres_by_its_url(database: Any, schema: str) -> None:
    url = database.url
    mill.run(mill.from_iter([{"id": 2}, {"id": 1}]).write_sql(url, f"{schema}.t", key="id"))
    assert rows_of(mill.read_sql(url, f"{schema}.t")) == [(1,), (2,)]
