"""Arithmetic, aggregates and comparisons agree with Python's numbers, to the last digit."""

from __future__ import annotations

import math
import operator
import os
import random
import re
import statistics
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from functools import cache
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, lit
from millstream.errors import MillstreamError

SEED = int(os.environ.get("SEED", "20261125"))

KNOWN: dict[str, str] = {}
"""Cells that fail for now, by their name, each with what is wrong; a cell that passes again must be taken out."""

NAN, INF = float("nan"), float("inf")
INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
INT, UINT, FLOAT, TEXT = pa.int64(), pa.uint64(), pa.float64(), pa.string()
DEC = pa.decimal128(38, 6)


def known(name: str) -> list[pytest.MarkDecorator]:
    """Return the mark of a cell that fails for now."""
    return [pytest.mark.xfail(reason=KNOWN[name], strict=True)] if name in KNOWN else []


def cells(prefix: str, names: Any) -> list[Any]:
    """Return parameters, those in KNOWN marked as failing."""
    return [pytest.param(name, marks=known(f"{prefix} {name}"), id=str(name)) for name in names]


# -- the job -------------------------------------------------------------------------------------------------------------


def source(**columns: tuple[Any, Any]) -> mill.Stream:
    """Return a stream of columns, each given as values and a type."""
    return mill.from_arrow(pa.table({name: pa.array(list(values), kind) for name, (values, kind) in columns.items()}))


def run(stream: mill.Stream, **columns: Any) -> dict[str, list[Any]]:
    """Return what expressions make of a stream."""
    table = stream.select(**columns).collect(parallelism=1).to_arrow()
    return {name: table[name].to_pylist() for name in columns}


def one(values: Any, kind: Any, expression: Any) -> list[Any]:
    """Return what an expression over the column ``v`` makes of values."""
    return run(source(v=(values, kind)), r=expression)["r"]


def kept(stream: mill.Stream, expression: Any) -> dict[int, Any]:
    """Return the results of an expression by the column ``i``, without the records for which it is an error."""
    table = stream.select("i", r=expression).collect(parallelism=1, on_error="skip").to_arrow()
    return dict(zip(table["i"].to_pylist(), table["r"].to_pylist(), strict=True))


def is_same(a: Any, b: Any) -> bool:
    """Tell whether values are the same, also NaN and the sign of zero."""
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return type(a) is type(b) and bool(a == b)


def same(given: Any, expected: list[Any], seen: list[Any]) -> None:
    """Check values one by one, and show the first that differ."""
    assert len(expected) == len(seen)
    wrong = [(v, e, s) for v, e, s in zip(given, expected, seen, strict=True) if not is_same(e, s)]
    assert not wrong, f"{len(wrong)} of {len(seen)} differ (SEED={SEED}); value, expected, seen: {wrong[:5]}"


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    """Return what Python computes, or the error."""
    try:
        return function(*args)
    except (ArithmeticError, ValueError) as error:
        return error


def signed(chance: random.Random) -> int:
    """Return an integer of 64 bits, often one near an end or near zero."""
    kind = chance.randrange(4)
    if kind == 0:
        return chance.choice([INT_MIN, INT_MIN + 1, INT_MAX, INT_MAX - 1])
    if kind == 1:
        return chance.randrange(-5, 6)
    if kind == 2:
        return chance.choice([1, -1]) * (1 << chance.randrange(63)) + chance.randrange(-1, 2)
    return chance.randrange(INT_MIN, INT_MAX + 1)


def floating(chance: random.Random) -> float:
    """Return a float, often a special one."""
    kind = chance.randrange(4)
    if kind == 0:
        return chance.choice(
            [
                0.0,
                -0.0,
                1.0,
                -1.0,
                INF,
                -INF,
                NAN,
                5e-324,
                1.7976931348623157e308,
                2.0**53,
                2.0**63,
                -(2.0**63),
                2.0**64,
            ]
        )
    if kind == 1:
        return float(chance.randrange(-20, 20)) / 4
    if kind == 2:
        return math.ldexp(chance.uniform(-1, 1), chance.randrange(-1070, 1023))
    return chance.uniform(-1000, 1000)


# -- sums, means, variances ----------------------------------------------------------------------------------------------


def rounded(exact: Fraction) -> float:
    """Return the float nearest to an exact number."""
    return exact.numerator / exact.denominator


