"""Look-ups in a table of an SQLite database: what is found, what is refused, and a database that is locked."""

from __future__ import annotations

import contextlib
import gc
import random
import sqlite3
import sys
import threading
import time
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill


@pytest.fixture
def crm(tmp_path: Path) -> Path:
    path = tmp_path / "crm.db"
    with sqlite3.connect(path) as database:
        database.execute("create table users (id integer primary key, name text, score real, photo blob)")
        database.executemany("insert into users values (?, ?, ?, ?)", [(1, "ann", 1.5, b"x"), (2, "bob", None, None), (-(2**63), "least", 0, b"")])
        database.execute("create table pages (site text collate nocase, path text, title text, primary key (site, path))")
        database.executemany("insert into pages values (?, ?, ?)", [("a", "/", "A"), ("a", "/x", "AX"), ("b", "/", "B")])
    database.close()
    return path


def clicks(*users: int | None) -> mill.Stream:
    return mill.from_iter([{"user": user} for user in users], schema={"user": int})


def found(stream: mill.Stream, lookup: Any, **options: Any) -> list[dict[str, Any]]:
    return stream.enrich(lookup, **({"on": "user", "how": "left"} | options)).collect(parallelism=1).to_pylist()


def test_rows_are_found_by_key_and_typed_as_the_table_declares_them(crm: Path) -> None:
    users = mill.lookup_sqlite(crm, "users", key="id")
    assert found(clicks(1, 3, None, 2, -(2**63), 1), users) == [
        {"user": 1, "name": "ann", "score": 1.5, "photo": b"x"},
        {"user": 3, "name": None, "score": None, "photo": None},
        {"user": None, "name": None, "score": None, "photo": None},
        {"user": 2, "name": "bob", "score": None, "photo": None},
        {"user": -(2**63), "name": "least", "score": 0.0, "photo": b""},
        {"user": 1, "name": "ann", "score": 1.5, "photo": b"x"},
    ]
    assert [row["user"] for row in found(clicks(1, 3, 2), users, how="inner")] == [1, 2]


def test_several_key_columns_are_compared_byte_by_byte(crm: Path) -> None:
    pages = mill.lookup_sqlite(crm, "pages", key=["site", "path"])
    rows = [{"s": "a", "p": "/x"}, {"s": "b", "p": "/"}, {"s": "A", "p": "/"}, {"s": "b", "p": None}]
    stream = mill.from_iter(rows, schema={"s": str, "p": str})
    assert [row["title"] for row in found(stream, pages, on=["s", "p"])] == ["AX", "B", None, None]


def test_what_write_sqlite_has_written_is_read_back(tmp_path: Path) -> None:
    moments = {"d": date, "t": mill.Timestamp("us"), "z": mill.Timestamp("us", "UTC"), "c": clock}
    kinds = {**moments, "m": mill.types.Decimal(12, 2), "b": bool, "f": float, "i": int}
    row = {
        "k": 1,
        "d": date(2024, 2, 29),
        "t": datetime(2024, 1, 1, 1, 2, 3, 456789),
        "z": datetime(2024, 1, 1, tzinfo=UTC),
        "c": clock(1, 2, 3, 4),
        "m": Decimal("12.50"),
        "b": True,
        "f": 0.1,
        "i": 2**62,
    }
    nothing = dict.fromkeys(row) | {"k": 2}
    schema = {"k": int, **kinds}
    mill.run(mill.from_iter([row, nothing], schema=schema).write_sqlite(tmp_path / "out.db", "rows"))
    lookup = mill.lookup_sqlite(tmp_path / "out.db", "rows", key="k", schema=kinds)
    keys = mill.from_iter([{"k": 1}, {"k": 2}])
    assert found(keys, lookup, on="k") == [row, nothing]


