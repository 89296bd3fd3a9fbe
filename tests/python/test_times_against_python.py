"""Functions of times agree with Python's datetime and zoneinfo, around every change of a clock."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col
from millstream.errors import MillstreamError

SEED = int(os.environ.get("SEED", "20261125"))

pytestmark = pytest.mark.filterwarnings("ignore:Parsing dates involving a day of month:DeprecationWarning")

KNOWN: dict[str, str] = {}
"""Cells that fail for now, by their name, each with what is wrong; a cell that passes again must be taken out."""

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/St_Johns",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "UTC",
]
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
UNIT_OF_ZONE = dict(zip(ZONES, ["us", "s", "ms", "ns", "us", "ms", "s", "ns", "us"], strict=True))

EPOCH = datetime(1970, 1, 1)
EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
LAST = int((datetime(2038, 1, 1) - EPOCH).total_seconds())
DAY = 86_400

AROUND = [-DAY, -7200, -3601, -3600, -1801, -1800, -1, 0, 1, 59, 1799, 1800, 3599, 3600, 5400, 7200, DAY - 1, DAY]


def cells(*names: str) -> list[Any]:
    """Return parameters, those in KNOWN marked as failing."""
    return [pytest.param(name, marks=known(name)) for name in names]


def known(name: str) -> list[pytest.MarkDecorator]:
    """Return the mark of a cell that fails for now."""
    return [pytest.mark.xfail(reason=KNOWN[name], strict=True)] if name in KNOWN else []


# -- the oracle --------------------------------------------------------------------------------------------------------


@cache
def offset(zone: str | None, second: int) -> int:
    """Return the seconds that the clock of a zone is ahead of UTC."""
    if zone is None:
        return 0
    found = (EPOCH_UTC + timedelta(seconds=second)).astimezone(ZoneInfo(zone)).utcoffset()
    assert found is not None
    return int(found.total_seconds())


def transition(zone: str, low: int, high: int) -> int:
    """Return the first second after ``low`` with the offset that ``high`` has."""
    before = offset(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if offset(zone, middle) == before else (low, middle)
    return high


@cache
def transitions(zone: str) -> tuple[int, ...]:
    """Return the changes of a zone's clock from 1970 to 2037."""
    step = 5 * DAY
    marks = range(-DAY, LAST, step)
    return tuple(transition(zone, a, a + step) for a in marks if offset(zone, a) != offset(zone, a + step))


