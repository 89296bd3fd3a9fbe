"""Each operator over each pair of types is exact or an error, by Python's own numbers."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, lit
from millstream.errors import MillstreamError

NAN, INF = float("nan"), float("inf")
INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
INT, UINT, FLOAT = pa.int64(), pa.uint64(), pa.float64()

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
}
EDGES: dict[str, tuple[Any, list[Any]]] = {
    "int8": (pa.int8(), [-128, -3, -1, 0, 1, 2, 7, 127]),
    "int32": (pa.int32(), [-(2**31), -7, -1, 0, 3, 2**31 - 1]),
    "int64": (
        INT,
        [INT_MIN, INT_MIN + 1, -(2**53) - 1, -10, -1, 0, 1, 3, 63, 2**53 + 1, 10**18 + 3, INT_MAX - 1, INT_MAX],
    ),
    "uint8": (pa.uint8(), [0, 1, 2, 9, 128, 255]),
    "uint32": (pa.uint32(), [0, 1, 5, 2**31, 2**32 - 1]),
    "uint64": (UINT, [0, 1, 4, 9, 2**53 + 1, 1031176510844156387, INT_MAX, 2**63, 2**63 + 1, UINT_MAX - 1, UINT_MAX]),
    "float64": (FLOAT, [-INF, -(2.0**63), -7.5, -1.0, -0.0, 0.0, 0.1, 2.0, 2.0**53, 1e22, 1e300, INF, NAN]),
    "decimal": (
        pa.decimal128(24, 3),
        [
            Decimal(s)
            for s in ("-999999999999999999999.999", "-7.125", "-0.001", "0", "0.1", "2.000", "18446744073709551615.001")
        ],
    ),
    "bool": (pa.bool_(), [False, True]),
}
INTEGERS = ["int8", "int32", "int64", "uint8", "uint32", "uint64", "bool"]
RANGES = {
    f"{sign}int{bits}": ((0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    for bits in (8, 16, 32, 64)
    for sign in ("", "u")
}


def source(**columns: tuple[Any, Any]) -> mill.Stream:
    """Return a stream of columns, each given as a type and values."""
    return mill.from_arrow(pa.table({name: pa.array(list(values), kind) for name, (kind, values) in columns.items()}))


def kept(stream: mill.Stream, expression: Any) -> tuple[str, dict[int, Any]]:
    """Return the type of an expression and its results by the column ``i``, without those that are errors."""
    table = stream.select("i", r=expression).collect(parallelism=1, on_error="skip").to_arrow()
    return str(table.schema.field("r").type), dict(zip(table["i"].to_pylist(), table["r"].to_pylist(), strict=True))


def is_same(a: Any, b: Any) -> bool:
    """Tell whether values are the same, also NaN and the sign of zero."""
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return type(a) is type(b) and bool(a == b)


def check_integers(op: str, kind: str, pairs: list[tuple[int, int]], seen: dict[int, Any]) -> None:
    """Check an operation on integers: equal to Python's, and an error where that does not fit the type of the result."""
    for i, (a, b) in enumerate(pairs):
        told = (a, op, b, kind, seen.get(i, "error"))
        if op == "/":
            assert is_same(seen[i], a / b) if b else not math.isfinite(seen[i]), told
        elif op in ("//", "%") and b == 0:
            assert seen[i] is None, told
        elif op == "**" and (b < 0 or b > 200 and abs(a) > 1):
            assert i not in seen, told
        else:
            exact = OPERATORS[op](a, b)
            low, high = RANGES[kind]
            assert seen[i] == exact if low <= exact <= high else i not in seen, (*told, exact)


def check_decimals(op: str, pairs: list[tuple[Any, Any]], seen: dict[int, Any]) -> None:
    """Check an operation on decimals and integers, exact or an error where the result has more than 38 digits."""
    for i, (a, b) in enumerate(pairs):
        exact = OPERATORS[op](Fraction(a), Fraction(b))
        if i in seen:
            assert Fraction(seen[i]) == exact, (a, op, b, seen[i])
        else:
            assert abs(exact) * 10**6 >= 10**37, (a, op, b)


