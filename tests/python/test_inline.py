"""Functions that stand in the loop run without a call, and do just what the call does."""

import ast
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from made_functions import FIELDS, Maker, World, failure, outcomes, typed

import millstream as mill
from millstream._bytecode import is_followed
from millstream._inline import inlined, inlined_values
from millstream._row import row_class
from millstream._view import View

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
    assert (inlined(function, fields) is not None) == is_followed()
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


def compared(seed: int) -> str:
    """Compare a made function with its call over some rows; return how it ran, or what differs."""
    maker = Maker(seed)
    source = maker.source()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            called, run = World(), World()
            call, function = called.function(source), run.function(source)
    except SyntaxError:
        return "no function"
    rows_called, rows_run = called.rows(seed, 12), run.rows(seed, 12)
    if maker.is_values:
        found = inlined_values(function)
        if found is None or found[1] != 5:
            return "called"
        rows_called, rows_run = ([row[:4] + row[6:7] for row in rows] for rows in (rows_called, rows_run))
        wanted = outcomes(lambda row: call(*row), rows_called, called)
        records, loop = iter(rows_run), found[0]
        seen = run_on(lambda results: loop(records, results), len(rows_run))
        how = "followed"
    else:
        make = row_class(FIELDS)
        wanted = outcomes(lambda row: call(tuple.__new__(make, row)), rows_called, called)
        view = View(function, FIELDS)
        is_followed = view.used is not None and inlined(function, view.fields) is not None
        how = "followed" if is_followed else "called"
        used = view.used or [True] * len(FIELDS)
        columns = [[row[place] for row in rows_run] for place, is_used in enumerate(used) if is_used]
        results: list[Any] = []
        resume = view.calls(function)(columns, len(rows_run), results)

        def some(into: list[Any]) -> None:
            results.clear()
            try:
                resume(len(rows_run))
            finally:
                into += results

        seen = run_on(some, len(rows_run))
    found_all = [seen, run.notes, run.globals["G"], run.globals["BOX"]]
    return how if repr(found_all) == repr(wanted) else f"seed {seed} differs:\n{source}\ncall: {wanted}\nloop: {found_all}"


def run_on(loop: Callable[[list[Any]], None], count: int) -> list[Any]:
    """Return the outcomes of a loop that stops at each failure, and goes on after it."""
    seen: list[Any] = []
    while len(seen) < count:
        results: list[Any] = []
        failed: list[Any] = []
        try:
            loop(results)
        except Exception as error:
            failed = [failure(error)]
        assert results or failed, "the loop gave nothing"
        seen += [typed(value) for value in results] + failed
    return seen


CASES = int(os.environ.get("MILLSTREAM_INLINE_CASES", "1500"))
SEED = int(os.environ.get("MILLSTREAM_INLINE_SEED", "0"))


def test_functions_made_up_do_what_the_call_does() -> None:
    """Values, types, exceptions with their lines, and side effects in their order; MILLSTREAM_INLINE_CASES and _SEED."""
    ways: dict[str, int] = {}
    for seed in range(SEED, SEED + CASES):
        how = compared(seed)
        assert "differs" not in how, how
        ways[how] = ways.get(how, 0) + 1
    if is_followed():
        assert ways["followed"] > CASES * 0.3, ways
        assert ways["called"] > CASES * 0.1, ways
    else:
        assert "followed" not in ways


@pytest.mark.skipif(not is_followed(), reason="nothing is followed on this interpreter")
@pytest.mark.parametrize(
    ("name", "mistaken"),
    [
        ("Reader._spill", lambda self, stack, done: None),
        ("_operation", lambda item, stack: ast.Compare(stack.pop(), [ast.Lt()], [stack.pop()], lineno=1, col_offset=0)),
        ("_is_settled", lambda value: True),
        *([("_truth", lambda value, at: value)] if sys.version_info >= (3, 13) else []),
    ],
)
def test_a_follower_that_is_mistaken_is_found_out(monkeypatch: pytest.MonkeyPatch, name: str, mistaken: Any) -> None:
    monkeypatch.setattr(f"millstream._bytecode.{name}", mistaken)

    def is_found(seed: int) -> bool:
        try:
            return "differs" in compared(seed)
        except (AssertionError, SyntaxError, ValueError):
            return True

    assert any(is_found(seed) for seed in range(400))


def test_only_known_interpreters_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    function = lambda row: not (not row.price)
    for version, name, setting, wanted in [
        ((3, 11), "cpython", "1", True),
        ((3, 14), "cpython", "1", False),
        ((3, 11), "pypy", "1", False),
        ((3, 11), "cpython", "0", False),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "version_info", (*version, 0, "final", 0))
            patch.setattr(sys, "implementation", SimpleNamespace(name=name))
            patch.setenv("MILLSTREAM_INLINE", setting)
            assert is_followed() == wanted
            if not wanted:
                assert inlined(function, ["price"]) is None
                assert View(function, ("price", "qty")).used is None


@pytest.mark.parametrize("setting", ["0", "1"])
def test_truth_is_a_truth_value(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("MILLSTREAM_INLINE", setting)
    stream = mill.from_iter([{"a": 0}, {"a": 5}])
    assert stream.map(lambda row: not (not row.a), schema={"v": bool}).collect()["v"] == [False, True]
    assert stream.map(lambda row: {"v": [row.a and 1, not row.a]}, schema={"v": object}).collect()["v"] == [[0, True], [1, False]]


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

    assert (inlined_values(scaled) is not None) == is_followed()
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