def test_many_keys_are_asked_for_at_once(tmp_path: Path) -> None:
    path, dice = tmp_path / "big.db", random.Random(1)
    stored = {dice.randrange(10**6): n for n in range(50_000)}
    with sqlite3.connect(path) as database:
        database.execute("create table t (k integer primary key, v integer)")
        database.executemany("insert into t values (?, ?)", stored.items())
    database.close()
    keys = [dice.choice(list(stored)) if n % 2 else n for n in range(2_000)] + list(range(60_000))
    lookup = mill.lookup_sqlite(path, "t", key="k", cache=100)
    stream = mill.from_iter([{"k": key} for key in keys], schema={"k": int})
    rows = stream.enrich(lookup, on="k", how="left").collect(parallelism=2).to_pylist()
    assert sorted(rows, key=str) == sorted(({"k": key, "v": stored.get(key)} for key in keys), key=str)


def test_a_locked_database_is_asked_again(crm: Path) -> None:
    users = mill.lookup_sqlite(crm, "users", key="id", timeout="30s")
    database = sqlite3.connect(crm, check_same_thread=False, isolation_level=None)
    database.execute("begin exclusive")
    database.execute("update users set name = 'later' where id = 1")

    def end() -> None:
        time.sleep(0.2)
        database.execute("commit")

    thread = threading.Thread(target=end)
    thread.start()
    assert found(clicks(1), users)[0]["name"] == "later"
    thread.join()
    impatient = mill.lookup_sqlite(crm, "users", key="id", timeout="20ms")
    database.execute("begin exclusive")
    with pytest.raises(mill.ConnectorError, match=r"table 'users' of .*crm.db cannot be read: database is locked"):
        found(clicks(1), impatient)
    database.execute("rollback")
    database.close()


def test_a_look_up_in_a_cycle_closes_its_connection(crm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The garbage collector finalizes the objects of a cycle in any order: the connection warned before what closes it could do so.
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: unraisable.append(event.exc_value))
    gc.disable()
    try:
        for _ in range(10):
            cycle: list[object] = [mill.lookup_sqlite(crm, "users", key="id")]
            cycle.append(cycle)
        del cycle
        gc.collect()
    finally:
        gc.enable()
    assert not unraisable


def test_the_cache_forgets_after_its_ttl(crm: Path) -> None:
    users = mill.lookup_sqlite(crm, "users", key="id", ttl=None)
    assert found(clicks(1), users)[0]["name"] == "ann"
    with sqlite3.connect(crm) as database:
        database.execute("update users set name = 'anna' where id = 1")
    database.close()
    assert found(clicks(1), users)[0]["name"] == "anna", "each job has a cache of its own"


# -- mistakes --------------------------------------------------------------------------------------------------------------


