"""Python values on their way into columns and out again: the same value, or an error that names column and value."""

from __future__ import annotations

import enum
import math
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import millstream as mill

REFUSED = "refused"


class Level(enum.IntEnum):
    LOW = 3


class Colour(enum.Enum):
    RED = 1


class Word(str):
    __slots__ = ()


class Name(enum.StrEnum):
    ADA = "ada"


T, D, BERLIN = mill.Timestamp, mill.types.Duration, ZoneInfo("Europe/Berlin")
MOMENT = datetime(2024, 10, 27, 2, 30, 15, 123456)

VALUES: list[tuple[Any, Any, Any]] = [
    # type, value, what comes out
    (int, 5, 5),
    (int, True, REFUSED),
    (int, 1.0, 1),
    (int, 1.5, REFUSED),
    (int, math.nan, REFUSED),
    (int, math.inf, REFUSED),
    (int, "1", REFUSED),
    (int, b"1", REFUSED),
    (int, 2**63 - 1, 2**63 - 1),
    (int, 2**63, REFUSED),
    (int, 1e19, REFUSED),
    (int, Decimal("7.00"), 7),
    (int, Decimal("7.5"), REFUSED),
    (int, Decimal("1E+999999"), REFUSED),
    (int, Decimal("NaN"), REFUSED),
    (int, Fraction(8, 2), 4),
    (int, Fraction(1, 3), REFUSED),
    (int, Level.LOW, 3),
    (int, Colour.RED, REFUSED),
    (int, np.int8(-3), -3),
    (int, np.uint64(2**63), REFUSED),
    (int, np.float32(2.0), 2),
    (int, np.float64(2.5), REFUSED),
    (int, np.bool_(True), REFUSED),
    (int, pd.NA, None),
    (int, pd.NaT, None),
    (int, timedelta(1), REFUSED),
    (pa.uint8(), 255, 255),
    (pa.uint8(), 256, REFUSED),
    (pa.uint8(), -1, REFUSED),
    (pa.int8(), -129, REFUSED),
    (pa.uint64(), 2**64 - 1, 2**64 - 1),
    (float, 3, 3.0),
    (float, 2**53, float(2**53)),
    (float, 2**53 + 1, REFUSED),
    (float, 10**400, REFUSED),
    (float, True, REFUSED),
    (float, Decimal("0.1"), 0.1),
    (float, Decimal("1e400"), REFUSED),
    (float, Fraction(1, 4), 0.25),
    (float, Fraction(1, 3), REFUSED),
    (float, np.float32(0.1), float(np.float32(0.1))),
    (float, np.int64(2**53 + 1), REFUSED),
    (float, "1.0", REFUSED),
    (float, pd.NA, None),
    (pa.float32(), 0.5, 0.5),
    (pa.float32(), 1e300, REFUSED),
    (bool, np.bool_(True), True),
    (bool, 1, REFUSED),
    (bool, 0.0, REFUSED),
    (bool, "yes", REFUSED),
    (bool, pd.NA, None),
    (str, Word("w"), "w"),
    (str, Name.ADA, "ada"),
    (str, np.str_("n"), "n"),
    (str, 1, REFUSED),
    (str, b"x", REFUSED),
    (str, "\ud800", REFUSED),
    (str, uuid.UUID(int=1), REFUSED),
    (str, Colour.RED, REFUSED),
    (str, pd.NA, None),
    (bytes, bytearray(b"x"), b"x"),
    (bytes, "x", REFUSED),
    (pa.binary(2), b"xy", b"xy"),
    (pa.binary(2), b"xyz", REFUSED),
    (mill.types.Decimal(5, 2), Decimal("1.50"), Decimal("1.50")),
    (mill.types.Decimal(5, 2), Decimal("1.505"), REFUSED),
    (mill.types.Decimal(5, 2), Decimal("1000"), REFUSED),
    (mill.types.Decimal(5, 2), 3, Decimal("3.00")),
    (mill.types.Decimal(5, 2), True, REFUSED),
    (mill.types.Decimal(5, 2), 0.1, Decimal("0.10")),
    (mill.types.Decimal(5, 2), Fraction(1, 4), Decimal("0.25")),
    (mill.types.Decimal(5, 2), Fraction(1, 3), REFUSED),
    (mill.types.Decimal(5, 2), np.int32(4), Decimal("4.00")),
    (mill.types.Decimal(5, 2), Decimal("Infinity"), REFUSED),
    (mill.types.Decimal(38, 10), Decimal("1." + "0" * 85 + "1"), REFUSED),
    (mill.types.Decimal(5, 2), "1.0", REFUSED),
    (date, date(1, 1, 1), date(1, 1, 1)),
    (date, datetime(2024, 1, 2), date(2024, 1, 2)),
    (date, MOMENT, REFUSED),
    (date, datetime(2024, 1, 2, tzinfo=timezone.utc), REFUSED),
    (date, np.datetime64("2024-02-29"), date(2024, 2, 29)),
    (date, np.datetime64("1969-11"), date(1969, 11, 1)),
    (date, np.datetime64("2024-01-01T01"), REFUSED),
    (date, pd.Timestamp("2024-01-02"), date(2024, 1, 2)),
    (date, pd.Timestamp("2024-01-02 00:00:00.000000001"), REFUSED),
    (date, pd.NaT, None),
    (time, time(1, 2, 3, 4), time(1, 2, 3, 4)),
    (time, time(1, tzinfo=timezone.utc), REFUSED),
    (pa.time32("s"), time(1, 2, 3), time(1, 2, 3)),
    (pa.time32("s"), time(1, 2, 3, 4), REFUSED),
    (datetime, MOMENT, MOMENT),
    (datetime, datetime.min, datetime.min),
    (datetime, datetime.max, datetime.max),
    (datetime, MOMENT.replace(tzinfo=timezone.utc), REFUSED),
    (datetime, date(2024, 1, 1), REFUSED),
    (datetime, True, REFUSED),
    (datetime, "2024-01-01", REFUSED),
    (T("ms"), MOMENT, REFUSED),
    (T("ms"), MOMENT.replace(microsecond=123000), MOMENT.replace(microsecond=123000)),
    (T("s"), datetime(1969, 12, 31, 23, 59, 59), datetime(1969, 12, 31, 23, 59, 59)),
    (T("s"), datetime(1969, 12, 31, 23, 59, 59, 1), REFUSED),
    (T("ns"), MOMENT, MOMENT),
    (T("ns"), datetime(2263, 1, 1), REFUSED),
    (T("ns"), datetime(1600, 1, 1), REFUSED),
    (T("us", "UTC"), MOMENT, REFUSED),
    (T("us", "UTC"), MOMENT.replace(tzinfo=BERLIN), datetime(2024, 10, 27, 0, 30, 15, 123456, timezone.utc)),
    (T("us", "UTC"), MOMENT.replace(tzinfo=BERLIN, fold=1), datetime(2024, 10, 27, 1, 30, 15, 123456, timezone.utc)),
    (T("us", "UTC"), np.datetime64("2024-01-01"), REFUSED),
    (T("us", "UTC"), pd.Timestamp("2024-01-01", tz="UTC"), datetime(2024, 1, 1, tzinfo=timezone.utc)),
    (datetime, pd.Timestamp("2024-01-01", tz="UTC"), REFUSED),
    (datetime, pd.Timestamp("2024-01-01 00:00:00.000001"), datetime(2024, 1, 1, 0, 0, 0, 1)),
    (datetime, pd.Timestamp("2024-01-01 00:00:00.000000001"), REFUSED),
    (datetime, pd.NaT, None),
    (datetime, np.datetime64("NaT", "s"), None),
    *[(datetime, np.datetime64("2024-01-01T00", unit), datetime(2024, 1, 1)) for unit in ("Y", "M", "D", "h", "m", "s", "ms", "us", "ns")],
    (datetime, np.datetime64(10**12, "ps"), datetime(1970, 1, 1, 0, 0, 1)),
    (datetime, np.datetime64(1, "ps"), REFUSED),
    (datetime, np.datetime64("2023-12-31", "W"), datetime(2023, 12, 28)),
    (datetime, np.datetime64(1, "ns"), REFUSED),
    (datetime, np.datetime64(2**62, "s"), REFUSED),
    (timedelta, timedelta(days=-1, microseconds=1), timedelta(days=-1, microseconds=1)),
    (timedelta, timedelta(days=200_000_000), REFUSED),
    (timedelta, timedelta.min, REFUSED),
    (D("s"), timedelta.max.__class__(days=999_999_999), timedelta(days=999_999_999)),
    (D("s"), timedelta(milliseconds=1), REFUSED),
    (D("ns"), timedelta(days=200_000), REFUSED),
    (timedelta, np.timedelta64(3, "h"), timedelta(hours=3)),
    (timedelta, np.timedelta64(3, "ns"), REFUSED),
    (timedelta, np.timedelta64(3, "M"), REFUSED),
    (timedelta, np.timedelta64("NaT", "s"), None),
    *[(datetime, np.datetime64("NaT", unit), None) for unit in ("D", "us", "ns")],
    *[(timedelta, np.timedelta64("NaT", unit), None) for unit in ("D", "us", "ns")],
    (date, np.datetime64("NaT", "D"), None),
    (timedelta, pd.Timedelta("1us"), timedelta(microseconds=1)),
    (timedelta, pd.Timedelta("1ns"), REFUSED),
    (timedelta, 5, REFUSED),
    (list[int], [1, 2.0], [1, 2]),
    (list[int], [1, 2.5], REFUSED),
    (list[int], (1, pd.NA), [1, None]),
    (list[int], np.array([1, 2]), [1, 2]),
    (list[int], "12", REFUSED),
    (list[datetime], [np.datetime64("NaT", "s"), MOMENT], [None, MOMENT]),
    (pa.list_(pa.int64(), 2), [1, 2], [1, 2]),
    (pa.list_(pa.int64(), 2), [1, 2, 3], REFUSED),
    ({"p": int, "q": timedelta}, {"p": 1.0, "q": None}, {"p": 1, "q": None}),
    ({"p": int}, {"p": 1.5}, REFUSED),
    ({"p": int}, {"p": pd.NA}, {"p": None}),
    ({"p": int}, {"p": 1, "z": 2}, REFUSED),
]


