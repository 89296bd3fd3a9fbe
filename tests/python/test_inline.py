"""Functions that stand in the loop run without a call, and do just what the call does."""

import random
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import millstream as mill
from millstream._inline import inlined, inlined_values
from millstream._row import row_class

ROWS: list[dict[str, Any]] = [{"price": float(i % 11) - 3, "qty": i % 7 - 2, "name": f"n{i % 3}"} for i in range(500)]
TYPES: dict[str, Any] = {"price": float, "qty": int, "name": str}
RATE = 0.5


def outside(value: float) -> float:
    """Fail for one value."""
    if value == 5:
        raise ValueError("five")
    return value + RATE


def graded(row: Any) -> str:
    """Branch in several ways."""
    if row.qty < 0:
        return "none"
    if row.qty in (1, 2) and not row.price > 3:
        grade = "few"
    elif row.name == "n1" or row.price is None:
        grade = "one"
    else:
        grade = row.name.upper()
    return grade + str(row.qty)


def counted(row: Any) -> int:
    """Change variables in place."""
    total = row.qty
    total += 3
    seen = [total]
    again = seen
    again += [row.qty * 2]
    seen.append(total if total > 4 else -total)
    first, last = seen[0], seen[-1]
    return first * 10 + last + len(seen)


def early(row: Any) -> float:
    """Return nothing on one of the ways, and use what waits while it branches."""
    if row.qty == 3:
        return None  # type: ignore[return-value]
    return row.price * (2 if row.qty > 0 else 3) + abs(row.qty if row.price else row.price)


def cases() -> list[tuple[Callable[[Any], Any], type]]:
    """Give functions with what they return."""
    shift = 3
    return [
        (lambda row: row.price * 0.908 + row.qty, float),
        (lambda row: row["price"] / 4 - -row["qty"], float),
        (lambda row: row.qty**2 % 3 << 1 | 4, int),
        (lambda row: row.price + shift * RATE, float),
        (lambda row: abs(row.price) + max(row.qty, 1), float),
        (lambda row: row.name.upper().replace("N", "x"), str),
        (lambda row: row.qty not in (1, 2), bool),
        (lambda row: not row.price > 2.5, bool),
        (lambda row: row.name == "n1", bool),
        (lambda row: [row.price, 1.5][0] + (row.qty, 2)[1], float),
        (lambda row: row.name is None, bool),
        (lambda row: (1, 2, 3)[row.qty % 3], int),
        (lambda row: row.price if row.qty else 0.5, float),
        (lambda row: row.qty and row.price, float),
        (lambda row: row.name or row.qty, str),
        (lambda row: 0 < row.qty < 3, bool),
        (lambda row: f"{row.name!r}: {row.price:.1f} of {row.qty}", str),
        (lambda row: row.name[:1] + row.name[1:], str),
        (lambda row: round(row.price / 3, ndigits=row.qty % 3), float),
        (graded, str),
        (counted, int),
        (early, float),
    ]


@pytest.mark.parametrize("number", range(len(cases())))
def test_an_expression_gives_what_the_call_gives(number: int) -> None:
    function, returns = cases()[number]
    fields = [name for name in TYPES if name in function.__code__.co_names or name in function.__code__.co_consts]
    assert inlined(function, fields) is not None
    found = mill.from_iter(ROWS, schema=TYPES).map(function, schema={"value": returns}).collect(parallelism=1)
    assert found["value"] == [function(row_class(tuple(TYPES))(row.values())) for row in ROWS]


def test_a_dict_and_a_tuple() -> None:
    stream = mill.from_iter(ROWS, schema=TYPES)
    schema: dict[str, Any] = {"total": float, "name": str}
    wanted = [{"total": row["price"] * row["qty"], "name": row["name"]} for row in ROWS]
    assert stream.map(lambda row: {"total": row.price * row.qty, "name": row.name}, schema=schema).collect().to_pylist() == wanted
    assert stream.map(lambda row: (row.price * row.qty, row.name), schema=schema).collect().to_pylist() == wanted


def looping(row: Any) -> float:
    """Loop."""
    total = 0.0
    for value in (row.price, row.qty):
        total += value
    return total


def trying(row: Any) -> float:
    """Try."""
    try:
        return row.price / row.qty
    except ZeroDivisionError:
        return 0.0


def unset(row: Any) -> float:
    """Use a variable that is not set on every way."""
    if row.qty:
        value = row.price
    return value


@pytest.mark.parametrize(
    "function",
    [
        lambda row: [value for value in (row.price,)],
        lambda row: (lambda: row.price)(),
        lambda row, factor=2: row.price * factor,
        looping,
        trying,
        unset,
    ],
)
def test_what_is_not_followed_is_called(function: Any) -> None:
    assert inlined(function, ["price", "qty"]) is None


def expression(draw: random.Random, names: list[str], depth: int) -> str:
    """Make an expression over numbers up, most of which can fail."""
    if depth == 0 or draw.random() < 0.2:
        return draw.choice([*names, str(draw.randrange(-3, 9)), "row.qty", "row.price"])
    one, two, three = (expression(draw, names, depth - 1) for _ in range(3))
    return draw.choice(
        [
            f"({one} {draw.choice(['+', '-', '*', '%', '//', 'and', 'or', '<', '==', '!='])} {two})",
            f"({one} if {two} else {three})",
            f"({one} < {two} <= {three})",
            f"note({one})",
            f"(not {one})",
            f"[{one}, {two}][{three} > 1]",
            f"max({one}, {two})",
        ]
    )