def test_mistakes_are_found_at_the_line_that_makes_them(crm: Path, tmp_path: Path) -> None:
    with pytest.raises(mill.ConnectorError, match="there is no database"):
        mill.lookup_sqlite(tmp_path / "none.db", "users", key="id")
    with pytest.raises(mill.ConnectorError, match="has no table 'user'; it has pages, users"):
        mill.lookup_sqlite(crm, "user", key="id")
    with pytest.raises(mill.SchemaError, match="table 'users' has no column 'uid'; it has id, name, score, photo"):
        mill.lookup_sqlite(crm, "users", key="uid")
    with pytest.raises(mill.SchemaError, match="no column 'mail'"):
        mill.lookup_sqlite(crm, "users", key="id", schema={"mail": str})
    with pytest.raises(mill.SchemaError, match=r"column 'name' of table 'users' cannot be read as list\[str\]"):
        mill.lookup_sqlite(crm, "users", key="id", schema={"name": list[str]})
    with pytest.raises(mill.PlanError, match="key= is a column"):
        mill.lookup_sqlite(crm, "users", key=[])
    with pytest.raises(mill.PlanError, match="ttl"):
        mill.lookup_sqlite(crm, "users", key="id", ttl="0s")
    (tmp_path / "text.db").write_text("no database, but long enough to be read as the head of one")
    with pytest.raises(mill.ConnectorError, match="cannot be read"):
        mill.lookup_sqlite(tmp_path / "text.db", "users", key="id")
    users = mill.lookup_sqlite(crm, "users", key="id")
    with pytest.raises(mill.PlanError, match="column 'user' is str, and 'id' of table 'users' is INTEGER; cast 'user'"):
        mill.from_iter([{"user": "1"}]).enrich(users, on="user")
    with pytest.raises(mill.PlanError, match="'user' is float64, and keys in SQLite are whole numbers, text or bytes"):
        mill.from_iter([{"user": 1.0}]).enrich(users, on="user")
    with pytest.raises(mill.PlanError, match="on= names 2 columns, and the key of table 'users' has 1: id"):
        mill.from_iter([{"user": 1, "x": 2}]).enrich(users, on=["user", "x"])
    with sqlite3.connect(crm) as database:
        database.execute("create table loose (k, v, at datetime)")
    database.close()
    with pytest.raises(mill.SchemaError, match="column 'v' of table 'loose' is declared as nothing"):
        mill.lookup_sqlite(crm, "loose", key="k")
    with pytest.raises(mill.SchemaError, match="column 'at' of table 'loose' is declared as DATETIME"):
        mill.lookup_sqlite(crm, "loose", key=["k", "v"])


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("x", int, "'x'"),
        (1.5, int, "1.5"),
        (2, bool, "2"),
        (1, str, "1"),
        (1, float, "1"),
        ("2024-13-01", date, "2024-13-01"),
        (2**40, pa.int32(), "int32"),
        ("2024-01-02 03:04:05.123456789", mill.Timestamp("ns"), "digits below a microsecond"),
        ("01:02:03.0000001", clock, "digits below a microsecond"),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_table_column_and_key(tmp_path: Path, value: Any, kind: Any, said: str) -> None:
    path = tmp_path / "loose.db"
    with sqlite3.connect(path) as database:
        database.execute("create table loose (k, v)")
        database.execute("insert into loose values (7, ?)", [value])
    database.close()
    loose = mill.lookup_sqlite(path, "loose", key="k", schema={"v": kind})
    with pytest.raises(mill.DataError, match=f"(?s)loose.*7.*{said}|(?s:loose.*{said}.*7)") as failed:
        found(clicks(7), loose)
    # It is the data, not a function of anybody's.
    assert str(failed.value).startswith('step "enrich": ') and "raised" not in str(failed.value) and failed.value.__cause__ is None
    errors = clicks(7).enrich(loose, on="user").errors.collect(on_error="route").to_pylist()
    assert [(letter["traceback"], letter["record"]) for letter in errors] == [("", '{"user":7}')]


def test_two_rows_of_a_key_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "twice.db"
    with sqlite3.connect(path) as database:
        database.execute("create table t (k integer, v integer)")
        database.executemany("insert into t values (?, ?)", [(1, 1), (2, 2), (2, 3)])
    database.close()
    lookup = mill.lookup_sqlite(path, "t", key="k")
    assert found(clicks(1), lookup) == [{"user": 1, "v": 1}]
    with pytest.raises(mill.DataError, match="table 't' has several rows with k = 2"):
        found(clicks(2), lookup)


def test_names_with_quotes_are_names(tmp_path: Path) -> None:
    path = tmp_path / "quotes ?#%.db"
    with sqlite3.connect(path) as database:
        database.execute('create table "a""b" ("k""k" integer primary key, "select" text)')
        database.execute('insert into "a""b" values (1, \'x\')')
    database.close()
    lookup = mill.lookup_sqlite(path, 'a"b', key='k"k')
    assert found(clicks(1), lookup) == [{"user": 1, "select": "x"}]