def outcome(run: Callable[[], Any]) -> Any:
    """Return a value, or that it was refused with its column named."""
    try:
        return run()
    except mill.MillstreamError as error:
        assert '"v"' in str(error) or "unknown column" in str(error), error
        return REFUSED


def ways(kind: Any, value: Any) -> dict[str, Callable[[], Any]]:
    """Return every way on which a Python value becomes one of a column."""
    schema = {"v": kind}
    one = mill.from_iter([0], schema={"i": int})
    v = mill.udf(returns=kind)(lambda i: value)
    v._function.__name__ = "v"
    made = mill.udf(returns=kind)(v._function)
    ways: dict[str, Callable[[], Any]] = {
        "from_iter": lambda: mill.from_iter([{"v": value}], schema=schema).collect()["v"],
        "from_iter, later": lambda: mill.from_iter([{"v": None}, {"v": value}], schema=schema).collect()["v"][1:],
        "map": lambda: one.map(lambda row: {"v": value}, schema=schema).collect()["v"],
        "flat_map": lambda: one.flat_map(lambda row: [{"v": value}], schema=schema).collect()["v"],
        "udf": lambda: one.select(v=made("i")).collect()["v"],
        "function": lambda: mill.from_iter(lambda start: [{"v": value}][start:], schema=schema).collect()["v"],
    }
    return ways


