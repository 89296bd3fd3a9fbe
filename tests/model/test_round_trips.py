"""What a writer has written, the reader of the same format reads back: random tables over all types, to the last bit.

A case draws columns of random types, with values from the ends of each type and nulls in random places, cuts the table into
several outputs, writes them at some parallelism, and reads them back with the schema given and with the schema inferred.
The oracle is pyarrow's own view of the table that was written, and of an inferred column what Python makes of the file's
text. ``MILL_SEED`` chooses the first case, ``MILL_CASES`` how many there are.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import json
import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill

FIRST = int(os.environ.get("MILL_SEED", "0"))
CASES = int(os.environ.get("MILL_CASES", "200"))
CHUNK = 50

UNITS = ("s", "ms", "us", "ns")
TEXTS = [
    "", " ", "a", "é", "0", "1", "007", "true", "null", "NULL", "NaN", "2024-01-02", "a,b", 'say "x"', "two\nlines", "\r", "\t",
    "\0", "\\", "\u2028", "😀", "\ufeff", "{}", "[1]", "x" * 300,
]
FLOATS = [
    0.0, -0.0, 1.0, 0.1, -1 / 3, 1e16, 1e300, 5e-324, 2.0**53, 2.0**63, 1.7976931348623157e308, float("inf"), float("-inf"),
    float("nan"),
]

Draw = Callable[[random.Random], Any]


def whole(bits: int, is_signed: bool = True) -> Draw:
    """Integers of a type, mostly from its ends."""
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    ends = [least, least + 1, 0, 1, most - 1, most, min(most, 2**53 + 1)]
    return lambda dice: dice.choice(ends) if dice.random() < 0.6 else dice.randint(least, most)


def decimals(digits: int, scale: int) -> Draw:
    """Decimals of a type."""
    exactly = decimal.Context(prec=80)
    ends = [0, 1, -1, 10**digits - 1, 1 - 10**digits]
    return lambda dice: Decimal(dice.choice([*ends, dice.randint(0, 10**digits - 1)])).scaleb(-scale, exactly)


def floats(dice: random.Random) -> float:
    """Floats, mostly odd ones."""
    return dice.choice(FLOATS) if dice.random() < 0.6 else dice.uniform(-1e6, 1e6)


def narrow(dice: random.Random) -> float:
    """Floats that have 32 bits."""
    return pa.array([dice.choice([0.1, -0.0, 3.4e38, 1e-45, 16777217.0, float("inf"), float("nan")])], pa.float32())[0].as_py()


SIMPLE: list[tuple[pa.DataType, Draw]] = [
    (pa.bool_(), lambda dice: dice.random() < 0.5),
    *[(kind, whole(bits)) for kind, bits in ((pa.int8(), 8), (pa.int16(), 16), (pa.int32(), 32), (pa.int64(), 64))],
    *[(kind, whole(bits, False)) for kind, bits in ((pa.uint8(), 8), (pa.uint16(), 16), (pa.uint32(), 32), (pa.uint64(), 64))],
    (pa.float32(), narrow),
    (pa.float64(), floats),
    (pa.decimal128(38, 9), decimals(38, 9)),
    (pa.decimal128(5, 5), decimals(5, 5)),
    (pa.decimal128(18, 0), decimals(18, 0)),
    (pa.string(), lambda dice: dice.choice(TEXTS)),
    (pa.string(), lambda dice: "".join(chr(dice.choice([dice.randint(0, 127), dice.randint(160, 0xD7FF)])) for _ in range(5))),
    (pa.date32(), whole(32)),
    (pa.date32(), lambda dice: dice.randint(-40_000, 40_000)),
    (pa.time64("us"), lambda dice: dice.choice([0, 1, 86_400_000_000 - 1, 1_000, dice.randint(0, 86_399_999_999)])),
    *[(pa.duration(unit), whole(64)) for unit in UNITS],
    # In Parquet seconds are milliseconds, which hold no more of them than this.
    *[(pa.timestamp(unit), whole(54 if unit == "s" else 64)) for unit in UNITS],
    *[(pa.timestamp(unit, zone), whole(54 if unit == "s" else 64)) for unit in UNITS for zone in ("UTC", "Europe/Berlin")],
    (pa.timestamp("us"), lambda dice: dice.randint(-(10**15), 4 * 10**15)),
    (pa.timestamp("us", "America/New_York"), lambda dice: dice.randint(-(10**15), 4 * 10**15)),
]
BINARY: tuple[pa.DataType, Draw] = (pa.binary(), lambda dice: dice.randbytes(dice.randint(0, 5)))


def nested(dice: random.Random, depth: int) -> tuple[pa.DataType, Draw]:
    """A type with lists and structs in it."""
    if depth == 0 or dice.random() < 0.3:
        return dice.choice([*SIMPLE, BINARY])
    if dice.random() < 0.5:
        kind, draw = nested(dice, depth - 1)
        return pa.list_(kind), lambda dice: [maybe(dice, draw, 0.2) for _ in range(dice.randint(0, 3))]
    fields = [(name, *nested(dice, depth - 1)) for name in ("x", "y y", 'z"')[: dice.randint(1, 3)]]
    struct = pa.struct([(name, kind) for name, kind, _ in fields])
    return struct, lambda dice: {name: maybe(dice, draw, 0.2) for name, _, draw in fields}


def maybe(dice: random.Random, draw: Draw, nulls: float) -> Any:
    """A value, or none."""
    return None if dice.random() < nulls else draw(dice)


def array(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """An array of values, where those of times are their numbers of units."""
    if pa.types.is_temporal(kind):
        number = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(values, number).cast(kind)
    if pa.types.is_list(kind):
        offsets = [0]
        for value in values:
            offsets.append(offsets[-1] + len(value or []))
        items = array(kind.value_type, [item for value in values for item in value or []])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, type=kind, mask=pa.array([v is None for v in values], pa.bool_()))
    if pa.types.is_struct(kind):
        fields = [array(field.type, [value and value[field.name] for value in values]) for field in kind]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=pa.array([value is None for value in values], pa.bool_()))
    return pa.array(values, kind)


def plain(values: pa.Array) -> list[Any]:
    """Values as Python objects that are equal only if nothing differs: numbers of units for times, texts for floats."""
    kind = values.type
    if pa.types.is_temporal(kind):
        return values.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    if pa.types.is_floating(kind):
        return [repr(value) for value in values.to_pylist()]
    if pa.types.is_decimal(kind):
        return [str(value) for value in values.to_pylist()]
    if pa.types.is_list(kind):
        return [plain(value.values) if value.is_valid else None for value in values]
    if pa.types.is_struct(kind):
        columns = [plain(values.field(at)) for at in range(kind.num_fields)]
        rows = zip(*columns, strict=True)
        return [list(row) if value.is_valid else None for value, row in zip(values, rows, strict=True)]
    return values.to_pylist()


def table(dice: random.Random, form: str) -> pa.Table:
    """A random table whose columns the format can hold, and an index that tells its rows apart."""
    rows = dice.choice([0, 1, 2, 5, 40])
    columns: dict[str, pa.Array] = {"n": pa.array(range(rows), pa.int64())}
    for name in ["a", " b ", "c,c", 'd"d', "é", "f\nf"][: dice.randint(1, 6)]:
        kind, draw = dice.choice(SIMPLE)
        if form in ("json", "parquet") and dice.random() < 0.4:
            kind, draw = nested(dice, 2)
        nulls = dice.choice([0, 0, 0.3, 0.9, 1])
        columns[name] = array(kind, [maybe(dice, draw, nulls) for _ in range(rows)])
    return pa.table(columns)


def written(dice: random.Random, given: pa.Table, form: str, folder: Path) -> list[str]:
    """Writes the table, cut into one output or more; returns their directories."""
    count = dice.randint(1, 3)
    cuts = sorted(dice.randint(0, len(given)) for _ in range(count - 1))
    paths = []
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(given)], strict=True)):
        stream = mill.from_arrow(given.slice(start, end - start))
        if dice.random() < 0.3:
            stream = stream.rebalance()
        paths.append(str(folder / str(number)))
        mill.run(getattr(stream, f"write_{form}")(paths[-1]), parallelism=dice.randint(1, 3))
    return paths


def read_back(form: str, paths: list[str], schema: Any) -> pa.Table:
    """The rows in the order of their index."""
    return getattr(mill, f"read_{form}")(paths, schema=schema).collect().to_arrow().sort_by("n")


def files(paths: list[str]) -> list[Path]:
    """The files of some outputs."""
    return [file for path in paths for file in sorted(Path(path).glob("part-*"))]


def sources(form: str, paths: list[str]) -> list[dict[str, Any]]:
    """The rows of the files as Python's own readers see them, numbers as their source."""
    rows: list[dict[str, Any]] = []
    for path in files(paths):
        with path.open(newline="", encoding="utf-8-sig" if form == "csv" else "utf-8") as file:
            if form == "csv":
                rows.extend({name.strip(): value for name, value in row.items()} for row in csv.DictReader(file))
            else:
                rows.extend(json.loads(line, parse_int=Decimal, parse_float=Decimal) for line in file)
    return sorted(rows, key=lambda row: int(row["n"]))