def check_floats(op: str, pairs: list[tuple[Any, Any]], seen: dict[int, Any]) -> None:
    """Check an operation with a float on one side: that of Python, where Python has a result."""
    for i, (a, b) in enumerate(pairs):
        a, b = (float(x) if isinstance(x, Decimal) else x for x in (a, b))
        try:
            exact = OPERATORS[op](a, b)
        except ArithmeticError:
            continue
        if isinstance(exact, complex):
            continue
        close = op == "**" and abs(seen[i] - exact) <= math.ulp(exact)
        assert close or is_same(seen[i], exact) or math.isnan(exact) and math.isnan(seen[i]), (a, op, b, seen[i], exact)


@pytest.mark.parametrize("left", EDGES)
@pytest.mark.parametrize("right", EDGES)
def test_operators_on_columns(left: str, right: str) -> None:
    (a_kind, a), (b_kind, b) = EDGES[left], EDGES[right]
    pairs = [(x, y) for x in a for y in b]
    stream = source(i=(INT, range(len(pairs))), a=(a_kind, [x for x, _ in pairs]), b=(b_kind, [y for _, y in pairs]))
    is_whole = left in INTEGERS and right in INTEGERS
    for op, of in OPERATORS.items():
        if op in "&|^" and (not is_whole or (left == "bool") or (right == "bool")):
            continue
        if "decimal" in (left, right) and "float64" not in (left, right) and op in ("/", "//", "%", "**"):
            continue
        kind, seen = kept(stream, of(col("a"), col("b")))
        if is_whole:
            if "uint64" in (left, right) and {left, right} & {"int8", "int32", "int64"} and op != "/":
                assert kind == "int64", (left, op, right)
            check_integers(op, kind, pairs, seen)
        elif "float64" in (left, right):
            assert kind == "double"
            check_floats(op, pairs, seen)
        else:
            check_decimals(op, pairs, seen)


@pytest.mark.parametrize("name", ["int8", "int64", "uint32", "uint64"])
@pytest.mark.parametrize("constant", [INT_MIN, -(2**53) - 1, -4, -1, 0, 1, 3, 2**53 + 1, INT_MAX, 2**63, UINT_MAX])
def test_operators_on_a_column_and_a_constant(name: str, constant: int) -> None:
    kind, values = EDGES[name]
    stream = source(i=(INT, range(len(values))), v=(kind, values))
    for op, of in OPERATORS.items():
        result, seen = kept(stream, of(col("v"), constant))
        if name == "uint64" and op != "/":
            assert result == ("uint64" if constant >= 0 else "int64")
        check_integers(op, result, [(v, constant) for v in values], seen)
        result, seen = kept(stream, of(lit(constant), col("v")))
        check_integers(op, result, [(constant, v) for v in values], seen)


def test_operators_on_constants() -> None:
    edges = [INT_MIN, -7, -1, 0, 1, 3, 2**53 + 1, INT_MAX, 2**63, UINT_MAX]
    stream = source(i=(INT, [0]))
    for a, b in ((a, b) for a in edges for b in edges):
        for op in ("+", "-", "*", "/", "//", "%"):
            expression = OPERATORS[op](lit(a), lit(b))
            try:
                kind, seen = kept(stream, expression)
            except MillstreamError:
                kind, seen = "uint64" if max(a, b) > INT_MAX and min(a, b) >= 0 else "int64", {}
            check_integers(op, kind, [(a, b)], seen)


