"""The conversion matrix: every type into every other, by every way in, against plain Python.

``convert`` below says in exact arithmetic what a value becomes, in two strengths: what arrives must be what was declared
(``exact``: Parquet, results of functions), and what a user asked for (``cast``). A value that does not fit is refused with its
column and itself, or becomes null where ``strict=False`` asks for that. Readers of text are compared with Python's own idea of the text.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float32(), pa.float64()]
DECIMALS = [pa.decimal128(38, 9), pa.decimal128(5, 2), pa.decimal128(18, 0)]
DURATIONS = [pa.duration(unit) for unit in ("s", "ms", "us", "ns")]
TIMESTAMPS = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "Europe/Berlin")]
TYPES = [pa.bool_(), *INTEGERS, *FLOATS, *DECIMALS, pa.string(), pa.binary(), pa.date32(), *DURATIONS, *TIMESTAMPS]
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAY = 86_400
LEAST, MOST = -(2**63), 2**63 - 1

REFUSED = object()
"""This value does not fit."""
NEVER = object()
"""There is no such conversion."""
COUNTS: Counter[tuple[str, str]] = Counter()


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def bounds(kind: pa.DataType) -> tuple[int, int]:
    """The ends of a type that is stored as a whole number."""
    if pa.types.is_unsigned_integer(kind):
        return 0, 2**kind.bit_width - 1
    width = kind.bit_width
    return -(2 ** (width - 1)), 2 ** (width - 1) - 1


def values(kind: pa.DataType) -> list[Any]:
    """Values of a type, many of them from its ends; those of times are their numbers of units."""
    if pa.types.is_boolean(kind):
        return [True, False]
    if pa.types.is_integer(kind):
        least, most = bounds(kind)
        near = [0, 1, 2, 100, 127, 128, 255, 256, 32_767, 65_536, 2**24 + 1, 2**31, 2**32, 2**53 + 1, 10**18, 2**63 - 1, 2**63]
        return sorted({least, most, *(v for n in near for v in (n, -n) if least <= v <= most)})
    if pa.types.is_floating(kind):
        given = [0.0, -0.0, 1.0, -1.0, 0.5, 0.1, -2.5, 127.0, 128.0, 255.0, 256.0, 1e9, 2.0**53, 2.0**63, -(2.0**63), 1e300, 5e-324]
        given += [math.inf, -math.inf, math.nan, 2.0**64, 99_999.0, 3.4e38, 1e17]
        return [narrow(v) for v in given] if kind == pa.float32() else given
    if pa.types.is_decimal(kind):
        most = 10**kind.precision - 1
        numbers = [0, 1, -1, most, -most, 10**kind.scale, 127 * 10**kind.scale, 128 * 10**kind.scale, 5 * 10 ** max(kind.scale - 1, 0)]
        return [Decimal(n).scaleb(-kind.scale, Context(prec=80)) for n in numbers if abs(n) <= most]
    if pa.types.is_string(kind):
        return ["", "0", "1", "-1", "127", "128", "1.5", "1e3", "NaN", "inf", "true", "x", "é", "2024-02-29", "2024-02-29T12:00:00", " 1"]
    if pa.types.is_binary(kind):
        return [b"", b"0", b"\xff", "é".encode()]
    if pa.types.is_date(kind):
        return [0, 1, -1, 19_782, -719_162, 2**31 - 1, -(2**31), 106_751, 106_752, -106_752]
    unit = PER_SECOND[kind.unit]
    near = [0, 1, -1, unit, -unit, unit - 1, 1 - unit, 1_700_000_000 * unit + 1, DAY * unit, MOST // 1000, MOST, LEAST, -(10**15) - 1]
    return sorted({v for v in near if LEAST <= v <= MOST})


def narrow(value: float) -> float:
    """The nearest float of 32 bits."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def number_of(value: Any) -> Fraction | None:
    """A number without rounding; None for NaN and infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else Fraction(value)


def into_number(value: Any, source: pa.DataType, target: pa.DataType) -> Any:
    """A number as another type of numbers."""
    number = number_of(value)
    if pa.types.is_integer(target):
        least, most = bounds(target)
        return int(number) if number is not None and number.denominator == 1 and least <= number <= most else REFUSED
    if pa.types.is_floating(target):
        if pa.types.is_floating(source):
            narrowed = narrow(value) if target == pa.float32() else value
            return REFUSED if math.isinf(narrowed) and not math.isinf(value) else narrowed
        assert number is not None
        near = float(number)
        if target == pa.float32():
            near = nearest32(number)
        if math.isinf(near) or (pa.types.is_integer(source) and Fraction(near) != number):
            return REFUSED
        return near
    if number is None:
        return REFUSED
    # A float enters a decimal by its shortest text.
    digits = Decimal(shortest(value, source)) if isinstance(value, float) else None
    exact = Fraction(digits) if digits is not None else number
    scaled = exact * 10**target.scale
    if scaled.denominator != 1 or abs(scaled) >= 10**target.precision:
        return REFUSED
    return Decimal(int(scaled)).scaleb(-target.scale, Context(prec=80))


def nearest32(number: Fraction) -> float:
    """The float of 32 bits that is nearest to a number, ties to even, rounded once."""
    middle = narrow(float(number))
    if math.isinf(middle) or middle == 0:
        return middle
    bits = struct.unpack("i", struct.pack("f", middle))[0]
    around = [struct.unpack("f", struct.pack("i", bits + step))[0] for step in (-1, 0, 1)]
    finite = [v for v in around if math.isfinite(v)]
    return min(finite, key=lambda v: (abs(Fraction(v) - number), struct.unpack("i", struct.pack("f", v))[0] & 1))


def shortest(value: float, kind: pa.DataType) -> str:
    """The shortest text that is read back as the same float of this type."""
    if kind == pa.float64():
        return repr(value)
    return next(text for digits in range(1, 18) if narrow(float(text := f"{value:.{digits}g}")) == value)


def rescaled(value: int, source: int, target: int, is_cast: bool) -> Any:
    """A number of units as one of other units: rounded down where a cast asks for it."""
    whole = Fraction(value) * target / source
    if whole.denominator != 1 and not is_cast:
        return REFUSED
    found = math.floor(whole)
    return found if LEAST <= found <= MOST else REFUSED


def offset(zone: str, second: int) -> int:
    """The seconds by which the clock of a zone is ahead of UTC, also in years that Python's times do not have."""
    cycle, first, later = 146_097 * DAY, -62_135_510_400, 4_102_444_800
    second = later + (second - later) % cycle if second >= later else max(second, first)
    found = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)).astimezone(ZoneInfo(zone)).utcoffset()
    assert found is not None
    return int(found.total_seconds())