@pytest.mark.parametrize("place", range(len(VALUES)))
def test_a_value_is_the_same_or_is_refused(place: int) -> None:
    kind, value, wanted = VALUES[place]
    for name, run in ways(kind, value).items():
        found = outcome(run)
        expected = REFUSED if wanted is REFUSED else [wanted]
        assert repr(found) == repr(expected), f"{name}: {value!r} as {kind}"


INFERRED: list[tuple[Any, str, Any]] = [
    (np.datetime64("2024-01-01T00:00:00"), "timestamp[s]", datetime(2024, 1, 1)),
    (np.datetime64("2024-01-01"), "date", date(2024, 1, 1)),
    (np.datetime64("2024-01"), "date", date(2024, 1, 1)),
    (np.datetime64("2024-01-01T00:00:00.5", "ms"), "timestamp[ms]", datetime(2024, 1, 1, 0, 0, 0, 500000)),
    (np.datetime64(1000, "ns"), "timestamp[ns]", datetime(1970, 1, 1, 0, 0, 0, 1)),
    (np.timedelta64(2, "D"), "duration[s]", timedelta(days=2)),
    (np.timedelta64(2, "us"), "duration[us]", timedelta(microseconds=2)),
    (pd.Timestamp("2024-01-01"), "timestamp[us]", datetime(2024, 1, 1)),
    (pd.Timestamp("2024-01-01", tz="Europe/Berlin"), "timestamp[us, Europe/Berlin]", datetime(2024, 1, 1, tzinfo=BERLIN)),
    (pd.Timedelta("1s"), "duration[us]", timedelta(seconds=1)),
    (datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/London")), "timestamp[us, Europe/London]", datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/London"))),
    (datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2))), "timestamp[us, +02:00]", datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2)))),
    (np.float32(0.5), "float64", 0.5),
    (np.int16(4), "int64", 4),
    (np.bool_(True), "bool", True),
    (np.str_("x"), "str", "x"),
]


