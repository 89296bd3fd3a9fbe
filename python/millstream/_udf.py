"""Functions of values in expressions: called row by row, or compiled by numba."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import time
import typing
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

from millstream._engine import DataType, column_function, compiled_function
from millstream._inline import inlined_values
from millstream._parameters import check_parameters
from millstream.errors import PlanError
from millstream.expr import Expr, _column
from millstream.functions import CHUNK_FIRST, check_callable, function_name, next_chunk
from millstream.types import TypeLike, data_type

__all__ = ["Udf", "udf"]

P = ParamSpec("P")
T = TypeVar("T")


class _ValueAdapter:
    """Calls a function once a row of argument columns."""

    __slots__ = ("_chunk", "_function", "_inlined", "_skips_nulls")

    def __init__(self, function: Callable[..., Any], skips_nulls: bool) -> None:
        self._function = function
        self._inlined = inlined_values(function)
        self._skips_nulls = skips_nulls
        self._chunk = CHUNK_FIRST

    def __call__(self, columns: Sequence[Sequence[Any]], count: int) -> tuple[list[Any], BaseException | None]:
        """Run the loop over one frame."""
        results: list[Any] = []
        resume = self._started(columns, count, results)
        try:
            while (done := len(results)) < count:
                began = time.perf_counter()
                resume(self._chunk)
                if len(results) == done:
                    raise RuntimeError("the function raised StopIteration")
                self._chunk = next_chunk(self._chunk, time.perf_counter() - began)
            return results, None
        except Exception as error:
            return [], error

    def _started(self, columns: Sequence[Sequence[Any]], count: int, results: list[Any]) -> Callable[[int], None]:
        """Return a function that continues the loop over a frame for so many rows."""
        function = self._function
        has_null = self._skips_nulls and any(type(column) is list and None in column for column in columns)
        if self._inlined is not None and not has_null and len(columns) == self._inlined[1]:
            loop = self._inlined[0]
            records = iter(columns[0]) if len(columns) == 1 else zip(*columns)
            return lambda chunk: loop(itertools.islice(records, chunk), results)
        if not columns:
            calls: Any = (function() for _ in range(count))
        elif has_null:
            calls = (None if None in pair else function(*pair) for pair in zip(*columns))
        else:
            calls = map(function, *columns)
        return lambda chunk: results.extend(itertools.islice(calls, chunk))


class _CompiledAdapter:
    """Compiles a function to machine code for arguments of given types, and keeps the code alive."""

    __slots__ = ("_code", "_function")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._code: list[Any] = []

    def address(self, types: list[str]) -> tuple[int, str]:
        """Return the address of a loop over columns, and the type of its results.

        The loop returns the row that raised, or -1. Results come in the type that the function has by itself; the engine
        converts them to the declared one exactly.
        """
        import numba
        import numpy as np

        from millstream._compiled import checked, result_kind

        inner = checked(self._function)
        kind = result_kind(inner, tuple(numba.typeof(getattr(np, name)(0)) for name in types))
        namespace: dict[str, Any] = {"carray": vars(numba)["carray"], "inner": inner, "returns": getattr(np, kind)}
        lines = ["def loop(count, columns, out):", "    results = carray(out, (count,), dtype=returns)"]
        for place, name in enumerate(types):
            namespace[f"type_{place}"] = getattr(np, name)
            lines.append(f"    c{place} = carray(columns[{place}], (count,), dtype=type_{place})")
        values = ", ".join(f"c{place}[row]" for place in range(len(types)))
        lines += [
            "    for row in range(count):",
            "        try:",
            f"            results[row] = inner({values})",
            "        except Exception:",
            "            return row",
            "    return -1",
        ]
        exec(compile("\n".join(lines), "<millstream compiled loop>", "exec"), namespace)
        code: Any = numba.cfunc("int64(int64, CPointer(voidptr), voidptr)")(namespace["loop"])
        self._code.append((inner, code))
        return int(code.address), kind

    def again(self, values: list[Any]) -> Any:
        """Call the function in the interpreter, to see what it raises."""
        return self._function(*values)


class Udf(Generic[P, T]):
    """A function of values that can be used in expressions; made by :func:`udf`.

    Called with expressions or names of columns, it returns an expression. Called with other values, it is the function
    itself, which is also available as ``__wrapped__``, for text.

    Examples
    --------
    >>> @mill.udf(returns=int)
    ... def double(x):
    ...     return 2 * x
    >>> double(4), double.__wrapped__("a")
    (8, 'aa')
    >>> double(col("n"))
    <Expr double(col("n"))>
    """

    def __init__(self, function: Callable[P, T], returns: DataType, skips_nulls: bool, is_compiled: bool) -> None:
        self._function = function
        self._returns = returns
        self._is_compiled = is_compiled
        self._adapter: Any = _CompiledAdapter(function) if is_compiled else _ValueAdapter(function, skips_nulls)
        functools.update_wrapper(self, function)

    @overload
    def __call__(self, *args: Expr | str) -> Expr: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return an expression if an argument is one or names a column, else call the function."""
        if not any(isinstance(arg, (Expr, str)) for arg in args):
            return self._function(*args, **kwargs)
        if kwargs:
            raise PlanError(f"{function_name(self._function)} takes no keyword arguments in an expression")
        check_parameters(self._function, "an expression", *(f"value_{place}" for place in range(1, len(args) + 1)))
        raws = [_column(arg) for arg in args]
        make = compiled_function if self._is_compiled else column_function
        return Expr(make(function_name(self._function), self._adapter, self._returns, raws))