class Nanoseconds(int):
    """A time as its number of nanoseconds since 1970: Python's own type has microseconds."""


def nanoseconds(text: str) -> int:
    """The number of nanoseconds since 1970 of an ISO time; without an offset it is UTC."""
    parts = re.fullmatch(r"(.{19})(?:\.(\d+))?(.*)", text)
    assert parts is not None, text
    zone = parts[3].replace("Z", "+00:00") or "+00:00"
    seconds = (datetime.datetime.fromisoformat(parts[1] + zone) - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)).total_seconds()
    return int(seconds) * 10**9 + int((parts[2] or "0").ljust(9, "0"))


def objects(values: pa.Array) -> list[Any]:
    """Values as Python objects."""
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return [None if value is None else Nanoseconds(value) for value in values.cast(pa.int64()).to_pylist()]
    if pa.types.is_list(kind):
        return [objects(value.values) if value.is_valid else None for value in values]
    if pa.types.is_struct(kind):
        columns = [objects(values.field(at)) for at in range(kind.num_fields)]
        rows = [dict(zip([field.name for field in kind], row, strict=True)) for row in zip(*columns, strict=True)]
        return [row if value.is_valid else None for value, row in zip(values, rows, strict=True)]
    return values.to_pylist()


def same(value: Any, source: Any) -> bool:
    """Whether what was read of an inferred column is what its source says."""
    if value is None or source is None:
        # Python's reader of CSV does not tell null and empty text apart.
        return value is None and source in (None, "") or value == "" == source
    if isinstance(value, list):
        return len(value) == len(source) and all(map(same, value, source))
    if isinstance(value, dict):
        return all(same(item, source.get(name)) for name, item in value.items())
    if isinstance(value, Nanoseconds):
        return value == nanoseconds(source)
    if isinstance(value, bool):
        return str(value).lower() == str(source).lower()
    if isinstance(value, (int, Decimal)):
        return Decimal(source) == value
    if isinstance(value, float):
        return repr(float(source)) == repr(value)
    if isinstance(value, datetime.datetime):
        found = datetime.datetime.fromisoformat(source)
        return found == value or found.replace(tzinfo=datetime.timezone.utc) == value
    if isinstance(value, datetime.date):
        return value.isoformat() == source
    if not isinstance(source, str):
        # A column of several kinds is text: the source of what is none.
        return bool(json.loads(value, parse_int=Decimal, parse_float=Decimal) == source)
    return bool(value == source)


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
@pytest.mark.parametrize("first", range(FIRST, FIRST + CASES, CHUNK))
def test_what_is_written_is_read_back(tmp_path: Path, form: str, first: int) -> None:
    for seed in range(first, min(first + CHUNK, FIRST + CASES)):
        dice = random.Random(f"{form} {seed}")
        given = table(dice, form)
        folder = tmp_path / str(seed)
        paths = written(dice, given, form, folder)
        back = read_back(form, paths, given.schema)
        assert back.schema.types == given.schema.types, f"{form} case {seed}"
        for name in given.column_names:
            expected, found = plain(given[name].combine_chunks()), plain(back[name].combine_chunks())
            assert found == expected, f"{form} case {seed}, column {name!r} of {given.schema.field(name).type}"
        if form != "parquet" and len(given) > 0:
            rows = sources(form, paths)
            inferred = read_back(form, paths, None)
            for name in inferred.column_names:
                try:
                    found = objects(inferred[name].combine_chunks())
                except (ValueError, OverflowError):
                    # A year that Python has no object for.
                    continue
                for value, source in zip(found, rows, strict=True):
                    wanted = source[name.strip() if form == "csv" else name]
                    assert same(value, wanted), f"{form} case {seed}, column {name!r}: {value!r} of {wanted!r}"
        shutil.rmtree(folder)