def test_an_overflow_of_mixed_signs_says_which_cast_helps() -> None:
    stream = source(u=(UINT, [UINT_MAX]), i=(INT, [1]))
    for expression, help_, mended, exact in (
        (
            col("u") + col("i"),
            "decimal",
            col("u").cast(mill.types.Decimal(38, 0)) + col("i").cast(mill.types.Decimal(38, 0)),
            2**64,
        ),
        (col("u") * col("i"), "uint64", col("u") * col("i").cast(mill.DataType.parse("uint64")), UINT_MAX),
        (col("u") // (col("i") - 2), "float", None, None),
        (col("u") + -1, "decimal", None, None),
    ):
        with pytest.raises(MillstreamError, match=f"18446744073709551615 .* does not fit in int64.*{help_}"):
            stream.select(r=expression).collect()
        if mended is not None:
            assert stream.select(r=mended).collect()["r"] == [exact]


CHOICES: dict[str, Callable[[], Any]] = {
    "coalesce": lambda: mill.coalesce("n", "v"),
    "fill_null": lambda: col("n").fill_null(col("v")),
    "max_horizontal": lambda: mill.max_horizontal("v", "n"),
    "when": lambda: mill.when(col("i") >= 0).then("v").otherwise("n"),
    "otherwise": lambda: mill.when(col("i") < 0).then("n").otherwise("v"),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", INTEGERS[:-1])
@pytest.mark.parametrize("other", [*INTEGERS[:-1], "float64"])
def test_choosing_changes_no_value(choice: str, name: str, other: str) -> None:
    kind, values = EDGES[name]
    stream = source(i=(INT, range(len(values))), v=(kind, values), n=(EDGES[other][0], [None] * len(values)))
    result, seen = kept(stream, CHOICES[choice]())
    for i, v in enumerate(values):
        fits = int(float(v)) == v if result == "double" else RANGES[result][0] <= v <= RANGES[result][1]
        assert seen[i] == v if fits else i not in seen, (v, result)


def test_constants_that_are_chosen_keep_their_values() -> None:
    stream = source(i=(INT, [0, 1]), u=(UINT, [UINT_MAX, 5]))
    whole = mill.when(col("i") == 0).then(lit(UINT_MAX)).otherwise(lit(1))
    assert stream.select(r=whole).collect()["r"] == [UINT_MAX, 1]
    assert stream.select(r=mill.when(col("i") == 0).then("u").otherwise(7)).collect()["r"] == [UINT_MAX, 7]
    assert kept(stream, mill.when(col("i") == 1).then("u").otherwise(-7)) == ("int64", {0: -7, 1: 5})
    with pytest.raises(MillstreamError):
        stream.select(r=mill.when(col("i") == 0).then(lit(UINT_MAX)).otherwise(lit(-1))).collect()
    assert stream.select(r=col("u").is_in([-1, UINT_MAX])).collect()["r"] == [True, False]


def test_aggregates_of_mixed_signs_are_exact() -> None:
    rows = [(2**53 + 1, -1), (2**53 + 3, 4), (INT_MAX, -INT_MAX), (7, 2)]
    stream = source(k=(INT, [1] * len(rows)), u=(UINT, [u for u, _ in rows]), i=(INT, [i for _, i in rows]))
    out = stream.key_by("k").agg(
        s=(col("u") + col("i")).sum(), m=(col("u") - 4).max(), d=col("u").sum() + col("i").sum()
    )
    (row,) = out.collect().to_pylist()
    assert row == {
        "k": 1,
        "s": sum(u + i for u, i in rows),
        "m": INT_MAX - 4,
        "d": sum(u + i for u, i in rows),
    }


def test_compiled_functions_divide_integers_as_python_does() -> None:
    pytest.importorskip("numba")
    kind, values = EDGES["int64"]
    pairs = [(a, b) for a in values for b in values if b]
    stream = source(a=(kind, [a for a, _ in pairs]), b=(kind, [b for _, b in pairs]))
    divide = mill.udf(lambda a, b: a / b, returns=float, compiled=True)
    seen = stream.select(r=divide("a", "b")).collect()["r"]
    assert [(pair, s) for pair, s in zip(pairs, seen, strict=True) if not is_same(pair[0] / pair[1], s)] == []


# -- decimals ------------------------------------------------------------------------------------------------------------


def test_a_product_of_too_many_places_is_an_error_of_the_plan() -> None:
    stream = source(a=(pa.decimal128(38, 30), [Decimal("0.5")]), b=(pa.decimal128(38, 20), [Decimal("0.25")]))
    with pytest.raises(
        MillstreamError, match=r'col\("a"\) .*col\("b"\) .*50 decimal places.*col\("a"\)\.round\(18\)\.cast'
    ):
        stream.select(r=col("a") * col("b"))
    mended = col("a").round(18).cast(mill.types.Decimal(38, 18)) * col("b")
    assert stream.select(r=mended).collect()["r"] == [Decimal("0.125")]
    far = source(a=(pa.decimal128(38, 0), [Decimal(1)]), b=(pa.decimal128(38, 38), [Decimal("0.5")]))
    with pytest.raises(MillstreamError, match="38 digits"):
        far.select(r=col("a") + col("b")).collect()


def test_decimals_beside_floats_are_the_nearest_floats() -> None:
    chance = random.Random(8)
    with localcontext(prec=60):
        values = [
            Decimal(chance.randrange(-(10**37), 10**37) // 10 ** chance.randrange(37)).scaleb(-20) for _ in range(500)
        ]
    seen = source(v=(pa.decimal128(38, 20), values)).select(r=col("v") * 1.0).collect()["r"]
    assert [(v, s) for v, s in zip(values, seen, strict=True) if float(v) != s] == []


# -- lists ---------------------------------------------------------------------------------------------------------------


def of_lists(kind: Any, lists: list[Any], **expressions: Any) -> dict[str, list[Any]]:
    """Return what expressions make of the column ``l``."""
    table = source(l=(pa.list_(kind), lists)).select(**expressions).collect().to_arrow()
    return {name: table[name].to_pylist() for name in expressions}


def nearest(exact: Fraction) -> float:
    """Return the float nearest to an exact number."""
    try:
        return exact.numerator / exact.denominator
    except OverflowError:
        return INF if exact > 0 else -INF


def test_sums_and_means_of_lists_of_floats_are_rounded_once() -> None:
    chance = random.Random(29)
    lists: list[list[float]] = [
        [1e308, 1e308],
        [1e16, 1.0, -1e16],
        [1e308, 1e308, -1e308],
        [5e-324],
        [5e-324, 0.0],
        [0.1] * 10,
    ]
    for _ in range(600):
        scale = chance.choice([1, 10, 60, 300, 1000])
        some = [
            math.ldexp(chance.uniform(-1, 1), chance.randrange(-scale, scale)) for _ in range(chance.randrange(1, 12))
        ]
        lists.append(some + ([-x for x in some[1:]] if chance.random() < 0.4 else []))
    seen = of_lists(FLOAT, lists, s=col("l").list.sum(), m=col("l").list.mean())
    for values, total, mean in zip(lists, seen["s"], seen["m"], strict=True):
        exact = sum(map(Fraction, values), Fraction())
        assert total == nearest(exact), values
        assert mean == nearest(exact / len(values)), values
    odd = of_lists(
        FLOAT, [[], None, [None], [INF, 1.0], [INF, -INF], [NAN, 1.0]], s=col("l").list.sum(), m=col("l").list.mean()
    )
    assert repr(odd["s"]) == "[0.0, None, 0.0, inf, nan, nan]"
    assert repr(odd["m"]) == "[None, None, None, inf, nan, nan]"


@pytest.mark.parametrize(
    ("kind", "low", "high"), [(INT, INT_MIN, INT_MAX), (UINT, 0, UINT_MAX), (pa.int8(), -128, 127)]
)
def test_sums_and_means_of_lists_of_integers_depend_on_the_total_alone(kind: Any, low: int, high: int) -> None:
    chance = random.Random(str(kind))
    lists = [
        [high, high, -high] if low else [high],
        [low, high],
        [high] * 3,
        [2**53 + 1, 2] if high > 2**53 else [1, 2],
    ]
    lists += [[chance.randrange(low, high + 1) for _ in range(chance.randrange(1, 5))] for _ in range(100)]
    stream = source(i=(INT, range(len(lists))), l=(pa.list_(kind), lists))
    result, sums = kept(stream, col("l").list.sum())
    least, most = RANGES[result]
    assert sums == {i: sum(v) for i, v in enumerate(lists) if least <= sum(v) <= most}
    assert kept(stream, col("l").list.mean())[1] == {i: nearest(Fraction(sum(v), len(v))) for i, v in enumerate(lists)}


def test_lists_as_sets_change_no_element() -> None:
    lists = [[-0.0, 0.0, 1.0, -0.0], [NAN, NAN, 2.0], [None, 1.0, None], [], None, [3.0, 1.0, 3.0]]
    others = [[0.0, 5.0], [NAN], [1.0, None], [-0.0], [1.0], None]
    stream = source(l=(pa.list_(FLOAT), lists), m=(pa.list_(FLOAT), others))
    out = stream.select(
        u=col("l").list.unique(),
        a=col("l").list.set_union("m"),
        i=col("l").list.set_intersection("m"),
        d=col("l").list.set_difference("m"),
    ).collect()
    assert repr(out["u"]) == "[[-0.0, 1.0], [nan, 2.0], [None, 1.0], [], None, [3.0, 1.0]]"
    assert repr(out["a"]) == "[[-0.0, 1.0, 5.0], [nan, 2.0], [None, 1.0], [-0.0], None, None]"
    assert repr(out["i"]) == "[[-0.0], [nan], [None, 1.0], [], None, None]"
    assert repr(out["d"]) == "[[1.0], [2.0], [], [], None, None]"
    words = source(l=(pa.list_(pa.string()), [["b", "a", "b"], []]), m=(pa.list_(pa.string()), [["a", "c"], ["x"]]))
    assert words.select(r=col("l").list.set_union("m")).collect()["r"] == [["b", "a", "c"], ["x"]]
    mixed = source(l=(pa.list_(UINT), [[UINT_MAX, 1], [5]]), m=(pa.list_(INT), [[-1], [5]]), i=(INT, [0, 1]))
    assert kept(mixed, col("l").list.set_union("m"))[1] == {1: [5]}


@pytest.mark.parametrize("name", ["int64", "uint64", "float64", "int8"])
def test_lists_contain_what_python_finds_in_them(name: str) -> None:
    kind, values = EDGES[name]
    items: list[Any] = [-1, 0, 1, -0.0, 2.0**53, 2**53 + 1, INT_MAX, UINT_MAX, 0.1, 2.0**64]
    lists = [[v] for v in values if not math.isnan(v)] + [[], [0, 1]]
    for item in items:
        seen = of_lists(kind, lists, r=col("l").list.contains(item))["r"]
        assert seen == [item in values for values in lists], item
    for other in ("int64", "uint64", "float64"):
        pairs = [(v, x) for v in lists for x in EDGES[other][1]]
        stream = source(l=(pa.list_(kind), [v for v, _ in pairs]), x=(EDGES[other][0], [x for _, x in pairs]))
        seen = stream.select(r=col("l").list.contains(col("x"))).collect()["r"]
        assert seen == [x in v for v, x in pairs], other


# -- times ---------------------------------------------------------------------------------------------------------------


def test_durations_times_and_by_numbers_are_pythons() -> None:
    chance = random.Random(36)
    pairs: list[tuple[int, Any]] = []
    for _ in range(800):
        micros = chance.choice([chance.randrange(-100, 100), chance.randrange(-(2**62), 2**62), 2**53 + 1])
        number = chance.choice(
            [
                chance.randrange(-9, 10),
                chance.uniform(-3, 3),
                chance.randrange(-9, 10) / 2,
                chance.uniform(-1e12, 1e12),
                1e-9,
                1,
                1.0,
            ]
        )
        pairs.append((micros, number))
    for is_float in (False, True):
        some = [(a, b) for a, b in pairs if isinstance(b, float) == is_float]
        stream = source(
            i=(INT, range(len(some))),
            a=(pa.duration("us"), [a for a, _ in some]),
            b=(FLOAT if is_float else INT, [b for _, b in some]),
        )
        for op, of in (("*", operator.mul), ("/", operator.truediv)):
            table = stream.select("i", r=of(col("a"), col("b"))).collect(parallelism=1, on_error="skip").to_arrow()
            seen = dict(zip(table["i"].to_pylist(), table["r"].cast(INT).to_pylist(), strict=True))
            for i, (a, b) in enumerate(some):
                exact = None if op == "/" and b == 0 else round(of(Fraction(a), Fraction(b)))
                if exact is None or not INT_MIN <= exact <= INT_MAX:
                    assert i not in seen, (a, op, b)
                else:
                    assert seen[i] == exact, (a, op, b)
    large = source(a=(pa.duration("us"), [2**53 + 1]), b=(pa.duration("us"), [3]))
    assert large.select(r=col("a") / col("b")).collect()["r"] == [(2**53 + 1) / 3]
    assert timedelta(microseconds=5) * 0.5 == timedelta(microseconds=2) == timedelta(microseconds=5) / 2


def test_dates_move_by_whole_days_or_not_at_all() -> None:
    day = date(2024, 2, 28)
    spans = [timedelta(0), timedelta(days=2), timedelta(days=-366), timedelta(hours=36), timedelta(microseconds=-1)]
    stream = source(i=(INT, range(5)), d=(pa.date32(), [day] * 5), s=(pa.duration("us"), spans))
    whole = {i: span for i, span in enumerate(spans) if span % timedelta(days=1) == timedelta(0)}
    assert kept(stream, col("d") + col("s"))[1] == {i: day + span for i, span in whole.items()}
    assert kept(stream, col("s") + col("d"))[1] == {i: day + span for i, span in whole.items()}
    assert kept(stream, col("d") - col("s"))[1] == {i: day - span for i, span in whole.items()}
    assert stream.select(r=col("d") - timedelta(days=1)).collect()["r"] == [date(2024, 2, 27)] * 5
    for expression in (col("d") - timedelta(hours=1), col("d") + timedelta(hours=36), timedelta(hours=25) + col("d")):
        with pytest.raises(MillstreamError, match=r"whole days.*cast it to a timestamp first"):
            stream.select(r=expression)
    seen = stream.select(r=col("d").cast(datetime) - timedelta(hours=1)).collect()["r"]
    assert seen == [datetime(2024, 2, 27, 23)] * 5


@pytest.mark.parametrize("kind", [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")], ids=str)
def test_times_of_day_compare_in_any_unit(kind: Any) -> None:
    times = [time(0), time(1, 2, 3), time(23, 59, 59)]
    stream = source(v=(kind, times), w=(pa.time64("ns"), [time(1, 2, 3)] * 3))
    for bound in (time(1, 2, 3), time(1, 2, 3, 1), time(0)):
        seen = stream.select(lt=col("v") < bound, eq=col("v") == bound, among=col("v").is_in([bound])).collect()
        assert seen["lt"] == [v < bound for v in times]
        assert seen["eq"] == seen["among"] == [v == bound for v in times]
    assert stream.select(r=col("v") >= col("w")).collect()["r"] == [False, True, True]
    assert stream.select(r=mill.coalesce("v", "w")).collect()["r"] == times


# -- files ---------------------------------------------------------------------------------------------------------------


def test_maps_with_keys_that_are_true_or_false_come_back_from_json(tmp_path: Any) -> None:
    kind = pa.map_(pa.bool_(), INT)
    rows = [[(True, 1), (False, None)], [], None]
    table = pa.table({"m": pa.array(rows, kind)})
    mill.run(mill.from_arrow(table).write_json(tmp_path / "out"))
    assert mill.read_json(tmp_path / "out", schema={"m": kind}).collect().to_arrow()["m"].to_pylist() == rows


def test_dictionaries_of_structs_are_refused_when_the_stream_is_built(tmp_path: Any) -> None:
    values = pa.array([{"x": 1}, {"x": 2}])
    table = pa.table({"d": pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), values)})
    with pytest.raises(MillstreamError, match=r'"d".*Parquet has no dictionaries'):
        mill.run(mill.from_arrow(table).write_parquet(tmp_path / "out"))
    mill.run(mill.from_arrow(table).write_json(tmp_path / "json"))
    with pytest.raises(MillstreamError, match=r'"d".*cannot be read from JSON; read it as struct'):
        mill.read_json(tmp_path / "json", schema={"d": table.schema.field("d").type})