@cache
def moments(zone: str) -> tuple[int, ...]:
    """Return seconds around every change of a zone's clock, and random ones, some before 1970."""
    chance = random.Random(f"{SEED} {zone}")
    around = [t + d for t in transitions(zone) for d in AROUND]
    return (*around, *(chance.randrange(-LAST // 2, LAST) for _ in range(400)))


@cache
def values(zone: str) -> tuple[int | None, ...]:
    """Return the moments in the unit with which a zone is tested, with fractions and nulls."""
    chance = random.Random(f"{SEED} {zone} fractions")
    per = PER_SECOND[UNIT_OF_ZONE[zone]]
    whole: list[int | None] = [
        second * per + chance.choice([0, 0, per - 1, chance.randrange(per)]) for second in moments(zone)
    ]
    return (*whole, None)


def points(zone: str | None, wall: int) -> list[int]:
    """Return the seconds at which the clock of a zone shows a time: none, one or two."""
    if zone is None:
        return [wall]
    naive = EPOCH + timedelta(seconds=wall)
    found = set()
    for fold in (0, 1):
        second = int((naive.replace(tzinfo=ZoneInfo(zone), fold=fold) - EPOCH_UTC).total_seconds())
        if second + offset(zone, second) == wall:
            found.add(second)
    return sorted(found)


def skip(zone: str, wall: int) -> tuple[int, int]:
    """Return the end of the gap that a time is in, and the time as the offset before the gap has it."""
    naive = EPOCH + timedelta(seconds=wall)
    late, early = (
        int((naive.replace(tzinfo=ZoneInfo(zone), fold=fold) - EPOCH_UTC).total_seconds()) for fold in (0, 1)
    )
    assert early < late
    return transition(zone, early, late), late


def months_of(second: int, months: int) -> int:
    """Return the start of the month, quarter or year of a second."""
    day = EPOCH + timedelta(seconds=second)
    first = EPOCH.replace(year=day.year, month=(day.month - 1) // months * months + 1)
    return int((first - EPOCH).total_seconds())


CLOCK = {"15m": 900, "1h": 3600, "24h": DAY}
CALENDAR: dict[str, Callable[[int], int]] = {
    "1d": lambda wall: wall // DAY * DAY,
    "1w": lambda wall: (wall - 4 * DAY) // (7 * DAY) * 7 * DAY + 4 * DAY,
    "1mo": lambda wall: months_of(wall, 1),
    "1q": lambda wall: months_of(wall, 3),
    "1y": lambda wall: months_of(wall, 12),
}


def truncated(zone: str | None, every: str, second: int) -> int:
    """Return the start of the span of a second, by the clock of its zone.

    A span of the clock starts at the later of two times that are shown twice, if that is not after the second, and one of
    the calendar at the earlier; a start that is skipped is the end of the gap.
    """
    wall = second + offset(zone, second)
    start = wall // CLOCK[every] * CLOCK[every] if every in CLOCK else CALENDAR[every](wall)
    found = points(zone, start)
    if not found:
        assert zone is not None
        return skip(zone, start)[0]
    return max((p for p in found if p <= second), default=found[0]) if every in CLOCK else found[0]


def moved(zone: str | None, by: str, second: int) -> int:
    """Return a second moved by a span, which keeps what the clock shows if it is of the calendar.

    Of two points the one with the same offset is meant, or the earlier; what is skipped is later by the gap.
    """
    sign, text = (-1, by[1:]) if by.startswith("-") else (1, by)
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit, count = text[len(digits) :], sign * int(digits)
    if unit in ("h", "m", "s"):
        return second + count * {"h": 3600, "m": 60, "s": 1}[unit]
    wall = second + offset(zone, second)
    if unit in ("d", "w"):
        wall += count * {"d": 1, "w": 7}[unit] * DAY
    else:
        month, rest = divmod(wall, DAY)
        day = (EPOCH + timedelta(days=month)).date()
        number = day.year * 12 + day.month - 1 + count * {"mo": 1, "q": 3, "y": 12}[unit]
        first = date(number // 12, number % 12 + 1, 1)
        after = date((number + 1) // 12, (number + 1) % 12 + 1, 1)
        last = min(day.day, (after - first).days)
        wall = (first.replace(day=last) - EPOCH.date()).days * DAY + rest
    found = points(zone, wall)
    if not found:
        assert zone is not None
        return skip(zone, wall)[1]
    same = [p for p in found if wall - p == offset(zone, second)]
    return same[0] if same else found[0]


# -- the job -----------------------------------------------------------------------------------------------------------


def source(numbers: Any, unit: str, zone: str | None) -> mill.Stream:
    """Return a stream with a column of times."""
    return mill.from_arrow(pa.table({"v": pa.array(list(numbers), pa.int64()).cast(pa.timestamp(unit, zone))}))


def run(stream: mill.Stream, **columns: Any) -> dict[str, list[Any]]:
    """Return what expressions make of a stream, times as numbers."""
    table = stream.select(**columns).collect(parallelism=1).to_arrow()
    return {name: plain(table[name]) for name in columns}


def plain(column: Any) -> list[Any]:
    """Return values, those of times as numbers of their unit."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    result: list[Any] = column.to_pylist()
    return result


def same(given: Any, expected: list[Any], seen: list[Any]) -> None:
    """Check values one by one, and show the first that differ."""
    assert len(expected) == len(seen)
    wrong = [(v, e, s) for v, e, s in zip(given, expected, seen, strict=True) if e != s or type(e) is not type(s)]
    assert not wrong, f"{len(wrong)} of {len(seen)} differ (SEED={SEED}); value, expected, seen: {wrong[:5]}"


def each(zone: str, of_second: Callable[[int], int], *, keeps_fraction: bool) -> list[int | None]:
    """Return the oracle's results for the values of a zone, in their unit."""
    per = PER_SECOND[UNIT_OF_ZONE[zone]]
    return [None if v is None else of_second(v // per) * per + (v % per if keeps_fraction else 0) for v in values(zone)]


def local(zone: str | None, unit: str, value: int) -> datetime:
    """Return the time that a value is, to the microsecond."""
    per = PER_SECOND[unit]
    micros = value % per * 1_000_000 // per
    if zone is None:
        return EPOCH + timedelta(seconds=value // per, microseconds=micros)
    return (EPOCH_UTC + timedelta(seconds=value // per, microseconds=micros)).astimezone(ZoneInfo(zone))


# -- truncate, offset_by ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [*CLOCK, *CALENDAR])
@pytest.mark.parametrize("zone", ZONES)
def test_truncate_goes_by_the_clock_of_the_zone(zone: str, every: str) -> None:
    seen = run(source(values(zone), UNIT_OF_ZONE[zone], zone), r=col("v").dt.truncate(every))["r"]
    same(values(zone), each(zone, lambda second: truncated(zone, every, second), keeps_fraction=False), seen)


@pytest.mark.parametrize("zone", ZONES)
def test_truncate_is_never_later_and_changes_nothing_the_second_time(zone: str) -> None:
    spans = [*CLOCK, *CALENDAR]
    stream = source(values(zone), UNIT_OF_ZONE[zone], zone)
    once = run(stream, **{every: col("v").dt.truncate(every) for every in spans})
    twice = run(stream, **{every: col("v").dt.truncate(every).dt.truncate(every) for every in spans})
    for every in spans:
        assert once[every] == twice[every], every
        assert all(a <= v for a, v in zip(once[every], values(zone), strict=True) if v is not None), every


@pytest.mark.parametrize("every", [*CLOCK, *CALENDAR])
@pytest.mark.parametrize("zone", ZONES)
def test_round_finds_the_nearest_start_of_a_span(zone: str, every: str) -> None:
    per = PER_SECOND[UNIT_OF_ZONE[zone]]
    seen = run(source([second * per for second in moments(zone)], UNIT_OF_ZONE[zone], zone), r=col("v").dt.round(every))["r"]
    for second, units in zip(moments(zone), seen, strict=True):
        rounded, rest = divmod(units, per)
        assert (truncated(zone, every, rounded), rest) == (rounded, 0), (second, "it is the start of a span")
        start = truncated(zone, every, second)
        if rounded > second:
            assert truncated(zone, every, rounded - 1) <= second, (second, "there is none between")
            assert rounded - second <= second - start, second
        elif rounded > start:
            # The clock was put back over midnight, so it is the evening before once more, a moment after midnight.
            assert zone == "America/St_Johns" and second - rounded < second - start, second
        else:
            assert rounded == start, second
            assert truncated(zone, every, 2 * second - start) <= second, (second, "the next one is farther away")


@pytest.mark.parametrize("unit", PER_SECOND)
def test_times_without_a_zone_are_rounded(unit: str) -> None:
    chance = random.Random(f"{SEED} round {unit}")
    per = PER_SECOND[unit]
    numbers = [chance.randrange(-4 * 10**9, 5 * 10**9) * per + chance.randrange(per) for _ in range(1000)]
    halves = [truncated(None, "1h", v // per) * per + 1800 * per - d for v in numbers for d in (0, 1)]
    for every in [*CLOCK, *CALENDAR]:
        seen = run(source([*numbers, *halves, None], unit, None), r=col("v").dt.round(every))["r"]
        expected: list[Any] = []
        for value in [*numbers, *halves]:
            start = truncated(None, every, value // per)
            # No span is longer than 366 days, nor two of them.
            after = truncated(None, every, start + {"1mo": 31, "1q": 92, "1y": 366}.get(every, 0) * DAY) if every in CALENDAR else 0
            after = {"1d": start + DAY, "1w": start + 7 * DAY}.get(every, after) if every in CALENDAR else start + CLOCK[every]
            up = after * per - value <= value - start * per
            expected.append((after if up else start) * per)
        same([*numbers, *halves, None], [*expected, None], seen)


def month_bound(zone: str | None, bound: str, second: int) -> int:
    """Return a second at the first or last day of its month."""
    wall = second + offset(zone, second)
    day = (EPOCH + timedelta(seconds=wall)).date()
    after = date(day.year + day.month // 12, day.month % 12 + 1, 1)
    days = 1 - day.day if bound == "month_start" else (after - day).days - 1
    return moved(zone, f"{days}d", second)


@pytest.mark.parametrize("bound", ["month_start", "month_end"])
@pytest.mark.parametrize("zone", ZONES)
def test_days_of_months_keep_the_time_of_day(zone: str, bound: str) -> None:
    seen = run(source(values(zone), UNIT_OF_ZONE[zone], zone), r=getattr(col("v").dt, bound)())["r"]
    same(values(zone), each(zone, lambda second: month_bound(zone, bound, second), keeps_fraction=True), seen)


OFFSETS = ["1d", "-1d", "1w", "-1w", "1mo", "-1mo", "1q", "1y", "-1y", "24h", "-24h", "90m", "-1s"]


@pytest.mark.parametrize("by", OFFSETS)
@pytest.mark.parametrize("zone", ZONES)
def test_offset_by_keeps_the_clock_for_the_calendar_and_not_for_hours(zone: str, by: str) -> None:
    seen = run(source(values(zone), UNIT_OF_ZONE[zone], zone), r=col("v").dt.offset_by(by))["r"]
    same(values(zone), each(zone, lambda second: moved(zone, by, second), keeps_fraction=True), seen)


@pytest.mark.parametrize("unit", PER_SECOND)
def test_times_without_a_zone_are_truncated_and_moved(unit: str) -> None:
    chance = random.Random(f"{SEED} naive {unit}")
    per = PER_SECOND[unit]
    numbers = [chance.randrange(-4 * 10**9, 5 * 10**9) * per + chance.randrange(per) for _ in range(1000)]
    columns = {f"t{every}": col("v").dt.truncate(every) for every in [*CLOCK, *CALENDAR]}
    columns |= {f"o{by}": col("v").dt.offset_by(by) for by in OFFSETS}
    seen = run(source([*numbers, None], unit, None), **columns)
    for every in [*CLOCK, *CALENDAR]:
        same([*numbers, None], [*(truncated(None, every, v // per) * per for v in numbers), None], seen[f"t{every}"])
    for by in OFFSETS:
        same([*numbers, None], [*(moved(None, by, v // per) * per + v % per for v in numbers), None], seen[f"o{by}"])


def test_dates_are_truncated_and_moved() -> None:
    chance = random.Random(f"{SEED} dates")
    days = [chance.randrange(-40_000, 60_000) for _ in range(1000)]
    stream = mill.from_arrow(pa.table({"v": pa.array([*days, None], pa.int32()).cast(pa.date32())}))
    columns = {f"t{every}": col("v").dt.truncate(every) for every in CALENDAR}
    columns |= {f"o{by}": col("v").dt.offset_by(by) for by in ("1d", "-1w", "1mo", "-1mo", "1q", "-1y")}
    columns |= {f"m{bound}": getattr(col("v").dt, bound)() for bound in ("month_start", "month_end")}
    seen = run(stream, **columns)
    for name, column in seen.items():
        of = {"t": truncated, "o": moved, "m": month_bound}[name[0]]
        same(
            [*days, None],
            [*(EPOCH.date() + timedelta(days=of(None, name[1:], day * DAY) // DAY) for day in days), None],
            column,
        )


# -- zones -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ZONES)
def test_convert_time_zone_keeps_the_point_in_time(zone: str) -> None:
    unit = UNIT_OF_ZONE[zone]
    for other in ZONES:
        converted = source(values(zone), unit, zone).select(
            r=col("v").dt.convert_time_zone(other), w=col("v").dt.convert_time_zone(other).dt.replace_time_zone(None)
        )
        assert converted.schema["r"] == mill.Timestamp(unit, other)
        table = converted.collect(parallelism=1).to_arrow()
        same(values(zone), list(values(zone)), plain(table["r"]))
        per = PER_SECOND[unit]
        walls = [None if v is None else v + offset(other, v // per) * per for v in values(zone)]
        same(values(zone), walls, plain(table["w"]))


@pytest.mark.parametrize("zone", ZONES)
def test_replace_time_zone_takes_what_is_shown_once_and_refuses_the_rest(zone: str) -> None:
    walls = sorted(
        {second + d for second in moments(zone) for d in (0, offset(zone, second), offset(zone, second - 7200))}
    )
    expected = {wall: found[0] for wall in walls if len(found := points(zone, wall)) == 1}
    stream = source(walls, "s", None).select("v", r=col("v").dt.replace_time_zone(zone))
    table = stream.collect(parallelism=1, on_error="skip").to_arrow()
    assert dict(zip(plain(table["v"]), plain(table["r"]), strict=True)) == expected
    assert (len(expected) < len(walls)) == bool(transitions(zone))


@pytest.mark.parametrize("zone", ZONES)
def test_replace_time_zone_with_another_zone_keeps_the_clock(zone: str) -> None:
    unit = UNIT_OF_ZONE[zone]
    per = PER_SECOND[unit]
    kept = [v for v in values(zone) if v is not None]
    seen = run(source(kept, unit, zone), r=col("v").dt.replace_time_zone("UTC"))["r"]
    same(kept, [v + offset(zone, v // per) * per for v in kept], seen)


# -- fields and text -----------------------------------------------------------------------------------------------------

FIELDS: dict[str, Callable[[datetime], int]] = {
    "year": lambda t: t.year,
    "quarter": lambda t: (t.month - 1) // 3 + 1,
    "month": lambda t: t.month,
    "week": lambda t: t.isocalendar().week,
    "iso_year": lambda t: t.isocalendar().year,
    "weekday": lambda t: t.isoweekday(),
    "day": lambda t: t.day,
    "ordinal_day": lambda t: t.timetuple().tm_yday,
    "hour": lambda t: t.hour,
    "minute": lambda t: t.minute,
    "second": lambda t: t.second,
    "millisecond": lambda t: t.microsecond // 1000,
    "microsecond": lambda t: t.microsecond,
}


@pytest.mark.parametrize("zone", [*ZONES, None])
def test_fields_are_what_the_clock_shows(zone: str | None) -> None:
    unit, numbers = UNIT_OF_ZONE[zone or "UTC"], values(zone or "Europe/Berlin")
    columns = {name: getattr(col("v").dt, name)() for name in (*FIELDS, "date", "time", "nanosecond")}
    seen = run(source(numbers, unit, zone), **columns)
    times = [None if v is None else local(zone, unit, v) for v in numbers]
    for name, field in FIELDS.items():
        same(numbers, [None if t is None else field(t) for t in times], seen[name])
    same(numbers, [None if t is None else t.date() for t in times], seen["date"])
    same(numbers, [None if t is None else t.time() for t in times], seen["time"])
    per = PER_SECOND[unit]
    same(numbers, [None if v is None else v % per * (10**9 // per) for v in numbers], seen["nanosecond"])


@pytest.mark.parametrize("unit", PER_SECOND)
def test_epoch_counts_whole_units_downwards(unit: str) -> None:
    chance = random.Random(f"{SEED} epoch {unit}")
    numbers = [
        chance.randrange(-2 * 10**9, 2 * 10**9) * PER_SECOND[unit] + chance.randrange(PER_SECOND[unit])
        for _ in range(500)
    ]
    seen = run(source(numbers, unit, "UTC"), **{to: col("v").dt.epoch(to) for to in PER_SECOND})
    for to, column in seen.items():
        same(numbers, [v * PER_SECOND[to] // PER_SECOND[unit] for v in numbers], column)


DIRECTIVES = "aAbBdHIjmMpSUwWyYfGuVcxX%"


@pytest.mark.parametrize("directive", [pytest.param(d, marks=known(f"strftime %{d}")) for d in DIRECTIVES + "zZ"])
def test_strftime_writes_what_python_writes(directive: str) -> None:
    for zone in (*ZONES, None):
        if zone is None and directive in "zZ":
            continue
        unit = UNIT_OF_ZONE[zone or "UTC"]
        numbers = [v for v in values(zone or "Europe/Berlin")[-420:] if v is not None]
        seen = run(source(numbers, unit, zone), r=col("v").dt.strftime(f"<%{directive}>"))["r"]
        same(numbers, [local(zone, unit, v).strftime(f"<%{directive}>") for v in numbers], seen)


@pytest.mark.parametrize("zone", ZONES)
def test_strftime_of_several_directives(zone: str) -> None:
    unit, format = UNIT_OF_ZONE[zone], "%Y-%m-%dT%H:%M:%S.%f%z (%a %b %j, %I %p, %y) 100%%"
    numbers = [v for v in values(zone) if v is not None]
    seen = run(source(numbers, unit, zone), r=col("v").dt.strftime(format))["r"]
    same(numbers, [local(zone, unit, v).strftime(format) for v in numbers], seen)


# -- reading -------------------------------------------------------------------------------------------------------------

FORMATS = [
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S.%f",
    "%Y-%m-%d %H:%M:%S%z",
    "%Y-%m-%d %H:%M:%S.%f %z",
    "%d.%m.%y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%I %p, %d %b %Y",
    "%A, %d %B %Y",
    "%a %b %d %H:%M:%S %Y",
    "%Y%m%d%H%M%S",
    "%Y %j %H",
    "%Y-%m",
    "%Y",
    "%H:%M",
    "%y%m%d",
    "%d%%%m%%%Y",
    "%G-W%V-%u",
    "%Y %U %w",
    "%Y %W %a",
    "%I:%M %d.%m.%Y",
    "%f %Y",
]


def strptime(text: str, format: str) -> datetime | None:
    """Return what Python reads, in UTC and without a zone; None if it refuses."""
    try:
        found = datetime.strptime(text, format)
        # CPython 3.11 counts on from a week that the year does not have, which later versions refuse.
        if format == "%G-W%V-%u" and list(found.isocalendar()) != [int(number) for number in re.findall(r"\d+", text)]:
            return None
        return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def texts_of(format: str, chance: random.Random, count: int = 250) -> list[str]:
    """Return texts of a format, and texts that are nearly of it."""
    result = []
    for _ in range(count):
        second = chance.randrange(-LAST // 32, LAST)
        zone = timedelta(minutes=chance.randrange(-14 * 60, 14 * 60 + 1))
        time = EPOCH_UTC + timedelta(
            seconds=second, microseconds=chance.choice([0, 5, 120_000, chance.randrange(10**6)])
        )
        text = (time.replace(tzinfo=None) + zone).replace(tzinfo=timezone(zone)).strftime(format)
        kind = chance.randrange(10)
        place = chance.randrange(len(text))
        if kind == 0:
            text = text[:place] + text[place + 1 :]
        elif kind == 1:
            text = text[:place] + chance.choice("0123456789 :-+.Zax\t") + text[place:]
        elif kind == 2:
            text = text[:place] + chance.choice("0123456789") + text[place + 1 :]
        elif kind == 3:
            text = text.swapcase()
        elif kind == 4:
            text = text.replace(" ", "  ")
        elif kind == 5:
            text = text.lstrip("0").replace("-0", "-").replace("/0", "/").replace(".0", ".").replace(" 0", " ")
        elif kind == 6:
            text = chance.choice([text + " ", " " + text, text + "0", text[:-1]])
        result.append(text)
    return result


RARE = {
    "%Y %U %w": ["2015 00 0", "2014 53 6"],
    "%Y %W %a": ["2015 00 Mon", "2014 53 Sun"],
    "%Y %j %H": ["2024 366 23", "2023 365 0"],
    "%d.%m.%y %H:%M": ["1.1.68 0:0", "1.1.69 0:0"],
}


@cache
def read(format: str) -> list[tuple[str, datetime | None, Any]]:
    """Return texts, what Python reads in them and what the engine reads; years that Python lacks stay numbers."""
    texts = [*texts_of(format, random.Random(f"{SEED} {format}")), *RARE.get(format, []), ""]
    stream = mill.from_arrow(pa.table({"v": pa.array([*texts, None], pa.string())}))
    seen = run(stream, t=col("v").str.to_datetime(format, strict=False))["t"]
    assert seen.pop() is None
    years = range(-62_135_596_800_000_000, 253_402_300_800_000_000)
    as_time = [EPOCH + timedelta(microseconds=t) if t is not None and t in years else t for t in seen]
    return list(zip(texts, [strptime(text, format) for text in texts], as_time, strict=True))


def formats(what: str) -> list[Any]:
    """Return the formats, those in KNOWN marked as failing."""
    return [pytest.param(format, marks=known(f"{what} {format}")) for format in FORMATS]


@pytest.mark.parametrize("format", formats("value"))
def test_to_datetime_reads_the_value_that_strptime_reads(format: str) -> None:
    both = [(text, e, s) for text, e, s in read(format) if e is not None and s is not None]
    assert len(both) > 50
    assert not [(text, e, s) for text, e, s in both if e != s]


@pytest.mark.parametrize("format", formats("accepts"))
def test_to_datetime_reads_nothing_that_strptime_refuses(format: str) -> None:
    assert not [(text, s) for text, e, s in read(format) if e is None and s is not None]


@pytest.mark.parametrize("format", formats("refuses"))
def test_to_datetime_refuses_nothing_that_strptime_reads(format: str) -> None:
    assert not [(text, e) for text, e, s in read(format) if e is not None and s is None]


@pytest.mark.parametrize("format", [format for format in FORMATS if "%z" not in format])
def test_to_date_reads_the_date_that_to_datetime_reads(format: str) -> None:
    kept = [row for row in read(format) if not isinstance(row[2], int)]
    texts = [text for text, _, _ in kept]
    seen = run(
        mill.from_arrow(pa.table({"v": pa.array(texts, pa.string())})), d=col("v").str.to_date(format, strict=False)
    )["d"]
    same(texts, [t.date() if isinstance(t, datetime) else t for _, _, t in kept], seen)


READ = {
    "ambiguous digits 1": ("%Y %d%m", "2024 111"),
    "ambiguous digits 2": ("%Y %H%M", "2024 123"),
    "ambiguous digits 3": ("%Y%m%d", "2024111"),
    "no year": ("%H:%M", "05:30"),
    "29 February without a year": ("%d.%m.", "29.02."),
    "day 366 of a leap year": ("%Y %j", "2024 366"),
    "31 April": ("%Y-%m-%d", "2024-04-31"),
    "hour 24": ("%Y %H:%M", "2024 24:00"),
    "second 60": ("%Y %H:%M:%S", "2024 23:59:60"),
    "hour 13 of 12": ("%Y %I:%M %p", "2024 13:00 PM"),
    "an hour of 24 after one of 12": ("%Y %I %H", "2024 09 21"),
    "an hour of 12 after one of 24": ("%Y %H %I", "2024 21 09"),
    "an hour of 24 after one of 12, PM": ("%Y %I %p %H", "2024 09 PM 13"),
    "hour 0 of 12": ("%Y %I:%M %p", "2024 00:10 AM"),
    "noon": ("%Y %I:%M %p", "2024 12:00 pm"),
    "midnight": ("%Y %I:%M %p", "2024 12:00 am"),
    "only p": ("%Y %p", "2024 PM"),
    "hour of 24 with PM": ("%Y %H:%M %p", "2024 05:00 PM"),
    "year 68": ("%y", "68"),
    "year 69": ("%y", "69"),
    "year 0000": ("%Y", "0000"),
    "year 0001": ("%Y", "0001"),
    "year of three digits": ("%Y", "999"),
    "year of five digits": ("%Y", "12024"),
    "year with a sign": ("%Y-%m-%d", "+2024-01-01"),
    "fraction of seven digits": ("%Y %S.%f", "2024 01.1234567"),
    "fraction of one digit": ("%Y %S.%f", "2024 01.5"),
    "fraction without seconds": ("%Y %f", "2024 500000"),
    "fraction after minutes": ("%Y %H:%M.%f", "2024 05:30.5"),
    "minutes without an hour": ("%Y %M:%S", "2024 05:30"),
    "seconds without an hour": ("%Y %S", "2024 30"),
    "fraction of none": ("%Y %S.%f", "2024 01."),
    "offset Z": ("%Y %z", "2024 Z"),
    "offset z": ("%Y %z", "2024 z"),
    "offset with a colon": ("%Y %z", "2024 -05:30"),
    "offset with seconds": ("%Y %z", "2024 +05:30:15"),
    "offset of hours": ("%Y %z", "2024 +05"),
    "offset of 24 hours": ("%Y %z", "2024 +24:00"),
    "offset of 60 minutes": ("%Y %z", "2024 +01:60"),
    "wrong weekday": ("%A %Y-%m-%d", "Monday 2024-05-17"),
    "weekday alone": ("%Y %A", "2024 Monday"),
    "month in capitals": ("%d %b %Y", "17 MAY 2024"),
    "long month for a short one": ("%d %b %Y", "17 June 2024"),
    "spaces for one": ("%Y %m", "2024   05"),
    "no space for one": ("%Y %m", "202405"),
    "tab for a space": ("%Y %m", "2024\t05"),
    "space before": ("%Y", " 2024"),
    "space after": ("%Y", "2024 "),
    "space before a number": ("%Y-%m-%d", "2024- 5-17"),
    "day with a space": ("%Y-%m-%d", "2024-05- 7"),
    "week 53": ("%G-W%V-%u", "2020-W53-7"),
    "week 0": ("%Y %U %w", "2024 00 0"),
    "percent": ("%%%Y", "%2024"),
    "text in other case": ("t%Y", "T2024"),
    "zone name": ("%Y %Z", "2024 UTC"),
    "date of the locale": ("%x", "05/17/24"),
    "time of the locale": ("%Y %X", "2024 11:12:13"),
    "both of the locale": ("%c", "Fri May 17 11:12:13 2024"),
}


@pytest.mark.parametrize("name", cells(*READ))
def test_to_datetime_reads_or_refuses_as_strptime(name: str) -> None:
    format, text = READ[name]
    expected = strptime(text, format)
    stream = mill.from_iter([{"v": text}])
    seen = run(stream, t=col("v").str.to_datetime(format, strict=False))["t"]
    assert seen == [None if expected is None else (expected - EPOCH) // timedelta(microseconds=1)]
    if expected is None:
        with pytest.raises(MillstreamError):
            run(stream, t=col("v").str.to_datetime(format))


@pytest.mark.parametrize("format, text", [("%Y", "٢٠٢٤"), ("%Y-%m-%d", "２０２４-05-17"), ("%Y-%m-%d", "2024-05-1७")])
def test_digits_of_other_scripts_are_refused_where_python_takes_them(format: str, text: str) -> None:
    assert strptime(text, format) is not None
    stream = mill.from_iter([{"v": text}])
    with pytest.raises(MillstreamError, match="is no timestamp of the form"):
        run(stream, t=col("v").str.to_datetime(format))
    assert run(stream, t=col("v").str.to_datetime(format, strict=False))["t"] == [None]


BAD_FORMATS = ["%Q", "%", "%Y %", "%Y %Y", "%d %d", "%E", "%V", "%G", "%Y %V %u", "%G %V", "%j %G"]


@pytest.mark.parametrize("format", [pytest.param(f, marks=known(f"bad format {f}")) for f in BAD_FORMATS])
def test_formats_that_strptime_refuses_are_refused(format: str) -> None:
    text = datetime(2024, 5, 17).strftime(format) if format not in ("%Q", "%", "%Y %", "%E") else "2024"
    with pytest.raises((ValueError, IndexError, re.error)):
        datetime.strptime(text, format)
    with pytest.raises(MillstreamError):
        run(mill.from_iter([{"v": text}]), t=col("v").str.to_datetime(format))


# -- casts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fine", PER_SECOND)
@pytest.mark.parametrize("zone", ["America/St_Johns", None])
def test_casts_to_coarser_units_round_down(fine: str, zone: str | None) -> None:
    chance = random.Random(f"{SEED} cast {fine}")
    per = PER_SECOND[fine]
    numbers: list[Any] = [*range(-3, 4), -per, -per - 1, -per + 1, None]
    numbers += [chance.randrange(-2 * 10**9, 2 * 10**9) * per + chance.randrange(per) for _ in range(1000)]
    stream = source(numbers, fine, zone)
    for coarse, per_coarse in PER_SECOND.items():
        columns = {"a": col("v").cast(mill.Timestamp(coarse, zone)), "b": col("v").dt.cast_time_unit(coarse)}
        expected = [None if v is None else v * per_coarse // per for v in numbers]
        for column in run(stream, **columns).values():
            same(numbers, expected, column)


@pytest.mark.parametrize("unit", PER_SECOND)
def test_casts_to_a_date_round_down(unit: str) -> None:
    chance = random.Random(f"{SEED} date {unit}")
    per = PER_SECOND[unit]
    numbers: list[Any] = [0, -1, 1, DAY * per, DAY * per - 1, -DAY * per, -DAY * per - 1, None]
    numbers += [chance.randrange(-2 * 10**9, 2 * 10**9) * per + chance.randrange(per) for _ in range(1000)]
    expected = [None if v is None else EPOCH.date() + timedelta(days=v // (DAY * per)) for v in numbers]
    same(numbers, expected, run(source(numbers, unit, None), r=col("v").cast(date))["r"])


def test_casts_that_do_not_fit_a_finer_unit_are_errors() -> None:
    stream = source([2**40, -(2**40)], "s", None)
    with pytest.raises(MillstreamError):
        run(stream, r=col("v").cast(mill.Timestamp("ns")))
    assert run(stream, r=col("v").cast(mill.Timestamp("ns"), strict=False))["r"] == [None, None]


# -- windows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["15m", "1h", "1d"])
@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "America/Sao_Paulo"]
)
def test_tumbling_windows_have_one_length_where_the_clock_changes(zone: str, size: str) -> None:
    chance = random.Random(f"{SEED} windows {zone}")
    changes = [t for t in transitions(zone) if t > 10**9][:8] or [10**9]
    seconds = sorted(t + chance.randrange(-2 * DAY, 2 * DAY) for t in changes for _ in range(40))
    length = {"15m": 900, "1h": 3600, "1d": DAY}[size]
    stream = source(seconds, "s", zone).with_columns(k=1).event_time("v", watermark="0s")
    rows = stream.key_by("k").window(mill.tumbling(size)).agg(n=mill.count()).collect(parallelism=2).to_arrow()
    seen = sorted(zip(plain(rows["window_start"]), plain(rows["window_end"]), plain(rows["n"]), strict=True))
    counted: dict[int, int] = {}
    for second in seconds:
        counted[second // length * length] = counted.get(second // length * length, 0) + 1
    assert seen == [(start, start + length, n) for start, n in sorted(counted.items())]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo"])
def test_days_of_the_calendar_are_keys_by_truncate(zone: str) -> None:
    seconds = sorted(moments(zone))
    stream = source(seconds, "s", zone).with_columns(day=col("v").dt.truncate("1d"))
    rows = stream.key_by("day").agg(n=mill.count()).collect(parallelism=2).to_arrow()
    counted: dict[int, int] = {}
    for second in seconds:
        start = truncated(zone, "1d", second)
        counted[start] = counted.get(start, 0) + 1
    assert dict(zip(plain(rows["day"]), plain(rows["n"]), strict=True)) == counted


@pytest.mark.parametrize("zone", [*ZONES, "+05:30", "Europe/Paris", "Africa/Monrovia"])
def test_offsets_are_written_with_their_seconds(zone: str) -> None:
    times = [datetime(year, 1, 1, 12, tzinfo=UTC) for year in (1850, 1890, 1930, 1971, 2024)]
    here = timezone(timedelta(hours=5, minutes=30)) if zone.startswith("+") else ZoneInfo(zone)
    table = pa.table({"at": pa.array([time.replace(tzinfo=None) for time in times], pa.timestamp("us")).cast(pa.timestamp("us", zone))})
    written = mill.from_arrow(table).select(r=col("at").dt.strftime("<%z> %Y")).collect(parallelism=1).to_pylist()
    assert [row["r"] for row in written] == [time.astimezone(here).strftime("<%z> %Y") for time in times]