@pytest.mark.parametrize("first", range(FIRST, FIRST + CASES, CHUNK))
def test_sqlite_holds_what_was_written(tmp_path: Path, first: int) -> None:
    """Numbers and texts as they are; times as texts that Python reads to the same time."""
    small = [
        (pa.int64(), whole(64)),
        (pa.float64(), floats),
        (pa.string(), lambda dice: dice.choice(TEXTS)),
        BINARY,
        (pa.timestamp("us"), lambda dice: dice.randint(-(10**15), 4 * 10**15)),
        (pa.timestamp("us", "Europe/Berlin"), lambda dice: dice.randint(-(10**15), 4 * 10**15)),
        (pa.decimal128(38, 9), decimals(38, 9)),
    ]
    for seed in range(first, min(first + CHUNK, FIRST + CASES)):
        dice = random.Random(f"sqlite {seed}")
        rows = dice.choice([1, 2, 20])
        columns: dict[str, pa.Array] = {"n": pa.array(range(rows), pa.int64())}
        for name in ["a", "b", "c"][: dice.randint(1, 3)]:
            kind, draw = dice.choice(small)
            columns[name] = array(kind, [maybe(dice, draw, dice.choice([0, 0.4, 1])) for _ in range(rows)])
        given = pa.table(columns)
        path = tmp_path / f"{seed}.db"
        mill.run(mill.from_arrow(given).write_sqlite(str(path), "t"), parallelism=dice.randint(1, 3))
        with closing(sqlite3.connect(path)) as database:
            names = ", ".join(f'"{name}"' for name in given.column_names)
            found = database.execute(f"SELECT {names} FROM t ORDER BY n").fetchall()
        for row, expected in zip(found, given.to_pylist(), strict=True):
            for value, (name, wanted) in zip(row, expected.items(), strict=True):
                where = f"sqlite case {seed}, column {name!r} of {given.schema.field(name).type}"
                if isinstance(wanted, float):
                    # SQLite has no NaN and one zero.
                    assert value == wanted if wanted == wanted else value is None, where
                elif isinstance(wanted, datetime.datetime):
                    # In UTC: Python takes times of two zones for different where the clocks are put back (PEP 495).
                    read = datetime.datetime.fromisoformat(value)
                    assert (read.tzinfo is None) == (wanted.tzinfo is None), where
                    if wanted.tzinfo is not None:
                        read, wanted = read.astimezone(datetime.UTC), wanted.astimezone(datetime.UTC)
                    assert read == wanted, where
                elif isinstance(wanted, Decimal):
                    assert Decimal(value) == wanted, where
                else:
                    assert value == wanted, where
        path.unlink()