def block(draw: random.Random, names: list[str], depth: int, indent: str) -> list[str]:
    """Make statements up, of which the last may return."""
    lines: list[str] = []
    names = list(names)
    for _ in range(draw.randrange(1, 4)):
        choice = draw.random()
        if choice < 0.35 or depth == 0:
            name = draw.choice("abc")
            lines.append(f"{indent}{name} = {expression(draw, names, 2)}")
            names.append(name)
        elif choice < 0.5 and names:
            lines.append(f"{indent}{draw.choice(names)} {draw.choice(['+=', '-=', '*='])} {expression(draw, names, 2)}")
        elif choice < 0.6:
            lines.append(f"{indent}note({expression(draw, names, 2)})")
        else:
            lines.append(f"{indent}if {expression(draw, names, 2)}:")
            lines += block(draw, names, depth - 1, indent + "    ")
            if draw.random() < 0.6:
                lines.append(f"{indent}else:")
                lines += block(draw, names, depth - 1, indent + "    ")
    if draw.random() < 0.6:
        lines.append(f"{indent}return {expression(draw, names, 2)}")
    return lines


def test_functions_made_up_do_what_the_call_does() -> None:
    draw = random.Random(5)
    followed = 0
    for _ in range(400):
        source = "\n".join(["def made(row):", *block(draw, [], 2, "    "), "    return row.qty"])
        noted: list[Any] = []

        def note(value: Any, noted: list[Any] = noted) -> Any:
            noted.append(value)
            return value

        namespace: dict[str, Any] = {"note": note}
        exec(source, namespace)
        made = namespace["made"]
        fields = [name for name in ("price", "qty") if f"row.{name}" in source]
        loop = inlined(made, fields)
        if loop is None:
            continue
        followed += 1
        given = [(row["price"], row["qty"]) for row in ROWS[:40]]
        for price, qty in given:
            values = {"price": price, "qty": qty}
            try:
                wanted: Any = made(row_class(("price", "qty"))((price, qty)))
            except Exception as error:
                wanted = repr(error)
            called = [*noted]
            noted.clear()
            results: list[Any] = []
            try:
                loop([values[fields[0]]] if len(fields) == 1 else [(price, qty)], results)
            except Exception as error:
                results = [repr(error)]
            assert (results, noted) == ([wanted], called), source
            noted.clear()
    assert followed > 180, followed


def test_names_from_outside_are_looked_up_for_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    count = 0

    def note(value: int) -> int:
        nonlocal count
        count += 1
        seen.append(value)
        return value

    result = mill.from_iter([1, 2, 3]).map(lambda row: note(row.value) * 10 + count, schema={"value": int}).collect(parallelism=1)
    assert result["value"] == [11, 22, 33]
    assert seen == [1, 2, 3]


def test_a_failing_record_is_told_with_the_line_of_the_function() -> None:
    stream = mill.from_iter(range(10)).map(lambda row: outside(row.value), schema={"value": float})
    with pytest.raises(mill.UserFunctionError, match="five") as info:
        stream.collect()
    cause = info.value.__cause__
    assert isinstance(cause, ValueError)
    frames = traceback.extract_tb(cause.__traceback__)
    assert any(frame.filename == __file__ and "lambda row: outside(row.value)" in (frame.line or "") for frame in frames)
    skipped = mill.from_iter(range(10)).map(lambda row: outside(row.value), schema={"value": float})
    assert skipped.collect(on_error="skip")["value"] == [value + RATE for value in range(10) if value != 5]


def test_a_stop_iteration_is_an_error_of_its_record() -> None:
    stream = mill.from_iter([1, 2, 3]).map(lambda row: next(iter(())) + row.value, schema={"value": int})
    with pytest.raises(mill.UserFunctionError, match="StopIteration"):
        stream.collect()


def test_a_function_of_values_that_is_an_expression() -> None:
    def scaled(price: float, qty: int) -> float:
        return price * RATE + abs(qty)

    assert inlined_values(scaled) is not None
    function = mill.udf(returns=float)(scaled)
    rows = [*ROWS, {"price": None, "qty": 1, "name": "x"}]
    for given in (ROWS, rows):
        stream = mill.from_iter(given, schema=TYPES).select(value=function(mill.col("price"), mill.col("qty")))
        wanted = [None if row["price"] is None else scaled(row["price"], row["qty"]) for row in given]
        assert stream.collect(parallelism=1)["value"] == wanted


def test_a_function_of_values_that_fails_shows_its_line() -> None:
    @mill.udf(returns=float)
    def guarded(value: float) -> float:
        return outside(value) * 2

    with pytest.raises(mill.UserFunctionError, match="five") as info:
        mill.from_iter([1.0, 5.0]).select(value=guarded(mill.col("value"))).collect()
    cause = info.value.__cause__
    assert isinstance(cause, ValueError)
    assert any("return outside(value) * 2" in (frame.line or "") for frame in traceback.extract_tb(cause.__traceback__))


@pytest.mark.parametrize(
    "function",
    [
        lambda *values: values[0],
        lambda value, *, factor=2: value * factor,
        lambda value: [value for _ in (1,)][0],
        lambda: 1,
        int,
    ],
)
def test_a_function_of_values_that_is_more_is_called(function: Any) -> None:
    assert inlined_values(function) is None
