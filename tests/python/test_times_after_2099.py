"""Clocks change after 2099 as Python's zoneinfo says, in every zone and in whatever asks for the time there."""

from __future__ import annotations

import csv
import json
import os
import random
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col
from millstream.errors import MillstreamError

SEED = int(os.environ.get("SEED", "20261125"))
EPOCH = datetime(1970, 1, 1)
EPOCH_UTC = EPOCH.replace(tzinfo=UTC)
DAY = 86_400

ZONES = ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "Asia/Gaza", "Africa/Casablanca"]


def second(year: int, month: int = 1, day: int = 1) -> int:
    """Return the seconds from 1970 to the start of a day."""
    return int((datetime(year, month, day) - EPOCH).total_seconds())


def local(zone: str, at: int) -> datetime:
    """Return what the clock of a zone shows."""
    return (EPOCH_UTC + timedelta(seconds=at)).astimezone(ZoneInfo(zone))


def offset(zone: str, at: int) -> int:
    """Return the seconds that the clock of a zone is ahead of UTC."""
    found = local(zone, at).utcoffset()
    assert found is not None
    return int(found.total_seconds())


@cache
def moments(zone: str) -> tuple[int, ...]:
    """Return seconds around changes of a zone's clock after 2099, and random ones."""
    chance = random.Random(f"{SEED} {zone}")
    found = [chance.randrange(second(2038), second(9998)) for _ in range(300)]
    for year in [2099, 2100, 2103, 2104, 2128, 2400, 9996, *(chance.randrange(2100, 9997) for _ in range(20))]:
        for month in range(12):
            low, high = second(year, month + 1), second(year, month + 1, 28) + 4 * DAY
            before = offset(zone, low)
            if offset(zone, high) == before:
                continue
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(zone, middle) == before else (low, middle)
            found += [high + d for d in (-DAY, -7200, -3601, -1800, -1, 0, 1, 1799, 3600, 7199, 7200, DAY)]
    leap_days = [second(year, 2, 29) + h * 3600 for year in (2104, 2396, 2400, 9996) for h in (0, 5, 12, 23)]
    return (*found, *leap_days, second(2100), second(2100) - 1, second(2100) + DAY)


def source(numbers: Any, unit: str, zone: str | None) -> mill.Stream:
    """Return a stream with a column of times."""
    return mill.from_arrow(pa.table({"v": pa.array(list(numbers), pa.int64()).cast(pa.timestamp(unit, zone))}))


def run(stream: mill.Stream, **columns: Any) -> dict[str, list[Any]]:
    """Return what expressions make of a stream, times as numbers."""
    table = stream.select(**columns).collect(parallelism=1).to_arrow()
    times = {name for name in columns if pa.types.is_timestamp(table[name].type)}
    return {n: (table[n].cast(pa.int64()) if n in times else table[n]).to_pylist() for n in columns}


def test_every_zone_has_the_offsets_of_zoneinfo() -> None:
    chance = random.Random(SEED)
    skipped = set()
    zones = sorted(available_timezones())
    for zone in zones:
        try:
            known = run(source(range(second(2026), second(2038), 61 * 3600), "s", zone), r=col("v").dt.replace_time_zone(None))["r"]
        except MillstreamError as error:
            assert "which is not known" in str(error)
            skipped.add(zone)
            continue
        if known != [at + offset(zone, at) for at in range(second(2026), second(2038), 61 * 3600)]:
            skipped.add(zone)  # another release of the time zone database
            continue
        numbers = [chance.randrange(second(2038), second(9998)) for _ in range(400)]
        numbers += [second(2099) + chance.randrange(3 * 365 * DAY) for _ in range(200)]
        walls = run(source(numbers, "s", zone), r=col("v").dt.replace_time_zone(None))["r"]
        expected = [at + offset(zone, at) for at in numbers]
        wrong = [(at, e, s) for at, e, s in zip(numbers, expected, walls, strict=True) if e != s]
        assert not wrong, (zone, SEED, wrong[:3])
    assert len(skipped) < len(zones) // 20, skipped


@pytest.mark.parametrize("zone", ZONES)
def test_what_the_clock_shows_is_found_again(zone: str) -> None:
    walls = sorted({at + d for at in moments(zone) for d in (0, offset(zone, at))})
    expected = {}
    for wall in walls:
        naive = EPOCH + timedelta(seconds=wall)
        found = {int((naive.replace(tzinfo=ZoneInfo(zone), fold=fold) - EPOCH_UTC).total_seconds()) for fold in (0, 1)}
        points = [at for at in found if at + offset(zone, at) == wall]
        if len(points) == 1:
            expected[wall] = points[0]
    stream = source(walls, "s", None).select("v", r=col("v").dt.replace_time_zone(zone))
    table = stream.collect(parallelism=1, on_error="skip").to_arrow()
    pairs = zip(table["v"].cast(pa.int64()).to_pylist(), table["r"].cast(pa.int64()).to_pylist(), strict=True)
    assert dict(pairs) == expected