@overload
def udf(function: Callable[P, T], /) -> Udf[P, T]: ...
@overload
def udf(
    *, returns: TypeLike = None, skip_nulls: bool = True, compiled: bool = False
) -> Callable[[Callable[P, T]], Udf[P, T]]: ...
def udf(
    function: Callable[P, T] | None = None,
    /,
    *,
    returns: TypeLike = None,
    skip_nulls: bool = True,
    compiled: bool = False,
) -> Udf[P, T] | Callable[[Callable[P, T]], Udf[P, T]]:
    """Make a function of values usable in expressions.

    Parameters
    ----------
    function
        The function, where the decorator is written without parentheses; its annotation is the type of the result.
    returns
        The type of the result; by default the annotation.
    skip_nulls
        Whether a row with a null argument is null without a call.
    compiled
        Whether numba compiles it to machine code, which runs on all cores at once; for numbers and truth values. A row with
        a null argument is then null.

    Returns
    -------
    Udf
        A function that takes expressions or names of columns and returns an expression; without ``function``, a decorator.

    Raises
    ------
    PlanError
        When the function cannot be called or is asynchronous, the type of its result is not known, or ``compiled`` is set
        and numba is not installed.
    SchemaError
        When ``returns`` is not a type.
    UserFunctionError
        When the job runs and the function raises, or its result does not fit the type.

    Notes
    -----
    A compiled function returns what it returns in the interpreter: a float with a fraction where ``returns`` is ``int``, or
    an integer beyond 64 bits, is an error of its record. Where numba itself differs, it stays so: functions of ``math``
    return NaN where Python's raise.

    Examples
    --------
    >>> @mill.udf(returns=float)
    ... def with_tax(price):
    ...     return price * 1.19
    >>> mill.from_iter([100.0, None]).select(gross=with_tax("value")).collect().to_pylist()
    [{'gross': 119.0}, {'gross': None}]
    >>> @mill.udf
    ... def initial(name: str) -> str:
    ...     return name[:1]
    >>> mill.from_iter(["Ada"]).select(first=initial("value")).collect().to_pylist()
    [{'first': 'A'}]
    """

    def wrap(function: Callable[P, T]) -> Udf[P, T]:
        check_callable(function, "udf")
        if compiled:
            if importlib.util.find_spec("numba") is None:
                raise PlanError("udf(compiled=True) needs numba: pip install numba")
            if not skip_nulls:
                raise PlanError("udf(compiled=True) passes no nulls to the function; remove skip_nulls=False")
        if returns is not None:
            return Udf(function, data_type(returns, place="returns"), skip_nulls, compiled)
        hint = None
        try:
            hint = typing.get_type_hints(function).get("return")
        except (NameError, TypeError):
            pass
        if hint is None:
            raise PlanError(f"udf(): the type that {function_name(function)} returns is not known; write @udf(returns=float) or annotate it")
        return Udf(function, data_type(hint, place=f"{function_name(function)}() ->"), skip_nulls, compiled)

    return wrap if function is None else wrap(function)
