"""`read_postgres` and `lookup_postgres` against a real server."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import postgres
import psycopg
import pyarrow as pa
import pytest
from test_postgres_sink import KILLS, SECONDS_MAX, SEED, Job

import millstream as mill
from millstream import col

# -- reading ---------------------------------------------------------------------------------------------------------------


def rows_of(stream: mill.Stream) -> list[Any]:
    return [tuple(row.values()) for row in stream.collect(parallelism=1).to_pylist()]


def test_tables_and_queries(database: postgres.Server, schema: str) -> None:
    database.execute(f'create table {schema}."T.1" (b text, id int primary key, "a b" float8, unused point)')
    database.execute(f'insert into {schema}."T.1" select md5(n::text), n, n / 2.0 from generate_series(1, 20000) as n')
    expected = database.rows(f'select id, b, "a b" from {schema}."T.1" order by id')
    query = f'select id, b, "a b" from {schema}."T.1" -- all of it'
    assert rows_of(mill.read_postgres(database.url, query, order_by="id")) == expected
    with pytest.raises(mill.SchemaError, match=r'column "unused" of table .* is of type point'):
        mill.read_postgres(database.url, f'{schema}."T.1"')
    database.execute(f'alter table {schema}."T.1" drop column unused')
    table = mill.read_postgres(database.url, f'{schema}."T.1"')
    assert table.schema.names == ["b", "id", "a b"]
    assert rows_of(table.select("b")) == [(b,) for _, b, _ in expected]
    assert rows_of(table.filter(col("id") > 19_990).select("id")) == [(n,) for n in range(19_991, 20_001)]
    backwards = mill.read_postgres(database.url, f'{schema}."T.1"', order_by="b")
    assert rows_of(backwards.select("b")) == database.rows(f'select b from {schema}."T.1" order by b')
    assert rows_of(mill.read_postgres(database.url, "values (2), (1)", order_by="column1")) == [(1,), (2,)]
    assert rows_of(mill.read_postgres(database.url, f"select id from {schema}.\"T.1\" where false", order_by="id")) == []


@pytest.mark.parametrize(
    ("query", "order_by", "kind", "message"),
    [
        ("select 1 as a, 2 as a", "a", mill.SchemaError, "has two columns"),
        ("select 1 as a", None, mill.PlanError, "has no primary key: say with order_by="),
        ("select 1 as a", "b", mill.SchemaError, 'order_by names "b", which is no column'),
        ("select 1 as a", ["a", "a"], mill.PlanError, 'names "a" twice'),
        ("select 1.5::float8 as a", "a", mill.PlanError, "which is double precision"),
        ("select 1.5::numeric as a, 1 as b", "b", mill.SchemaError, r"any number of digits; .*numeric\(18, 4\)"),
        ("select nothing", "a", mill.ConnectorError, r'column "nothing" does not exist'),
        ("select 1 as a; drop table x", "a", mill.ConnectorError, "syntax error"),
    ],
)
def test_what_is_wrong_is_told_when_it_is_declared(
    database: postgres.Server, query: str, order_by: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        mill.read_postgres(database.url, query, order_by=order_by)


def test_nulls_and_values_without_a_form(database: postgres.Server, tmp_path: Path) -> None:
    nulls = mill.read_postgres(database.url, "values (1), (null), (3)", order_by="column1")
    with pytest.raises(mill.DataError, match='column "column1" of order_by has a null'):
        nulls.collect()
    for value, why in [
        ("'infinity'::timestamptz", "infinity"),
        ("'-infinity'::date", "infinity"),
        ("'1 month'::interval", "days or months"),
        ("'NaN'::numeric(5, 2)", "NaN"),
        ("'24:00'::time", "24:00:00"),
        ("array[[1, 2], [3, 4]]", "2 dimensions"),
        ("'[0:1]={1,2}'::int[]", "does not begin at 1"),
    ]:
        query = f"select n, x.x from generate_series(1, 3) as n left join (select {value} as x) as x on n = 2"
        stream = mill.read_postgres(database.url, query, order_by="n")
        with pytest.raises(mill.DataError, match=f'column "x": .*{why}'):
            mill.run(stream.write_json(tmp_path / "a"), checkpoint=None)
        report = mill.run(stream.select("n").write_csv(tmp_path / f"{abs(hash(value))}"), on_error="skip")
        assert report.status == "finished"


def test_rows_of_one_key_stay_together(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    """A position is after all rows of its key: groups of any size, and checkpoints all the time."""
    database.execute(f"create table {schema}.t (k text collate \"C\", day date, at timestamptz, n bigint)")
    database.execute(
        f"insert into {schema}.t select 'k' || (n / 3000), date '2026-01-01' + (n % 7000), timestamptz '1999-12-31' + n * interval '1s', n "
        "from generate_series(1, 30000) as n"
    )
    for order_by in (["k"], ["day", "k"], ["at"]):
        stream = mill.read_postgres(database.url, f"{schema}.t", order_by=order_by)
        out = f"{schema}.o{len(order_by)}{order_by[0]}"
        every = mill.Checkpoint(tmp_path / out, every="5ms")
        mill.run(stream.write_postgres(database.url, out), checkpoint=every)
        assert database.rows(f"select count(*), count(distinct n) from {out}") == [(30_000, 30_000)]


def test_reading_killed_at_random(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    database.execute(
        f"create table {schema}.t (a text, b timestamp, c numeric(10, 2), n bigint, primary key (a, b, c)); "
        f"insert into {schema}.t select 'it''s \\' || (n % 11), timestamp '1969-12-31' + n * interval '0.7s', (n % 13) - 6.5, n "
        "from generate_series(1, 200000) as n"
    )
    kills = 0
    for _ in range(10 * KILLS + 10):
        run = Job(tmp_path, "table", database.url, f"{schema}.t", f"{schema}.out", tmp_path / "state", "--every", "20ms")
        if kills == KILLS or run.ends_within(dice.uniform(0.5, 1.5)):
            run.finish()
            break
        run.kill()
        kills += 1
    both = f"select count(*) from (select * from {schema}.t except all select * from {schema}.out) x"
    assert database.rows(both) == [(0,)]
    assert database.rows(f"select count(*) from {schema}.out") == [(200_000,)]


def test_the_server_is_killed_while_it_is_read(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    database.execute(f"create table {schema}.t (n bigint primary key, x text)")
    database.execute(f"insert into {schema}.t select n, repeat('x', 100) from generate_series(1, 300000) as n")
    run = Job(tmp_path, "table", database.url, f"{schema}.t", f"{schema}.out", tmp_path / "state")
    end = time.monotonic() + SECONDS_MAX
    while not database.rows(f"select to_regclass('{schema}.out') is not null")[0][0]:
        assert run.process.poll() is None, run.said()
        assert time.monotonic() < end
        time.sleep(0.02)
    database.kill()
    database.start()
    run.finish()
    assert database.rows(f"select count(*), count(distinct n), sum(n) from {schema}.out") == [(300_000, 300_000, 300_000 * 300_001 // 2)]


# -- following a table that grows -------------------------------------------------------------------------------------------


class Following:
    """A job that follows a table into another."""

    def __init__(self, database: postgres.Server, schema: str, state: Path) -> None:
        self.database, self.schema = database, schema
        stream = mill.read_postgres(database.url, f"{schema}.t", follow=True)
        self.job = mill.start(stream.write_postgres(database.url, f"{schema}.out"), checkpoint=mill.Checkpoint(state, every="20ms"))

    def wait_for(self, *ids: int) -> None:
        """Wait until exactly these rows were written."""
        end = time.monotonic() + 30
        while self.ids() != list(ids):
            assert self.job.status.state in ("starting", "running"), self.job.status
            assert time.monotonic() < end, (self.ids(), ids)
            time.sleep(0.02)

    def ids(self) -> list[int]:
        if self.database.rows(f"select to_regclass('{self.schema}.out')")[0][0] is None:
            return []
        return [n for (n,) in self.database.rows(f"select id from {self.schema}.out order by id")]

    def stop(self) -> None:
        self.job.stop()
        self.job.wait("30s")


PARTITIONED = "(id bigint generated always as identity primary key, x int) partition by range (id)"


@pytest.mark.parametrize("table", ["(id int generated by default as identity primary key, x int)", "(id smallserial primary key, x int)", PARTITIONED])
def test_a_row_that_is_committed_late_is_not_missed(database: postgres.Server, schema: str, tmp_path: Path, table: str) -> None:
    database.execute(f"create table {schema}.t {table}")
    if table == PARTITIONED:
        database.execute(f"create table {schema}.low partition of {schema}.t for values from (0) to (3)")
        database.execute(f"create table {schema}.high partition of {schema}.t for values from (3) to (1000)")
    database.execute(f"insert into {schema}.t (x) values (1)")
    following = Following(database, schema, tmp_path / "state")
    following.wait_for(1)
    with psycopg.connect(database.url) as slow, psycopg.connect(database.url) as gone:
        slow.execute(f"insert into {schema}.t (x) values (2)")
        gone.execute(f"insert into {schema}.t (x) values (3)")
        database.execute(f"insert into {schema}.t (x) values (4), (5)")
        time.sleep(0.5)
        assert following.ids() == [1]
        gone.rollback()
        time.sleep(0.3)
        assert following.ids() == [1]
        # One that begins later does not hold up what was there before.
        gone.execute(f"insert into {schema}.t (x) values (6)")
        slow.commit()
        following.wait_for(1, 2, 4, 5)
        gone.commit()
        following.wait_for(1, 2, 4, 5, 6)
    following.stop()


def test_a_prepared_transaction_is_waited_for(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    database.execute(f"create table {schema}.t (id serial primary key)")
    following = Following(database, schema, tmp_path / "state")
    with database.connect() as first:
        first.execute("begin")
        first.execute(f"insert into {schema}.t default values")
        database.execute(f"insert into {schema}.t default values")
        time.sleep(0.3)
        # It is waited for already, and goes on under another name.
        first.execute("prepare transaction 'one'")
    time.sleep(0.5)
    assert following.ids() == []
    database.execute("commit prepared 'one'")
    following.wait_for(1, 2)
    following.stop()


def test_a_table_that_grows_while_everything_is_killed(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    database.execute(f"create table {schema}.t (id bigint generated always as identity primary key, x int)")
    over = threading.Event()
    committed: list[int] = []

    def write(seed: int) -> None:
        dice = random.Random(seed)
        while not over.is_set():
            try:
                with psycopg.connect(database.url) as connection:
                    while not over.is_set():
                        insert = f"insert into {schema}.t (x) select 1 from generate_series(1, %s) returning id"
                        ids = [n for (n,) in connection.execute(insert, [dice.randint(1, 5)]).fetchall()]
                        time.sleep(dice.choice([0.001, 0.001, 0.01, 0.1]))
                        if dice.random() < 0.2:
                            connection.rollback()
                            continue
                        connection.commit()
                        committed.extend(ids)
            except psycopg.OperationalError:
                time.sleep(0.05)

    writers = [threading.Thread(target=write, args=[seed]) for seed in range(4)]
    for writer in writers:
        writer.start()
    try:
        for at in range(KILLS + 1):
            run = Job(tmp_path, "growing", database.url, f"{schema}.t", f"{schema}.out", tmp_path / "state", "--every", "20ms")
            assert not run.ends_within(dice.uniform(0.5, 1.5)), run.said()
            if at == KILLS:
                database.kill()
                database.start()
                assert not run.ends_within(1.0), run.said()
            run.kill()
    finally:
        over.set()
        for writer in writers:
            writer.join()
    following = Following(database, schema, tmp_path / "state")
    everything = [n for (n,) in database.rows(f"select id from {schema}.t order by id")]
    assert set(committed) <= set(everything)
    following.wait_for(*everything)
    following.stop()


def test_a_row_that_did_not_come_from_the_sequence_is_an_error(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    database.execute(f"create table {schema}.t (id serial primary key)")
    database.execute(f"insert into {schema}.t select from generate_series(1, 10)")
    following = Following(database, schema, tmp_path / "state")
    following.wait_for(*range(1, 11))
    database.execute(f"insert into {schema}.t values (1000)")
    with pytest.raises(mill.DataError, match=r'"id" 1000, but its sequence .*t_id_seq has only reached 10.*setval'):
        following.job.wait("30s")


@pytest.mark.parametrize(
    "spoil",
    [
        "begin; truncate {0}.t restart identity; insert into {0}.t (x) select 2 from generate_series(1, 25); commit",
        "alter sequence {0}.t_id_seq restart; insert into {0}.t (x) select 2 from generate_series(11, 25) on conflict do nothing",
        "begin; drop table {0}.t; create table {0}.t (id serial primary key, x int); insert into {0}.t (x) select 2 from generate_series(1, 25); commit",
    ],
)
@pytest.mark.parametrize("is_down", [False, True])
def test_a_table_that_was_replaced_is_an_error(database: postgres.Server, schema: str, tmp_path: Path, spoil: str, is_down: bool) -> None:
    database.execute(f"create table {schema}.t (id serial primary key, x int); insert into {schema}.t (x) select 1 from generate_series(1, 10)")
    following = Following(database, schema, tmp_path / "state")
    following.wait_for(*range(1, 11))
    if is_down:
        following.stop()
    database.execute(spoil.format(schema).replace("on conflict do nothing", "on conflict (id) do nothing"))
    with pytest.raises(mill.MillstreamError, match="was replaced by another one, or its sequence was restarted"):
        if is_down:
            following = Following(database, schema, tmp_path / "state")
        following.job.wait("30s")
    assert following.ids() == list(range(1, 11))


def test_parts_that_are_made_in_an_open_transaction(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    database.execute(f"create table {schema}.t (id serial primary key, x int); insert into {schema}.t (x) values (1)")
    following = Following(database, schema, tmp_path / "state")
    following.wait_for(1)
    with psycopg.connect(database.url) as slow:
        slow.execute(f"create table {schema}.child () inherits ({schema}.t)")
        slow.execute(f"insert into {schema}.child (x) values (2)")
        database.execute(f"insert into {schema}.t (x) values (3)")
        time.sleep(0.5)
        assert following.ids() == [1]
        slow.commit()
    following.wait_for(1, 2, 3)
    # One whose numbers come from elsewhere cannot be followed.
    database.execute(f"create table {schema}.other (id serial) inherits ({schema}.t); insert into {schema}.t (x) values (4)")
    with pytest.raises(mill.PlanError, match=r'column "id" of .*other, which is a part of .* is filled by another sequence'):
        following.job.wait("30s")


def test_a_sequence_that_gets_a_cache_meanwhile_is_an_error(database: postgres.Server, schema: str, tmp_path: Path) -> None:
    database.execute(f"create table {schema}.t (id serial primary key); insert into {schema}.t select from generate_series(1, 3)")
    following = Following(database, schema, tmp_path / "state")
    following.wait_for(1, 2, 3)
    database.execute(f"alter sequence {schema}.t_id_seq cache 50; insert into {schema}.t default values")
    with pytest.raises(mill.PlanError, match="has CACHE 50"):
        following.job.wait("30s")


@pytest.mark.parametrize(
    ("table", "order_by", "message"),
    [
        ("(id int primary key)", None, 'no sequence fills column "id"'),
        ("(id int generated always as identity, x int)", "x", 'no sequence fills column "x"'),
        ("(id int generated always as identity, x int, primary key (id, x))", None, 'order_by is "id", "x" here'),
        ("(id uuid primary key default gen_random_uuid())", None, 'order_by is "id" here, which is not one column of whole numbers'),
        ("(id int generated always as identity (cache 20) primary key)", None, "has CACHE 20.*ALTER SEQUENCE .* CACHE 1"),
        ("(id int generated always as identity (increment -1) primary key)", None, "counts down"),
        ("(id int generated always as identity (cycle) primary key)", None, "cycles"),
        ("(id serial)", "id", "needs a B-tree index"),
        ("(id int primary key default 2 * nextval('{schema}.s'))", None, 'no sequence fills column "id"'),
    ],
)
def test_what_cannot_be_followed_is_told_when_it_is_declared(database: postgres.Server, schema: str, table: str, order_by: Any, message: str) -> None:
    database.execute(f"create sequence {schema}.s; create table {schema}.t {table.replace('{schema}', schema)}")
    with pytest.raises(mill.PlanError, match=f"follow=True reads a table in the order of .*{message}.*read_postgres_changes"):
        mill.read_postgres(database.url, f"{schema}.t", order_by=order_by, follow=True)


def test_other_relations_cannot_be_followed(database: postgres.Server, schema: str) -> None:
    database.execute(f"create table {schema}.t (id int primary key default nextval('{schema}.s'))".replace("create", f"create sequence {schema}.s; create", 1))
    assert mill.read_postgres(database.url, f"{schema}.t", follow=True).schema.names == ["id"]
    database.execute(f"create view {schema}.v as select id from {schema}.t")
    with pytest.raises(mill.PlanError, match="is a view"):
        mill.read_postgres(database.url, f"{schema}.v", order_by="id", follow=True)
    database.execute(f"create unlogged table {schema}.u (id serial primary key); create table {schema}.h (id serial); create index on {schema}.h using hash (id)")
    with pytest.raises(mill.PlanError, match="is UNLOGGED or temporary"):
        mill.read_postgres(database.url, f"{schema}.u", follow=True)
    with pytest.raises(mill.PlanError, match="needs a B-tree index"):
        mill.read_postgres(database.url, f"{schema}.h", order_by="id", follow=True)
    with pytest.raises(mill.PlanError, match="this is a query"):
        mill.read_postgres(database.url, f"select * from {schema}.t", order_by="id", follow=True)


# -- looking up ------------------------------------------------------------------------------------------------------------


def test_looking_up(database: postgres.Server, schema: str) -> None:
    database.execute(f"create table {schema}.users (id int primary key, name text, born date, tags text[], spent numeric(8, 2))")
    database.execute(f"insert into {schema}.users select n, 'u' || n, date '2000-01-01' + n, array['a', null], n / 4.0 from generate_series(1, 5000) as n")
    users = mill.lookup_postgres(database.url, f"{schema}.users", key="id", schema={"name": str, "spent": pa.decimal128(10, 2)})
    clicks = mill.from_iter([{"user": n % 6000 if n % 7 else 2**40} for n in range(10_000)])
    found = clicks.enrich(users, on="user", how="left").collect().to_pylist()
    assert len(found) == 10_000
    for row in found:
        is_there = 1 <= row["user"] <= 5000
        assert row["name"] == (f"u{row['user']}" if is_there else None)
        assert row["spent"] is None or float(row["spent"]) == row["user"] / 4
    everything = mill.lookup_postgres(database.url, f"{schema}.users", key="id")
    (row,) = mill.from_iter([{"id": 3}]).enrich(everything, on="id").collect().to_pylist()
    assert (row["name"], row["tags"], str(row["born"])) == ("u3", ["a", None], "2000-01-04")


def test_looking_up_by_several_columns_and_what_is_wrong(database: postgres.Server, schema: str) -> None:
    database.execute(f"create table {schema}.t (a text, b uuid, n int, d date); create view {schema}.v as select a, n from {schema}.t")
    mark = "00112233-4455-6677-8899-aabbccddeeff"
    database.execute(f"insert into {schema}.t values ('x', '{mark}', 1, 'infinity'), ('y', '{mark}', 2, null), ('y', '{mark}', 3, null)")
    table = f"{schema}.t"
    by = mill.lookup_postgres(database.url, table, key=["a", "b"], schema={"n": int})
    rows = [{"a": "x", "b": mark}, {"a": "x", "b": "no uuid"}, {"a": "nul\0", "b": mark}, {"a": None, "b": mark}]
    assert [row["n"] for row in mill.from_iter(rows).enrich(by, on=["a", "b"], how="left").collect(parallelism=1).to_pylist()] == [1, None, None, None]
    twice = mill.from_iter([{"a": "y", "b": mark}])
    with pytest.raises(mill.DataError, match=f"table '{table}' has several rows with a = 'y', b = '{mark}'"):
        twice.enrich(by, on=["a", "b"]).collect()
    endless = mill.lookup_postgres(database.url, table, key=["a", "b"], schema={"d": "date"})
    with pytest.raises(mill.DataError, match=r'column "d" of table .* infinity'):
        mill.from_iter(rows[:1]).enrich(endless, on=["a", "b"]).collect()
    with pytest.raises(mill.PlanError, match=r'column "k" is str, and "n" of table .* is bigint; cast "k"'):
        mill.from_iter([{"k": "1"}]).enrich(mill.lookup_postgres(database.url, table, key="n"), on="k")
    with pytest.raises(mill.PlanError, match="names 1 column, and the key of table .* has 2: a, b"):
        mill.from_iter([{"k": "1"}]).enrich(by, on="k")
    with pytest.raises(mill.SchemaError, match='has no column "nn"; did you mean "n"'):
        mill.lookup_postgres(database.url, table, key="nn")
    with pytest.raises(mill.SchemaError, match='schema= says int16, which may not fit every value'):
        mill.lookup_postgres(database.url, table, key="a", schema={"n": "int16"})
    with pytest.raises(mill.ConnectorError, match="does not exist"):
        mill.lookup_postgres(database.url, f"{schema}.none", key="a")


def test_looking_up_while_the_server_is_killed(database: postgres.Server, schema: str) -> None:
    database.execute(f"create table {schema}.t (id int primary key, name text); insert into {schema}.t select n, 'u' || n from generate_series(0, 99) as n")
    users = mill.lookup_postgres(database.url, f"{schema}.t", key="id", cache=0, timeout="1m")
    database.kill()
    database.start()
    found = mill.from_iter([{"id": n % 100} for n in range(1000)]).enrich(users, on="id").collect().to_pylist()
    assert all(row["name"] == f"u{row['id']}" for row in found)
    assert len(found) == 1000