def root(exact: Fraction) -> float:
    """Return the float nearest to a square root."""
    if exact == 0:
        return 0.0
    shift = max(0, 220 - exact.numerator.bit_length() + exact.denominator.bit_length())
    shift += shift % 2
    return rounded(Fraction(math.isqrt((exact.numerator << shift) // exact.denominator), 1 << shift // 2))


def variance(values: list[Any]) -> Fraction:
    """Return the exact variance of a sample."""
    exact = [Fraction(v) for v in values]
    mean = sum(exact, Fraction()) / len(exact)
    return sum(((v - mean) ** 2 for v in exact), Fraction()) / (len(exact) - 1)


def groups(chance: random.Random) -> dict[str, list[float]]:
    """Return groups of floats on which plain sums lose digits."""
    n = 60
    return {
        "small": [chance.uniform(-1, 1) for _ in range(n)],
        "offset 1e9": [1e9 + chance.uniform(-1e-6, 1e-6) for _ in range(n)],
        "offset 1e15": [1e15 + chance.randrange(8) / 8 for _ in range(n)],
        "offset -1e12": [-1e12 + chance.gauss(0, 1e-3) for _ in range(n)],
        "cancelling": [
            x for _ in range(n // 2) for x in [10.0 ** chance.randrange(0, 16)] for x in (x + chance.random(), -x)
        ],
        "tenths": [0.1] * n,
        "wide": [math.ldexp(chance.uniform(-1, 1), chance.randrange(-40, 40)) for _ in range(n)],
        "equal": [chance.uniform(1, 2) * 1e8] * n,
        "two": [1e9, 1e9 + 1e-7],
        "tiny": [chance.uniform(0, 1) * 1e-200 for _ in range(n)],
        "huge": [chance.uniform(-1, 1) * 1e150 for _ in range(n)],
        "outlier": [1e9 + chance.random() * 1e-3 for _ in range(n)] + [1e16],
    }


GROUPS = list(groups(random.Random(SEED)))
SPREADS = {"sum": 0, "mean": 0, "var": 1, "std": 1}
"""How many units of the last place each aggregate of floats may be off."""


def ulps(a: float, b: float) -> float:
    """Return how many units of the last place two floats are apart."""
    return 0.0 if a == b else abs(a - b) / math.ulp(b)


@cache
def floats_seen(parallelism: int, *, windows: bool) -> list[dict[str, Any]]:
    """Return the aggregates of all groups, of several seeds, from one job."""
    rows = [
        (f"{name}/{seed}", x)
        for seed in range(6)
        for name, xs in groups(random.Random(SEED + seed)).items()
        for x in xs
    ]
    random.Random(SEED).shuffle(rows)
    names = [name for name, _ in rows]
    columns = {"k": (names, TEXT), "x": ([x for _, x in rows], FLOAT), "t": (range(len(rows)), INT)}
    stream = source(**columns)
    aggregates: dict[str, Any] = {
        "sum": col("x").sum(),
        "mean": col("x").mean(),
        "var": col("x").var(),
        "std": col("x").std(),
    }
    if windows:
        stream = stream.with_columns(t=col("t").cast(mill.Timestamp("s"))).event_time("t", watermark="0s")
        out = stream.key_by("k").window(mill.tumbling("1d")).agg(**aggregates)
    else:
        out = stream.key_by("k").agg(**aggregates)
    return out.collect(parallelism=parallelism).to_pylist()


@cache
def exact(aggregate: str, name: str, seed: int) -> float:
    """Return an aggregate of a group, rounded once."""
    values = groups(random.Random(SEED + seed))[name]
    total = sum(map(Fraction, values), Fraction())
    return {
        "sum": lambda: rounded(total),
        "mean": lambda: rounded(total / len(values)),
        "var": lambda: rounded(variance(values)),
        "std": lambda: root(variance(values)),
    }[aggregate]()


@pytest.mark.parametrize("parallelism", [1, 2, 3])
@pytest.mark.parametrize("windows", [False, True], ids=["keyed", "windows"])
@pytest.mark.parametrize("cell", cells("floats", [f"{aggregate} {name}" for aggregate in SPREADS for name in GROUPS]))
def test_aggregates_of_floats_are_rounded_once(cell: str, windows: bool, parallelism: int) -> None:
    aggregate, wanted = cell.split(" ", 1)
    seen = [(*row["k"].split("/"), row[aggregate]) for row in floats_seen(parallelism, windows=windows)]
    pairs = [(exact(aggregate, name, int(seed)), value) for name, seed, value in seen if name == wanted]
    assert len(pairs) == 6
    assert not [(e, s) for e, s in pairs if ulps(s, e) > SPREADS[aggregate]]


def test_aggregates_do_not_depend_on_parallelism() -> None:
    results = [sorted(map(repr, floats_seen(parallelism, windows=False))) for parallelism in (1, 2, 3)]
    assert results[0] == results[1] == results[2]


LARGE: dict[str, Callable[[list[int]], Any]] = {
    "min": min,
    "max": max,
    "mean": lambda values: rounded(Fraction(sum(values), len(values))),
    "var": lambda values: rounded(variance(values)),
    "std": lambda values: root(variance(values)),
    "median": lambda values: rounded(Fraction(statistics.median(map(Fraction, values)))),
}


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize(
    "cell", cells("large", [f"{aggregate} {kind}" for aggregate in LARGE for kind in (INT, UINT, DEC)])
)
def test_aggregates_of_large_numbers(cell: str, parallelism: int) -> None:
    aggregate = cell.split()[0]
    kind = next(kind for kind in (INT, UINT, DEC) if str(kind) == cell.split(" ", 1)[1])
    chance = random.Random(f"{SEED} {cell}")
    low, high = (INT_MIN, INT_MAX) if kind == INT else (0, UINT_MAX)
    sets = {k: [chance.choice([low, high, (low + high) // 2]) for _ in range(40)] for k in range(10)}
    sets |= {k: [2**53 + 1 + chance.randrange(4) for _ in range(40)] for k in range(10, 20)}
    sets |= {k: [high - chance.randrange(3) for _ in range(2)] for k in range(20, 30)}
    rows = [(k, v) for k, values in sets.items() for v in values]
    stream = source(k=([k for k, _ in rows], INT), x=([v for _, v in rows], kind))
    seen = stream.key_by("k").agg(r=getattr(col("x"), aggregate)()).collect(parallelism=parallelism).to_pylist()
    expected = {k: LARGE[aggregate](values) for k, values in sets.items()}
    assert len(seen) == len(sets)
    assert not [
        (row, expected[row["k"]])
        for row in seen
        if row["r"] != expected[row["k"]] and not ulps(row["r"], expected[row["k"]]) <= 1
    ]


def of_one_key(values: Any, kind: Any, aggregate: Any, parallelism: int = 1) -> Any:
    """Return an aggregate of values of one key."""
    stream = source(v=(values, kind)).with_columns(k=1)
    (row,) = stream.key_by("k").agg(r=aggregate).collect(parallelism=parallelism).to_pylist()
    return row["r"]


SUMS: dict[str, tuple[list[Any], Any]] = {
    "max": ([INT_MAX], INT),
    "max and zero": ([INT_MAX, 0], INT),
    "max and one": ([INT_MAX, 1], INT),
    "min": ([INT_MIN], INT),
    "min and minus one": ([INT_MIN, -1], INT),
    "min and max": ([INT_MIN, INT_MAX], INT),
    "two halves": ([2**62, 2**62], INT),
    "two halves less one": ([2**62, 2**62 - 1], INT),
    "unsigned max": ([UINT_MAX], UINT),
    "unsigned max and one": ([UINT_MAX, 1], UINT),
    "unsigned halves": ([2**63, 2**63 - 1], UINT),
    "32 bits": ([2**31 - 1, 2**31 - 1], pa.int32()),
    "8 bits": ([127, 127, 127], pa.int8()),
    "unsigned 8 bits": ([255, 255], pa.uint8()),
    "in between": ([INT_MAX, 1, -1], INT),
    "null": ([None, 5, None], INT),
    "nothing": ([None], INT),
}


@pytest.mark.parametrize("name", cells("sum", SUMS))
@pytest.mark.parametrize("parallelism", [1, 2])
def test_sums_of_integers_are_exact_or_an_error(name: str, parallelism: int) -> None:
    values, kind = SUMS[name]
    numbers = [v for v in values if v is not None]
    exact = sum(numbers) if numbers else None
    low, high = (0, UINT_MAX) if "uint" in str(kind) else (INT_MIN, INT_MAX)
    if exact is not None and not low <= exact <= high:
        with pytest.raises(MillstreamError):
            of_one_key(values, kind, col("v").sum(), parallelism)
    else:
        assert of_one_key(values, kind, col("v").sum(), parallelism) == exact


@pytest.mark.parametrize("kind", [INT, UINT], ids=str)
def test_sums_of_integers_that_fit_are_right_whatever_comes_first(kind: Any) -> None:
    chance = random.Random(f"{SEED} order {kind}")
    values = [INT_MAX, INT_MAX, INT_MIN, INT_MIN, 1, 1] if kind == INT else [2**63, 2**62, 2**62 - 1]
    for _ in range(5):
        chance.shuffle(values)
        for parallelism in (1, 2):
            assert of_one_key(values, kind, col("v").sum(), parallelism) == sum(values)


def test_sums_of_many_numbers_are_exact_whatever_their_parts() -> None:
    chance = random.Random(f"{SEED} parts")
    limits = {INT: (INT_MIN, INT_MAX), pa.decimal128(38, 2): (1 - 10**38, 10**38 - 1), pa.duration("us"): (INT_MIN, INT_MAX)}
    for kind, (low, high) in limits.items():
        sets: dict[int, list[int]] = {}
        for k in range(40):
            values = [chance.choice([low, high, low + 5, high - 7, chance.randrange(low, high)]) for _ in range(50)]
            # The last values lead back to a total near an end of the range, on either side of it.
            rest = chance.choice([low, high]) + chance.randrange(-3, 4) - sum(values)
            while rest:
                values.append(max(low, min(high, rest)))
                rest -= values[-1]
            chance.shuffle(values)
            sets[k] = values
        rows = [(k, v) for k, values in sets.items() for v in values]
        chance.shuffle(rows)
        with localcontext(prec=60):
            scaled = [v if kind in (INT, pa.duration("us")) else Decimal(v).scaleb(-2) for _, v in rows]
            stream = source(k=([k for k, _ in rows], INT), x=(scaled, kind))
        expected = {k: sum(values) for k, values in sets.items() if low <= sum(values) <= high}
        assert 5 < len(expected) < 35
        for parallelism in (1, 3):
            out = stream.key_by("k").agg(r=col("x").sum(), n=mill.count())
            table = out.collect(parallelism=parallelism, on_error="skip").to_arrow()
            if kind == pa.duration("us"):
                sums = table["r"].cast(INT).to_pylist()
            elif kind == INT:
                sums = table["r"].to_pylist()
            else:
                with localcontext(prec=60):
                    sums = [int(v.scaleb(2)) for v in table["r"].to_pylist()]
            assert dict(zip(table["k"].to_pylist(), sums, strict=True)) == expected, kind
            assert table["n"].to_pylist() == [len(sets[k]) for k in table["k"].to_pylist()]


@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_total_that_does_not_fit_is_an_error_of_the_result(parallelism: int) -> None:
    stream = source(k=([1, 1, 2], INT), x=([INT_MAX, INT_MAX, 5], INT))
    with pytest.raises(MillstreamError, match=r'step "agg": sum "r" is 18446744073709551614 and overflows int64.*\{"k":1,"r":null\}'):
        stream.key_by("k").agg(r=col("x").sum()).collect(parallelism=parallelism)
    with pytest.raises(MillstreamError, match=r'step "agg": a sum is 18446744073709551614'):
        stream.key_by("k").agg(r=col("x").sum() / mill.count()).collect(parallelism=parallelism)
    kept = stream.key_by("k").agg(r=col("x").sum()).collect(parallelism=parallelism, on_error="skip")
    assert kept.to_pylist() == [{"k": 2, "r": 5}]


def test_errors_of_an_aggregate_name_the_step_and_none_of_its_stages() -> None:
    stream = source(k=([1, 1], INT), s=(["a", "1"], TEXT), t=([1, 2], INT))
    windowed = stream.with_columns(t=col("t").cast(mill.Timestamp("s"))).event_time("t", watermark="0s")
    numbers = col("s").cast(int)
    for out, name in (
        (stream.key_by("k").agg(r=numbers.sum()), "agg"),
        (stream.key_by("k").agg(r=numbers.first()), "agg"),
        (stream.key_by("k").agg(r=numbers.sum() + 1), "agg"),
        (windowed.key_by("k").window(mill.tumbling("1d")).agg(r=numbers.max()), "window"),
    ):
        for parallelism in (1, 2):
            with pytest.raises(MillstreamError) as failure:
                out.collect(parallelism=parallelism)
            assert failure.value.step == name
            assert str(failure.value).startswith(f'step "{name}": ')
            assert not re.search(r"\.(input|partial|result|late)\b|__agg|__\d", str(failure.value)), str(failure.value)


ODD: dict[str, tuple[list[Any], Any, Any, Any]] = {
    "sum of decimals": (
        [Decimal("0.1"), Decimal("0.2"), Decimal("-7.123456")],
        DEC,
        col("v").sum(),
        Decimal("-6.823456"),
    ),
    "mean of decimals": ([Decimal("0.1"), Decimal("0.2")], DEC, col("v").mean(), 0.15),
    "var of one": ([1.0], FLOAT, col("v").var(), None),
    "std of none": ([None], FLOAT, col("v").std(), None),
    "var of two integers": ([INT_MIN, INT_MAX], INT, col("v").var(), rounded(variance([INT_MIN, INT_MAX]))),
    "var with NaN": ([1.0, NAN], FLOAT, col("v").var(), NAN),
    "var with infinity": ([1.0, INF], FLOAT, col("v").var(), NAN),
    "mean of infinities": ([INF, -INF], FLOAT, col("v").mean(), NAN),
    "sum of infinity": ([INF, 1.0], FLOAT, col("v").sum(), INF),
    "sum with NaN": ([1.0, NAN], FLOAT, col("v").sum(), NAN),
    "mean of large": ([1.5e308, 1.5e308], FLOAT, col("v").mean(), 1.5e308),
    "sum beyond and back": ([1.5e308, 1.5e308, -1.5e308], FLOAT, col("v").sum(), 1.5e308),
    "sum of minus zeros": ([-0.0, -0.0], FLOAT, col("v").sum(), 0.0),
    "min with NaN": ([NAN, 1.0, -INF], FLOAT, col("v").min(), -INF),
    "max with NaN": ([1.0, NAN, INF], FLOAT, col("v").max(), NAN),
    "min of NaN": ([NAN], FLOAT, col("v").min(), NAN),
    "min with null": ([None, 2.0, 1.0], FLOAT, col("v").min(), 1.0),
    "max of null": ([None], FLOAT, col("v").max(), None),
    "median with null": ([None, 1.0, 4.0], FLOAT, col("v").median(), 2.5),
    "median with NaN": ([NAN, 1.0, 2.0], FLOAT, col("v").median(), 2.0),
    "quantile with NaN": ([NAN, 1.0, 2.0], FLOAT, col("v").quantile(1.0), NAN),
    "median of null": ([None], FLOAT, col("v").median(), None),
    "median of large integers": ([2**53 + 1, 2**53 + 3], INT, col("v").median(), float(2**53 + 2)),
    "median of the ends": ([INT_MIN, INT_MAX], INT, col("v").median(), -0.5),
    "median of unsigned": ([UINT_MAX, UINT_MAX], UINT, col("v").median(), 2.0**64),
    "median of large floats": (
        [1.6e308, 1.7e308],
        FLOAT,
        col("v").median(),
        rounded((Fraction(1.6e308) + Fraction(1.7e308)) / 2),
    ),
    "median of infinities": ([INF, INF], FLOAT, col("v").median(), INF),
    "quantile at infinity": ([1.0, INF, INF], FLOAT, col("v").quantile(0.75), INF),
    "quantile between the ends of floats": ([-1.7e308, 1.7e308], FLOAT, col("v").quantile(0.25), -1.7e308 / 2),
    "quantile above minus infinity": ([-INF, 1.0], FLOAT, col("v").quantile(0.25), -INF),
    "quantile of unsigned": ([UINT_MAX, UINT_MAX - 4], UINT, col("v").quantile(0.25), float(UINT_MAX - 3)),
    "median of decimals": ([Decimal("0.1"), Decimal("0.2"), Decimal("7")], DEC, col("v").median(), 0.2),
    "std of tiny": ([0.0, 3e-200, 6e-200], FLOAT, col("v").std(), 3e-200),
    "std of huge": ([0.0, 3e200, 6e200], FLOAT, col("v").std(), 3e200),
    "std of the smallest": ([5e-324, 5e-324 * 3], FLOAT, col("v").std(), 5e-324),
    "mean of the largest": ([1.7e308] * 5 + [-1.7e308], FLOAT, col("v").mean(), rounded(Fraction(1.7e308) * 4 / 6)),
    "quantile exactly at a value beside infinity": ([1.0, 2.0, INF], FLOAT, col("v").quantile(0.5), 2.0),
    "n_unique of NaN and zeros": ([NAN, NAN, 0.0, -0.0], FLOAT, col("v").n_unique(), 2),
}


@pytest.mark.parametrize("name", cells("aggregate", ODD))
@pytest.mark.parametrize("parallelism", [1, 2])
def test_aggregates_of_odd_values(name: str, parallelism: int) -> None:
    values, kind, aggregate, expected = ODD[name]
    seen = of_one_key(values, kind, aggregate, parallelism)
    assert is_same(seen, expected), (expected, seen)


def test_quantiles_interpolate_exactly() -> None:
    chance = random.Random(SEED)
    sets = {k: [chance.uniform(-1e6, 1e6) for _ in range(chance.randrange(1, 40))] for k in range(60)}
    rows = [(k, v) for k, values in sets.items() for v in values]
    levels = [0.0, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0]
    stream = source(k=([k for k, _ in rows], INT), x=([v for _, v in rows], FLOAT))
    quantiles: dict[str, Any] = {f"q{level}": col("x").quantile(level) for level in levels}
    out = stream.key_by("k").agg(**quantiles)
    for row in out.collect(parallelism=2).to_pylist():
        values = sorted(sets[row["k"]])
        for level in levels:
            place = Fraction(level) * (len(values) - 1)
            low = math.floor(place)
            high = min(low + 1, len(values) - 1)
            step = values[high] - values[low]
            wanted = Fraction(values[low]) + Fraction(step) * (place - low)
            allowed = 4 * math.ulp(max(abs(values[low]), abs(values[high]))) + step * math.ulp(float(place))
            assert abs(Fraction(row[f"q{level}"]) - wanted) <= allowed, (row, level)


@pytest.mark.parametrize("cell", cells("median", ["positive", "straddling zero"]))
def test_medians_are_rounded_once(cell: str) -> None:
    chance = random.Random(f"{SEED} {cell}")
    low = 0 if cell == "positive" else -1e6
    sets = {k: [chance.uniform(low, 1e6) for _ in range(2 + k % 5)] for k in range(300)}
    rows = [(k, v) for k, values in sets.items() for v in values]
    stream = source(k=([k for k, _ in rows], INT), x=([v for _, v in rows], FLOAT))
    seen = stream.key_by("k").agg(m=col("x").median()).collect(parallelism=2).to_pylist()
    both = [(rounded(Fraction(statistics.median(map(Fraction, sets[row["k"]])))), row["m"]) for row in seen]
    assert len(both) == len(sets)
    assert not [(e, m) for e, m in both if ulps(m, e) > 1]


# -- rounding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "digits", cells("round float", [0, 1, 2, 3, 5, 10, 15, 17, 20, 300, 400, -1, -2, -5, -15, -300, -310])
)
def test_round_of_floats_is_pythons(digits: int) -> None:
    chance = random.Random(f"{SEED} {digits}")
    values = [
        0.5,
        1.5,
        2.5,
        -0.5,
        2.675,
        1.005,
        0.125,
        0.375,
        5e-324,
        1.7e308,
        2.0**53 + 2,
        -0.0,
        INF,
        -INF,
        NAN,
        15.0,
        25.0,
        1e22,
    ]
    values += [floating(chance) for _ in range(400)] + [chance.randrange(-(10**6), 10**6) / 1000 for _ in range(600)]
    values += [(2 * chance.randrange(-(10**5), 10**5) + 1) / 2 * 10.0 ** -max(-10, min(10, digits)) for _ in range(400)]

    def python(value: float) -> float:
        return round(value, digits) if math.isfinite(value) else value

    kept_values = [v for v in values if not isinstance(attempt(python, v), Exception)]
    same(kept_values, [python(v) for v in kept_values], one(kept_values, FLOAT, col("v").round(digits)))


@pytest.mark.parametrize("digits", cells("round int", [0, 1, 3, -1, -2, -5, -18]))
def test_round_of_integers_is_pythons(digits: int) -> None:
    chance = random.Random(f"{SEED} {digits}")
    for kind, values in {
        INT: [5, 15, 25, -5, -15, -25, 50, 150, 250, *(signed(chance) // 4 for _ in range(500)), 0],
        UINT: [5, 15, 25, 2**63, UINT_MAX // 2, *(chance.randrange(UINT_MAX // 4) for _ in range(500))],
        pa.int8(): [5, 15, 25, -15, -5, 100, -100],
    }.items():
        fits = [v for v in values if kind != pa.int8() or -128 <= round(v, digits) <= 127]
        same(fits, [round(v, digits) for v in fits], one(fits, kind, col("v").round(digits)))


@pytest.mark.parametrize("digits", [-1, -19, -18, -20])
def test_round_of_integers_beyond_the_ends_is_an_error(digits: int) -> None:
    for kind, value in ((INT, INT_MAX), (INT, INT_MIN), (UINT, UINT_MAX), (INT, 6 * 10**18)):
        expected = round(value, digits)
        low, high = (INT_MIN, INT_MAX) if kind == INT else (0, UINT_MAX)
        if low <= expected <= high:
            assert one([value], kind, col("v").round(digits)) == [expected]
        else:
            with pytest.raises(MillstreamError):
                one([value], kind, col("v").round(digits))


@pytest.mark.parametrize("digits", cells("round decimal", [0, 1, 2, 5, 6, 9, -1, -2, -5]))
def test_round_of_decimals_is_pythons(digits: int) -> None:
    chance = random.Random(f"{SEED} {digits}")
    values = [Decimal(n) / 10**6 for n in (500000, 1500000, 2500000, -500000, -1500000, 125000, 375000)]
    values += [Decimal(chance.randrange(-(10**14), 10**14)) / 10**6 for _ in range(500)]
    values += [Decimal(chance.randrange(-(10**6), 10**6) * 5) * Decimal(10) ** -min(6, digits + 1) for _ in range(300)]
    seen = one(values, DEC, col("v").round(digits))
    wrong = [(v, round(v, digits), s) for v, s in zip(values, seen, strict=True) if round(v, digits) != s]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("name", cells("whole", ["floor", "ceil", "trunc"]))
def test_floor_ceil_and_trunc(name: str) -> None:
    chance = random.Random(f"{SEED} {name}")
    of = getattr(math, name)
    floats = [
        0.5,
        -0.5,
        -0.0,
        1e300,
        2.0**52 + 0.5,
        *(v for v in (floating(chance) for _ in range(800)) if math.isfinite(v)),
    ]
    seen = one(floats, FLOAT, getattr(col("v"), name)())
    same(floats, [math.copysign(float(of(v)), v) if of(v) == 0 else float(of(v)) for v in floats], seen)
    same([NAN, INF, -INF], [NAN, INF, -INF], one([NAN, INF, -INF], FLOAT, getattr(col("v"), name)()))
    whole = [signed(chance) for _ in range(200)]
    same(whole, whole, one(whole, INT, getattr(col("v"), name)()))
    decimals = [Decimal(chance.randrange(-(10**14), 10**14)) / 10**6 for _ in range(300)]
    assert [int(v) for v in one(decimals, DEC, getattr(col("v"), name)())] == [of(v) for v in decimals]


def test_clip_keeps_nan_and_takes_bounds() -> None:
    chance = random.Random(SEED)
    values = [NAN, INF, -INF, 0.0, -0.0, *(floating(chance) for _ in range(300)), None]

    def clip(v: float | None, low: float, high: float) -> float | None:
        return v if v is None or math.isnan(v) else min(max(v, low), high)

    seen = run(source(v=(values, FLOAT)), a=col("v").clip(-1.5, 2.5), b=col("v").clip(upper=2.5), c=col("v").clip(-1.5))
    same(values, [clip(v, -1.5, 2.5) for v in values], seen["a"])
    same(values, [clip(v, -INF, 2.5) for v in values], seen["b"])
    same(values, [clip(v, -1.5, INF) for v in values], seen["c"])
    whole = [signed(chance) for _ in range(300)]
    same(whole, [min(max(v, -5), 2**40) for v in whole], one(whole, INT, col("v").clip(-5, 2**40)))
    large = [0, 2**63 - 1, 2**63, UINT_MAX]
    same(large, [min(max(v, 5), 2**63) for v in large], one(large, UINT, col("v").clip(5, 2**63)))


# -- comparisons ---------------------------------------------------------------------------------------------------------

COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

EDGES: dict[str, tuple[list[Any], Any]] = {
    "int64": ([INT_MIN, INT_MIN + 1, -(2**53) - 1, -1, 0, 1, 2**53, 2**53 + 1, 2**53 + 2, 2**62 + 1, INT_MAX - 1, INT_MAX], INT),
    "uint64": ([0, 1, 2**53, 2**53 + 1, INT_MAX, 2**63, 2**63 + 1, UINT_MAX - 1, UINT_MAX], UINT),
    "int8": ([-128, -1, 0, 1, 127], pa.int8()),
    "uint8": ([0, 1, 127, 128, 255], pa.uint8()),
    "float64": (
        [-INF, -(2.0**63), -(2.0**53), -0.5, -0.0, 0.0, 0.1, 0.5, 1.0, 2.0**53, 2.0**53 + 2, 2.0**63, 2.0**64, 1e300, INF],
        FLOAT,
    ),
    "float32": ([-INF, -1.0, 0.0, 0.5, 0.10000000149011612, 2.0**24, 2.0**63, INF], pa.float32()),
    "decimal": (
        [Decimal(s) for s in ("-9223372036854775808.5", "-0.5", "0", "0.1", "0.5", "1", "9007199254740993", "9223372036854775807",
                              "9223372036854775808", "18446744073709551615", "18446744073709551615.000001")],
        DEC,
    ),
}  # fmt: skip
PAIRS = [f"{a} {b}" for a in EDGES for b in EDGES]


@pytest.mark.parametrize("pair", cells("compare", PAIRS))
def test_comparisons_of_columns_are_exact(pair: str) -> None:
    (a, a_kind), (b, b_kind) = (EDGES[name] for name in pair.split())
    both = [(x, y) for x in a for y in b]
    stream = source(a=([x for x, _ in both], a_kind), b=([y for _, y in both], b_kind))
    seen = run(stream, **{op: of(col("a"), col("b")) for op, of in COMPARISONS.items()})
    for op, of in COMPARISONS.items():
        same([(x, op, y) for x, y in both], [of(x, y) for x, y in both], seen[op])


@pytest.mark.parametrize(
    "pair",
    cells("constant", [pair for pair in PAIRS if "float32" not in pair.split()[1] and "int8" not in pair.split()[1]]),
)
def test_comparisons_with_constants_are_exact(pair: str) -> None:
    (a, a_kind), (b, _) = (EDGES[name] for name in pair.split())
    stream = source(v=(a, a_kind))
    seen = run(stream, **{f"{i}{op}": of(col("v"), y) for i, y in enumerate(b) for op, of in COMPARISONS.items()})
    for i, y in enumerate(b):
        for op, of in COMPARISONS.items():
            same([(x, op, y) for x in a], [of(x, y) for x in a], seen[f"{i}{op}"])


def test_random_integers_and_floats_near_each_other_compare_exactly() -> None:
    chance = random.Random(SEED)
    for kind, top in ((INT, 63), (UINT, 64)):
        whole = [chance.randrange(2 ** chance.randrange(50, top)) for _ in range(3000)]
        floats = [min(float(v + chance.randrange(-3, 4)), 2.0**64) for v in whole]
        seen = run(
            source(a=(whole, kind), b=(floats, FLOAT)), **{op: of(col("a"), col("b")) for op, of in COMPARISONS.items()}
        )
        for op, of in COMPARISONS.items():
            same(
                list(zip(whole, floats, strict=True)), [of(x, y) for x, y in zip(whole, floats, strict=True)], seen[op]
            )


@pytest.mark.parametrize("name", cells("nan", EDGES))
def test_nan_equals_itself_and_is_larger_than_all_numbers(name: str) -> None:
    values, kind = EDGES[name]
    stream = source(v=(values, kind), n=([NAN] * len(values), FLOAT))
    for other in (col("n"), NAN):
        seen = run(stream, **{op: of(col("v"), other) for op, of in COMPARISONS.items()})
        expected = {"==": False, "!=": True, "<": True, "<=": True, ">": False, ">=": False}
        for op in COMPARISONS:
            assert seen[op] == [expected[op]] * len(values), op
    assert one([NAN], FLOAT, (col("v") == NAN) & (col("v") <= NAN) & ~(col("v") < NAN)) == [True]


def test_is_between_is_two_comparisons() -> None:
    chance = random.Random(SEED)
    for name, (values, kind) in EDGES.items():
        bounds: list[Any] = [-1, 0, 1, 2**53, 2**53 + 1, 2.0**53, 0.5, 2**63, UINT_MAX]
        pairs = [(chance.choice(bounds), chance.choice(bounds)) for _ in range(30)]
        seen = run(source(v=(values, kind)), **{f"{i}": col("v").is_between(a, b) for i, (a, b) in enumerate(pairs)})
        for i, (a, b) in enumerate(pairs):
            same([(name, v, a, b) for v in values], [a <= v <= b for v in values], seen[f"{i}"])
    assert one([1, None], INT, col("v").is_between(0, 2)) == [True, None]


SETS: dict[str, tuple[str, list[Any]]] = {
    "nothing": ("int64", []),
    "nothing of floats": ("float64", []),
    "integers": ("int64", [INT_MAX, 0, 2**53 + 1]),
    "floats for integers": ("int64", [2.0**53, 0.5, 1.0, 2.0**63]),
    "integers and floats": ("int64", [1, 2.0**53, 0.5]),
    "integers for floats": ("float64", [2**53 + 1, 1, 2**63]),
    "large for integers": ("int64", [2**63, UINT_MAX, 1]),
    "large for unsigned": ("uint64", [2**63, UINT_MAX]),
    "negative for unsigned": ("uint64", [-1, 0]),
    "decimals for integers": ("int64", [Decimal("0.5"), Decimal(1)]),
    "floats for decimals": ("decimal", [0.1, 0.5]),
    "integers for decimals": ("decimal", [2**53 + 1, 0, UINT_MAX]),
    "mixed for small": ("int8", [300, 1, 0.5]),
}


@pytest.mark.parametrize("name", cells("is_in", SETS))
def test_is_in_compares_as_python(name: str) -> None:
    kind_name, wanted = SETS[name]
    values, kind = EDGES[kind_name]
    same(values, [v in wanted for v in values], one(values, kind, col("v").is_in(wanted)))


def test_is_in_with_null_and_nan() -> None:
    assert one([1, 2], INT, col("v").is_in([])) == [False, False]
    assert one([1, None], INT, col("v").is_in([1, 2])) == [True, None]
    assert one([1, 2], INT, col("v").is_in([1, None]))[0] is True
    assert one([1, 2], INT, col("v").is_in([1, None]))[1] is not True
    assert one([NAN, 1.0], FLOAT, col("v").is_in([NAN])) == [True, False]
    assert one([0.0, -0.0], FLOAT, col("v").is_in([-0.0])) == [True, True]
    assert one(["a", None], TEXT, col("v").is_in(["a"]))[0] is True


# -- arithmetic ----------------------------------------------------------------------------------------------------------

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}
LIMITS = {
    "int64": (INT_MIN, INT_MAX, INT),
    "uint64": (0, UINT_MAX, UINT),
    "int8": (-128, 127, pa.int8()),
    "uint8": (0, 255, pa.uint8()),
}


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("name", LIMITS)
def test_integer_arithmetic_is_exact_or_an_error(name: str, op: str) -> None:
    chance = random.Random(f"{SEED} {name} {op}")
    low, high, kind = LIMITS[name]
    ends = [low, low + 1, high, high - 1, high // 2, 1, 2, 3, 5, 7, 0] + ([-1, -2, -3] if low else [])
    pairs = [(a, b) for a in ends for b in ends]
    pairs += [
        (chance.randrange(low, high + 1), chance.choice([chance.randrange(low, high + 1), chance.choice(ends)]))
        for _ in range(500)
    ]
    if low:
        pairs += [(chance.randrange(-100, 101), chance.randrange(-9, 10)) for _ in range(200)]
    stream = source(i=(range(len(pairs)), INT), a=([a for a, _ in pairs], kind), b=([b for _, b in pairs], kind))
    seen = kept(stream, OPERATORS[op](col("a"), col("b")))
    for i, (a, b) in enumerate(pairs):
        exact = attempt(OPERATORS[op], a, b)
        if isinstance(exact, Exception):
            assert seen[i] is None, (a, op, b)
        elif i in seen:
            assert seen[i] == exact, (a, op, b, seen[i])
        else:
            assert not low <= exact <= high, (a, op, b)


@cache
def floats_of(op: str) -> list[tuple[tuple[float, float], float, float]]:
    """Return pairs of floats, what Python makes of them and what the engine makes of them; none that Python refuses."""
    chance = random.Random(f"{SEED} {op}")
    of = OPERATORS.get(op, operator.truediv)
    pairs = [(floating(chance), floating(chance)) for _ in range(3000)]
    pairs += [
        (chance.randrange(-50, 50) / 10, chance.choice([0.1, -0.1, 0.3, -0.7, 2.0, -2.0, 1e-300])) for _ in range(500)
    ]
    seen = run(source(a=([a for a, _ in pairs], FLOAT), b=([b for _, b in pairs], FLOAT)), r=of(col("a"), col("b")))[
        "r"
    ]
    python = [(pair, attempt(of, *pair), s) for pair, s in zip(pairs, seen, strict=True)]
    return [(pair, e, s) for pair, e, s in python if not isinstance(e, Exception)]


@pytest.mark.parametrize("op", cells("float", [*OPERATORS, "/"]))
def test_arithmetic_of_finite_floats_is_pythons(op: str) -> None:
    found = [(pair, e, s) for pair, e, s in floats_of(op) if all(map(math.isfinite, pair))]
    assert len(found) > 2000
    wrong = [row for row in found if row[1] != row[2]]
    assert not wrong, (len(wrong), wrong[:6])


@pytest.mark.parametrize("op", cells("infinite", [*OPERATORS, "/"]))
def test_arithmetic_of_infinities_and_nan_is_pythons(op: str) -> None:
    found = [(pair, e, s) for pair, e, s in floats_of(op) if not all(map(math.isfinite, pair))]
    wrong = [(pair, e, s) for pair, e, s in found if e != s and not (math.isnan(e) and math.isnan(s))]
    assert not wrong, (len(wrong), wrong[:6])


@pytest.mark.parametrize("op", cells("zero", [*OPERATORS, "/"]))
def test_the_sign_of_a_zero_is_pythons(op: str) -> None:
    wrong = [(pair, e, s) for pair, e, s in floats_of(op) if e == s == 0 and not is_same(e, s)]
    assert not wrong, (len(wrong), wrong[:6])


@pytest.mark.parametrize("op", cells("mixed", [*OPERATORS, "/"]))
def test_arithmetic_of_an_integer_and_a_float_is_pythons(op: str) -> None:
    chance = random.Random(f"{SEED} {op}")
    of = OPERATORS.get(op, operator.truediv)
    pairs = [(chance.randrange(-1000, 1000), chance.randrange(-50, 50) / 8) for _ in range(1000)]
    stream = source(a=([a for a, _ in pairs], INT), b=([b for _, b in pairs], FLOAT))
    for left, right, turn in (("a", "b", False), ("b", "a", True)):
        seen = run(stream, r=of(col(left), col(right)))["r"]
        for (a, b), s in zip(pairs, seen, strict=True):
            exact = attempt(of, b, a) if turn else attempt(of, a, b)
            assert isinstance(exact, Exception) or exact == s, (a, op, b, exact, s)


def test_true_division_of_large_integers_is_rounded_once() -> None:
    chance = random.Random(SEED)
    pairs = [(a, b) for a, b in ((signed(chance), signed(chance)) for _ in range(2000)) if b]
    seen = run(source(a=([a for a, _ in pairs], INT), b=([b for _, b in pairs], INT)), r=col("a") / col("b"))["r"]
    wrong = [(a, b, a / b, s) for (a, b), s in zip(pairs, seen, strict=True) if ulps(s, a / b) > 2]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("op", cells("decimal", ["+", "-", "*"]))
def test_decimal_arithmetic_is_exact(op: str) -> None:
    chance = random.Random(f"{SEED} {op}")
    kind = pa.decimal128(15, 4)
    pairs = [tuple(Decimal(chance.randrange(-(10**14), 10**14)) / 10**4 for _ in range(2)) for _ in range(500)]
    seen = run(
        source(a=([a for a, _ in pairs], kind), b=([b for _, b in pairs], kind)), r=OPERATORS[op](col("a"), col("b"))
    )["r"]
    wrong = [
        (a, b, s)
        for (a, b), s in zip(pairs, seen, strict=True)
        if Fraction(s) != OPERATORS[op](Fraction(a), Fraction(b))
    ]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("scales", [(2, 2), (0, 6), (6, 0), (9, 3), (4, 4)])
def test_quotients_of_decimals_are_rounded_half_to_even(scales: tuple[int, int]) -> None:
    chance = random.Random(f"{SEED} {scales}")
    left, right = (pa.decimal128(15, scale) for scale in scales)
    pairs = [
        (Decimal(chance.randrange(-(10**12), 10**12)).scaleb(-scales[0]), Decimal(b).scaleb(-scales[1]))
        for b in [*(chance.randrange(1, 10**9) * chance.choice([1, -1]) for _ in range(500)), 8, 16, 3, 7, -64, 2**20]
    ]
    places = max(6, scales[0] + 4)
    # Halves: 5 in the first place that is cut off.
    pairs += [(Decimal(n).scaleb(-scales[0]), Decimal(2 * 10**4).scaleb(0)) for n in range(-9, 10)] if scales[1] == 0 else []
    seen = run(source(a=([a for a, _ in pairs], left), b=([b for _, b in pairs], right)), r=col("a") / col("b"))["r"]
    with localcontext(prec=80):
        for (a, b), s in zip(pairs, seen, strict=True):
            whole = Fraction(a) / Fraction(b) * 10**places
            assert s == Decimal(round(whole)).scaleb(-places), (a, b, s)
            assert s == (a / b).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
    assert run(source(a=([Decimal("1.00")], pa.decimal128(5, 2))), r=col("a") / 3, s=1 / col("a"))["r"] == [Decimal("0.333333")]
    with pytest.raises(MillstreamError, match="division by zero"):
        one([Decimal("1.00")], pa.decimal128(5, 2), col("v") / 0)


def test_decimals_of_too_many_digits_are_an_error() -> None:
    kind = pa.decimal128(38, 0)
    most = 10**38 - 1
    for of in (lambda v: v + v, lambda v: v * 2, lambda v: -v - v):
        with pytest.raises(MillstreamError, match="38 digits"):
            one([Decimal(most // 2 + 1)], kind, of(col("v")))
        assert one([Decimal(most // 2)], kind, of(col("v"))) == [of(Decimal(most // 2).__int__())]


def test_decimals_and_floats_near_each_other_compare_exactly() -> None:
    chance = random.Random(f"{SEED} near")
    for precision, scale in ((38, 6), (38, 30), (38, 38), (20, 0), (9, 2)):
        kind = pa.decimal128(precision, scale)
        with localcontext(prec=80):
            decimals = [
                Decimal(chance.randrange(-(10 ** chance.randrange(1, precision + 1)), 10 ** chance.randrange(1, precision + 1)))
                .scaleb(-scale)
                for _ in range(800)
            ]
            floats = [chance.choice([float(d), math.nextafter(float(d), INF), math.nextafter(float(d), -INF)]) for d in decimals]
            # Some decimals are floats exactly.
            decimals[:3], floats[:3] = [Decimal(0), Decimal(0), Decimal("0.5") if scale else Decimal(2)], [0.0, -0.0, 0.5 if scale else 2.0]
            stream = source(a=(decimals, kind), b=(floats, FLOAT))
            seen = run(stream, **{op: of(col("a"), col("b")) for op, of in COMPARISONS.items()})
            turned = run(stream, **{op: of(col("b"), col("a")) for op, of in COMPARISONS.items()})
            for op, of in COMPARISONS.items():
                same(decimals, [of(x, y) for x, y in zip(decimals, floats, strict=True)], seen[op])
                same(decimals, [of(y, x) for x, y in zip(decimals, floats, strict=True)], turned[op])


def test_decimals_of_any_scale_compare_with_all_their_digits() -> None:
    tiny, large = Decimal(1).scaleb(-38), Decimal(10**37)
    stream = source(a=([tiny, None], pa.decimal128(38, 38)), b=([large, large], pa.decimal128(38, 0)), i=([INT_MAX, 0], INT))
    seen = run(stream, lt=col("a") < col("b"), eq=col("a") == col("i"), gt=col("i") > col("a"), one=col("a") == 10**10)
    assert seen == {"lt": [True, None], "eq": [False, None], "gt": [True, None], "one": [False, None]}


def test_small_floats_compare_with_constants_of_python() -> None:
    small = pa.float32()
    values = [0.5, 0.10000000149011612, 2.0**24, 1.0, INF, -1.0]
    for constant in (0.1, 0.5, 2**24 + 1, 2**53 + 1, 1e300, -1e300, 1, 1e-50, Decimal("0.5"), Decimal("0.1")):
        seen = run(source(v=(values, small)), **{op: of(col("v"), constant) for op, of in COMPARISONS.items()})
        for op, of in COMPARISONS.items():
            same([(v, op, constant) for v in values], [of(v, constant) for v in values], seen[op])
        same(values, [v in [constant] for v in values], one(values, small, col("v").is_in([constant])))
    same(values, [0.1 <= v <= 2**24 for v in values], one(values, small, col("v").is_between(0.1, 2**24)))


@pytest.mark.parametrize("op", ["//", "%"])
def test_decimals_are_divided_with_a_remainder_as_numbers_are(op: str) -> None:
    # Python's decimals round towards zero, and its numbers down, as all do here.
    assert one([Decimal("-2.5")], DEC, OPERATORS[op](col("v"), 2)) == [Decimal(str(OPERATORS[op](-2.5, 2)))]


def test_powers_of_integers_are_exact_or_an_error() -> None:
    pairs = [
        (a, b)
        for a in (*range(-12, 13), 2**31, 2**32, -(2**21), INT_MAX, INT_MIN)
        for b in (0, 1, 2, 3, 5, 18, 19, 62, 63, 64, 100)
    ]
    stream = source(i=(range(len(pairs)), INT), a=([a for a, _ in pairs], INT), b=([b for _, b in pairs], INT))
    seen = kept(stream, col("a") ** col("b"))
    expected = {i: a**b for i, (a, b) in enumerate(pairs) if INT_MIN <= a**b <= INT_MAX}
    assert seen == expected


def test_powers_of_floats_are_pythons() -> None:
    chance = random.Random(SEED)
    pairs = [(chance.uniform(0, 50), chance.uniform(-20, 20)) for _ in range(500)] + [
        (2.0, -2.0),
        (-2.0, 3.0),
        (0.0, 0.0),
        (NAN, 0.0),
        (1.0, NAN),
    ]
    seen = run(source(a=([a for a, _ in pairs], FLOAT), b=([b for _, b in pairs], FLOAT)), r=col("a") ** col("b"))["r"]
    wrong = [(a, b, a**b, s) for (a, b), s in zip(pairs, seen, strict=True) if not ulps(s, a**b) <= 1]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("name", ["abs", "neg"])
def test_the_least_integer_has_no_opposite(name: str) -> None:
    expression = col("v").abs() if name == "abs" else -col("v")
    of = abs if name == "abs" else operator.neg
    for kind, low in ((INT, INT_MIN), (pa.int8(), -128), (pa.int32(), -(2**31))):
        with pytest.raises(MillstreamError):
            one([low], kind, expression)
        values = [low + 1, -1, 0, 1, -(low + 1)]
        same(values, [of(v) for v in values], one(values, kind, expression))
    same([-0.0, -INF, 1.5], [of(v) for v in (-0.0, -INF, 1.5)], one([-0.0, -INF, 1.5], FLOAT, expression))


@pytest.mark.parametrize("constant", [INT_MAX, 2**63, 2**63 + 1, UINT_MAX])
def test_constants_of_64_bits_without_a_sign(constant: int) -> None:
    values = [0, 1, INT_MAX, 2**63, UINT_MAX]
    stream = source(i=(range(5), INT), v=(values, UINT))
    assert run(stream, c=lit(constant))["c"] == [constant] * 5
    for of in COMPARISONS.values():
        same(values, [of(v, constant) for v in values], run(stream, r=of(col("v"), constant))["r"])
        same(values, [of(constant, v) for v in values], run(stream, r=of(lit(constant), col("v")))["r"])
        signs = [INT_MIN, -1, 0, INT_MAX]
        same(signs, [of(v, constant) for v in signs], one(signs, INT, of(col("v"), constant)))
    for op, of in OPERATORS.items():
        expected = {i: of(v, constant) for i, v in enumerate(values) if 0 <= of(v, constant) <= UINT_MAX}
        assert kept(stream, of(col("v"), constant)) == expected, op
    with pytest.raises(MillstreamError):
        lit(2**64)


# -- empty patterns ------------------------------------------------------------------------------------------------------

TEXTS = ["", "a", "abc", "é", "日本語", "a b", "a\nb", "🙂x", "aaa", "xaxbx"]
PATTERNS = ["", "a*", "x?", "(?:)", r"\b", "^", "$", "a|", "[a-c]*?", "b*c?"]


@pytest.mark.parametrize("pattern", cells("pattern", PATTERNS))
def test_patterns_that_match_nothing_count_and_replace_as_re(pattern: str) -> None:
    stream = source(v=(TEXTS, TEXT))
    seen = run(
        stream,
        n=col("v").str.count_matches(pattern),
        one=col("v").str.replace(pattern, "-"),
        all=col("v").str.extract_all(pattern),
    )
    if pattern in ("", "(?:)", "^"):
        same(TEXTS, [len(re.findall(pattern, v)) for v in TEXTS], seen["n"])
        same(TEXTS, [re.findall(pattern, v) for v in TEXTS], seen["all"])
        every = run(stream, r=col("v").str.replace_all(pattern, "-"))["r"]
        same(TEXTS, [re.sub(pattern, "-", v) for v in TEXTS], every)
    same(TEXTS, [re.sub(pattern, "-", v, count=1) for v in TEXTS], seen["one"])
    assert seen["n"] == [len(found) for found in seen["all"]]


def test_empty_literals_count_and_replace_as_python() -> None:
    seen = run(
        source(v=(TEXTS, TEXT)),
        n=col("v").str.count_matches("", literal=True),
        one=col("v").str.replace("", "-", literal=True),
        all=col("v").str.replace_all("", "-", literal=True),
        has=col("v").str.contains("", literal=True),
    )
    same(TEXTS, [v.count("") for v in TEXTS], seen["n"])
    same(TEXTS, [v.replace("", "-", 1) for v in TEXTS], seen["one"])
    same(TEXTS, [v.replace("", "-") for v in TEXTS], seen["all"])
    assert seen["has"] == [True] * len(TEXTS)


def test_choosing_among_numbers_changes_none() -> None:
    large = source(i=([2**53 + 1, 7], INT), f=([None, None], FLOAT), u=([UINT_MAX, 7], UINT))
    for expression in (
        mill.coalesce("f", "i"),
        col("f").fill_null(col("i")),
        mill.max_horizontal("i", "f"),
        mill.when(col("f") > 1).then("f").otherwise("i"),
        mill.max_horizontal("u", "i"),
    ):
        kept = large.select(r=expression).collect(parallelism=1, on_error="skip")["r"]
        assert kept == [7], expression
        with pytest.raises(mill.MillstreamError, match="9007199254740993|18446744073709551615"):
            large.select(r=expression).collect()


def test_a_zero_of_a_negative_scale_is_one_digit() -> None:
    stream = source(v=([Decimal(0), Decimal(1100), Decimal(-300)], pa.decimal128(10, -2)))
    assert run(stream, r=col("v").cast(str))["r"] == ["0", "1100", "-300"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("kind", ["duration", "timestamp", "zoned"])
@pytest.mark.parametrize("way", ["keyed", "all", "tumbling", "sliding", "session", "rolling"])
def test_means_and_quantiles_of_times_are_exact_to_their_unit(unit: str, kind: str, way: str) -> None:
    chance = random.Random(f"{unit} {kind} {way}")
    top = {"s": 10**11, "ms": 10**14, "us": 10**17, "ns": 6 * 10**18}[unit]
    spread = chance.choice([7, top])
    of = {"duration": pa.duration(unit), "timestamp": pa.timestamp(unit), "zoned": pa.timestamp(unit, "Europe/Paris")}[kind]
    count = 300 if way == "rolling" else 3_000
    values = [chance.choice([None, chance.randrange(-spread, spread + 1), chance.randrange(-spread, spread + 1)]) for _ in range(count)]
    keys = [chance.randrange(40) for _ in values]
    times = [datetime(2026, 1, 1) + timedelta(seconds=n // 4) for n in range(count)]
    table = pa.table({"k": keys, "t": pa.array(times, pa.timestamp("us")), "n": range(count), "v": pa.array(values, pa.int64()).cast(of)})
    stream = mill.from_arrow(table).event_time("t", watermark="1s")
    v = col("v")
    wanted = {"mean": v.mean(), "median": v.median(), "q": v.quantile(0.3), "few": v.mean().filter(col("n") % 3 == 0), "ns": col("n").collect()}
    if kind == "duration":
        wanted |= {"std": v.std(), "about": v.approx_quantile(0.3)}
    keyed = stream.key_by("k")
    found = {
        "keyed": lambda: keyed.agg(**wanted),
        "all": lambda: stream.agg(**wanted),
        "tumbling": lambda: keyed.window(mill.tumbling("1m")).agg(**wanted),
        "sliding": lambda: keyed.window(mill.sliding("2m", slide="1m")).agg(**wanted),
        "session": lambda: keyed.window(mill.session("5s")).agg(**wanted),
        "rolling": lambda: keyed.rolling("30s").agg(**wanted),
    }[way]().collect(parallelism=2)
    whole = found.to_arrow()
    assert whole.schema.field("mean").type == whole.schema.field("q").type == of
    plain = {name: whole[name].cast(pa.int64()).to_pylist() for name in wanted if name != "ns"}
    assert len(whole) > 0
    for place, ns in enumerate(whole["ns"].to_pylist()):
        inside = sorted(values[n] for n in ns if values[n] is not None)
        few = [values[n] for n in ns if values[n] is not None and n % 3 == 0]
        assert plain["mean"][place] == (round(Fraction(sum(inside), len(inside))) if inside else None)
        assert plain["few"][place] == (round(Fraction(sum(few), len(few))) if few else None)
        for name, at in (("median", 0.5), ("q", 0.3)):
            if not inside:
                assert plain[name][place] is None
                continue
            # The place is a float, as in the engine; from there on all is exact.
            rank = at * (len(inside) - 1)
            below, share = int(rank), Fraction(rank - int(rank))
            above = inside[min(below + 1, len(inside) - 1)]
            exact = inside[below] + (above - inside[below]) * share
            # 106 bits decide which number is nearest, unless it is half of one to the last of them.
            assert abs(plain[name][place] - exact) <= Fraction(1, 2) + Fraction(1, 2**30), (name, inside)
            if share == 0 or share == Fraction(1, 2):
                assert plain[name][place] == round(exact)
        if kind == "duration" and len(inside) > 1:
            deviation = statistics.stdev(inside)
            assert math.isclose(plain["std"][place], deviation, rel_tol=1e-12, abs_tol=1)
            value = inside[math.floor(0.3 * (len(inside) - 1))]
            assert abs(plain["about"][place] - value) <= abs(value) * 0.0101 + 1


def test_statistics_that_mean_nothing_of_times_are_refused() -> None:
    s = mill.from_iter([{"t": datetime(2026, 1, 1), "d": timedelta(1), "date": date(2026, 1, 1), "x": "a"}])
    for column, name, needed in [
        ("t", "std", "a number or duration"),
        ("t", "var", "a number"),
        ("d", "var", "a number"),
        ("date", "mean", "a number, duration or timestamp"),
        ("x", "median", "a number, duration or timestamp"),
    ]:
        with pytest.raises(mill.SchemaError, match=rf"{name}\(\) needs {needed}, found"):
            s.agg(v=getattr(col(column), name)())
    with pytest.raises(mill.SchemaError, match=r"approx_quantile\(\) needs a number or duration"):
        s.agg(v=col("t").approx_quantile(0.5))