def convert(value: Any, source: pa.DataType, target: pa.DataType, is_cast: bool) -> Any:
    """What a value becomes."""
    if source == target:
        return value
    if pa.types.is_boolean(source) and is_number(target):
        return into_number(int(value), pa.int64(), target) if is_cast else NEVER
    if is_number(source) and pa.types.is_boolean(target):
        return (value != 0) if is_cast else NEVER
    if is_number(source) and is_number(target):
        return into_number(value, source, target)
    if pa.types.is_duration(source) and pa.types.is_duration(target):
        return rescaled(value, PER_SECOND[source.unit], PER_SECOND[target.unit], is_cast)
    if pa.types.is_timestamp(source) and pa.types.is_timestamp(target):
        if (source.tz is None) != (target.tz is None) and not (is_cast and "UTC" in (source.tz, target.tz)):
            return NEVER
        return rescaled(value, PER_SECOND[source.unit], PER_SECOND[target.unit], is_cast)
    if pa.types.is_date(source) and pa.types.is_timestamp(target):
        if target.tz is not None and not (is_cast and target.tz == "UTC"):
            return NEVER
        return rescaled(value * DAY, 1, PER_SECOND[target.unit], is_cast)
    if pa.types.is_timestamp(source) and pa.types.is_date(target):
        if source.tz is not None and not is_cast:
            return NEVER
        per_second = PER_SECOND[source.unit]
        shift = 0 if source.tz is None else offset(source.tz, value // per_second)
        days = Fraction(value + shift * per_second, DAY * per_second)
        if days.denominator != 1 and not is_cast:
            return REFUSED
        return math.floor(days) if -(2**31) <= math.floor(days) < 2**31 else REFUSED
    return None


def array(kind: pa.DataType, given: list[Any]) -> pa.Array:
    """An array of values as :func:`values` has them."""
    if pa.types.is_temporal(kind):
        return pa.array(given, pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    return pa.array(given, kind)


def plain(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column as :func:`values` has them."""
    kind = column.type
    if pa.types.is_temporal(kind):
        return column.combine_chunks().cast(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    return column.to_pylist()


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same, to the sign of a zero."""
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return type(a) is type(b) and a == b


def pairs() -> Iterator[tuple[pa.DataType, pa.DataType]]:
    """Pairs of types about which :func:`convert` knows something."""
    for source, target in itertools.product(TYPES, TYPES):
        if source != target and convert(values(source)[0], source, target, True) is not None:
            yield source, target


@pytest.mark.parametrize("source", TYPES, ids=str)
def test_casts_are_exact_or_refused(source: pa.DataType) -> None:
    for target in [target for of, target in pairs() if of == source]:
        given = values(source)
        wanted = [convert(value, source, target, True) for value in given]
        stream = mill.from_arrow(pa.table({"n": range(len(given)), "a": array(source, given)}))
        where = f"{source} to {target}"
        if NEVER in wanted:
            with pytest.raises(mill.MillstreamError, match='"a"'):
                stream.cast({"a": target}).collect()
            COUNTS["cast", "no conversion"] += 1
            continue
        found = stream.with_columns(a=mill.col("a").cast(target, strict=False)).collect(parallelism=1).to_arrow().sort_by("n")
        assert found["a"].type == target, where
        for value, want, got in zip(given, wanted, plain(found["a"]), strict=True):
            assert same(got, None if want is REFUSED else want), f"{where}: {value!r} is {want!r}, seen {got!r}"
            COUNTS["cast(strict=False)", "null" if want is REFUSED else "exact"] += 1
        cast = stream.cast({"a": target})
        refused = {row for row, want in enumerate(wanted) if want is REFUSED}
        kept = cast.collect(parallelism=1, on_error="skip").to_arrow()
        assert set(range(len(given))) - set(kept["n"].to_pylist()) == refused, where
        errors = cast.errors.collect(parallelism=1, on_error="route").to_pylist()
        assert len(errors) == len(refused), where
        assert all('"a"' in error["error"] for error in errors), f"{where}: {errors[:1]}"
        COUNTS["cast", "exact"] += len(given) - len(refused)
        COUNTS["cast", "refused"] += len(refused)


@pytest.mark.parametrize("source", TYPES, ids=str)
def test_parquet_and_results_of_functions_are_exact_or_refused(tmp_path: Path, source: pa.DataType) -> None:
    for number, target in enumerate([target for of, target in pairs() if of == source]):
        given = values(source)
        wanted = [convert(value, source, target, False) for value in given]
        where = f"{source} to {target}"
        fits = [value for value, want in zip(given, wanted, strict=True) if want is not REFUSED and want is not NEVER]
        results = [want for want in wanted if want is not REFUSED and want is not NEVER]

        def of_function(part: list[Any], target: pa.DataType = target) -> mill.Stream:
            batch = pa.record_batch({"a": array(source, part)})
            return mill.from_iter([{"k": 1}]).map_batches(lambda _: batch, schema=pa.schema([("a", target)]))

        def of_file(part: list[Any], target: pa.DataType = target, number: int = number) -> mill.Stream:
            path = tmp_path / f"{number}-{len(part)}-{hash(str(part))}.parquet"
            pq.write_table(pa.table({"a": array(source, part)}), path, coerce_timestamps=None)
            return mill.read_parquet(path, schema=pa.schema([("a", target)]))

        # Parquet has no seconds: pyarrow writes them as milliseconds, which not all of them fit.
        is_filed = not (pa.types.is_timestamp(source) and source.unit == "s") and not pa.types.is_duration(source)
        for way in ("map_batches", "read_parquet") if is_filed else ("map_batches",):
            make = of_function if way == "map_batches" else of_file
            if fits:
                found = make(fits).collect(parallelism=1).to_arrow()["a"]
                assert found.type == target, where
                for value, want, got in zip(fits, results, plain(found), strict=True):
                    assert same(got, want), f"{way}, {where}: {value!r} is {want!r}, seen {got!r}"
                COUNTS[way, "exact"] += len(fits)
            for value, want in zip(given, wanted, strict=True):
                if want is REFUSED or want is NEVER:
                    with pytest.raises(mill.MillstreamError, match="a"):
                        print(f"{way}, {where}: {value!r} became", make([value]).collect(parallelism=1).to_pylist())
                    COUNTS[way, "refused"] += 1
                if want is NEVER:
                    break


TEXTS = [
    *("0", "1", "-1", "127", "128", "-128", "-129", "255", "256", "65536", "9223372036854775807", "9223372036854775808", "1e3", "1.0"),
    *("18446744073709551615", "18446744073709551616", "-9223372036854775809", "1.5", "0.1", "1e400", "123.45", "123.456", "99999.99"),
    *("x", "1x", "--1", "1_000", "0x10", "true", "2024-02-29", "2023-02-29", "2024-02-29T12:30:00", "2024-02-29T12:30:00.5Z"),
]
NUMBERS = [text for text in TEXTS if text.replace("-", "", 1).replace(".", "").replace("e", "", 1).isdigit()]


def of_text(text: str, target: pa.DataType) -> Any:
    """What a text is in a column of numbers."""
    try:
        exact = Fraction(text) if "_" not in text else None
    except ValueError:
        exact = None
    if exact is None:
        return REFUSED
    if pa.types.is_integer(target):
        least, most = bounds(target)
        return int(exact) if exact.denominator == 1 and least <= exact <= most else REFUSED
    if pa.types.is_floating(target):
        near = nearest32(exact) if target == pa.float32() and abs(exact) < 10**39 else float(text)
        # Whole numbers are not rounded.
        is_lost = math.isinf(near) or (text.lstrip("-").isdigit() and Fraction(near) != exact)
        return REFUSED if is_lost else near
    scaled = exact * 10**target.scale
    if scaled.denominator != 1 or abs(scaled) >= 10**target.precision:
        return REFUSED
    return Decimal(int(scaled)).scaleb(-target.scale, Context(prec=80))


@pytest.mark.parametrize("target", [*INTEGERS, *FLOATS, *DECIMALS], ids=str)
@pytest.mark.parametrize("form", ["csv", "json", "cast", "from_iter"])
def test_numbers_in_texts_are_exact_or_refused(tmp_path: Path, form: str, target: pa.DataType) -> None:
    texts = [text for text in (NUMBERS if form in ("json", "from_iter") else TEXTS) if not text.startswith("--")]
    schema = pa.schema([("n", pa.int64()), ("a", target)])
    for number, text in enumerate(texts):
        want: Any = of_text(text, target)
        if form == "csv":
            (tmp_path / "a.csv").write_text(f"n,a\n7,{text}\n")
            stream = mill.read_csv(tmp_path / "a.csv", schema=schema)
        elif form == "json":
            (tmp_path / "a.json").write_text(f'{{"n":7,"a":{text}}}\n')
            stream = mill.read_json(tmp_path / "a.json", schema=schema)
        elif form == "cast":
            stream = mill.from_iter([{"n": 7, "a": text}]).cast({"a": target})
        else:
            value = int(text) if text.lstrip("-").isdigit() else Decimal(text)
        where = f"{form} {number}, {text!r} as {target}"
        try:
            if form == "from_iter":
                stream = mill.from_iter([{"n": 7, "a": value}], schema=schema)
            found: Any = stream.collect(parallelism=1).to_arrow()["a"].to_pylist()[0]
        except mill.MillstreamError as error:
            assert want is REFUSED, f"{where}: {error}"
            assert '"a"' in str(error), f"{where}: {error}"
            assert text in str(error) or form == "from_iter", f"{where}: {error}"
            COUNTS[form, "refused"] += 1
        else:
            assert want is not REFUSED, f"{where} became {found!r}"
            assert same(found, want), f"{where}: {want!r}, seen {found!r}"
            COUNTS[form, "exact"] += 1


@pytest.mark.parametrize("kind", [pa.date32(), pa.time64("us"), *DURATIONS, *TIMESTAMPS], ids=str)
def test_numbers_in_columns_of_times(tmp_path: Path, kind: pa.DataType) -> None:
    schema = pa.schema([("a", kind)])
    # In JSON a whole number is a number of units.
    for text, want in (("1", 1), ("1.5", None), ("1700000", 1_700_000), ("1e2", 100), ("9223372036854775808", None)):
        (tmp_path / "a.json").write_text(f'{{"a":{text}}}\n')
        stream = mill.read_json(tmp_path / "a.json", schema=schema)
        if want is None:
            with pytest.raises(mill.MillstreamError, match=f'"a".*{text}'):
                print(text, stream.collect().to_pylist())
            COUNTS["json", "refused"] += 1
        else:
            assert plain(stream.collect().to_arrow()["a"]) == [want]
            COUNTS["json", "exact"] += 1
    # In Python a number has no unit.
    for value in (1, 1.5, np.int64(1), True, Decimal(1)):
        with pytest.raises(mill.MillstreamError, match='"a"'):
            print(value, mill.from_iter([{"a": value}], schema=schema).collect().to_pylist())
        COUNTS["from_iter", "refused"] += 1


def test_how_many_cells_there_were() -> None:
    """Runs last, and prints the counts (``-s`` shows them)."""
    for (way, what), count in sorted(COUNTS.items()):
        print(f"{way:20} {what:15} {count:6}")
    print(f"{sum(COUNTS.values())} cells")