def test_only_the_records_of_a_bad_row_fail(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "m.db")) as database:
        database.execute("create table u(id integer primary key, v integer)")
        database.executemany("insert into u values(?, ?)", [(n, "abc" if n in (2, 77) else n * 2) for n in range(200)])
        database.commit()
    rows = mill.from_iter([{"id": n} for n in range(200)])
    for how in ("left", "inner"):
        found = rows.enrich(mill.lookup_sqlite(tmp_path / "m.db", "u", key="id"), on="id", how=how)
        good = sorted((row["id"], row["v"]) for row in found.collect(on_error="skip").to_pylist())
        assert good == [(n, n * 2) for n in range(200) if n not in (2, 77)]
        letters = found.errors.collect(on_error="route").to_pylist()
        assert sorted(letter["record"] for letter in letters) == ['{"id":2}', '{"id":77}']


def test_only_the_records_of_a_value_fail_that_the_declared_type_cannot_hold(tmp_path: Path) -> None:
    # Read as what SQLite has, each of these is fine; the type in schema= is narrower.
    columns: list[tuple[Any, Any, Any]] = [
        (pa.int8(), 3, 300),
        (mill.types.Decimal(10, 2), "1.50", "1.505"),
        (mill.Timestamp("us"), "2024-01-02T03:04:05", "2024-01-02T03:04:05+00:00"),
        (mill.Timestamp("ns"), "2024-01-02T03:04:05.123456000", "2024-01-02T03:04:05.123456789"),
    ]
    for n, (kind, good, misfit) in enumerate(columns):
        with contextlib.closing(sqlite3.connect(tmp_path / f"{n}.db")) as database:
            database.execute("create table t(k integer primary key, v)")
            database.executemany("insert into t values(?, ?)", [(1, good), (2, misfit), (3, good)])
            database.commit()
        stream = mill.from_iter([{"k": 1}, {"k": 2}, {"k": 3}])
        found = stream.enrich(mill.lookup_sqlite(tmp_path / f"{n}.db", "t", key="k", schema={"v": kind}), on="k")
        assert found.collect(on_error="skip", parallelism=1)["k"] == [1, 3], kind
        assert [letter["record"] for letter in found.errors.collect(on_error="route").to_pylist()] == ['{"k":2}']


def test_names_with_braces_are_names(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "m.db")) as database:
        database.execute('create table "t{values}" ("k{0}" integer primary key, "a{b}" text)')
        database.execute("""insert into "t{values}" values(1, 'x')""")
        database.commit()
    assert found(clicks(1), mill.lookup_sqlite(tmp_path / "m.db", "t{values}", key="k{0}")) == [{"user": 1, "a{b}": "x"}]


def test_a_key_that_no_row_can_have_is_not_found(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "m.db")) as database:
        database.execute("create table u(id integer primary key, v integer)")
        database.execute("insert into u values(1, 5)")
        database.commit()
    table = pa.table({"id": pa.array([1, 2**64 - 1], pa.uint64())})
    found = mill.from_arrow(table).enrich(mill.lookup_sqlite(tmp_path / "m.db", "u", key="id"), on="id", how="left")
    assert found.collect().to_pylist() == [{"id": 1, "v": 5}, {"id": 2**64 - 1, "v": None}]


def test_an_outage_fails_the_job_whatever_on_error_is(crm: Path) -> None:
    users = mill.lookup_sqlite(crm, "users", key="id", timeout="50ms")
    with contextlib.closing(sqlite3.connect(crm)) as other:
        other.execute("begin exclusive")
        with pytest.raises(mill.ConnectorError, match="database is locked"):
            mill.from_iter([{"id": 1}, {"id": 2}]).enrich(users, on="id", how="left").collect(on_error="skip")


def test_a_database_that_is_gone_fails_the_job_whatever_on_error_is(crm: Path) -> None:
    # It was there when the job was declared. All records were dropped without an error.
    users = mill.lookup_sqlite(crm, "users", key="id")
    crm.rename(crm.with_name("elsewhere.db"))
    stream = mill.from_iter([{"id": 1}]).enrich(users, on="id")
    with pytest.raises(mill.ConnectorError, match=r"table 'users' of .*crm.db cannot be read: unable to open database file"):
        stream.collect(on_error="skip")
    with pytest.raises(mill.ConnectorError, match="unable to open database file"):
        stream.errors.collect(on_error="route")