@pytest.mark.parametrize("zone", ZONES)
def test_fields_text_and_casts_are_of_the_clock(zone: str) -> None:
    numbers = moments(zone)
    format = "%Y-%m-%d %H:%M:%S %z %Z %a %j"
    seen = run(
        source(numbers, "s", zone),
        year=col("v").dt.year(),
        day=col("v").dt.day(),
        hour=col("v").dt.hour(),
        minute=col("v").dt.minute(),
        date=col("v").dt.date(),
        time=col("v").dt.time(),
        text=col("v").dt.strftime(format),
        iso=col("v").cast(str),
        as_date=col("v").cast(date),
        as_time=col("v").cast(time),
        days=col("v").dt.truncate("1d"),
        later=col("v").dt.offset_by("24h"),
    )
    times = [local(zone, at) for at in numbers]
    for name in ("year", "day", "hour", "minute"):
        assert seen[name] == [getattr(t, name) for t in times], name
    assert seen["date"] == seen["as_date"] == [t.date() for t in times]
    assert seen["time"] == seen["as_time"] == [t.time() for t in times]
    assert seen["text"] == [t.strftime(format) for t in times]
    assert [datetime.fromisoformat(text).astimezone(UTC) for text in seen["iso"]] == [t.astimezone(UTC) for t in times]
    assert [datetime.fromisoformat(text).utcoffset() for text in seen["iso"]] == [t.utcoffset() for t in times]
    assert seen["later"] == [at + DAY for at in numbers]
    for at, start, t in zip(numbers, seen["days"], times, strict=True):
        assert start <= at < start + 25 * 3600
        assert local(zone, start).date() == t.date()
        assert local(zone, start).time() == time() or offset(zone, start) != offset(zone, start - 1)


@pytest.mark.parametrize("zone", ZONES)
def test_a_day_later_the_clock_shows_the_same(zone: str) -> None:
    numbers = moments(zone)
    seen = run(source(numbers, "ms", zone), r=col("v").dt.offset_by("1d"))["r"]
    for at, after in zip(numbers, seen, strict=True):
        wall = local(zone, at // 1000).replace(tzinfo=None) + timedelta(days=1, milliseconds=at % 1000)
        naive = wall.replace(tzinfo=ZoneInfo(zone))
        points = {(naive.replace(fold=fold) - EPOCH_UTC) // timedelta(milliseconds=1) for fold in (0, 1)}
        assert after in points


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe"])
def test_files_hold_the_offset_of_the_clock(zone: str, tmp_path: Path) -> None:
    numbers = moments(zone)
    stream = source(numbers, "s", zone)
    mill.run(stream.write_csv(tmp_path / "csv"), stream.write_json(tmp_path / "json"), parallelism=1)
    (csv_file,) = (tmp_path / "csv").glob("*.csv")
    (json_file,) = (tmp_path / "json").glob("*.json*")
    texts = [row["v"] for row in csv.DictReader(csv_file.read_text().splitlines())]
    assert texts == [json.loads(line)["v"] for line in json_file.read_text().splitlines()]
    times = [local(zone, at) for at in numbers]
    assert [datetime.fromisoformat(text).astimezone(UTC) for text in texts] == [t.astimezone(UTC) for t in times]
    assert [datetime.fromisoformat(text).utcoffset() for text in texts] == [t.utcoffset() for t in times]
    naive = [{"v": t.replace(tzinfo=None).isoformat()} for t in times if t.replace(fold=1).utcoffset() == t.utcoffset() and not t.fold]
    (tmp_path / "naive.json").write_text("\n".join(json.dumps(row) for row in naive))
    back = mill.read_json(tmp_path / "naive.json", schema={"v": mill.Timestamp("s", zone)}).collect().to_pylist()
    assert [row["v"].replace(tzinfo=None).isoformat() for row in back] == [row["v"] for row in naive]


def test_a_date_meets_a_time_of_a_zone_at_the_start_of_its_day() -> None:
    zone = "America/Sao_Paulo"
    days = [date(2018, 11, 4), date(2018, 2, 18), date(2150, 7, 1)]
    starts = [datetime(2018, 11, 4, 3, tzinfo=UTC), datetime(2018, 2, 18, 3, tzinfo=UTC), datetime(2150, 7, 1, 3, tzinfo=UTC)]
    table = pa.table({"d": days, "t": pa.array(starts, pa.timestamp("us", zone))})
    rows = mill.from_arrow(table).select(same=col("d") == col("t"), first=mill.coalesce("d", "t"), t="t").collect(parallelism=1)
    assert [(row["same"], row["first"]) for row in rows.to_pylist()] == [(True, row["t"]) for row in rows.to_pylist()]
    july = pa.table({"d": [date(2150, 7, 1)], "t": pa.array([datetime(2150, 7, 1, 4, tzinfo=UTC)], pa.timestamp("ns", "America/New_York"))})
    assert mill.from_arrow(july).select(same=col("d") == col("t")).collect().to_pylist() == [{"same": True}]


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Pacific/Kiritimati", "America/New_York", "+14:00", None])
def test_the_ends_of_the_range_of_nanoseconds_have_a_date_and_a_time(zone: str | None) -> None:
    numbers = [2**63 - 1, 2**63 - 2, 2**63 - 10**9, -(2**63), -(2**63) + 1, -(2**63) + 10**9]
    seen = run(
        source(numbers, "ns", zone),
        date=col("v").cast(date),
        time=col("v").dt.time().cast(int),
        of_dt=col("v").dt.date(),
        year=col("v").dt.year(),
        hour=col("v").dt.hour(),
        nanos=col("v").dt.nanosecond(),
        text=col("v").cast(str),
    )
    for row, value in enumerate(numbers):
        at = value // 10**9
        shift = 0 if zone is None else 14 * 3600 if zone[0] == "+" else offset(zone, at)
        shown = EPOCH + timedelta(seconds=at + shift)
        assert seen["date"][row] == seen["of_dt"][row] == shown.date()
        assert seen["time"][row] == (at + shift) % DAY * 10**9 + value % 10**9
        assert (seen["year"][row], seen["hour"][row], seen["nanos"][row]) == (shown.year, shown.hour, value % 10**9)