@pytest.mark.parametrize("place", range(len(INFERRED)))
@pytest.mark.parametrize("missing", [None, pd.NaT, pd.NA, np.datetime64("NaT", "s")])
def test_what_is_inferred_holds_the_value_and_what_is_missing(place: int, missing: Any) -> None:
    value, kind, wanted = INFERRED[place]
    stream = mill.from_iter([{"v": missing}, {"v": value}, {"v": missing}])
    assert repr(stream.schema["v"]) == kind
    assert stream.collect()["v"] == [None, wanted, None]


def test_a_zone_without_a_name_is_refused() -> None:
    from datetime import tzinfo

    class Odd(tzinfo):
        def utcoffset(self, at: datetime | None) -> timedelta:
            return timedelta(hours=1)

        def dst(self, at: datetime | None) -> timedelta:
            return timedelta(0)

        def tzname(self, at: datetime | None) -> str:
            return "odd"

    for zone in (Odd(), timezone(timedelta(seconds=30))):
        with pytest.raises(mill.SchemaError, match=r"mill\.Timestamp"):
            mill.from_iter([datetime(2024, 1, 1, tzinfo=zone)])
    mixed = [datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=timezone.utc)]
    with pytest.raises(mill.SchemaError, match="holds both"):
        mill.from_iter(mixed)


BEYOND: list[tuple[Any, int]] = [
    (pa.timestamp("s", "Asia/Tokyo"), 253402300799),
    (pa.timestamp("s"), 253402300800),
    (pa.timestamp("s"), -62135596801),
    (pa.timestamp("s"), 2**62),
    (pa.timestamp("ms", "UTC"), 253402300800000),
    (pa.timestamp("us"), 2**63 - 1),
    (pa.timestamp("ns"), 1),
    (pa.timestamp("ns", "UTC"), -1),
    (pa.duration("s"), 86400 * 1_000_000_000),
    (pa.duration("s"), -(2**62)),
    (pa.duration("ns"), 1),
    (pa.date32(), 2932897),
    (pa.date32(), -719163),
    (pa.date64(), 253402300800000),
    (pa.time64("ns"), 1),
]


@pytest.mark.parametrize("place", range(len(BEYOND)))
@pytest.mark.parametrize("nested", ["plain", "list", "struct", "dictionary"])
def test_a_time_that_python_does_not_have_is_an_error_that_names_it(place: int, nested: str) -> None:
    kind, ticks = BEYOND[place]
    integer = pa.int32() if kind == pa.date32() else pa.int64()
    good, bad = (pa.array([value], integer).view(kind) for value in (0, ticks))
    column = pa.concat_arrays([good, bad])
    if nested == "list":
        column = pa.ListArray.from_arrays([0, 1, 2], column)
    elif nested == "struct":
        column = pa.StructArray.from_arrays([column], ["p"])
    elif nested == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), column)
    stream = mill.from_arrow(pa.table({"i": [1, 2], "t": column}))
    table = stream.collect()
    assert table.to_arrow().num_rows == 2
    for run in (
        table.to_pylist,
        lambda: table["t"],
        lambda: list(table),
        lambda: stream.map(lambda row: {"t": row.t}, schema={"t": object}).collect(),
        lambda: stream.filter(lambda row: bool(row.t) or True).collect(),
        lambda: stream.flat_map(lambda row: [row.t], schema={"t": object}).collect(),
        lambda: mill.run(stream.for_each(lambda row: None)),
        lambda: stream.select(u=mill.udf(returns=object)(lambda value: value)("t")).collect(),
    ):
        with pytest.raises(mill.MillstreamError, match='"(t|value)"') as info:
            run()
        assert "holds <invalid>" not in str(info.value)
    # Of a function of records, only the record fails; one that does not look at the column does not notice.
    mapped = stream.map(lambda row: {"i": row.i, "t": row.t}, schema={"i": int, "t": object})
    assert mapped.collect(on_error="skip")["i"] == [1]
    [error] = mapped.errors.collect(on_error="route").to_pylist()
    assert '"t"' in error["error"]
    assert error["record"].startswith('{"i":2,"t":')
